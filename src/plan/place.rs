//! Where every value of a schedule lies: offsets in the memory of `model.wasm`, buffers and offsets on the GPU.

use super::liveness::{self, Life};
use super::weights::Packed;
use super::{Binding, Buffer, CpuPlan, Plan, Role};
use crate::error::{Error, Kind, Result};
use crate::kernel::{Def, Layout, Schedule, ValueId, Values};
use crate::tensor::{DType, Dim};
use std::collections::{BTreeMap, HashMap};

/// Offsets on the CPU are multiples of this many bytes: a cache line.
const CPU_ALIGN: u64 = 64;

/// WebGPU's default `minStorageBufferOffsetAlignment`, bytes.
const GPU_ALIGN: u64 = 256;

/// Kernels may read this many bytes past the end of a buffer (vector loads of a last, partial group).
const SLACK: u64 = 64;

/// The memory map of `model.wasm`.
#[derive(Debug)]
pub struct CpuPlace {
    /// Byte offset of each value's buffer.
    pub at: HashMap<ValueId, u32>,
    /// Where the values of the symbolic dims lie.
    pub dims: u32,
    /// Where zeros lie that nothing writes, and how many bytes.
    pub zeros: u32,
    pub plan: CpuPlan,
    /// The least that activations could need, bytes.
    pub optimum: u64,
}

/// Buffers on the GPU.
#[derive(Debug)]
pub struct GpuPlace {
    pub buffers: Vec<Buffer>,
    /// The range of each value.
    pub at: HashMap<ValueId, Binding>,
    pub dims: Option<u32>,
    pub overflow: u32,
    /// Bytes of activations, and the least they could need.
    pub activations: u64,
    pub optimum: u64,
}

/// Bytes of a value's buffer at the upper bounds of the dims, with elements of `size` bytes.
fn bytes(values: &Values, v: ValueId, layout: &Layout, size: u64) -> Result<u64> {
    let n = layout.len(values.shape(v)).range(&values.arena.ranges).max;
    let total = u64::try_from(n).ok().and_then(|n| n.checked_mul(size)).filter(|n| *n < 1 << 40);
    total.ok_or_else(|| {
        Error::new(
            Kind::InvalidShape,
            format!("a tensor of shape {} has no bound on its size", crate::tensor::show(values.shape(v))),
        )
        .at(&values.get(v).name)
        .help("state bounds with --dim NAME=MIN..MAX")
    })
}

/// Activations that are neither inputs, outputs nor constants, with their lives.
fn lives(values: &Values, s: &Schedule, size: impl Fn(DType) -> u64) -> Result<(Vec<ValueId>, Vec<Life>)> {
    let mut found: BTreeMap<ValueId, Life> = BTreeMap::new();
    for (i, k) in s.kernels.iter().enumerate() {
        for v in k.reads(values).into_iter().chain(k.writes()) {
            if matches!(values.get(v).def, Def::Input(_) | Def::Constant(_)) || s.outputs.contains(&v) {
                continue;
            }
            let Some(layout) = s.layouts.get(&v) else { continue };
            let bytes = bytes(values, v, layout, size(values.dtype(v)))?;
            found.entry(v).or_insert(Life { first: i, last: i, bytes }).last = i;
        }
    }
    Ok(found.into_iter().unzip())
}

