//! Runs cases of ONNX's backend tests, one a line of standard input, and prints a line of JSON for each.
//!
//! `cargo xtask conformance` starts several of these, so that a case that crashes or hangs costs only itself.
//!
//! usage: conformance cpu|gpu|pack [--unfused]. A line is the folder of a case; for `pack`, a tab and a folder to write
//! the compiled package and `case.json` to follow.

mod case;
mod device;
mod pack;

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use device::Device;
use nearside::error::{Error, Kind, Result};
use nearside::kernel::Fusion;
use nearside::plan::golden;
use serde::Serialize;

/// What ONNX's own runner allows where a test states nothing else, which no node test does.
const ATOL: f64 = 1e-7;
const RTOL: f64 = 1e-3;

/// The line that is printed for a case.
#[derive(Serialize)]
struct Verdict {
    passed: bool,
    /// Inputs that were bound at build time.
    bound: Vec<String>,
    error: Option<String>,
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let fusion = if arguments.next().as_deref() == Some("--unfused") { Fusion::Off } else { Fusion::On };
    let device = Device::new(&mode)?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(io)?;
        let verdict = match run(&line, fusion, &device) {
            Ok(bound) => Verdict { passed: true, bound, error: None },
            Err(error) => Verdict { passed: false, bound: Vec::new(), error: Some(error.to_string()) },
        };
        let text = serde_json::to_string(&verdict).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(io)?;
    }
    Ok(())
}

fn run(line: &str, fusion: Fusion, device: &Device) -> Result<Vec<String>> {
    let (folder, to) = line.split_once('\t').unwrap_or((line, ""));
    let case = case::Case::read(Path::new(folder))?;
    let built = case.build(fusion, &device::Wasmtime)?;
    let bound = built.bound.clone();
    let expected = golden::Case { inputs: built.inputs.clone(), outputs: case.outputs };
    let golden = golden::Golden { atol: ATOL, rtol: RTOL, spread: 0.0, cases: vec![expected.clone()] };
    match device {
        Device::Pack => pack::write(Path::new(to), built, &golden, &expected)?,
        Device::Native(name) => {
            let outputs = device::run(*name, &built)?;
            golden.compare(&built.compiled.plan, &expected, &outputs)?;
        }
    }
    Ok(bound)
}

fn io(error: std::io::Error) -> Error {
    Error::new(Kind::Io, error.to_string())
}
