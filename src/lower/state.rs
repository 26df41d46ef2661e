//! Operators that hand a state from call to call: CausalConvWithState, LinearAttention.

use super::formula::formula;
use super::math::fold;
use super::program::{Block, parallel};
use super::{Cx, Lower};
use crate::error::{Error, Kind, Result};
use crate::graph::ops::state::Sizes;
use crate::kernel::{ExprId, FoldOp, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{DType, Dim};

pub(super) const ROWS: &[(&str, Lower)] =
    &[("CausalConvWithState", causal_conv), ("LinearAttention", linear_attention)];

/// A depthwise convolution along the last axis that sees nothing ahead: before the input stands the state, or zeros.
fn causal_conv(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, w, bias, past) = (cx.input(0)?, cx.input(1)?, cx.optional(2), cx.optional(3));
    let (shape, taps) = (cx.shape(0)?, cx.shape(1)?[2].clone());
    let silu = match cx.attrs().str("activation")? {
        "none" => false,
        "silu" | "swish" => true,
        other => return Err(Error::new(Kind::InvalidModel, format!("attribute \"activation\" is \"{other}\""))),
    };
    let before = taps.sub(&Dim::from(1));
    // Element `p` of state and input, one behind the other.
    let padded = |vs: &mut Values, b: ExprId, c: ExprId, p: ExprId| {
        let start = vs.arena.dim(&before);
        let at = vs.arena.sub(p, start);
        let zero = vs.arena.int(0);
        let new = vs.arena.ge(at, zero);
        let e = vs.load(x, &[b, c, at]);
        let old = match past {
            Some(s) => vs.load(s, &[b, c, p]),
            None => vs.arena.real(vs.ty(x), 0.0),
        };
        vs.arena.select(new, e, old)
    };
    let mut out = cx.func(|vs, i| {
        let mut y = fold(vs, FoldOp::Sum, std::slice::from_ref(&taps), |vs, k| {
            let p = vs.arena.add(i[2], k[0]);
            let a = padded(vs, i[0], i[1], p);
            let zero = vs.arena.int(0);
            let b = vs.load(w, &[i[1], zero, k[0]]);
            Ok(vs.arena.mul(a, b))
        })?;
        if let Some(b) = bias {
            let b = vs.load(b, &[i[1]]);
            y = vs.arena.add(y, b);
        }
        Ok(if silu { formula(&mut vs.arena, &[y], |y| y[0] * y[0].sigmoid()) } else { y })
    })?;
    if cx.wants(1) {
        let (dtype, state) = cx.output(1)?;
        out.push(cx.values.func(dtype, state, |vs, i| {
            let length = vs.arena.dim(&shape[2]);
            let p = vs.arena.add(i[2], length);
            Ok(padded(vs, i[0], i[1], p))
        })?);
    }
    Ok(out)
}

