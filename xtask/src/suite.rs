//! `cargo xtask test`: everything that CI runs, one step after the other, and a closing line of counts.

use std::process::Command;

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::conformance::{self, Device};
use crate::packages::{BENCH, DEMO, OTHERS};
use crate::server::Server;
use crate::{build, harness, models, packages, process, progress, setup, sizes};

/// How long each of the five fuzz targets runs.
const FUZZ_SECONDS: &str = "12";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the steps whose name contains this
    #[arg(value_name = "STEP")]
    step: Option<String>,
}

/// What a step counted.
#[derive(Default, Clone, Copy)]
struct Count {
    passed: usize,
    failed: usize,
}

impl Count {
    fn one(passed: bool) -> Count {
        Count { passed: usize::from(passed), failed: usize::from(!passed) }
    }
}

type Step = (&'static str, fn() -> Result<Count>);

const STEPS: [Step; 12] = [
    ("format", || command(cargo(&["fmt", "--all", "--check"]))),
    ("clippy", || command(clippy(&["--workspace", "--all-targets"]))),
    ("clippy web", || command(clippy(&["--lib", "--target", WASM, "--no-default-features", "--features", "web"]))),
    ("clippy compiler-web", || {
        command(clippy(&["--lib", "--target", WASM, "--no-default-features", "--features", "compiler-web"]))
    }),
    ("rust", rust_tests),
    ("types", types),
    ("npm package", npm_tests),
    ("conformance cpu", || conformance(Device::Cpu)),
    ("conformance webgpu", || conformance(Device::Webgpu)),
    ("browser", browser),
    ("sizes", sizes),
    ("fuzz", fuzz),
];

const WASM: &str = "wasm32-unknown-unknown";

/// Runs every step, also after one that failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run()?;
    let mut total = Count::default();
    for (name, step) in STEPS {
        if args.step.as_ref().is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let count = step().unwrap_or_else(|error| {
            println!("{error:#}");
            Count::one(false)
        });
        println!("{name}: {} passed, {} failed", count.passed, count.failed);
        total = Count { passed: total.passed + count.passed, failed: total.failed + count.failed };
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    ensure!(total.failed == 0, "{} failed", total.failed);
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = process::command("cargo");
    command.args(arguments);
    command
}

fn clippy(arguments: &[&str]) -> Command {
    let mut command = cargo(&["clippy", "--quiet"]);
    command.args(arguments).args(["--", "--deny", "warnings"]);
    command
}

/// A command that passes or fails as one.
fn command(mut command: Command) -> Result<Count> {
    let bar = progress::spinner(process::show(&command));
    let result = process::run(&mut command, &bar);
    bar.finish_and_clear();
    result.map(|_| Count::one(true))
}

/// Unit, property, snapshot and integration tests, by nextest where it is installed.
fn rust_tests() -> Result<Count> {
    let models = models::ensure()?;
    let has_nextest = process::which("cargo-nextest").is_some();
    let mut command = if has_nextest {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "--color", "never"])
    } else {
        cargo(&["test", "--workspace", "--no-fail-fast"])
    };
    command.env("NEARSIDE_MODELS", &models.folder);
    let text = output(&mut command)?;
    let count = if has_nextest { nextest_count(&text) } else { cargo_test_count(&text) };
    Ok(settled(count, &text))
}

/// A run that counted nothing, or nothing wrong and yet ended badly, is a failure, and shows what it said.
fn settled(mut count: Count, text: &Output) -> Count {
    if !text.success {
        println!("{}", text.text);
        count.failed = count.failed.max(1);
    } else if count.passed == 0 {
        count.failed = count.failed.max(1);
    }
    count
}

struct Output {
    text: String,
    success: bool,
}

/// Runs a command whose output holds the counts; it may fail.
fn output(command: &mut Command) -> Result<Output> {
    let bar = progress::spinner(process::show(command));
    let output = command.output()?;
    bar.finish_and_clear();
    let text = [output.stdout, output.stderr].concat();
    Ok(Output { text: String::from_utf8_lossy(&text).into_owned(), success: output.status.success() })
}

/// The number before `word` in `line`.
fn number_before(line: &str, word: &str) -> usize {
    let mut words = line.split([' ', ',', ':', ';']).filter(|part| !part.is_empty());
    let mut last = 0;
    for part in &mut words {
        if part == word {
            return last;
        }
        last = part.parse().unwrap_or(0);
    }
    0
}

