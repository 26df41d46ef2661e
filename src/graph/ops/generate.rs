//! Tensors made from shapes, numbers and indices (ai.onnx).
//!
//! ConstantOfShape EyeLike OneHot Range Trilu

use super::Op;
use super::cast::dtype;
use super::rules::{absent, axis, depends_on_data, greatest, int, one_dtype, range, rank, row, same};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::graph::{AttrValue, Attrs};
use crate::tensor::{Array, Dim, show};

pub(super) const ROWS: &[Op] = &[
    row("ConstantOfShape", &[9], (1, 1), &[absent("value")], constant_of_shape),
    row("EyeLike", &[9], (1, 1), &[absent("dtype"), int("k", 0)], eye_like),
    row("OneHot", &[9, 11], (3, 3), &[int("axis", -1)], one_hot),
    row("Range", &[11], (3, 3), &[], numbers),
    row("Trilu", &[14], (1, 2), &[int("upper", 1)], trilu),
];

/// The value that ConstantOfShape fills with: one element, float32 0 by default.
pub fn fill(attrs: &Attrs) -> Result<Array> {
    match attrs.get("value") {
        None => Array::from_f32(vec![1], &[0.0]),
        Some(AttrValue::Tensor(a)) if a.len() == 1 => Ok(a.clone()),
        Some(_) => Err(Error::new(Kind::InvalidModel, "attribute \"value\" is not a tensor of one element")),
    }
}

fn constant_of_shape(i: &Infer<'_>) -> Result<Vec<Type>> {
    let shape = i.required_content(0, "the shape that ConstantOfShape takes")?;
    if shape.iter().any(|d| d.known().is_some_and(|n| n < 0)) {
        return Err(Error::new(Kind::InvalidShape, format!("a constant of shape {}", show(&shape))));
    }
    let value = fill(i.attrs)?;
    Ok(vec![Type::new(value.dtype(), shape)])
}

fn eye_like(i: &Infer<'_>) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    rank("the input of EyeLike", &t.shape, 2)?;
    let dtype = if i.attrs.get("dtype").is_some() { dtype(i.attrs, "dtype")? } else { t.dtype };
    Ok(vec![Type::new(dtype, t.shape.clone())])
}

fn one_hot(i: &Infer<'_>) -> Result<Vec<Type>> {
    let mut shape = i.shape(0)?.clone();
    let depth = match (i.content(1), i.constants.get(1).and_then(Option::as_ref).and_then(Array::to_f64)) {
        (Some(c), _) => c.first().cloned(),
        (None, Some(x)) => x.first().map(|x| Dim::from(*x as i64)),
        (None, None) => None,
    };
    let depth = depth.ok_or_else(|| depends_on_data("the depth of OneHot"))?;
    let at = axis(i.attrs.int("axis")?, shape.len() + 1)?;
    shape.insert(at, depth);
    if i.shape(2)?[..] != [Dim::from(2)] {
        return Err(Error::new(
            Kind::InvalidShape,
            format!("OneHot's values have shape {}, not [2]", show(i.shape(2)?)),
        ));
    }
    Ok(vec![Type::new(i.dtype(2)?, shape)])
}

/// `start, start + delta, …` below `limit`.
fn numbers(i: &Infer<'_>) -> Result<Vec<Type>> {
    let dtype = one_dtype(i)?;
    let what = "the length of Range";
    if dtype.is_float() {
        let number = |n: usize| {
            let x = i.constants.get(n).and_then(Option::as_ref).and_then(Array::to_f64);
            x.and_then(|x| x.first().copied()).ok_or_else(|| depends_on_data(what))
        };
        let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
        let n = ((limit - start) / delta).ceil().max(0.0);
        if n.is_nan() || n > f64::from(i32::MAX) {
            return Err(Error::new(Kind::InvalidShape, format!("Range from {start} to {limit} by {delta}")));
        }
        return Ok(vec![Type::new(dtype, vec![Dim::from(n as i64)])]);
    }
    let number = |n: usize| i.content(n).and_then(|c| c.first().cloned()).ok_or_else(|| depends_on_data(what));
    let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
    let span = limit.sub(&start);
    let n = match delta.known() {
        Some(0) => return Err(Error::new(Kind::InvalidModel, "Range with step 0")),
        Some(d) if d > 0 => span.ceil_div(&Dim::from(d)),
        Some(d) => Dim::from(0).sub(&span).ceil_div(&Dim::from(0i64.saturating_sub(d))),
        None if range(&delta).min > 0 => span.ceil_div(&delta),
        None => return Err(depends_on_data("the sign of Range's step")),
    };
    let n = greatest(&n, &Dim::from(0));
    Ok(vec![Type::new(dtype, vec![n])])
}

fn trilu(i: &Infer<'_>) -> Result<Vec<Type>> {
    if i.shape(0)?.len() < 2 {
        return Err(Error::new(Kind::InvalidShape, format!("Trilu of {}, which is no matrix", show(i.shape(0)?))));
    }
    same(i)
}
