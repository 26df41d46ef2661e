//! Resize: a fold over the taps of a kernel along each axis, whose indices and weights stand in tables, one an axis.

use super::formula::{X, formula};
use super::math::{binary, clamp_index, dim_as, fold, saturated, unary, within};
use super::{Cx, Lower};
use crate::error::{Error, Kind, Result};
use crate::graph::ops::resize::{Resampling, Resized};
use crate::graph::{AttrValue, Attrs};
use crate::kernel::{BinaryOp, ExprId, FoldOp, Scalar, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{Array, DType, Dim};

pub(super) const ROWS: &[(&str, Lower)] = &[("Resize", resize)];

/// The elements of constant float input `i`, where it is there and not empty.
fn floats(cx: &Cx<'_>, i: usize) -> Result<Option<Vec<f64>>> {
    let Some(id) = cx.node.inputs.get(i).copied().flatten() else { return Ok(None) };
    let value = cx.graph.value(id);
    if value.shape.as_ref().is_some_and(|s| s.iter().any(|d| d.is(0))) {
        return Ok(None);
    }
    match value.constant.as_ref().and_then(Array::to_f64) {
        Some(list) => Ok(Some(list)),
        None => Err(crate::graph::ops::rules::depends_on_data("the scales of a resize")),
    }
}

pub(super) fn unknown(attrs: &Attrs, name: &str) -> Error {
    let value = match attrs.get(name) {
        Some(AttrValue::Str(s)) => s.as_str(),
        _ => "",
    };
    Error::new(Kind::InvalidModel, format!("attribute \"{name}\" is \"{value}\""))
}

/// The weight of a tap at distance `x` under linear interpolation.
pub(super) fn linear(x: X<'_>) -> X<'_> {
    (x.number(1.0) - x.abs()).max(0.0)
}

/// The weight of a tap at distance `x` under cubic convolution with coefficient `a` (Keys 1981).
pub(super) fn cubic(x: X<'_>, a: f64) -> X<'_> {
    let d = x.abs();
    let near = d * d * (d * (a + 2.0) - (a + 3.0)) + 1.0;
    let far = ((d - 5.0) * d + 8.0) * d * a - 4.0 * a;
    let outer = d.lt(2.0).select(far, 0.0);
    d.lt(1.0).select(near, outer)
}

/// `(o + shift) / scale`, for `[o, size, out, exact size, scale's numerator, its denominator, …]`.
fn back<'a>(whole: bool, x: &[X<'a>], shift: f64) -> X<'a> {
    let o = if shift == 0.0 { x[0] } else { x[0] + shift };
    if whole { o * x[5] / x[4] } else { o / x[4] }
}

/// Where output `o` of an axis lies in the input, as `F32`.
fn coordinate(vs: &mut Values, attrs: &Attrs, r: &Resized, roi: Option<(ExprId, ExprId)>, o: ExprId) -> Result<ExprId> {
    let o = vs.arena.cast(Ty::F32, o);
    let (size, out) = (dim_as(vs, Ty::F32, &r.size), dim_as(vs, Ty::F32, &r.out));
    // The scale as a fraction, so that whole coordinates come out whole; and the output's size before it was rounded.
    let (over, under, exact) = match r.scale {
        Some(s) => {
            let (s, one) = (vs.arena.real(Ty::F32, s), vs.arena.real(Ty::F32, 1.0));
            let exact = match (r.size.known(), r.scale) {
                #[allow(clippy::cast_precision_loss)]
                (Some(n), Some(s)) => vs.arena.real(Ty::F32, s * n as f64),
                _ => vs.arena.mul(s, size),
            };
            (s, one, exact)
        }
        None => (out, size, out),
    };
    let whole = r.scale.is_none();
    let [low, high] = match roi {
        Some((low, high)) => [low, high],
        None => [vs.arena.real(Ty::F32, 0.0), vs.arena.real(Ty::F32, 1.0)],
    };
    let list = [o, size, out, exact, over, under, low, high];
    let mode = attrs.str("coordinate_transformation_mode")?;
    let arena = &mut vs.arena;
    Ok(match mode {
        "half_pixel" => formula(arena, &list, |x| back(whole, x, 0.5) - 0.5),
        "pytorch_half_pixel" => {
            formula(arena, &list, |x| x[3].eq(1.0).select(x[0].number(0.0), back(whole, x, 0.5) - 0.5))
        }
        "half_pixel_symmetric" => formula(arena, &list, |x| {
            let offset = x[1] * 0.5 * (x[0].number(1.0) - x[2] / x[3]);
            offset + (back(whole, x, 0.5) - 0.5)
        }),
        "asymmetric" => formula(arena, &list, |x| back(whole, x, 0.0)),
        "align_corners" => {
            formula(arena, &list, |x| x[3].eq(1.0).select(x[0].number(0.0), x[0] * (x[1] - 1.0) / (x[3] - 1.0)))
        }
        "tf_crop_and_resize" => formula(arena, &list, |x| {
            let along = (x[7] - x[6]) * (x[1] - 1.0);
            x[6] * (x[1] - 1.0) + x[3].eq(1.0).select(along * 0.5, x[0] * along / (x[3] - 1.0))
        }),
        _ => return Err(unknown(attrs, "coordinate_transformation_mode")),
    })
}

