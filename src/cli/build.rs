//! `nearside build MODEL.onnx -o DIR`.

use super::model::{Wasmtime, compile_file, parse_dim, parse_input};
use super::{Output, npy};
use crate::compile::Options;
use crate::error::{Error, Kind, Result};
use crate::kernel::Fusion;
use crate::package::{self, Entry};
use crate::plan::weights::WeightType;
use crate::tensor::{DimRange, Sym};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The arguments of `nearside build`.
#[derive(Debug, clap::Args)]
#[command(disable_version_flag = true)]
pub(super) struct Args {
    /// The ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// The package folder to write; it must not exist, be empty, or hold a package
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// The package's name [default: the file's name]
    #[arg(long)]
    name: Option<String>,
    /// The package's version
    #[arg(long, default_value = "1.0.0")]
    version: String,
    /// Bounds of a symbolic dimension, as NAME=MIN..MAX or NAME=N; those not named are fixed at 1
    #[arg(long = "dim", value_name = "NAME=MIN..MAX", value_parser = parse_dim)]
    dims: Vec<(Sym, DimRange)>,
    /// An input that becomes a constant, so that shapes may depend on it
    #[arg(long = "constant", value_name = "NAME=FILE.npy", value_parser = parse_input)]
    constants: Vec<(String, PathBuf)>,
    /// How float32 weights are stored and downloaded
    #[arg(long, value_enum, default_value = "f32")]
    weights: Weights,
    /// Inputs whose outputs every device must reproduce before it is trusted [default: made up]
    #[arg(long, value_name = "IN.npz")]
    golden: Option<PathBuf>,
    /// Compile every operator by itself, without fusion (to find out which one is wrong)
    #[arg(long)]
    unfused: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Weights {
    F32,
    F16,
}

#[derive(Serialize)]
struct Built<'a> {
    package: &'a Path,
    name: String,
    version: String,
    kernels: usize,
    dispatches: Option<usize>,
    weights_bytes: u64,
    notes: Vec<String>,
    seconds: f64,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let start = Instant::now();
    let stem = args.model.file_stem().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| stem.replace(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c), "-"));
    package::check_name(&name)?;
    check_folder(&args.output)?;
    let options = Options {
        name,
        version: args.version.clone(),
        dims: args.dims.iter().cloned().collect(),
        constants: args.constants.iter().map(|(n, p)| Ok((n.clone(), npy::read(p)?))).collect::<Result<_>>()?,
        weights: match args.weights {
            Weights::F32 => WeightType::F32,
            Weights::F16 => WeightType::F16,
        },
        fusion: if args.unfused { Fusion::Off } else { Fusion::On },
    };
    let compiled = compile_file(&args.model, &options, output)?;
    let inputs = match &args.golden {
        Some(path) => {
            let all = npy::read_archive(path)?;
            package::named_inputs(&compiled.plan, &all).map_err(|e| e.at(path.display()))?
        }
        None => package::default_inputs(&compiled.plan)?,
    };
    let spinner = output.spinner("computing golden outputs");
    let golden = package::golden(&compiled, inputs, &Wasmtime);
    spinner.finish_and_clear();
    let golden = golden?;
    let built = Built {
        package: &args.output,
        name: compiled.plan.name.clone(),
        version: compiled.plan.version.clone(),
        kernels: compiled.plan.cpu.kernels.len(),
        dispatches: compiled.plan.gpu.as_ref().map(|g| g.dispatches.len()),
        weights_bytes: compiled.plan.packs.iter().map(|p| p.size).sum(),
        notes: compiled.report.notes.clone(),
        seconds: 0.0,
    };
    let entries = package::files(compiled, &golden)?;
    write(&args.output, &entries)?;
    let built = Built { seconds: start.elapsed().as_secs_f64(), ..built };
    let text = format!(
        "Built {}@{} in {:.1} s: {} kernels on wasm, {} on WebGPU, {} of weights\n  {}\n  see {}",
        built.name,
        built.version,
        built.seconds,
        built.kernels,
        built.dispatches.map_or_else(|| "none".into(), |n| format!("{n} dispatches")),
        package::size(built.weights_bytes),
        args.output.display(),
        args.output.join("report.html").display(),
    );
    output.result(&built, text)
}

/// Only a folder that holds nothing, or a package, is written over.
fn check_folder(folder: &Path) -> Result<()> {
    let Ok(mut entries) = std::fs::read_dir(folder) else { return Ok(()) };
    if entries.next().is_none() || folder.join("manifest.json").is_file() {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, "the folder is not empty and holds no package")
        .at(folder.display())
        .help("name another folder with -o, or empty this one"))
}

/// Writes the package beside its place, then moves it there: a folder is a whole package or none.
fn write(folder: &Path, entries: &[Entry]) -> Result<()> {
    let io = |path: &Path| {
        let place = path.display().to_string();
        move |e: std::io::Error| Error::new(Kind::Io, e.to_string()).at(&place)
    };
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(io(parent))?;
    let new = parent.join(format!(".nearside-{}", std::process::id()));
    let result = (|| {
        for e in entries {
            let path = new.join(&e.path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(io(parent))?;
            }
            std::fs::write(&path, &e.bytes).map_err(io(&path))?;
        }
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(io(folder))?;
        }
        std::fs::rename(&new, folder).map_err(io(folder))
    })();
    if result.is_err() {
        // What is left of it is of no use; the error that led here is what counts.
        let _ = std::fs::remove_dir_all(&new);
    }
    result
}
