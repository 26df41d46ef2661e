//! `cargo xtask bench`: Nearside, onnxruntime-web and RTen in one Chromium page, in turn.

mod figures;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::packages::{BENCH, Package};
use crate::{build, harness, models, peers, process, setup, sizes};
use figures::{Figures, Measured};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the figures as one flat JSON object at the end
    #[arg(long)]
    json: bool,
    /// Print the table as Markdown and write it into the README
    #[arg(long)]
    markdown: bool,
    /// The models to measure [default: all]
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// The devices to measure [default: all]
    #[arg(long, value_enum)]
    device: Vec<Device>,
    /// Seconds that the interleaved runs of one model on one device may take, about
    #[arg(long, default_value_t = 12)]
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Device {
    /// WebAssembly on one thread
    Wasm1,
    /// WebAssembly on two threads
    Wasm2,
    /// WebGPU on Chromium's software adapter
    Webgpu,
}

impl Device {
    const ALL: [Device; 3] = [Device::Wasm1, Device::Wasm2, Device::Webgpu];

    fn name(self) -> &'static str {
        match self {
            Device::Wasm1 => "wasm1",
            Device::Wasm2 => "wasm2",
            Device::Webgpu => "webgpu",
        }
    }

    /// The runners that are compared on it, ours first.
    fn runners(self) -> &'static [&'static str] {
        match self {
            Device::Wasm1 => &["nearside-wasm1", "ort-wasm1", "rten-wasm1"],
            Device::Wasm2 => &["nearside-wasm2", "ort-wasm2"],
            Device::Webgpu => &["nearside-webgpu", "ort-webgpu", "ort-webgpu-capture"],
        }
    }
}

/// A model's inputs, the output that is compared, and the dims that are fixed for the peers.
struct Subject {
    name: &'static str,
    case: &'static str,
    inputs: &'static [&'static str],
    output: &'static str,
    dims: &'static [(&'static str, u64)],
}

const SUBJECTS: [Subject; 3] = [
    Subject {
        name: "minilm",
        case: "sequence-128",
        inputs: &["input_ids", "attention_mask", "token_type_ids"],
        output: "sentence_embedding",
        dims: &[("batch", 1), ("sequence", 128)],
    },
    Subject { name: "resnet50", case: "coffee", inputs: &["data"], output: "probs", dims: &[] },
    Subject { name: "efficientnet-lite0", case: "coffee", inputs: &["input"], output: "probs", dims: &[("batch", 1)] },
];

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run()?;
    let models = models::ensure()?;
    let rten = peers::rten()?;
    let nearside = build::native("nearside", "nearside")?;
    build::package()?;
    let subjects: Vec<&Subject> =
        SUBJECTS.iter().filter(|s| args.model.is_empty() || args.model.iter().any(|name| name == s.name)).collect();
    if subjects.is_empty() {
        bail!("no such model; there are {}", SUBJECTS.map(|subject| subject.name).join(", "));
    }
    let mut packages = Vec::new();
    for subject in &subjects {
        let recipe = BENCH.iter().find(|recipe| recipe.name == subject.name).context("a model without a recipe")?;
        packages.push(recipe.build(&nearside, &models)?);
    }
    let devices = if args.device.is_empty() { Device::ALL.to_vec() } else { args.device.clone() };
    let measured = measure(args, &subjects, &packages, &devices, &models, &rten)?;
    let flops = flops(&models)?;
    let mut figures = Figures::new(&measured, &devices, &flops)?;
    sizes(&mut figures, &subjects, &packages)?;
    let table = table::render(&measured, &figures, &devices, args.markdown);
    print!("{table}");
    if args.markdown {
        write_readme(&table)?;
    }
    if args.json {
        println!("{}", figures.json());
    }
    Ok(())
}

/// Puts the table between its markers in the README.
fn write_readme(table: &str) -> Result<()> {
    const BEGIN: &str = "<!-- benchmarks: begin -->\n";
    const END: &str = "<!-- benchmarks: end -->";
    let path = process::root().join("README.md");
    let text = std::fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).context("README.md has no place for the benchmarks")?;
    let (_, after) = rest.split_once(END).context("README.md has no end of the benchmarks")?;
    std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}"))?;
    Ok(())
}

/// Has the page measure.
fn measure(
    args: &Args,
    subjects: &[&Subject],
    packages: &[Package],
    devices: &[Device],
    models: &models::Models,
    rten: &PathBuf,
) -> Result<Measured> {
    let root = process::root();
    let mut mounts = json!({
        "/bench": root.join("benches/page"),
        "/js": harness::folder(),
        "/node_modules": root.join("node_modules"),
        "/rten": rten,
        "/models": models.folder,
        "/pkg": root.join("pkg/dist"),
    });
    let mut specs = Vec::new();
    for (subject, package) in subjects.iter().zip(packages) {
        let mount = format!("/packages/{}", subject.name);
        mounts[&mount] = json!(package.folder);
        let reference = format!("/models/reference/{}/{}", subject.name, subject.case);
        let inputs = subject.inputs.iter().map(|n| ((*n).to_owned(), json!(format!("{reference}/inputs/{n}.npy"))));
        let dims = subject.dims.iter().map(|(name, n)| ((*name).to_owned(), json!(n)));
        specs.push(json!({
            "name": subject.name,
            "onnx": format!("/models/{}.onnx", subject.name),
            "package": format!("{mount}/"),
            "inputs": Value::Object(inputs.collect()),
            "output": subject.output,
            "expected": format!("{reference}/outputs/{}.npy", subject.output),
            "dims": Value::Object(dims.collect()),
        }));
    }
    let config = json!({
        "js": harness::folder(),
        "mounts": mounts,
        "models": specs,
        "groups": devices.iter().map(|device| device.runners()).collect::<Vec<_>>(),
        "budgetMs": args.seconds * 1000,
    });
    let mut last = String::new();
    harness::node("benches/bench.js", &config, |line| line.clone_into(&mut last))?;
    serde_json::from_str(&last).with_context(|| format!("the benchmark printed {last:?}"))
}

/// Multiplications and additions of each model's contractions.
fn flops(models: &models::Models) -> Result<Value> {
    let answers: Value = serde_json::from_slice(&std::fs::read(models.folder.join("answers.json"))?)?;
    Ok(answers["flops"].clone())
}

/// What a client downloads, after Brotli: the runtime, and each model's code in the variant that Chromium takes.
fn sizes(figures: &mut Figures, subjects: &[&Subject], packages: &[Package]) -> Result<()> {
    figures.size("size/runtime_brotli", sizes::runtime()?);
    for (subject, package) in subjects.iter().zip(packages) {
        figures.size(&format!("size/{}_wasm_brotli", subject.name), sizes::model(package)?);
    }
    Ok(())
}
