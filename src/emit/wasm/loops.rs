//! Plain loops: the kernel's axes, the innermost four lanes wide where that pays.

use super::writer::{Bind, Count, Writer, internal};
use crate::error::Result;
use crate::kernel::{Axis, Kernel, Node, Store, Ty};
use wasm_encoder::ValType;

impl Writer<'_> {
    /// Writes the loops of a kernel.
    pub(super) fn loops(&mut self, kernel: &Kernel) -> Result<()> {
        if let Some(w) = self.window(kernel) {
            return self.windows(kernel, &w);
        }
        self.count_uses(kernel.stores.iter().flat_map(|s| [s.index, s.to]));
        if let Some(u) = self.crosswise(kernel) {
            return self.columns(kernel, u);
        }
        let split = self.split_axis(&kernel.axes);
        let Some((inner, outer)) = kernel.axes.split_last() else {
            return self.only_first_part(|g| g.stores(&kernel.stores));
        };
        let (inner, stores) = (*inner, &kernel.stores[..]);
        self.over(outer, split, &mut |g| g.innermost(inner, split == Some(inner), stores))
    }

    /// The place of the axis along which a kernel stores neighbours, where folds over rows across it are the outer loops:
    /// a softmax over the channels of an image, a normalization of each channel. Four such rows go side by side.
    fn crosswise(&mut self, kernel: &Kernel) -> Option<usize> {
        let ([store], [.., inner]) = (&kernel.stores[..], &kernel.axes[..]) else { return None };
        let along = |w: &mut Self, a: Axis| w.stride(store.index, a).is_some_and(|d| d.is(1));
        if along(self, *inner) || self.values.dtype(store.value).size() != 4 {
            return None;
        }
        let u = (0..kernel.axes.len()).find(|i| along(self, kernel.axes[*i]))?;
        let axis = kernel.axes[u];
        let mut folds = false;
        self.values.arena.visit(store.to, &mut |id, n| {
            folds |= matches!(n, Node::Fold { .. }) && self.values.arena.free_axes(id).contains(&axis);
        });
        let single = self.fit(store.to, axis).single;
        (folds && single == 0 && self.wide(axis, &kernel.stores).ok()?).then_some(u)
    }

    /// Writes the rows across axis `u`, four side by side.
    fn columns(&mut self, kernel: &Kernel, u: usize) -> Result<()> {
        let (outer, inner) = (&kernel.axes[..u], &kernel.axes[u + 1..]);
        let split = self.split_axis(&kernel.axes[..=u]);
        let axis = kernel.axes[u];
        self.over(outer, split, &mut |g| {
            g.row(axis, split == Some(axis), true, &mut |g, wide| {
                g.over(inner, None, &mut |g| {
                    if !wide {
                        return g.stores(&kernel.stores);
                    }
                    kernel.stores.iter().try_for_each(|s| g.store_wide(s))
                })
            })
        })
    }

    /// Stores four elements at once.
    fn store_wide(&mut self, s: &Store) -> Result<()> {
        let linear = self.linear(s.index)?;
        let offset = self.address(s.value, &linear)?;
        self.lanes(s.to)?;
        self.store_lanes_at(self.values.dtype(s.value), offset)
    }

    fn stores(&mut self, stores: &[Store]) -> Result<()> {
        stores.iter().try_for_each(|s| self.store(s.value, s.index, s.to))
    }

    /// Runs `f` in the first part only: what there is to do cannot be split.
    pub(super) fn only_first_part(&mut self, f: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let (part, _) = self.parts;
        let code = self.framed(super::writer::FrameKind::Branch, f)?;
        self.i().local_get(part).i32_eqz().if_(wasm_encoder::BlockType::Empty);
        self.append(&code);
        self.i().end();
        Ok(())
    }

    /// The axis that is shared out: the outermost with enough indices, or the longest.
    pub(super) fn split_axis(&self, axes: &[Axis]) -> Option<Axis> {
        let arena = &self.values.arena;
        let least = |a: &Axis| arena.extent(*a).range(&arena.ranges);
        let enough = axes.iter().find(|a| least(a).min >= 16).copied();
        enough.or_else(|| axes.iter().rev().max_by_key(|a| (least(a).max.min(64), least(a).min)).copied())
    }

    /// The range of an axis: all of it, or this part's share in whole multiples of `unit`.
    pub(super) fn range(&mut self, axis: Axis, shared: bool, unit: i32) -> Result<(Count, Count)> {
        let end = self.extent(axis)?;
        Ok(self.share(end, shared, unit))
    }

    /// All of `0..end`, or this part's share of it in whole multiples of `unit`.
    pub(super) fn share(&mut self, end: Count, shared: bool, unit: i32) -> (Count, Count) {
        if !shared {
            return (Count::Known(0), end);
        }
        let (part, parts) = self.parts;
        let (units, from, to) = (self.local(ValType::I32), self.local(ValType::I32), self.local(ValType::I32));
        self.count(end);
        self.i().i32_const(unit - 1).i32_add().i32_const(unit).i32_div_u().local_set(units);
        for (l, next) in [(from, 0), (to, 1)] {
            self.i().local_get(units).local_get(part).i32_const(next).i32_add().i32_mul();
            self.i().local_get(parts).i32_div_u().i32_const(unit).i32_mul().local_set(l);
        }
        if unit > 1 {
            self.i().local_get(to);
            self.count(end);
            self.i().local_get(to);
            self.count(end);
            self.i().i32_lt_s().select().local_set(to);
        }
        (Count::Local(from), Count::Local(to))
    }

    /// A bound in a local.
    pub(super) fn count_local(&mut self, c: Count) -> u32 {
        match c {
            Count::Local(l) => l,
            Count::Known(n) => {
                let l = self.local(ValType::I32);
                self.i().i32_const(n).local_set(l);
                l
            }
        }
    }

    /// Runs `f` for every index of `axes`, of which parts share `split`.
    pub(super) fn over(
        &mut self,
        axes: &[Axis],
        split: Option<Axis>,
        f: &mut dyn FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let Some((a, rest)) = axes.split_first() else { return f(self) };
        let shared = split == Some(*a);
        if self.values.arena.extent(*a).is(1) && !shared {
            return self.bound(*a, Bind { base: None, add: 0 }, |g| g.over(rest, split, f));
        }
        let (start, end) = self.range(*a, shared, 1)?;
        let index = self.local(ValType::I32);
        self.count(start);
        self.i().local_set(index);
        let runs = !shared && self.runs(*a);
        self.for_loop(*a, index, end, 1, runs, |g| g.over(rest, split, f))
    }

    /// The innermost loop over stores.
    fn innermost(&mut self, axis: Axis, shared: bool, stores: &[Store]) -> Result<()> {
        let wide = self.wide(axis, stores)?;
        let kept = if wide && !shared { self.kept(axis, stores) } else { None };
        if let (Some(kept), [store]) = (kept, stores) {
            self.keep(axis, store, kept)?;
        }
        self.row(axis, shared, wide, &mut |g, wide| {
            for s in stores {
                if let Some(kept) = kept {
                    g.recall(s, kept, wide)?;
                }
                if wide {
                    g.store_wide(s)?;
                } else {
                    g.store(s.value, s.index, s.to)?;
                }
            }
            Ok(())
        })
    }

    /// Runs `f` along an axis, of which parts may have a share: four lanes at a time where `wide`, as it is told, and one
    /// by one where fewer are left.
    pub(super) fn row(
        &mut self,
        axis: Axis,
        shared: bool,
        wide: bool,
        f: &mut dyn FnMut(&mut Self, bool) -> Result<()>,
    ) -> Result<()> {
        let (start, end) = self.range(axis, shared, 4)?;
        let index = self.local(ValType::I32);
        self.count(start);
        self.i().local_set(index);
        let mut rest = true;
        let surely = matches!(end, Count::Known(n) if n > 0);
        if wide {
            let (stop, runs) = match (start, end) {
                (Count::Known(0), _) => self.round_down(end, 4, 0)?,
                // A share starts at a multiple of 4 and ends at one or at the axis's end.
                _ => self.round_down(end, 4, 0).map(|(stop, _)| (stop, false))?,
            };
            // Shares of whole vectors leave nothing over.
            let whole = self.values.arena.extent(axis).known().is_some_and(|n| n % 4 == 0);
            rest = stop != Some(end) && !whole;
            if let Some(stop) = stop {
                let old = self.lane_axis.replace(axis);
                let r = self.for_loop(axis, index, stop, 4, runs, |g| f(g, true));
                self.lane_axis = old;
                r?;
            }
        }
        if rest {
            self.for_loop(axis, index, end, 1, surely, |g| f(g, false))?;
        }
        Ok(())
    }

    /// Whether the stores go four lanes at a time along `axis`.
    fn wide(&mut self, axis: Axis, stores: &[Store]) -> Result<bool> {
        let most = self.values.arena.extent(axis).range(&self.values.arena.ranges).max;
        if most < 4 {
            return Ok(false);
        }
        let (mut wide, mut single) = (0, 0);
        for s in stores {
            if matches!(self.values.arena.ty(s.to), Ty::F64 | Ty::I64 | Ty::U64) {
                return Ok(false);
            }
            if self.values.ty(s.value) != self.values.arena.ty(s.to) {
                return Err(internal("a store of another type than the value's"));
            }
            if self.stride(s.index, axis).is_none_or(|d| !d.is(1)) {
                return Ok(false);
            }
            let fit = self.fit(s.to, axis);
            wide += fit.wide + 1;
            single += fit.single;
        }
        Ok(single == 0 || wide > 2 * single)
    }
}
