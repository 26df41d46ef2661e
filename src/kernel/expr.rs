//! Scalar expressions: the nodes, their types, their operators.

use super::program::Var;
use super::values::ValueId;
use crate::tensor::{DType, Dim};

/// The type in which a scalar is computed. Narrow types compute in 32 bits and wrap or round when stored; on the GPU
/// 64-bit integers compute in 32 bits with an overflow check, and `F64` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ty {
    F32,
    F64,
    I32,
    I64,
    U32,
    U64,
    Bool,
}

impl Ty {
    /// The type in which elements of `dtype` are computed.
    pub const fn of(dtype: DType) -> Ty {
        match dtype {
            DType::Float32 | DType::Float16 | DType::BFloat16 => Ty::F32,
            DType::Float64 => Ty::F64,
            DType::Int8 | DType::Int16 | DType::Int32 => Ty::I32,
            DType::Int64 => Ty::I64,
            DType::Uint8 | DType::Uint16 | DType::Uint32 => Ty::U32,
            DType::Uint64 => Ty::U64,
            DType::Bool => Ty::Bool,
        }
    }

    /// Whether this is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, Ty::F32 | Ty::F64)
    }
}

/// A constant: its type and its bits (floats as IEEE 754 bits, integers in two's complement, bool 0 or 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scalar {
    pub ty: Ty,
    pub bits: u64,
}

impl Scalar {
    pub fn f32(x: f32) -> Self {
        Scalar { ty: Ty::F32, bits: u64::from(x.to_bits()) }
    }

    pub fn f64(x: f64) -> Self {
        Scalar { ty: Ty::F64, bits: x.to_bits() }
    }

    pub fn bool(x: bool) -> Self {
        Scalar { ty: Ty::Bool, bits: u64::from(x) }
    }

    /// A whole number in any type; integers wrap to the type's width.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    pub fn int(ty: Ty, n: i64) -> Self {
        match ty {
            Ty::F32 => Scalar::f32(n as f32),
            Ty::F64 => Scalar::f64(n as f64),
            Ty::I32 => Scalar { ty, bits: u64::from(n as i32 as u32) },
            Ty::U32 => Scalar { ty, bits: u64::from(n as u32) },
            Ty::I64 | Ty::U64 => Scalar { ty, bits: n as u64 },
            Ty::Bool => Scalar::bool(n != 0),
        }
    }

    /// A real number in any type; integers truncate towards zero and saturate.
    #[allow(clippy::cast_possible_truncation)]
    pub fn real(ty: Ty, x: f64) -> Self {
        match ty {
            Ty::F32 => Scalar::f32(x as f32),
            Ty::F64 => Scalar::f64(x),
            _ => Scalar::int(ty, x as i64),
        }
    }

    /// The value as a whole number, for integer types and bool.
    #[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation)]
    pub fn as_int(self) -> Option<i64> {
        match self.ty {
            Ty::F32 | Ty::F64 => None,
            Ty::I32 => Some(i64::from(self.bits as u32 as i32)),
            Ty::U32 | Ty::Bool => Some(self.bits as u32 as i64),
            Ty::I64 | Ty::U64 => Some(self.bits as i64),
        }
    }

    /// The value as a real number.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    pub fn as_f64(self) -> f64 {
        match self.ty {
            Ty::F32 => f64::from(f32::from_bits(self.bits as u32)),
            Ty::F64 => f64::from_bits(self.bits),
            Ty::U64 => self.bits as f64,
            _ => self.as_int().map_or(0.0, |n| n as f64),
        }
    }
}

/// A loop axis: an index that runs from 0 below its extent. Every axis is unique to the function or fold that binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Axis(pub u32);

/// An expression in an [`super::Arena`]. Equal ids are equal expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExprId(pub u32);

/// Operators of one operand. The result has the operand's type unless stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnaryOp {
    Neg,
    Abs,
    /// Logical not of a bool, bitwise not of an integer.
    Not,
    /// -1, 0 or 1; 0 for -0, NaN for NaN.
    Sign,
    Floor,
    Ceil,
    Trunc,
    /// To the nearest whole number, ties to even.
    Round,
    Sqrt,
    Exp,
    Log,
    Sin,
    Cos,
    Asin,
    Acos,
    Atan,
    Tanh,
    Erf,
    /// Bool.
    IsNan,
    /// Bool; either sign.
    IsInf,
    /// The same 32 bits as another type (`F32` <-> `I32`/`U32`).
    Bitcast(Ty),
    /// Conversion: float to integer truncates and saturates, wider to narrower integers wrap, anything to bool is `!= 0`.
    Cast(Ty),
    /// Rounds an `F32` to the nearest value of binary16 (ties to even), still an `F32`.
    RoundF16,
    /// Rounds an `F32` to the nearest value of bfloat16 (ties to even), still an `F32`.
    RoundBf16,
}

/// Operators of two operands of one type. Comparisons give bool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    /// Integers truncate towards zero. Division of an integer by zero gives 0 on every target.
    Div,
    /// Remainder with the sign of the dividend (C `fmod`, `%`).
    Rem,
    /// `⌊a / b⌋` for integers; also used for index arithmetic, where both are never negative.
    FloorDiv,
    /// Remainder with the sign of the divisor (Python `%`).
    FloorMod,
    /// NaN where either is.
    Min,
    /// NaN where either is.
    Max,
    /// Floating point only.
    Pow,
    /// Logical on bool, bitwise on integers.
    And,
    Or,
    Xor,
    Shl,
    /// Arithmetic on signed, logical on unsigned types.
    Shr,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl BinaryOp {
    pub const fn is_comparison(self) -> bool {
        matches!(self, BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge)
    }
}

/// How a fold combines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FoldOp {
    Sum,
    Prod,
    /// Over nothing: the least value of the type. NaN where any element is.
    Max,
    /// Over nothing: the greatest value of the type. NaN where any element is.
    Min,
    /// `I32`: the index along the single axis of the greatest element, the first or the last of equals.
    ArgMax {
        last: bool,
    },
    /// `I32`: the index along the single axis of the least element, the first or the last of equals.
    ArgMin {
        last: bool,
    },
}

/// An expression node. Index expressions are ordinary expressions of type `I32`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    Const(Scalar),
    /// A dimension at run time, `I32`.
    Dim(Dim),
    /// A loop variable, `I32`.
    Axis(Axis),
    /// A variable of a [`super::Program`].
    Var(Var, Ty),
    /// An element of a value at logical coordinates, one index an axis. It must lie inside the value, unless the load
    /// stands in the taken-or-not branch of a [`Node::Select`]: then it is only evaluated where its branch is taken (the
    /// GPU may evaluate it anyway, clamped).
    Load {
        value: ValueId,
        index: Box<[ExprId]>,
    },
    Unary(UnaryOp, ExprId),
    Binary(BinaryOp, ExprId, ExprId),
    /// `if condition { then } else { otherwise }`; only the taken branch's loads need to be in bounds.
    Select {
        condition: ExprId,
        then: ExprId,
        otherwise: ExprId,
    },
    /// `body` combined over `axes`, which it binds.
    Fold {
        op: FoldOp,
        axes: Box<[Axis]>,
        body: ExprId,
    },
}