/// Lays out the memory of `model.wasm`: dims, zeros, inputs, outputs, weights, the arena.
pub fn cpu(values: &Values, s: &Schedule, packed: &Packed, inputs: usize, dims: usize, zeros: u64) -> Result<CpuPlace> {
    let mut next: u64 = 1024;
    let mut take = |n: u64| -> Result<u32> {
        let at = next;
        next = next.saturating_add(n).saturating_add(SLACK).next_multiple_of(CPU_ALIGN);
        u32::try_from(at).ok().filter(|_| next < 1 << 32).ok_or_else(|| {
            Error::new(Kind::DeviceLimit, format!("the model needs {next} bytes of memory, and wasm has 4 GiB"))
        })
    };
    let mut at = HashMap::new();
    let dims_at = take(4 * dims as u64)?;
    let zeros_at = take(zeros)?;
    let size = |d: DType| d.size() as u64;
    let of = |v: ValueId| -> Result<u64> {
        let layout = s.layouts.get(&v).cloned().unwrap_or_else(|| Layout::row_major(values.shape(v).len()));
        bytes(values, v, &layout, size(values.dtype(v)))
    };
    let mut input_at = vec![0u32; inputs];
    for (v, value) in values.iter() {
        if let Def::Input(i) = value.def {
            let place = take(of(v)?)?;
            at.insert(v, place);
            if let Some(slot) = input_at.get_mut(i) {
                *slot = place;
            }
        }
    }
    let mut output_at = vec![];
    for v in &s.outputs {
        let place = take(of(*v)?)?;
        at.insert(*v, place);
        output_at.push(place);
    }
    let mut weights = vec![None; packed.weights.len()];
    for (v, layout) in &s.layouts {
        if let Some(i) = packed.index.get(&(*v, layout.clone())) {
            let place = take(of(*v)?)?;
            at.insert(*v, place);
            weights[*i] = Some(place);
        }
    }
    let (ids, found) = lives(values, s, size)?;
    let (offsets, arena) = liveness::arena(&padded(&found), CPU_ALIGN);
    let base = take(arena)?;
    for (v, offset) in ids.iter().zip(offsets) {
        at.insert(*v, base.saturating_add(u32::try_from(offset).unwrap_or(u32::MAX)));
    }
    let plan = CpuPlan {
        needs: needs(values, s, packed),
        weights,
        inputs: input_at,
        outputs: output_at,
        dims: dims_at,
        memory: next.next_multiple_of(65536),
        arena,
        kernels: s.kernels.iter().map(|k| k.name.clone()).collect(),
    };
    Ok(CpuPlace { at, dims: dims_at, zeros: zeros_at, plan, optimum: liveness::optimum(&found) })
}

/// For each kernel, how many weights, from the first on, it and the kernels before it read.
fn needs(values: &Values, s: &Schedule, packed: &Packed) -> Vec<u32> {
    let mut most = 0;
    let mut each = vec![];
    for k in &s.kernels {
        for v in k.reads(values) {
            let read = s.layouts.get(&v).and_then(|layout| packed.index.get(&(v, layout.clone())));
            most = most.max(read.map_or(0, |i| u32::try_from(i + 1).unwrap_or(u32::MAX)));
        }
        each.push(most);
    }
    each
}

fn padded(lives: &[Life]) -> Vec<Life> {
    lives.iter().map(|l| Life { bytes: l.bytes + SLACK, ..*l }).collect()
}

