//! Convolutions: Conv, ConvTranspose, ConvInteger, QLinearConv, DeformConv. Each is one fold of products over the kernel's
//! taps, then the input channels of a group, with padding as a guard around the load of the input.

use super::math::{binary, clamp_index, fold, quantized, scalar, scaled, tap, untap, window, within};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::conv::{Geometry, deform_attrs};
use crate::kernel::{BinaryOp, ExprId, FoldOp, Scalar, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{Dim, Shape};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("Conv", conv),
    ("ConvInteger", conv_integer),
    ("QLinearConv", qlinear_conv),
    ("ConvTranspose", conv_transpose),
    ("DeformConv", deform_conv),
];

/// The input channel that channel `inner` of the group of output channel `out` is.
fn channel(vs: &mut Values, g: &Geometry, out: ExprId, inner: ExprId) -> ExprId {
    if g.group == 1 {
        return inner;
    }
    let per = vs.arena.dim(&g.outputs);
    let group = binary(vs, BinaryOp::FloorDiv, out, per);
    let inputs = vs.arena.dim(&g.inputs);
    let first = vs.arena.mul(group, inputs);
    vs.arena.add(first, inner)
}

/// Taps outermost, then the channels of a group.
fn extents(g: &Geometry) -> Shape {
    [g.window.kernel(), vec![g.inputs.clone()]].concat()
}

/// The sum of products for the output index `i`. `left` and `right` turn a loaded element of the input and of the weights
/// into a factor.
fn convolve(
    vs: &mut Values,
    g: &Geometry,
    (x, w): (ValueId, ValueId),
    i: &[ExprId],
    left: impl Fn(&mut Values, ExprId) -> ExprId,
    right: impl Fn(&mut Values, ExprId) -> ExprId,
) -> Result<ExprId> {
    fold(vs, FoldOp::Sum, &extents(g), |vs, k| {
        let (taps, inner) = (&k[..k.len() - 1], k[k.len() - 1]);
        let (at, inside) = window(vs, &g.window, &i[2..], taps);
        let c = channel(vs, g, i[1], inner);
        let a = vs.load(x, &[&[i[0], c], &at[..]].concat());
        let a = left(vs, a);
        let ty = vs.arena.ty(a);
        let zero = vs.arena.constant(Scalar::int(ty, 0));
        let a = vs.arena.select(inside, a, zero);
        let b = vs.load(w, &[&[i[1], inner], taps].concat());
        let b = right(vs, b);
        Ok(vs.arena.mul(a, b))
    })
}

fn add_bias(vs: &mut Values, y: ExprId, bias: Option<ValueId>, channel: ExprId) -> ExprId {
    match bias {
        Some(b) => {
            let b = vs.load(b, &[channel]);
            vs.arena.add(y, b)
        }
        None => y,
    }
}

fn conv(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let g = Geometry::new(cx.attrs(), &cx.shape(0)?, &cx.shape(1)?)?;
    cx.func(|vs, i| {
        let y = convolve(vs, &g, (x, w), i, |_, a| a, |_, b| b)?;
        Ok(add_bias(vs, y, bias, i[1]))
    })
}

/// The element as `I32`, less the zero point: one number, or one for each output channel.
fn centred(vs: &mut Values, x: ExprId, zero: Option<ValueId>, channel: ExprId) -> ExprId {
    let x = vs.arena.cast(Ty::I32, x);
    let Some(zero) = zero else { return x };
    let z = per_channel(vs, zero, channel);
    let z = vs.arena.cast(Ty::I32, z);
    vs.arena.sub(x, z)
}

/// A parameter that is one number, or one for each output channel.
fn per_channel(vs: &mut Values, p: ValueId, channel: ExprId) -> ExprId {
    match vs.shape(p) {
        [d] if !d.is(1) => vs.load(p, &[channel]),
        _ => scalar(vs, p),
    }
}

fn conv_integer(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, w, zero_x, zero_w) = (cx.input(0)?, cx.input(1)?, cx.optional(2), cx.optional(3));
    let g = Geometry::new(cx.attrs(), &cx.shape(0)?, &cx.shape(1)?)?;
    cx.func(|vs, i| {
        convolve(vs, &g, (x, w), i, |vs, a| centred(vs, a, zero_x, i[1]), |vs, b| centred(vs, b, zero_w, i[1]))
    })
}

fn qlinear_conv(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, scale_x, zero_x) = (cx.input(0)?, cx.input(1)?, Some(cx.input(2)?));
    let (w, scale_w, zero_w) = (cx.input(3)?, cx.input(4)?, Some(cx.input(5)?));
    let (scale_y, zero_y, bias) = (cx.input(6)?, cx.input(7)?, cx.optional(8));
    let g = Geometry::new(cx.attrs(), &cx.shape(0)?, &cx.shape(3)?)?;
    let (dtype, _) = cx.output(0)?;
    cx.func(|vs, i| {
        let sum =
            convolve(vs, &g, (x, w), i, |vs, a| centred(vs, a, zero_x, i[1]), |vs, b| centred(vs, b, zero_w, i[1]))?;
        let sum = add_bias(vs, sum, bias, i[1]);
        let (sx, sy) = (scalar(vs, scale_x), scalar(vs, scale_y));
        let sw = per_channel(vs, scale_w, i[1]);
        let scale = vs.arena.mul(sx, sw);
        let scale = vs.arena.div(scale, sy);
        let y = vs.arena.cast(Ty::F32, sum);
        let y = vs.arena.mul(y, scale);
        let zero = scalar(vs, zero_y);
        Ok(quantized(vs, y, Some(zero), dtype))
    })
}

