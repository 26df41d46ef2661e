//! The runtime: manifest, plan, golden outputs, conversions.

use super::tensor::Tensor;
use super::{Result, from_js, throw, to_js};
use crate::error::{Error, Kind};
use crate::plan::convert::convert;
use crate::plan::golden::Golden;
use crate::plan::manifest::Manifest;
use crate::plan::{Plan, parse, resolve};
use crate::runtime::signature::Signature;
use crate::runtime::weights::{Target, pieces};
use crate::tensor::{Array, DType};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wasm_bindgen::prelude::*;

/// Checks a manifest that the engine parsed from JSON: the one set of rules, for the server and for clients.
#[wasm_bindgen(js_name = checkManifest)]
pub fn check_manifest(manifest: JsValue) -> Result<()> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let invalid =
        |e: serde_wasm_bindgen::Error| throw(Error::new(Kind::InvalidPackage, format!("not a manifest: {e}")));
    let head: Head = serde_wasm_bindgen::from_value(manifest.clone()).map_err(invalid)?;
    crate::plan::manifest::check_format(head.format).map_err(throw)?;
    let manifest: Manifest = serde_wasm_bindgen::from_value(manifest).map_err(invalid)?;
    manifest.validate().map_err(throw)
}

/// SHA-256, for pages where the engine's own is not to be had (`http:` on other hosts than localhost).
#[wasm_bindgen]
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    crate::trust::digest::sha256(bytes).as_bytes().to_vec()
}

/// `bytes` of type `from` as `to`.
#[wasm_bindgen(js_name = convert)]
pub fn convert_bytes(bytes: &[u8], from: &str, to: &str) -> Result<Vec<u8>> {
    let (from, to) = (dtype(from)?, dtype(to)?);
    convert(bytes, from, to).map(|b| b.into_owned()).map_err(throw)
}

fn dtype(name: &str) -> Result<DType> {
    DType::from_name(name)
        .ok_or_else(|| throw(Error::new(Kind::InvalidInput, format!("\"{name}\" is not a data type"))))
}

/// A parsed plan.
#[wasm_bindgen]
pub struct Package {
    pub(super) plan: Arc<Plan>,
}

/// The sizes and places that the host of `model.wasm` needs. Bytes.
#[derive(Serialize)]
struct Cpu<'a> {
    memory: u64,
    arena: u64,
    inputs: &'a [u32],
    outputs: &'a [u32],
    dims: u32,
    /// See [`Plan::cpu_needs`].
    needs: Vec<Vec<u64>>,
}

/// What the GPU needs. Bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gpu {
    bytes: u64,
    dispatches: usize,
    max_buffer_size: u64,
    max_storage_binding: u64,
    max_storage_bindings: u32,
    max_workgroup_size: u32,
    max_workgroup_storage: u32,
    subgroups: bool,
}

#[derive(Serialize)]
struct PackFile {
    sha256: String,
    size: u64,
}

/// The dims' values and the outputs' shapes of one run.
#[derive(Serialize)]
struct Bound {
    dims: Vec<i32>,
    outputs: Vec<Vec<usize>>,
}

/// A piece of a weight: `[from, from + len)` of the chunk, of type `stored`, goes to `to` as `dtype`.
#[derive(Serialize)]
struct Place {
    from: u64,
    len: u64,
    to: u64,
    stored: DType,
    dtype: DType,
}

