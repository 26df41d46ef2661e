//! Convolutions: Conv, ConvTranspose, ConvInteger, QLinearConv, DeformConv. Each is one fold of products over the
//! kernel's taps, then the input channels of a group, with padding as a guard around the load of the input.

use super::integer::{self, Operand};
use super::math::{binary, clamp_index, fold, quantized, scalar, scaled, tap, untap, window, within};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::conv::{Geometry, deform_attrs};
use crate::kernel::{BinaryOp, ExprId, FoldOp, Scalar, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{Array, DType, Dim, Shape};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("Conv", conv),
    ("ConvInteger", conv_integer),
    ("QLinearConv", qlinear_conv),
    ("ConvTranspose", conv_transpose),
    ("DeformConv", deform_conv),
];

/// The input channel that channel `inner` of the group of output channel `out` is.
pub(super) fn channel(vs: &mut Values, g: &Geometry, out: ExprId, inner: ExprId) -> ExprId {
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

/// The sum of products for the output index `i`. `left` and `right` turn a loaded element of the input and of the
/// weights into a factor.
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

/// The convolution of integers less their zero points, as `I32`.
fn integer_sums(vs: &mut Values, g: &Geometry, x: Operand, w: Operand, shape: Shape) -> Result<ValueId> {
    if let Some(sums) = integer::convolution(vs, g, x, w, shape.clone())? {
        return Ok(sums);
    }
    vs.func(DType::Int32, shape, |vs, i| {
        convolve(vs, g, (x.0, w.0), i, |vs, a| centred(vs, a, x.1, i[1]), |vs, b| centred(vs, b, w.1, i[1]))
    })
}

fn conv_integer(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, w, zero_x, zero_w) = (cx.input(0)?, cx.input(1)?, cx.optional(2), cx.optional(3));
    let g = Geometry::new(cx.attrs(), &cx.shape(0)?, &cx.shape(1)?)?;
    let (_, shape) = cx.output(0)?;
    Ok(vec![integer_sums(cx.values, &g, (x, zero_x), (w, zero_w), shape)?])
}

