//! Elementwise operators of several tensors. Integers wrap at their width when they are stored.

use super::formula::X;
use super::map::{map, map_of, operand, single};
use super::{Cx, Lower};
use crate::error::{Error, Kind, Result};
use crate::kernel::{BinaryOp, ExprId, MOST_READS, Scalar, Ty, UnaryOp, ValueId};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("Add", |cx| op(cx, BinaryOp::Add)),
    ("And", |cx| op(cx, BinaryOp::And)),
    ("BitShift", shift),
    ("BitwiseAnd", |cx| op(cx, BinaryOp::And)),
    ("BitwiseOr", |cx| op(cx, BinaryOp::Or)),
    ("BitwiseXor", |cx| op(cx, BinaryOp::Xor)),
    ("Clip", clip),
    ("Div", |cx| op(cx, BinaryOp::Div)),
    ("Equal", |cx| op(cx, BinaryOp::Eq)),
    ("Greater", |cx| op(cx, BinaryOp::Gt)),
    ("GreaterOrEqual", |cx| op(cx, BinaryOp::Ge)),
    ("Less", |cx| op(cx, BinaryOp::Lt)),
    ("LessOrEqual", |cx| op(cx, BinaryOp::Le)),
    ("Max", |cx| op(cx, BinaryOp::Max)),
    ("Mean", mean),
    ("Min", |cx| op(cx, BinaryOp::Min)),
    ("Mod", |cx| {
        let fmod = cx.attrs().flag("fmod")?;
        op(cx, if fmod { BinaryOp::Rem } else { BinaryOp::FloorMod })
    }),
    ("Mul", |cx| op(cx, BinaryOp::Mul)),
    ("Or", |cx| op(cx, BinaryOp::Or)),
    ("Pow", pow),
    ("Sub", |cx| op(cx, BinaryOp::Sub)),
    ("Sum", |cx| op(cx, BinaryOp::Add)),
    ("Where", |cx| map(cx, |x| x[0].select(x[1], x[2]))),
    ("Xor", |cx| op(cx, BinaryOp::Xor)),
];

/// The inputs combined from left to right.
fn op(cx: &mut Cx<'_>, op: BinaryOp) -> Result<Vec<ValueId>> {
    let inputs = (0..cx.input_count()).map(|n| cx.input(n)).collect::<Result<Vec<_>>>()?;
    // No kernel reads more values than WebGPU can bind: of many inputs, the first ones are combined on their own.
    let (mut sum, mut rest) = (None, &inputs[..]);
    loop {
        let (some, others) = rest.split_at(rest.len().min(MOST_READS - usize::from(sum.is_some())));
        let group: Vec<ValueId> = sum.into_iter().chain(some.iter().copied()).collect();
        let combined = map_of(cx, &group, |x| x[1..].iter().fold(x[0], |a, b| a.binary(op, *b)))?;
        if others.is_empty() {
            return Ok(vec![combined]);
        }
        (sum, rest) = (Some(combined), others);
    }
}

/// The sum of the inputs divided by how many there are.
fn mean(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let sum = op(cx, BinaryOp::Add)?;
    let n = i64::try_from(cx.input_count()).unwrap_or(i64::MAX);
    Ok(vec![map_of(cx, &sum, |x| x[0] / n)?])
}

/// A shift by the width of the computing type or more gives 0 on every target.
fn shift(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let op = match cx.attrs().str("direction")? {
        "LEFT" => BinaryOp::Shl,
        "RIGHT" => BinaryOp::Shr,
        other => {
            return Err(Error::new(
                Kind::InvalidModel,
                format!("BitShift's direction is \"{other}\", not LEFT or RIGHT"),
            ));
        }
    };
    map(cx, |x| {
        let width = if matches!(x[0].ty(), Ty::I64 | Ty::U64) { 64i64 } else { 32 };
        x[1].lt(width).select(x[0].binary(op, x[1].min(width - 1)), 0i64)
    })
}

