//! `nearside inspect MODEL|DIR`.

use super::model::open;
use super::{Output, read_file};
use crate::error::Result;
use crate::graph::Contents;
use crate::onnx::{self, Folder};
use crate::runtime::signature::Signature;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The arguments of `nearside inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An ONNX file or a package folder
    #[arg(value_name = "MODEL|DIR")]
    model: PathBuf,
    /// Print the whole graph, too (ONNX files)
    #[arg(long)]
    graph: bool,
}

#[derive(Serialize)]
struct PackageFolder {
    signature: Signature,
    kernels: Vec<String>,
    dispatches: Option<Vec<String>>,
    weights_bytes: u64,
    wasm_memory: u64,
    gpu_bytes: Option<u64>,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<()> {
    if args.model.is_dir() {
        return package(args, output);
    }
    let folder = args.model.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut g = onnx::read(&read_file(&args.model)?, &Folder(folder)).map_err(|e| e.at(args.model.display()))?;
    let file = Contents::of(&mut g);
    let list = |title: &str, rows: &[String]| {
        format!("{title}\n{}", rows.iter().map(|r| format!("  {r}\n")).collect::<String>())
    };
    let rows: Vec<String> = file.ops.iter().map(|(op, n)| format!("{n:5}  {op}")).collect();
    let mut text = format!(
        "{}, {} parameters\n{}{}{}",
        file.name,
        file.parameters,
        list("inputs", &file.inputs),
        list("outputs", &file.outputs),
        list("operators", &rows)
    );
    if let Some(why) = &file.untyped {
        text.push_str(&format!(
            "not all types are known without the sizes of the inputs (build takes --dim)\n  {why}\n"
        ));
    }
    if args.graph {
        text.push_str(&g.to_string());
    }
    output.result(&file, text)
}

fn package(args: &Args, output: &Output) -> Result<()> {
    let p = open(&args.model, &BTreeMap::new(), output)?;
    let found = PackageFolder {
        signature: Signature::of(&p.plan),
        kernels: p.plan.cpu.kernels.clone(),
        dispatches: p.plan.gpu.as_ref().map(|g| g.dispatches.iter().map(|d| d.name.clone()).collect()),
        weights_bytes: p.plan.packs.iter().map(|p| p.size).sum(),
        wasm_memory: p.plan.cpu.memory,
        gpu_bytes: p.plan.gpu_bytes(),
    };
    let report = read_file(&args.model.join("report.txt"))?;
    output.result(&found, String::from_utf8_lossy(&report))
}
