//! Matrix products and convolutions: register tiles of a few rows and 8 columns over panels of the right operand.
//!
//! The loops, outermost first: batch, panels of 8 columns, rows in tiles, fold axes. In the innermost a step loads 8
//! elements of the right operand and one of the left for each row of the tile, and does twice as many multiplications of
//! four lanes as the tile has rows; nothing else. Rows that a convolution's guard leaves out read zeros instead, through a
//! pointer of their own; tiles that lie wholly inside do without.

use super::address::Linear;
use super::writer::{Bind, Count, FrameKind, Writer, arg, internal};
use crate::error::Result;
use crate::kernel::{Axis, BinaryOp, Contract, ExprId, Kernel, Node, Store, Ty, ValueId, Values};
use crate::tensor::{DType, Dim};
use std::collections::BTreeSet;
use wasm_encoder::{BlockType, ValType};

/// Columns of a tile, in vectors.
const VECTORS: usize = 2;
/// Columns of a tile.
const COLUMNS: i32 = 8;
/// The shortest run of the innermost fold axis that is not given up for a longer one.
const RUN: i64 = 8;
/// Rows of a tile with fused multiply-add: 12 accumulators, two vectors of the right operand and one of the left are what
/// x86-64 has registers for; 8 accumulators are a sixth slower, as each addition waits for the one before it.
const ROWS_FUSED: usize = 6;
/// Rows of a tile otherwise: a product takes a register of its own, and addition is not the limit.
const ROWS: usize = 4;

/// The parts of a contraction.
#[derive(Clone, Copy)]
struct Parts<'a> {
    store: Store,
    fold: ExprId,
    n: Axis,
    k: &'a [Axis],
    a: (ValueId, ExprId),
    b: (ValueId, ExprId),
    guard: Option<ExprId>,
    /// The axis along which tiles run.
    row: Axis,
    /// Whether there are enough zeros in memory for rows outside of the guard.
    zeros: bool,
}

/// How the rows of a tile find the left operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// At constant distances from the first.
    Apart(i64),
    /// At distances that depend on the dims.
    Each,
    /// Each under its guard: elsewhere it reads zeros in memory.
    Zeros,
    /// Each under its guard: elsewhere what it reads is masked.
    Masks,
}

/// `select(guard, load, 0)` or a load: the guard, the value, its index.
pub(super) fn operand(values: &Values, e: ExprId) -> Option<(Option<ExprId>, ValueId, ExprId)> {
    let load = |e: ExprId| match values.arena.node(e) {
        Node::Load { value, index } if values.dtype(*value) == DType::Float32 => Some((*value, *index.first()?)),
        _ => None,
    };
    match values.arena.node(e) {
        Node::Select { condition, then, otherwise } => match values.arena.node(*otherwise) {
            Node::Const(zero) if zero.bits == 0 => load(*then).map(|(v, i)| (Some(*condition), v, i)),
            _ => None,
        },
        _ => load(e).map(|(v, i)| (None, v, i)),
    }
}

/// The zeros that a row outside of its guard reads, bytes: as far as a pointer moves along the fold axes that the guard
/// does not depend on. `None` where that is not known.
fn run_of_zeros(values: &Values, c: &Contract) -> Option<i64> {
    let (guard, _, index) = operand(values, c.a)?;
    let guarded = values.arena.free_axes(guard?);
    let affine = values.arena.affine(index)?;
    let mut bytes = 64i64;
    for k in c.k.iter().filter(|k| !guarded.contains(k)) {
        let stride = affine.terms.get(k).map_or(Some(0), Dim::known).filter(|d| *d >= 0)?;
        let last = values.arena.extent(*k).range(&values.arena.ranges).max.saturating_sub(1).max(0);
        bytes = bytes.checked_add(last.checked_mul(stride)?.checked_mul(4)?)?;
    }
    Some(bytes)
}