/// Lays out the GPU's buffers. A value of a type that the GPU cannot hold is an error.
pub fn gpu(values: &Values, s: &Schedule, packed: &Packed, inputs: usize, dims: usize) -> Result<GpuPlace> {
    for v in s.layouts.keys() {
        if super::gpu_dtype(values.dtype(*v)).is_none() {
            return Err(Error::new(Kind::UnsupportedType, format!("{} is not held on the GPU", values.dtype(*v)))
                .at(&values.get(*v).name));
        }
    }
    let mut buffers: Vec<Buffer> = vec![];
    let mut at = HashMap::new();
    let number = |buffers: &[Buffer]| u32::try_from(buffers.len()).unwrap_or(u32::MAX);
    let of = |v: ValueId| -> Result<u64> {
        let layout = s.layouts.get(&v).cloned().unwrap_or_else(|| Layout::row_major(values.shape(v).len()));
        // WebGPU has no empty bindings, and vector types want whole groups of four.
        Ok(bytes(values, v, &layout, 4)?.max(4).next_multiple_of(16))
    };
    let by_weight: HashMap<usize, ValueId> =
        s.layouts.iter().filter_map(|(v, l)| packed.index.get(&(*v, l.clone())).map(|i| (*i, *v))).collect();
    for pack in 0..packed.files.len() {
        let (mut parts, mut next) = (vec![], 0u64);
        let buffer = number(&buffers);
        for (i, w) in packed.weights.iter().enumerate().filter(|(_, w)| w.pack as usize == pack) {
            let size = (w.len * 4).max(4).next_multiple_of(16);
            parts.push(next);
            if let Some(v) = by_weight.get(&i) {
                at.insert(*v, Binding { buffer, offset: next, size, writes: false });
            }
            next = (next + size).next_multiple_of(GPU_ALIGN);
        }
        buffers.push(Buffer { role: Role::Weights(u32::try_from(pack).unwrap_or(u32::MAX)), bytes: next, parts });
    }
    let (mut parts, mut next) = (vec![0u64; inputs], 0u64);
    let buffer = number(&buffers);
    for (v, value) in values.iter() {
        if let Def::Input(i) = value.def {
            let size = of(v)?;
            at.insert(v, Binding { buffer, offset: next, size, writes: false });
            if let Some(p) = parts.get_mut(i) {
                *p = next;
            }
            next = (next + size).next_multiple_of(GPU_ALIGN);
        }
    }
    buffers.push(Buffer { role: Role::Inputs, bytes: next.max(GPU_ALIGN), parts });
    for (i, v) in s.outputs.iter().enumerate() {
        let size = of(*v)?;
        at.insert(*v, Binding { buffer: number(&buffers), offset: 0, size, writes: false });
        buffers.push(Buffer { role: Role::Output(u32::try_from(i).unwrap_or(u32::MAX)), bytes: size, parts: vec![] });
    }
    let (ids, found) = lives(values, s, |_| 4)?;
    let (slot_of, sizes) = liveness::slots(&found);
    let first = number(&buffers);
    let sizes: Vec<u64> = sizes.iter().map(|n| (*n).max(4).next_multiple_of(16)).collect();
    buffers.extend(sizes.iter().map(|n| Buffer { role: Role::Slot, bytes: *n, parts: vec![] }));
    for (v, slot) in ids.iter().zip(slot_of) {
        let buffer = first.saturating_add(u32::try_from(slot).unwrap_or(u32::MAX));
        at.insert(*v, Binding { buffer, offset: 0, size: of(*v)?, writes: false });
    }
    let overflow = number(&buffers);
    buffers.push(Buffer { role: Role::Overflow, bytes: 4, parts: vec![] });
    let dims = (dims > 0).then(|| {
        let buffer = number(&buffers);
        buffers.push(Buffer { role: Role::Dims, bytes: (4 * dims as u64).next_multiple_of(16), parts: vec![] });
        buffer
    });
    let activations = sizes.iter().sum();
    Ok(GpuPlace { buffers, at, dims, overflow, activations, optimum: liveness::optimum(&found) })
}

impl GpuPlace {
    /// Adds the buffer of the numbers that kernels of one shader differ in, where there are any; returns the range of each
    /// list.
    pub fn numbers(&mut self, lists: &[Vec<i32>]) -> Vec<Binding> {
        let buffer = u32::try_from(self.buffers.len()).unwrap_or(u32::MAX);
        let mut next = 0u64;
        let mut all = vec![];
        for list in lists {
            let size = (4 * list.len() as u64).next_multiple_of(16);
            all.push(Binding { buffer, offset: next, size, writes: false });
            next = (next + size).next_multiple_of(GPU_ALIGN);
        }
        if next > 0 {
            let parts = all.iter().map(|b| b.offset).collect();
            self.buffers.push(Buffer { role: Role::Numbers, bytes: next, parts });
        }
        all
    }
}

impl Plan {
    /// The bytes a session takes on the GPU at most: every buffer, and the staging buffer of the outputs.
    pub fn gpu_bytes(&self) -> Option<u64> {
        let gpu = self.gpu.as_ref()?;
        let staging: u64 = gpu.buffers.iter().filter(|b| matches!(b.role, Role::Output(_))).map(|b| b.bytes).sum();
        Some(gpu.buffers.iter().map(|b| b.bytes).sum::<u64>() + staging)
    }
}

/// The workgroup counts of a dispatch do not exceed what WebGPU grants every adapter.
pub fn check_workgroups(name: &str, counts: &[Dim; 3], values: &Values) -> Result<()> {
    for c in counts {
        let max = c.range(&values.arena.ranges).max;
        if max > 65535 {
            return Err(
                Error::new(Kind::DeviceLimit, format!("a dispatch of {max} workgroups, more than 65535")).at(name)
            );
        }
    }
    Ok(())
}
