//! Sampling at computed places: GridSample, AffineGrid, CenterCropPad, Col2Im.

use super::formula::{X, formula};
use super::math::{clamp_index, dim_as, fold, ravel, saturated, unary, untap, within};
use super::resize::{cubic, linear, unknown};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::resize::columns;
use crate::kernel::{ExprId, FoldOp, Scalar, Ty, UnaryOp, ValueId};
use crate::tensor::Dim;

pub(super) const ROWS: &[(&str, Lower)] =
    &[("GridSample", grid_sample), ("AffineGrid", affine_grid), ("CenterCropPad", center_crop_pad), ("Col2Im", col2im)];

/// Where a normalized coordinate in -1..=1 lies along an axis of that size.
fn denormalized<'a>(x: X<'a>, size: X<'a>, align: bool) -> X<'a> {
    if align { (x + 1.0) * 0.5 * (size - 1.0) } else { ((x + 1.0) * size - 1.0) * 0.5 }
}

/// `x` reflected at `low` and `high` until it lies between them.
fn reflected<'a>(x: X<'a>, low: X<'a>, high: X<'a>) -> X<'a> {
    let range = high - low;
    let below = x.lt(low);
    let d = below.select(low - x, x - high);
    let n = (d / range).unary(UnaryOp::Trunc);
    let rest = d - n * range;
    let even = (n - (n * 0.5).unary(UnaryOp::Floor) * 2.0).eq(0.0);
    let near = below.select(low + rest, high - rest);
    let far = below.select(high - rest, low + rest);
    let y = even.select(near, far);
    below.or(x.gt(high)).select(y, x)
}

/// What GridSample reads outside of its input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

fn grid_sample(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.shape(0)?;
    let spatial = shape[2..].to_vec();
    let n = spatial.len();
    let align = cx.attrs().flag("align_corners")?;
    let padding = match cx.attrs().str("padding_mode")? {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        _ => return Err(unknown(cx.attrs(), "padding_mode")),
    };
    // The first tap beside the coordinate and how many there are.
    let (first, count) = match cx.attrs().str("mode")? {
        "nearest" => (0, 1),
        "linear" | "bilinear" => (0, 2),
        "cubic" | "bicubic" => (-1, 4),
        _ => return Err(unknown(cx.attrs(), "mode")),
    };
    let (dtype, _) = cx.output(0)?;
    let ty = if cx.values.ty(grid) == Ty::F64 { Ty::F64 } else { Ty::F32 };
    cx.func(|vs, i| {
        let mut places = vec![];
        for (axis, d) in spatial.iter().enumerate() {
            // The grid gives coordinates last axis first.
            let which = vs.arena.int(i64::try_from(n - 1 - axis).unwrap_or(0));
            let at = vs.load(grid, &[&[i[0]], &i[2..], &[which]].concat());
            let at = vs.arena.cast(ty, at);
            let size = dim_as(vs, ty, d);
            places.push(formula(&mut vs.arena, &[at, size], |x| {
                let (low, high) = edges(x[1], align);
                let mut at = denormalized(x[0], x[1], align);
                if count == 1 {
                    at = at.round();
                }
                match padding {
                    Padding::Zeros => at,
                    // The taps of a cubic kernel are limited one by one.
                    Padding::Border if count == 4 => at,
                    Padding::Border => at.lt(low).or(at.gt(high)).select(at.max(0.0).min(x[1] - 1.0), at),
                    Padding::Reflection => reflected(at, low, high),
                }
            }));
        }
        let y = fold(vs, FoldOp::Sum, &vec![Dim::from(count); n], |vs, k| {
            let mut index = vec![i[0], i[1]];
            let mut inside = vs.arena.constant(Scalar::bool(true));
            let mut weight: Option<ExprId> = None;
            for (axis, d) in spatial.iter().enumerate() {
                let floor = unary(vs, UnaryOp::Floor, places[axis]);
                let mut at = vs.arena.cast(Ty::I32, floor);
                if count > 1 {
                    let first = vs.arena.int(first);
                    let t = vs.arena.add(k[axis], first);
                    at = vs.arena.add(at, t);
                    let t = vs.arena.cast(ty, t);
                    let w = formula(&mut vs.arena, &[places[axis], floor, t], |x| {
                        let d = x[0] - x[1] - x[2];
                        if count == 2 { linear(d) } else { cubic(d, -0.75) }
                    });
                    weight = Some(weight.map_or(w, |other| vs.arena.mul(other, w)));
                }
                if padding == Padding::Reflection {
                    let (at_real, size) = (vs.arena.cast(ty, at), dim_as(vs, ty, d));
                    let back = formula(&mut vs.arena, &[at_real, size], |x| {
                        let (low, high) = edges(x[1], align);
                        reflected(x[0], low, high)
                    });
                    at = vs.arena.cast(Ty::I32, back);
                }
                let fits = within(vs, at, d);
                inside = vs.arena.and(inside, fits);
                index.push(clamp_index(vs, at, d));
            }
            let e = vs.load(x, &index);
            let e = vs.arena.cast(ty, e);
            let zero = vs.arena.real(ty, 0.0);
            let e = if padding == Padding::Zeros { vs.arena.select(inside, e, zero) } else { e };
            Ok(weight.map_or(e, |w| vs.arena.mul(e, w)))
        })?;
        Ok(if vs.arena.ty(y) == Ty::of(dtype) { y } else { saturated(vs, y, dtype) })
    })
}

