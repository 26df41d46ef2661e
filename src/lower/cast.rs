//! Conversions between data types.

use super::formula::{X, formula};
use super::map::operand;
use super::{Cx, Lower};
use crate::error::Result;
use crate::kernel::{BinaryOp, Ty, UnaryOp, ValueId};
use crate::tensor::DType;

pub(super) const ROWS: &[(&str, Lower)] = &[("Cast", cast), ("CastLike", cast)];

fn cast(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, (to, _)) = (cx.input(0)?, cx.output(0)?);
    let from = cx.values.dtype(x);
    cx.func(|vs, i| {
        let x = operand(vs, x, i);
        Ok(formula(&mut vs.arena, &[x], |x| convert(x[0], from, to)))
    })
}

/// `x`, an element of `from`, as an element of `to`, already rounded or wrapped to that type: a reader into which it is
/// fused sees the same as from memory. Floats become integers by truncation.
pub(super) fn convert<'a>(x: X<'a>, from: DType, to: DType) -> X<'a> {
    let y = x.cast(Ty::of(to));
    let exact = from == to || from == DType::Bool || (from.is_int() && from.size() == 1 && to.is_float());
    if exact {
        return y;
    }
    match to {
        DType::Float16 => y.unary(UnaryOp::RoundF16),
        DType::BFloat16 => y.unary(UnaryOp::RoundBf16),
        DType::Int8 | DType::Int16 => {
            let unused = 32 - 8 * i64::from(to.size() as u32);
            y.binary(BinaryOp::Shl, unused).binary(BinaryOp::Shr, unused)
        }
        DType::Uint8 => y.binary(BinaryOp::And, 0xffi64),
        DType::Uint16 => y.binary(BinaryOp::And, 0xffffi64),
        _ => y,
    }
}