/// How the output index of an axis reads the input.
enum Read {
    /// At `o / n`, or at `o · n`.
    Divide(i64),
    Multiply(i64),
    /// At the index in a table `[out]`.
    Table(ValueId),
    /// At the indices of a table `[out, taps]`, with the weights of another.
    Taps {
        index: ValueId,
        weight: ValueId,
        taps: i64,
    },
}

/// The whole factor by which a nearest-neighbour axis repeats or skips, where its coordinates come out as `⌊o / n⌋` or
/// `o · n`.
#[allow(clippy::cast_possible_truncation)]
fn factor(attrs: &Attrs, r: &Resized) -> Result<Option<Read>> {
    let transform = attrs.str("coordinate_transformation_mode")?;
    let rounding = attrs.str("nearest_mode")?;
    let given = |n: i64| r.scale.is_none_or(|s| s == f64::from(i32::try_from(n).unwrap_or(0)));
    let up = r.out.div_exact(&r.size).and_then(|n| n.known()).filter(|n| *n >= 1 && given(*n));
    let centred = transform.starts_with("half_pixel") && rounding.starts_with("round");
    if let Some(n) = up
        && (centred || transform == "asymmetric" && rounding == "floor")
    {
        return Ok(Some(Read::Divide(n)));
    }
    let down = r.size.div_exact(&r.out).and_then(|n| n.known()).filter(|_| r.scale.is_none());
    Ok(down.filter(|_| transform == "asymmetric").map(Read::Multiply))
}

