//! Depthwise convolutions: each channel's window times its own weights. Several output columns are computed side by side,
//! so that each weight and each element of the input is loaded once for all of them.
//!
//! The loops, outermost first: rows, tiles of columns, channels in vectors, taps along the rows; the taps along the columns
//! are unrolled. Tiles at the ends of a row, where padding is met, are written out with what they leave out; those between
//! are a loop.

use super::contract::{heights, operand};
use super::writer::{Bind, Count, FrameKind, Writer, arg, internal};
use crate::error::Result;
use crate::kernel::{Axis, BinaryOp, ExprId, FoldOp, Kernel, Node, Store, Ty, ValueId};
use crate::tensor::DType;
use std::collections::BTreeMap;
use wasm_encoder::{BlockType, ValType};

/// Columns of a tile: with their sums, the weights of five taps and an element of the input are in registers.
const COLUMNS: usize = 7;
/// The most taps along the columns.
const TAPS: i64 = 7;

/// A fold of products over a window.
pub(super) struct Window {
    store: Store,
    fold: ExprId,
    /// The axis of channels, the innermost.
    channel: Axis,
    /// The axis of output columns.
    column: Axis,
    columns: i64,
    /// Taps along the columns; the others, outermost first.
    tap: Axis,
    taps: i64,
    outer: Vec<Axis>,
    a: (ValueId, ExprId),
    b: (ValueId, ExprId),
    /// How far the input moves with a column and with a tap, in elements.
    steps: (i64, i64),
    /// Comparisons that depend on the column, and those that do not.
    edges: Vec<ExprId>,
    guards: Vec<ExprId>,
}

