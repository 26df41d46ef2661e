//! Scalar formulas written as formulas: `x * 0.5 * (x.erf() + 1.0)`.

use crate::kernel::{Arena, BinaryOp, ExprId, Scalar, Ty, UnaryOp};
use std::cell::RefCell;
use std::ops;

/// An expression while a formula is written down. Numbers beside it take its type.
#[derive(Clone, Copy)]
pub struct X<'a> {
    arena: &'a RefCell<Arena>,
    pub id: ExprId,
}

/// The expression that `f` makes of `inputs`.
pub fn formula(arena: &mut Arena, inputs: &[ExprId], f: impl for<'a> FnOnce(&[X<'a>]) -> X<'a>) -> ExprId {
    let cell = RefCell::new(std::mem::take(arena));
    let id = {
        let inputs: Vec<X<'_>> = inputs.iter().map(|id| X { arena: &cell, id: *id }).collect();
        f(&inputs).id
    };
    *arena = cell.into_inner();
    id
}

/// What may stand on the right of an operator: an expression, or a number of its type.
pub trait Operand<'a> {
    fn beside(self, x: X<'a>) -> X<'a>;
}

impl<'a> Operand<'a> for X<'a> {
    fn beside(self, _: X<'a>) -> X<'a> {
        self
    }
}

impl<'a> Operand<'a> for f64 {
    fn beside(self, x: X<'a>) -> X<'a> {
        x.number(self)
    }
}

impl<'a> Operand<'a> for i64 {
    fn beside(self, x: X<'a>) -> X<'a> {
        x.constant(Scalar::int(x.ty(), self))
    }
}

impl<'a> X<'a> {
    fn with(self, id: ExprId) -> X<'a> {
        X { id, ..self }
    }

    /// The type in which it is computed.
    pub fn ty(self) -> Ty {
        self.arena.borrow().ty(self.id)
    }

    /// The value, where it is an integer or bool constant.
    pub fn known(self) -> Option<i64> {
        self.arena.borrow().as_int(self.id)
    }

    pub fn constant(self, s: Scalar) -> X<'a> {
        let id = self.arena.borrow_mut().constant(s);
        self.with(id)
    }

    /// A real number of this expression's type.
    pub fn number(self, x: f64) -> X<'a> {
        self.constant(Scalar::real(self.ty(), x))
    }

    pub fn unary(self, op: UnaryOp) -> X<'a> {
        let id = self.arena.borrow_mut().unary(op, self.id);
        self.with(id)
    }

    pub fn binary(self, op: BinaryOp, b: impl Operand<'a>) -> X<'a> {
        let b = b.beside(self);
        let id = self.arena.borrow_mut().binary(op, self.id, b.id);
        self.with(id)
    }

    /// `if self { a } else { b }`; a number takes the other branch's type, so one of the two must be an expression.
    pub fn select(self, a: X<'a>, b: impl Operand<'a>) -> X<'a> {
        let b = b.beside(a);
        let id = self.arena.borrow_mut().select(self.id, a.id, b.id);
        self.with(id)
    }

    pub fn cast(self, ty: Ty) -> X<'a> {
        let id = self.arena.borrow_mut().cast(ty, self.id);
        self.with(id)
    }

    pub fn abs(self) -> X<'a> {
        if matches!(self.ty(), Ty::U32 | Ty::U64) { self } else { self.unary(UnaryOp::Abs) }
    }
    pub fn exp(self) -> X<'a> {
        self.unary(UnaryOp::Exp)
    }
    pub fn log(self) -> X<'a> {
        self.unary(UnaryOp::Log)
    }
    pub fn sqrt(self) -> X<'a> {
        self.unary(UnaryOp::Sqrt)
    }
    pub fn round(self) -> X<'a> {
        self.unary(UnaryOp::Round)
    }
    pub fn min(self, b: impl Operand<'a>) -> X<'a> {
        self.binary(BinaryOp::Min, b)
    }
    pub fn max(self, b: impl Operand<'a>) -> X<'a> {
        self.binary(BinaryOp::Max, b)
    }
    pub fn lt(self, b: impl Operand<'a>) -> X<'a> {
        self.binary(BinaryOp::Lt, b)
    }
    pub fn gt(self, b: impl Operand<'a>) -> X<'a> {
        self.binary(BinaryOp::Gt, b)
    }
    pub fn ge(self, b: impl Operand<'a>) -> X<'a> {
        self.binary(BinaryOp::Ge, b)
    }
    pub fn eq(self, b: impl Operand<'a>) -> X<'a> {
        self.binary(BinaryOp::Eq, b)
    }
    pub fn and(self, b: X<'a>) -> X<'a> {
        self.binary(BinaryOp::And, b)
    }
    pub fn or(self, b: X<'a>) -> X<'a> {
        self.binary(BinaryOp::Or, b)
    }

    /// `c[0] + c[1] x + c[2] x² …`
    pub fn polynomial(self, c: &[f64]) -> X<'a> {
        let (last, rest) = c.split_last().unwrap_or((&0.0, &[]));
        rest.iter().rev().fold(self.number(*last), |sum, c| sum * self + *c)
    }

    /// `eˣ - 1`, also for small x. Relative error below 1e-6 in `F32`.
    pub fn exp_m1(self) -> X<'a> {
        let small =
            self * self.polynomial(&[1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0]);
        self.abs().lt(0.5).select(small, self.exp() - 1.0)
    }

    /// `log(1 + x)`, also for small x: the series of `2 atanh(x / (2 + x))`. Relative error below 2e-6 in `F32`.
    pub fn log_1p(self) -> X<'a> {
        let s = self / (self + 2.0);
        let odd: Vec<f64> = (0..6).map(|n| 2.0 / f64::from(2 * n + 1)).collect();
        let small = s * (s * s).polynomial(&odd);
        self.abs().lt(0.5).select(small, (self + 1.0).log())
    }

    /// `1 / (1 + e⁻ˣ)` without overflow.
    pub fn sigmoid(self) -> X<'a> {
        let e = (-self.abs()).exp();
        let low = e / (e + 1.0);
        self.ge(0.0).select(self.number(1.0) / (e + 1.0), low)
    }

    /// This with the sign of `x`.
    pub fn copy_sign(self, x: X<'a>) -> X<'a> {
        x.lt(0.0).select(-self, self)
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:ident) => {
        impl<'a, T: Operand<'a>> ops::$trait<T> for X<'a> {
            type Output = X<'a>;
            fn $method(self, b: T) -> X<'a> {
                self.binary(BinaryOp::$op, b)
            }
        }
    };
}
operator!(Add, add, Add);
operator!(Sub, sub, Sub);
operator!(Mul, mul, Mul);
operator!(Div, div, Div);

impl<'a> ops::Neg for X<'a> {
    type Output = X<'a>;
    fn neg(self) -> X<'a> {
        self.unary(UnaryOp::Neg)
    }
}
