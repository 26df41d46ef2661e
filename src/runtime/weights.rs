//! Which bytes of a pack go where, for chunks that arrive one by one.

use crate::error::{Error, Kind, Result};
use crate::plan::{Plan, Role, gpu_dtype};
use crate::tensor::DType;

/// A piece of one weight inside a range of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The weight, as an index into [`Plan::weights`].
    pub weight: usize,
    /// Where the piece starts in the given range, bytes.
    pub from: u64,
    /// How long it is there, bytes.
    pub len: u64,
    /// The type as stored.
    pub stored: DType,
    /// The type as the device reads it.
    pub dtype: DType,
    /// Where it goes, bytes: in the memory of `model.wasm`, or in the pack's GPU buffer.
    pub to: u64,
}

/// A device, as far as placing weights goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Cpu,
    Gpu,
}

/// The pieces of weights in the bytes `[offset, offset + len)` of a pack. The range starts and ends at an element (chunks
/// of a multiple of 8 bytes do, because weights start at multiples of 256).
pub fn pieces(plan: &Plan, target: Target, pack: u32, offset: u64, len: u64) -> Result<Vec<Piece>> {
    let outside = |what: &str| Error::new(Kind::InvalidPackage, format!("{what} of pack {pack}")).at("model.plan");
    let size = plan.packs.get(pack as usize).ok_or_else(|| outside("there is no range"))?.size;
    let end =
        offset.checked_add(len).filter(|end| *end <= size).ok_or_else(|| outside("a range ends after the end"))?;
    let gpu = plan.gpu.iter().flat_map(|g| &g.buffers).find(|b| b.role == Role::Weights(pack));
    let mut all = vec![];
    let in_pack = plan.weights.iter().enumerate().filter(|(_, w)| w.pack == pack);
    for (part, (i, w)) in in_pack.enumerate() {
        let element = w.stored.size() as u64;
        let from = w.offset.max(offset);
        let to = w.len.saturating_mul(element).saturating_add(w.offset).min(end);
        if from >= to {
            continue;
        }
        let (base, dtype) = match target {
            Target::Cpu => match plan.cpu.weights.get(i).copied().flatten() {
                Some(at) => (u64::from(at), w.dtype),
                None => continue,
            },
            Target::Gpu => match (gpu.and_then(|b| b.parts.get(part)), gpu_dtype(w.dtype)) {
                (Some(at), Some(dtype)) => (*at, dtype),
                _ => continue,
            },
        };
        if (from - w.offset) % element != 0 || (to - from) % element != 0 {
            return Err(outside("an element lies across two ranges"));
        }
        all.push(Piece {
            weight: i,
            from: from - offset,
            len: to - from,
            stored: w.stored,
            dtype,
            to: base + (from - w.offset) / element * dtype.size() as u64,
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{CpuPlan, Pack, Weight};

    fn plan() -> Plan {
        let weight =
            |stored, len, offset| Weight { name: "w".into(), stored, dtype: DType::Float32, len, pack: 0, offset };
        Plan {
            name: "m".into(),
            version: "1.0.0".into(),
            inputs: vec![],
            outputs: vec![],
            dims: vec![],
            packs: vec![Pack { sha256: [0; 32], size: 768 }],
            weights: vec![
                weight(DType::Float32, 64, 0),
                weight(DType::Float16, 100, 256),
                weight(DType::Float32, 2, 512),
            ],
            cpu: CpuPlan { weights: vec![Some(1000), Some(2000), None], memory: 65536, ..CpuPlan::default() },
            gpu: None,
        }
    }

    #[test]
    fn a_range_is_cut_at_its_weights() -> Result<()> {
        let all = pieces(&plan(), Target::Cpu, 0, 128, 256)?;
        let seen: Vec<_> = all.iter().map(|p| (p.weight, p.from, p.len, p.to)).collect();
        assert_eq!(seen, [(0, 0, 128, 1128), (1, 128, 128, 2000)]);
        let rest = pieces(&plan(), Target::Cpu, 0, 384, 384)?;
        let seen: Vec<_> = rest.iter().map(|p| (p.weight, p.from, p.len, p.to)).collect();
        assert_eq!(seen, [(1, 0, 72, 2256)], "f16 grows to f32, and what no kernel reads goes nowhere");
        Ok(())
    }

    #[test]
    fn a_range_outside_the_pack_is_refused() {
        let kind = |o, l| pieces(&plan(), Target::Cpu, 0, o, l).err().map(|e| e.kind());
        assert_eq!(kind(0, 769), Some(Kind::InvalidPackage));
        assert_eq!(kind(u64::MAX, 2), Some(Kind::InvalidPackage));
        assert_eq!(kind(257, 4), Some(Kind::InvalidPackage));
    }
}
