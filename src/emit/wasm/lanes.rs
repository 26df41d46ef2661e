//! Four lanes of 32 bits: f32, i32, u32, and bool as masks.

use super::address::{Atom, Linear};
use super::math::splat32;
use super::writer::{Bind, FrameKind, Writer, internal};
use crate::error::Result;
use crate::kernel::{Axis, BinaryOp, ExprId, FoldOp, Node, Scalar, Ty, UnaryOp, ValueId};
use crate::tensor::Dim;
use std::collections::BTreeSet;
use wasm_encoder::{BlockType, ValType};

/// How an expression does in lanes along an axis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fit {
    /// Operations on four lanes at once.
    pub(super) wide: u32,
    /// Operations done lane by lane.
    pub(super) single: u32,
}

impl Writer<'_> {
    /// How much of `e` is done four lanes at a time along `axis`.
    pub(super) fn fit(&mut self, e: ExprId, axis: Axis) -> Fit {
        let mut fit = Fit::default();
        self.fit_into(e, axis, &mut fit, &mut BTreeSet::new());
        fit
    }

    fn fit_into(&mut self, e: ExprId, axis: Axis, fit: &mut Fit, seen: &mut BTreeSet<ExprId>) {
        if !self.free(e).contains(&axis) || !seen.insert(e) {
            return;
        }
        if self.alone(e, axis) {
            fit.single += match self.values.arena.node(e) {
                Node::Load { value, .. } if self.values.dtype(*value).size() == 4 => 1,
                Node::Fold { .. } => 100,
                _ => 2,
            };
            return;
        }
        fit.wide += match self.values.arena.node(e) {
            Node::Axis(_) => 0,
            Node::Unary(UnaryOp::Exp | UnaryOp::Log | UnaryOp::Tanh | UnaryOp::Erf, _) => 12,
            _ => 1,
        };
        if !matches!(self.values.arena.node(e), Node::Load { .. }) {
            for c in self.values.arena.children(e) {
                self.fit_into(c, axis, fit, seen);
            }
        }
    }

    /// Whether this node, which depends on `axis`, is computed lane by lane.
    pub(super) fn alone(&mut self, e: ExprId, axis: Axis) -> bool {
        let arena = &self.values.arena;
        let wide = |ty: Ty| matches!(ty, Ty::F64 | Ty::I64 | Ty::U64);
        if wide(arena.ty(e)) {
            return true;
        }
        match arena.node(e).clone() {
            Node::Const(_) | Node::Dim(_) | Node::Axis(_) => false,
            Node::Var(..) => true,
            Node::Load { index, .. } => {
                let Some(i) = index.first() else { return true };
                self.stride(*i, axis).is_none_or(|d| !d.is(1))
            }
            Node::Unary(op, a) => {
                let ty = arena.ty(a);
                wide(ty) || matches!(op, UnaryOp::Sin | UnaryOp::Cos | UnaryOp::Asin | UnaryOp::Acos | UnaryOp::Atan)
            }
            Node::Binary(op, a, b) => {
                let ty = arena.ty(a);
                let by = self.free(b).contains(&axis);
                wide(ty)
                    || match op {
                        BinaryOp::Div => ty != Ty::F32,
                        BinaryOp::Rem | BinaryOp::FloorDiv | BinaryOp::FloorMod => true,
                        BinaryOp::Pow => self.product(b).is_none(),
                        BinaryOp::Shl | BinaryOp::Shr => by,
                        _ => false,
                    }
            }
            Node::Select { condition, then, otherwise } => {
                self.free(condition).contains(&axis) && (self.may_fault(then) || self.may_fault(otherwise))
            }
            Node::Fold { op, body, .. } => {
                matches!(op, FoldOp::ArgMax { .. } | FoldOp::ArgMin { .. }) || wide(self.values.arena.ty(body))
            }
        }
    }

    /// 2 or 3, where `e` is that constant: a power that is a product.
    fn product(&self, e: ExprId) -> Option<u32> {
        match self.values.arena.node(e) {
            Node::Const(s) if s.as_f64() == 2.0 => Some(2),
            Node::Const(s) if s.as_f64() == 3.0 => Some(3),
            _ => None,
        }
    }

    /// How far `e` moves with `axis`, where that does not depend on the axes themselves.
    pub(super) fn stride(&mut self, e: ExprId, axis: Axis) -> Option<Dim> {
        if !self.free(e).contains(&axis) {
            return Some(Dim::from(0));
        }
        match *self.values.arena.node(e) {
            Node::Axis(_) => Some(Dim::from(1)),
            Node::Binary(BinaryOp::Add, a, b) => Some(self.stride(a, axis)?.add(&self.stride(b, axis)?)),
            Node::Binary(BinaryOp::Sub, a, b) => Some(self.stride(a, axis)?.sub(&self.stride(b, axis)?)),
            Node::Binary(BinaryOp::Mul, a, b) => {
                let (x, y) = (self.values.arena.as_dim(a), self.values.arena.as_dim(b));
                match (x, y) {
                    (_, Some(d)) => Some(self.stride(a, axis)?.mul(&d)),
                    (Some(d), _) => Some(self.stride(b, axis)?.mul(&d)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Pushes a constant in every lane.
    pub(super) fn constant_lanes(&mut self, s: Scalar) {
        #[allow(clippy::cast_possible_truncation)]
        let bits = if s.ty == Ty::Bool && s.bits != 0 { u32::MAX } else { s.bits as u32 };
        self.splat_constant(bits);
    }

    /// Pushes four lanes of a node that depends on the lane axis.
    pub(super) fn compute_lanes(&mut self, e: ExprId) -> Result<()> {
        let axis = self.lane_axis.ok_or_else(|| internal("lanes without an axis"))?;
        if self.alone(e, axis) {
            return self.lane_by_lane(e, axis);
        }
        match self.values.arena.node(e).clone() {
            Node::Const(s) => {
                self.constant_lanes(s);
                Ok(())
            }
            Node::Axis(_) => {
                self.scalar(e)?;
                self.i().i32x4_splat().v128_const(0x0000_0003_0000_0002_0000_0001_0000_0000).i32x4_add();
                Ok(())
            }
            Node::Dim(_) | Node::Var(..) => Err(internal("an invariant in lanes")),
            Node::Load { value, index } => {
                let index = *index.first().ok_or_else(|| internal("a load without an index"))?;
                let linear = self.linear(index)?;
                self.load_lanes(value, &linear)
            }
            Node::Unary(op, a) => {
                self.lanes(a)?;
                self.unary_lanes(op, self.values.arena.ty(a))
            }
            Node::Binary(op @ (BinaryOp::Shl | BinaryOp::Shr), a, b) => {
                self.lanes(a)?;
                self.scalar(b)?;
                match (op, self.values.arena.ty(a)) {
                    (BinaryOp::Shl, _) => self.i().i32x4_shl(),
                    (_, Ty::I32) => self.i().i32x4_shr_s(),
                    _ => self.i().i32x4_shr_u(),
                };
                Ok(())
            }
            Node::Binary(BinaryOp::Pow, a, b) => {
                let x = self.local(ValType::V128);
                self.lanes(a)?;
                self.i().local_tee(x).local_get(x).f32x4_mul();
                if self.product(b) == Some(3) {
                    self.i().local_get(x).f32x4_mul();
                }
                Ok(())
            }
            Node::Binary(op, a, b) => {
                self.lanes(a)?;
                self.lanes(b)?;
                let plain = match self.values.arena.node(b) {
                    Node::Const(s) => !s.as_f64().is_nan(),
                    _ => false,
                };
                self.combine_lanes(op, self.values.arena.ty(a), plain)
            }
            Node::Select { condition, then, otherwise } => self.select_lanes(axis, condition, then, otherwise),
            Node::Fold { op, axes, body } => self.fold_lanes(op, &axes, body),
        }
    }

    fn select_lanes(&mut self, axis: Axis, condition: ExprId, then: ExprId, otherwise: ExprId) -> Result<()> {
        if self.free(condition).contains(&axis) {
            self.lanes(then)?;
            self.lanes(otherwise)?;
            self.lanes(condition)?;
            self.i().v128_bitselect();
            return Ok(());
        }
        if self.guarded_load(axis, condition, then, otherwise)? {
            return Ok(());
        }
        self.scalar(condition)?;
        let yes = self.framed(FrameKind::Branch, |g| g.lanes(then))?;
        let no = self.framed(FrameKind::Branch, |g| g.lanes(otherwise))?;
        self.i().if_(BlockType::Result(ValType::V128));
        self.append(&yes);
        self.i().else_();
        self.append(&no);
        self.i().end();
        Ok(())
    }

    /// `select(condition, load, 0)` where the condition does not depend on the lanes: the address, or that of zeros, is
    /// chosen outside of the lane loop.
    fn guarded_load(&mut self, axis: Axis, condition: ExprId, then: ExprId, otherwise: ExprId) -> Result<bool> {
        let zero = matches!(self.values.arena.node(otherwise), Node::Const(s) if s.bits == 0);
        let Node::Load { value, index } = self.values.arena.node(then).clone() else { return Ok(false) };
        let Some(index) = index.first().copied() else { return Ok(false) };
        if !zero || self.alone(then, axis) || self.may_fault(condition) || self.may_fault(index) {
            return Ok(false);
        }
        let most = self.values.arena.extent(axis).range(&self.values.arena.ranges).max;
        let size = self.values.dtype(value).size();
        let need = usize::try_from(most).ok().and_then(|n| n.checked_add(16)?.checked_mul(size));
        if need.is_none_or(|n| n as u64 > self.zeros) {
            return Ok(false);
        }
        let linear = self.linear(index)?;
        let l = self.guarded_address(value, &linear, axis, condition)?;
        let bind = self.binds.get(&axis).copied().ok_or_else(|| internal("no loop"))?;
        let (j, _) = bind.base.ok_or_else(|| internal("lanes of an unrolled axis"))?;
        self.i().local_get(l).local_get(j);
        if size > 1 {
            self.i().i32_const(size.trailing_zeros() as i32).i32_shl();
        }
        self.i().i32_add();
        self.load_lanes_at(self.values.dtype(value), bind.add as u64 * size as u64)?;
        Ok(true)
    }

    /// The local with the address of `value[linear]` at index 0 of `axis`, or of zeros where `condition` does not hold.
    fn guarded_address(&mut self, value: ValueId, linear: &Linear, axis: Axis, condition: ExprId) -> Result<u32> {
        let bind = self.binds.get(&axis).copied().ok_or_else(|| internal("no loop"))?;
        let lane = bind.base.map(|(l, _)| Atom::Local(l));
        let terms: Vec<_> = linear.terms.iter().filter(|t| Some(&t.atom) != lane.as_ref()).cloned().collect();
        let rest = Linear { constant: linear.constant - bind.add, terms };
        let zeros = self.memory.zeros as i32;
        self.hoisted_address(value, &rest, condition, |g| {
            g.i().i32_const(zeros);
            g.scalar(condition)?;
            g.i().select();
            Ok(())
        })
    }

    /// Each lane as a scalar.
    fn lane_by_lane(&mut self, e: ExprId, axis: Axis) -> Result<()> {
        let ty = self.values.arena.ty(e);
        let b = self.binds.get(&axis).copied().ok_or_else(|| internal("no loop"))?;
        self.i().v128_const(0);
        for lane in 0..4u8 {
            self.bound(axis, Bind { add: b.add + i64::from(lane), ..b }, |g| g.scalar(e))?;
            match ty {
                Ty::F32 => self.i().f32x4_replace_lane(lane),
                Ty::I32 | Ty::U32 | Ty::Bool => self.i().i32x4_replace_lane(lane),
                _ => return Err(internal(format!("{ty:?} in 32-bit lanes"))),
            };
        }
        if ty == Ty::Bool {
            self.i().i32x4_neg();
        }
        Ok(())
    }

    fn unary_lanes(&mut self, op: UnaryOp, ty: Ty) -> Result<()> {
        let one = splat32(1.0f32.to_bits());
        match (op, ty) {
            (UnaryOp::Neg, Ty::F32) => self.i().f32x4_neg(),
            (UnaryOp::Neg, _) => self.i().i32x4_neg(),
            (UnaryOp::Abs, Ty::F32) => self.i().f32x4_abs(),
            (UnaryOp::Abs, Ty::I32) => self.i().i32x4_abs(),
            (UnaryOp::Abs, _) => return Ok(()),
            (UnaryOp::Not, _) => self.i().v128_not(),
            (UnaryOp::Sign, Ty::F32) => {
                let x = self.local(ValType::V128);
                let mut i = self.i();
                // 1 where positive, -1 where negative, x itself (0 or NaN) elsewhere; -0 becomes 0 by the addition.
                i.local_set(x).v128_const(one).local_get(x).v128_const(0).f32x4_gt().v128_and();
                i.v128_const(splat32((-1.0f32).to_bits())).local_get(x).v128_const(0).f32x4_lt().v128_and().v128_or();
                i.local_get(x).v128_const(0).f32x4_add();
                i.local_get(x).local_get(x).f32x4_eq().v128_bitselect();
                return Ok(());
            }
            (UnaryOp::Sign, Ty::I32) => self.i().v128_const(splat32(1)).i32x4_min_s().v128_const(-1).i32x4_max_s(),
            (UnaryOp::Sign, _) => self.i().v128_const(splat32(1)).i32x4_min_u(),
            (UnaryOp::Floor, Ty::F32) => self.i().f32x4_floor(),
            (UnaryOp::Ceil, Ty::F32) => self.i().f32x4_ceil(),
            (UnaryOp::Trunc, Ty::F32) => self.i().f32x4_trunc(),
            (UnaryOp::Round, Ty::F32) => self.i().f32x4_nearest(),
            (UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::Round, _) => return Ok(()),
            (UnaryOp::Sqrt, Ty::F32) => self.i().f32x4_sqrt(),
            (UnaryOp::Exp, Ty::F32) => return self.inline("exp4"),
            (UnaryOp::Log, Ty::F32) => return self.inline("log4"),
            (UnaryOp::Tanh, Ty::F32) => return self.inline("tanh4"),
            (UnaryOp::Erf, Ty::F32) => return self.inline("erf4"),
            (UnaryOp::IsNan, Ty::F32) => {
                let x = self.local(ValType::V128);
                self.i().local_tee(x).local_get(x).f32x4_ne();
                return Ok(());
            }
            (UnaryOp::IsInf, Ty::F32) => {
                self.i().f32x4_abs().v128_const(splat32(f32::INFINITY.to_bits())).f32x4_eq();
                return Ok(());
            }
            (UnaryOp::IsNan | UnaryOp::IsInf, _) => self.i().drop().v128_const(0),
            (UnaryOp::Bitcast(_), _) => return Ok(()),
            (UnaryOp::RoundF16, _) => {
                self.call("tof164")?;
                return self.call("f16to4");
            }
            (UnaryOp::RoundBf16, _) => return self.call("tobf164"),
            (UnaryOp::Cast(to), from) => return self.cast_lanes(from, to),
            (op, ty) => return Err(internal(format!("{op:?} of {ty:?} in lanes"))),
        };
        Ok(())
    }

    fn cast_lanes(&mut self, from: Ty, to: Ty) -> Result<()> {
        let mut i = self.i();
        match (from, to) {
            (Ty::F32, Ty::I32) => i.i32x4_trunc_sat_f32x4_s(),
            (Ty::F32, Ty::U32) => i.i32x4_trunc_sat_f32x4_u(),
            (Ty::F32, Ty::Bool) => i.v128_const(0).f32x4_ne(),
            (Ty::I32 | Ty::U32, Ty::Bool) => i.v128_const(0).i32x4_ne(),
            (Ty::I32, Ty::F32) => i.f32x4_convert_i32x4_s(),
            (Ty::U32, Ty::F32) => i.f32x4_convert_i32x4_u(),
            (Ty::Bool, Ty::F32) => i.v128_const(splat32(1.0f32.to_bits())).v128_and(),
            (Ty::Bool, Ty::I32 | Ty::U32) => i.v128_const(splat32(1)).v128_and(),
            (a, b) if a == b || matches!((a, b), (Ty::I32 | Ty::U32, Ty::I32 | Ty::U32)) => return Ok(()),
            (a, b) => return Err(internal(format!("cast of {a:?} to {b:?} in lanes"))),
        };
        Ok(())
    }

    /// Replaces two vectors on the stack by the result. `plain`: the second operand is never NaN.
    pub(super) fn combine_lanes(&mut self, op: BinaryOp, ty: Ty, plain: bool) -> Result<()> {
        use BinaryOp::{Add, And, Div, Eq, Ge, Gt, Le, Lt, Max, Min, Mul, Ne, Or, Sub, Xor};
        let mut i = self.i();
        match (op, ty) {
            (Add, Ty::F32) => i.f32x4_add(),
            (Sub, Ty::F32) => i.f32x4_sub(),
            (Mul, Ty::F32) => i.f32x4_mul(),
            (Div, Ty::F32) => i.f32x4_div(),
            // pmin and pmax are one instruction, and keep a NaN of the first operand.
            (Min, Ty::F32) if plain => i.f32x4_pmin(),
            (Max, Ty::F32) if plain => i.f32x4_pmax(),
            (Min, Ty::F32) => i.f32x4_min(),
            (Max, Ty::F32) => i.f32x4_max(),
            (Eq, Ty::F32) => i.f32x4_eq(),
            (Ne, Ty::F32) => i.f32x4_ne(),
            (Lt, Ty::F32) => i.f32x4_lt(),
            (Le, Ty::F32) => i.f32x4_le(),
            (Gt, Ty::F32) => i.f32x4_gt(),
            (Ge, Ty::F32) => i.f32x4_ge(),
            (And, _) => i.v128_and(),
            (Or, _) => i.v128_or(),
            (Xor, _) => i.v128_xor(),
            // Masks: true is -1, which is less than 0 as a signed number and the greatest as an unsigned one.
            (Add, _) => i.i32x4_add(),
            (Sub, _) => i.i32x4_sub(),
            (Mul, _) => i.i32x4_mul(),
            (Eq, _) => i.i32x4_eq(),
            (Ne, _) => i.i32x4_ne(),
            (Min, Ty::I32) => i.i32x4_min_s(),
            (Max, Ty::I32) => i.i32x4_max_s(),
            (Lt, Ty::I32) => i.i32x4_lt_s(),
            (Le, Ty::I32) => i.i32x4_le_s(),
            (Gt, Ty::I32) => i.i32x4_gt_s(),
            (Ge, Ty::I32) => i.i32x4_ge_s(),
            (Min, _) => i.i32x4_min_u(),
            (Max, _) => i.i32x4_max_u(),
            (Lt, _) => i.i32x4_lt_u(),
            (Le, _) => i.i32x4_le_u(),
            (Gt, _) => i.i32x4_gt_u(),
            (Ge, _) => i.i32x4_ge_u(),
            _ => return Err(internal(format!("{op:?} of {ty:?} in lanes"))),
        };
        Ok(())
    }
}
