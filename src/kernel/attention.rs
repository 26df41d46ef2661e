//! Finds attention after fusion: `softmax(score) · value`, where the score is a contraction with its scale and mask, the
//! softmax a kernel of its own, and neither is read by anything else. On the GPU the three become one kernel.

use super::contract;
use super::expr::{Axis, BinaryOp, ExprId, FoldOp, Node, UnaryOp};
use super::fuse::readers;
use super::values::{Def, Func, ValueId, Values};
use std::collections::{BTreeMap, HashMap};

/// Attention behind a stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    pub m: Axis,
    pub n: Axis,
    pub t: Axis,
    pub batch: Vec<Axis>,
    /// The score at the value's batch and m axes and at t.
    pub score: ExprId,
    /// The value operand at batch, t and n.
    pub value: ExprId,
    /// The fold in the value's expression that the attention's result replaces.
    pub fold: ExprId,
}

/// Finds attention among stored values, and takes the scores and their softmax out of them.
pub fn find(values: &mut Values, stored: &mut Vec<ValueId>, outputs: &[ValueId]) -> BTreeMap<ValueId, Parts> {
    let readers = readers(values, stored.iter().copied());
    let once = |v: ValueId| readers.get(&v) == Some(&1) && !outputs.contains(&v);
    let mut found = BTreeMap::new();
    let mut gone = vec![];
    for u in stored.clone() {
        let Some((parts, softmax, score)) = parts(values, u, &once) else { continue };
        gone.extend([softmax, score]);
        found.insert(u, parts);
    }
    stored.retain(|v| !gone.contains(v));
    found
}

fn parts(values: &mut Values, u: ValueId, once: &dyn Fn(ValueId) -> bool) -> Option<(Parts, ValueId, ValueId)> {
    let Def::Func(f) = values.get(u).def.clone() else { return None };
    let roles = contract::recognize(values, &f.axes, f.expr)?;
    let (ones, rows): (Vec<Axis>, Vec<Axis>) = roles.m.iter().partition(|a| values.arena.extent(**a).is(1));
    let ([m], [t]) = (&rows[..], &roles.k[..]) else { return None };
    let (m, t) = (*m, *t);
    let Node::Load { value: p, index } = values.arena.node(roles.a).clone() else { return None };
    if !once(p) {
        return None;
    }
    let Def::Func(softmax) = values.get(p).def.clone() else { return None };
    let (s, s_index) = scores_of(values, &softmax)?;
    if !once(s) {
        return None;
    }
    let Def::Func(score) = values.get(s).def.clone() else { return None };
    contract::recognize(values, &score.axes, score.expr)?;
    // The scores at the axes of the result: through the softmax's index, then the scores'.
    let with: HashMap<Axis, ExprId> = softmax.axes.iter().copied().zip(index.iter().copied()).collect();
    let at: Vec<ExprId> = s_index.iter().map(|i| values.arena.substitute(*i, &with)).collect();
    let with: HashMap<Axis, ExprId> = score.axes.iter().copied().zip(at).collect();
    let expr = values.arena.substitute(score.expr, &with);
    let batch = [ones, roles.batch].concat();
    let parts = Parts { m, n: roles.n, t, batch, score: expr, value: roles.b, fold: roles.fold };
    Some((parts, p, s))
}

/// The value whose softmax over the last axis the function is, and the index at which it is read there.
fn scores_of(values: &Values, f: &Func) -> Option<(ValueId, Box<[ExprId]>)> {
    let arena = &values.arena;
    let last = *f.axes.last()?;
    let Node::Binary(BinaryOp::Div, top, sum) = arena.node(f.expr) else { return None };
    let (s, index) = exp_of(values, *top, last)?;
    let Node::Fold { op: FoldOp::Sum, axes, body } = arena.node(*sum) else { return None };
    let [k] = axes[..] else { return None };
    let (s2, index2) = exp_of(values, *body, k)?;
    let same = index.iter().zip(&index2).all(|(a, b)| a == b || (is_axis(values, *a, last) && is_axis(values, *b, k)));
    (s == s2 && same && arena.extent(k) == arena.extent(last)).then_some((s, index))
}

/// `exp(x[…, axis] - max over the axis)`.
fn exp_of(values: &Values, e: ExprId, axis: Axis) -> Option<(ValueId, Box<[ExprId]>)> {
    let arena = &values.arena;
    let Node::Unary(UnaryOp::Exp, d) = arena.node(e) else { return None };
    let Node::Binary(BinaryOp::Sub, x, max) = arena.node(*d) else { return None };
    let Node::Load { value, index } = arena.node(*x) else { return None };
    let Node::Fold { op: FoldOp::Max, axes, body } = arena.node(*max) else { return None };
    let [k] = axes[..] else { return None };
    let Node::Load { value: v2, index: i2 } = arena.node(*body) else { return None };
    let at = index.iter().filter(|i| is_axis(values, **i, axis)).count();
    let same = index.iter().zip(i2).all(|(a, b)| a == b || (is_axis(values, *a, axis) && is_axis(values, *b, k)));
    (value == v2 && at == 1 && same && index.len() == i2.len() && arena.extent(k) == arena.extent(axis))
        .then(|| (*value, index.clone()))
}

fn is_axis(values: &Values, e: ExprId, axis: Axis) -> bool {
    *values.arena.node(e) == Node::Axis(axis)
}
