//! `nearside run MODEL|DIR --input NAME=FILE.npy… --output-dir OUT`.

use super::model::{self, open, parse_dim, parse_input};
use super::{Output, npy};
use crate::error::{Error, Kind, Result};
use crate::package;
use crate::plan::Plan;
use crate::runtime::native::DeviceName;
use crate::tensor::{Array, DimRange, Sym};
use serde::Serialize;
use std::path::PathBuf;

/// The arguments of `nearside run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An ONNX file or a package folder
    #[arg(value_name = "MODEL|DIR")]
    model: PathBuf,
    /// An input tensor; made up where none is given for any input
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = parse_input)]
    inputs: Vec<(String, PathBuf)>,
    /// Where to write NAME.npy for each output
    #[arg(long, value_name = "OUT")]
    output_dir: PathBuf,
    /// What runs it: model.wasm under wasmtime, or WGSL on a native GPU
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
    /// Threads on the CPU
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Bounds of a symbolic dimension of an ONNX file
    #[arg(long = "dim", value_name = "NAME=MIN..MAX", value_parser = parse_dim)]
    dims: Vec<(Sym, DimRange)>,
}

#[derive(Serialize)]
struct Ran {
    device: String,
    milliseconds: f64,
    outputs: Vec<Written>,
}

#[derive(Serialize)]
struct Written {
    name: String,
    file: PathBuf,
    dtype: &'static str,
    shape: Vec<usize>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    let package = open(&args.model, &args.dims.iter().cloned().collect(), output)?;
    let inputs = inputs(args, &package.plan)?;
    let mut device = model::open_device(args.device, &package, args.threads)?;
    let (outputs, elapsed) = device.run_timed(&package.plan, &inputs)?;
    std::fs::create_dir_all(&args.output_dir)
        .map_err(|e| Error::new(Kind::Io, e.to_string()).at(args.output_dir.display()))?;
    let mut written = vec![];
    for (port, array) in package.plan.outputs.iter().zip(&outputs) {
        let file = args.output_dir.join(format!("{}.npy", port.name.replace(['/', '\\', ':'], "_")));
        std::fs::write(&file, npy::bytes(array)?)
            .map_err(|e| Error::new(Kind::Io, e.to_string()).at(file.display()))?;
        written.push(Written {
            name: port.name.clone(),
            file,
            dtype: array.dtype().name(),
            shape: array.shape().to_vec(),
        });
    }
    let ran = Ran { device: device.describe(), milliseconds: elapsed.as_secs_f64() * 1e3, outputs: written };
    let mut text = format!("Ran on {} in {:.2} ms\n", ran.device, ran.milliseconds);
    for w in &ran.outputs {
        text.push_str(&format!("  {} {} {:?}  {}\n", w.name, w.dtype, w.shape, w.file.display()));
    }
    output.result(&ran, text)
}

/// The inputs in the order of the signature: from files, or all made up.
fn inputs(args: &Args, plan: &Plan) -> Result<Vec<Array>> {
    if args.inputs.is_empty() {
        return package::default_inputs(plan);
    }
    let names = || plan.inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some((unknown, _)) = args.inputs.iter().find(|(n, _)| !plan.inputs.iter().any(|p| p.name == *n)) {
        return Err(Error::new(Kind::InvalidInput, format!("the model has no input \"{unknown}\""))
            .help(format!("its inputs are: {}", names())));
    }
    plan.inputs
        .iter()
        .map(|p| match args.inputs.iter().find(|(n, _)| *n == p.name) {
            Some((_, path)) => npy::read(path),
            None => Err(Error::new(Kind::InvalidInput, format!("no file for input \"{}\"", p.name))
                .help(format!("give --input NAME=FILE.npy for each of: {}", names()))),
        })
        .collect()
}