/// Each output gathers what the transposed window scatters to it: the inputs `(o + begin - k · dilation) / stride` where
/// that is whole.
fn conv_transpose(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let g = Geometry::transposed(cx.attrs(), &cx.shape(0)?, &cx.shape(1)?)?;
    cx.func(|vs, i| {
        let sum = fold(vs, FoldOp::Sum, &extents(&g), |vs, k| {
            let (taps, inner) = (&k[..k.len() - 1], k[k.len() - 1]);
            let mut at = vec![];
            let mut inside = vs.arena.constant(Scalar::bool(true));
            for (n, s) in g.window.0.iter().enumerate() {
                let (t, fits) = untap(vs, s, i[n + 2], taps[n]);
                inside = vs.arena.and(inside, fits);
                at.push(t);
            }
            let c = channel(vs, &g, i[1], inner);
            let a = vs.load(x, &[&[i[0], c], &at[..]].concat());
            let zero = vs.arena.real(vs.ty(x), 0.0);
            let a = vs.arena.select(inside, a, zero);
            let m = if g.group == 1 {
                i[1]
            } else {
                let per = vs.arena.dim(&g.outputs);
                binary(vs, BinaryOp::FloorMod, i[1], per)
            };
            let b = vs.load(w, &[&[c, m], taps].concat());
            Ok(vs.arena.mul(a, b))
        })?;
        Ok(add_bias(vs, sum, bias, i[1]))
    })
}

/// Each tap reads the input at its place plus an offset, by multilinear interpolation with zeros outside.
fn deform_conv(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, w, offset) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (bias, mask) = (cx.optional(3), cx.optional(4));
    let g = Geometry::new(&deform_attrs(cx.attrs()), &cx.shape(0)?, &cx.shape(1)?)?;
    let groups = cx.attrs().int("offset_group")?;
    let per_group = cx.shape(0)?[1].floor_div(&Dim::from(groups));
    cx.func(|vs, i| {
        let ty = vs.ty(x);
        let kernel = g.window.kernel();
        let n = kernel.len();
        let sum = fold(vs, FoldOp::Sum, &extents(&g), |vs, k| {
            let (taps, inner) = (&k[..n], k[n]);
            let c = channel(vs, &g, i[1], inner);
            let per_group = vs.arena.dim(&per_group);
            let og = binary(vs, BinaryOp::FloorDiv, c, per_group);
            let tap_at = super::math::ravel(vs, &[&[og], taps].concat(), &[&[Dim::from(groups)], &kernel[..]].concat());
            let mut places = vec![];
            for (axis, s) in g.window.0.iter().enumerate() {
                let zero = vs.arena.int(i64::try_from(axis).unwrap_or(0));
                let row = scaled(vs, zero, tap_at, i64::try_from(n).unwrap_or(1));
                let off = vs.load(offset, &[&[i[0], row], &i[2..]].concat());
                let at = tap(vs, s, i[axis + 2], taps[axis]);
                let at = vs.arena.cast(ty, at);
                let at = vs.arena.add(at, off);
                places.push((at, s.size.clone()));
            }
            let mut a = interpolate(vs, x, &[i[0], c], &places);
            if let Some(m) = mask {
                let m = vs.load(m, &[&[i[0], tap_at], &i[2..]].concat());
                a = vs.arena.mul(a, m);
            }
            let b = vs.load(w, &[&[i[1], inner], taps].concat());
            Ok(vs.arena.mul(a, b))
        })?;
        Ok(add_bias(vs, sum, bias, i[1]))
    })
}

/// The element of `x[outer, …]` at real places along its last axes, each with the axis's size: multilinear, zero outside.
pub(super) fn interpolate(vs: &mut Values, x: ValueId, outer: &[ExprId], places: &[(ExprId, Dim)]) -> ExprId {
    let ty = vs.ty(x);
    let mut sum = vs.arena.real(ty, 0.0);
    let mut corners = vec![];
    for (at, _) in places {
        let low = super::math::unary(vs, UnaryOp::Floor, *at);
        let high = vs.arena.sub(*at, low);
        let one = vs.arena.real(ty, 1.0);
        let rest = vs.arena.sub(one, high);
        let low = vs.arena.cast(Ty::I32, low);
        corners.push((low, rest, high));
    }
    for corner in 0..1usize << places.len() {
        let mut weight: Option<ExprId> = None;
        let mut inside = vs.arena.constant(Scalar::bool(true));
        let mut index = outer.to_vec();
        for (axis, (low, rest, high)) in corners.iter().enumerate() {
            let up = corner >> axis & 1;
            let step = vs.arena.int(i64::from(up == 1));
            let at = vs.arena.add(*low, step);
            let fits = within(vs, at, &places[axis].1);
            inside = vs.arena.and(inside, fits);
            let f = if up == 1 { *high } else { *rest };
            weight = Some(weight.map_or(f, |w| vs.arena.mul(w, f)));
            index.push(clamp_index(vs, at, &places[axis].1));
        }
        let a = vs.load(x, &index);
        let zero = vs.arena.real(ty, 0.0);
        let a = vs.arena.select(inside, a, zero);
        let term = weight.map_or(a, |w| vs.arena.mul(a, w));
        sum = vs.arena.add(sum, term);
    }
    sum
}