/// `min(max(x, low), high)`; either bound may be absent.
fn clip(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, low, high) = (cx.input(0)?, cx.optional(1), cx.optional(2));
    cx.func(|vs, i| {
        let mut y = vs.load(x, i);
        for (bound, op) in [(low, BinaryOp::Max), (high, BinaryOp::Min)] {
            let Some(bound) = bound else { continue };
            // Scalars by the specification; some exporters write shape [1].
            let zero = vs.arena.int(0);
            let at: Vec<ExprId> = vs.shape(bound).iter().map(|_| zero).collect();
            let b = operand(vs, bound, &at);
            y = vs.arena.binary(op, y, b);
        }
        Ok(y)
    })
}

/// The result has the base's type; the exponent may have another. Whole exponents of integers are exact.
fn pow(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let exponent = cx.values.constant(cx.input(1)?).and_then(single).map(Scalar::as_f64);
    map(cx, |x| {
        let (a, e) = (x[0], x[1]);
        match (a.ty().is_float(), exponent) {
            (_, Some(1.0)) => a,
            (_, Some(2.0)) => a * a,
            (_, Some(3.0)) => a * a * a,
            (true, Some(0.5)) => a.sqrt(),
            (true, Some(-1.0)) => a.number(1.0) / a,
            (true, Some(-0.5)) => a.number(1.0) / a.sqrt(),
            (true, _) => a.binary(BinaryOp::Pow, e.cast(a.ty())),
            (false, _) if e.ty().is_float() => {
                // What is whole but for rounding is whole: pow(2, 3) may come out as 7.9999995.
                let p = a.cast(e.ty()).binary(BinaryOp::Pow, e);
                let near = (p - p.round()).abs().lt(p.abs() * 1e-5);
                near.select(p.round(), p).unary(UnaryOp::Trunc).cast(a.ty())
            }
            (false, _) => whole_power(a, e.cast(a.ty())),
        }
    })
}

/// By repeated squaring: the result of exponents past 63 has wrapped already, but for bases 0, 1 and -1, whose powers
/// repeat. A negative exponent gives the reciprocal, truncated.
fn whole_power<'a>(base: X<'a>, exponent: X<'a>) -> X<'a> {
    let one = base.constant(Scalar::int(base.ty(), 1));
    let (mut result, mut square) = (one, base);
    let size = exponent.abs();
    for bit in 0..6i64 {
        let odd = size.binary(BinaryOp::Shr, bit).binary(BinaryOp::And, 1i64).eq(1i64);
        result = odd.select(result * square, result);
        square = square * square;
    }
    exponent.lt(0i64).select(one / result, result)
}

#[cfg(test)]
mod tests {
    use crate::error::Kind;
    use crate::graph::AttrValue;
    use crate::lower::testing::{Case, In, array, f32s, run};
    use crate::tensor::{Array, DType};