fn nextest_count(output: &Output) -> Count {
    let summary = output.text.lines().rfind(|line| line.contains("tests run:") || line.contains("test run:"));
    let summary = summary.unwrap_or_default();
    let failed = number_before(summary, "failed") + number_before(summary, "timed") + number_before(summary, "exec");
    Count { passed: number_before(summary, "passed"), failed }
}

fn cargo_test_count(output: &Output) -> Count {
    let results = output.text.lines().filter(|line| line.starts_with("test result:"));
    results.fold(Count::default(), |count, line| Count {
        passed: count.passed + number_before(line, "passed"),
        failed: count.failed + number_before(line, "failed"),
    })
}

/// TypeScript of the package, the page, the tests and the benchmark.
fn types() -> Result<Count> {
    build::package()?;
    command({
        let mut npm = process::command("npm");
        npm.args(["run", "typecheck"]);
        npm
    })
}

/// The npm package's own tests, in Node.
fn npm_tests() -> Result<Count> {
    build::package()?;
    let mut npm = process::command("npm");
    npm.args(["run", "test", "--workspace", "pkg"]);
    let text = output(&mut npm)?;
    // Node's reporter ends with "# pass N" or "ℹ pass N".
    let value = |word: &str| {
        let line = text.text.lines().rfind(|line| line.split(' ').nth(1) == Some(word));
        line.and_then(|line| line.split(' ').nth(2)?.parse().ok()).unwrap_or(0)
    };
    Ok(settled(Count { passed: value("pass"), failed: value("fail") }, &text))
}

/// ONNX's node tests, fused and unfused.
fn conformance(device: Device) -> Result<Count> {
    let mut total = Count::default();
    for unfused in [false, true] {
        for (_, count) in conformance::count(&conformance::Args::of(device, unfused))? {
            total.passed += count.passed;
            total.failed += count.surprises;
        }
    }
    Ok(total)
}

/// The line that `tests/browser/suite.ts` prints for a test.
#[derive(Deserialize)]
struct Row {
    name: String,
    passed: bool,
    detail: String,
    ms: f64,
}

/// The browser suite.
fn browser() -> Result<Count> {
    let models = models::ensure()?;
    let nearside = build::run()?;
    let others = models::others(&models)?;
    let mut built = DEMO.iter().map(|recipe| recipe.build(&nearside, &models)).collect::<Result<Vec<_>>>()?;
    for recipe in &OTHERS {
        built.push(recipe.build(&nearside, &others)?);
    }
    let store = packages::publish(&nearside, &built)?;
    let server = Server::start(&nearside, &store, &process::root().join("www/dist"), 0)?;
    let folders = DEMO.iter().zip(&built).map(|(recipe, package)| (recipe.name.to_owned(), json!(package.folder)));
    let config = json!({
        "origin": server.origin,
        "pkg": process::root().join("pkg/dist"),
        "models": models.folder,
        "others": others.folder,
        "packages": Value::Object(folders.collect::<Map<_, _>>()),
    });
    let mut count = Count::default();
    harness::node("tests/browser/suite.js", &config, |line| match serde_json::from_str::<Row>(line) {
        Ok(row) => {
            let mark = if row.passed { "✓" } else { "✗" };
            println!("  {mark} {} ({:.1} s): {}", row.name, row.ms / 1000.0, row.detail);
            count.passed += usize::from(row.passed);
            count.failed += usize::from(!row.passed);
        }
        Err(_) => println!("  {line}"),
    })?;
    Ok(count)
}

/// What clients download, against its budget.
fn sizes() -> Result<Count> {
    let models = models::ensure()?;
    let nearside = build::native("nearside", "nearside")?;
    build::package()?;
    let built = BENCH.iter().map(|recipe| recipe.build(&nearside, &models)).collect::<Result<Vec<_>>>()?;
    let mut count = Count::default();
    for size in sizes::all(BENCH.iter().map(|recipe| recipe.name).zip(&built))? {
        let fits = size.bytes <= size.budget;
        let mark = if fits { "✓" } else { "✗" };
        println!("  {mark} {}: {} of {} bytes after Brotli", size.name, size.bytes, size.budget);
        count.passed += usize::from(fits);
        count.failed += usize::from(!fits);
    }
    Ok(count)
}

/// A minute of mutated bytes for everything that parses bytes from outside.
fn fuzz() -> Result<Count> {
    // Not in release: there, arithmetic that overflows goes unseen.
    let mut cargo = cargo(&["test", "--package", "nearside", "--test", "fuzz"]);
    cargo.env("NEARSIDE_FUZZ_SECONDS", FUZZ_SECONDS);
    let text = output(&mut cargo)?;
    Ok(settled(cargo_test_count(&text), &text))
}