#[allow(clippy::cast_possible_truncation)]
fn resize(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, roi) = (cx.input(0)?, cx.optional(1));
    let scales = floats(cx, 2)?;
    let sizes = match cx.optional(3) {
        Some(v) if cx.values.shape(v).iter().all(|d| !d.is(0)) => Some(cx.content(3)?),
        _ => None,
    };
    let attrs = &cx.node.attrs;
    let (dtype, _) = cx.output(0)?;
    let plan = Resampling::new(attrs, &cx.shape(0)?, scales.as_deref(), sizes.as_deref())?;
    let crops = attrs.str("coordinate_transformation_mode")? == "tf_crop_and_resize";
    let roi = roi.filter(|v| crops && cx.values.shape(*v).iter().all(|d| !d.is(0)));
    let mode = attrs.str("mode")?;
    let exclude = attrs.flag("exclude_outside")?;
    let antialias = attrs.flag("antialias")?;
    let a = f64::from(attrs.float("cubic_coeff_a")?);
    let mut reads: Vec<(usize, Read)> = vec![];
    let mut places: Vec<(usize, ValueId, Dim)> = vec![];
    for r in &plan.axes {
        if mode == "nearest"
            && let Some(read) = factor(attrs, r)?
        {
            reads.push((r.axis, read));
            continue;
        }
        let at = cx.values.func(DType::Float32, vec![r.out.clone()], |vs, i| {
            let bounds = roi.map(|v| {
                let axes = vs.shape(v)[0].floor_div(&Dim::from(2));
                let low = vs.arena.int(i64::try_from(r.roi).unwrap_or(0));
                let axes = vs.arena.dim(&axes);
                let high = vs.arena.add(low, axes);
                let (low, high) = (vs.load(v, &[low]), vs.load(v, &[high]));
                (vs.arena.cast(Ty::F32, low), vs.arena.cast(Ty::F32, high))
            });
            coordinate(vs, attrs, r, bounds, i[0])
        })?;
        places.push((r.axis, at, r.size.clone()));
        let vs = &mut *cx.values;
        let read = match mode {
            "nearest" => nearest(vs, attrs, r, at)?,
            "linear" | "cubic" => {
                let reach = if mode == "linear" { 1.0 } else { 2.0 };
                // Antialiasing widens the kernel where the axis shrinks.
                let shrink = if antialias { ratio(r)?.min(1.0) } else { 1.0 };
                let first = (-reach / shrink).floor() as i64 + 1;
                let cubic_a = (mode == "cubic").then_some(a);
                taps(vs, r, at, (first, 2 - 2 * first), exclude, antialias || exclude, &|d| {
                    let d = if shrink == 1.0 { d } else { d * shrink };
                    cubic_a.map_or(linear(d), |a| cubic(d, a))
                })?
            }
            _ => return Err(unknown(attrs, "mode")),
        };
        reads.push((r.axis, read));
    }
    let outside = f64::from(attrs.float("extrapolation_value")?);
    cx.func(|vs, i| {
        let extents: Vec<Dim> = reads
            .iter()
            .filter_map(|(_, r)| match r {
                Read::Taps { taps, .. } => Some(Dim::from(*taps)),
                _ => None,
            })
            .collect();
        let y = fold(vs, FoldOp::Sum, &extents, |vs, k| {
            let mut at = i.to_vec();
            let mut weight: Option<ExprId> = None;
            let mut k = k.iter();
            for (axis, read) in &reads {
                let o = i[*axis];
                at[*axis] = match read {
                    Read::Divide(n) => {
                        let n = vs.arena.int(*n);
                        binary(vs, BinaryOp::FloorDiv, o, n)
                    }
                    Read::Multiply(n) => {
                        let n = vs.arena.int(*n);
                        vs.arena.mul(o, n)
                    }
                    Read::Table(table) => vs.load(*table, &[o]),
                    Read::Taps { index, weight: w, .. } => {
                        let zero = vs.arena.int(0);
                        let t = *k.next().unwrap_or(&zero);
                        let w = vs.load(*w, &[o, t]);
                        weight = Some(weight.map_or(w, |other| vs.arena.mul(other, w)));
                        vs.load(*index, &[o, t])
                    }
                };
            }
            let e = vs.load(x, &at);
            Ok(match weight {
                Some(w) => {
                    let ty = if vs.arena.ty(e) == Ty::F64 { Ty::F64 } else { Ty::F32 };
                    let (e, w) = (vs.arena.cast(ty, e), vs.arena.cast(ty, w));
                    vs.arena.mul(e, w)
                }
                None => e,
            })
        })?;
        let y = if vs.arena.ty(y) == Ty::of(dtype) { y } else { saturated(vs, y, dtype) };
        if !crops {
            return Ok(y);
        }
        let mut inside = vs.arena.constant(Scalar::bool(true));
        for (axis, at, size) in &places {
            let at = vs.load(*at, &[i[*axis]]);
            let last = dim_as(vs, Ty::F32, &size.sub(&Dim::from(1)));
            let fits = formula(&mut vs.arena, &[at, last], |x| x[0].ge(0.0).and(x[1].ge(x[0])));
            inside = vs.arena.and(inside, fits);
        }
        let outside = vs.arena.real(Ty::of(dtype), outside);
        Ok(vs.arena.select(inside, y, outside))
    })
}

/// The scale of an axis, which antialiasing must know.
#[allow(clippy::cast_precision_loss)]
fn ratio(r: &Resized) -> Result<f64> {
    match (r.scale, r.out.known(), r.size.known()) {
        (Some(s), ..) => Ok(s),
        (None, Some(a), Some(b)) if b > 0 => Ok(a as f64 / b as f64),
        _ => Err(crate::graph::ops::rules::depends_on_data("the scale of an antialiased resize")),
    }
}

