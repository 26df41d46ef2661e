//! Pooling of regions of interest: RoiAlign, MaxRoiPool, as programs in parallel over the output.

use super::formula::{X, formula};
use super::math::{binary, clamp_index, dim_as, real};
use super::program::{Block, parallel};
use super::{Cx, Lower};
use crate::error::{Error, Kind, Result};
use crate::kernel::{BinaryOp, ExprId, Scalar, Ty, UnaryOp, ValueId, Values};
use crate::tensor::Dim;

pub(super) const ROWS: &[(&str, Lower)] = &[("RoiAlign", roi_align), ("MaxRoiPool", max_roi_pool)];

/// Runs `body` for indices from `from` below `to`, which are known only at run time.
fn count_up(
    block: &mut Block<'_>,
    from: ExprId,
    to: ExprId,
    body: impl FnOnce(&mut Block<'_>, ExprId) -> Result<()>,
) -> Result<()> {
    let v = block.variable(from);
    let i = block.get(v);
    let more = block.vs.arena.lt(i, to);
    block.repeat(more, |block| {
        body(block, i)?;
        let one = block.vs.arena.int(1);
        let next = block.vs.arena.add(i, one);
        block.set(v, next);
        Ok(())
    })
}

/// Along one axis: where a region begins, the length of its bins, and how many samples a bin has.
struct Along {
    start: ExprId,
    bin: ExprId,
    samples: ExprId,
}

/// Each bin averages (or takes the greatest of) bilinear samples on a regular grid.
fn roi_align(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, rois, batch) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let shape = cx.shape(0)?;
    let half = cx.attrs().str("coordinate_transformation_mode")? == "half_pixel";
    let greatest = match cx.attrs().str("mode")? {
        "avg" => false,
        "max" => true,
        other => return Err(Error::new(Kind::InvalidModel, format!("attribute \"mode\" is \"{other}\""))),
    };
    let ratio = cx.attrs().int("sampling_ratio")?.clamp(0, 1 << 12);
    let scale = f64::from(cx.attrs().float("spatial_scale")?);
    let (dtype, out) = cx.output(0)?;
    let ty = Ty::of(dtype);
    cx.values.program(vec![(dtype, out.clone())], |vs, y| {
        let (axes, i) = parallel(vs, &out);
        let mut block = Block::new(vs);
        let mut along = |axis: usize| -> Along {
            // A region is x1, y1, x2, y2.
            let vs = &mut *block.vs;
            let mut edge = |n: i64| {
                let n = vs.arena.int(n);
                let e = vs.load(rois, &[i[0], n]);
                formula(&mut vs.arena, &[e], |e| e[0] * scale - if half { 0.5 } else { 0.0 })
            };
            let column = i64::from(axis == 2);
            let (start, end) = (edge(column), edge(column + 2));
            let bins = dim_as(vs, ty, &out[axis]);
            let bin = formula(&mut vs.arena, &[start, end, bins], |x| {
                let length = x[1] - x[0];
                (if half { length } else { length.max(1.0) }) / x[2]
            });
            let samples = if ratio > 0 {
                vs.arena.int(ratio)
            } else {
                // One for each element of the input that the bin covers, and not many more than the input has.
                let most = vs.arena.dim(&shape[axis].mul(&Dim::from(4)));
                let n = formula(&mut vs.arena, &[bin], |x| x[0].unary(UnaryOp::Ceil));
                let n = vs.arena.cast(Ty::I32, n);
                binary(vs, BinaryOp::Min, n, most)
            };
            Along { start: block.once(start), bin: block.once(bin), samples: block.once(samples) }
        };
        let sides = [along(2), along(3)];
        let image = block.vs.load(batch, &[i[0]]);
        let image = block.vs.arena.cast(Ty::I32, image);
        let image = clamp_index(block.vs, image, &shape[0]);
        let zero = block.vs.arena.real(ty, 0.0);
        let low = block.vs.arena.real(ty, if greatest { f64::NEG_INFINITY } else { 0.0 });
        let sum = block.variable(low);
        let none = block.vs.arena.int(0);
        count_up(&mut block, none, sides[0].samples, |block, iy| {
            let row = sample(block.vs, &sides[0], i[2], iy, &shape[2]);
            count_up(block, none, sides[1].samples, |block, ix| {
                let vs = &mut *block.vs;
                let column = sample(vs, &sides[1], i[3], ix, &shape[3]);
                let inside = vs.arena.and(row.inside, column.inside);
                let mut list = vec![];
                for (r, wr) in row.taps {
                    for (c, wc) in column.taps {
                        let e = vs.load(x, &[image, i[1], r, c]);
                        let w = vs.arena.mul(wr, wc);
                        list.push(vs.arena.mul(w, e));
                    }
                }
                let e = formula(&mut vs.arena, &list, |x| {
                    if greatest { x[0].max(x[1]).max(x[2].max(x[3])) } else { x[0] + x[1] + x[2] + x[3] }
                });
                let e = vs.arena.select(inside, e, zero);
                let before = block.get(sum);
                let op = if greatest { BinaryOp::Max } else { BinaryOp::Add };
                let after = binary(block.vs, op, before, e);
                block.set(sum, after);
                Ok(())
            })
        })?;
        let total = block.get(sum);
        let vs = &mut *block.vs;
        let count = vs.arena.mul(sides[0].samples, sides[1].samples);
        let one = vs.arena.int(1);
        let count = binary(vs, BinaryOp::Max, count, one);
        let count = vs.arena.cast(ty, count);
        let result = if greatest {
            formula(&mut vs.arena, &[total], |t| t[0].eq(f64::NEG_INFINITY).select(t[0].number(0.0), t[0]))
        } else {
            vs.arena.div(total, count)
        };
        block.store(y[0], &i, result);
        Ok((axes, block.stmts))
    })
}

