//! `cargo xtask conformance`: ONNX's node tests on the CPU, on native WebGPU and in Chromium.
//!
//! `tests/conformance/DEVICE.txt` lists the cases that pass. A listed case that fails is an error, and so is an unlisted
//! one that passes, so that the list says what is true; `--bless` adds to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{build, harness, models, process, progress, workers};

/// How long a case may take, all in all.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the counts as one line of JSON at the end
    #[arg(long)]
    json: bool,
    /// Where the cases run; may be given several times [default: cpu and webgpu]
    #[arg(long, value_enum)]
    device: Vec<Device>,
    /// Run every operator alone, without fusion and constant folding
    #[arg(long)]
    unfused: bool,
    /// Run only the cases whose name contains this; then the lists are not checked for the others
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Add the cases that pass to the lists
    #[arg(long)]
    bless: bool,
    /// Print why each case failed
    #[arg(long)]
    failures: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Device {
    /// model.wasm under wasmtime
    Cpu,
    /// Native wgpu
    Gpu,
    /// WebGPU in Chromium
    Webgpu,
}

impl Device {
    fn name(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
            Device::Webgpu => "webgpu",
        }
    }

    /// Native WebGPU is held to the browser's list.
    fn list(self) -> PathBuf {
        let name = if self == Device::Cpu { "cpu.txt" } else { "webgpu.txt" };
        process::root().join("tests/conformance").join(name)
    }
}

/// Whether a case passed, or why not.
type Verdicts = BTreeMap<String, Result<(), String>>;

/// What a run counted.
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) total: usize,
    /// Cases whose result the list does not say.
    pub(crate) surprises: usize,
}

impl Args {
    /// The arguments with which the test suite runs one device.
    pub(crate) fn of(device: Device, unfused: bool) -> Args {
        Args { json: false, device: vec![device], unfused, filter: None, bless: false, failures: false }
    }
}

/// The command: runs, prints, and fails where a list is not true.
pub(crate) fn run(args: &Args) -> Result<()> {
    let counts = count(args)?;
    let surprises: usize = counts.iter().map(|(_, count)| count.surprises).sum();
    if args.json {
        let rows = counts
            .iter()
            .map(|(device, count)| (device.name().to_owned(), json!({ "passed": count.passed, "total": count.total })));
        println!("{}", Value::Object(rows.collect()));
    }
    ensure!(surprises == 0, "{surprises} cases are not as tests/conformance/ says");
    Ok(())
}

/// Runs all devices that `args` names, and prints a line for each.
pub(crate) fn count(args: &Args) -> Result<Vec<(Device, Count)>> {
    let folder = models::node_tests()?;
    let mut cases: Vec<String> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.as_ref().is_ok_and(|name| args.filter.as_ref().is_none_or(|text| name.contains(text))))
        .collect::<Result<_>>()?;
    cases.sort();
    let runner = build::native("conformance", "conformance")?;
    let devices = if args.device.is_empty() { vec![Device::Cpu, Device::Webgpu] } else { args.device.clone() };
    let mut counts = Vec::new();
    for device in devices {
        let verdicts = match device {
            Device::Cpu | Device::Gpu => native(&runner, device, args.unfused, &folder, &cases)?,
            Device::Webgpu => browser(&runner, args.unfused, &folder, &cases)?,
        };
        counts.push((device, judge(device, &verdicts, args)?));
    }
    Ok(counts)
}

/// The line that the runner prints for a case.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    case: String,
    passed: bool,
    error: Option<String>,
}

impl Answer {
    fn parse(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map_err(|error| format!("the runner printed {line:?}: {error}"))
    }

    fn verdict(self) -> Result<(), String> {
        if self.passed { Ok(()) } else { Err(self.error.unwrap_or_default()) }
    }
}

/// Runs the native runner in mode `mode` on lines, one for each case.
fn pool(runner: &Path, mode: &str, unfused: bool, cases: &[String], lines: &[String]) -> Result<Verdicts> {
    let bar = progress::bar(format!("conformance {mode}{}", if unfused { " unfused" } else { "" }), lines.len() as u64);
    let verdicts = Mutex::new(Verdicts::new());
    let count = std::thread::available_parallelism().map_or(2, usize::from);
    let start = || {
        let mut command = process::command(runner);
        command.arg(mode).args(unfused.then_some("--unfused"));
        command
    };
    workers::map(lines, count, LIMIT, start, |index, answer| {
        let verdict = answer.and_then(|line| Answer::parse(&line)?.verdict());
        if let Ok(mut verdicts) = verdicts.lock() {
            verdicts.insert(cases[index].clone(), verdict);
        }
        bar.set_message(cases[index].clone());
        bar.inc(1);
    })?;
    progress::done(&bar);
    Ok(verdicts.into_inner().unwrap_or_default())
}

fn native(runner: &Path, device: Device, unfused: bool, folder: &Path, cases: &[String]) -> Result<Verdicts> {
    let lines: Vec<String> = cases.iter().map(|case| folder.join(case).display().to_string()).collect();
    pool(runner, device.name(), unfused, cases, &lines)
}

/// Compiles the cases into packages natively, and has a page run those that compile.
fn browser(runner: &Path, unfused: bool, folder: &Path, cases: &[String]) -> Result<Verdicts> {
    build::package()?;
    let packages = process::target().join("conformance").join(if unfused { "unfused" } else { "fused" });
    if packages.exists() {
        fs::remove_dir_all(&packages)?;
    }
    let line = |case: &String| format!("{}\t{}", folder.join(case).display(), packages.join(case).display());
    let lines: Vec<String> = cases.iter().map(line).collect();
    let mut verdicts = pool(runner, "pack", unfused, cases, &lines)?;
    let packed: Vec<String> =
        verdicts.iter().filter(|(_, verdict)| verdict.is_ok()).map(|(case, _)| case.clone()).collect();
    let bar = progress::bar("conformance in Chromium", packed.len() as u64);
    let config = json!({ "packages": packages, "cases": packed, "pkg": process::root().join("pkg/dist") });
    harness::node("tests/browser/conformance.js", &config, |line| {
        match Answer::parse(line) {
            Ok(answer) => {
                bar.set_message(answer.case.clone());
                verdicts.insert(answer.case.clone(), answer.verdict());
            }
            Err(error) => bar.println(error),
        }
        bar.inc(1);
    })?;
    progress::done(&bar);
    Ok(verdicts)
}

/// Compares the verdicts with the device's list.
fn judge(device: Device, verdicts: &Verdicts, args: &Args) -> Result<Count> {
    let path = device.list();
    let text = fs::read_to_string(&path).unwrap_or_default();
    let mut listed: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut surprises = 0;
    for (case, verdict) in verdicts {
        match verdict {
            Ok(()) if listed.contains(case.as_str()) => {}
            Ok(()) if args.bless => {
                listed.insert(case);
            }
            Ok(()) => {
                surprises += 1;
                println!("{}: {case} passes and is not listed: run with --bless", device.name());
            }
            Err(reason) => {
                if listed.contains(case.as_str()) {
                    surprises += 1;
                    println!("{}: {case} is listed and fails: {reason}", device.name());
                } else if args.failures {
                    println!("{}: {case}: {reason}", device.name());
                }
            }
        }
    }
    if args.bless {
        let lines: String = listed.iter().map(|case| format!("{case}\n")).collect();
        fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let passed = verdicts.values().filter(|verdict| verdict.is_ok()).count();
    let total = verdicts.len();
    println!("{}{}: {passed} of {total}", device.name(), if args.unfused { " unfused" } else { "" });
    Ok(Count { passed, total, surprises })
}
