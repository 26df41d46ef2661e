//! Kernels to a WebAssembly module that stands alone.
//!
//! The module exports `memory`, `run(part, parts, pieces)`, which runs a part of every kernel in so many calls each, and
//! `step(i, part, parts)`, which runs a part of the kernel of number `i` alone: for profiles, and for hosts that run a kernel
//! piece by piece. `run` returns 1 where the abort word was found set between kernels, else 0. With threads the memory is
//! imported as `env.memory`, shared, every thread calls `run` with a part of its own and as many pieces as the others, and a
//! barrier stands between kernels; without, `run(0, 1, 1)` runs all.
//!
//! The first [`CONTROL`] bytes of memory are the module's own: the abort word at [`ABORT`], which the host may set at any
//! time and resets before a run, then the words of the barrier. All are zero at first.

mod access;
mod address;
mod contract;
mod fold;
mod kept;
mod lanes;
mod loops;
mod math;
mod program;
mod scalar;
mod shared;
mod window;
mod writer;

#[cfg(test)]
pub(super) mod tests;

use crate::error::{Error, Kind, Result};
use crate::kernel::{Form, Kernel, Node, ValueId, Values};
use crate::tensor::Sym;
use shared::{Function, Shared};
use std::collections::HashMap;
use wasm_encoder::{
    BlockType, EntityType, ExportKind, ExportSection, ImportSection, InstructionSink, MemorySection, MemoryType,
    Module, ValType,
};
use writer::{Writer, arg, internal};

/// Bytes at the start of memory that belong to the module.
pub const CONTROL: u32 = 64;

/// Where the abort word (u32) lies.
pub const ABORT: u32 = 0;

/// The barrier: parts that have arrived, its generation, and whether the run stops there.
const ARRIVED: u64 = 4;
const GENERATION: u64 = 8;
const STOP: u64 = 12;

/// How often a part looks at the barrier before it sleeps.
const SPIN: i32 = 2000;

/// Beyond this, bytes, a branch costs little beside the row that reads zeros.
const MOST_ZEROS: i64 = 1 << 16;

/// Where everything lies in the module's memory. Offsets and lengths are bytes; nothing lies below [`CONTROL`].
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Of each value that kernels load or store: a multiple of 16.
    pub at: HashMap<ValueId, u32>,
    /// The values of the symbolic dims, one i32 each, in the order of `dim_order`.
    pub dims: u32,
    pub dim_order: Vec<Sym>,
    /// Zeros that padded convolutions read beyond the edges, [`zeros_needed`] of them; a multiple of 16.
    pub zeros: u32,
    /// The whole memory.
    pub bytes: u64,
}

/// Which instructions the module may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// simd128.
    Simd,
    /// simd128 and relaxed-simd.
    Relaxed,
    /// The same, and threads.
    Threads,
}

/// How many zeros must lie in memory, bytes: the longest run of elements that a kernel reads under a guard.
pub fn zeros_needed(values: &Values, kernels: &[Kernel]) -> u64 {
    let mut most = 0i64;
    for k in kernels {
        let Some(inner) = k.axes.last() else { continue };
        let mut guarded = false;
        for s in &k.stores {
            values.arena.visit(s.to, &mut |_, n| {
                guarded |=
                    matches!(n, Node::Select { then, .. } if matches!(values.arena.node(*then), Node::Load { .. }));
            });
        }
        if let (true, Form::Contract(c)) = (guarded, &k.form) {
            most = most.max(contract::zeros(values, c));
        } else if guarded {
            let n = values.arena.extent(*inner).range(&values.arena.ranges).max;
            most = most.max(n.saturating_add(16).saturating_mul(4));
        }
    }
    u64::try_from(most.min(MOST_ZEROS)).unwrap_or(0).next_multiple_of(16)
}

/// The buffers of a kernel: what it writes, then what else it reads.
fn buffers(values: &Values, kernel: &Kernel) -> Vec<ValueId> {
    let mut all = kernel.writes();
    for v in kernel.reads(values) {
        if !all.contains(&v) {
            all.push(v);
        }
    }
    all
}

/// A call of a kernel's function.
struct Call {
    function: u32,
    offsets: Vec<u32>,
}

/// Writes the module. The same kernels give the same bytes.
pub fn emit(values: &Values, kernels: &[Kernel], memory: &Memory, variant: Variant) -> Result<Vec<u8>> {
    let threads = variant == Variant::Threads;
    if memory.bytes > 1 << 32 || memory.bytes < u64::from(CONTROL) {
        return Err(Error::new(Kind::DeviceLimit, format!("{} bytes of memory, where wasm has 4 GiB", memory.bytes)));
    }
    let mut shared = Shared::default();
    let mut calls = vec![];
    let zeros = zeros_needed(values, kernels);
    for k in kernels {
        let call = kernel(values, k, memory, zeros, variant, &mut shared).map_err(|e| e.at(&k.name))?;
        calls.push(call);
    }
    let barrier = threads.then(|| shared.add(barrier()));
    let step = shared.add(step(&calls));
    let run = shared.add(run(calls.len(), step, barrier));

    let (types, functions, code) = shared.sections();
    let mut module = Module::new();
    let pages = memory.bytes.div_ceil(1 << 16);
    let ty =
        MemoryType { minimum: pages, maximum: Some(pages), memory64: false, shared: threads, page_size_log2: None };
    module.section(&types);
    if threads {
        let mut imports = ImportSection::new();
        imports.import("env", "memory", EntityType::Memory(ty));
        module.section(&imports);
    }
    module.section(&functions);
    if !threads {
        let mut memories = MemorySection::new();
        memories.memory(ty);
        module.section(&memories);
    }
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("run", ExportKind::Func, run);
    exports.export("step", ExportKind::Func, step);
    module.section(&exports);
    module.section(&code);
    Ok(module.finish())
}