#[wasm_bindgen]
impl Package {
    /// Parses `model.plan`.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &[u8]) -> Result<Package> {
        Ok(Package { plan: Arc::new(parse(bytes).map_err(throw)?) })
    }

    /// Name, version, inputs, outputs, dims.
    pub fn signature(&self) -> Result<JsValue> {
        to_js(&Signature::of(&self.plan))
    }

    /// The packs of weights, by digest.
    pub fn packs(&self) -> Result<JsValue> {
        let hex = |d: &[u8; 32]| d.iter().map(|b| format!("{b:02x}")).collect();
        let all: Vec<_> = self.plan.packs.iter().map(|p| PackFile { sha256: hex(&p.sha256), size: p.size }).collect();
        to_js(&all)
    }

    /// The memory map of `model.wasm`.
    pub fn cpu(&self) -> Result<JsValue> {
        let c = &self.plan.cpu;
        to_js(&Cpu {
            memory: c.memory,
            arena: c.arena,
            inputs: &c.inputs,
            outputs: &c.outputs,
            dims: c.dims,
            needs: self.plan.cpu_needs(),
        })
    }

    /// What the GPU plan requires, or `undefined` where the model has none.
    pub fn gpu(&self) -> Result<JsValue> {
        let Some(g) = &self.plan.gpu else { return Ok(JsValue::UNDEFINED) };
        let r = &g.requires;
        to_js(&Gpu {
            bytes: g.buffers.iter().fold(0, |n, b| n.saturating_add(b.bytes)),
            dispatches: g.dispatches.len(),
            max_buffer_size: r.max_buffer_size,
            max_storage_binding: r.max_storage_binding,
            max_storage_bindings: r.max_storage_bindings,
            max_workgroup_size: r.max_workgroup_size,
            max_workgroup_storage: r.max_workgroup_storage,
            subgroups: r.subgroups,
        })
    }

    /// Checks the inputs' shapes (`number[][]`) and gives the dims' values and the outputs' shapes.
    pub fn bind(&self, shapes: JsValue) -> Result<JsValue> {
        let shapes: Vec<Vec<usize>> = from_js(shapes, Kind::InvalidInput)?;
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let bindings = self.plan.bind(&shapes).map_err(throw)?;
        let dims = self.plan.dims.iter().map(|d| {
            let n = bindings.get(&d.name).copied().unwrap_or_default();
            i32::try_from(n)
                .map_err(|_| throw(Error::new(Kind::DimOutOfBounds, format!("dimension \"{}\" is {n}", d.name))))
        });
        let outputs = self.plan.outputs.iter().map(|p| resolve(&p.shape, &bindings).map_err(throw));
        to_js(&Bound { dims: dims.collect::<Result<_>>()?, outputs: outputs.collect::<Result<_>>()? })
    }

    /// Where the bytes `[offset, offset + len)` of a pack go in the memory of `model.wasm`.
    #[wasm_bindgen(js_name = cpuPieces)]
    pub fn cpu_pieces(&self, pack: u32, offset: f64, len: f64) -> Result<JsValue> {
        let all = pieces(&self.plan, Target::Cpu, pack, offset as u64, len as u64).map_err(throw)?;
        let all: Vec<_> = all
            .iter()
            .map(|p| Place { from: p.from, len: p.len, to: p.to, stored: p.stored, dtype: p.dtype })
            .collect();
        to_js(&all)
    }

    /// Parses `golden.bin`.
    pub fn golden(&self, bytes: &[u8]) -> Result<GoldenCases> {
        let golden = Golden::parse(bytes, &self.plan).map_err(throw)?;
        Ok(GoldenCases { golden, plan: Arc::clone(&self.plan) })
    }
}

/// Golden inputs and outputs.
#[wasm_bindgen]
pub struct GoldenCases {
    golden: Golden,
    plan: Arc<Plan>,
}

#[wasm_bindgen]
impl GoldenCases {
    /// The inputs of each case.
    pub fn inputs(&self) -> Result<JsValue> {
        let all: Vec<Vec<Tensor>> =
            self.golden.cases.iter().map(|c| c.inputs.iter().map(Tensor::from).collect()).collect();
        to_js(&all)
    }

    /// Throws `golden-mismatch` where `outputs` are not those of case `index`.
    pub fn compare(&self, index: usize, outputs: JsValue) -> Result<()> {
        let got: Vec<Tensor> = from_js(outputs, Kind::Internal)?;
        let got: Vec<Array> =
            got.into_iter().map(Array::try_from).collect::<crate::error::Result<_>>().map_err(throw)?;
        let no_case = || throw(Error::new(Kind::Internal, format!("there is no golden case {index}")));
        let case = self.golden.cases.get(index).ok_or_else(no_case)?;
        self.golden.compare(&self.plan, case, &got).map_err(throw)
    }
}
