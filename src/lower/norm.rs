//! Normalizations: BatchNormalization, InstanceNormalization, LayerNormalization, GroupNormalization, RMSNormalization,
//! LRN, LpNormalization, MeanVarianceNormalization. Mean and variance are two folds inside the expression of the output
//! (the variance of differences from the mean, not of squares, which would cancel).

use super::math::{binary, fold, mean, real, scaled, square, unary, within};
use super::pool::{power, root};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::rules;
use crate::kernel::{BinaryOp, ExprId, FoldOp, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{Dim, Shape};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("BatchNormalization", batch_norm),
    ("InstanceNormalization", instance_norm),
    ("LayerNormalization", layer_norm),
    ("GroupNormalization", group_norm),
    ("RMSNormalization", rms_norm),
    ("LRN", lrn),
    ("LpNormalization", lp_norm),
    ("MeanVarianceNormalization", mean_variance_norm),
];

/// `1 / sqrt(variance + epsilon)`.
fn inverse_deviation(vs: &mut Values, variance: ExprId, epsilon: f32) -> ExprId {
    let (epsilon, one) = (real(vs, variance, f64::from(epsilon)), real(vs, variance, 1.0));
    let v = vs.arena.add(variance, epsilon);
    let d = unary(vs, UnaryOp::Sqrt, v);
    vs.arena.div(one, d)
}

/// Mean and variance of what `element` gives over axes of these extents.
fn moments(
    vs: &mut Values,
    extents: &[Dim],
    element: &dyn Fn(&mut Values, &[ExprId]) -> ExprId,
) -> Result<(ExprId, ExprId)> {
    let average = mean(vs, extents, |vs, k| Ok(element(vs, k)))?;
    let variance = mean(vs, extents, |vs, k| {
        let x = element(vs, k);
        let d = vs.arena.sub(x, average);
        Ok(square(vs, d))
    })?;
    Ok((average, variance))
}

/// `(x - mean) · inverse · scale + bias`.
fn affine(
    vs: &mut Values,
    x: ExprId,
    (mean, inverse): (ExprId, ExprId),
    scale: ExprId,
    bias: Option<ExprId>,
) -> ExprId {
    let d = vs.arena.sub(x, mean);
    let n = vs.arena.mul(d, inverse);
    let y = vs.arena.mul(n, scale);
    bias.map_or(y, |b| vs.arena.add(y, b))
}

fn batch_norm(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (mut average, mut variance) = (cx.input(3)?, cx.input(4)?);
    let epsilon = cx.attrs().float("epsilon")?;
    let mut running = vec![];
    if cx.attrs().flag("training_mode")? {
        let momentum = f64::from(cx.attrs().float("momentum")?);
        let shape = cx.shape(0)?;
        let c = shape[1].clone();
        let rest: Shape = [&shape[..1], &shape[2..]].concat();
        let at = |i: ExprId, k: &[ExprId]| [&[k[0], i], &k[1..]].concat();
        let dtype = cx.values.dtype(x);
        let (old_average, old_variance) = (average, variance);
        average =
            cx.values.func(dtype, vec![c.clone()], |vs, i| mean(vs, &rest, |vs, k| Ok(vs.load(x, &at(i[0], k)))))?;
        variance = cx.values.func(dtype, vec![c.clone()], |vs, i| {
            mean(vs, &rest, |vs, k| {
                let e = vs.load(x, &at(i[0], k));
                let m = vs.load(average, i);
                let d = vs.arena.sub(e, m);
                Ok(square(vs, d))
            })
        })?;
        for (old, new) in [(old_average, average), (old_variance, variance)] {
            let dtype = cx.values.dtype(old);
            running.push(cx.values.func(dtype, vec![c.clone()], |vs, i| {
                let (old, new) = (vs.load(old, i), vs.load(new, i));
                let (keep, take) = (real(vs, old, momentum), real(vs, new, 1.0 - momentum));
                let (old, new) = (vs.arena.mul(old, keep), vs.arena.mul(new, take));
                let new = vs.arena.cast(Ty::of(dtype), new);
                Ok(vs.arena.add(old, new))
            })?);
        }
    }
    // One factor and one term a channel, so that with constant statistics one multiplication and one addition remain.
    let ty = cx.values.ty(x);
    let (dtype, channels) = (cx.values.dtype(x), cx.values.shape(scale).to_vec());
    let load = |vs: &mut Values, v: ValueId, i: &[ExprId]| {
        let e = vs.load(v, i);
        vs.arena.cast(ty, e)
    };
    let factor = cx.values.func(dtype, channels.clone(), |vs, i| {
        let (s, v) = (load(vs, scale, i), load(vs, variance, i));
        let inverse = inverse_deviation(vs, v, epsilon);
        Ok(vs.arena.mul(s, inverse))
    })?;
    let term = cx.values.func(dtype, channels, |vs, i| {
        let (b, m, f) = (load(vs, bias, i), load(vs, average, i), vs.load(factor, i));
        let m = vs.arena.mul(m, f);
        Ok(vs.arena.sub(b, m))
    })?;
    let y = cx.func(|vs, i| {
        let (e, f, t) = (vs.load(x, i), vs.load(factor, &[i[1]]), vs.load(term, &[i[1]]));
        let e = vs.arena.mul(e, f);
        Ok(vs.arena.add(e, t))
    })?;
    Ok([y, running].concat())
}