/// Where an axis of that size begins and ends, in coordinates of its elements.
fn edges(size: X<'_>, align: bool) -> (X<'_>, X<'_>) {
    if align { (size.number(0.0), size - 1.0) } else { (size.number(-0.5), size - 0.5) }
}

/// `theta` times the normalized coordinates of each place of the output, with a 1 behind them.
fn affine_grid(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let theta = cx.input(0)?;
    let align = cx.attrs().flag("align_corners")?;
    let (_, shape) = cx.output(0)?;
    let n = shape.len() - 2;
    cx.func(|vs, i| {
        let ty = vs.ty(theta);
        let row = i[n + 1];
        let last = vs.arena.int(i64::try_from(n).unwrap_or(0));
        let mut sum = vs.load(theta, &[i[0], row, last]);
        for axis in 0..n {
            let at = vs.arena.cast(ty, i[axis + 1]);
            let size = dim_as(vs, ty, &shape[axis + 1]);
            let place = formula(&mut vs.arena, &[at, size], |x| {
                if align {
                    // An axis of one element lies at its beginning.
                    x[0] * 2.0 / (x[1] - 1.0).max(1.0) - 1.0
                } else {
                    (x[0] * 2.0 + 1.0) / x[1] - 1.0
                }
            });
            let column = vs.arena.int(i64::try_from(n - 1 - axis).unwrap_or(0));
            let t = vs.load(theta, &[i[0], row, column]);
            let term = vs.arena.mul(t, place);
            sum = vs.arena.add(sum, term);
        }
        Ok(sum)
    })
}

fn center_crop_pad(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let shape = cx.shape(0)?;
    let (dtype, out) = cx.output(0)?;
    cx.func(|vs, i| {
        let mut inside = vs.arena.constant(Scalar::bool(true));
        let mut at = vec![];
        for ((o, from), to) in i.iter().zip(&shape).zip(&out) {
            let (zero, two) = (Dim::from(0), Dim::from(2));
            let crop = from.sub(to).maximum(&zero).floor_div(&two);
            let pad = to.sub(from).maximum(&zero).floor_div(&two);
            let shift = vs.arena.dim(&crop.sub(&pad));
            let place = vs.arena.add(*o, shift);
            let fits = within(vs, place, from);
            inside = vs.arena.and(inside, fits);
            at.push(place);
        }
        let e = vs.load(x, &at);
        let zero = vs.arena.constant(Scalar::int(Ty::of(dtype), 0));
        Ok(vs.arena.select(inside, e, zero))
    })
}