/// A sample along one axis: two taps with their weights, and whether it lies inside the input.
struct Sample {
    taps: [(ExprId, ExprId); 2],
    inside: ExprId,
}

/// Sample `n` of bin `bin` along an axis of `size`.
fn sample(vs: &mut Values, a: &Along, bin: ExprId, n: ExprId, size: &Dim) -> Sample {
    let ty = vs.arena.ty(a.start);
    let list = [a.start, a.bin, a.samples, bin, n, vs.arena.dim(size)].map(|e| vs.arena.cast(ty, e));
    let at = formula(&mut vs.arena, &list, |x| x[0] + x[3] * x[1] + (x[4] + 0.5) * x[1] / x[2]);
    let size_real = list[5];
    let inside = formula(&mut vs.arena, &[at, size_real], |x| x[0].ge(-1.0).and(x[1].ge(x[0])));
    let at = formula(&mut vs.arena, &[at, size_real], |x| x[0].max(0.0).min(x[1] - 1.0));
    let low = formula(&mut vs.arena, &[at], |x| x[0].unary(UnaryOp::Floor));
    let high = vs.arena.sub(at, low);
    let rest = formula(&mut vs.arena, &[high], |x| x[0].number(1.0) - x[0]);
    let low = vs.arena.cast(Ty::I32, low);
    let low = clamp_index(vs, low, size);
    let one = vs.arena.int(1);
    let next = vs.arena.add(low, one);
    let next = clamp_index(vs, next, size);
    Sample { taps: [(low, rest), (next, high)], inside }
}