fn instance_norm(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let epsilon = cx.attrs().float("epsilon")?;
    let plane = cx.shape(0)?[2..].to_vec();
    cx.func(|vs, i| {
        let (m, v) = moments(vs, &plane, &|vs, k| vs.load(x, &[&i[..2], k].concat()))?;
        let inverse = inverse_deviation(vs, v, epsilon);
        let (e, s, b) = (vs.load(x, i), vs.load(scale, &[i[1]]), vs.load(bias, &[i[1]]));
        Ok(affine(vs, e, (m, inverse), s, Some(b)))
    })
}

fn layer_norm(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let epsilon = cx.attrs().float("epsilon")?;
    let shape = cx.shape(0)?;
    let first = rules::axis(cx.attrs().int("axis")?, shape.len())?;
    let row = &shape[first..];
    let statistics = |vs: &mut Values, i: &[ExprId]| -> Result<(ExprId, ExprId)> {
        let (m, v) = moments(vs, row, &|vs, k| vs.load(x, &[&i[..first], k].concat()))?;
        Ok((m, inverse_deviation(vs, v, epsilon)))
    };
    let mut out = cx.func(|vs, i| {
        let s = statistics(vs, i)?;
        let e = vs.load(x, i);
        let ty = vs.arena.ty(e);
        let scale = vs.load_broadcast(scale, i);
        let scale = vs.arena.cast(ty, scale);
        let bias = bias.map(|b| {
            let b = vs.load_broadcast(b, i);
            vs.arena.cast(ty, b)
        });
        Ok(affine(vs, e, s, scale, bias))
    })?;
    for n in 1..3 {
        if !(cx.wants(n) || n == 1 && cx.wants(2)) {
            continue;
        }
        let (dtype, shape) = cx.output(if cx.wants(n) { n } else { 2 })?;
        out.push(cx.values.func(dtype, shape, |vs, i| {
            let (mean, inverse) = statistics(vs, i)?;
            Ok(vs.arena.cast(Ty::of(dtype), if n == 1 { mean } else { inverse }))
        })?);
    }
    Ok(out)
}

fn group_norm(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let epsilon = cx.attrs().float("epsilon")?;
    let shape = cx.shape(0)?;
    let per = shape[1].floor_div(&Dim::from(cx.attrs().int("num_groups")?));
    let block: Shape = [std::slice::from_ref(&per), &shape[2..]].concat();
    cx.func(|vs, i| {
        let per = vs.arena.dim(&per);
        let group = binary(vs, BinaryOp::FloorDiv, i[1], per);
        let (m, v) = moments(vs, &block, &|vs, k| {
            let c = vs.arena.mul(group, per);
            let c = vs.arena.add(c, k[0]);
            vs.load(x, &[&[i[0], c], &k[1..]].concat())
        })?;
        let inverse = inverse_deviation(vs, v, epsilon);
        let (e, s, b) = (vs.load(x, i), vs.load(scale, &[i[1]]), vs.load(bias, &[i[1]]));
        Ok(affine(vs, e, (m, inverse), s, Some(b)))
    })
}

