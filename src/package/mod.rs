//! The npm package that a model becomes: its files as bytes, so that every host writes the same.

mod golden;
mod module;
mod open;
mod report;

pub use golden::{default_inputs, golden, named_inputs};
pub use open::Package;
pub use report::{html, size, text};

use crate::compile::Compiled;
use crate::emit::wasm::Variant;
use crate::error::{Error, Kind, Result};
use crate::plan::digest::Digest;
use crate::plan::golden::Golden;
use crate::plan::manifest::{self, CHUNK_SIZE, File, Manifest, Role, TensorMeta};
use crate::plan::{Port, serialize};
use crate::tensor::DType;
use crate::trust::digest;

/// A file of the package: its path in the folder, what it is for, its bytes. Without a role it is not published.
#[derive(Debug, Clone)]
pub struct Entry {
    pub path: String,
    pub role: Option<Role>,
    pub bytes: Vec<u8>,
}

/// The file name of a variant of `model.wasm`, and its role.
pub fn variant_file(v: Variant) -> (&'static str, Role) {
    match v {
        Variant::Simd => ("model.wasm", Role::Wasm),
        Variant::Relaxed => ("model.relaxed.wasm", Role::WasmRelaxed),
        Variant::Threads => ("model.threads.wasm", Role::WasmThreads),
    }
}

/// Every file of the package, the manifest last. `compiled` gives up its bytes.
pub fn files(compiled: Compiled, golden: &Golden) -> Result<Vec<Entry>> {
    let plan = compiled.plan.clone();
    let mut entries = vec![
        Entry { path: "model.plan".into(), role: Some(Role::Plan), bytes: serialize(&plan)? },
        Entry { path: "golden.bin".into(), role: Some(Role::Golden), bytes: golden.serialize()? },
        Entry { path: "index.d.ts".into(), role: Some(Role::Types), bytes: module::types(&plan).into() },
        Entry { path: "package.json".into(), role: None, bytes: module::package_json(&plan).into() },
        Entry { path: "report.txt".into(), role: Some(Role::Report), bytes: text(&compiled).into() },
        Entry { path: "report.html".into(), role: Some(Role::Report), bytes: html(&compiled).into() },
    ];
    for (variant, bytes) in compiled.wasm {
        let (path, role) = variant_file(variant);
        entries.push(Entry { path: path.into(), role: Some(role), bytes });
    }
    if plan.gpu.is_some() {
        entries.push(Entry { path: "model.wgsl".into(), role: Some(Role::Wgsl), bytes: compiled.wgsl.into() });
    }
    for (pack, bytes) in plan.packs.iter().zip(compiled.packs) {
        let digest = Digest::from_bytes(pack.sha256);
        entries.push(Entry { path: format!("weights/{digest}.bin"), role: Some(Role::Weights), bytes });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let loaded = entries.iter().filter(|e| e.role.is_some_and(is_loaded)).map(|e| e.path.as_str());
    let javascript = module::javascript(["manifest.json"].into_iter().chain(loaded));
    entries.push(Entry { path: "index.js".into(), role: Some(Role::Module), bytes: javascript.into() });
    let listed: Vec<File> =
        entries.iter().filter_map(|e| Some(digest::describe(&e.path, e.role?, &e.bytes, CHUNK_SIZE))).collect();
    let manifest = Manifest {
        format: manifest::FORMAT,
        name: plan.name.clone(),
        version: plan.version.clone(),
        inputs: plan.inputs.iter().map(meta).collect(),
        outputs: plan.outputs.iter().map(meta).collect(),
        files: listed,
    };
    manifest.validate()?;
    entries.push(Entry { path: "manifest.json".into(), role: None, bytes: manifest.to_json()? });
    Ok(entries)
}

/// Whether the runtime reads files of this role.
fn is_loaded(role: Role) -> bool {
    !matches!(role, Role::Types | Role::Report | Role::Module)
}

fn meta(port: &Port) -> TensorMeta {
    let datatype = match port.dtype {
        DType::Float32 => "FP32",
        DType::Float16 => "FP16",
        DType::BFloat16 => "BF16",
        DType::Float64 => "FP64",
        DType::Int8 => "INT8",
        DType::Int16 => "INT16",
        DType::Int32 => "INT32",
        DType::Int64 => "INT64",
        DType::Uint8 => "UINT8",
        DType::Uint16 => "UINT16",
        DType::Uint32 => "UINT32",
        DType::Uint64 => "UINT64",
        DType::Bool => "BOOL",
    };
    let shape = port.shape.iter().map(|d| d.known().unwrap_or(-1)).collect();
    TensorMeta { name: port.name.clone(), datatype: datatype.into(), shape }
}

/// The name of a package from what the user calls it: npm's rule and the store's.
pub fn check_name(name: &str) -> Result<()> {
    manifest::check_name(name)
        .map_err(|e| Error::new(Kind::InvalidInput, e.message()).help("give another with --name NAME"))
}
