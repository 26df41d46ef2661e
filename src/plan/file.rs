//! The plan's file format: a magic number, a format version, then the plan in postcard.

use super::Plan;
use crate::error::{Error, Kind, Result};

/// The version of the format that this build writes and reads.
pub const FORMAT: u32 = 5;

const MAGIC: &[u8; 8] = b"nearside";

/// No plan is larger than this many bytes.
const MAX_BYTES: usize = 64 << 20;

/// The file's bytes.
pub fn serialize(plan: &Plan) -> Result<Vec<u8>> {
    let body = postcard::to_allocvec(plan)
        .map_err(|e| Error::new(Kind::Internal, format!("the plan does not serialize: {e}")))?;
    Ok([&MAGIC[..], &FORMAT.to_le_bytes(), &body].concat())
}

/// The one parser of plans. Everything that the runtime indexes with is checked here.
pub fn parse(bytes: &[u8]) -> Result<Plan> {
    let invalid = |what: String| Error::new(Kind::InvalidPackage, what).at("model.plan");
    if bytes.len() > MAX_BYTES {
        return Err(invalid(format!("{} bytes, more than the {MAX_BYTES} that a plan may have", bytes.len())));
    }
    let rest =
        bytes.strip_prefix(MAGIC).ok_or_else(|| invalid("not a plan: it does not start with \"nearside\"".into()))?;
    let (version, body) = rest.split_first_chunk::<4>().ok_or_else(|| invalid("truncated after 8 bytes".into()))?;
    let version = u32::from_le_bytes(*version);
    if version != FORMAT {
        return Err(Error::new(Kind::FormatVersion, format!("plan format {version}, and this runtime reads {FORMAT}"))
            .at("model.plan")
            .help("build the model and install the runtime with the same version of nearside"));
    }
    let (plan, rest) = postcard::take_from_bytes::<Plan>(body).map_err(|e| invalid(format!("does not parse: {e}")))?;
    if !rest.is_empty() {
        return Err(invalid(format!("{} bytes after the plan", rest.len())));
    }
    check(&plan).map_err(|what| invalid(what.to_owned()))?;
    Ok(plan)
}

/// Every reference inside the plan points at something, and every range lies inside its buffer.
fn check(plan: &Plan) -> Result<(), &'static str> {
    let packs = plan.packs.len();
    for w in &plan.weights {
        let pack = plan.packs.get(w.pack as usize).ok_or("a weight names a pack that is not there")?;
        let end = w.len.checked_mul(w.stored.size() as u64).and_then(|n| n.checked_add(w.offset));
        if w.offset % 256 != 0 || end.is_none_or(|end| end > pack.size) {
            return Err("a weight lies outside its pack");
        }
    }
    let cpu = &plan.cpu;
    if cpu.weights.len() != plan.weights.len()
        || cpu.inputs.len() != plan.inputs.len()
        || cpu.outputs.len() != plan.outputs.len()
    {
        return Err("the CPU's memory map does not match the signature");
    }
    for (w, at) in plan.weights.iter().zip(&cpu.weights) {
        let end = at.map(|at| w.len.checked_mul(w.dtype.size() as u64).and_then(|n| n.checked_add(u64::from(at))));
        if end.is_some_and(|end| end.is_none_or(|end| end > cpu.memory)) {
            return Err("a weight lies outside the CPU's memory");
        }
    }
    if cpu.needs.len() != cpu.kernels.len() || cpu.needs.iter().any(|n| *n as usize > plan.weights.len()) {
        return Err("a kernel reads a weight that is not there");
    }
    if cpu.memory > 1 << 32 || cpu.inputs.iter().chain(&cpu.outputs).any(|at| u64::from(*at) > cpu.memory) {
        return Err("a tensor lies outside the CPU's memory");
    }
    let Some(gpu) = &plan.gpu else { return Ok(()) };
    if gpu.shaders.iter().any(|(start, end)| start > end) {
        return Err("a shader ends before it starts");
    }
    for b in &gpu.buffers {
        match b.role {
            super::Role::Weights(p) if p as usize >= packs => return Err("a buffer names a pack that is not there"),
            super::Role::Weights(p) if b.parts.len() != plan.weights.iter().filter(|w| w.pack == p).count() => {
                return Err("a weight buffer does not match its pack");
            }
            super::Role::Numbers if b.parts.len() != gpu.numbers.len() => return Err("the numbers have no places"),
            super::Role::Numbers => {
                let end = |(at, n): (&u64, &Vec<i32>)| at.checked_add(4 * n.len() as u64);
                let mut ends = b.parts.iter().zip(&gpu.numbers).map(end);
                if ends.any(|end| end.is_none_or(|end| end > b.bytes)) || b.parts.iter().any(|at| at % 256 != 0) {
                    return Err("numbers lie outside their buffer");
                }
            }
            super::Role::Inputs if b.parts.len() != plan.inputs.len() => return Err("the input buffer misses inputs"),
            super::Role::Output(n) if n as usize >= plan.outputs.len() => {
                return Err("a buffer names an output that is not there");
            }
            _ => {}
        }
        if b.parts.iter().any(|at| *at > b.bytes) {
            return Err("a part lies outside its buffer");
        }
    }
    if gpu.dispatches.iter().any(|d| d.candidates.is_empty()) {
        return Err("a dispatch has no shader");
    }
    for c in gpu.dispatches.iter().flat_map(|d| &d.candidates) {
        if c.shader as usize >= gpu.shaders.len() {
            return Err("a dispatch names a shader that is not there");
        }
        for b in &c.bindings {
            let buffer = gpu.buffers.get(b.buffer as usize).ok_or("a binding names a buffer that is not there")?;
            if b.offset % 256 != 0 || b.offset.checked_add(b.size).is_none_or(|end| end > buffer.bytes) {
                return Err("a binding lies outside its buffer");
            }
        }
    }
    Ok(())
}