fn kernel(
    values: &Values,
    k: &Kernel,
    memory: &Memory,
    zeros: u64,
    variant: Variant,
    shared: &mut Shared,
) -> Result<Call> {
    let buffers = buffers(values, k);
    let mut offsets = vec![];
    for b in &buffers {
        let at = memory.at.get(b).copied();
        offsets.push(at.ok_or_else(|| internal(format!("\"{}\" has no place in memory", values.get(*b).name)))?);
    }
    let relaxed = variant != Variant::Simd;
    let mut w = Writer::new(values, memory, zeros, shared, relaxed, buffers);
    match &k.form {
        Form::Loops => w.loops(k)?,
        Form::Contract(c) => w.contract(k, c)?,
        Form::Program(body) => w.program(k, body)?,
        Form::Attention(_) => return Err(internal("attention is a kernel of the GPU")),
    }
    let f = w.finish();
    Ok(Call { function: shared.add(f), offsets })
}

/// `run(part, parts, pieces) -> stop`: this part of `kernels` kernels in order, each in so many calls; between kernels the
/// abort word is read.
fn run(kernels: usize, step: u32, barrier: Option<u32>) -> Function {
    let (part, parts, pieces, kernel, piece) = (0, 1, 2, 3, 4);
    let mut code = vec![];
    let mut i = InstructionSink::new(&mut code);
    if kernels > 0 {
        i.loop_(BlockType::Empty).i32_const(0).local_set(piece);
        i.loop_(BlockType::Empty).local_get(kernel);
        i.local_get(part).local_get(pieces).i32_mul().local_get(piece).i32_add();
        i.local_get(parts).local_get(pieces).i32_mul().call(step);
        i.local_get(piece).i32_const(1).i32_add().local_tee(piece).local_get(pieces).i32_lt_u().br_if(0).end();
        match barrier {
            Some(barrier) => i.local_get(parts).call(barrier),
            None => i.i32_const(0).i32_load(arg(u64::from(ABORT), 2)),
        };
        i.if_(BlockType::Empty).i32_const(1).return_().end();
        let last = i32::try_from(kernels).unwrap_or(i32::MAX);
        i.local_get(kernel).i32_const(1).i32_add().local_tee(kernel).i32_const(last).i32_lt_u().br_if(0).end();
    }
    i.i32_const(0);
    Function { params: vec![ValType::I32; 3], results: vec![ValType::I32], locals: vec![ValType::I32; 2], code }
}

/// `step(i, part, parts)`: a part of the kernel of number `i` alone; nothing for other numbers.
fn step(calls: &[Call]) -> Function {
    let mut code = vec![];
    let mut i = InstructionSink::new(&mut code);
    let n = u32::try_from(calls.len()).unwrap_or(u32::MAX);
    // Nested blocks: the table jumps out of as many as come before the kernel's code.
    for _ in 0..=n {
        i.block(BlockType::Empty);
    }
    let targets: Vec<u32> = (0..n).collect();
    i.local_get(0).br_table(targets, n).end();
    for c in calls {
        for at in &c.offsets {
            i.i32_const(at.cast_signed());
        }
        i.local_get(1).local_get(2).call(c.function).return_().end();
    }
    Function { params: vec![ValType::I32; 3], results: vec![], locals: vec![], code }
}

/// `barrier(parts) -> stop`: returns when all parts have called it. The last one decides for all whether to stop.
fn barrier() -> Function {
    let (parts, generation, spins) = (0, 1, 2);
    let mut code = vec![];
    let mut i = InstructionSink::new(&mut code);
    i.i32_const(0).i32_atomic_load(arg(GENERATION, 2)).local_set(generation);
    i.i32_const(0).i32_const(1).i32_atomic_rmw_add(arg(ARRIVED, 2));
    i.local_get(parts).i32_const(1).i32_sub().i32_eq().if_(BlockType::Empty);
    i.i32_const(0).i32_const(0).i32_atomic_load(arg(u64::from(ABORT), 2)).i32_atomic_store(arg(STOP, 2));
    i.i32_const(0).i32_const(0).i32_atomic_store(arg(ARRIVED, 2));
    i.i32_const(0).i32_const(1).i32_atomic_rmw_add(arg(GENERATION, 2)).drop();
    i.i32_const(0).i32_const(-1).memory_atomic_notify(arg(GENERATION, 2)).drop();
    i.else_().i32_const(SPIN).local_set(spins);
    i.block(BlockType::Empty).loop_(BlockType::Empty);
    i.i32_const(0).i32_atomic_load(arg(GENERATION, 2)).local_get(generation).i32_ne().br_if(1);
    i.local_get(spins).if_(BlockType::Empty);
    i.local_get(spins).i32_const(1).i32_sub().local_set(spins).else_();
    i.i32_const(0).local_get(generation).i64_const(-1).memory_atomic_wait32(arg(GENERATION, 2)).drop().end();
    i.br(0).end().end().end();
    i.i32_const(0).i32_atomic_load(arg(STOP, 2));
    Function { params: vec![ValType::I32], results: vec![ValType::I32], locals: vec![ValType::I32; 2], code }
}