fn rms_norm(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let epsilon = cx.attrs().float("epsilon")?;
    let shape = cx.shape(0)?;
    let first = rules::axis(cx.attrs().int("axis")?, shape.len())?;
    cx.func(|vs, i| {
        let squares = mean(vs, &shape[first..], |vs, k| {
            let e = vs.load(x, &[&i[..first], k].concat());
            Ok(square(vs, e))
        })?;
        let inverse = inverse_deviation(vs, squares, epsilon);
        let e = vs.load(x, i);
        let ty = vs.arena.ty(e);
        let e = vs.arena.mul(e, inverse);
        let s = vs.load_broadcast(scale, i);
        let s = vs.arena.cast(ty, s);
        Ok(vs.arena.mul(e, s))
    })
}

fn lrn(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let (alpha, beta) = (f64::from(cx.attrs().float("alpha")?), f64::from(cx.attrs().float("beta")?));
    let (bias, size) = (f64::from(cx.attrs().float("bias")?), cx.attrs().int("size")?);
    let channels = cx.shape(0)?[1].clone();
    cx.func(|vs, i| {
        let sum = fold(vs, FoldOp::Sum, &[Dim::from(size)], |vs, k| {
            let c = vs.arena.add(i[1], k[0]);
            let one = vs.arena.int(1);
            let c = scaled(vs, c, one, -((size - 1) / 2));
            let inside = within(vs, c, &channels);
            let e = vs.load(x, &[&[i[0], c], &i[2..]].concat());
            let zero = real(vs, e, 0.0);
            let e = vs.arena.select(inside, e, zero);
            Ok(square(vs, e))
        })?;
        #[allow(clippy::cast_precision_loss)]
        let (alpha, bias, beta) = (real(vs, sum, alpha / size as f64), real(vs, sum, bias), real(vs, sum, -beta));
        let d = vs.arena.mul(sum, alpha);
        let d = vs.arena.add(d, bias);
        let d = binary(vs, BinaryOp::Pow, d, beta);
        let e = vs.load(x, i);
        Ok(vs.arena.mul(e, d))
    })
}

/// A vector of norm 0 stays 0.
fn lp_norm(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let p = cx.attrs().int("p")?;
    let shape = cx.shape(0)?;
    let axis = rules::axis(cx.attrs().int("axis")?, shape.len())?;
    cx.func(|vs, i| {
        let sum = fold(vs, FoldOp::Sum, std::slice::from_ref(&shape[axis]), |vs, k| {
            let mut at = i.to_vec();
            at[axis] = k[0];
            let e = vs.load(x, &at);
            Ok(power(vs, e, p))
        })?;
        let norm = root(vs, sum, p);
        let e = vs.load(x, i);
        let zero = real(vs, norm, 0.0);
        let none = binary(vs, BinaryOp::Eq, norm, zero);
        let y = vs.arena.div(e, norm);
        Ok(vs.arena.select(none, zero, y))
    })
}

