//! A case as a package that a browser loads, with `case.json` and `case.bin` beside it.

use std::fs;
use std::path::Path;

use nearside::error::{Error, Kind, Result};
use nearside::package;
use nearside::plan::golden::{Case, Golden};
use nearside::tensor::Array;
use serde::Serialize;

use crate::case::Built;

/// `case.json`: where each tensor's little-endian bytes lie in `case.bin`.
#[derive(Serialize)]
struct Description {
    atol: f64,
    rtol: f64,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    offset: usize,
    bytes: usize,
}

/// Writes the package with the case's own inputs and outputs as its golden ones.
pub(crate) fn write(folder: &Path, built: Built, golden: &Golden, case: &Case) -> Result<()> {
    let plan = &built.compiled.plan;
    if plan.gpu.is_none() {
        let note = built.compiled.report.notes.join("; ");
        return Err(Error::new(Kind::UnsupportedType, format!("not for WebGPU: {note}")));
    }
    let mut data = Vec::new();
    let mut describe = |names: Vec<&str>, arrays: &[Array]| -> Vec<Tensor> {
        let rows = names.into_iter().zip(arrays).map(|(name, array)| {
            let offset = data.len();
            data.extend_from_slice(array.bytes());
            let (dtype, shape) = (array.dtype().to_string(), array.shape().to_vec());
            Tensor { name: name.to_owned(), dtype, shape, offset, bytes: array.bytes().len() }
        });
        rows.collect()
    };
    let description = Description {
        atol: golden.atol,
        rtol: golden.rtol,
        inputs: describe(plan.inputs.iter().map(|port| port.name.as_str()).collect(), &case.inputs),
        outputs: describe(plan.outputs.iter().map(|port| port.name.as_str()).collect(), &case.outputs),
    };
    let json = serde_json::to_vec(&description).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    put(folder, "case.json", &json)?;
    put(folder, "case.bin", &data)?;
    for entry in package::files(built.compiled, golden)? {
        put(folder, &entry.path, &entry.bytes)?;
    }
    Ok(())
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, bytes)
    };
    write().map_err(|e| Error::new(Kind::Io, format!("{}: {e}", path.display())))
}