/// A state `[key, value]` a head, to which every step adds the product of key and value, and which the query reads. Each
/// column of the state is independent of the others, and so runs in parallel.
fn linear_attention(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (past, decay, beta) = (cx.optional(3), cx.optional(4), cx.optional(5));
    let shape = cx.shape(0)?;
    let s = Sizes::new(cx.attrs(), &shape, &cx.shape(1)?, &cx.shape(2)?)?;
    let group = s.q_heads / s.kv_heads;
    let given = f64::from(cx.attrs().float("scale")?);
    #[allow(clippy::cast_precision_loss)]
    let scale = match s.key.known() {
        _ if given != 0.0 => given,
        Some(n) => 1.0 / (n as f64).sqrt(),
        None => return Err(crate::graph::ops::rules::depends_on_data("the size of a key")),
    };
    let (dtype, out) = cx.output(0)?;
    let state_dtype = cx.values.dtype(past.unwrap_or(q));
    // The state is carried in at least 32 bits.
    let wide = if dtype == DType::Float64 { DType::Float64 } else { DType::Float32 };
    let ty = Ty::of(wide);
    let heads = Dim::from(s.kv_heads);
    let state = vec![shape[0].clone(), heads.clone(), s.key.clone(), s.value.clone()];
    let writes = vec![(dtype, out), (state_dtype, state.clone()), (wide, state)];
    let ids = cx.values.program(writes, |vs, w| {
        let (axes, i) = parallel(vs, &[shape[0].clone(), heads, s.value.clone()]);
        let (b, h, m) = (i[0], i[1], i[2]);
        let carried = w[2];
        let at = |d: ExprId| [b, h, d, m];
        // Element `e` of head `head` at step `t` of a packed operand, wide.
        let packed = |vs: &mut Values, x: ValueId, t: ExprId, head: ExprId, e: ExprId, size: &Dim| {
            let size = vs.arena.dim(size);
            let place = vs.arena.mul(head, size);
            let place = vs.arena.add(place, e);
            let x = vs.load(x, &[b, t, place]);
            vs.arena.cast(ty, x)
        };
        let mut block = Block::new(vs);
        block.each(&s.key, |block, d| {
            let first = match past {
                Some(p) => {
                    let p = block.vs.load(p, &at(d));
                    block.vs.arena.cast(ty, p)
                }
                None => block.vs.arena.real(ty, 0.0),
            };
            block.store(carried, &at(d), first);
            Ok(())
        })?;
        block.each(&shape[1], |block, t| {
            if let Some(decay) = decay {
                block.each(&s.key, |block, d| {
                    let vs = &mut *block.vs;
                    let a_head = vs.shape(decay)[2].is(s.kv_heads);
                    let g = if a_head { vs.load(decay, &[b, t, h]) } else { packed(vs, decay, t, h, d, &s.key) };
                    let g = vs.arena.cast(ty, g);
                    let old = vs.load(carried, &at(d));
                    let new = formula(&mut vs.arena, &[old, g], |x| x[0] * x[1].unary(UnaryOp::Exp));
                    block.store(carried, &at(d), new);
                    Ok(())
                })?;
            }
            let vs = &mut *block.vs;
            let mut value = packed(vs, v, t, h, m, &s.value);
            if let Some(beta) = beta {
                let known = fold(vs, FoldOp::Sum, std::slice::from_ref(&s.key), |vs, d| {
                    let (a, c) = (vs.load(carried, &at(d[0])), packed(vs, k, t, h, d[0], &s.key));
                    Ok(vs.arena.mul(a, c))
                })?;
                let zero = vs.arena.int(0);
                let head = if vs.shape(beta)[2].is(1) { zero } else { h };
                let beta = vs.load(beta, &[b, t, head]);
                let beta = vs.arena.cast(ty, beta);
                value = formula(&mut vs.arena, &[value, known, beta], |x| x[2] * (x[0] - x[1]));
            }
            let value = block.once(value);
            block.each(&s.key, |block, d| {
                let vs = &mut *block.vs;
                let (old, key) = (vs.load(carried, &at(d)), packed(vs, k, t, h, d, &s.key));
                let new = formula(&mut vs.arena, &[old, key, value], |x| x[0] + x[1] * x[2]);
                block.store(carried, &at(d), new);
                Ok(())
            })?;
            block.each(&Dim::from(group), |block, g| {
                let vs = &mut *block.vs;
                let n = vs.arena.int(group);
                let head = vs.arena.mul(h, n);
                let head = vs.arena.add(head, g);
                let sum = fold(vs, FoldOp::Sum, std::slice::from_ref(&s.key), |vs, d| {
                    let (a, c) = (packed(vs, q, t, head, d[0], &s.key), vs.load(carried, &at(d[0])));
                    Ok(vs.arena.mul(a, c))
                })?;
                let y = formula(&mut vs.arena, &[sum], |x| x[0] * scale);
                let y = vs.arena.cast(Ty::of(dtype), y);
                let size = vs.arena.dim(&s.value);
                let place = vs.arena.mul(head, size);
                let place = vs.arena.add(place, m);
                block.store(w[0], &[b, t, place], y);
                Ok(())
            })
        })?;
        block.each(&s.key, |block, d| {
            let e = block.vs.load(carried, &at(d));
            let e = block.vs.arena.cast(Ty::of(state_dtype), e);
            block.store(w[1], &at(d), e);
            Ok(())
        })?;
        Ok((axes, block.stmts))
    })?;
    Ok(ids)
}