fn qlinear_conv(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, scale_x, zero_x) = (cx.input(0)?, cx.input(1)?, Some(cx.input(2)?));
    let (w, scale_w, zero_w) = (cx.input(3)?, cx.input(4)?, Some(cx.input(5)?));
    let (scale_y, zero_y, bias) = (cx.input(6)?, cx.input(7)?, cx.optional(8));
    let g = Geometry::new(cx.attrs(), &cx.shape(0)?, &cx.shape(3)?)?;
    let (dtype, shape) = cx.output(0)?;
    let sums = integer_sums(cx.values, &g, (x, zero_x), (w, zero_w), shape)?;
    cx.func(|vs, i| {
        let sum = vs.load(sums, i);
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

/// Each output gathers what the transposed window scatters to it: the inputs `(o + begin - k · dilation) / stride`
/// where that is whole.
fn conv_transpose(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let g = Geometry::transposed(cx.attrs(), &cx.shape(0)?, &cx.shape(1)?)?;
    if let Some((phases, w)) = Phases::of(cx.values, &g, w)? {
        let batch = cx.shape(0)?[0].clone();
        let y = phases.convolve(cx.values, batch, x, w)?;
        return cx.func(|vs, i| {
            let at = phases.find(vs, i);
            let y = vs.load(y, &at);
            Ok(add_bias(vs, y, bias, i[1]))
        });
    }
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

/// A transposed convolution with strides, by what its outputs leave as a rest: outputs of one rest read the same taps, so
/// each rest is a plain convolution of the input with every stride-th tap. Together they are one convolution with the
/// channels of every rest side by side, `[N, quotients…, rests… · M]`, from which the output is picked.
struct Phases {
    /// For each axis: the input's size, the stride, the padding before, and how many quotients and taps of one rest.
    axes: Vec<(Dim, i64, i64, Dim, usize)>,
    inputs: Dim,
    outputs: usize,
}

impl Phases {
    /// With the weights `[taps…, C, rests… · M]`, where they are known and have no groups or dilation.
    fn of(vs: &mut Values, g: &Geometry, w: ValueId) -> Result<Option<(Phases, ValueId)>> {
        let Some(array) = vs.constant(w).filter(|a| a.dtype() == DType::Float32) else { return Ok(None) };
        let slides = &g.window.0;
        if g.group != 1 || slides.iter().any(|s| s.dilation != 1) || slides.iter().all(|s| s.stride == 1) {
            return Ok(None);
        }
        let (channels, outputs, kernel) = (array.shape()[0], array.shape()[1], array.shape()[2..].to_vec());
        let (mut axes, mut strides) = (vec![], vec![]);
        for (s, k) in slides.iter().zip(&kernel) {
            let (Some(begin), Ok(stride)) = (s.begin.known().filter(|b| *b >= 0), usize::try_from(s.stride)) else {
                return Ok(None);
            };
            let quotients = s.out.add(&Dim::from(begin)).ceil_div(&Dim::from(s.stride));
            axes.push((s.size.clone(), s.stride, begin, quotients, k.div_ceil(stride)));
            strides.push(stride);
        }
        // Every weight has one place; where the stride does not divide the kernel, zeros are left.
        let taps: Vec<usize> = axes.iter().map(|a| a.4).collect();
        let rests: usize = strides.iter().product();
        let mut data = vec![0f32; taps.iter().product::<usize>() * channels * rests * outputs];
        let spatial: usize = kernel.iter().product();
        for (i, x) in array.bytes().as_chunks::<4>().0.iter().enumerate() {
            let (mut at, mut tap, mut rest) = (i % spatial.max(1), 0, 0);
            let (mut tap_size, mut rest_size) = (1, 1);
            for (n, stride) in strides.iter().enumerate().rev() {
                let k = at % kernel[n];
                at /= kernel[n];
                tap += k / stride * tap_size;
                rest += k % stride * rest_size;
                tap_size *= taps[n];
                rest_size *= stride;
            }
            let (c, m) = (i / spatial / outputs, i / spatial % outputs);
            data[((tap * channels + c) * rests + rest) * outputs + m] = f32::from_le_bytes(*x);
        }
        let shape = [&taps[..], &[channels, rests * outputs]].concat();
        let w = vs.constant_array(Array::from_f32(shape, &data)?);
        Ok(Some((Phases { axes, inputs: g.inputs.clone(), outputs }, w)))
    }

    /// The convolution of all rests.
    fn convolve(&self, vs: &mut Values, batch: Dim, x: ValueId, w: ValueId) -> Result<ValueId> {
        let mut out = vec![batch];
        out.extend(self.axes.iter().map(|a| a.3.clone()));
        out.push(vs.shape(w).last().cloned().unwrap_or_else(|| Dim::from(1)));
        let mut extents: Vec<Dim> = self.axes.iter().map(|a| Dim::from(a.4)).collect();
        extents.push(self.inputs.clone());
        vs.func(DType::Float32, out, |vs, i| {
            let (i, last) = (i.to_vec(), i.len() - 1);
            fold(vs, FoldOp::Sum, &extents, |vs, k| {
                let channel = k[k.len() - 1];
                let mut at = vec![i[0], channel];
                let mut inside = vs.arena.constant(Scalar::bool(true));
                for (n, a) in self.axes.iter().enumerate() {
                    let p = vs.arena.sub(i[n + 1], k[n]);
                    let fits = within(vs, p, &a.0);
                    inside = vs.arena.and(inside, fits);
                    at.push(p);
                }
                let a = vs.load(x, &at);
                let zero = vs.arena.real(Ty::F32, 0.0);
                let a = vs.arena.select(inside, a, zero);
                let b = vs.load(w, &[k, &i[last..]].concat());
                Ok(vs.arena.mul(a, b))
            })
        })
    }

    /// Where the output at `i` stands in that convolution.
    fn find(&self, vs: &mut Values, i: &[ExprId]) -> Vec<ExprId> {
        let mut at = vec![i[0]];
        let mut column = vs.arena.int(0);
        for (n, (_, stride, begin, ..)) in self.axes.iter().enumerate() {
            let (stride, begin) = (vs.arena.int(*stride), vs.arena.int(*begin));
            let o = vs.arena.add(i[n + 2], begin);
            at.push(binary(vs, BinaryOp::FloorDiv, o, stride));
            let rest = binary(vs, BinaryOp::FloorMod, o, stride);
            column = vs.arena.mul(column, stride);
            column = vs.arena.add(column, rest);
        }
        at.push(scaled(vs, i[1], column, self.outputs as i64));
        at
    }
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

/// The element of `x[outer, …]` at real places along its last axes, each with the axis's size: multilinear, zero
/// outside.
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

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Int, Ints, Str};
    use crate::lower::testing::{In, array, f32s, near, ramp, run};
    use crate::tensor::DType;

    /// Transposed convolutions with weights that are known, which are convolutions of phases, and with those that are not.
    #[test]
    fn phases_agree_with_taps() {
        // (input, weights, strides, padding before and after, output padding)
        for (x, w, strides, pads, extra) in [
            (vec![1, 3, 5], vec![3, 4, 4], vec![2], vec![1, 1], vec![0]),
            (vec![2, 2, 4, 3], vec![2, 3, 3, 3], vec![2, 2], vec![0, 1, 1, 0], vec![1, 0]),
            (vec![1, 2, 3, 4], vec![2, 8, 5, 2], vec![3, 2], vec![2, 0, 1, 0], vec![0, 1]),
            (vec![1, 2, 2, 3, 2], vec![2, 2, 2, 1, 3], vec![2, 1, 4], vec![0; 6], vec![0, 0, 3]),
        ] {
            let attrs = [("strides", Ints(strides)), ("pads", Ints(pads)), ("output_padding", Ints(extra))];
            let (data, bias) = (ramp(&x, 7, 1.0), ramp(&[w[1]], 4, 1.0));
            let run = |w: In| run("ConvTranspose", &attrs, &[In::Data(data.clone()), w, In::Data(bias.clone())], 1);
            let want = run(In::Data(ramp(&w, 3, 1.0))).unwrap();
            let weights = In::Constant(ramp(&w, 3, 1.0));
            near(
                &format!("{w:?}"),
                "ConvTranspose",
                &attrs,
                &[In::Data(data.clone()), weights, In::Data(bias.clone())],
                &want,
                TOLERANCE,
            );
        }
    }

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn convolutions() {
        near(
            "plain",
            "Conv",
            &[],
            &[
                In::Data(ramp(&[1, 2, 3, 3], 7, 1.0)),
                In::Data(ramp(&[2, 2, 2, 2], 3, 1.0)),
                In::Data(ramp(&[2], 4, 1.0)),
            ],
            &[f32s(&[1, 2, 2, 2], &[8.0, 8.0, -47.0, -3.0, 33.0, -20.0, 6.0, -3.0])],
            TOLERANCE,
        );
        near(
            "symbolic, strided and padded",
            "Conv",
            &[("strides", Ints(vec![2, 2])), ("pads", Ints(vec![1, 1, 1, 1]))],
            &[In::Symbolic(ramp(&[2, 1, 5, 4], 7, 1.0), &["n", "", "h", "w"]), In::Data(ramp(&[2, 1, 3, 3], 3, 1.0))],
            &[f32s(
                &[2, 2, 3, 2],
                &[
                    32.0, 25.0, 24.0, 46.0, 2.0, 21.0, -4.0, 22.0, 20.0, -10.0, 29.0, -14.0, -36.0, 38.0, 3.0, -11.0,
                    -24.0, 31.0, 11.0, -22.0, -36.0, 40.0, 31.0, 27.0,
                ],
            )],
            TOLERANCE,
        );
        near(
            "grouped",
            "Conv",
            &[("group", Int(2))],
            &[In::Data(ramp(&[1, 4, 3], 7, 1.0)), In::Data(ramp(&[4, 2, 2], 3, 1.0))],
            &[f32s(&[1, 4, 2], &[30.0, -17.0, 33.0, -19.0, 2.0, 22.0, 8.0, 12.0])],
            TOLERANCE,
        );
        near(
            "depthwise, dilated",
            "Conv",
            &[("group", Int(3)), ("dilations", Ints(vec![2])), ("pads", Ints(vec![0, 1]))],
            &[In::Data(ramp(&[1, 3, 5], 7, 1.0)), In::Data(ramp(&[3, 1, 2], 3, 1.0)), In::Data(ramp(&[3], 4, 1.0))],
            &[f32s(&[1, 3, 4], &[24.0, -25.0, 3.0, -30.0, -4.0, -13.0, 11.0, -5.0, 5.0, 25.0, -10.0, 11.0])],
            TOLERANCE,
        );
        near(
            "same upper, symbolic",
            "Conv",
            &[("auto_pad", Str("SAME_UPPER".into())), ("strides", Ints(vec![2]))],
            &[In::Symbolic(ramp(&[1, 1, 5], 7, 1.0), &["", "", "w"]), In::Data(ramp(&[1, 1, 2], 3, 1.0))],
            &[f32s(&[1, 1, 3], &[21.0, 0.0, -5.0])],
            TOLERANCE,
        );
        near(
            "same lower",
            "Conv",
            &[("auto_pad", Str("SAME_LOWER".into()))],
            &[In::Data(ramp(&[1, 1, 4, 4], 7, 1.0)), In::Data(ramp(&[1, 1, 2, 2], 3, 1.0))],
            &[f32s(
                &[1, 1, 4, 4],
                &[-20.0, 3.0, -6.0, 18.0, 14.0, 10.0, 7.0, 4.0, -18.0, 9.0, 6.0, -41.0, 16.0, 8.0, 5.0, 24.0],
            )],
            TOLERANCE,
        );
        near(
            "valid",
            "Conv",
            &[("auto_pad", Str("VALID".into()))],
            &[In::Data(ramp(&[1, 1, 4, 4], 7, 1.0)), In::Data(ramp(&[1, 1, 3, 3], 3, 1.0))],
            &[f32s(&[1, 1, 2, 2], &[41.0, -13.0, -43.0, 46.0])],
            TOLERANCE,
        );
        near(
            "3d",
            "Conv",
            &[],
            &[In::Data(ramp(&[1, 1, 2, 3, 3], 7, 1.0)), In::Data(ramp(&[1, 1, 2, 2, 2], 3, 1.0))],
            &[f32s(&[1, 1, 1, 2, 2], &[13.0, 13.0, -42.0, 2.0])],
            TOLERANCE,
        );
        near(
            "1x1",
            "Conv",
            &[],
            &[In::Data(ramp(&[1, 3, 2, 2], 7, 1.0)), In::Data(ramp(&[2, 3, 1, 1], 3, 1.0))],
            &[f32s(&[1, 2, 2, 2], &[19.0, -1.0, 1.0, -30.0, -20.0, 17.0, -23.0, 25.0])],
            TOLERANCE,
        );
    }

    #[test]
    fn transposed() {
        near(
            "plain",
            "ConvTranspose",
            &[],
            &[
                In::Data(ramp(&[1, 1, 2, 2], 7, 1.0)),
                In::Data(ramp(&[1, 2, 2, 2], 3, 1.0)),
                In::Data(ramp(&[2], 4, 1.0)),
            ],
            &[f32s(
                &[1, 2, 3, 3],
                &[
                    20.0, -5.0, -9.0, 0.0, -44.0, -7.0, -7.0, -8.0, 15.0, 19.0, -4.0, -3.0, -3.0, -40.0, 4.0, -5.0,
                    -1.0, 24.0,
                ],
            )],
            TOLERANCE,
        );
        near(
            "strided, with output padding",
            "ConvTranspose",
            &[("strides", Ints(vec![2])), ("pads", Ints(vec![1, 1])), ("output_padding", Ints(vec![1]))],
            &[In::Symbolic(ramp(&[1, 2, 3], 7, 1.0), &["", "", "w"]), In::Data(ramp(&[2, 1, 3], 3, 1.0))],
            &[f32s(&[1, 1, 6], &[-10.0, -16.0, -8.0, -1.0, 16.0, 1.0])],
            TOLERANCE,
        );
        near(
            "grouped, dilated",
            "ConvTranspose",
            &[("group", Int(2)), ("dilations", Ints(vec![2]))],
            &[In::Data(ramp(&[1, 2, 3], 7, 1.0)), In::Data(ramp(&[2, 2, 2], 3, 1.0))],
            &[f32s(
                &[1, 4, 5],
                &[
                    25.0, -10.0, 20.0, -4.0, 4.0, -5.0, 2.0, -22.0, 8.0, -8.0, -20.0, -4.0, 7.0, -1.0, 3.0, 10.0, 2.0,
                    19.0, 5.0, -15.0,
                ],
            )],
            TOLERANCE,
        );
        near(
            "output shape",
            "ConvTranspose",
            &[("strides", Ints(vec![2, 2])), ("output_shape", Ints(vec![6, 5]))],
            &[In::Data(ramp(&[1, 1, 3, 3], 7, 1.0)), In::Data(ramp(&[1, 1, 3, 3], 3, 1.0))],
            &[f32s(
                &[1, 1, 6, 5],
                &[
                    20.0, 13.0, -8.0, -10.0, 8.0, -35.0, 19.0, 8.0, 6.0, -4.0, -20.0, -1.0, -4.0, -13.0, 12.0, 17.0,
                    -9.0, 5.0, 11.0, -7.0, -16.0, -4.0, 0.0, -16.0, 16.0, 20.0, -12.0, 0.0, -8.0, -20.0,
                ],
            )],
            TOLERANCE,
        );
        near(
            "same upper",
            "ConvTranspose",
            &[("strides", Ints(vec![2])), ("auto_pad", Str("SAME_UPPER".into()))],
            &[In::Data(ramp(&[1, 1, 3], 7, 1.0)), In::Data(ramp(&[1, 1, 3], 3, 1.0))],
            &[f32s(&[1, 1, 6], &[25.0, 10.0, -15.0, -4.0, 12.0, 4.0])],
            TOLERANCE,
        );
    }

    #[test]
    fn quantized_convolutions() {
        near(
            "padding is zero",
            "ConvInteger",
            &[("pads", Ints(vec![1, 0, 0, 1]))],
            &[
                In::Data(array(DType::Uint8, &[1, 1, 3, 3], &[0.0, 11.0, 22.0, 33.0, 44.0, 55.0, 66.0, 77.0, 88.0])),
                In::Data(array(DType::Uint8, &[2, 1, 2, 2], &[3.0, 250.0, 7.0, 120.0, 1.0, 2.0, 0.0, 255.0])),
                In::Data(array(DType::Uint8, &[], &[9.0])),
                In::Data(array(DType::Uint8, &[], &[100.0])),
            ],
            &[array(
                DType::Int32,
                &[1, 2, 3, 3],
                &[
                    877.0, 74.0, -1209.0, -359.0, -579.0, -5539.0, -1019.0, -1239.0, -11809.0, 1210.0, 1815.0, -1300.0,
                    3720.0, 2158.0, -5887.0, -966.0, -2528.0, -12454.0,
                ],
            )],
            TOLERANCE,
        );
        near(
            "scales of channels",
            "QLinearConv",
            &[],
            &[
                In::Data(array(DType::Uint8, &[1, 1, 3, 3], &[0.0, 11.0, 22.0, 33.0, 44.0, 55.0, 66.0, 77.0, 88.0])),
                In::Data(f32s(&[], &[0.5])),
                In::Data(array(DType::Uint8, &[], &[9.0])),
                In::Data(array(DType::Uint8, &[2, 1, 2, 2], &[3.0, 250.0, 7.0, 120.0, 1.0, 2.0, 0.0, 255.0])),
                In::Data(f32s(&[2], &[0.01, 0.02])),
                In::Data(array(DType::Uint8, &[2], &[100.0, 3.0])),
                In::Data(f32s(&[], &[0.25])),
                In::Data(array(DType::Uint8, &[], &[128.0])),
                In::Data(array(DType::Int32, &[2], &[40.0, -300.0])),
            ],
            &[array(DType::Uint8, &[1, 2, 2, 2], &[122.0, 117.0, 108.0, 104.0, 255.0, 255.0, 255.0, 255.0])],
            TOLERANCE,
        );
    }

    #[test]
    fn deformed() {
        near(
            "offsets, mask and bias",
            "DeformConv",
            &[],
            &[
                In::Data(ramp(&[1, 2, 3, 3], 7, 1.0)),
                In::Data(ramp(&[1, 2, 2, 2], 3, 1.0)),
                In::Data(ramp(&[1, 8, 2, 2], 5, 0.25)),
                In::Data(f32s(&[1], &[1.5])),
                In::Data(ramp(&[1, 4, 2, 2], 3, 0.125)),
            ],
            &[f32s(&[1, 1, 2, 2], &[2.39062, 0.320312, 1.21875, 0.65625])],
            TOLERANCE,
        );
    }
}