/// Each place of the image sums the elements of the blocks that cover it.
fn col2im(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let (image, block) = (cx.content(1)?, cx.content(2)?);
    let (_, slides) = columns(cx.attrs(), &cx.shape(0)?, &image, &block)?;
    let blocks: Vec<Dim> = slides.iter().map(|s| s.size.clone()).collect();
    cx.func(|vs, i| {
        fold(vs, FoldOp::Sum, &block, |vs, k| {
            let mut inside = vs.arena.constant(Scalar::bool(true));
            let mut at = vec![];
            for (n, s) in slides.iter().enumerate() {
                let (place, fits) = untap(vs, s, i[n + 2], k[n]);
                inside = vs.arena.and(inside, fits);
                at.push(place);
            }
            let channel: Vec<ExprId> = [&[i[1]], k].concat();
            let channel = ravel(vs, &channel, &[&[Dim::from(0)], &block[..]].concat());
            let column = ravel(vs, &at, &blocks);
            let e = vs.load(x, &[i[0], channel, column]);
            let ty = vs.arena.ty(e);
            let zero = vs.arena.constant(Scalar::int(ty, 0));
            Ok(vs.arena.select(inside, e, zero))
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Int, Str};
    use crate::lower::testing::{In, f32s, i64s, near, ramp};

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn sampling() {
        near(
            "nearest, zeros",
            "GridSample",
            &[("mode", Str("nearest".into())), ("padding_mode", Str("zeros".into())), ("align_corners", Int(0))],
            &[In::Data(ramp(&[1, 1, 3, 4], 7, 1.0)), In::Data(ramp(&[1, 2, 2, 2], 7, 0.25))],
            &[f32s(&[1, 1, 2, 2], &[0.0, 0.0, -2.0, 0.0])],
            TOLERANCE,
        );
        near(
            "nearest, border",
            "GridSample",
            &[("mode", Str("nearest".into())), ("padding_mode", Str("border".into())), ("align_corners", Int(0))],
            &[In::Data(ramp(&[1, 1, 3, 4], 7, 1.0)), In::Data(ramp(&[1, 2, 2, 2], 7, 0.25))],
            &[f32s(&[1, 1, 2, 2], &[-4.0, -4.0, -2.0, 0.0])],
            TOLERANCE,
        );
        near(
            "nearest, reflection",
            "GridSample",
            &[("mode", Str("nearest".into())), ("padding_mode", Str("reflection".into())), ("align_corners", Int(0))],
            &[In::Data(ramp(&[1, 1, 3, 4], 7, 1.0)), In::Data(ramp(&[1, 2, 2, 2], 7, 0.25))],
            &[f32s(&[1, 1, 2, 2], &[-4.0, -4.0, -2.0, 0.0])],
            TOLERANCE,
        );
        near(
            "linear, zeros",
            "GridSample",
            &[("mode", Str("linear".into())), ("padding_mode", Str("zeros".into())), ("align_corners", Int(1))],
            &[In::Data(ramp(&[1, 1, 3, 4], 7, 1.0)), In::Data(ramp(&[1, 2, 2, 2], 7, 0.25))],
            &[f32s(&[1, 1, 2, 2], &[-0.9375, 0.9375, -0.34375, 0.0])],
            TOLERANCE,
        );
        near(
            "linear, border",
            "GridSample",
            &[("mode", Str("linear".into())), ("padding_mode", Str("border".into())), ("align_corners", Int(1))],
            &[In::Data(ramp(&[1, 1, 3, 4], 7, 1.0)), In::Data(ramp(&[1, 2, 2, 2], 7, 0.25))],
            &[f32s(&[1, 1, 2, 2], &[-1.5, 1.25, -0.34375, 0.0])],
            TOLERANCE,
        );
        near(
            "linear, reflection",
            "GridSample",
            &[("mode", Str("linear".into())), ("padding_mode", Str("reflection".into())), ("align_corners", Int(1))],
            &[In::Data(ramp(&[1, 1, 3, 4], 7, 1.0)), In::Data(ramp(&[1, 2, 2, 2], 7, 0.25))],
            &[f32s(&[1, 1, 2, 2], &[-0.9375, 0.4375, -0.34375, 0.0])],
            TOLERANCE,
        );
        near(
            "cubic, zeros",
            "GridSample",
            &[("mode", Str("cubic".into())), ("padding_mode", Str("zeros".into())), ("align_corners", Int(0))],
            &[In::Data(ramp(&[1, 1, 3, 4], 7, 1.0)), In::Data(ramp(&[1, 2, 2, 2], 7, 0.25))],
            &[f32s(&[1, 1, 2, 2], &[0.0, -0.0413513, -2.22168, -0.375])],
            TOLERANCE,
        );
        near(
            "cubic, border",
            "GridSample",
            &[("mode", Str("cubic".into())), ("padding_mode", Str("border".into())), ("align_corners", Int(0))],
            &[In::Data(ramp(&[1, 1, 3, 4], 7, 1.0)), In::Data(ramp(&[1, 2, 2, 2], 7, 0.25))],
            &[f32s(&[1, 1, 2, 2], &[-2.65625, -0.109299, -2.43066, -0.375])],
            TOLERANCE,
        );
        near(
            "cubic, reflection",
            "GridSample",
            &[("mode", Str("cubic".into())), ("padding_mode", Str("reflection".into())), ("align_corners", Int(0))],
            &[In::Data(ramp(&[1, 1, 3, 4], 7, 1.0)), In::Data(ramp(&[1, 2, 2, 2], 7, 0.25))],
            &[f32s(&[1, 1, 2, 2], &[-2.65625, 0.000610352, -2.49219, -0.75])],
            TOLERANCE,
        );
        near(
            "grid of a transformation",
            "AffineGrid",
            &[],
            &[In::Data(ramp(&[1, 2, 3], 7, 0.5)), In::Constant(i64s(&[4], &[1.0, 1.0, 2.0, 2.0]))],
            &[f32s(&[1, 2, 2, 2], &[-0.25, -3.0, -2.75, -0.5, 0.75, -2.5, -1.75, 0.0])],
            TOLERANCE,
        );
    }

    #[test]
    fn crops_and_columns() {
        near(
            "crop and pad",
            "CenterCropPad",
            &[],
            &[In::Data(ramp(&[5, 2], 7, 1.0)), In::Constant(i64s(&[2], &[2.0, 5.0]))],
            &[f32s(&[2, 5], &[0.0, -2.0, 5.0, 0.0, 0.0, 0.0, 1.0, -3.0, 0.0, 0.0])],
            TOLERANCE,
        );
        near(
            "blocks",
            "Col2Im",
            &[],
            &[
                In::Data(ramp(&[1, 4, 4], 7, 1.0)),
                In::Constant(i64s(&[2], &[3.0, 3.0])),
                In::Constant(i64s(&[2], &[2.0, 2.0])),
            ],
            &[f32s(&[1, 1, 3, 3], &[-5.0, 3.0, -3.0, -6.0, 14.0, -2.0, -1.0, 0.0, 1.0])],
            TOLERANCE,
        );
    }
}
