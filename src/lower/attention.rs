//! Attention and RotaryEmbedding. Attention is three functions, which scheduling makes one kernel: the scores (a
//! contraction with scale, soft cap and mask around it), their softmax, and the weighted sum of the values.

use super::formula::formula;
use super::math::{binary, clamp_index, count, fold, real, scaled, unary};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::attention::{Heads, rotation};
use crate::kernel::{BinaryOp, ExprId, FoldOp, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{DType, Dim};

pub(super) const ROWS: &[(&str, Lower)] = &[("Attention", attention), ("RotaryEmbedding", rotary)];

/// The element `e` of head `h` at position `t`: of `[batch, heads, sequence, size]`, or of `[batch, sequence, heads ·
/// size]`.
fn element(vs: &mut Values, v: ValueId, [b, h, t, e]: [ExprId; 4], size: &Dim) -> ExprId {
    if vs.shape(v).len() == 4 {
        return vs.load(v, &[b, h, t, e]);
    }
    let size = vs.arena.dim(size);
    let at = vs.arena.mul(h, size);
    let at = vs.arena.add(at, e);
    vs.load(v, &[b, t, at])
}

/// Keys or values with those of the past before them, as `[batch, heads, sequence, size]`.
fn present(cx: &mut Cx<'_>, h: &Heads, new: ValueId, past: Option<ValueId>, size: &Dim) -> Result<ValueId> {
    let shape = vec![h.batch.clone(), h.kv_heads.into(), h.total(), size.clone()];
    let dtype = cx.values.dtype(new);
    cx.values.func(dtype, shape, |vs, i| {
        let Some(past) = past else { return Ok(element(vs, new, [i[0], i[1], i[2], i[3]], size)) };
        let start = vs.arena.dim(&h.past);
        let before = vs.arena.lt(i[2], start);
        let old = vs.load(past, i);
        let t = vs.arena.sub(i[2], start);
        let new = element(vs, new, [i[0], i[1], t, i[3]], size);
        Ok(vs.arena.select(before, old, new))
    })
}

/// Whether query position `s` may see key position `t`, and what the mask adds to the score.
struct Mask {
    values: Option<ValueId>,
    causal: bool,
    lengths: Option<ValueId>,
}

impl Mask {
    fn apply(&self, vs: &mut Values, h: &Heads, i: &[ExprId], mut score: ExprId) -> ExprId {
        let never = real(vs, score, f64::NEG_INFINITY);
        if let Some(mask) = self.values {
            let shape = vs.shape(mask).to_vec();
            let short = shape.last().filter(|d| !d.is(1) && **d != h.total()).cloned();
            let element = vs.load_broadcast(mask, i);
            let masked = if vs.dtype(mask) == DType::Bool {
                vs.arena.select(element, score, never)
            } else {
                let ty = vs.arena.ty(score);
                let element = vs.arena.cast(ty, element);
                vs.arena.add(score, element)
            };
            score = match short {
                Some(n) => {
                    let n = vs.arena.dim(&n);
                    let inside = vs.arena.lt(i[3], n);
                    vs.arena.select(inside, masked, never)
                }
                None => masked,
            };
        }
        if self.causal {
            let past = vs.arena.dim(&h.past);
            let s = vs.arena.add(i[2], past);
            let seen = binary(vs, BinaryOp::Le, i[3], s);
            score = vs.arena.select(seen, score, never);
        }
        if let Some(lengths) = self.lengths {
            let n = vs.load(lengths, &[i[0]]);
            let n = vs.arena.cast(Ty::I32, n);
            let seen = vs.arena.lt(i[3], n);
            score = vs.arena.select(seen, score, never);
        }
        score
    }
}

fn attention(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (past_k, past_v) = (cx.optional(4), cx.optional(5));
    let past = past_k.map(|p| cx.values.shape(p).to_vec());
    let h = Heads::new(cx.attrs(), &cx.shape(0)?, &cx.shape(1)?, &cx.shape(2)?, past.as_deref())?;
    let mask = Mask { values: cx.optional(3), causal: cx.attrs().flag("is_causal")?, lengths: cx.optional(6) };
    let softcap = f64::from(cx.attrs().float("softcap")?);
    let scale = match cx.attrs().get("scale") {
        Some(_) => Some(f64::from(cx.attrs().float("scale")?)),
        None => None,
    };
    let mode = cx.attrs().int("qk_matmul_output_mode")?;
    // Half precision keeps its scores in 32 bits.
    let dtype = if cx.values.ty(q) == Ty::F64 { DType::Float64 } else { DType::Float32 };

    let keys = if past_k.is_some() || cx.wants(1) { present(cx, &h, k, past_k, &h.size)? } else { k };
    let values = if past_v.is_some() || cx.wants(2) { present(cx, &h, v, past_v, &h.v_size)? } else { v };
    // Without a past, the packed operands themselves are read.
    let (read_k, read_v) = (if past_k.is_some() { keys } else { k }, if past_v.is_some() { values } else { v });

    let group = h.q_heads / h.kv_heads;
    let kv_head = |vs: &mut Values, head: ExprId| {
        let group = vs.arena.int(group);
        binary(vs, BinaryOp::FloorDiv, head, group)
    };
    let product = |vs: &mut Values, i: &[ExprId]| -> Result<ExprId> {
        let dot = fold(vs, FoldOp::Sum, std::slice::from_ref(&h.size), |vs, e| {
            let head = kv_head(vs, i[1]);
            let a = element(vs, q, [i[0], i[1], i[2], e[0]], &h.size);
            let b = element(vs, read_k, [i[0], head, i[3], e[0]], &h.size);
            Ok(vs.arena.mul(a, b))
        })?;
        let ty = vs.arena.ty(dot);
        #[allow(clippy::cast_precision_loss)]
        let scale = match (scale, h.size.known()) {
            (Some(s), _) => vs.arena.real(ty, s),
            (None, Some(n)) => vs.arena.real(ty, 1.0 / (n as f64).sqrt()),
            (None, None) => {
                let n = count(vs, ty, std::slice::from_ref(&h.size));
                formula(&mut vs.arena, &[n], |n| n[0].number(1.0) / n[0].sqrt())
            }
        };
        Ok(vs.arena.mul(dot, scale))
    };
    let capped = |vs: &mut Values, i: &[ExprId]| -> Result<ExprId> {
        let score = product(vs, i)?;
        if softcap <= 0.0 {
            return Ok(score);
        }
        Ok(formula(&mut vs.arena, &[score], |x| (x[0] / softcap).unary(UnaryOp::Tanh) * softcap))
    };
    let scores = cx.values.func(dtype, h.scores(), |vs, i| {
        let score = capped(vs, i)?;
        Ok(mask.apply(vs, &h, i, score))
    })?;
    let total = h.total();
    let weights = cx.values.func(dtype, h.scores(), |vs, i| softmax(vs, scores, i, &total))?;
    let (out_dtype, out_shape) = cx.output(0)?;
    let y = cx.values.func(out_dtype, out_shape, |vs, i| {
        let [b, head, s, e] = if h.packed {
            let size = vs.arena.dim(&h.v_size);
            let head = binary(vs, BinaryOp::FloorDiv, i[2], size);
            let e = binary(vs, BinaryOp::FloorMod, i[2], size);
            [i[0], head, i[1], e]
        } else {
            [i[0], i[1], i[2], i[3]]
        };
        fold(vs, FoldOp::Sum, std::slice::from_ref(&total), |vs, t| {
            let kv = kv_head(vs, head);
            let w = vs.load(weights, &[b, head, s, t[0]]);
            let v = element(vs, read_v, [b, kv, t[0], e], &h.v_size);
            Ok(vs.arena.mul(w, v))
        })
    })?;
    let mut out = vec![y, keys, values];
    if cx.wants(3) {
        let (dtype, shape) = cx.output(3)?;
        out.push(cx.values.func(dtype, shape, |vs, i| match mode {
            0 => product(vs, i),
            1 => capped(vs, i),
            2 => Ok(vs.load(scores, i)),
            _ => Ok(vs.load(weights, i)),
        })?);
    }
    Ok(out)
}

/// The softmax of `x` over its last axis, of that size, at index `i`.
pub(super) fn softmax(vs: &mut Values, x: ValueId, i: &[ExprId], size: &Dim) -> Result<ExprId> {
    let (outer, axis) = (&i[..i.len() - 1], std::slice::from_ref(size));
    let most = vs.fold(FoldOp::Max, axis, |vs, t| Ok(vs.load(x, &[outer, t].concat())))?;
    let power = |vs: &mut Values, t: ExprId| {
        let e = vs.load(x, &[outer, &[t]].concat());
        let e = vs.arena.sub(e, most);
        unary(vs, UnaryOp::Exp, e)
    };
    let sum = vs.fold(FoldOp::Sum, axis, |vs, t| Ok(power(vs, t[0])))?;
    let e = power(vs, i[i.len() - 1]);
    Ok(vs.arena.div(e, sum))
}

/// Pairs of elements turn by the angle of their position; what lies behind the turning part is kept.
fn rotary(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, cos, sin, positions) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.optional(3));
    let shape = cx.shape(0)?;
    let (_, size, turning) = rotation(cx.attrs(), &shape)?;
    let interleaved = cx.attrs().flag("interleaved")?;
    let packed = shape.len() == 3;
    cx.func(|vs, i| {
        let n = vs.arena.dim(&size);
        let (position, e) = if packed { (i[1], binary(vs, BinaryOp::FloorMod, i[2], n)) } else { (i[2], i[3]) };
        let half = vs.arena.int(turning / 2);
        let two = vs.arena.int(2);
        // The pair's angle, whether `e` is its second element, and how far away the first's partner lies.
        let (angle, second, away) = if interleaved {
            let one = vs.arena.int(1);
            let odd = binary(vs, BinaryOp::FloorMod, e, two);
            let second = binary(vs, BinaryOp::Eq, odd, one);
            (binary(vs, BinaryOp::FloorDiv, e, two), second, 1)
        } else {
            (binary(vs, BinaryOp::FloorMod, e, half), vs.arena.ge(e, half), turning / 2)
        };
        let angle = clamp_index(vs, angle, &Dim::from(turning / 2));
        let cached = |vs: &mut Values, cache: ValueId| match positions {
            Some(p) => {
                let p = vs.load(p, &[i[0], position]);
                let p = vs.arena.cast(Ty::I32, p);
                let rows = vs.shape(cache)[0].clone();
                let p = clamp_index(vs, p, &rows);
                vs.load(cache, &[p, angle])
            }
            None => vs.load(cache, &[i[0], position, angle]),
        };
        let (c, s) = (cached(vs, cos), cached(vs, sin));
        let own = vs.load(x, i);
        let last = i[i.len() - 1];
        let mut at = i.to_vec();
        let one = vs.arena.int(1);
        let place = at.len() - 1;
        at[place] = scaled(vs, last, one, -away);
        let before = vs.load(x, &at);
        at[place] = scaled(vs, last, one, away);
        let after = vs.load(x, &at);
        // (a, b) becomes (a cos - b sin, a sin + b cos).
        let first = formula(&mut vs.arena, &[own, after, c, s], |x| x[0] * x[2] - x[1] * x[3]);
        let other = formula(&mut vs.arena, &[before, own, c, s], |x| x[0] * x[3] + x[1] * x[2]);
        let turned = vs.arena.select(second, other, first);
        let end = vs.arena.int(turning);
        let turns = vs.arena.lt(e, end);
        Ok(vs.arena.select(turns, turned, own))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Float, Int};
    use crate::lower::testing::{In, array, f32s, i64s, near, ramp};
    use crate::tensor::DType;

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn attentions() {
        near(
            "four axes",
            "Attention",
            &[],
            &[
                In::Data(ramp(&[1, 2, 2, 4], 7, 0.25)),
                In::Data(ramp(&[1, 2, 3, 4], 3, 0.25)),
                In::Data(ramp(&[1, 2, 3, 2], 5, 1.0)),
            ],
            &[f32s(&[1, 2, 2, 2], &[0.32908, -0.623405, 1.51833, -1.04164, 2.03297, -3.96703, 2.2996, -3.7004])],
            TOLERANCE,
        );
        near(
            "packed, grouped heads, causal",
            "Attention",
            &[("q_num_heads", Int(2)), ("kv_num_heads", Int(1)), ("is_causal", Int(1))],
            &[
                In::Symbolic(ramp(&[1, 2, 8], 7, 0.25), &["", "s", ""]),
                In::Symbolic(ramp(&[1, 2, 4], 3, 0.25), &["", "s", ""]),
                In::Symbolic(ramp(&[1, 2, 4], 5, 1.0), &["", "s", ""]),
            ],
            &[f32s(
                &[1, 2, 8],
                &[
                    -5.0, 0.0, 5.0, -1.0, -5.0, 0.0, 5.0, -1.0, -0.990234, -0.891059, 4.10894, -1.89106, -0.0793567,
                    -1.09348, 3.90652, -2.09348,
                ],
            )],
            TOLERANCE,
        );
        near(
            "past",
            "Attention",
            &[],
            &[
                In::Data(ramp(&[1, 1, 1, 4], 7, 0.25)),
                In::Data(ramp(&[1, 1, 1, 4], 3, 0.25)),
                In::Data(ramp(&[1, 1, 1, 2], 5, 1.0)),
                In::Absent,
                In::Data(ramp(&[1, 1, 2, 4], 4, 0.25)),
                In::Data(ramp(&[1, 1, 2, 2], 2, 1.0)),
            ],
            &[
                f32s(&[1, 1, 1, 2], &[-3.81344, -0.15084]),
                f32s(&[1, 1, 3, 4], &[-1.25, -0.25, 0.75, -1.0, 0.0, 1.0, -0.75, 0.25, -1.25, -0.5, 0.25, 1.0]),
                f32s(&[1, 1, 3, 2], &[-5.0, -3.0, -1.0, 1.0, -5.0, 0.0]),
            ],
            TOLERANCE,
        );
        near(
            "masks",
            "Attention",
            &[("softcap", Float(1.5)), ("scale", Float(0.3))],
            &[
                In::Data(ramp(&[1, 1, 2, 4], 7, 0.25)),
                In::Data(ramp(&[1, 1, 3, 4], 3, 0.25)),
                In::Data(ramp(&[1, 1, 3, 2], 5, 1.0)),
                In::Data(array(DType::Bool, &[2, 3], &[1.0, 0.0, 1.0, 1.0, 1.0, 0.0])),
            ],
            &[f32s(&[1, 1, 2, 2], &[-2.53398, -0.548006, 0.093209, -0.509321])],
            TOLERANCE,
        );
        near(
            "added mask",
            "Attention",
            &[],
            &[
                In::Data(ramp(&[1, 1, 2, 4], 7, 0.25)),
                In::Data(ramp(&[1, 1, 3, 4], 3, 0.25)),
                In::Data(ramp(&[1, 1, 3, 2], 5, 1.0)),
                In::Data(ramp(&[2, 3], 3, 1.0)),
            ],
            &[f32s(&[1, 1, 2, 2], &[4.11867, -1.76358, -4.92829, -0.0155034])],
            TOLERANCE,
        );
    }

    #[test]
    fn rotations() {
        near(
            "halves",
            "RotaryEmbedding",
            &[],
            &[
                In::Data(ramp(&[1, 1, 2, 4], 7, 1.0)),
                In::Data(ramp(&[1, 2, 2], 3, 1.0)),
                In::Data(ramp(&[1, 2, 2], 5, 1.0)),
            ],
            &[f32s(&[1, 1, 2, 4], &[15.0, -4.0, 35.0, -10.0, -19.0, -12.0, 9.0, 3.0])],
            TOLERANCE,
        );
        near(
            "interleaved, by position",
            "RotaryEmbedding",
            &[("num_heads", Int(2)), ("interleaved", Int(1))],
            &[
                In::Data(ramp(&[1, 2, 8], 7, 1.0)),
                In::Data(ramp(&[5, 2], 3, 1.0)),
                In::Data(ramp(&[5, 2], 5, 1.0)),
                In::Data(i64s(&[1, 2], &[3.0, 1.0])),
            ],
            &[f32s(
                &[1, 2, 8],
                &[-16.0, -11.0, 5.0, 31.0, 11.0, -3.0, 20.0, -12.0, -19.0, -17.0, -9.0, -19.0, 12.0, 8.0, 21.0, -1.0],
            )],
            TOLERANCE,
        );
    }
}