/// The zeros that must lie in memory for this contraction, bytes.
pub(super) fn zeros(values: &Values, c: &Contract) -> i64 {
    run_of_zeros(values, c).filter(|n| *n <= super::MOST_ZEROS).unwrap_or(0)
}

/// Heights of tiles that cover `rows` as evenly as can be, with how many of each.
pub(super) fn heights(rows: i64, most: usize) -> Vec<(usize, i64)> {
    let tiles = (rows + most as i64 - 1) / most as i64;
    if tiles == 0 {
        return vec![];
    }
    let (least, more) = (rows / tiles, rows % tiles);
    [(least as usize + 1, more), (least as usize, tiles - more)].into_iter().filter(|(_, n)| *n > 0).collect()
}

impl Writer<'_> {
    /// Writes a contraction; one that tiles do not suit is written as plain loops.
    pub(super) fn contract(&mut self, kernel: &Kernel, c: &Contract) -> Result<()> {
        let ([store], Some((a_guard, a, a_index)), Some((None, b, b_index))) =
            (&kernel.stores[..], operand(self.values, c.a), operand(self.values, c.b))
        else {
            return self.loops(kernel);
        };
        let m = &kernel.axes[c.batch..kernel.axes.len() - 1];
        let unit = |w: &mut Self, e: ExprId, axis: Axis| w.stride(e, axis).is_some_and(|d| d.is(1));
        let affine = c.k.iter().chain(m).all(|x| self.stride(a_index, *x).is_some())
            && c.k.iter().all(|k| self.stride(b_index, *k).is_some());
        if self.values.dtype(store.value) != DType::Float32
            || self.values.arena.ty(store.to) != Ty::F32
            || !unit(self, store.index, c.n)
            || !affine
            || c.k.is_empty()
            || kernel.axes.last() != Some(&c.n)
        {
            return self.loops(kernel);
        }
        self.count_uses([store.index, store.to]);
        let row = m.last().copied().unwrap_or(c.n);
        let zeros = run_of_zeros(self.values, c).is_some_and(|n| n <= self.zeros.cast_signed());
        let parts = Parts {
            store: *store,
            fold: c.fold,
            n: c.n,
            k: &c.k,
            a: (a, a_index),
            b: (b, b_index),
            guard: a_guard,
            row,
            zeros,
        };
        // Outer row axes that run on where the inner one ends are one loop with it.
        let mut outer = m.split_last().map_or(vec![], |(_, o)| o.to_vec());
        let mut rows = if m.is_empty() { Dim::from(1) } else { self.values.arena.extent(row).clone() };
        let mut merged = vec![];
        while let Some(o) = outer.last().copied() {
            if !self.runs_on(&parts, o, row, &rows) {
                break;
            }
            rows = rows.mul(self.values.arena.extent(o));
            merged.push(o);
            outer.pop();
        }
        for o in &merged {
            self.binds.insert(*o, Bind { base: None, add: 0 });
        }
        let split = self.split_of(&kernel.axes[..c.batch], &outer, &parts, &rows);
        let batch = kernel.axes[..c.batch].to_vec();
        self.over(&batch, Some(split), &mut |g| {
            let n0 = g.local(ValType::I32);
            let shared = split == parts.n;
            let (start, end) = g.range(parts.n, shared, COLUMNS)?;
            g.count(start);
            g.i().local_set(n0);
            let runs = !shared && g.runs(parts.n);
            g.for_loop(parts.n, n0, end, COLUMNS, runs, |g| {
                g.over(&outer, Some(split), &mut |g| g.tiles(&parts, &rows, split == parts.row))
            })
        })
    }

    /// Rows of the highest tile.
    fn most_rows(&self) -> usize {
        if self.relaxed { ROWS_FUSED } else { ROWS }
    }

    /// The axis that is shared out: an outer one with enough indices, else panels if there are many, else rows if there are
    /// more of them.
    fn split_of(&self, batch: &[Axis], outer: &[Axis], p: &Parts<'_>, rows: &Dim) -> Axis {
        let arena = &self.values.arena;
        let least = |d: &Dim| d.range(&arena.ranges).min;
        let panels = least(arena.extent(p.n)) / i64::from(COLUMNS);
        let long = batch.iter().chain(outer).find(|a| least(arena.extent(**a)) >= 12);
        match long {
            Some(a) => *a,
            None if panels < 12 && least(rows) / self.most_rows() as i64 > panels => p.row,
            None => p.n,
        }
    }

    /// Whether every index goes on along `o` where `row`, of extent `rows`, ends.
    fn runs_on(&mut self, p: &Parts<'_>, o: Axis, row: Axis, rows: &Dim) -> bool {
        let mut todo = vec![p.store.to];
        let mut seen = BTreeSet::new();
        let indices = |w: &mut Self, index: ExprId| match (w.stride(index, o), w.stride(index, row)) {
            (Some(x), Some(y)) => x == y.mul(rows),
            _ => false,
        };
        if !indices(self, p.store.index) {
            return false;
        }
        while let Some(e) = todo.pop() {
            if !seen.insert(e) {
                continue;
            }
            match self.values.arena.node(e).clone() {
                Node::Axis(x) if x == o || x == row => return false,
                Node::Load { index, .. } => {
                    if !index.iter().all(|i| indices(self, *i)) {
                        return false;
                    }
                }
                _ => todo.extend(self.values.arena.children(e)),
            }
        }
        true
    }

    /// Covers the rows with tiles; threads may share them.
    fn tiles(&mut self, p: &Parts<'_>, rows: &Dim, shared: bool) -> Result<()> {
        let most = self.most_rows();
        if p.row == p.n {
            return self.tile(p, 1);
        }
        let i = self.local(ValType::I32);
        let all = self.dim_count(rows)?;
        if let (Some(n), false) = (rows.known(), shared) {
            let mut done = 0;
            self.i().i32_const(0).local_set(i);
            for (height, count) in heights(n, most) {
                done += height as i64 * count;
                let end = Count::Known(i32::try_from(done).map_err(|_| internal("too many rows"))?);
                self.for_loop(p.row, i, end, height as i32, true, |g| g.tile(p, height))?;
            }
            return Ok(());
        }
        // How many rows there are is known at run time: full tiles, of which the last may begin before the one before it
        // ends; single rows where there are fewer than a tile has.
        let (start, end) = self.share(all, shared, 1);
        let (end, height) = (self.count_local(end), most as i32);
        let frame = self.top() + 2;
        let full = self.framed(FrameKind::Branch, |g| {
            let body = g.framed(FrameKind::Loop, |g| {
                g.bound(p.row, Bind { base: Some((i, frame)), add: 0 }, |g| g.tile(p, most))
            })?;
            g.i().loop_(BlockType::Empty);
            g.append(&body);
            let mut s = g.i();
            s.local_get(i).i32_const(height).i32_add().local_tee(i).local_get(end).i32_lt_s().if_(BlockType::Empty);
            s.local_get(i).local_get(end).i32_const(height).i32_sub().local_get(i).local_get(end);
            s.i32_const(height).i32_sub().i32_lt_s().select().local_set(i).br(1).end().end();
            Ok(())
        })?;
        let few =
            self.framed(FrameKind::Branch, |g| g.for_loop(p.row, i, Count::Local(end), 1, false, |g| g.tile(p, 1)))?;
        self.count(start);
        self.i().local_set(i).local_get(end).local_get(i).i32_sub().i32_const(height).i32_ge_s().if_(BlockType::Empty);
        self.append(&full);
        self.i().else_();
        self.append(&few);
        self.i().end();
        Ok(())
    }

    /// A tile of `height` rows at the current row and panel.
    fn tile(&mut self, p: &Parts<'_>, height: usize) -> Result<()> {
        let sums: Vec<u32> = (0..height * VECTORS).map(|_| self.local(ValType::V128)).collect();
        for s in &sums {
            self.i().v128_const(0).local_set(*s);
        }
        let apart = self.stride(p.a.1, p.row).and_then(|d| d.known()).filter(|d| (0..1 << 24).contains(d));
        let apart = if height == 1 { Some(0) } else { apart };
        match (p.guard, apart) {
            (None, Some(d)) => self.fold_axes(p, &sums, Rows::Apart(d))?,
            (None, None) => self.fold_axes(p, &sums, Rows::Each)?,
            (Some(guard), apart) => {
                let edge = if p.zeros { Rows::Zeros } else { Rows::Masks };
                let tests = apart.and_then(|_| self.inside(p, guard, height));
                match (apart, tests) {
                    (Some(d), Some(tests)) => {
                        let fast = self.framed(FrameKind::Branch, |g| g.fold_axes(p, &sums, Rows::Apart(d)))?;
                        let slow = self.framed(FrameKind::Branch, |g| g.fold_axes(p, &sums, edge))?;
                        for (i, t) in tests.iter().enumerate() {
                            self.corner(p, t)?;
                            if i > 0 {
                                self.i().i32_and();
                            }
                        }
                        self.i().if_(BlockType::Empty);
                        self.append(&fast);
                        self.i().else_();
                        self.append(&slow);
                        self.i().end();
                    }
                    _ => self.fold_axes(p, &sums, edge)?,
                }
            }
        }
        self.epilogue(p, height, &sums)
    }

    /// The comparisons of a guard, each with the fold indices and the row of the tile at which it is hardest to meet.
    fn inside(&mut self, p: &Parts<'_>, guard: ExprId, height: usize) -> Option<Vec<(ExprId, Vec<(Axis, i64)>)>> {
        let mut todo = vec![guard];
        let mut tests = vec![];
        while let Some(e) = todo.pop() {
            match *self.values.arena.node(e) {
                Node::Binary(BinaryOp::And, a, b) => todo.extend([a, b]),
                Node::Binary(op @ (BinaryOp::Ge | BinaryOp::Gt | BinaryOp::Lt | BinaryOp::Le), a, b) => {
                    let mut corner = vec![];
                    for x in p.k.iter().chain([&p.row]) {
                        let d = self.stride(a, *x)?.sub(&self.stride(b, *x)?).known()?;
                        let last = match *x == p.row {
                            true => height as i64 - 1,
                            false => self.values.arena.extent(*x).known()? - 1,
                        };
                        let least = matches!(op, BinaryOp::Ge | BinaryOp::Gt) == (d > 0);
                        corner.push((*x, if d == 0 || least { 0 } else { last }));
                    }
                    tests.push((e, corner));
                }
                _ => return None,
            }
        }
        tests.sort();
        Some(tests)
    }

    /// Pushes a comparison at its corner.
    fn corner(&mut self, p: &Parts<'_>, (test, corner): &(ExprId, Vec<(Axis, i64)>)) -> Result<()> {
        let Some(((axis, at), rest)) = corner.split_first() else { return self.scalar(*test) };
        let base = match *axis == p.row {
            true => self.binds.get(axis).and_then(|b| b.base),
            false => None,
        };
        self.bound(*axis, Bind { base, add: *at }, |g| g.corner(p, &(*test, rest.to_vec())))
    }

    /// The loops over the fold axes.
    fn fold_axes(&mut self, p: &Parts<'_>, sums: &[u32], how: Rows) -> Result<()> {
        // Axes of one index drop out; neighbours that both operands run through as one become one.
        let mut axes: Vec<(Axis, Dim)> = vec![];
        let mut fixed = vec![];
        let guarded = |g: &mut Self, x: Axis| match (how, p.guard) {
            (Rows::Apart(_) | Rows::Each, _) | (_, None) => false,
            (_, Some(guard)) => g.free(guard).contains(&x),
        };
        for k in p.k.iter().rev() {
            let n = self.values.arena.extent(*k).clone();
            if n.is(1) {
                fixed.push(*k);
                continue;
            }
            let inner = axes.last().cloned();
            if let Some((j, m)) = inner {
                let mut same = true;
                for e in [p.a.1, p.b.1] {
                    same &= match (self.stride(e, *k), self.stride(e, j)) {
                        (Some(x), Some(y)) => x == y.mul(&m),
                        _ => false,
                    };
                }
                if same && !guarded(self, *k) && !guarded(self, j) {
                    fixed.push(*k);
                    if let Some(l) = axes.last_mut() {
                        l.1 = m.mul(&n);
                    }
                    continue;
                }
            }
            axes.push((*k, n));
        }
        axes.reverse();
        // Under guards, pointers hold for one index of the axes that the guard depends on: those go outside.
        let (mut outside, inside): (Vec<_>, Vec<_>) = axes.into_iter().partition(|(k, _)| guarded(self, *k));
        let moving = !inside.is_empty();
        outside.extend(inside);
        let mut axes = outside;
        // A short run goes outside of a longer one.
        let long = |d: &Dim| d.range(&self.values.arena.ranges).max;
        if matches!(how, Rows::Apart(_) | Rows::Each)
            && axes.last().is_some_and(|(_, n)| long(n) < RUN)
            && let Some(best) = (0..axes.len()).max_by_key(|i| (long(&axes[*i].1), *i))
        {
            let longest = axes.remove(best);
            axes.push(longest);
        }
        let old: Vec<_> = fixed.iter().map(|k| (*k, self.binds.insert(*k, Bind { base: None, add: 0 }))).collect();
        let r = self.fold_loops(p, sums, how, &axes, moving);
        for (k, b) in old {
            match b {
                Some(b) => self.binds.insert(k, b),
                None => self.binds.remove(&k),
            };
        }
        r
    }

    /// `moving`: pointers move along the last of the axes.
    fn fold_loops(&mut self, p: &Parts<'_>, sums: &[u32], how: Rows, axes: &[(Axis, Dim)], moving: bool) -> Result<()> {
        let ((k, n), rest) = match axes {
            [] => return self.steps(p, sums, how, None),
            [last] if moving => return self.steps(p, sums, how, Some(last)),
            [first, rest @ ..] => (first, rest),
        };
        let index = self.local(ValType::I32);
        let end = self.dim_count(n)?;
        self.i().i32_const(0).local_set(index);
        let runs = n.range(&self.values.arena.ranges).min >= 1;
        self.for_loop(*k, index, end, 1, runs, |g| g.fold_loops(p, sums, how, rest, moving))
    }

    /// The innermost loop; a single step without one.
    fn steps(&mut self, p: &Parts<'_>, sums: &[u32], how: Rows, axis: Option<&(Axis, Dim)>) -> Result<()> {
        let old: Vec<_> = axis.iter().map(|(k, _)| (*k, self.binds.insert(*k, Bind { base: None, add: 0 }))).collect();
        let height = sums.len() / VECTORS;
        // Pointers at the first step.
        let pb = self.pointer(p.b)?;
        let (mut pa, mut masks) = (vec![], vec![]);
        match how {
            Rows::Apart(_) => pa.push(self.pointer(p.a)?),
            Rows::Each | Rows::Zeros | Rows::Masks => {
                for r in 0..height {
                    let base = self.binds.get(&p.row).copied();
                    let bind = base.unwrap_or(Bind { base: None, add: 0 });
                    let (ptr, mask) = self.bound(p.row, Bind { add: r as i64, ..bind }, |g| g.row_pointer(p, how))?;
                    pa.push(ptr);
                    masks.extend(mask);
                }
            }
        }
        for (k, b) in old {
            match b {
                Some(b) => self.binds.insert(k, b),
                None => self.binds.remove(&k),
            };
        }
        let apart = if let Rows::Apart(d) = how { d } else { 0 };
        let (b0, b1, a) = (self.local(ValType::V128), self.local(ValType::V128), self.local(ValType::V128));
        let step = |g: &mut Self| {
            g.i().local_get(pb).v128_load(arg(0, 2)).local_set(b0);
            g.i().local_get(pb).v128_load(arg(16, 2)).local_set(b1);
            for r in 0..height {
                let mut i = g.i();
                let (ptr, off) = match pa[..] {
                    [only] => (only, 4 * apart as u64 * r as u64),
                    _ => (pa[r], 0),
                };
                i.local_get(ptr).v128_load32_splat(arg(off, 2));
                if let Some(m) = masks.get(r) {
                    i.local_get(*m).v128_and();
                }
                i.local_set(a);
                for (j, b) in [b0, b1].into_iter().enumerate() {
                    g.multiply_add(a, b, sums[r * VECTORS + j]);
                }
            }
        };
        let Some((k, n)) = axis else {
            step(self);
            return Ok(());
        };
        let sa = self.stride(p.a.1, *k).ok_or_else(|| internal("a stride that varies"))?.mul(&Dim::from(4));
        let sb = self.stride(p.b.1, *k).ok_or_else(|| internal("a stride that varies"))?.mul(&Dim::from(4));
        let end = self.local(ValType::I32);
        self.i().local_get(pb);
        self.dim(&sb.mul(n))?;
        self.i().i32_add().local_set(end);
        let runs = n.range(&self.values.arena.ranges).min >= 1;
        if !runs {
            self.i().local_get(pb).local_get(end).i32_lt_u().if_(BlockType::Empty);
        }
        let body = self.framed(FrameKind::Loop, |g| {
            step(g);
            for ptr in &pa {
                g.i().local_get(*ptr);
                g.dim(&sa)?;
                g.i().i32_add().local_set(*ptr);
            }
            g.i().local_get(pb);
            g.dim(&sb)?;
            g.i().i32_add().local_tee(pb).local_get(end).i32_lt_u().br_if(0);
            Ok(())
        })?;
        self.i().loop_(BlockType::Empty);
        self.append(&body);
        self.i().end();
        if !runs {
            self.i().end();
        }
        Ok(())
    }

    /// A local with the address of an operand at the current indices, which may be moved on.
    pub(super) fn pointer(&mut self, (value, index): (ValueId, ExprId)) -> Result<u32> {
        let l = self.local(ValType::I32);
        let linear = self.linear(index)?;
        self.push_address(value, &linear)?;
        self.i().local_set(l);
        Ok(l)
    }

    fn push_address(&mut self, value: ValueId, linear: &Linear) -> Result<()> {
        let offset = self.address(value, linear)?;
        if offset != 0 {
            self.i().i32_const((offset as u32).cast_signed()).i32_add();
        }
        Ok(())
    }

    /// The pointer of a guarded row, and its mask where it has one.
    fn row_pointer(&mut self, p: &Parts<'_>, how: Rows) -> Result<(u32, Option<u32>)> {
        let ptr = self.local(ValType::I32);
        let linear = self.linear(p.a.1)?;
        self.push_address(p.a.0, &linear)?;
        let guard = match p.guard {
            Some(guard) if how != Rows::Each => guard,
            _ => {
                self.i().local_set(ptr);
                return Ok((ptr, None));
            }
        };
        if how == Rows::Zeros {
            let zeros = self.memory.zeros.cast_signed();
            self.i().i32_const(zeros);
            self.scalar(guard)?;
            self.i().select().local_set(ptr);
            return Ok((ptr, None));
        }
        // Anything readable does: the value's start.
        self.push_address(p.a.0, &Linear { constant: 0, terms: vec![] })?;
        self.scalar(guard)?;
        self.i().select().local_set(ptr);
        let mask = self.local(ValType::V128);
        self.i().i32_const(0);
        self.scalar(guard)?;
        self.i().i32_sub().i32x4_splat().local_set(mask);
        Ok((ptr, Some(mask)))
    }

    /// Computes what stands around the fold for each vector of the tile, and stores it.
    fn epilogue(&mut self, p: &Parts<'_>, height: usize, sums: &[u32]) -> Result<()> {
        let n = self.values.arena.extent(p.n).clone();
        let singly = self.folds_lane_by_lane(p);
        let old = self.lane_axis.replace(p.n);
        let column = self.binds.get(&p.n).copied().ok_or_else(|| internal("columns without a loop"))?;
        let row = self.binds.get(&p.row).copied();
        for r in 0..height {
            if let Some(row) = row.filter(|_| p.row != p.n) {
                self.binds.insert(p.row, Bind { add: r as i64, ..row });
            }
            for j in 0..VECTORS {
                let first = 4 * j as i64;
                self.binds.insert(p.n, Bind { add: first, ..column });
                let sum = sums[r * VECTORS + j];
                self.remember(p.fold, sum, true);
                if singly {
                    for lane in 0..4u8 {
                        self.binds.insert(p.n, Bind { add: first + i64::from(lane), ..column });
                        let l = self.local(ValType::F32);
                        self.i().local_get(sum).f32x4_extract_lane(lane).local_set(l);
                        self.remember(p.fold, l, false);
                    }
                    self.binds.insert(p.n, Bind { add: first, ..column });
                }
                self.store_columns(p, &n, first)?;
            }
        }
        self.binds.insert(p.n, column);
        if let Some(row) = row {
            self.binds.insert(p.row, row);
        }
        self.lane_axis = old;
        Ok(())
    }

    /// Stores four columns from `first` of the panel on, as far as there are that many.
    fn store_columns(&mut self, p: &Parts<'_>, n: &Dim, first: i64) -> Result<()> {
        let linear = self.linear(p.store.index)?;
        let whole = n.known().is_some_and(|n| n % i64::from(COLUMNS) == 0);
        if whole {
            let offset = self.address(p.store.value, &linear)?;
            self.lanes(p.store.to)?;
            self.i().v128_store(arg(offset, 2));
            return Ok(());
        }
        let (at, v) = (self.local(ValType::I32), self.local(ValType::V128));
        self.lanes(p.store.to)?;
        self.i().local_set(v);
        let offset = self.address(p.store.value, &linear)?;
        self.i().local_set(at);
        let Bind { base: Some((n0, _)), .. } = self.binds.get(&p.n).copied().ok_or_else(|| internal("no columns"))?
        else {
            return Err(internal("columns without a loop"));
        };
        let left = self.local(ValType::I32);
        self.dim(n)?;
        self.i().local_get(n0).i32_sub().i32_const(first as i32).i32_sub().local_tee(left);
        let mut i = self.i();
        i.i32_const(4).i32_ge_s().if_(BlockType::Empty);
        i.local_get(at).local_get(v).v128_store(arg(offset, 2)).else_();
        for lane in 0..3u8 {
            i.local_get(left).i32_const(i32::from(lane)).i32_gt_s().if_(BlockType::Empty);
            i.local_get(at).local_get(v).v128_store32_lane(arg(offset + 4 * u64::from(lane), 2), lane).end();
        }
        i.end();
        Ok(())
    }

    /// Whether something around the fold is computed lane by lane from it.
    fn folds_lane_by_lane(&mut self, p: &Parts<'_>) -> bool {
        let mut todo = vec![p.store.to];
        let mut seen = BTreeSet::new();
        while let Some(e) = todo.pop() {
            if e == p.fold || !seen.insert(e) || !self.free(e).contains(&p.n) {
                continue;
            }
            if self.alone(e, p.n) {
                let mut found = false;
                self.values.arena.visit(e, &mut |id, _| found |= id == p.fold);
                if found {
                    return true;
                }
            }
            todo.extend(self.values.arena.children(e));
        }
        false
    }
}
