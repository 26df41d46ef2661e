//! Scalars: one value of each operator on the operand stack. Bool is i32 0 or 1.

use super::math;
use super::writer::{FrameKind, Writer, internal, val};
use crate::error::Result;
use crate::kernel::{BinaryOp, ExprId, Node, Scalar, Ty, UnaryOp};
use wasm_encoder::BlockType;

impl Writer<'_> {
    /// Pushes the value of a node, computed here.
    pub(super) fn compute(&mut self, e: ExprId) -> Result<()> {
        match self.values.arena.node(e).clone() {
            Node::Const(s) => {
                self.constant(s);
                Ok(())
            }
            Node::Dim(_) | Node::Axis(_) | Node::Var(..) => self.scalar(e),
            Node::Load { value, index } => {
                let index = *index.first().ok_or_else(|| internal("a load without an index"))?;
                let linear = self.linear(index)?;
                self.load(value, &linear)
            }
            Node::Unary(op, a) => {
                self.scalar(a)?;
                self.unary(op, self.values.arena.ty(a))
            }
            Node::Binary(op, a, b) => self.binary(op, self.values.arena.ty(a), a, b),
            Node::Select { condition, then, otherwise } => {
                let ty = self.values.arena.ty(then);
                if self.is_cheap(then) && self.is_cheap(otherwise) {
                    self.scalar(then)?;
                    self.scalar(otherwise)?;
                    self.scalar(condition)?;
                    self.i().select();
                    return Ok(());
                }
                self.scalar(condition)?;
                let yes = self.framed(FrameKind::Branch, |g| g.scalar(then))?;
                let no = self.framed(FrameKind::Branch, |g| g.scalar(otherwise))?;
                self.i().if_(BlockType::Result(val(ty)));
                self.append(&yes);
                self.i().else_();
                self.append(&no);
                self.i().end();
                Ok(())
            }
            Node::Fold { op, axes, body } => self.fold(op, &axes, body),
        }
    }

    /// Whether it costs less to compute this than to jump over it, and nothing can fault.
    pub(super) fn is_cheap(&mut self, e: ExprId) -> bool {
        match self.values.arena.node(e).clone() {
            Node::Const(_) | Node::Dim(_) | Node::Axis(_) | Node::Var(..) => true,
            Node::Load { index, .. } => {
                !self.may_fault(e) && index.iter().all(|i| self.values.arena.affine(*i).is_some())
            }
            Node::Unary(UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Not, a) => self.is_cheap(a),
            Node::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul, a, b) => {
                let leaf =
                    |g: &Self, x| matches!(g.values.arena.node(x), Node::Const(_) | Node::Axis(_) | Node::Load { .. });
                (leaf(self, a) || leaf(self, b)) && self.is_cheap(a) && self.is_cheap(b)
            }
            _ => false,
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    pub(super) fn constant(&mut self, s: Scalar) {
        match s.ty {
            Ty::F32 => self.i().f32_const(f32::from_bits(s.bits as u32).into()),
            Ty::F64 => self.i().f64_const(f64::from_bits(s.bits).into()),
            Ty::I32 | Ty::U32 => self.i().i32_const(s.bits as u32 as i32),
            Ty::Bool => self.i().i32_const(i32::from(s.bits != 0)),
            Ty::I64 | Ty::U64 => self.i().i64_const(s.bits as i64),
        };
    }

    /// Calls a function of [`math`].
    pub(super) fn call(&mut self, name: &str) -> Result<()> {
        let f = math::function(self.shared, name)?;
        self.i().call(f);
        Ok(())
    }

    /// Calls a function with a suffix for 64 bits.
    fn call_by_width(&mut self, name: &str, ty: Ty) -> Result<()> {
        match val(ty) {
            wasm_encoder::ValType::F64 | wasm_encoder::ValType::I64 => self.call(&format!("{name}64")),
            _ => self.call(name),
        }
    }

    /// Replaces the operand of type `ty` on the stack by the result.
    fn unary(&mut self, op: UnaryOp, ty: Ty) -> Result<()> {
        let v = val(ty);
        match (op, ty) {
            (UnaryOp::Neg, Ty::F32) => self.i().f32_neg(),
            (UnaryOp::Neg, Ty::F64) => self.i().f64_neg(),
            (UnaryOp::Neg, Ty::I64 | Ty::U64) => self.i().i64_const(-1).i64_mul(),
            (UnaryOp::Neg, _) => self.i().i32_const(-1).i32_mul(),
            (UnaryOp::Abs, Ty::F32) => self.i().f32_abs(),
            (UnaryOp::Abs, Ty::F64) => self.i().f64_abs(),
            (UnaryOp::Abs, Ty::I32) => {
                let x = self.local(v);
                let mut i = self.i();
                i.local_set(x).i32_const(0).local_get(x).i32_sub();
                i.local_get(x).local_get(x).i32_const(0).i32_lt_s().select();
                return Ok(());
            }
            (UnaryOp::Abs, Ty::I64) => {
                let x = self.local(v);
                let mut i = self.i();
                i.local_set(x).i64_const(0).local_get(x).i64_sub();
                i.local_get(x).local_get(x).i64_const(0).i64_lt_s().select();
                return Ok(());
            }
            (UnaryOp::Abs, _) => return Ok(()),
            (UnaryOp::Not, Ty::Bool) => self.i().i32_eqz(),
            (UnaryOp::Not, Ty::I64 | Ty::U64) => self.i().i64_const(-1).i64_xor(),
            (UnaryOp::Not, _) => self.i().i32_const(-1).i32_xor(),
            (UnaryOp::Sign, Ty::F32) => {
                let x = self.local(v);
                let mut i = self.i();
                i.local_tee(x).f32_const(0.0.into()).f32_gt().local_get(x).f32_const(0.0.into()).f32_lt().i32_sub();
                i.f32_convert_i32_s().local_get(x).local_get(x).local_get(x).f32_eq().select();
                return Ok(());
            }
            (UnaryOp::Sign, Ty::F64) => {
                let x = self.local(v);
                let mut i = self.i();
                i.local_tee(x).f64_const(0.0.into()).f64_gt().local_get(x).f64_const(0.0.into()).f64_lt().i32_sub();
                i.f64_convert_i32_s().local_get(x).local_get(x).local_get(x).f64_eq().select();
                return Ok(());
            }
            (UnaryOp::Sign, Ty::I32) => {
                let x = self.local(v);
                self.i().local_tee(x).i32_const(0).i32_gt_s().local_get(x).i32_const(0).i32_lt_s().i32_sub();
                return Ok(());
            }
            (UnaryOp::Sign, Ty::I64) => {
                let x = self.local(v);
                let mut i = self.i();
                i.local_tee(x)
                    .i64_const(0)
                    .i64_gt_s()
                    .local_get(x)
                    .i64_const(0)
                    .i64_lt_s()
                    .i32_sub()
                    .i64_extend_i32_s();
                return Ok(());
            }
            (UnaryOp::Sign, Ty::U64) => self.i().i64_const(0).i64_ne().i64_extend_i32_u(),
            (UnaryOp::Sign, _) => self.i().i32_const(0).i32_ne(),
            (UnaryOp::Floor, Ty::F32) => self.i().f32_floor(),
            (UnaryOp::Floor, Ty::F64) => self.i().f64_floor(),
            (UnaryOp::Ceil, Ty::F32) => self.i().f32_ceil(),
            (UnaryOp::Ceil, Ty::F64) => self.i().f64_ceil(),
            (UnaryOp::Trunc, Ty::F32) => self.i().f32_trunc(),
            (UnaryOp::Trunc, Ty::F64) => self.i().f64_trunc(),
            (UnaryOp::Round, Ty::F32) => self.i().f32_nearest(),
            (UnaryOp::Round, Ty::F64) => self.i().f64_nearest(),
            (UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::Round, _) => return Ok(()),
            (UnaryOp::Sqrt, Ty::F32) => self.i().f32_sqrt(),
            (UnaryOp::Sqrt, Ty::F64) => self.i().f64_sqrt(),
            (UnaryOp::IsNan, Ty::F32) => {
                let x = self.local(v);
                self.i().local_tee(x).local_get(x).f32_ne();
                return Ok(());
            }
            (UnaryOp::IsNan, Ty::F64) => {
                let x = self.local(v);
                self.i().local_tee(x).local_get(x).f64_ne();
                return Ok(());
            }
            (UnaryOp::IsInf, Ty::F32) => self.i().f32_abs().f32_const(f32::INFINITY.into()).f32_eq(),
            (UnaryOp::IsInf, Ty::F64) => self.i().f64_abs().f64_const(f64::INFINITY.into()).f64_eq(),
            (UnaryOp::IsNan | UnaryOp::IsInf, _) => self.i().drop().i32_const(0),
            (UnaryOp::Bitcast(to), _) => {
                match (ty, to) {
                    (Ty::F32, Ty::I32 | Ty::U32) => self.i().i32_reinterpret_f32(),
                    (Ty::I32 | Ty::U32, Ty::F32) => self.i().f32_reinterpret_i32(),
                    (Ty::F64, Ty::I64 | Ty::U64) => self.i().i64_reinterpret_f64(),
                    (Ty::I64 | Ty::U64, Ty::F64) => self.i().f64_reinterpret_i64(),
                    _ if val(ty) == val(to) => return Ok(()),
                    _ => return Err(internal(format!("bitcast of {ty:?} to {to:?}"))),
                };
                return Ok(());
            }
            (UnaryOp::Cast(to), _) => return self.cast(ty, to),
            (UnaryOp::RoundF16, Ty::F32) => {
                self.i().i32_reinterpret_f32();
                self.call("tof16")?;
                self.call("f16to")?;
                self.i().f32_reinterpret_i32();
                return Ok(());
            }
            (UnaryOp::RoundBf16, Ty::F32) => {
                self.i().i32_reinterpret_f32();
                self.call("tobf16")?;
                self.i().f32_reinterpret_i32();
                return Ok(());
            }
            (_, Ty::F32 | Ty::F64) => {
                let name = match op {
                    UnaryOp::Exp => "exp",
                    UnaryOp::Log => "log",
                    UnaryOp::Sin => "sin",
                    UnaryOp::Cos => "cos",
                    UnaryOp::Asin => "asin",
                    UnaryOp::Acos => "acos",
                    UnaryOp::Atan => "atan",
                    UnaryOp::Tanh => "tanh",
                    UnaryOp::Erf => "erf",
                    _ => return Err(internal(format!("{op:?} of {ty:?}"))),
                };
                return self.call_by_width(name, ty);
            }
            _ => return Err(internal(format!("{op:?} of {ty:?}"))),
        };
        Ok(())
    }

    /// Converts the scalar on the stack.
    pub(super) fn cast(&mut self, from: Ty, to: Ty) -> Result<()> {
        use Ty::{Bool, F32, F64, I32, I64, U32, U64};
        let mut i = self.i();
        match (from, to) {
            (Bool, Bool) | (I32 | U32 | Bool, I32 | U32) | (I64 | U64, I64 | U64) | (F32, F32) | (F64, F64) => {}
            (F32, Bool) => {
                i.f32_const(0.0.into()).f32_ne();
            }
            (F64, Bool) => {
                i.f64_const(0.0.into()).f64_ne();
            }
            (I32 | U32, Bool) => {
                i.i32_const(0).i32_ne();
            }
            (I64 | U64, Bool) => {
                i.i64_const(0).i64_ne();
            }
            (I32, I64 | U64) => {
                i.i64_extend_i32_s();
            }
            (U32 | Bool, I64 | U64) => {
                i.i64_extend_i32_u();
            }
            (I64 | U64, I32 | U32) => {
                i.i32_wrap_i64();
            }
            (F32, F64) => {
                i.f64_promote_f32();
            }
            (F64, F32) => {
                i.f32_demote_f64();
            }
            (I32, F32) => {
                i.f32_convert_i32_s();
            }
            (U32 | Bool, F32) => {
                i.f32_convert_i32_u();
            }
            (I64, F32) => {
                i.f32_convert_i64_s();
            }
            (U64, F32) => {
                i.f32_convert_i64_u();
            }
            (I32, F64) => {
                i.f64_convert_i32_s();
            }
            (U32 | Bool, F64) => {
                i.f64_convert_i32_u();
            }
            (I64, F64) => {
                i.f64_convert_i64_s();
            }
            (U64, F64) => {
                i.f64_convert_i64_u();
            }
            (F32, I32) => {
                i.i32_trunc_sat_f32_s();
            }
            (F32, U32) => {
                i.i32_trunc_sat_f32_u();
            }
            (F32, I64) => {
                i.i64_trunc_sat_f32_s();
            }
            (F32, U64) => {
                i.i64_trunc_sat_f32_u();
            }
            (F64, I32) => {
                i.i32_trunc_sat_f64_s();
            }
            (F64, U32) => {
                i.i32_trunc_sat_f64_u();
            }
            (F64, I64) => {
                i.i64_trunc_sat_f64_s();
            }
            (F64, U64) => {
                i.i64_trunc_sat_f64_u();
            }
        }
        Ok(())
    }

    fn binary(&mut self, op: BinaryOp, ty: Ty, a: ExprId, b: ExprId) -> Result<()> {
        use BinaryOp::{Div, FloorDiv, FloorMod, Pow, Rem};
        if ty == Ty::I32 && matches!(op, Div | Rem | FloorDiv | FloorMod) && self.divide_plainly(op, a, b)? {
            return Ok(());
        }
        self.scalar(a)?;
        if op == Pow && self.small_power(ty, b) {
            return Ok(());
        }
        self.scalar(b)?;
        self.combine(op, ty)
    }

    /// Index division by a positive dim of what is never negative.
    fn divide_plainly(&mut self, op: BinaryOp, a: ExprId, b: ExprId) -> Result<bool> {
        let arena = &self.values.arena;
        let (x, y) = (arena.range(a), arena.range(b));
        if x.min < 0 || y.min < 1 {
            return Ok(false);
        }
        let known = arena.as_int(b);
        let quotient = matches!(op, BinaryOp::Div | BinaryOp::FloorDiv);
        self.scalar(a)?;
        match known {
            Some(n) if n & (n - 1) == 0 => {
                let (shift, mask) = (n.trailing_zeros() as i32, n as i32 - 1);
                if quotient {
                    self.i().i32_const(shift).i32_shr_u();
                } else {
                    self.i().i32_const(mask).i32_and();
                }
            }
            _ => {
                self.scalar(b)?;
                if quotient {
                    self.i().i32_div_u();
                } else {
                    self.i().i32_rem_u();
                }
            }
        }
        Ok(true)
    }

    /// Powers by constants that are products or square roots.
    fn small_power(&mut self, ty: Ty, b: ExprId) -> bool {
        let Node::Const(s) = self.values.arena.node(b) else { return false };
        let (y, x) = (s.as_f64(), self.local(val(ty)));
        let f32 = ty == Ty::F32;
        let times = |g: &mut Self| {
            if f32 {
                g.i().local_get(x).f32_mul();
            } else {
                g.i().local_get(x).f64_mul();
            }
        };
        if y == 2.0 || y == 3.0 {
            self.i().local_tee(x);
            times(self);
            if y == 3.0 {
                times(self);
            }
            return true;
        }
        y == 1.0
    }

    /// Replaces the two operands of type `ty` on the stack by the result.
    pub(super) fn combine(&mut self, op: BinaryOp, ty: Ty) -> Result<()> {
        use BinaryOp::{
            Add, And, Div, Eq, FloorDiv, FloorMod, Ge, Gt, Le, Lt, Max, Min, Mul, Ne, Or, Pow, Rem, Shl, Shr, Sub, Xor,
        };
        let unsigned = matches!(ty, Ty::U32 | Ty::U64 | Ty::Bool);
        match ty {
            Ty::F32 => {
                match op {
                    Add => self.i().f32_add(),
                    Sub => self.i().f32_sub(),
                    Mul => self.i().f32_mul(),
                    Div => self.i().f32_div(),
                    Min => self.i().f32_min(),
                    Max => self.i().f32_max(),
                    Eq => self.i().f32_eq(),
                    Ne => self.i().f32_ne(),
                    Lt => self.i().f32_lt(),
                    Le => self.i().f32_le(),
                    Gt => self.i().f32_gt(),
                    Ge => self.i().f32_ge(),
                    Rem => return self.call("rem"),
                    FloorMod => return self.call("mod"),
                    FloorDiv => self.i().f32_div().f32_floor(),
                    Pow => return self.call("pow"),
                    _ => return Err(internal(format!("{op:?} of {ty:?}"))),
                };
            }
            Ty::F64 => {
                match op {
                    Add => self.i().f64_add(),
                    Sub => self.i().f64_sub(),
                    Mul => self.i().f64_mul(),
                    Div => self.i().f64_div(),
                    Min => self.i().f64_min(),
                    Max => self.i().f64_max(),
                    Eq => self.i().f64_eq(),
                    Ne => self.i().f64_ne(),
                    Lt => self.i().f64_lt(),
                    Le => self.i().f64_le(),
                    Gt => self.i().f64_gt(),
                    Ge => self.i().f64_ge(),
                    Rem => return self.call("rem64"),
                    FloorMod => return self.call("mod64"),
                    FloorDiv => self.i().f64_div().f64_floor(),
                    Pow => return self.call("pow64"),
                    _ => return Err(internal(format!("{op:?} of {ty:?}"))),
                };
            }
            Ty::I64 | Ty::U64 => {
                match op {
                    Add => self.i().i64_add(),
                    Sub => self.i().i64_sub(),
                    Mul => self.i().i64_mul(),
                    And => self.i().i64_and(),
                    Or => self.i().i64_or(),
                    Xor => self.i().i64_xor(),
                    Shl => self.i().i64_shl(),
                    Shr if unsigned => self.i().i64_shr_u(),
                    Shr => self.i().i64_shr_s(),
                    Eq => self.i().i64_eq(),
                    Ne => self.i().i64_ne(),
                    Lt if unsigned => self.i().i64_lt_u(),
                    Lt => self.i().i64_lt_s(),
                    Le if unsigned => self.i().i64_le_u(),
                    Le => self.i().i64_le_s(),
                    Gt if unsigned => self.i().i64_gt_u(),
                    Gt => self.i().i64_gt_s(),
                    Ge if unsigned => self.i().i64_ge_u(),
                    Ge => self.i().i64_ge_s(),
                    Min | Max => return self.pick(op, ty),
                    Div | FloorDiv if unsigned => return self.call("divu64"),
                    Rem | FloorMod if unsigned => return self.call("remu64"),
                    Div => return self.call("divs64"),
                    Rem => return self.call("rems64"),
                    FloorDiv => return self.call("floors64"),
                    FloorMod => return self.call("mods64"),
                    Pow => return Err(internal(format!("{op:?} of {ty:?}"))),
                };
            }
            Ty::I32 | Ty::U32 | Ty::Bool => {
                match op {
                    Add => self.i().i32_add(),
                    Sub => self.i().i32_sub(),
                    Mul => self.i().i32_mul(),
                    And => self.i().i32_and(),
                    Or => self.i().i32_or(),
                    Xor => self.i().i32_xor(),
                    Shl => self.i().i32_shl(),
                    Shr if unsigned => self.i().i32_shr_u(),
                    Shr => self.i().i32_shr_s(),
                    Eq => self.i().i32_eq(),
                    Ne => self.i().i32_ne(),
                    Lt if unsigned => self.i().i32_lt_u(),
                    Lt => self.i().i32_lt_s(),
                    Le if unsigned => self.i().i32_le_u(),
                    Le => self.i().i32_le_s(),
                    Gt if unsigned => self.i().i32_gt_u(),
                    Gt => self.i().i32_gt_s(),
                    Ge if unsigned => self.i().i32_ge_u(),
                    Ge => self.i().i32_ge_s(),
                    Min | Max => return self.pick(op, ty),
                    Div | FloorDiv if unsigned => return self.call("divu"),
                    Rem | FloorMod if unsigned => return self.call("remu"),
                    Div => return self.call("divs"),
                    Rem => return self.call("rems"),
                    FloorDiv => return self.call("floors"),
                    FloorMod => return self.call("mods"),
                    Pow => return Err(internal(format!("{op:?} of {ty:?}"))),
                };
            }
        }
        Ok(())
    }

    /// The lesser or greater of two integers.
    fn pick(&mut self, op: BinaryOp, ty: Ty) -> Result<()> {
        let v = val(ty);
        let (x, y) = (self.local(v), self.local(v));
        self.i().local_set(y).local_tee(x).local_get(y).local_get(x).local_get(y);
        self.combine(if op == BinaryOp::Max { BinaryOp::Gt } else { BinaryOp::Lt }, ty)?;
        self.i().select();
        Ok(())
    }
}
