//! What an index expression does along a lane, and index sums in a form that lets their outer parts be hoisted.

use super::writer::Gen;
use crate::error::Result;
use crate::kernel::{Axis, BinaryOp, ExprId, Node, Ty, Values};
use crate::tensor::Dim;
use std::collections::HashMap;

/// Whether the `I32` expression is a multiple of `n` for every index.
pub(super) fn is_multiple(values: &Values, e: ExprId, n: i64) -> bool {
    let arena = &values.arena;
    if let Some(d) = arena.as_dim(e) {
        return d.div_exact(&Dim::from(n)).is_some();
    }
    match arena.node(e) {
        Node::Binary(BinaryOp::Add | BinaryOp::Sub, a, b) => is_multiple(values, *a, n) && is_multiple(values, *b, n),
        Node::Binary(BinaryOp::Mul, a, b) => {
            is_multiple(values, *a, n) || is_multiple(values, *b, n) || {
                n % 2 == 0 && n > 2 && is_multiple(values, *a, 2) && is_multiple(values, *b, n / 2)
            }
        }
        Node::Binary(BinaryOp::FloorMod, a, b) => is_multiple(values, *a, n) && is_multiple(values, *b, n),
        Node::Select { then, otherwise, .. } => is_multiple(values, *then, n) && is_multiple(values, *otherwise, n),
        _ => false,
    }
}

/// By how much the `I32` expression grows from one index of `lane` (an axis of extent 4) to the next, where that is the
/// same for all of them.
pub(super) fn stride(values: &mut Values, e: ExprId, lane: Axis) -> Option<i64> {
    match values.arena.node(e).clone() {
        Node::Axis(a) => Some(i64::from(a == lane)),
        Node::Const(_) | Node::Dim(_) => Some(0),
        Node::Binary(BinaryOp::Add, a, b) => stride(values, a, lane)?.checked_add(stride(values, b, lane)?),
        Node::Binary(BinaryOp::Sub, a, b) => stride(values, a, lane)?.checked_sub(stride(values, b, lane)?),
        Node::Binary(BinaryOp::Mul, a, b) => match (stride(values, a, lane)?, stride(values, b, lane)?) {
            (0, 0) => Some(0),
            (s, 0) => s.checked_mul(values.arena.as_int(b)?),
            (0, s) => s.checked_mul(values.arena.as_int(a)?),
            _ => None,
        },
        Node::Binary(op @ (BinaryOp::FloorDiv | BinaryOp::FloorMod), a, b) => {
            let (s, t) = (stride(values, a, lane)?, stride(values, b, lane)?);
            if (s, t) == (0, 0) {
                return Some(0);
            }
            let base = at_zero(values, a, lane);
            let whole = t == 0 && s == 1 && is_multiple(values, b, 4) && is_multiple(values, base, 4);
            whole.then_some(i64::from(op == BinaryOp::FloorMod))
        }
        _ => {
            let free = values.arena.free_axes(e);
            (!free.contains(&lane)).then_some(0)
        }
    }
}

/// The expression at index 0 of the lane.
pub(super) fn at_zero(values: &mut Values, e: ExprId, lane: Axis) -> ExprId {
    let zero = values.arena.int(0);
    values.arena.substitute(e, &HashMap::from([(lane, zero)]))
}

/// A quarter of an expression that is a multiple of 4.
pub(super) fn quarter(values: &mut Values, e: ExprId) -> ExprId {
    let four = Dim::from(4);
    if let Some(mut f) = values.arena.affine(e)
        && let Some(c) = f.constant.div_exact(&four)
    {
        f.constant = c;
        let terms: Option<Vec<(Axis, Dim)>> =
            f.terms.iter().map(|(a, d)| d.div_exact(&four).map(|d| (*a, d))).collect();
        if let Some(terms) = terms {
            let mut sum = values.arena.int(0);
            for (a, d) in terms {
                let (a, d) = (values.arena.axis_expr(a), values.arena.dim(&d));
                let t = values.arena.mul(a, d);
                sum = values.arena.add(sum, t);
            }
            let c = values.arena.dim(&f.constant);
            return values.arena.add(sum, c);
        }
    }
    let two = values.arena.int(2);
    values.arena.add_node(Node::Binary(BinaryOp::Shr, e, two))
}

/// The expression with every affine index in one form, so that equal loads are one node.
pub(super) fn canonical(values: &mut Values, e: ExprId) -> ExprId {
    values.arena.rewrite(e, &mut |arena, n| {
        let Node::Load { value, index } = n else { return None };
        let [index] = index[..] else { return None };
        let f = arena.affine(index)?;
        let mut sum = None;
        for (a, d) in &f.terms {
            let (a, d) = (arena.axis_expr(*a), arena.dim(d));
            let t = arena.mul(a, d);
            sum = Some(match sum {
                None => t,
                Some(s) => arena.add_node(Node::Binary(BinaryOp::Add, s, t)),
            });
        }
        let constant = arena.dim(&f.constant);
        let at = match sum {
            Some(s) if f.constant.is(0) => s,
            Some(s) => arena.add_node(Node::Binary(BinaryOp::Add, s, constant)),
            None => constant,
        };
        Some(arena.add_node(Node::Load { value: *value, index: [at].into() }))
    })
}

impl Gen<'_> {
    /// The lane along which `e` varies, where it does.
    pub(super) fn lane_of(&mut self, e: ExprId) -> Option<Axis> {
        if self.lanes.is_empty() {
            return None;
        }
        let free = self.free_axes(e);
        free.iter().copied().find(|a| self.lanes.contains(a))
    }

    /// An index sum with its terms ordered by the level at which they are bound, so that what an inner loop does not
    /// change is computed outside it. Affine sums are brought to one form first: equal ones become one node.
    pub(super) fn ordered(&mut self, e: ExprId) -> Result<ExprId> {
        let arena = &self.values.arena;
        if arena.ty(e) != Ty::I32 || !matches!(arena.node(e), Node::Binary(BinaryOp::Add | BinaryOp::Sub, ..)) {
            return Ok(e);
        }
        if self.is_volatile(e) {
            return Ok(e);
        }
        let mut terms: Vec<(usize, ExprId)> = vec![];
        if let Some(f) = self.values.arena.affine(e) {
            for (a, d) in &f.terms {
                let (a, d) = (self.values.arena.axis_expr(*a), self.values.arena.dim(d));
                let t = self.values.arena.mul(a, d);
                terms.push((self.level(t)?, t));
            }
            terms.sort_by_key(|(l, _)| *l);
            if !f.constant.is(0) {
                terms.push((usize::MAX, self.values.arena.dim(&f.constant)));
            }
        } else {
            let mut list = vec![];
            self.terms(e, &mut list);
            for t in list {
                terms.push((self.level(t)?, t));
            }
            terms.sort_by_key(|(l, _)| *l);
        }
        let mut sum = None;
        for (_, t) in terms {
            sum = Some(match sum {
                None => t,
                Some(s) => self.values.arena.add_node(Node::Binary(BinaryOp::Add, s, t)),
            });
        }
        Ok(sum.unwrap_or_else(|| self.values.arena.int(0)))
    }

    fn terms(&self, e: ExprId, out: &mut Vec<ExprId>) {
        match self.values.arena.node(e) {
            Node::Binary(BinaryOp::Add, a, b) => {
                self.terms(*a, out);
                self.terms(*b, out);
            }
            _ => out.push(e),
        }
    }
}
