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

/// With `--weights f16`, tensors of at least this many elements are stored as float16.
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
        let narrow = stored == WeightType::F16 && dtype == DType::Float32 && len >= NARROW_FROM;
        if narrow {
            bytes = to_f16(&bytes).map_err(|e| e.at(&values.get(v).name))?;
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
            stored: if narrow { DType::Float16 } else { dtype },
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
