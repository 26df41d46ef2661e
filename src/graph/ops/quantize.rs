//! Between real numbers and integers with a scale and a zero point (ai.onnx).
//!
//! DequantizeLinear DynamicQuantizeLinear QuantizeLinear

use super::Op;
use super::rules::{axis, int, row};
use crate::error::{Error, Kind, Result};
use crate::graph::Attrs;
use crate::graph::infer::{Infer, Type};
use crate::tensor::{Array, DType, Dim, show};

pub(super) const ROWS: &[Op] = &[
    row(
        "DequantizeLinear",
        &[10, 13, 21, 23],
        (2, 3),
        &[int("axis", 1), int("block_size", 0), int("output_dtype", 0)],
        |i| {
            let dtype = match asked(i.attrs)? {
                Some(d) => d,
                None => i.dtype(1)?,
            };
            linear(i, dtype)
        },
    ),
    Op {
        name: "DynamicQuantizeLinear",
        since: &[11],
        inputs: (1, 1),
        outputs: (3, 3),
        attrs: &[],
        infer: |i| {
            let t = i.input(0)?;
            Ok(vec![
                Type::new(DType::Uint8, t.shape.clone()),
                Type::new(DType::Float32, vec![]),
                Type::new(DType::Uint8, vec![]),
            ])
        },
    },
    row(
        "QuantizeLinear",
        &[10, 13, 19, 21, 23],
        (2, 3),
        &[int("axis", 1), int("block_size", 0), int("output_dtype", 0), int("precision", 0), int("saturate", 1)],
        |i| {
            let dtype = match (i.optional(2), asked(i.attrs)?) {
                (Some(t), _) => t.dtype,
                (None, Some(d)) => d,
                (None, None) => DType::Uint8,
            };
            linear(i, dtype)
        },
    ),
];

/// The type that the attribute `output_dtype` names, where it names one.
fn asked(attrs: &Attrs) -> Result<Option<DType>> {
    if matches!(attrs.get("output_dtype"), Some(crate::graph::AttrValue::Int(0))) {
        return Ok(None);
    }
    super::cast::dtype(attrs, "output_dtype").map(Some)
}

/// How the scale of an element is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    Tensor,
    /// One scale an index of this axis.
    Axis(usize),
    /// One scale for so many elements along this axis, the other axes as in the data.
    Block(usize, i64),
}

/// The grain of a scale of that shape.
pub fn grain(x: &[Dim], scale: &[Dim], attrs: &Attrs) -> Result<Grain> {
    let wrong = || Error::new(Kind::InvalidShape, format!("scales {} for {}", show(scale), show(x)));
    let size = attrs.int("block_size")?;
    if scale.iter().all(|d| d.is(1)) && (size == 0 || scale.is_empty()) && scale.len() <= 1 {
        return Ok(Grain::Tensor);
    }
    let at = axis(attrs.int("axis")?, x.len())?;
    if size == 0 {
        return if scale[..] == x[at..=at] { Ok(Grain::Axis(at)) } else { Err(wrong()) };
    }
    let blocks = |n: usize| if n == at { x[n].ceil_div(&Dim::from(size)) } else { x[n].clone() };
    if size < 0 || scale.len() != x.len() || !(0..x.len()).all(|n| scale[n] == blocks(n)) {
        return Err(wrong());
    }
    Ok(Grain::Block(at, size))
}

/// The integers of a tensor less their zero points, of which there is one, or one for each index of the axis `channel`.
/// `None` where there is another number of them.
pub fn centred(q: &Array, zeros: &[i64], channel: usize) -> Option<Vec<i64>> {
    let channels = *q.shape().get(channel)?;
    if zeros.len() != 1 && zeros.len() != channels {
        return None;
    }
    let inner: usize = q.shape()[channel + 1..].iter().product();
    let zero = |i: usize| zeros[if zeros.len() == 1 { 0 } else { i / inner.max(1) % channels }];
    Some(q.to_i64()?.into_iter().enumerate().map(|(i, x)| x - zero(i)).collect())
}

fn linear(i: &Infer<'_>, dtype: DType) -> Result<Vec<Type>> {
    let (x, scale) = (i.input(0)?, i.input(1)?);
    let one = grain(&x.shape, &scale.shape, i.attrs)? == Grain::Tensor;
    // Of a single scale and a single zero point, ONNX Runtime's quantizer gives one as a vector, the other as a scalar.
    let single = |t: &Type| one && t.shape.len() <= 1 && t.shape.iter().all(|d| d.is(1));
    if let Some(zero) = i.optional(2)
        && zero.shape != scale.shape
        && !single(zero)
    {
        let e = format!("a zero point {} with scales {}", show(&zero.shape), show(&scale.shape));
        return Err(Error::new(Kind::InvalidShape, e));
    }
    Ok(vec![Type::new(dtype, x.shape.clone())])
}
