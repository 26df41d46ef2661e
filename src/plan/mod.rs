//! The plan: everything the runtime needs to know of a model, decided at build time. Its file format and the one parser
//! of it.

pub mod convert;
pub mod digest;
mod file;
pub mod golden;
#[cfg(feature = "compiler")]
pub mod liveness;
pub mod manifest;
pub mod memory;
#[cfg(feature = "compiler")]
pub mod place;
pub mod version;
#[cfg(feature = "compiler")]
pub mod weights;

pub use file::{FORMAT, parse, serialize};

use crate::error::{Error, Kind, Result};
use crate::tensor::{Bindings, DType, Dim, DimRange, Shape, Sym, show};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A compiled model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub name: String,
    pub version: String,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// The symbolic dims of the signature with their bounds.
    pub dims: Vec<DimParam>,
    pub packs: Vec<Pack>,
    pub weights: Vec<Weight>,
    pub cpu: CpuPlan,
    pub gpu: Option<GpuPlan>,
}

/// An input or output of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    pub dtype: DType,
    pub shape: Shape,
}

/// A symbolic dim and its bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DimParam {
    pub name: Sym,
    pub range: DimRange,
}

/// A file of weights, `weights/<sha256>.bin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    pub sha256: [u8; 32],
    /// Bytes.
    pub size: u64,
}

/// A tensor in a pack, in the layout that the kernels read. Its offset is a multiple of 256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    pub name: String,
    /// The type as stored in the pack.
    pub stored: DType,
    /// The type as the kernels read it; differs from `stored` with `--weights f16`.
    pub dtype: DType,
    /// Elements, with the padding of its layout.
    pub len: u64,
    pub pack: u32,
    /// Bytes from the start of the pack.
    pub offset: u64,
}

/// How `model.wasm` uses its memory. All offsets are bytes from the start of its memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CpuPlan {
    /// Where each of [`Plan::weights`] lies; `None` where no CPU kernel reads it.
    pub weights: Vec<Option<u32>>,
    pub inputs: Vec<u32>,
    pub outputs: Vec<u32>,
    /// Where the values of [`Plan::dims`] lie, as consecutive i32.
    pub dims: u32,
    /// The whole memory, bytes.
    pub memory: u64,
    /// Of which activations, bytes.
    pub arena: u64,
    /// The kernels in order of execution, for reports and profiles.
    pub kernels: Vec<String>,
    /// For each kernel, how many of [`Plan::weights`], from the first on, it and the kernels before it read: it can run when
    /// these are in place.
    pub needs: Vec<u32>,
}

/// Buffers and dispatches of the GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuPlan {
    /// Shader modules: ranges of `model.wgsl` in bytes; the entry point of each is `main`.
    pub shaders: Vec<(u32, u32)>,
    /// Extents and strides in which kernels of one shader differ. The runtime writes them once.
    pub numbers: Vec<Vec<i32>>,
    pub buffers: Vec<Buffer>,
    pub dispatches: Vec<Dispatch>,
    pub requires: GpuRequires,
}

/// What an adapter must offer. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GpuRequires {
    pub max_buffer_size: u64,
    pub max_storage_binding: u64,
    pub max_storage_bindings: u32,
    pub max_workgroup_size: u32,
    pub max_workgroup_storage: u32,
    pub subgroups: bool,
}

/// What a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The pack of that number, converted where a weight's type is not one of the GPU's.
    Weights(u32),
    /// All inputs, each at an offset of its own.
    Inputs,
    /// The output of that number. A buffer of its own, because one dispatch may read one output and write another; a run
    /// ends by copying all of them, and the flag, into one staging buffer.
    Output(u32),
    /// One u32 that kernels set where integer arithmetic left 32 bits.
    Overflow,
    /// An activation slot.
    Slot,
    /// The values of [`Plan::dims`], as i32 (a uniform).
    Dims,
    /// [`GpuPlan::numbers`], each at an offset of its own (uniforms).
    Numbers,
}

/// A GPU buffer, created once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    pub role: Role,
    /// Bytes at the upper bounds of the dims.
    pub bytes: u64,
    /// Where the parts lie, in bytes: for `Weights`, of each of [`Plan::weights`] in this pack, in order; for `Inputs`, of
    /// each port; for `Numbers`, of each of [`GpuPlan::numbers`]. Empty otherwise.
    pub parts: Vec<u64>,
}

