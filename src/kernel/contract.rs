//! Recognizes contractions (matrix products, convolutions) among functions, and gives their axes roles.

use super::expr::{Axis, BinaryOp, ExprId, FoldOp, Node, Ty};
use super::values::{ValueId, Values};
use crate::tensor::{DType, Dim};
use std::collections::{BTreeSet, HashMap};

/// A contraction: `Σ over k of a · b`, with its output axes by what the operands depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    pub fold: ExprId,
    /// A load, or `select(guard, load, 0)`; indices are affine.
    pub a: ExprId,
    /// A load with affine indices.
    pub b: ExprId,
    /// Both operands depend on these.
    pub batch: Vec<Axis>,
    /// Only `a` does.
    pub m: Vec<Axis>,
    /// Only `b` does.
    pub n: Axis,
    pub k: Vec<Axis>,
}

/// The contraction in `expr`, a function of `axes`, where it is one: exactly one fold, a float32 sum of products of
/// two loads, each output axis read by an operand, exactly one of them by `b` alone.
pub fn recognize(values: &Values, axes: &[Axis], expr: ExprId) -> Option<Roles> {
    let (fold, k, a, b) = product(values, expr)?;
    roles(values, axes, fold, k, a, b).or_else(|| roles(values, axes, fold, k, b, a))
}

/// The only fold of an expression, where it is a float32 sum of products, with its axes and factors; constants are the
/// second factor.
fn product(values: &Values, expr: ExprId) -> Option<(ExprId, &[Axis], ExprId, ExprId)> {
    let arena = &values.arena;
    let mut folds = vec![];
    arena.visit(expr, &mut |id, n| {
        if matches!(n, Node::Fold { .. }) {
            folds.push(id);
        }
    });
    let [fold] = folds[..] else { return None };
    let Node::Fold { op: FoldOp::Sum, axes: k, body } = arena.node(fold) else { return None };
    let Node::Binary(BinaryOp::Mul, x, y) = arena.node(*body) else { return None };
    if arena.ty(*body) != Ty::F32 {
        return None;
    }
    let constant = |e: ExprId| load_of(values, e).is_some_and(|v| values.constant(v).is_some());
    let (a, b) = if constant(*x) && !constant(*y) { (*y, *x) } else { (*x, *y) };
    Some((fold, k, a, b))
}

/// The operands of a contraction or of a grouped convolution.
pub fn operands(values: &Values, axes: &[Axis], expr: ExprId) -> Option<(ExprId, ExprId)> {
    match recognize(values, axes, expr) {
        Some(r) => Some((r.a, r.b)),
        None => {
            let (_, _, a, b) = product(values, expr)?;
            let loads = unguarded(values, a).is_some() && unguarded(values, b).is_some();
            (loads && group_axis(values, axes, expr).is_some()).then_some((a, b))
        }
    }
}

fn roles(values: &Values, axes: &[Axis], fold: ExprId, k: &[Axis], a: ExprId, b: ExprId) -> Option<Roles> {
    let arena = &values.arena;
    let Node::Load { value, index } = arena.node(b) else { return None };
    affine_load(values, *value, index)?;
    let Node::Load { value, index } = arena.node(unguarded(values, a)?) else { return None };
    affine_load(values, *value, index)?;
    let (fa, fb) = (arena.free_axes(a), arena.free_axes(b));
    if !k.iter().all(|k| fa.contains(k) && fb.contains(k)) {
        return None;
    }
    let (mut batch, mut m, mut n) = (vec![], vec![], vec![]);
    for axis in axes {
        match (fa.contains(axis), fb.contains(axis)) {
            (true, true) => batch.push(*axis),
            (true, false) => m.push(*axis),
            (false, true) => n.push(*axis),
            // A broadcast axis of one index is read at 0.
            (false, false) if arena.extent(*axis).is(1) => m.push(*axis),
            (false, false) => return None,
        }
    }
    let [n] = n[..] else { return None };
    // One row of products with an activation reuses nothing.
    if m.iter().all(|a| arena.extent(*a).is(1)) && load_of(values, b).is_none_or(|v| values.constant(v).is_none()) {
        return None;
    }
    Some(Roles { fold, a, b, batch, m, n, k: k.to_vec() })
}

/// A grouped convolution as a contraction with the group as a batch axis: its channel axis is split in two.
#[derive(Debug, Clone)]
pub struct Grouped {
    pub roles: Roles,
    /// The function's expression over the new axes.
    pub expr: ExprId,
    /// The channel axis, and what it is in terms of the new ones.
    pub channel: Axis,
    pub at: ExprId,
}

