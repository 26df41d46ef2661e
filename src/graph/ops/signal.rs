//! Signal processing: DFT, STFT, HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix.

use super::rules::{axis, int, row};
use super::{Attr, Op};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, Dim, show};

const WINDOW: &[Attr] = &[int("output_datatype", 1), int("periodic", 1)];

pub(super) static ROWS: &[Op] = &[
    row("BlackmanWindow", &[17], (1, 1), WINDOW, window),
    row("DFT", &[17, 20], (1, 3), &[int("inverse", 0), int("onesided", 0)], dft),
    row("HammingWindow", &[17], (1, 1), WINDOW, window),
    row("HannWindow", &[17], (1, 1), WINDOW, window),
    row("MelWeightMatrix", &[17], (5, 5), &[int("output_datatype", 1)], |i| {
        let bins = number(i, 1, "the length of a transform")?.floor_div(&Dim::from(2)).add(&Dim::from(1));
        Ok(vec![Type::new(output_dtype(i)?, vec![bins, number(i, 0, "the number of mel bins")?])])
    }),
    row("STFT", &[17], (2, 4), &[int("onesided", 1)], stft),
];

fn number(i: &Infer<'_>, at: usize, what: &str) -> Result<Dim> {
    let list = i.required_content(at, what)?;
    match &list[..] {
        [n] if n.known().is_none_or(|n| (1..1 << 24).contains(&n)) => Ok(n.clone()),
        _ => Err(Error::new(Kind::InvalidModel, format!("{what} is {}", show(&list)))),
    }
}

fn output_dtype(i: &Infer<'_>) -> Result<DType> {
    let n = i.attrs.int("output_datatype")?;
    let dtype = i32::try_from(n).ok().and_then(DType::from_onnx).filter(|d| *d != DType::Bool);
    dtype.ok_or_else(|| Error::new(Kind::UnsupportedType, format!("attribute \"output_datatype\" is {n}")))
}

fn window(i: &Infer<'_>) -> Result<Vec<Type>> {
    Ok(vec![Type::new(output_dtype(i)?, vec![number(i, 0, "the size of a window")?])])
}

/// The axis of a transform of `x`, the last of whose axes holds real, or real and imaginary parts; and the transform's
/// length.
pub fn transform(given: Option<i64>, length: Option<Dim>, x: &[Dim], back_to_real: bool) -> Result<(usize, Dim)> {
    let bad = |why: &str| Err(Error::new(Kind::InvalidShape, format!("a transform of {}: {why}", show(x))));
    let parts = x.last().and_then(Dim::known);
    if x.len() < 2 || !matches!(parts, Some(1 | 2)) {
        return bad("the last axis holds one or two parts");
    }
    let at = axis(given.unwrap_or(-2), x.len())?;
    if at + 1 == x.len() {
        return bad("it runs along the last axis");
    }
    let two = Dim::from(2);
    let length =
        length.unwrap_or_else(|| if back_to_real { x[at].sub(&Dim::from(1)).mul(&two) } else { x[at].clone() });
    // Angles are reduced in 32 bits.
    if length.known().is_some_and(|n| !(1..=46340).contains(&n)) {
        return bad(&format!("its length is {length}"));
    }
    Ok((at, length))
}

fn dft(i: &Infer<'_>) -> Result<Vec<Type>> {
    let x = i.shape(0)?;
    let (inverse, onesided) = (i.attrs.flag("inverse")?, i.attrs.flag("onesided")?);
    let given = i.ints(2, "the axis of a transform")?.and_then(|l| l.first().copied());
    let length = i.optional(1).map(|_| number(i, 1, "the length of a transform")).transpose()?;
    let (at, n) = transform(given, length, x, inverse && onesided)?;
    let mut shape = x.clone();
    let last = shape.len() - 1;
    shape[at] = if onesided && !inverse { n.floor_div(&Dim::from(2)).add(&Dim::from(1)) } else { n };
    shape[last] = Dim::from(if inverse && onesided { 1 } else { 2 });
    Ok(vec![Type::new(i.dtype(0)?, shape)])
}

fn stft(i: &Infer<'_>) -> Result<Vec<Type>> {
    let x = i.shape(0)?;
    let step = number(i, 1, "the step of a transform")?;
    let window = i.optional(2).and_then(|t| t.shape.first().cloned());
    let length = i.optional(3).map(|_| number(i, 3, "the length of a frame")).transpose()?;
    let Some(length) = length.or_else(|| window.clone()) else {
        return Err(Error::new(Kind::InvalidModel, "neither a window nor the length of a frame is given"));
    };
    transform(Some(1), Some(length.clone()), x, false)?;
    if x.len() != 3 || window.is_some_and(|w| w != length) {
        let what = format!("frames of {length} of a signal of shape {}", show(x));
        return Err(Error::new(Kind::InvalidShape, what));
    }
    let one = Dim::from(1);
    let frames = x[1].sub(&length).floor_div(&step).add(&one);
    let bins = if i.attrs.flag("onesided")? { length.floor_div(&Dim::from(2)).add(&one) } else { length };
    Ok(vec![Type::new(i.dtype(0)?, vec![x[0].clone(), frames, bins, Dim::from(2)])])
}
