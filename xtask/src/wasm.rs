//! WebAssembly modules: wasm-bindgen as a library, wasm-opt from npm, Brotli for sizes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use wasm_bindgen_cli_support::Bindgen;

use crate::process;

/// Writes `NAME.js`, `NAME.d.ts`, `NAME_bg.wasm` and `NAME_bg.wasm.d.ts` for the module into `folder`.
pub(crate) fn bindgen(module: &Path, folder: &Path, name: &str) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).out_name(name).typescript(true).omit_default_module_path(false);
    bindgen.remove_producers_section(true);
    bindgen.web(true)?;
    bindgen.generate(folder).with_context(|| format!("wasm-bindgen on {}", module.display()))
}

/// Makes the module smaller, in place.
pub(crate) fn optimize(module: &Path, bar: &ProgressBar) -> Result<()> {
    let optimized = module.with_extension("optimized");
    let mut command = process::command(process::root().join("node_modules/.bin/wasm-opt"));
    // The features that rustc turns on for the target, which wasm-opt would else reject.
    for feature in
        ["bulk-memory", "sign-ext", "mutable-globals", "nontrapping-float-to-int", "multivalue", "reference-types"]
    {
        command.arg(format!("--enable-{feature}"));
    }
    command.args(["-O1", "--strip-producers", "--output"]).arg(&optimized).arg(module);
    process::run(&mut command, bar)?;
    fs::rename(&optimized, module)?;
    Ok(())
}

/// Takes comments and white space out of the JavaScript beside a module, in place.
pub(crate) fn minify(script: &Path, bar: &ProgressBar) -> Result<()> {
    let mut command = process::command(process::root().join("node_modules/.bin/esbuild"));
    command.arg(script).arg(format!("--outfile={}", script.display()));
    command.args(["--allow-overwrite", "--minify-whitespace", "--minify-syntax", "--log-level=warning"]);
    process::run(&mut command, bar).map(drop)
}

/// The size of `bytes` in bytes after Brotli at its highest quality.
pub(crate) fn brotli_size(bytes: &[u8]) -> Result<u64> {
    let params = brotli::enc::BrotliEncoderParams { quality: 11, lgwin: 24, ..Default::default() };
    let mut compressed = Vec::new();
    brotli::BrotliCompress(&mut &bytes[..], &mut compressed, &params)?;
    Ok(compressed.len() as u64)
}
