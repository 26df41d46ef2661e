//! `nearside bench DIR`: how long a run takes on each native device.

use super::Output;
use super::model::{self, open, parse_dim};
use crate::error::{Error, Kind, Result};
use crate::package;
use crate::runtime::native::DeviceName;
use crate::tensor::{DimRange, Sym};
use serde::Serialize;
use std::path::PathBuf;

/// The arguments of `nearside bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A package folder or an ONNX file
    #[arg(value_name = "DIR|MODEL")]
    model: PathBuf,
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
    /// Threads on the CPU
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Timed runs, after two that are not counted
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Bounds of a symbolic dimension of an ONNX file
    #[arg(long = "dim", value_name = "NAME=MIN..MAX", value_parser = parse_dim)]
    dims: Vec<(Sym, DimRange)>,
    /// Print the time of each kernel as well (CPU)
    #[arg(long)]
    profile: bool,
}

/// Milliseconds.
#[derive(Serialize)]
struct Timed {
    device: String,
    runs: usize,
    min: f64,
    median: f64,
    max: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kernels: Vec<(String, f64)>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    if args.runs == 0 {
        return Err(Error::new(Kind::InvalidInput, "--runs 0 times nothing").help("give 1 or more"));
    }
    let package = open(&args.model, &args.dims.iter().cloned().collect(), output)?;
    let inputs = package::default_inputs(&package.plan)?;
    let mut device = model::open_device(args.device, &package, args.threads)?;
    let bar = output.steps("running", args.runs as u64 + 2);
    let mut times = vec![];
    for i in 0..args.runs + 2 {
        let (_, elapsed) = device.run_timed(&package.plan, &inputs)?;
        if i >= 2 {
            times.push(elapsed.as_secs_f64() * 1e3);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    times.sort_by(f64::total_cmp);
    let kernels = if args.profile { device.profile(&package.plan, args.runs)? } else { vec![] };
    let t = Timed {
        device: device.describe(),
        runs: args.runs,
        min: times[0],
        median: times[times.len() / 2],
        max: times[times.len() - 1],
        kernels,
    };
    let mut text = format!("{}: median {:.3} ms ({:.3} to {:.3}, {} runs)\n", t.device, t.median, t.min, t.max, t.runs);
    let mut slowest: Vec<&(String, f64)> = t.kernels.iter().collect();
    slowest.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, ms) in slowest {
        text.push_str(&format!("  {ms:9.4} ms  {name}\n"));
    }
    output.result(&t, text)
}
