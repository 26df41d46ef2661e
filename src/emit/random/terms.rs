//! Operators on terms: each with the bounds of its result.

use super::bounds::Bounds;
use super::maker::{Item, MOST_FLOAT, MOST_LONG, Maker, Term};
use crate::kernel::{BinaryOp, ExprId, Ty, UnaryOp};

impl Maker {
    pub(super) fn term(&self, e: ExprId, bounds: Bounds) -> Term {
        Term { e, ty: self.vs.arena.ty(e), bounds }
    }

    pub(super) fn load(&mut self, x: Item, index: &[ExprId]) -> Term {
        let e = self.vs.load(x.id, index);
        let t = self.term(e, x.bounds);
        // Narrow types are for storing only.
        if t.ty == Ty::U32 { self.cast(t, Ty::I32) } else { t }
    }

    pub(super) fn cast(&mut self, t: Term, ty: Ty) -> Term {
        let e = self.vs.arena.cast(ty, t.e);
        let bounds = match (t.ty, ty) {
            (from, to) if from == to => t.bounds,
            (_, Ty::F32) if !t.ty.is_float() => Bounds::arithmetic(t.bounds.most, t.bounds.unit, 0.0, 1.0),
            (_, Ty::Bool) => Bounds::exact(1.0, 1.0),
            _ => Bounds::exact(t.bounds.most, 1.0),
        };
        Term { e, ty, bounds }
    }

    pub(super) fn real(&mut self, x: f64) -> Term {
        let e = self.vs.arena.real(Ty::F32, x);
        Term { e, ty: Ty::F32, bounds: Bounds::exact(x.abs(), if x == 0.0 { 1.0 } else { 0.25 }) }
    }

    pub(super) fn apply(&mut self, op: UnaryOp, t: Term, bounds: Bounds) -> Term {
        let e = self.vs.arena.unary(op, t.e);
        self.term(e, bounds)
    }

    pub(super) fn apply2(&mut self, op: BinaryOp, a: Term, b: Term, bounds: Bounds) -> Term {
        let e = self.vs.arena.binary(op, a.e, b.e);
        self.term(e, bounds)
    }

    /// An operator of one operand. What jumps is only applied to what all targets know exactly.
    pub(super) fn unary(&mut self, t: Term, by: u8) -> Term {
        use UnaryOp as U;
        let (b, one) = (t.bounds, Bounds::exact(1.0, 1.0));
        match t.ty {
            Ty::F32 => match by % 18 {
                0 => self.apply(U::Neg, t, b),
                1 => self.apply(U::Abs, t, b),
                2 => self.apply(U::Tanh, t, b.function(1.0, 1.0)),
                3 => self.apply(U::Erf, t, b.function(1.0, 1.2)),
                4 | 5 if b.most <= 100.0 => {
                    // Large arguments lose what their own rounding is.
                    let at = Bounds { error: b.error + b.most * 3e-7, ..b };
                    self.apply(if by % 18 == 4 { U::Sin } else { U::Cos }, t, at.function(1.0, 1.0))
                }
                6 => self.apply(U::Atan, t, b.function(1.6, 1.0)),
                7 => {
                    let limit = self.real(2.0);
                    let x = self.apply2(BinaryOp::Min, t, limit, b);
                    self.apply(U::Exp, x, b.function(7.4, 7.4))
                }
                8 => {
                    let x = self.apply(U::Abs, t, b);
                    // Between 0 and the error, the root grows fastest.
                    let error = b.error.sqrt() + b.most.sqrt() * 1e-6;
                    self.apply(U::Sqrt, x, Bounds { most: b.most.sqrt(), unit: 0.0, error })
                }
                9 => {
                    let x = self.apply(U::Abs, t, b);
                    let one = self.real(1.0);
                    let x = self.apply2(BinaryOp::Add, x, one, b.sum(Bounds::exact(1.0, 1.0)));
                    self.apply(U::Log, x, x.bounds.function(x.bounds.most.ln(), 1.0))
                }
                10..=13 if b.is_exact() => {
                    let op = [U::Floor, U::Ceil, U::Trunc, U::Round][usize::from(by % 18) - 10];
                    self.apply(op, t, Bounds::exact(b.most.ceil(), 1.0))
                }
                14 if b.is_exact() => self.apply(U::Sign, t, one),
                15 if b.is_exact() => self.cast(t, Ty::I32),
                16 if b.is_exact() && b.most < 6e4 => self.apply(U::RoundF16, t, b),
                17 if b.is_exact() => self.apply(U::RoundBf16, t, Bounds { most: b.most * 1.01, ..b }),
                _ => self.apply(U::Neg, t, b),
            },
            Ty::I32 | Ty::I64 => match by % 7 {
                0 => self.apply(U::Neg, t, b),
                1 => self.apply(U::Abs, t, b),
                2 => self.apply(U::Sign, t, one),
                3 if t.ty == Ty::I32 => self.apply(U::Not, t, Bounds::exact(b.most + 1.0, 1.0)),
                4 if b.most < MOST_LONG => self.cast(t, if t.ty == Ty::I32 { Ty::I64 } else { Ty::I32 }),
                5 => self.cast(t, Ty::Bool),
                _ => self.cast(t, Ty::F32),
            },
            _ => match by % 3 {
                0 => self.apply(U::Not, t, one),
                1 => self.cast(t, Ty::I32),
                _ => self.cast(t, Ty::F32),
            },
        }
    }