impl Writer<'_> {
    /// The window that a kernel folds over, where it is one that this module writes.
    pub(super) fn window(&mut self, kernel: &Kernel) -> Option<Window> {
        let ([store], [.., column, channel]) = (&kernel.stores[..], &kernel.axes[..]) else { return None };
        let (column, channel) = (*column, *channel);
        let values = self.values;
        let mut folds = vec![];
        values.arena.visit(store.to, &mut |id, n| {
            if matches!(n, Node::Fold { .. }) {
                folds.push(id);
            }
        });
        let [fold] = folds[..] else { return None };
        let Node::Fold { op: FoldOp::Sum, axes, body } = values.arena.node(fold) else { return None };
        let Node::Binary(BinaryOp::Mul, x, y) = *values.arena.node(*body) else { return None };
        let (x, y) = (operand(values, x)?, operand(values, y)?);
        let (tap, outer) = axes.split_last()?;
        let (guard, a, b) = match (x, y) {
            ((guard, v, i), (None, w, j)) if !self.free(j).contains(&column) => (guard, (v, i), (w, j)),
            ((None, w, j), (guard, v, i)) if !self.free(j).contains(&column) => (guard, (v, i), (w, j)),
            _ => return None,
        };
        let (columns, taps) = (values.arena.extent(column).known()?, values.arena.extent(*tap).known()?);
        let channels = values.arena.extent(channel).known()?;
        let unit = |w: &mut Self, e: ExprId| w.stride(e, channel).is_some_and(|d| d.is(1));
        let step = |w: &mut Self, x: Axis| w.stride(a.1, x)?.known().filter(|d| *d > 0 && *d < 1 << 20);
        let steps = (step(self, column)?, step(self, *tap)?);
        let fits = channels % 4 == 0
            && channels > 0
            && columns > 0
            && (2..=TAPS).contains(&taps)
            && values.dtype(store.value) == DType::Float32
            && values.arena.ty(store.to) == Ty::F32
            && unit(self, a.1)
            && unit(self, b.1)
            && unit(self, store.index)
            && self.stride(b.1, *tap)?.known().is_some_and(|d| (0..1 << 20).contains(&d))
            && self.stride(store.index, column)?.known().is_some()
            && self.fit(store.to, channel).single == 0;
        if !fits {
            return None;
        }
        let (mut edges, mut guards) = (vec![], vec![]);
        let mut todo: Vec<ExprId> = guard.into_iter().collect();
        while let Some(e) = todo.pop() {
            match *values.arena.node(e) {
                Node::Binary(BinaryOp::And, p, q) => todo.extend([p, q]),
                Node::Binary(BinaryOp::Ge | BinaryOp::Gt | BinaryOp::Lt | BinaryOp::Le, p, q) => {
                    let free = self.free(e);
                    if free.contains(&channel) {
                        return None;
                    }
                    if !free.contains(&column) && !free.contains(tap) {
                        guards.push(e);
                        continue;
                    }
                    // What lies at one place is inside for all that read it.
                    let step = |w: &mut Self, x: Axis| w.stride(p, x)?.sub(&w.stride(q, x)?).known();
                    let (c, t) = (step(self, column)?, step(self, *tap)?);
                    if c * steps.1 != t * steps.0 || !free.iter().all(|x| *x == column || x == tap) {
                        return None;
                    }
                    edges.push(e);
                }
                _ => return None,
            }
        }
        edges.sort();
        guards.sort();
        let (tap, outer, store) = (*tap, outer.to_vec(), *store);
        Some(Window { store, fold, channel, column, columns, tap, taps, outer, a, b, steps, edges, guards })
    }

    /// Writes the loops over a window.
    pub(super) fn windows(&mut self, kernel: &Kernel, w: &Window) -> Result<()> {
        self.count_uses([w.store.index, w.store.to]);
        let outer = &kernel.axes[..kernel.axes.len() - 2];
        let split = match self.split_axis(&kernel.axes) {
            Some(a) if outer.contains(&a) => Some(a),
            Some(_) => Some(w.channel),
            None => None,
        };
        self.over(outer, split, &mut |g| g.tiles_of_columns(w, split == Some(w.channel)))
    }

    fn tiles_of_columns(&mut self, w: &Window, shared: bool) -> Result<()> {
        // Tiles in order: first column, width, whether all of it is inside.
        let mut tiles: Vec<(i64, usize, bool)> = vec![];
        let mut at = 0;
        for (width, count) in heights(w.columns, COLUMNS) {
            for _ in 0..count {
                let inside = (0..width as i64).all(|u| (0..w.taps).all(|k| self.inside_at(w, at + u, k)));
                tiles.push((at, width, inside));
                at += width as i64;
            }
        }
        for run in tiles.chunk_by(|a, b| a.2 && b.2 && a.1 == b.1) {
            let ([(first, width, _), ..], Some((last, ..))) = (run, run.last()) else { continue };
            if run.len() == 1 {
                let bind = Bind { base: None, add: *first };
                self.bound(w.column, bind, |g| g.tile_of_columns(w, *first, *width, shared))?;
                continue;
            }
            let index = self.local(ValType::I32);
            let count = |n: i64| i32::try_from(n).map_err(|_| internal("too many columns"));
            self.i().i32_const(count(*first)?).local_set(index);
            let end = Count::Known(count(last + *width as i64)?);
            self.for_loop(w.column, index, end, *width as i32, true, |g| g.tile_of_columns(w, *first, *width, shared))?;
        }
        Ok(())
    }

    /// Whether tap `k` of column `x` lies inside of the row.
    fn inside_at(&self, w: &Window, x: i64, k: i64) -> bool {
        let at = |a: Axis| if a == w.column { x } else { k };
        w.edges.iter().all(|e| match *self.values.arena.node(*e) {
            Node::Binary(op, p, q) => match (self.integer(p, &at), self.integer(q, &at)) {
                (Some(p), Some(q)) => match op {
                    BinaryOp::Ge => p >= q,
                    BinaryOp::Gt => p > q,
                    BinaryOp::Lt => p < q,
                    _ => p <= q,
                },
                _ => false,
            },
            _ => false,
        })
    }

    /// The value of an integer expression of axes.
    fn integer(&self, e: ExprId, at: &dyn Fn(Axis) -> i64) -> Option<i64> {
        match *self.values.arena.node(e) {
            Node::Axis(a) => Some(at(a)),
            Node::Binary(op, a, b) => {
                let (a, b) = (self.integer(a, at)?, self.integer(b, at)?);
                match op {
                    BinaryOp::Add => a.checked_add(b),
                    BinaryOp::Sub => a.checked_sub(b),
                    BinaryOp::Mul => a.checked_mul(b),
                    _ => None,
                }
            }
            _ => self.values.arena.as_int(e),
        }
    }

    /// `width` columns at the current one; `first` is a column at which the same of their taps are inside.
    fn tile_of_columns(&mut self, w: &Window, first: i64, width: usize, shared: bool) -> Result<()> {
        // What is loaded, by its distance from the first tap of the first column: the columns and taps that read it.
        let mut reads: BTreeMap<i64, Vec<(usize, usize)>> = BTreeMap::new();
        for u in 0..width {
            for k in 0..w.taps {
                if self.inside_at(w, first + u as i64, k) {
                    reads.entry(u as i64 * w.steps.0 + k * w.steps.1).or_default().push((u, k as usize));
                }
            }
        }
        self.row(w.channel, shared, true, &mut |g, _| g.channels(w, width, &reads))
    }

    /// Four channels of a tile.
    fn channels(&mut self, w: &Window, width: usize, reads: &BTreeMap<i64, Vec<(usize, usize)>>) -> Result<()> {
        let lanes = self.lane_axis.take();
        let sums: Vec<u32> = (0..width).map(|_| self.local(ValType::V128)).collect();
        for s in &sums {
            self.i().v128_const(0).local_set(*s);
        }
        self.nest_loops(&w.outer, &mut |g| {
            if w.guards.is_empty() {
                return g.taps(w, &sums, reads);
            }
            let inside = g.framed(FrameKind::Branch, |g| g.taps(w, &sums, reads))?;
            for (i, guard) in w.guards.iter().enumerate() {
                g.scalar(*guard)?;
                if i > 0 {
                    g.i().i32_and();
                }
            }
            g.i().if_(BlockType::Empty);
            g.append(&inside);
            g.i().end();
            Ok(())
        })?;
        self.lane_axis = lanes;
        let column = self.binds.get(&w.column).copied().ok_or_else(|| internal("no columns"))?;
        for (u, sum) in sums.iter().enumerate() {
            self.bound(w.column, Bind { add: column.add + u as i64, ..column }, |g| {
                g.remember(w.fold, *sum, true);
                let linear = g.linear(w.store.index)?;
                let offset = g.address(w.store.value, &linear)?;
                g.lanes(w.store.to)?;
                g.i().v128_store(arg(offset, 2));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The taps of one row of the window.
    fn taps(&mut self, w: &Window, sums: &[u32], reads: &BTreeMap<i64, Vec<(usize, usize)>>) -> Result<()> {
        let Some(least) = reads.keys().next().copied() else { return Ok(()) };
        let pa = self.bound(w.tap, Bind { base: None, add: 0 }, |g| g.pointer(w.a))?;
        // The first tap may lie before the row; the first that is read does not.
        let skip = i32::try_from(4 * least).map_err(|_| internal("a window leaves 32 bits"))?;
        self.i().local_get(pa).i32_const(skip).i32_add().local_set(pa);
        let weights: Vec<u32> = (0..w.taps)
            .map(|k| {
                let l = self.local(ValType::V128);
                self.bound(w.tap, Bind { base: None, add: k }, |g| {
                    let linear = g.linear(w.b.1)?;
                    g.load_lanes(w.b.0, &linear)
                })?;
                self.i().local_set(l);
                Ok(l)
            })
            .collect::<Result<_>>()?;
        let x = self.local(ValType::V128);
        for (at, by) in reads {
            self.i().local_get(pa).v128_load(arg(4 * (at - least) as u64, 2)).local_set(x);
            for (u, k) in by {
                self.multiply_add(x, weights[*k], sums[*u]);
            }
        }
        Ok(())
    }

    /// `sum += a · b`, all locals.
    pub(super) fn multiply_add(&mut self, a: u32, b: u32, sum: u32) {
        let relaxed = self.relaxed;
        let mut i = self.i();
        i.local_get(a).local_get(b);
        if relaxed {
            i.local_get(sum).f32x4_relaxed_madd().local_set(sum);
        } else {
            i.f32x4_mul().local_get(sum).f32x4_add().local_set(sum);
        }
    }
}
