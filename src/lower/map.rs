//! What elementwise lowerings share: a formula over broadcast inputs.

use super::Cx;
use super::formula::{X, formula};
use crate::error::Result;
use crate::kernel::{BinaryOp, ExprId, Scalar, Ty, ValueId, Values};
use crate::tensor::{Array, DType};

/// Output 0 as a formula over all present inputs, broadcast to it.
pub fn map(cx: &mut Cx<'_>, f: impl for<'a> FnOnce(&[X<'a>]) -> X<'a>) -> Result<Vec<ValueId>> {
    let inputs: Vec<ValueId> = (0..cx.input_count()).filter_map(|i| cx.optional(i)).collect();
    Ok(vec![map_of(cx, &inputs, f)?])
}

/// A value like output 0 as a formula over these values, broadcast to it.
pub fn map_of(cx: &mut Cx<'_>, inputs: &[ValueId], f: impl for<'a> FnOnce(&[X<'a>]) -> X<'a>) -> Result<ValueId> {
    let (dtype, shape) = cx.output(0)?;
    cx.values.func(dtype, shape, |vs, index| {
        let at: Vec<ExprId> = inputs.iter().map(|v| operand(vs, *v, index)).collect();
        let y = formula(&mut vs.arena, &at, f);
        Ok(formula(&mut vs.arena, &[y], |y| wrapped(y[0], dtype)))
    })
}

/// A result of 32-bit arithmetic wrapped to a narrow integer type, as it would come back from memory: a reader into which
/// it is fused sees the same.
pub fn wrapped(x: X<'_>, dtype: DType) -> X<'_> {
    match dtype {
        DType::Int8 | DType::Int16 => {
            let unused = if dtype == DType::Int8 { 24i64 } else { 16 };
            x.binary(BinaryOp::Shl, unused).binary(BinaryOp::Shr, unused)
        }
        DType::Uint8 => x.binary(BinaryOp::And, 0xffi64),
        DType::Uint16 => x.binary(BinaryOp::And, 0xffffi64),
        _ => x,
    }
}

/// The element of `value` under broadcasting; its number, where it is a constant of one element.
pub fn operand(vs: &mut Values, value: ValueId, index: &[ExprId]) -> ExprId {
    match vs.constant(value).and_then(single) {
        Some(s) => vs.arena.constant(s),
        None => vs.load_broadcast(value, index),
    }
}

/// The element of a constant that has only one.
pub fn single(array: &Array) -> Option<Scalar> {
    if array.len() != 1 {
        return None;
    }
    let ty = Ty::of(array.dtype());
    if array.dtype() == DType::Uint64 {
        return array.bytes().as_chunks().0.first().map(|b| Scalar { ty, bits: u64::from_le_bytes(*b) });
    }
    match (array.to_i64(), array.to_f64()) {
        (Some(n), _) => n.first().map(|n| Scalar::int(ty, *n)),
        (_, Some(x)) => x.first().map(|x| Scalar::real(ty, *x)),
        _ => None,
    }
}

/// The formula computed in floating point: integers are converted there and back, truncating.
pub fn in_float<'a>(x: X<'a>, f: impl FnOnce(X<'a>) -> X<'a>) -> X<'a> {
    match x.ty() {
        Ty::F32 | Ty::F64 => f(x),
        ty => f(x.cast(Ty::F32)).cast(ty),
    }
}
