//! Signal processing: DFT, STFT, HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix. Transforms are sums over
//! the signal with tables of sines and cosines: as many products as the square of the length.

use super::formula::{X, formula};
use super::math::{binary, clamp_index, dim_as, fold, saturated, scalar};
use super::{Cx, Lower};
use crate::error::{Error, Result};
use crate::graph::ops::rules::depends_on_data;
use crate::graph::ops::signal::transform;
use crate::kernel::{BinaryOp, ExprId, FoldOp, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{Array, DType, Dim};
use std::f64::consts::{LN_10, TAU};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("DFT", dft),
    ("STFT", stft),
    ("HannWindow", |cx| window(cx, &[0.5, -0.5])),
    ("HammingWindow", |cx| window(cx, &[25.0 / 46.0, -21.0 / 46.0])),
    ("BlackmanWindow", |cx| window(cx, &[0.42, -0.5, 0.08])),
    ("MelWeightMatrix", mel_weights),
];

/// Cosine and sine of `τ k / n` for `k` in `0..n`.
struct Turns {
    cos: ValueId,
    sin: ValueId,
    n: Dim,
}

impl Turns {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn new(vs: &mut Values, dtype: DType, n: &Dim) -> Result<Turns> {
        let Some(count) = n.known() else { return Err(depends_on_data("the length of a transform")) };
        let mut table = |f: fn(f64) -> f64| {
            // A quarter of a turn gives zeros and ones, not almost.
            let exact = |x: f64| if x.abs() < 1e-12 { 0.0 } else { x };
            let list = (0..count).map(|k| exact(f(TAU * k as f64 / count as f64)));
            let shape = vec![usize::try_from(count).unwrap_or(0)];
            let array = if dtype == DType::Float64 {
                Array::new(dtype, shape, list.flat_map(f64::to_le_bytes).collect::<Vec<u8>>())?
            } else {
                Array::from_f32(shape, &list.map(|x| x as f32).collect::<Vec<f32>>())?
            };
            Ok::<ValueId, Error>(vs.constant_array(array))
        };
        Ok(Turns { cos: table(f64::cos)?, sin: table(f64::sin)?, n: n.clone() })
    }

    /// The real (`part` 0) or imaginary part (`part` 1) of `(re + i im) · e^(∓ i τ k t / n)`.
    fn term(
        &self,
        vs: &mut Values,
        (k, t): (ExprId, ExprId),
        (re, im): (ExprId, ExprId),
        part: ExprId,
        inverse: bool,
    ) -> ExprId {
        let n = vs.arena.dim(&self.n);
        let at = vs.arena.mul(k, t);
        let at = binary(vs, BinaryOp::FloorMod, at, n);
        let (c, s) = (vs.load(self.cos, &[at]), vs.load(self.sin, &[at]));
        let zero = vs.arena.int(0);
        let is_real = binary(vs, BinaryOp::Eq, part, zero);
        formula(&mut vs.arena, &[is_real, re, im, c, s], |x| {
            let s = if inverse { x[4] } else { -x[4] };
            x[0].select(x[1] * x[3] - x[2] * s, x[1] * s + x[2] * x[3])
        })
    }
}

/// The real or imaginary part of the complex element of `x` at `at`; zero where it has no imaginary part.
fn part(vs: &mut Values, x: ValueId, at: &[ExprId], imaginary: bool) -> ExprId {
    let parts = vs.shape(x)[vs.shape(x).len() - 1].clone();
    if imaginary && parts.is(1) {
        return vs.arena.real(vs.ty(x), 0.0);
    }
    let which = vs.arena.int(i64::from(imaginary));
    let last = at.len() - 1;
    vs.load(x, &[&at[..last], &[which]].concat())
}

