//! What commands take for a model: a package folder, or an ONNX file that is compiled on the way.

use super::Output;
use crate::compile::{Compiled, Engine, Options, compile};
use crate::emit::wasm::Variant;
use crate::error::{Error, Kind, Result};
use crate::onnx::Folder;
use crate::package::Package;
use crate::runtime::cpu;
use crate::runtime::native::{Device, DeviceName, Parts};
use crate::tensor::{DimRange, Sym};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Runs emitted code at build time under wasmtime.
pub(super) struct Wasmtime;

impl Engine for Wasmtime {
    fn run(&self, wasm: &[u8], data: &[(u32, &[u8])], outputs: &[(u32, usize)]) -> Result<Vec<Vec<u8>>> {
        cpu::run_once(wasm, data, outputs)
    }
}

/// `--dim NAME=MIN..MAX` or `--dim NAME=N`.
pub(super) fn parse_dim(text: &str) -> Result<(Sym, DimRange), String> {
    let wrong = || format!("\"{text}\" is not NAME=MIN..MAX or NAME=N");
    let (name, range) = text.split_once('=').ok_or_else(wrong)?;
    let number = |s: &str| s.trim().parse::<i64>().map_err(|_| wrong());
    let (min, max) = match range.split_once("..") {
        Some((min, max)) => (number(min)?, number(max.strip_prefix('=').unwrap_or(max))?),
        None => (number(range)?, number(range)?),
    };
    if name.is_empty() || min < 0 || max < min {
        return Err(wrong());
    }
    Ok((name.into(), DimRange { min, max }))
}

/// `--input NAME=FILE.npy` and the like.
pub(super) fn parse_input(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or_else(|| format!("\"{text}\" is not NAME=FILE.npy"))?;
    Ok((name.into(), path.into()))
}

/// Compiles an ONNX file.
pub(super) fn compile_file(path: &Path, options: &Options, output: &Output) -> Result<Compiled> {
    let bytes = super::read_file(path)?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let spinner = output.spinner("compiling");
    let compiled = compile(&bytes, &Folder(folder), options, &Wasmtime).map_err(|e| e.at(path.display()));
    spinner.finish_and_clear();
    let compiled = compiled?;
    for note in &compiled.report.notes {
        output.note(format!("note: {note}"));
    }
    Ok(compiled)
}

/// Opens a package folder, or compiles an ONNX file.
pub(super) fn open(path: &Path, dims: &BTreeMap<Sym, DimRange>, output: &Output) -> Result<Package> {
    if path.is_dir() {
        if !dims.is_empty() {
            return Err(Error::new(Kind::InvalidInput, "--dim is for ONNX files: a package has its bounds already"));
        }
        return Package::open(path);
    }
    let options = Options { dims: dims.clone(), ..Options::default() };
    let c = compile_file(path, &options, output)?;
    Ok(Package { plan: c.plan, wasm: c.wasm, wgsl: c.wgsl, packs: c.packs, golden: None })
}

/// Loads a package on a device. More than one thread takes the threaded code, one the relaxed.
pub(super) fn open_device(name: DeviceName, p: &Package, threads: usize) -> Result<Device> {
    let wanted = if threads > 1 { Variant::Threads } else { Variant::Relaxed };
    let wasm = p.wasm.iter().find(|(v, _)| *v == wanted).map(|(_, b)| &b[..]);
    let wasm = wasm.ok_or_else(|| Error::new(Kind::InvalidPackage, format!("the package has no {wanted:?} code")))?;
    Device::open(name, &Parts { plan: &p.plan, wasm, wgsl: &p.wgsl, packs: &p.packs }, threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims_are_ranges_or_numbers() {
        assert_eq!(parse_dim("s=1..512"), Ok(("s".into(), DimRange { min: 1, max: 512 })));
        assert_eq!(parse_dim("batch=4"), Ok(("batch".into(), DimRange { min: 4, max: 4 })));
        for bad in ["s", "=1", "s=2..1", "s=-1..2", "s=a..b", "s=1...2.."] {
            assert!(parse_dim(bad).is_err(), "{bad}");
        }
    }
}