    /// Both in one type.
    pub(super) fn alike(&mut self, a: Term, b: Term) -> (Term, Term) {
        if a.ty == b.ty { (a, b) } else { (self.cast(a, Ty::F32), self.cast(b, Ty::F32)) }
    }

    pub(super) fn binary(&mut self, a: Term, b: Term, by: u8) -> Term {
        use BinaryOp as B;
        let (a, b) = self.alike(a, b);
        let (x, y, one) = (a.bounds, b.bounds, Bounds::exact(1.0, 1.0));
        let exact = x.is_exact() && y.is_exact();
        let comparisons = [B::Eq, B::Ne, B::Lt, B::Le, B::Gt, B::Ge];
        match a.ty {
            Ty::F32 => match by % 13 {
                0 | 1 if x.most + y.most < MOST_FLOAT => {
                    self.apply2(if by.is_multiple_of(13) { B::Add } else { B::Sub }, a, b, x.sum(y))
                }
                2 | 3 if x.most * y.most < MOST_FLOAT => self.apply2(B::Mul, a, b, x.product(y)),
                4 => {
                    let (size, plus) = (self.apply(UnaryOp::Abs, b, y), self.real(1.0));
                    let below = self.apply2(B::Add, size, plus, y.sum(Bounds::exact(1.0, 1.0)));
                    let error = x.error + x.most * below.bounds.error;
                    self.apply2(B::Div, a, below, Bounds::arithmetic(x.most, 0.0, error, 2.0))
                }
                5 => {
                    // (1/2 + |a|)^b with |a| up to 4 and |b| up to 2.
                    let (four, half) = (self.real(4.0), self.real(0.5));
                    let base = self.apply(UnaryOp::Abs, a, x);
                    let base = self.apply2(B::Min, base, four, x);
                    let base = self.apply2(B::Add, base, half, x);
                    let (low, high) = (self.real(-2.0), self.real(2.0));
                    let power = self.apply2(B::Max, b, low, y);
                    let power = self.apply2(B::Min, power, high, y);
                    let error = Bounds { most: 0.0, unit: 0.0, error: x.error + 2e-7 + y.error };
                    self.apply2(B::Pow, base, power, error.function(20.25, 40.0))
                }
                6 if exact => self.apply2(comparisons[usize::from(by / 13) % 6], a, b, one),
                7 | 8 if exact => {
                    // The divisor is an exact number of at least 1.
                    let (size, plus) = (self.apply(UnaryOp::Abs, b, y), self.real(1.0));
                    let below = self.apply2(B::Add, size, plus, y.sum(Bounds::exact(1.0, 1.0)));
                    let op = if by % 13 == 7 { B::Rem } else { B::FloorMod };
                    self.apply2(
                        op,
                        a,
                        below,
                        Bounds::arithmetic(x.most.max(y.most + 1.0), x.unit.min(y.unit), 0.0, 1.0),
                    )
                }
                9 | 10 if exact => {
                    let condition = self.apply2(comparisons[usize::from(by / 13) % 6], a, b, one);
                    let otherwise = if by % 13 == 9 { self.unary(b, 2) } else { b };
                    let e = self.vs.arena.select(condition.e, a.e, otherwise.e);
                    self.term(e, x.either(otherwise.bounds))
                }
                11 => self.apply2(B::Max, a, b, x.either(y)),
                _ => self.apply2(B::Min, a, b, x.either(y)),
            },
            Ty::I32 | Ty::I64 => {
                let wide = a.ty == Ty::I64;
                let room = |most: f64| !wide || most < MOST_LONG;
                let least = Bounds::exact(x.most.max(y.most), 1.0);
                let wrapped = |most: f64| Bounds::exact(if wide { most } else { most.min(2f64.powi(31)) }, 1.0);
                match by % 14 {
                    0 if room(x.most + y.most) => self.apply2(B::Add, a, b, wrapped(x.most + y.most)),
                    1 if room(x.most + y.most) => self.apply2(B::Sub, a, b, wrapped(x.most + y.most)),
                    2 if room(x.most * y.most) => self.apply2(B::Mul, a, b, wrapped(x.most * y.most)),
                    3 => self.apply2(B::Div, a, b, x),
                    4 => self.apply2(B::Rem, a, b, x),
                    5 => self.apply2(B::FloorDiv, a, b, wrapped(x.most + 1.0)),
                    6 => self.apply2(B::FloorMod, a, b, least),
                    7 if !wide => {
                        let op = [B::And, B::Or, B::Xor][usize::from(by / 14) % 3];
                        self.apply2(op, a, b, wrapped(2.0 * least.most + 1.0))
                    }
                    8 | 9 if !wide => {
                        let seven = self.vs.arena.int(7);
                        let seven = self.term(seven, Bounds::exact(7.0, 1.0));
                        let by_bits = self.apply2(B::And, b, seven, Bounds::exact(7.0, 1.0));
                        let (op, most) = if by % 14 == 8 { (B::Shl, x.most * 128.0) } else { (B::Shr, x.most) };
                        self.apply2(op, a, by_bits, wrapped(most))
                    }
                    10 | 11 => self.apply2(comparisons[usize::from(by / 14) % 6], a, b, one),
                    12 => self.apply2(B::Max, a, b, least),
                    _ => self.apply2(B::Min, a, b, least),
                }
            }
            _ => self.apply2([B::And, B::Or, B::Xor, B::Eq, B::Ne][usize::from(by) % 5], a, b, one),
        }
    }
}
