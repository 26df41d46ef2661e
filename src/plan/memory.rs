//! What the host of `model.wasm` writes into its memory, as bytes. Offsets are bytes in that memory.

use super::convert::convert;
use super::{CpuPlan, Plan, Weight};
use crate::error::{Error, Kind, Result};
use crate::tensor::{Bindings, Dim};
use std::borrow::Cow;

/// Where each weight that kernels read goes and its bytes there, out of the bytes of each pack.
pub fn weights<'a>(
    weights: &'a [Weight],
    cpu: &'a CpuPlan,
    packs: &'a [Vec<u8>],
) -> impl Iterator<Item = Result<(u32, Cow<'a, [u8]>)>> {
    weights.iter().zip(&cpu.weights).filter_map(move |(w, at)| {
        let at = (*at)?;
        let start = usize::try_from(w.offset).unwrap_or(usize::MAX);
        let len = usize::try_from(w.len).unwrap_or(usize::MAX).saturating_mul(w.stored.size());
        let bytes = packs.get(w.pack as usize).and_then(|pack| pack.get(start..start.checked_add(len)?));
        let outside = || Error::new(Kind::InvalidPackage, "a weight lies outside its pack").at(&w.name);
        Some(bytes.ok_or_else(outside).and_then(|b| Ok((at, convert(b, w.stored, w.dtype)?))))
    })
}

/// The words of the symbolic dims, which go to [`CpuPlan::dims`].
pub fn dims(plan: &Plan, bindings: &Bindings) -> Result<Vec<u8>> {
    let mut words = vec![];
    for d in &plan.dims {
        let n = Dim::sym(&d.name).eval(bindings)?;
        words.extend(i32::try_from(n).unwrap_or(i32::MAX).to_le_bytes());
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn cpu(weights: Vec<Option<u32>>) -> CpuPlan {
        CpuPlan { weights, memory: 65536, ..CpuPlan::default() }
    }

    #[test]
    fn narrow_weights_are_widened_and_unread_ones_stay_out() {
        let half = half::f16::from_f32(-1.5).to_le_bytes();
        let weight = |stored, offset| Weight {
            name: format!("at {offset}"),
            stored,
            dtype: DType::Float32,
            len: 1,
            pack: 0,
            offset,
        };
        let all = [weight(DType::Float16, 0), weight(DType::Float32, 4), weight(DType::Float32, 4)];
        let packs = [[&half[..], &[0, 0], &2f32.to_le_bytes()].concat()];
        let cpu = cpu(vec![Some(256), None, Some(512)]);
        let placed: Vec<_> = weights(&all, &cpu, &packs).map(Result::unwrap).collect();
        assert_eq!(
            placed,
            [
                (256, Cow::Owned::<[u8]>((-1.5f32).to_le_bytes().to_vec())),
                (512, Cow::Borrowed(&2f32.to_le_bytes()[..])),
            ]
        );
    }

    #[test]
    fn a_weight_outside_its_pack_is_named() {
        let w = Weight {
            name: "w".into(),
            stored: DType::Float32,
            dtype: DType::Float32,
            len: u64::MAX,
            pack: 0,
            offset: 4,
        };
        let all = [w];
        let (cpu, packs) = (cpu(vec![Some(0)]), [vec![0; 8]]);
        let error = weights(&all, &cpu, &packs).next().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.place()), (Kind::InvalidPackage, Some("w")));
    }
}
