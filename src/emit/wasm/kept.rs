//! Rows that keep what a sum over them needs: where a row's elements contain the very terms of a sum over the row (a
//! softmax: `exp(x - max) / Σ exp(x - max)`), the terms are computed once and stay in the output row until the sum is known.

use super::writer::Writer;
use crate::error::Result;
use crate::kernel::{Axis, ExprId, FoldOp, Node, Store, Ty, UnaryOp};
use crate::tensor::DType;
use wasm_encoder::ValType;

/// A sum over a row whose terms the row's elements contain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    sum: ExprId,
    /// The term at the row's own index.
    term: ExprId,
}

impl Writer<'_> {
    /// The sum whose terms are worth keeping in the output row, where `axis` runs along it.
    pub(super) fn kept(&mut self, axis: Axis, stores: &[Store]) -> Option<Kept> {
        let [store] = stores else { return None };
        let values = self.values;
        if values.dtype(store.value) != DType::Float32 || !self.stride(store.index, axis).is_some_and(|d| d.is(1)) {
            return None;
        }
        let mut sums = vec![];
        values.arena.visit(store.to, &mut |id, n| {
            if let Node::Fold { op: FoldOp::Sum, axes, body } = n
                && let [k] = axes[..]
                && values.arena.extent(k) == values.arena.extent(axis)
                && matches!(values.arena.node(*body), Node::Unary(UnaryOp::Exp, _))
                && values.arena.ty(*body) == Ty::F32
            {
                sums.push((id, k, *body));
            }
        });
        let [(sum, k, body)] = sums[..] else { return None };
        let top = self.top();
        if self.free(sum).contains(&axis) || self.home(sum).ok()? != top {
            return None;
        }
        let mut term = None;
        values.arena.visit(store.to, &mut |id, _| {
            if self.renamed(body, k, id, axis) {
                term = Some(id);
            }
        });
        let term = term?;
        let lanes = self.fit(term, axis).single == 0 && self.fit(store.to, axis).single == 0;
        lanes.then_some(Kept { sum, term })
    }

    /// Whether `b` is `a` with `to` in the place of `from`.
    fn renamed(&self, a: ExprId, from: Axis, b: ExprId, to: Axis) -> bool {
        let arena = &self.values.arena;
        match (arena.node(a), arena.node(b)) {
            (Node::Axis(x), Node::Axis(y)) => {
                if *x == from {
                    *y == to
                } else {
                    x == y
                }
            }
            (Node::Unary(f, _), Node::Unary(g, _)) if f != g => false,
            (Node::Binary(f, ..), Node::Binary(g, ..)) if f != g => false,
            (Node::Load { value: v, .. }, Node::Load { value: w, .. }) if v != w => false,
            (Node::Unary(..), Node::Unary(..))
            | (Node::Binary(..), Node::Binary(..))
            | (Node::Load { .. }, Node::Load { .. })
            | (Node::Select { .. }, Node::Select { .. }) => {
                let (x, y) = (arena.children(a), arena.children(b));
                x.len() == y.len() && x.into_iter().zip(y).all(|(x, y)| self.renamed(x, from, y, to))
            }
            // Whatever else does not look at the row is the same node.
            _ => a == b && !arena.free_axes(a).contains(&from),
        }
    }

    /// Writes the terms into the row and sums them; after this, the sum and the terms are known.
    pub(super) fn keep(&mut self, axis: Axis, store: &Store, kept: Kept) -> Result<()> {
        let (lanes, sum) = (self.local(ValType::V128), self.local(ValType::F32));
        self.i().v128_const(0).local_set(lanes).f32_const(0.0.into()).local_set(sum);
        self.row(axis, false, true, &mut |g, wide| {
            let linear = g.linear(store.index)?;
            if wide {
                let term = g.local(ValType::V128);
                g.lanes(kept.term)?;
                g.i().local_tee(term).local_get(lanes).f32x4_add().local_set(lanes);
                let offset = g.address(store.value, &linear)?;
                g.i().local_get(term);
                g.store_lanes_at(DType::Float32, offset)
            } else {
                let term = g.local(ValType::F32);
                g.scalar(kept.term)?;
                g.i().local_tee(term).local_get(sum).f32_add().local_set(sum);
                let offset = g.address(store.value, &linear)?;
                g.i().local_get(term);
                g.store_at(DType::Float32, offset)
            }
        })?;
        for lane in 0..4 {
            self.i().local_get(sum).local_get(lanes).f32x4_extract_lane(lane).f32_add().local_set(sum);
        }
        self.remember(kept.sum, sum, false);
        Ok(())
    }

    /// Brings a kept term back from the row.
    pub(super) fn recall(&mut self, store: &Store, kept: Kept, wide: bool) -> Result<()> {
        let linear = self.linear(store.index)?;
        let term = self.local(if wide { ValType::V128 } else { ValType::F32 });
        if wide {
            self.load_lanes(store.value, &linear)?;
        } else {
            self.load(store.value, &linear)?;
        }
        self.i().local_set(term);
        self.remember(kept.term, term, wide);
        Ok(())
    }
}