fn mean_variance_norm(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let shape = cx.shape(0)?;
    let axes = rules::axes(cx.attrs().ints("axes")?.unwrap_or(&[0, 2, 3]), shape.len())?;
    let extents: Shape = axes.iter().map(|a| shape[*a].clone()).collect();
    cx.func(|vs, i| {
        let (m, v) = moments(vs, &extents, &|vs, k| {
            let mut at = i.to_vec();
            for (a, k) in axes.iter().zip(k) {
                at[*a] = *k;
            }
            vs.load(x, &at)
        })?;
        let deviation = unary(vs, UnaryOp::Sqrt, v);
        // The specification's function body divides by the deviation plus 1e-9.
        let tiny = real(vs, deviation, 1e-9);
        let deviation = vs.arena.add(deviation, tiny);
        let e = vs.load(x, i);
        let e = vs.arena.sub(e, m);
        Ok(vs.arena.div(e, deviation))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Float, Int};
    use crate::lower::testing::{In, f32s, near, ramp};

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn normalizations() {
        near(
            "batch",
            "BatchNormalization",
            &[],
            &[
                In::Symbolic(ramp(&[2, 4, 2], 7, 0.5), &["n", "", ""]),
                In::Data(ramp(&[4], 3, 1.0)),
                In::Data(ramp(&[4], 5, 1.0)),
                In::Data(ramp(&[4], 2, 1.0)),
                In::Data(f32s(&[4], &[1.0, 2.0, 3.0, 4.0])),
            ],
            &[f32s(
                &[2, 4, 2],
                &[
                    -17.4999, -34.9999, -2.82842, -7.77815, 5.86602, 4.71133, 0.999998, -3.0, -19.9999, -37.4998,
                    -3.53553, -0.707105, 6.1547, 5.0, 2.0, -2.0,
                ],
            )],
            TOLERANCE,
        );
        near(
            "instance",
            "InstanceNormalization",
            &[],
            &[In::Data(ramp(&[1, 2, 3], 7, 0.5)), In::Data(ramp(&[2], 3, 1.0)), In::Data(ramp(&[2], 5, 1.0))],
            &[f32s(&[1, 2, 3], &[0.812368, -11.3936, -4.41876, -2.44949, 0.0, 2.44949])],
            TOLERANCE,
        );
        near(
            "layer, last axis",
            "LayerNormalization",
            &[],
            &[
                In::Symbolic(ramp(&[2, 4], 7, 0.5), &["s", ""]),
                In::Data(ramp(&[4], 3, 1.0)),
                In::Data(ramp(&[4], 5, 1.0)),
            ],
            &[
                f32s(&[2, 4], &[1.56531, -1.05045, 4.47477, 4.25225, -6.0, 2.79999, 6.4, -1.8]),
                f32s(&[2, 1], &[0.0, 0.25]),
                f32s(&[2, 1], &[0.525225, 0.799997]),
            ],
            TOLERANCE,
        );
        near(
            "layer, two axes",
            "LayerNormalization",
            &[("axis", Int(1))],
            &[In::Data(ramp(&[2, 2, 2], 7, 0.5)), In::Data(ramp(&[2, 2], 3, 1.0))],
            &[f32s(&[2, 2, 2], &[6.56531, -1.05045, -0.525225, 5.25225, -0.999997, 2.79999, 1.4, -0.799997])],
            TOLERANCE,
        );
        near(
            "group",
            "GroupNormalization",
            &[("num_groups", Int(2))],
            &[In::Data(ramp(&[1, 4, 2], 7, 0.5)), In::Data(ramp(&[4], 3, 1.0)), In::Data(ramp(&[4], 5, 1.0))],
            &[f32s(&[1, 4, 2], &[1.56531, -7.62612, 1.05045, -2.62613, 5.2, 3.6, 4.59998, -1.8])],
            TOLERANCE,
        );
        near(
            "root mean square",
            "RMSNormalization",
            &[],
            &[In::Data(ramp(&[2, 4], 7, 0.5)), In::Data(ramp(&[4], 3, 1.0))],
            &[f32s(&[2, 4], &[6.56531, -1.05045, -0.525225, 5.25225, -1.96116, 2.35339, 1.56892, 0.0])],
            TOLERANCE,
        );
        near(
            "local response",
            "LRN",
            &[("size", Int(3)), ("alpha", Float(0.3)), ("beta", Float(0.5)), ("bias", Float(2.0))],
            &[In::Data(ramp(&[1, 4, 1, 2], 7, 0.5))],
            &[f32s(&[1, 4, 1, 2], &[-1.51446, 0.605783, -0.603023, 1.45556, 0.314658, -0.888523, 1.28432, 0.0])],
            TOLERANCE,
        );
        near(
            "order 1",
            "LpNormalization",
            &[("p", Int(1)), ("axis", Int(0))],
            &[In::Data(ramp(&[2, 3], 7, 0.5))],
            &[f32s(&[2, 3], &[-0.5, 0.666667, -0.4, 0.5, 0.333333, -0.6])],
            TOLERANCE,
        );
        near(
            "mean and variance",
            "MeanVarianceNormalization",
            &[],
            &[In::Data(ramp(&[2, 2, 1, 2], 7, 0.5))],
            &[f32s(&[2, 2, 1, 2], &[-1.31056, 1.13582, -1.31056, 1.13582, 0.786334, -0.611593, 0.786334, -0.611593])],
            TOLERANCE,
        );
    }
}
