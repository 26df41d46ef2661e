//! Losses: NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss.

use super::math::{binary, clamp_index, count, fold, unary};
use super::{Cx, Lower};
use crate::error::Result;
use crate::kernel::{BinaryOp, ExprId, FoldOp, Scalar, Ty, UnaryOp, ValueId, Values};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("NegativeLogLikelihoodLoss", |cx| {
        let x = cx.input(0)?;
        Ok(vec![loss(cx, x)?])
    }),
    ("SoftmaxCrossEntropyLoss", cross_entropy),
];

fn cross_entropy(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let (dtype, shape) = (cx.values.dtype(x), cx.shape(0)?);
    let classes = shape[1].clone();
    let log_prob = cx.values.func(dtype, shape, |vs, i| {
        let at = |k: ExprId| [&[i[0], k], &i[2..]].concat();
        let axis = std::slice::from_ref(&classes);
        let most = vs.fold(FoldOp::Max, axis, |vs, k| Ok(vs.load(x, &at(k[0]))))?;
        let sum = vs.fold(FoldOp::Sum, axis, |vs, k| {
            let e = vs.load(x, &at(k[0]));
            let e = vs.arena.sub(e, most);
            Ok(unary(vs, UnaryOp::Exp, e))
        })?;
        let log = unary(vs, UnaryOp::Log, sum);
        let e = vs.load(x, i);
        let e = vs.arena.sub(e, most);
        Ok(vs.arena.sub(e, log))
    })?;
    Ok(vec![loss(cx, log_prob)?, log_prob])
}

/// The label at a place `[n, d…]`, and whether it is the one to ignore.
fn label(vs: &mut Values, target: ValueId, ignore: Option<i64>, i: &[ExprId]) -> (ExprId, ExprId) {
    let t = vs.load(target, i);
    let ty = vs.arena.ty(t);
    let ignored = match ignore {
        Some(n) => {
            let n = vs.arena.constant(Scalar::int(ty, n));
            binary(vs, BinaryOp::Eq, t, n)
        }
        None => vs.arena.constant(Scalar::bool(false)),
    };
    (vs.arena.cast(Ty::I32, t), ignored)
}

/// The loss of log probabilities `x[n, c, d…]`: minus that of each place's label, times the label's weight.
fn loss(cx: &mut Cx<'_>, x: ValueId) -> Result<ValueId> {
    let (target, weights) = (cx.input(1)?, cx.optional(2));
    let ignore = match cx.attrs().get("ignore_index") {
        Some(_) => Some(cx.attrs().int("ignore_index")?),
        None => None,
    };
    let reduction = cx.node.attrs.str("reduction")?;
    let ty = cx.values.ty(x);
    let classes = cx.shape(0)?[1].clone();
    let weight = |vs: &mut Values, t: ExprId| match weights {
        Some(w) => {
            let w = vs.load(w, &[t]);
            vs.arena.cast(ty, w)
        }
        None => vs.arena.real(ty, 1.0),
    };
    let element = |vs: &mut Values, i: &[ExprId], wanted: bool| {
        let (t, ignored) = label(vs, target, ignore, i);
        let t = clamp_index(vs, t, &classes);
        let mut y = weight(vs, t);
        if wanted {
            let p = vs.load(x, &[&[i[0], t], &i[1..]].concat());
            let p = unary(vs, UnaryOp::Neg, p);
            y = if weights.is_some() { vs.arena.mul(p, y) } else { p };
        }
        let zero = vs.arena.real(ty, 0.0);
        vs.arena.select(ignored, zero, y)
    };
    let places = cx.shape(1)?;
    let plain = weights.is_none() && ignore.is_none();
    let (dtype, shape) = cx.output(0)?;
    cx.values.func(dtype, shape, |vs, i| {
        if reduction == "none" {
            return Ok(element(vs, i, true));
        }
        let sum = fold(vs, FoldOp::Sum, &places, |vs, k| Ok(element(vs, k, true)))?;
        if reduction == "sum" {
            return Ok(sum);
        }
        let total = if plain {
            count(vs, ty, &places)
        } else {
            fold(vs, FoldOp::Sum, &places, |vs, k| Ok(element(vs, k, false)))?
        };
        Ok(vs.arena.div(sum, total))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Int, Str};
    use crate::lower::testing::{In, f32s, i64s, near, ramp};

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn losses() {
        let labels = || In::Data(i64s(&[2, 2], &[0.0, 2.0, 2.0, 1.0]));
        let log_prob = f32s(
            &[2, 3, 2],
            &[
                -3.24131, -1.71628, -1.74131, -0.216277, -0.241311, -4.21628, -0.0956744, -1.71628, -4.09567,
                -0.216277, -2.59567, -4.21628,
            ],
        );
        // The reduction; the likelihood's loss, weighted and with label 1 ignored; the cross entropy's.
        let cases = [
            ("none", f32s(&[2, 2], &[5.0, 6.0, 2.0, 0.0]), f32s(&[2, 2], &[3.24131, 4.21628, 2.59567, 0.216277])),
            ("mean", f32s(&[], &[2.6]), f32s(&[], &[2.56738])),
            ("sum", f32s(&[], &[13.0]), f32s(&[], &[10.2695])),
        ];
        for (reduction, likelihood, entropy) in cases {
            near(
                &format!("likelihood, {reduction}"),
                "NegativeLogLikelihoodLoss",
                &[("reduction", Str(reduction.into())), ("ignore_index", Int(1))],
                &[In::Data(ramp(&[2, 3, 2], 7, 1.0)), labels(), In::Data(f32s(&[3], &[1.0, 0.5, 2.0]))],
                &[likelihood],
                TOLERANCE,
            );
            near(
                &format!("cross entropy, {reduction}"),
                "SoftmaxCrossEntropyLoss",
                &[("reduction", Str(reduction.into()))],
                &[In::Data(ramp(&[2, 3, 2], 7, 0.5)), labels()],
                &[entropy, log_prob.clone()],
                TOLERANCE,
            );
        }
    }
}