/// A dispatch, in one or more ways that compute the same. The first is the default; which is the fastest depends on the
/// adapter, and a client may time them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    pub name: String,
    pub candidates: Vec<Candidate>,
}

/// A shader over buffers. Binding i of group 0 is `bindings[i]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub shader: u32,
    pub bindings: Vec<Binding>,
    pub workgroups: [Dim; 3],
}

/// A range of a buffer, bytes; the offset is a multiple of 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub buffer: u32,
    pub offset: u64,
    pub size: u64,
    pub writes: bool,
}

/// The type in which elements of `dtype` lie in GPU buffers, four bytes each; `None` where the GPU cannot hold them.
/// 64-bit integers are held in 32 bits, and what does not fit is refused when it is uploaded.
pub const fn gpu_dtype(dtype: DType) -> Option<DType> {
    match dtype {
        DType::Float32 | DType::Float16 | DType::BFloat16 => Some(DType::Float32),
        DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64 => Some(DType::Int32),
        DType::Uint8 | DType::Uint16 | DType::Uint32 | DType::Uint64 | DType::Bool => Some(DType::Uint32),
        DType::Float64 => None,
    }
}

impl Plan {
    /// For each kernel of the CPU, the bytes of each pack, from its start on, that must be in place before it can run.
    pub fn cpu_needs(&self) -> Vec<Vec<u64>> {
        let mut ends = vec![0u64; self.packs.len()];
        let mut placed = 0;
        let mut all = vec![];
        for n in &self.cpu.needs {
            for w in self.weights.iter().take(*n as usize).skip(placed) {
                if let Some(end) = ends.get_mut(w.pack as usize) {
                    *end = w.len.saturating_mul(w.stored.size() as u64).saturating_add(w.offset).max(*end);
                }
            }
            placed = placed.max(*n as usize);
            all.push(ends.clone());
        }
        all
    }

    /// The values of the symbolic dims for inputs of these shapes: every shape must fit its port and every dim its bounds.
    pub fn bind(&self, shapes: &[&[usize]]) -> Result<Bindings> {
        let mut bound: BTreeMap<Sym, (i64, &str)> = BTreeMap::new();
        for (port, shape) in self.inputs.iter().zip(shapes) {
            let bad = |what: String| Error::new(Kind::InvalidInput, what).at(format!("input \"{}\"", port.name));
            if shape.len() != port.shape.len() {
                return Err(bad(format!("shape {shape:?} where {} is wanted", show(&port.shape))));
            }
            for (axis, (dim, n)) in port.shape.iter().zip(*shape).enumerate() {
                let n = i64::try_from(*n).unwrap_or(i64::MAX);
                match (dim.known(), dim.as_sym()) {
                    (Some(want), _) if want != n => {
                        return Err(bad(format!("axis {axis} has {n} where {} wants {want}", show(&port.shape))));
                    }
                    (None, Some(name)) => match bound.get(name) {
                        Some((m, other)) if *m != n => {
                            return Err(bad(format!(
                                "axis {axis} (\"{name}\") has {n}, but input \"{other}\" has {m}"
                            )));
                        }
                        _ => {
                            bound.insert(name.into(), (n, &port.name));
                        }
                    },
                    _ => {}
                }
            }
        }
        let mut bindings = Bindings::new();
        for p in &self.dims {
            let (n, port) = bound.get(&p.name).copied().unwrap_or((p.range.min, ""));
            if n < p.range.min || n > p.range.max {
                return Err(Error::new(
                    Kind::DimOutOfBounds,
                    format!("dimension \"{}\" is {n}, outside {}..{}", p.name, p.range.min, p.range.max),
                )
                .at(format!("input \"{port}\""))
                .help(format!(
                    "rebuild the model with --dim {}={}..{}",
                    p.name,
                    p.range.min.min(n),
                    p.range.max.max(n)
                )));
            }
            bindings.insert(Sym::clone(&p.name), n);
        }
        Ok(bindings)
    }
}

/// The shape under `bindings`.
pub fn resolve(shape: &[Dim], bindings: &Bindings) -> Result<Vec<usize>> {
    shape
        .iter()
        .map(|d| {
            let n = d.eval(bindings)?;
            usize::try_from(n).map_err(|_| Error::new(Kind::DimOutOfBounds, format!("dimension {d} is {n}")))
        })
        .collect()
}
