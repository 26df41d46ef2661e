//! Weights into packs: each constant once for each layout that kernels read it in, in order of first use.

use super::Weight;
use crate::error::{Error, Kind, Result};
use crate::kernel::{Layout, Schedule, ValueId, Values};
use crate::tensor::DType;
use std::collections::BTreeMap;

/// A pack takes no further tensor once it has this many bytes.
const PACK_BYTES: u64 = 64 << 20;

/// Tensors start at multiples of this many bytes in a pack.
pub const ALIGN: u64 = 256;

/// Tensors of at least this many elements are stored in a smaller type: of 8 or 16 bits where all of them are integers
/// that fit, which loses nothing, and as float16 with `--weights f16`.
const NARROW_FROM: u64 = 1024;

/// How float32 weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightType {
    #[default]
    F32,
    F16,
}

/// Packs and what lies in them.
#[derive(Debug, Default)]
pub struct Packed {
    pub weights: Vec<Weight>,
    /// The bytes of each pack.
    pub files: Vec<Vec<u8>>,
    /// The weight of a constant in a layout.
    pub index: BTreeMap<(ValueId, Layout), usize>,
}

/// Packs the constants of schedules, each with its values, that were made from one lowered model.
pub fn pack(schedules: &[(&Values, &Schedule)], stored: WeightType) -> Result<Packed> {
    let mut p = Packed::default();
    let used = schedules.iter().flat_map(|(values, s)| first_use(values, s).into_iter().map(|u| (*values, u)));
    for (values, (v, layout)) in used {
        if p.index.contains_key(&(v, layout.clone())) {
            continue;
        }
        let Some(array) = values.constant(v) else { continue };
        let mut bytes = layout.arrange(array)?;
        let dtype = array.dtype();
        let len = bytes.len() as u64 / dtype.size() as u64;
        let mut kept = dtype;
        if dtype == DType::Float32 && len >= NARROW_FROM {
            if let Some((dtype, narrow)) = to_integers(&bytes) {
                (kept, bytes) = (dtype, narrow);
            } else if stored == WeightType::F16 {
                (kept, bytes) = (DType::Float16, to_f16(&bytes).map_err(|e| e.at(&values.get(v).name))?);
            }
        }
        if p.files
            .last()
            .is_none_or(|f| f.len() as u64 >= PACK_BYTES || f.len() as u64 + bytes.len() as u64 > 2 * PACK_BYTES)
        {
            p.files.push(vec![]);
        }
        let pack = p.files.len() - 1;
        let file = &mut p.files[pack];
        file.resize((file.len() as u64).next_multiple_of(ALIGN) as usize, 0);
        p.index.insert((v, layout), p.weights.len());
        p.weights.push(Weight {
            name: values.get(v).name.clone(),
            stored: kept,
            dtype,
            len,
            pack: u32::try_from(pack).unwrap_or(u32::MAX),
            offset: file.len() as u64,
        });
        file.extend_from_slice(&bytes);
    }
    Ok(p)
}

/// The constants of a schedule with their layouts, in the order in which kernels first read them.
fn first_use(values: &Values, s: &Schedule) -> Vec<(ValueId, Layout)> {
    let mut all = vec![];
    for k in &s.kernels {
        for v in k.reads(values) {
            if values.constant(v).is_some()
                && let Some(layout) = s.layouts.get(&v)
                && !all.iter().any(|(w, l)| *w == v && l == layout)
            {
                all.push((v, layout.clone()));
            }
        }
    }
    all
}

/// The elements as integers of 8 or 16 bits, where they are that.
fn to_integers(bytes: &[u8]) -> Option<(DType, Vec<u8>)> {
    let floats = || bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c));
    let whole = |x: f32| {
        let n = x as i16;
        // Bits are compared: zero with a sign is no integer.
        (f32::from(n).to_bits() == x.to_bits()).then_some(n)
    };
    let mut most = 0i16;
    for x in floats() {
        let n = whole(x)?;
        most = most.max(if n < 0 { !n } else { n });
    }
    let all = floats().map(|x| x as i16);
    Some(match i8::try_from(most) {
        Ok(_) => (DType::Int8, all.flat_map(|n| (n as i8).to_le_bytes()).collect()),
        Err(_) => (DType::Int16, all.flat_map(i16::to_le_bytes).collect()),
    })
}

fn to_f16(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() / 2);
    for c in bytes.as_chunks::<4>().0 {
        let x = f32::from_le_bytes(*c);
        let h = half::f16::from_f32(x);
        if x.is_finite() && !h.is_finite() {
            return Err(Error::new(Kind::InvalidInput, format!("the weight {x} is beyond the range of float16"))
                .help("build with --weights f32"));
        }
        out.extend_from_slice(&h.to_le_bytes());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_stored_in_the_type_that_holds_them() {
        let cases: [(&[f32], Option<(DType, Vec<u8>)>); 7] = [
            (&[-128.0, 127.0, 0.0], Some((DType::Int8, vec![0x80, 0x7f, 0]))),
            (&[128.0, -1.0], Some((DType::Int16, vec![0x80, 0, 0xff, 0xff]))),
            (&[-32768.0], Some((DType::Int16, vec![0, 0x80]))),
            (&[32768.0], None),
            (&[1.0, 0.5], None),
            (&[-0.0], None),
            (&[f32::NAN], None),
        ];
        for (x, want) in cases {
            let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!(to_integers(&bytes), want, "{x:?}");
        }
    }
}
