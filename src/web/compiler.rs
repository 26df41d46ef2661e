//! The compiler: ONNX bytes to the files of a package.

use super::tensor::Tensor;
use super::{Result, from_js, throw, to_js};
use crate::compile::{Engine, Options, compile};
use crate::error::{Error, Kind};
use crate::graph::Contents;
use crate::kernel::Fusion;
use crate::onnx::{self, ExternalData};
use crate::package;
use crate::plan::weights::WeightType;
use crate::tensor::{Array, DimRange};
use js_sys::{Function, Object, Reflect, Uint8Array, WebAssembly};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wasm_bindgen::prelude::*;

/// The arguments of a build, as `nearside build` has them.
#[derive(Deserialize)]
struct BuildOptions {
    name: String,
    version: String,
    /// Bounds of symbolic dims, both inclusive.
    dims: BTreeMap<String, (i64, i64)>,
    /// Inputs that become constants, by name.
    constants: Option<BTreeMap<String, Tensor>>,
    weights: Weights,
    fused: bool,
    /// The inputs of the golden outputs, by name; made up where there are none.
    golden: Option<BTreeMap<String, Tensor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Weights {
    F32,
    F16,
}

/// What a build gives beside its files.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    name: String,
    version: String,
    kernels: usize,
    dispatches: Option<usize>,
    weights_bytes: u64,
    notes: Vec<String>,
}

/// Compiles a model. `external(location, offset, length)` gives the bytes of tensors kept in other files. The result is
/// `{ summary, files: { path: Uint8Array } }`.
#[wasm_bindgen]
pub fn build(model: &[u8], options: JsValue, external: Option<Function>) -> Result<JsValue> {
    let o: BuildOptions = from_js(options, Kind::InvalidInput)?;
    package::check_name(&o.name).map_err(throw)?;
    let options = Options {
        name: o.name,
        version: o.version,
        dims: o
            .dims
            .iter()
            .map(|(name, (min, max))| (name.as_str().into(), DimRange { min: *min, max: *max }))
            .collect(),
        constants: named(o.constants.unwrap_or_default()).map_err(throw)?,
        weights: match o.weights {
            Weights::F32 => WeightType::F32,
            Weights::F16 => WeightType::F16,
        },
        fusion: if o.fused { Fusion::On } else { Fusion::Off },
    };
    let compiled = compile(model, &Asked(external), &options, &Host).map_err(throw)?;
    let inputs = match o.golden {
        Some(all) => named(all).and_then(|all| package::named_inputs(&compiled.plan, &all)),
        None => package::default_inputs(&compiled.plan),
    };
    let inputs = inputs.map_err(throw)?;
    let golden = package::golden(&compiled, inputs, &Host).map_err(throw)?;
    let summary = Summary {
        name: compiled.plan.name.clone(),
        version: compiled.plan.version.clone(),
        kernels: compiled.plan.cpu.kernels.len(),
        dispatches: compiled.plan.gpu.as_ref().map(|g| g.dispatches.len()),
        weights_bytes: compiled.plan.packs.iter().map(|p| p.size).sum(),
        notes: compiled.report.notes.clone(),
    };
    let files = Object::new();
    for entry in package::files(compiled, &golden).map_err(throw)? {
        Reflect::set(&files, &entry.path.into(), &Uint8Array::from(&entry.bytes[..]))?;
    }
    let out = Object::new();
    Reflect::set(&out, &"summary".into(), &to_js(&summary)?)?;
    Reflect::set(&out, &"files".into(), &files)?;
    Ok(out.into())
}

fn named(all: BTreeMap<String, Tensor>) -> crate::error::Result<Vec<(String, Array)>> {
    all.into_iter().map(|(name, t)| Ok((name, t.try_into()?))).collect()
}

/// Reads a model and says what it consists of: `{ name, inputs, outputs, ops: [name, count][], parameters, untyped }`.
#[wasm_bindgen]
pub fn inspect(model: &[u8], external: Option<Function>) -> Result<JsValue> {
    let mut g = onnx::read(model, &Asked(external)).map_err(throw)?;
    to_js(&Contents::of(&mut g))
}

/// External data that JavaScript reads.
struct Asked(Option<Function>);

impl ExternalData for Asked {
    fn load(&self, location: &str, offset: u64, length: u64) -> crate::error::Result<Vec<u8>> {
        let missing = |what: String| {
            Error::new(Kind::NotFound, format!("external data \"{location}\": {what}"))
                .help("give the file that the model names, beside the model")
        };
        let read = self.0.as_ref().ok_or_else(|| missing("no files were given beside the model".into()))?;
        onnx::check_location(location)?;
        let args = [JsValue::from(location), JsValue::from(offset as f64), JsValue::from(length as f64)];
        let bytes = read.call3(&JsValue::NULL, &args[0], &args[1], &args[2]).map_err(|e| missing(text(&e)))?;
        let bytes: Uint8Array = bytes.dyn_into().map_err(|_| missing("what was given are no bytes".into()))?;
        if u64::from(bytes.length()) != length {
            return Err(missing(format!("{} bytes where {length} are wanted", bytes.length())));
        }
        Ok(bytes.to_vec())
    }
}

/// The engine that runs this very code.
struct Host;

impl Engine for Host {
    fn run(&self, wasm: &[u8], data: &[(u32, &[u8])], outputs: &[(u32, usize)]) -> crate::error::Result<Vec<Vec<u8>>> {
        run(wasm, data, outputs)
            .map_err(|e| Error::new(Kind::Internal, format!("emitted code does not run: {}", text(&e))))
    }
}

fn run(wasm: &[u8], data: &[(u32, &[u8])], outputs: &[(u32, usize)]) -> Result<Vec<Vec<u8>>> {
    let module = WebAssembly::Module::new(&Uint8Array::from(wasm))?;
    let instance = WebAssembly::Instance::new(&module, &Object::new())?;
    let exports = instance.exports();
    let memory: WebAssembly::Memory = Reflect::get(&exports, &"memory".into())?.dyn_into()?;
    let at = |offset: u32, len: usize| {
        let len = u32::try_from(len).map_err(|_| JsValue::from_str("more than 4 GiB"))?;
        let end = offset.checked_add(len);
        let all = Uint8Array::new(&memory.buffer());
        let end = end.filter(|end| *end <= all.length()).ok_or_else(|| JsValue::from_str("outside the memory"))?;
        Ok::<_, JsValue>(all.subarray(offset, end))
    };
    for (offset, bytes) in data {
        at(*offset, bytes.len())?.copy_from(bytes);
    }
    let run: Function = Reflect::get(&exports, &"run".into())?.dyn_into()?;
    run.call3(&JsValue::NULL, &0.into(), &1.into(), &1.into())?;
    outputs.iter().map(|(offset, len)| Ok(at(*offset, *len)?.to_vec())).collect()
}

fn text(e: &JsValue) -> String {
    let message = Reflect::get(e, &"message".into()).ok().and_then(|m| m.as_string());
    message.or_else(|| e.as_string()).unwrap_or_else(|| "unknown".into())
}
