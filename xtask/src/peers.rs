//! The runtimes that the benchmark compares with, beside those that npm brings.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{cache, process, progress, wasm};

/// A folder with `rten_wasm.js` and `rten_wasm_bg.wasm`: RTen compiled with relaxed SIMD, its fastest form.
pub(crate) fn rten() -> Result<PathBuf> {
    let source = process::root().join("benches/rten-wasm");
    let mut parts = Vec::new();
    for file in ["Cargo.toml", "Cargo.lock", "src/lib.rs"] {
        parts.push(fs::read(source.join(file))?);
    }
    parts.push(Command::new("rustc").arg("-V").output()?.stdout);
    cache::entry("rten", &cache::key(parts.iter().map(Vec::as_slice)), |folder| {
        let bar = progress::spinner("compile RTen to WebAssembly");
        let target = folder.join(".target");
        let mut cargo = process::command("cargo");
        cargo.args(["build", "--locked", "--release", "--target", "wasm32-unknown-unknown"]);
        cargo.current_dir(&source).env("CARGO_TARGET_DIR", &target);
        cargo.env("RUSTFLAGS", "-C target-feature=+simd128,+relaxed-simd");
        process::run(&mut cargo, &bar)?;
        wasm::bindgen(&target.join("wasm32-unknown-unknown/release/rten_wasm.wasm"), folder, "rten_wasm")?;
        fs::remove_dir_all(&target)?;
        progress::done(&bar);
        Ok(())
    })
}