/// The least outputs of a group that are worth columns of a register tile.
const LEAST_GROUP: i64 = 4;

/// The grouped convolution in `expr`, a function of `axes`, where it is one: its input's channel depends on the quotient
/// of the output's by a constant.
pub fn grouped(values: &mut Values, axes: &[Axis], expr: ExprId) -> Option<Grouped> {
    let (channel, per) = group_axis(values, axes, expr)?;
    let channels = values.arena.extent(channel).known()?;
    let (group, rest) = (values.arena.axis(Dim::from(channels / per)), values.arena.axis(Dim::from(per)));
    let (g, r, per) = (values.arena.axis_expr(group), values.arena.axis_expr(rest), values.arena.int(per));
    let at = values.arena.mul(g, per);
    let at = values.arena.add(at, r);
    let expr = values.arena.substitute(expr, &HashMap::from([(channel, at)]));
    let mut split: Vec<Axis> = axes.iter().copied().filter(|a| *a != channel).collect();
    split.extend([group, rest]);
    let roles = recognize(values, &split, expr)?;
    (roles.n == rest).then_some(Grouped { roles, expr, channel, at })
}

/// The channel axis of a grouped convolution, and how many outputs a group has.
fn group_axis(values: &Values, axes: &[Axis], expr: ExprId) -> Option<(Axis, i64)> {
    let mut found = BTreeSet::new();
    values.arena.visit(expr, &mut |_, n| {
        if let Node::Binary(BinaryOp::FloorDiv, x, per) = n
            && let (Node::Axis(c), Some(per)) = (values.arena.node(*x), values.arena.as_int(*per))
            && axes.contains(c)
        {
            found.insert((*c, per));
        }
    });
    let [(channel, per)] = found.into_iter().collect::<Vec<_>>()[..] else { return None };
    let whole = values.arena.extent(channel).known()? % per.max(1) == 0;
    (per >= LEAST_GROUP && whole).then_some((channel, per))
}

fn affine_load(values: &Values, value: ValueId, index: &[ExprId]) -> Option<()> {
    let affine = index.iter().all(|i| values.arena.affine(*i).is_some());
    (affine && values.dtype(value) == DType::Float32).then_some(())
}

/// The load behind an operand: itself, or under a guard that gives zero.
pub fn unguarded(values: &Values, e: ExprId) -> Option<ExprId> {
    match values.arena.node(e) {
        Node::Load { .. } => Some(e),
        Node::Select { then, otherwise, .. } => match (values.arena.node(*then), values.arena.node(*otherwise)) {
            (Node::Load { .. }, Node::Const(zero)) if zero.bits == 0 => Some(*then),
            _ => None,
        },
        _ => None,
    }
}

/// The value that an operand loads.
pub fn load_of(values: &Values, e: ExprId) -> Option<ValueId> {
    match values.arena.node(unguarded(values, e)?) {
        Node::Load { value, .. } => Some(*value),
        _ => None,
    }
}

/// For a constant operand: the dims that its batch, fold and column axes index, each alone and from 0. `None` where the
/// constant is read otherwise, so that it cannot be arranged in panels.
pub fn panel_dims(values: &Values, roles: &Roles) -> Option<(Vec<usize>, Vec<usize>, usize)> {
    let Node::Load { index, value } = values.arena.node(roles.b) else { return None };
    let dim_of = |axis: Axis| {
        let at: Vec<usize> = index
            .iter()
            .enumerate()
            .filter(|(_, i)| *values.arena.node(**i) == Node::Axis(axis))
            .map(|(d, _)| d)
            .collect();
        match at[..] {
            [d] if values.shape(*value)[d] == *values.arena.extent(axis) => Some(d),
            _ => None,
        }
    };
    let all = |axes: &[Axis]| axes.iter().map(|a| dim_of(*a)).collect::<Option<Vec<usize>>>();
    let (batch, k, n) = (all(&roles.batch)?, all(&roles.k)?, dim_of(roles.n)?);
    let used: BTreeSet<usize> = batch.iter().chain(&k).chain([&n]).copied().collect();
    let rest_is_one = (0..index.len()).all(|d| used.contains(&d) || values.shape(*value)[d].is(1));
    // Dims of size 1 that no axis indexes go with the batch.
    let ones = (0..index.len()).filter(|d| !used.contains(d));
    let batch = ones.chain(batch.iter().copied()).collect();
    (rest_is_one && used.len() == roles.batch.len() + k.len() + 1).then_some((batch, k, n))
}