/// `x` rounded to the nearest whole number, halves away from zero.
fn rounded(x: X<'_>) -> X<'_> {
    (x.abs() + 0.5).unary(UnaryOp::Floor).copy_sign(x)
}

/// Each bin takes the greatest element of the part of the input that it covers, rounded outwards; 0 where that is
/// empty.
fn max_roi_pool(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, rois) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.shape(0)?;
    let scale = f64::from(cx.attrs().float("spatial_scale")?);
    let (dtype, out) = cx.output(0)?;
    let ty = Ty::of(dtype);
    cx.values.program(vec![(dtype, out.clone())], |vs, y| {
        let (axes, i) = parallel(vs, &out);
        let mut block = Block::new(vs);
        // The first and the last index along an axis that a bin covers.
        let mut along = |axis: usize| -> (ExprId, ExprId) {
            let vs = &mut *block.vs;
            // A region is batch, x1, y1, x2, y2.
            let mut edge = |n: i64| {
                let n = vs.arena.int(n);
                vs.load(rois, &[i[0], n])
            };
            let column = if axis == 2 { 2 } else { 1 };
            let (start, end) = (edge(column), edge(column + 2));
            let (bins, size) = (dim_as(vs, ty, &out[axis]), dim_as(vs, ty, &shape[axis]));
            let bin = vs.arena.cast(ty, i[axis]);
            let mut bound = |after: bool| {
                let e = formula(&mut vs.arena, &[start, end, bins, size, bin], |x| {
                    let (start, end) = (rounded(x[0] * scale), rounded(x[1] * scale));
                    let length = (end - start + 1.0).max(1.0) / x[2];
                    let place = if after {
                        ((x[4] + 1.0) * length).unary(UnaryOp::Ceil)
                    } else {
                        (x[4] * length).unary(UnaryOp::Floor)
                    };
                    (place + start).max(0.0).min(x[3])
                });
                vs.arena.cast(Ty::I32, e)
            };
            let (from, to) = (bound(false), bound(true));
            (block.once(from), block.once(to))
        };
        let (rows, columns) = (along(2), along(3));
        let none = block.vs.arena.int(0);
        let image = block.vs.load(rois, &[i[0], none]);
        let image = block.vs.arena.cast(Ty::I32, image);
        let image = clamp_index(block.vs, image, &shape[0]);
        let low = block.vs.arena.real(ty, f64::NEG_INFINITY);
        let best = block.variable(low);
        let empty = block.vs.arena.constant(Scalar::bool(true));
        let empty = block.variable(empty);
        count_up(&mut block, rows.0, rows.1, |block, r| {
            count_up(block, columns.0, columns.1, |block, c| {
                let e = block.vs.load(x, &[image, i[1], r, c]);
                let before = block.get(best);
                let after = binary(block.vs, BinaryOp::Max, before, e);
                block.set(best, after);
                let no = block.vs.arena.constant(Scalar::bool(false));
                block.set(empty, no);
                Ok(())
            })
        })?;
        let (best, empty) = (block.get(best), block.get(empty));
        let zero = real(block.vs, best, 0.0);
        let result = block.vs.arena.select(empty, zero, best);
        block.store(y[0], &i, result);
        Ok((axes, block.stmts))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Float, Int, Str};
    use crate::lower::testing::{In, f32s, i64s, near, ramp};

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn regions() {
        near(
            "average, two samples",
            "RoiAlign",
            &[("output_height", Int(2)), ("output_width", Int(1)), ("sampling_ratio", Int(2))],
            &[
                In::Data(ramp(&[1, 1, 4, 4], 7, 1.0)),
                In::Data(f32s(&[3, 4], &[0.0, 0.0, 3.0, 2.0, 1.0, 0.5, 2.5, 3.5, -2.0, -2.0, 9.0, 9.0])),
                In::Data(i64s(&[3], &[0.0, 0.0, 0.0])),
            ],
            &[f32s(&[3, 1, 2, 1], &[-1.71875, 0.4375, -0.171875, 0.921875, -0.351562, 0.0])],
            TOLERANCE,
        );
        near(
            "average, adaptive",
            "RoiAlign",
            &[
                ("output_height", Int(1)),
                ("output_width", Int(2)),
                ("coordinate_transformation_mode", Str("output_half_pixel".into())),
                ("spatial_scale", Float(0.5)),
            ],
            &[
                In::Symbolic(ramp(&[1, 1, 4, 4], 7, 1.0), &["", "", "h", "w"]),
                In::Data(f32s(&[3, 4], &[0.0, 0.0, 3.0, 2.0, 1.0, 0.5, 2.5, 3.5, -2.0, -2.0, 9.0, 9.0])),
                In::Data(i64s(&[3], &[0.0, 0.0, 0.0])),
            ],
            &[f32s(&[3, 1, 1, 2], &[-1.4375, -0.3125, -0.96875, -0.21875, -0.660687, 0.528646])],
            TOLERANCE,
        );
        near(
            "maximum",
            "RoiAlign",
            &[
                ("output_height", Int(2)),
                ("output_width", Int(1)),
                ("sampling_ratio", Int(1)),
                ("mode", Str("max".into())),
            ],
            &[
                In::Data(ramp(&[1, 1, 4, 4], 7, 1.0)),
                In::Data(f32s(&[3, 4], &[0.0, 0.0, 3.0, 2.0, 1.0, 0.5, 2.5, 3.5, -2.0, -2.0, 9.0, 9.0])),
                In::Data(i64s(&[3], &[0.0, 0.0, 0.0])),
            ],
            &[f32s(&[3, 1, 2, 1], &[2.0, 0.0, 0.75, 1.6875, 3.75, 0.0])],
            TOLERANCE,
        );
    }
}
