//! Views on the writer: where the only reader of a stored value moves its elements to another shape, one to one, the
//! writer stores them there itself.

use super::contract;
use super::expr::{BinaryOp, ExprId, Node};
use super::fuse::readers;
use super::layout::Layout;
use super::values::{Def, Func, ValueId, Values};
use crate::tensor::{Dim, numel};
use std::collections::BTreeMap;

/// The value that a writer stores into, and where, as a function of the writer's axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub to: ValueId,
    pub index: Vec<ExprId>,
}

/// Finds such writers among the stored values and takes them out of them: their elements live in their readers.
pub fn find(values: &mut Values, stored: &mut Vec<ValueId>, outputs: &[ValueId]) -> BTreeMap<ValueId, Moved> {
    let readers = readers(values, stored.iter().copied());
    let mut found = BTreeMap::new();
    for v in stored.clone() {
        let Def::Func(view) = values.get(v).def.clone() else { continue };
        let Node::Load { value: w, index } = values.arena.node(view.expr).clone() else { continue };
        let Def::Func(writer) = values.get(w).def.clone() else { continue };
        let alone = readers.get(&w) == Some(&1) && !outputs.contains(&w) && !found.contains_key(&w);
        if !alone || values.dtype(w) != values.dtype(v) || found.values().any(|m: &Moved| m.to == w) {
            continue;
        }
        // Each axis of the view is a sum of the writer's axes, each times the place that its digit has.
        let mut at: Vec<ExprId> = view.axes.iter().map(|_| values.arena.int(0)).collect();
        let mut whole = true;
        for (i, axis) in index.iter().zip(&writer.axes) {
            if values.arena.as_int(*i) == Some(0) && values.arena.extent(*axis).is(1) {
                continue;
            }
            let Some((of, place)) = digit(values, *i) else {
                whole = false;
                break;
            };
            let Some(d) = view.axes.iter().position(|a| values.arena.axis_expr(*a) == of) else {
                whole = false;
                break;
            };
            let e = values.arena.axis_expr(*axis);
            let e = values.arena.mul(e, place);
            at[d] = values.arena.add(at[d], e);
        }
        if !whole {
            continue;
        }
        // It is an inverse if the view, read there, gives back the writer's own index.
        let with = view.axes.iter().copied().zip(at.iter().copied()).collect();
        let back = index.iter().zip(&writer.axes).all(|(i, axis)| {
            let e = values.arena.substitute(*i, &with);
            e == values.arena.axis_expr(*axis) || values.arena.extent(*axis).is(1)
        });
        let size = |shape: &[Dim]| numel(shape);
        if back && size(values.shape(w)) == size(values.shape(v)) && columns_stay(values, &writer, v, &at) {
            found.insert(w, Moved { to: v, index: at });
        }
    }
    stored.retain(|v| !found.contains_key(v));
    found
}

/// A contraction's columns must lie beside each other where it stores them.
fn columns_stay(values: &mut Values, writer: &Func, v: ValueId, at: &[ExprId]) -> bool {
    let Some(roles) = contract::recognize(values, &writer.axes, writer.expr) else { return true };
    let shape = values.shape(v).to_vec();
    let offset = Layout::row_major(shape.len()).offset(&mut values.arena, &shape, at);
    values.arena.affine(offset).and_then(|a| a.terms.get(&roles.n).cloned()) == Some(Dim::from(1))
}

/// An axis, or a digit of one: `a`, `a / c`, `a % c`, `(a / c) % d`, with the place of the digit.
fn digit(values: &mut Values, e: ExprId) -> Option<(ExprId, ExprId)> {
    let one = values.arena.int(1);
    match values.arena.node(e).clone() {
        Node::Axis(_) => Some((e, one)),
        Node::Binary(BinaryOp::FloorDiv, a, c) if matches!(values.arena.node(a), Node::Axis(_)) => Some((a, c)),
        Node::Binary(BinaryOp::FloorMod, a, _) => digit(values, a),
        _ => None,
    }
}
