//! Folds: loops that keep an accumulator, unrolled where they are short, four lanes wide where their operands lie beside
//! each other.

use super::writer::{Bind, Count, Writer, internal, val};
use crate::error::Result;
use crate::kernel::{Axis, BinaryOp, ExprId, FoldOp, Node, Scalar, Ty};
use wasm_encoder::ValType;

/// The most iterations of folds that are unrolled, and the most nodes that this may write.
const UNROLL: i64 = 49;
const UNROLL_NODES: i64 = 900;

/// The value of a fold over nothing.
fn identity(op: FoldOp, ty: Ty) -> Scalar {
    match (op, ty) {
        (FoldOp::Sum, _) => Scalar::int(ty, 0),
        (FoldOp::Prod, _) => Scalar::int(ty, 1),
        (FoldOp::Max | FoldOp::ArgMax { .. }, Ty::F32 | Ty::F64) => Scalar::real(ty, f64::NEG_INFINITY),
        (FoldOp::Min | FoldOp::ArgMin { .. }, Ty::F32 | Ty::F64) => Scalar::real(ty, f64::INFINITY),
        (FoldOp::Max | FoldOp::ArgMax { .. }, Ty::I32) => Scalar::int(ty, i64::from(i32::MIN)),
        (FoldOp::Min | FoldOp::ArgMin { .. }, Ty::I32) => Scalar::int(ty, i64::from(i32::MAX)),
        (FoldOp::Max | FoldOp::ArgMax { .. }, Ty::I64) => Scalar::int(ty, i64::MIN),
        (FoldOp::Min | FoldOp::ArgMin { .. }, Ty::I64) => Scalar::int(ty, i64::MAX),
        (FoldOp::Max | FoldOp::ArgMax { .. }, _) => Scalar::int(ty, 0),
        (FoldOp::Min | FoldOp::ArgMin { .. }, Ty::Bool) => Scalar::bool(true),
        (FoldOp::Min | FoldOp::ArgMin { .. }, _) => Scalar::int(ty, -1),
    }
}

/// The operator that combines two partial results.
fn combination(op: FoldOp, ty: Ty) -> Result<BinaryOp> {
    Ok(match (op, ty) {
        (FoldOp::Max, Ty::Bool) => BinaryOp::Or,
        (FoldOp::Min | FoldOp::Prod, Ty::Bool) => BinaryOp::And,
        (FoldOp::Sum, _) => BinaryOp::Add,
        (FoldOp::Prod, _) => BinaryOp::Mul,
        (FoldOp::Max, _) => BinaryOp::Max,
        (FoldOp::Min, _) => BinaryOp::Min,
        (FoldOp::ArgMax { .. } | FoldOp::ArgMin { .. }, _) => return Err(internal("a position has no combination")),
    })
}