fn dft(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let shape = cx.shape(0)?;
    let (inverse, onesided) = (cx.attrs().flag("inverse")?, cx.attrs().flag("onesided")?);
    let back_to_real = inverse && onesided;
    let length = match cx.optional(1) {
        Some(_) => cx.content(1)?.first().cloned(),
        None => None,
    };
    let given = match cx.optional(2) {
        Some(_) => cx.content(2)?.first().and_then(Dim::known),
        None => None,
    };
    let (axis, n) = transform(given, length, &shape, back_to_real)?;
    let (dtype, _) = cx.output(0)?;
    let turns = Turns::new(cx.values, dtype, &n)?;
    cx.func(|vs, i| {
        let last = shape.len() - 1;
        // What the signal lacks to the length is zero. Of a one-sided spectrum only the first half is given.
        let half = n.floor_div(&Dim::from(2)).add(&Dim::from(1));
        let taken = shape[axis].minimum(if back_to_real { &half } else { &n });
        let sum = fold(vs, FoldOp::Sum, &[taken], |vs, t| {
            let mut at = i.to_vec();
            at[axis] = t[0];
            let (re, im) = (part(vs, x, &at, false), part(vs, x, &at, true));
            let which = if back_to_real { vs.arena.int(0) } else { i[last] };
            let term = turns.term(vs, (i[axis], t[0]), (re, im), which, inverse);
            if !back_to_real {
                return Ok(term);
            }
            // Every bin but the first, and the middle one of an even length, stands for its mirror image too.
            let two = vs.arena.int(2);
            let twice = vs.arena.mul(t[0], two);
            let (zero, whole) = (vs.arena.int(0), vs.arena.dim(&n));
            let first = binary(vs, BinaryOp::Eq, twice, zero);
            let middle = binary(vs, BinaryOp::Eq, twice, whole);
            let alone = binary(vs, BinaryOp::Or, first, middle);
            Ok(formula(&mut vs.arena, &[alone, term], |x| x[0].select(x[1], x[1] * 2.0)))
        })?;
        if !inverse {
            return Ok(sum);
        }
        let ty = vs.arena.ty(sum);
        let n = dim_as(vs, ty, &n);
        Ok(vs.arena.div(sum, n))
    })
}

fn stft(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, window) = (cx.input(0)?, cx.optional(2));
    let step = cx.content(1)?.first().cloned().unwrap_or(Dim::from(1));
    let given = match (cx.optional(3), window) {
        (Some(_), _) => cx.content(3)?.first().cloned(),
        (None, Some(w)) => cx.values.shape(w).first().cloned(),
        (None, None) => None,
    };
    let (_, length) = transform(Some(1), given, &cx.shape(0)?, false)?;
    let (dtype, _) = cx.output(0)?;
    let turns = Turns::new(cx.values, dtype, &length)?;
    cx.func(|vs, i| {
        fold(vs, FoldOp::Sum, std::slice::from_ref(&length), |vs, t| {
            let step = vs.arena.dim(&step);
            let place = vs.arena.mul(i[1], step);
            let place = vs.arena.add(place, t[0]);
            let at = [i[0], place, t[0]];
            let (mut re, mut im) = (part(vs, x, &at, false), part(vs, x, &at, true));
            if let Some(w) = window {
                let w = vs.load(w, &[t[0]]);
                re = vs.arena.mul(re, w);
                im = vs.arena.mul(im, w);
            }
            Ok(turns.term(vs, (i[2], t[0]), (re, im), i[3], false))
        })
    })
}

/// A sum of cosines: `c[0] + c[1] cos(τ i / n) + c[2] cos(2 τ i / n)`.
fn window(cx: &mut Cx<'_>, c: &[f64]) -> Result<Vec<ValueId>> {
    let (dtype, shape) = cx.output(0)?;
    let periodic = cx.attrs().flag("periodic")?;
    let ty = if Ty::of(dtype) == Ty::F64 { Ty::F64 } else { Ty::F32 };
    cx.func(|vs, i| {
        let n = if periodic { shape[0].clone() } else { shape[0].sub(&Dim::from(1)) };
        let (at, n) = (vs.arena.cast(ty, i[0]), dim_as(vs, ty, &n));
        let y = formula(&mut vs.arena, &[at, n], |x| {
            let angle = x[0] / x[1].max(1.0) * TAU;
            let wave = |k: usize| if k == 1 { angle } else { angle * 2.0 };
            c.iter().enumerate().skip(1).fold(angle.number(c[0]), |y, (k, c)| y + wave(k).unary(UnaryOp::Cos) * *c)
        });
        Ok(if vs.arena.ty(y) == Ty::of(dtype) { y } else { saturated(vs, y, dtype) })
    })
}

