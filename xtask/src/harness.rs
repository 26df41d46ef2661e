//! The JavaScript side: TypeScript compiled to `target/js`, run by Node.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{process, progress, setup, stamps};

/// The folder of the compiled scripts.
pub(crate) fn folder() -> PathBuf {
    process::root().join("target/js")
}

/// Compiles `tests/browser` and `benches`.
pub(crate) fn compile() -> Result<()> {
    let root = process::root();
    let inputs = ["tests/browser", "benches/page", "benches/bench.ts", "benches/peak.ts", "pkg/dist/index.d.ts"];
    stamps::when_changed("harness", &inputs.map(|name| root.join(name)), &[folder()], || {
        let bar = progress::spinner("compile the browser harness");
        process::run(process::command("npm").args(["run", "build:harness"]), &bar)?;
        progress::done(&bar);
        Ok(())
    })?;
    Ok(())
}

/// Runs `script` of the compiled folder with `config`, to which the browser's path is added, as a file, and gives each
/// line that it prints to `line`.
pub(crate) fn node(script: &str, config: &Value, mut line: impl FnMut(&str)) -> Result<()> {
    compile()?;
    let mut config = config.clone();
    let chromium = setup::chromium().context("Chromium is missing: run `cargo xtask setup`")?;
    config["chromium"] = chromium.to_string_lossy().into();
    config["root"] = process::root().to_string_lossy().into();
    let path = process::root().join("target/harness.json");
    fs::write(&path, serde_json::to_vec(&config)?)?;
    let mut command = process::command("node");
    command.arg(folder().join(script)).arg(&path);
    let shown = process::show(&command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start node")?;
    if let Some(output) = child.stdout.take() {
        for text in BufReader::new(output).lines() {
            line(&text?);
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}