    fn check(op: &str, attrs: &[(&'static str, AttrValue)], inputs: &[Array], want: Array) {
        // Both as run-time data and as constants, which become part of the formula.
        let data: Vec<In> = inputs.iter().cloned().map(In::Data).collect();
        let mut mixed = data.clone();
        if let Some(last) = mixed.last_mut() {
            *last = In::Constant(inputs[inputs.len() - 1].clone());
        }
        for inputs in [data, mixed] {
            Case { name: op, op, attrs, inputs: &inputs, want: &[want.clone()], tolerance: (1e-6, 1e-6) }.check();
        }
    }

    #[test]
    fn floats() {
        let (a, b) = (f32s(&[2, 1], &[1.0, -7.5]), f32s(&[2], &[2.0, -2.0]));
        let four = |want: &[f64]| f32s(&[2, 2], want);
        check("Add", &[], &[a.clone(), b.clone()], four(&[3.0, -1.0, -5.5, -9.5]));
        check("Div", &[], &[a.clone(), b.clone()], four(&[0.5, -0.5, -3.75, 3.75]));
        check("Mod", &[("fmod", AttrValue::Int(1))], &[a.clone(), b.clone()], four(&[1.0, 1.0, -1.5, -1.5]));
        check("Max", &[], &[a.clone(), b.clone(), f32s(&[], &[0.0])], four(&[2.0, 1.0, 2.0, 0.0]));
        check("Mean", &[], &[a, b], four(&[1.5, -0.5, -2.75, -4.75]));
        let many: Vec<Array> = (0..14).map(|n| f32s(&[1], &[f64::from(n)])).collect();
        check("Sum", &[], &many, f32s(&[1], &[91.0]));
        check("Mean", &[], &many, f32s(&[1], &[6.5]));
        check("Pow", &[], &[f32s(&[2], &[3.0, -2.0]), array(DType::Int64, &[], &[3.0])], f32s(&[2], &[27.0, -8.0]));
        check("Pow", &[], &[f32s(&[2], &[4.0, 9.0]), f32s(&[1], &[0.5])], f32s(&[2], &[2.0, 3.0]));
    }

    #[test]
    fn integers_wrap_truncate_and_shift() {
        let check = |op: &str, attrs: &[(&'static str, AttrValue)], dtype, a: &[f64], b: &[f64], want: &[f64]| {
            let n = [a.len()];
            check(op, attrs, &[array(dtype, &n, a), array(dtype, &n, b)], array(dtype, &n, want));
        };
        let left = [("direction", AttrValue::Str("LEFT".into()))];
        let right = [("direction", AttrValue::Str("RIGHT".into()))];
        check("Add", &[], DType::Uint8, &[250.0], &[10.0], &[4.0]);
        check("Mul", &[], DType::Int8, &[100.0], &[2.0], &[-56.0]);
        check("Div", &[], DType::Int32, &[-7.0, 7.0], &[2.0, -2.0], &[-3.0, -3.0]);
        check("Mod", &[], DType::Int32, &[-7.0, 7.0], &[3.0, -3.0], &[2.0, -2.0]);
        check("Mod", &[("fmod", AttrValue::Int(1))], DType::Int64, &[-7.0], &[3.0], &[-1.0]);
        check("BitShift", &left, DType::Uint8, &[255.0, 1.0], &[4.0, 40.0], &[240.0, 0.0]);
        check("BitShift", &right, DType::Uint32, &[4_294_967_295.0], &[31.0], &[1.0]);
        check("Pow", &[], DType::Int32, &[3.0, -2.0, 2.0, 5.0], &[4.0, 3.0, -1.0, 0.0], &[81.0, -8.0, 0.0, 1.0]);
        check("BitwiseXor", &[], DType::Int16, &[-1.0], &[255.0], &[-256.0]);
        check("Min", &[], DType::Uint64, &[3.0], &[5.0], &[3.0]);
    }

    #[test]
    fn clip_where_and_comparisons() {
        let x = f32s(&[3], &[-1.0, 0.5, 2.0]);
        let run = |low, high| {
            let out = run("Clip", &[], &[In::Data(x.clone()), low, high], 1).unwrap();
            crate::lower::testing::numbers(&out[0])
        };
        let scalar = |n| In::Constant(f32s(&[], &[n]));
        assert_eq!(run(scalar(0.0), In::Absent), [0.0, 0.5, 2.0]);
        assert_eq!(run(In::Absent, scalar(1.0)), [-1.0, 0.5, 1.0]);
        assert_eq!(run(scalar(2.0), scalar(1.0)), [1.0, 1.0, 1.0]);
        let truth = |shape: &[usize], v: &[f64]| array(DType::Bool, shape, v);
        check("LessOrEqual", &[], &[x.clone(), f32s(&[], &[0.5])], truth(&[3], &[1.0, 1.0, 0.0]));
        check("Equal", &[], &[truth(&[2], &[0.0, 1.0]), truth(&[1], &[1.0])], truth(&[2], &[0.0, 1.0]));
        check(
            "Where",
            &[],
            &[truth(&[2, 1], &[1.0, 0.0]), x, f32s(&[1], &[9.0])],
            f32s(&[2, 3], &[-1.0, 0.5, 2.0, 9.0, 9.0, 9.0]),
        );
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let x = |names| In::Symbolic(f32s(&[2], &[0.0, 0.0]), names);
        let add = |a, b| run("Add", &[], &[a, b], 1).map_err(|e| e.kind()).map(|_| ());
        assert_eq!(add(x(&["s"]), x(&["s"])), Ok(()));
        assert_eq!(add(x(&["s"]), x(&["t"])), Err(Kind::InvalidShape));
        assert_eq!(add(x(&[]), In::Data(f32s(&[3], &[0.0; 3]))), Err(Kind::InvalidShape));
        assert_eq!(add(x(&[]), In::Data(array(DType::Int32, &[2], &[0.0; 2]))), Err(Kind::InvalidModel));
    }
}
