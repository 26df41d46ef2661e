//! The command line: parse, call, print. No logic of its own.
//!
//! A command is one file with `Args` (clap) and `run(&Args, &Output) -> Result<()>`, and one row of [`Command`].

mod bench;
mod build;
mod check;
mod inspect;
mod model;
mod npy;
mod output;
mod publish;
mod run;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Error, Kind, Result};
pub use output::Output;

/// Compiles ONNX models to WebAssembly and WGSL, publishes and serves them.
#[derive(Debug, Parser)]
#[command(name = "nearside", version, after_help = EXIT_CODES, propagate_version = true)]
struct Cli {
    /// Print the result, or the error, as one line of JSON on standard output
    #[arg(long, global = true)]
    json: bool,
    /// No progress bars and no notes, only results and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// What to log on standard error: a level or tracing directives, such as "info,nearside::serve=debug"
    #[arg(long, global = true, value_name = "FILTER", env = "NEARSIDE_LOG")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

/// The commands. Each is a file of this module.
#[derive(Debug, Subcommand)]
enum Command {
    /// Compile an ONNX file into a package
    Build(build::Args),
    /// Show what an ONNX file or a package consists of
    Inspect(inspect::Args),
    /// Run a model on tensors from files
    Run(run::Args),
    /// Compute a package's golden outputs on every device, and compare
    Check(check::Args),
    /// Time a model on a device
    Bench(bench::Args),
    /// Verify a package and publish it into an object store
    Publish(publish::Args),
    /// Serve the models of an object store over HTTP, and a folder of files beside them
    Serve(serve::Args),
}

impl Command {
    fn run(&self, output: &Output) -> Result<()> {
        match self {
            Command::Build(args) => build::run(args, output),
            Command::Inspect(args) => inspect::run(args, output),
            Command::Run(args) => run::run(args, output),
            Command::Check(args) => check::run(args, output),
            Command::Bench(args) => bench::run(args, output),
            Command::Publish(args) => publish::run(args, output),
            Command::Serve(args) => serve::run(args, output),
        }
    }

    /// What is logged unless `--log` says otherwise.
    fn default_log(&self) -> &'static str {
        match self {
            Command::Serve(_) => "info",
            _ => "warn",
        }
    }
}

/// The exit codes, as `--help` shows them. [`exit_code`] is the table.
const EXIT_CODES: &str = "Exit codes:
  0    success
  1    a defect in Nearside, or reading or writing failed
  2    wrong arguments or inputs
  3    the model is not valid or not supported
  4    a package is damaged, of another format version, or fails its digests
  5    no such model, version, file or tensor
  6    it exists already and may not be changed
  7    no such device, its limits are too small, or it was lost
  8    the network failed or took too long
  9    a device computes something else than the golden outputs
  130  stopped by the user";

/// The exit code of an error.
fn exit_code(kind: Kind) -> u8 {
    use Kind::*;
    match kind {
        InvalidInput | DimOutOfBounds | Disposed => 2,
        InvalidModel | UnsupportedOp | UnsupportedType | InvalidShape | Overflow => 3,
        InvalidPackage | FormatVersion | Integrity => 4,
        NotFound => 5,
        Conflict => 6,
        DeviceUnavailable | DeviceLimit | DeviceLost => 7,
        Network | Timeout => 8,
        GoldenMismatch => 9,
        Aborted => 130,
        Io | QuotaExceeded | Internal => 1,
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os().collect()))
}

/// Runs the program with these arguments, the first being its name, and gives the exit code.
fn run(args: Vec<OsString>) -> u8 {
    // Needed for arguments that do not parse, too.
    let json = args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() || !json => {
            let code = if error.use_stderr() { 2 } else { 0 };
            return if error.print().is_ok() { code } else { 1 };
        }
        Err(error) => {
            let text = error.render().to_string();
            let error = Error::new(Kind::InvalidInput, text.trim().trim_start_matches("error: "));
            Output::new(true, true).error(&error);
            return 2;
        }
    };
    let output = Output::new(cli.json, cli.quiet);
    let result = log_to_stderr(&cli).and_then(|()| cli.command.run(&output));
    match result {
        Ok(()) => 0,
        Err(error) => {
            output.error(&error);
            exit_code(error.kind())
        }
    }
}

/// Sends the log to standard error: JSON lines with `--json`, else text.
fn log_to_stderr(cli: &Cli) -> Result<()> {
    let filter = cli.log.as_deref().unwrap_or(cli.command.default_log());
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|e| Error::new(Kind::InvalidInput, e.to_string()).at("--log"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colour = anstream::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // A second logger in one process is refused; the first one stands.
    let _ = if cli.json { log.json().try_init() } else { log.with_ansi(colour).try_init() };
    Ok(())
}

/// The bytes of a file.
fn read_file(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io };
        Error::new(kind, e.to_string()).at(path.display())
    })
}

/// A runtime for commands that do I/O of many things at once.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Kind::Internal, format!("cannot start threads: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_documented() {
        use Kind::*;
        let kinds = [
            InvalidModel,
            UnsupportedOp,
            UnsupportedType,
            InvalidShape,
            DimOutOfBounds,
            InvalidInput,
            InvalidPackage,
            FormatVersion,
            Integrity,
            Network,
            Timeout,
            Aborted,
            DeviceUnavailable,
            DeviceLimit,
            DeviceLost,
            GoldenMismatch,
            QuotaExceeded,
            Disposed,
            Overflow,
            Io,
            NotFound,
            Conflict,
            Internal,
        ];
        for kind in kinds {
            let line = format!("\n  {} ", exit_code(kind));
            assert!(EXIT_CODES.contains(&line), "{kind:?}");
        }
    }

    #[test]
    fn wrong_arguments_end_with_2_and_help_with_0() {
        let code = |args: &[&str]| run(args.iter().map(OsString::from).collect());
        assert_eq!(code(&["nearside", "--help"]), 0);
        assert_eq!(code(&["nearside", "--version"]), 0);
        assert_eq!(code(&["nearside"]), 2);
        assert_eq!(code(&["nearside", "nonsense"]), 2);
        assert_eq!(code(&["nearside", "nonsense", "--json"]), 2);
        assert_eq!(code(&["nearside", "publish", "/does/not/exist", "--store", "memory://", "--json"]), 5);
        assert_eq!(code(&["nearside", "publish", "/does/not/exist", "--store", "ftp://x", "--json"]), 2);
    }
}