impl Writer<'_> {
    /// Pushes the value of a fold, a scalar.
    pub(super) fn fold(&mut self, op: FoldOp, axes: &[Axis], body: ExprId) -> Result<()> {
        let lanes = self.lane_axis.take();
        let r = match op {
            FoldOp::ArgMax { last } => self.position(axes, body, last, true),
            FoldOp::ArgMin { last } => self.position(axes, body, last, false),
            _ => self.fold_scalar(op, axes, body),
        };
        self.lane_axis = lanes;
        r
    }

    fn fold_scalar(&mut self, op: FoldOp, axes: &[Axis], body: ExprId) -> Result<()> {
        let ty = self.values.arena.ty(body);
        let how = combination(op, ty)?;
        let acc = self.local(val(ty));
        self.constant(identity(op, ty));
        self.i().local_set(acc);
        match axes.split_last() {
            Some((k, outer)) if self.suits_lanes(*k, body) => self.fold_along(op, how, outer, *k, body, acc)?,
            _ => self.nest(axes, body, &mut |g| {
                g.i().local_get(acc);
                g.scalar(body)?;
                g.combine(how, ty)?;
                g.i().local_set(acc);
                Ok(())
            })?,
        }
        self.i().local_get(acc);
        Ok(())
    }

    /// Whether the fold runs along `k` four lanes at a time.
    fn suits_lanes(&mut self, k: Axis, body: ExprId) -> bool {
        let n = self.values.arena.extent(k).range(&self.values.arena.ranges).max;
        n >= 8 && !matches!(self.values.arena.ty(body), Ty::F64 | Ty::I64 | Ty::U64) && self.fit(body, k).single == 0
    }

    /// Folds along `k` with several vectors of partial results, into the scalar `acc`.
    fn fold_along(&mut self, op: FoldOp, how: BinaryOp, outer: &[Axis], k: Axis, body: ExprId, acc: u32) -> Result<()> {
        let ty = self.values.arena.ty(body);
        let n = self.values.arena.extent(k).clone();
        let most = n.range(&self.values.arena.ranges).max;
        let heavy = self.size(body) > 24;
        let width: i32 = match (most, heavy) {
            (..32, _) => 1,
            (_, true) => 2,
            _ => 4,
        };
        let sums: Vec<u32> = (0..width).map(|_| self.local(ValType::V128)).collect();
        for s in &sums {
            self.constant_lanes(identity(op, ty));
            self.i().local_set(*s);
        }
        let end = self.extent(k)?;
        let steps: &[i32] = if width == 1 { &[4] } else { &[4 * width, 4] };
        self.nest(outer, body, &mut |g| {
            let index = g.local(ValType::I32);
            g.i().i32_const(0).local_set(index);
            let mut done = 0;
            for step in steps {
                let (stop, runs) = g.round_down(end, *step, done)?;
                let Some(stop) = stop else { continue };
                g.lane_axis = Some(k);
                let r = g.for_loop(k, index, stop, *step, runs, |g| {
                    for (u, s) in sums.iter().enumerate().take(usize::try_from(step / 4).unwrap_or(1)) {
                        let b = g.binds.get(&k).copied().ok_or_else(|| internal("no loop"))?;
                        g.bound(k, Bind { add: 4 * u as i64, ..b }, |g| g.accumulate_lanes(how, body, *s))?;
                    }
                    Ok(())
                });
                g.lane_axis = None;
                r?;
                if let Count::Known(n) = stop {
                    done = n;
                }
            }
            if end != Count::Known(done) {
                g.for_loop(k, index, end, 1, matches!(end, Count::Known(_)), |g| {
                    g.i().local_get(acc);
                    g.scalar(body)?;
                    g.combine(how, ty)?;
                    g.i().local_set(acc);
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        for s in &sums[1..] {
            self.i().local_get(sums[0]).local_get(*s);
            self.combine_lanes(how, ty, false)?;
            self.i().local_set(sums[0]);
        }
        for lane in 0..4 {
            self.i().local_get(acc).local_get(sums[0]);
            match ty {
                Ty::F32 => self.i().f32x4_extract_lane(lane),
                Ty::Bool => self.i().i32x4_extract_lane(lane).i32_const(0).i32_ne(),
                _ => self.i().i32x4_extract_lane(lane),
            };
            self.combine(how, ty)?;
            self.i().local_set(acc);
        }
        Ok(())
    }

    /// The greatest multiple of `step` up to `end`, if a loop to there does anything beyond `done`; and whether it surely
    /// does.
    pub(super) fn round_down(&mut self, end: Count, step: i32, done: i32) -> Result<(Option<Count>, bool)> {
        Ok(match end {
            Count::Known(n) => {
                let stop = n - n % step;
                ((stop > done).then_some(Count::Known(stop)), true)
            }
            Count::Local(l) => {
                let stop = self.local(ValType::I32);
                self.i().local_get(l).i32_const(-step).i32_and().local_set(stop);
                (Some(Count::Local(stop)), false)
            }
        })
    }

    /// `local = local op lanes(body)`.
    fn accumulate_lanes(&mut self, how: BinaryOp, body: ExprId, local: u32) -> Result<()> {
        if how == BinaryOp::Add
            && self.relaxed
            && self.values.arena.ty(body) == Ty::F32
            && let Node::Binary(BinaryOp::Mul, a, b) = *self.values.arena.node(body)
        {
            self.lanes(a)?;
            self.lanes(b)?;
            self.i().local_get(local).f32x4_relaxed_madd().local_set(local);
            return Ok(());
        }
        self.i().local_get(local);
        self.lanes(body)?;
        self.combine_lanes(how, self.values.arena.ty(body), false)?;
        self.i().local_set(local);
        Ok(())
    }

    /// Pushes four folds, one a lane.
    pub(super) fn fold_lanes(&mut self, op: FoldOp, axes: &[Axis], body: ExprId) -> Result<()> {
        let ty = self.values.arena.ty(body);
        let how = combination(op, ty)?;
        let acc = self.local(ValType::V128);
        self.constant_lanes(identity(op, ty));
        self.i().local_set(acc);
        self.nest(axes, body, &mut |g| g.accumulate_lanes(how, body, acc))?;
        self.i().local_get(acc);
        Ok(())
    }

    /// Pushes the index of the greatest or least element along one axis.
    fn position(&mut self, axes: &[Axis], body: ExprId, last: bool, greatest: bool) -> Result<()> {
        let [k] = axes else { return Err(internal("a position along several axes")) };
        let ty = self.values.arena.ty(body);
        let (best, at, x) = (self.local(val(ty)), self.local(ValType::I32), self.local(val(ty)));
        let op = if greatest { FoldOp::ArgMax { last } } else { FoldOp::ArgMin { last } };
        self.constant(identity(op, ty));
        self.i().local_set(best).i32_const(0).local_set(at);
        let better = match (greatest, last) {
            (true, false) => BinaryOp::Gt,
            (true, true) => BinaryOp::Ge,
            (false, false) => BinaryOp::Lt,
            (false, true) => BinaryOp::Le,
        };
        self.nest_loops(&[*k], &mut |g| {
            g.scalar(body)?;
            g.i().local_tee(x).local_get(best);
            g.combine(better, ty)?;
            g.i().if_(wasm_encoder::BlockType::Empty).local_get(x).local_set(best);
            let b = g.binds.get(k).copied().ok_or_else(|| internal("no loop"))?;
            match b.base {
                Some((l, _)) => g.i().local_get(l),
                None => g.i().i32_const(b.add as i32),
            };
            g.i().local_set(at).end();
            Ok(())
        })?;
        self.i().local_get(at);
        Ok(())
    }

    /// The number of distinct nodes under `e`.
    pub(super) fn size(&self, e: ExprId) -> usize {
        let mut n = 0;
        self.values.arena.visit(e, &mut |_, _| n += 1);
        n
    }

    /// Runs `f` for every index of `axes`: unrolled where they are few.
    fn nest(&mut self, axes: &[Axis], body: ExprId, f: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let count = axes.iter().try_fold(1i64, |n, a| self.values.arena.extent(*a).known()?.checked_mul(n));
        let size = i64::try_from(self.size(body)).unwrap_or(i64::MAX);
        match count {
            Some(n) if n <= UNROLL && n.saturating_mul(size) <= UNROLL_NODES => self.nest_unrolled(axes, f),
            _ => self.nest_loops(axes, f),
        }
    }

    fn nest_unrolled(&mut self, axes: &[Axis], f: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let Some((a, rest)) = axes.split_first() else { return f(self) };
        for i in 0..self.values.arena.extent(*a).known().unwrap_or(0) {
            self.bound(*a, Bind { base: None, add: i }, |g| g.nest_unrolled(rest, f))?;
        }
        Ok(())
    }

    pub(super) fn nest_loops(&mut self, axes: &[Axis], f: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let Some((a, rest)) = axes.split_first() else { return f(self) };
        if self.values.arena.extent(*a).is(1) {
            return self.bound(*a, Bind { base: None, add: 0 }, |g| g.nest_loops(rest, f));
        }
        let index = self.local(ValType::I32);
        let end = self.extent(*a)?;
        let runs = self.runs(*a);
        self.i().i32_const(0).local_set(index);
        self.for_loop(*a, index, end, 1, runs, |g| g.nest_loops(rest, f))
    }
}
