//! Sizes of what clients download, in bytes after Brotli, and how large they may be.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::packages::Package;
use crate::{process, wasm};

/// What a page loads before it knows the model: JavaScript and the runtime's WebAssembly.
const RUNTIME: u64 = 150_000;

/// The largest variant of `model.wasm` of each model.
const MODEL: u64 = 60_000;

/// The variants of a package's code for the CPU.
const VARIANTS: [&str; 3] = ["model.wasm", "model.relaxed.wasm", "model.threads.wasm"];

/// A size beside its budget.
pub(crate) struct Size {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) budget: u64,
}

/// Every size that has a budget. What is measured must have been built.
pub(crate) fn all<'a>(packages: impl IntoIterator<Item = (&'a str, &'a Package)>) -> Result<Vec<Size>> {
    let mut sizes = vec![Size { name: "runtime and JavaScript".into(), bytes: runtime()?, budget: RUNTIME }];
    for (name, package) in packages {
        let mut bytes = 0;
        for variant in VARIANTS {
            bytes = bytes.max(brotli(package.folder.join(variant))?);
        }
        sizes.push(Size { name: format!("model.wasm of {name}"), bytes, budget: MODEL });
    }
    Ok(sizes)
}

/// The runtime and its JavaScript together.
pub(crate) fn runtime() -> Result<u64> {
    let dist = process::root().join("pkg/dist");
    runtime_files()?.into_iter().map(|file| brotli(dist.join(file))).sum()
}

/// The code of a model with relaxed SIMD, which most clients take.
pub(crate) fn model(package: &Package) -> Result<u64> {
    brotli(package.folder.join("model.relaxed.wasm"))
}

fn brotli(path: PathBuf) -> Result<u64> {
    let bytes = fs::read(&path).with_context(|| format!("{}: `cargo xtask build` makes it", path.display()))?;
    wasm::brotli_size(&bytes)
}

/// The files of `pkg/dist` that a page loads: the modules that index.js imports, the worker, and the runtime's wasm.
fn runtime_files() -> Result<Vec<String>> {
    let dist = process::root().join("pkg/dist");
    let mut files = vec!["index.js".to_owned(), "worker.js".to_owned(), "store-worker.js".to_owned()];
    let mut at = 0;
    while let Some(file) = files.get(at).cloned() {
        at += 1;
        let Ok(text) = fs::read_to_string(dist.join(&file)) else { continue };
        let folder = PathBuf::from(&file).parent().map(PathBuf::from).unwrap_or_default();
        for part in text.split(['"', '\'']) {
            let is_module = part.starts_with("./") && part.ends_with(".js") || part.ends_with("_bg.wasm");
            let name = folder.join(part.trim_start_matches("./")).to_string_lossy().into_owned();
            if is_module && dist.join(&name).is_file() && !files.contains(&name) {
                files.push(name);
            }
        }
    }
    files.retain(|file| dist.join(file).is_file());
    // A page that loads no runtime would be small, and wrong.
    let is_wasm = |file: &String| file.ends_with(".wasm");
    ensure!(
        files.iter().any(is_wasm),
        "pkg/dist has no index.js that leads to a runtime: `cargo xtask build` makes it"
    );
    Ok(files)
}