fn nearest(vs: &mut Values, attrs: &Attrs, r: &Resized, at: ValueId) -> Result<Read> {
    let mode = attrs.str("nearest_mode")?;
    let (shift, op) = match mode {
        "round_prefer_floor" => (-0.5, UnaryOp::Ceil),
        "round_prefer_ceil" => (0.5, UnaryOp::Floor),
        "floor" => (0.0, UnaryOp::Floor),
        "ceil" => (0.0, UnaryOp::Ceil),
        _ => return Err(unknown(attrs, "nearest_mode")),
    };
    let table = vs.func(DType::Int32, vec![r.out.clone()], |vs, i| {
        let e = vs.load(at, i);
        let e = formula(&mut vs.arena, &[e], |x| if shift == 0.0 { x[0] } else { x[0] + shift });
        let e = unary(vs, op, e);
        let e = vs.arena.cast(Ty::I32, e);
        Ok(clamp_index(vs, e, &r.size))
    })?;
    Ok(Read::Table(table))
}

/// Tables for `count` taps from `first` on beside the coordinate, weighted by `kernel` of the distance.
fn taps(
    vs: &mut Values,
    r: &Resized,
    at: ValueId,
    (first, count): (i64, i64),
    exclude: bool,
    normalize: bool,
    kernel: &dyn for<'a> Fn(X<'a>) -> X<'a>,
) -> Result<Read> {
    let shape = vec![r.out.clone(), Dim::from(count)];
    let place = |vs: &mut Values, i: &[ExprId]| {
        let e = vs.load(at, &[i[0]]);
        let e = unary(vs, UnaryOp::Floor, e);
        let e = vs.arena.cast(Ty::I32, e);
        let first = vs.arena.int(first);
        let t = vs.arena.add(i[1], first);
        vs.arena.add(e, t)
    };
    let index = vs.func(DType::Int32, shape.clone(), |vs, i| {
        let p = place(vs, i);
        Ok(clamp_index(vs, p, &r.size))
    })?;
    let mut weight = vs.func(DType::Float32, shape.clone(), |vs, i| {
        let p = place(vs, i);
        let inside = within(vs, p, &r.size);
        let p = vs.arena.cast(Ty::F32, p);
        let at = vs.load(at, &[i[0]]);
        let d = vs.arena.sub(at, p);
        let w = formula(&mut vs.arena, &[d], |d| kernel(d[0]));
        if !exclude {
            return Ok(w);
        }
        let zero = vs.arena.real(Ty::F32, 0.0);
        Ok(vs.arena.select(inside, w, zero))
    })?;
    if normalize {
        let raw = weight;
        weight = vs.func(DType::Float32, shape, |vs, i| {
            let sum = fold(vs, FoldOp::Sum, &[Dim::from(count)], |vs, t| Ok(vs.load(raw, &[i[0], t[0]])))?;
            let w = vs.load(raw, i);
            Ok(formula(&mut vs.arena, &[w, sum], |x| x[1].eq(0.0).select(x[0].number(0.0), x[0] / x[1])))
        })?;
    }
    Ok(Read::Taps { index, weight, taps: count })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Float, Int, Str};
    use crate::lower::testing::{In, f32s, i64s, near, ramp};

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn resizing() {
        near(
            "nearest, doubled, symbolic",
            "Resize",
            &[
                ("mode", Str("nearest".into())),
                ("coordinate_transformation_mode", Str("asymmetric".into())),
                ("nearest_mode", Str("floor".into())),
            ],
            &[
                In::Symbolic(ramp(&[1, 1, 1, 3], 7, 1.0), &["", "", "h", "w"]),
                In::Absent,
                In::Constant(f32s(&[4], &[1.0, 1.0, 2.0, 2.0])),
            ],
            &[f32s(&[1, 1, 2, 6], &[-5.0, -5.0, 2.0, 2.0, -2.0, -2.0, -5.0, -5.0, 2.0, 2.0, -2.0, -2.0])],
            TOLERANCE,
        );
        near(
            "nearest to sizes",
            "Resize",
            &[("mode", Str("nearest".into()))],
            &[
                In::Data(ramp(&[1, 1, 1, 5], 7, 1.0)),
                In::Absent,
                In::Absent,
                In::Constant(i64s(&[4], &[1.0, 1.0, 1.0, 3.0])),
            ],
            &[f32s(&[1, 1, 1, 3], &[-5.0, -2.0, 1.0])],
            TOLERANCE,
        );
        near(
            "nearest, ceil",
            "Resize",
            &[("mode", Str("nearest".into())), ("nearest_mode", Str("ceil".into()))],
            &[
                In::Data(ramp(&[1, 1, 1, 5], 7, 1.0)),
                In::Absent,
                In::Absent,
                In::Constant(i64s(&[4], &[1.0, 1.0, 1.0, 8.0])),
            ],
            &[f32s(&[1, 1, 1, 8], &[-5.0, 2.0, -2.0, -2.0, 5.0, 5.0, 1.0, 1.0])],
            TOLERANCE,
        );
        near(
            "linear",
            "Resize",
            &[("mode", Str("linear".into()))],
            &[In::Data(ramp(&[1, 1, 2, 2], 7, 1.0)), In::Absent, In::Constant(f32s(&[4], &[1.0, 1.0, 2.0, 1.5]))],
            &[f32s(&[1, 1, 4, 3], &[-5.0, -1.5, 2.0, -4.25, -0.75, 2.75, -2.75, 0.75, 4.25, -2.0, 1.5, 5.0])],
            TOLERANCE,
        );
        near(
            "linear, aligned corners, symbolic",
            "Resize",
            &[("mode", Str("linear".into())), ("coordinate_transformation_mode", Str("align_corners".into()))],
            &[
                In::Symbolic(ramp(&[1, 1, 1, 3], 7, 1.0), &["", "", "", "w"]),
                In::Absent,
                In::Absent,
                In::Constant(i64s(&[4], &[1.0, 1.0, 1.0, 5.0])),
            ],
            &[f32s(&[1, 1, 1, 5], &[-5.0, -1.5, 2.0, 0.0, -2.0])],
            TOLERANCE,
        );
        near(
            "linear, symmetric",
            "Resize",
            &[("mode", Str("linear".into())), ("coordinate_transformation_mode", Str("half_pixel_symmetric".into()))],
            &[In::Data(ramp(&[1, 1, 1, 5], 7, 1.0)), In::Absent, In::Constant(f32s(&[4], &[1.0, 1.0, 1.0, 0.7]))],
            &[f32s(&[1, 1, 1, 3], &[-1.0, -2.0, 3.28571])],
            TOLERANCE,
        );
        near(
            "cubic",
            "Resize",
            &[("mode", Str("cubic".into()))],
            &[In::Data(ramp(&[1, 1, 1, 4], 7, 1.0)), In::Absent, In::Constant(f32s(&[4], &[1.0, 1.0, 1.0, 2.0]))],
            &[f32s(&[1, 1, 1, 8], &[-5.73828, -3.27344, 0.835938, 1.58594, -1.58594, -0.835938, 3.27344, 5.73828])],
            TOLERANCE,
        );
        near(
            "cubic, outside left out",
            "Resize",
            &[("mode", Str("cubic".into())), ("cubic_coeff_a", Float(-0.5)), ("exclude_outside", Int(1))],
            &[In::Data(ramp(&[1, 1, 1, 4], 7, 1.0)), In::Absent, In::Constant(f32s(&[4], &[1.0, 1.0, 1.0, 0.8]))],
            &[f32s(&[1, 1, 1, 3], &[-4.41286, 0.822266, 2.58144])],
            TOLERANCE,
        );
        near(
            "antialiased",
            "Resize",
            &[("mode", Str("linear".into())), ("antialias", Int(1))],
            &[In::Data(ramp(&[1, 1, 1, 8], 7, 1.0)), In::Absent, In::Constant(f32s(&[4], &[1.0, 1.0, 1.0, 0.5]))],
            &[f32s(&[1, 1, 1, 4], &[-2.0, 1.5, 0.375, 1.125])],
            TOLERANCE,
        );
        near(
            "crop",
            "Resize",
            &[
                ("mode", Str("linear".into())),
                ("coordinate_transformation_mode", Str("tf_crop_and_resize".into())),
                ("extrapolation_value", Float(9.0)),
            ],
            &[
                In::Data(ramp(&[1, 1, 1, 4], 7, 1.0)),
                In::Data(f32s(&[8], &[0.0, 0.0, 0.0, 0.2, 1.0, 1.0, 1.0, 1.4])),
                In::Absent,
                In::Constant(i64s(&[4], &[1.0, 1.0, 1.0, 3.0])),
            ],
            &[f32s(&[1, 1, 1, 3], &[-0.8, 0.800001, 9.0])],
            TOLERANCE,
        );
    }
}
