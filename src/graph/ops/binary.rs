//! Elementwise operators of several tensors (ai.onnx), under numpy's broadcasting.
//!
//! Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Clip Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min
//! Mod Mul Or Pow Sub Sum Where Xor

use super::Op;
use super::rules::{MANY, broadcast_inputs, int, one_dtype, required, row};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, show};

pub(super) const ROWS: &[Op] = &[
    row("Add", &[7], (2, 2), &[], plain),
    row("And", &[7], (2, 2), &[], logic),
    row("BitShift", &[11], (2, 2), &[required("direction")], plain),
    row("BitwiseAnd", &[18], (2, 2), &[], plain),
    row("BitwiseOr", &[18], (2, 2), &[], plain),
    row("BitwiseXor", &[18], (2, 2), &[], plain),
    row("Clip", &[6, 11], (1, 3), &[], clip),
    row("Div", &[7], (2, 2), &[], plain),
    row("Equal", &[7], (2, 2), &[], compare),
    row("Greater", &[7], (2, 2), &[], compare),
    row("GreaterOrEqual", &[12], (2, 2), &[], compare),
    row("Less", &[7], (2, 2), &[], compare),
    row("LessOrEqual", &[12], (2, 2), &[], compare),
    row("Max", &[6, 8], (1, MANY), &[], plain),
    row("Mean", &[6, 8], (1, MANY), &[], plain),
    row("Min", &[6, 8], (1, MANY), &[], plain),
    row("Mod", &[10], (2, 2), &[int("fmod", 0)], plain),
    row("Mul", &[7], (2, 2), &[], plain),
    row("Or", &[7], (2, 2), &[], logic),
    row("Pow", &[7, 12], (2, 2), &[], power),
    row("Sub", &[7], (2, 2), &[], plain),
    row("Sum", &[6, 8], (1, MANY), &[], plain),
    row("Where", &[9], (3, 3), &[], choose),
    row("Xor", &[7], (2, 2), &[], logic),
];

fn plain(i: &Infer<'_>) -> Result<Vec<Type>> {
    Ok(vec![Type::new(one_dtype(i)?, broadcast_inputs(i)?)])
}

fn logic(i: &Infer<'_>) -> Result<Vec<Type>> {
    match one_dtype(i)? {
        DType::Bool => plain(i),
        d => Err(Error::new(Kind::InvalidModel, format!("a logical operator on {d}"))),
    }
}

fn compare(i: &Infer<'_>) -> Result<Vec<Type>> {
    one_dtype(i)?;
    Ok(vec![Type::new(DType::Bool, broadcast_inputs(i)?)])
}

/// The base's type stands; the exponent may have another.
fn power(i: &Infer<'_>) -> Result<Vec<Type>> {
    Ok(vec![Type::new(i.dtype(0)?, broadcast_inputs(i)?)])
}

fn choose(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (c, a, b) = (i.input(0)?, i.input(1)?, i.input(2)?);
    if a.dtype != b.dtype || c.dtype != DType::Bool {
        let e = format!("Where of a {} condition, {} and {}", c.dtype, a.dtype, b.dtype);
        return Err(Error::new(Kind::InvalidModel, e));
    }
    Ok(vec![Type::new(a.dtype, broadcast_inputs(i)?)])
}

/// The bounds are optional scalars.
fn clip(i: &Infer<'_>) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    for bound in [1, 2].into_iter().filter_map(|n| i.optional(n)) {
        if bound.dtype != t.dtype || !bound.shape.iter().all(|d| d.is(1)) {
            let e = format!("Clip's bound is {} {}, not a {} scalar", bound.dtype, show(&bound.shape), t.dtype);
            return Err(Error::new(Kind::InvalidModel, e));
        }
    }
    Ok(vec![Type::new(t.dtype, t.shape.clone())])
}
