//! Conversions between data types.

use super::formula::{X, formula};
use super::map::{operand, wrapped};
use super::{Cx, Lower};
use crate::error::Result;
use crate::kernel::{Ty, UnaryOp, ValueId};
use crate::tensor::DType;

pub(super) const ROWS: &[(&str, Lower)] = &[("BitCast", bit_cast), ("Cast", cast), ("CastLike", cast)];

fn cast(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, (to, _)) = (cx.input(0)?, cx.output(0)?);
    let from = cx.values.dtype(x);
    cx.func(|vs, i| {
        let x = operand(vs, x, i);
        Ok(formula(&mut vs.arena, &[x], |x| convert(x[0], from, to)))
    })
}

/// Integers of one size wrap into each other; floats of 32 bits are reinterpreted.
fn bit_cast(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, (to, _)) = (cx.input(0)?, cx.output(0)?);
    let from = cx.values.dtype(x);
    cx.func(|vs, i| {
        let x = operand(vs, x, i);
        Ok(formula(&mut vs.arena, &[x], |x| match from.is_float() == to.is_float() {
            true => convert(x[0], from, to),
            false => x[0].unary(UnaryOp::Bitcast(Ty::of(to))),
        }))
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
        _ => wrapped(y, to),
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue;
    use crate::lower::testing::{Case, In, array, exact, f32s};
    use crate::tensor::DType::{self, BFloat16, Bool, Float16, Float32, Float64, Int8, Int32, Int64, Uint8};

    #[test]
    fn converts_rounds_and_wraps() {
        let cases: &[(DType, DType, &[f64], &[f64])] = &[
            (Float32, Float16, &[2049.0, 1e6, 0.1], &[2048.0, f64::INFINITY, 0.099_975_586]),
            (Float32, BFloat16, &[257.0, 1.0], &[256.0, 1.0]),
            (Float16, Float32, &[0.5, -2.0], &[0.5, -2.0]),
            (Float32, Int32, &[-1.9, 1.9, 3e9], &[-1.0, 1.0, f64::from(i32::MAX)]),
            (Int32, Int8, &[128.0, -129.0, 5.0], &[-128.0, 127.0, 5.0]),
            (Int64, Uint8, &[256.0, -1.0], &[0.0, 255.0]),
            (Float32, Bool, &[0.0, -0.5], &[0.0, 1.0]),
            (Bool, Float32, &[0.0, 1.0], &[0.0, 1.0]),
            (Uint8, Float16, &[255.0], &[255.0]),
            (Float64, Int64, &[1e15, -2.5], &[1e15, -2.0]),
        ];
        for (from, to, x, want) in cases {
            let (x, want) = (array(*from, &[x.len()], x), array(*to, &[want.len()], want));
            let name = format!("{from} to {to}");
            let (attrs, like) = ([("to", AttrValue::Int(to.onnx().into()))], array(*to, &[0], &[]));
            let (tolerance, want) = ((0.0, 0.0), &[want][..]);
            let inputs = [In::Data(x), In::Data(like)];
            Case { name: &name, op: "Cast", attrs: &attrs, inputs: &inputs[..1], want, tolerance }.check();
            Case { name: &name, op: "CastLike", attrs: &[], inputs: &inputs, want, tolerance }.check();
        }
        let bits = |name, from, to: DType, x: f64, want: f64| {
            let attrs = [("to", AttrValue::Int(to.onnx().into()))];
            exact(name, "BitCast", &attrs, &[In::Data(array(from, &[1], &[x]))], &[array(to, &[1], &[want])]);
        };
        bits("float bits", Float32, Int32, 1.0, f64::from(0x3f80_0000));
        bits("sign bit", Int8, Uint8, -1.0, 255.0);
        let to = [("to", AttrValue::Int(8))];
        let e = crate::lower::testing::run("Cast", &to, &[In::Data(f32s(&[1], &[0.0]))], 1).err();
        assert_eq!(e.map(|e| e.kind()), Some(crate::error::Kind::UnsupportedType));
    }
}