fn mel(hertz: X<'_>) -> X<'_> {
    (hertz / 700.0 + 1.0).log() * (2595.0 / LN_10)
}

/// Triangles over the bins of a spectrum, evenly spaced on the mel scale.
fn mel_weights(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let inputs: Vec<ValueId> = (0..5).map(|n| cx.input(n)).collect::<Result<_>>()?;
    let (dtype, shape) = cx.output(0)?;
    let ty = if Ty::of(dtype) == Ty::F64 { Ty::F64 } else { Ty::F32 };
    let bands = shape[1].clone();
    // The bin of the spectrum at which each band begins; two more for the ends of the last.
    let edges = cx.values.func(DType::Int32, vec![bands.add(&Dim::from(2))], |vs, i| {
        let mut list = vec![];
        for v in &inputs[1..] {
            let e = scalar(vs, *v);
            list.push(vs.arena.cast(ty, e));
        }
        list.push(vs.arena.cast(ty, i[0]));
        list.push(dim_as(vs, ty, &bands.add(&Dim::from(2))));
        let bin = formula(&mut vs.arena, &list, |x| {
            let (low, high) = (mel(x[2]), mel(x[3]));
            let at = x[4] * (high - low) / x[5] + low;
            let hertz = ((at * (LN_10 / 2595.0)).exp() - 1.0) * 700.0;
            ((x[0] + 1.0) * hertz / x[1]).unary(UnaryOp::Floor)
        });
        let bin = vs.arena.cast(Ty::I32, bin);
        Ok(clamp_index(vs, bin, &shape[0]))
    })?;
    cx.func(|vs, i| {
        let mut edge = |n: i64| {
            let n = vs.arena.int(n);
            let at = vs.arena.add(i[1], n);
            let e = vs.load(edges, &[at]);
            vs.arena.cast(ty, e)
        };
        let (low, centre, high) = (edge(0), edge(1), edge(2));
        let bin = vs.arena.cast(ty, i[0]);
        let y = formula(&mut vs.arena, &[bin, low, centre, high], |x| {
            let (bin, low, centre, high) = (x[0], x[1], x[2], x[3]);
            let rising = (bin - low) / (centre - low);
            let falling = (high - bin) / (high - centre);
            let peak = centre.eq(low).and(bin.eq(centre));
            let up = bin.ge(low).and(centre.ge(bin)).and(centre.gt(low));
            let down = bin.ge(centre).and(high.gt(bin));
            down.select(falling, up.select(rising, peak.select(bin.number(1.0), 0.0)))
        });
        Ok(if vs.arena.ty(y) == Ty::of(dtype) { y } else { saturated(vs, y, dtype) })
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::Int;
    use crate::lower::testing::{In, f32s, i64s, near, ramp};

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn transforms() {
        near(
            "complex",
            "DFT",
            &[],
            &[In::Data(ramp(&[1, 4, 2], 7, 1.0)), In::Absent, In::Constant(i64s(&[], &[1.0]))],
            &[f32s(&[1, 4, 2], &[-2.0, 4.0, -0.999999, 11.0, -6.0, -6.0, -11.0, -1.0])],
            TOLERANCE,
        );
        near(
            "padded",
            "DFT",
            &[],
            &[In::Data(ramp(&[1, 3, 1], 7, 1.0)), In::Constant(i64s(&[], &[4.0])), In::Constant(i64s(&[], &[1.0]))],
            &[f32s(&[1, 4, 2], &[-5.0, 0.0, -3.0, -2.0, -9.0, 1.74846e-07, -3.0, 2.0])],
            TOLERANCE,
        );
        near(
            "inverse",
            "DFT",
            &[("inverse", Int(1))],
            &[In::Data(ramp(&[1, 3, 2], 7, 1.0)), In::Absent, In::Constant(i64s(&[], &[-2.0]))],
            &[f32s(&[1, 3, 2], &[-2.0, 1.33333, -3.8094, -0.532691, 0.809401, 1.19936])],
            TOLERANCE,
        );
        near(
            "one side",
            "DFT",
            &[("onesided", Int(1))],
            &[In::Data(ramp(&[1, 5, 1], 7, 1.0)), In::Absent, In::Constant(i64s(&[], &[1.0]))],
            &[f32s(&[1, 3, 2], &[1.0, -6.55651e-07, -6.5, 3.16344, -6.5, -7.24518])],
            TOLERANCE,
        );
        near(
            "short-time",
            "STFT",
            &[],
            &[
                In::Symbolic(ramp(&[1, 8, 1], 7, 1.0), &["b", "", ""]),
                In::Constant(i64s(&[], &[2.0])),
                In::Data(f32s(&[4], &[0.5, 1.0, 1.0, 0.5])),
                In::Constant(i64s(&[], &[4.0])),
            ],
            &[f32s(
                &[1, 3, 3, 2],
                &[
                    0.0,
                    0.0,
                    -0.5,
                    0.5,
                    -9.0,
                    3.93403e-07,
                    3.5,
                    0.0,
                    -2.0,
                    -6.5,
                    -3.5,
                    3.0598e-07,
                    1.5,
                    0.0,
                    -3.5,
                    3.0,
                    7.5,
                    -2.62268e-07,
                ],
            )],
            TOLERANCE,
        );
    }

    #[test]
    fn windows() {
        near(
            "HannWindow, periodic",
            "HannWindow",
            &[],
            &[In::Constant(i64s(&[], &[4.0]))],
            &[f32s(&[4], &[0.0, 0.5, 1.0, 0.5])],
            TOLERANCE,
        );
        near(
            "HannWindow, symmetric",
            "HannWindow",
            &[("periodic", Int(0))],
            &[In::Constant(i64s(&[], &[5.0]))],
            &[f32s(&[5], &[0.0, 0.5, 1.0, 0.5, 0.0])],
            TOLERANCE,
        );
        near(
            "HammingWindow, periodic",
            "HammingWindow",
            &[],
            &[In::Constant(i64s(&[], &[4.0]))],
            &[f32s(&[4], &[0.0869565, 0.543478, 1.0, 0.543478])],
            TOLERANCE,
        );
        near(
            "HammingWindow, symmetric",
            "HammingWindow",
            &[("periodic", Int(0))],
            &[In::Constant(i64s(&[], &[5.0]))],
            &[f32s(&[5], &[0.0869565, 0.543478, 1.0, 0.543478, 0.0869565])],
            TOLERANCE,
        );
        near(
            "BlackmanWindow, periodic",
            "BlackmanWindow",
            &[],
            &[In::Constant(i64s(&[], &[4.0]))],
            &[f32s(&[4], &[1.49012e-08, 0.34, 1.0, 0.34])],
            TOLERANCE,
        );
        near(
            "BlackmanWindow, symmetric",
            "BlackmanWindow",
            &[("periodic", Int(0))],
            &[In::Constant(i64s(&[], &[5.0]))],
            &[f32s(&[5], &[1.49012e-08, 0.34, 1.0, 0.34, 1.49012e-08])],
            TOLERANCE,
        );
        near(
            "bands",
            "MelWeightMatrix",
            &[],
            &[
                In::Constant(i64s(&[], &[3.0])),
                In::Constant(i64s(&[], &[8.0])),
                In::Constant(i64s(&[], &[8000.0])),
                In::Constant(f32s(&[], &[0.0])),
                In::Constant(f32s(&[], &[4000.0])),
            ],
            &[f32s(&[5, 3], &[1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])],
            TOLERANCE,
        );
    }
}
