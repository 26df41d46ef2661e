//! What lowerings share: short names for expressions, windows over padded inputs, rounding to narrow types.

use crate::error::Result;
use crate::graph::ops::window::{Slide, Window};
use crate::kernel::{BinaryOp, ExprId, FoldOp, Scalar, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{DType, Dim, numel};

pub(super) fn binary(vs: &mut Values, op: BinaryOp, a: ExprId, b: ExprId) -> ExprId {
    vs.arena.binary(op, a, b)
}

pub(super) fn unary(vs: &mut Values, op: UnaryOp, a: ExprId) -> ExprId {
    vs.arena.unary(op, a)
}

/// A real constant of the type of `like`.
pub(super) fn real(vs: &mut Values, like: ExprId, x: f64) -> ExprId {
    let ty = vs.arena.ty(like);
    vs.arena.real(ty, x)
}

/// `a + b · factor` over `I32`, for index arithmetic.
pub(super) fn scaled(vs: &mut Values, a: ExprId, b: ExprId, factor: i64) -> ExprId {
    let f = vs.arena.int(factor);
    let b = vs.arena.mul(b, f);
    vs.arena.add(a, b)
}

/// A dim converted to a type.
pub(super) fn dim_as(vs: &mut Values, ty: Ty, d: &Dim) -> ExprId {
    match d.known() {
        Some(n) => vs.arena.constant(Scalar::int(ty, n)),
        None => {
            let d = vs.arena.dim(d);
            vs.arena.cast(ty, d)
        }
    }
}

/// How many elements the dims have, in a type.
pub(super) fn count(vs: &mut Values, ty: Ty, dims: &[Dim]) -> ExprId {
    dim_as(vs, ty, &numel(dims))
}

/// `body` combined over axes of the given extents; those of extent 1 become the index 0.
pub(super) fn fold(
    vs: &mut Values,
    op: FoldOp,
    extents: &[Dim],
    f: impl FnOnce(&mut Values, &[ExprId]) -> Result<ExprId>,
) -> Result<ExprId> {
    let real: Vec<Dim> = extents.iter().filter(|d| !d.is(1)).cloned().collect();
    let spread = |vs: &mut Values, index: &[ExprId]| -> Vec<ExprId> {
        let mut rest = index.iter();
        let zero = vs.arena.int(0);
        extents.iter().map(|d| if d.is(1) { zero } else { rest.next().copied().unwrap_or(zero) }).collect()
    };
    if real.is_empty() {
        let index = spread(vs, &[]);
        return f(vs, &index);
    }
    vs.fold(op, &real, |vs, index| {
        let index = spread(vs, index);
        f(vs, &index)
    })
}

/// The mean over all elements that `f` gives for axes of these extents.
pub(super) fn mean(
    vs: &mut Values,
    extents: &[Dim],
    f: impl FnOnce(&mut Values, &[ExprId]) -> Result<ExprId>,
) -> Result<ExprId> {
    let sum = fold(vs, FoldOp::Sum, extents, f)?;
    let ty = vs.arena.ty(sum);
    let n = count(vs, ty, extents);
    Ok(vs.arena.div(sum, n))
}

/// `x · x`.
pub(super) fn square(vs: &mut Values, x: ExprId) -> ExprId {
    vs.arena.mul(x, x)
}

/// `x` limited to `low..=high`.
pub(super) fn clamp(vs: &mut Values, x: ExprId, low: ExprId, high: ExprId) -> ExprId {
    let x = binary(vs, BinaryOp::Max, x, low);
    binary(vs, BinaryOp::Min, x, high)
}

/// `I32` index `x` limited to `0..n`.
pub(super) fn clamp_index(vs: &mut Values, x: ExprId, n: &Dim) -> ExprId {
    let zero = vs.arena.int(0);
    let last = vs.arena.dim(&n.sub(&Dim::from(1)));
    clamp(vs, x, zero, last)
}

/// `0 <= x` and `x < n` as one bool, without what is known to hold.
pub(super) fn within(vs: &mut Values, x: ExprId, n: &Dim) -> ExprId {
    let zero = vs.arena.int(0);
    let n = vs.arena.dim(n);
    let low = vs.arena.ge(x, zero);
    let high = vs.arena.lt(x, n);
    vs.arena.and(low, high)
}

/// The value of a tensor of one element, whatever its rank.
pub(super) fn scalar(vs: &mut Values, v: ValueId) -> ExprId {
    let zero = vs.arena.int(0);
    let index = vec![zero; vs.shape(v).len()];
    vs.load(v, &index)
}

/// The coordinates in `shape` of the flat row-major index `flat`.
pub(super) fn unravel(vs: &mut Values, flat: ExprId, shape: &[Dim]) -> Vec<ExprId> {
    let mut index = vec![];
    for i in 0..shape.len() {
        let stride = vs.arena.dim(&numel(&shape[i + 1..]));
        let mut at = binary(vs, BinaryOp::FloorDiv, flat, stride);
        if i > 0 {
            let n = vs.arena.dim(&shape[i]);
            at = binary(vs, BinaryOp::FloorMod, at, n);
        }
        index.push(at);
    }
    index
}

/// The flat row-major index of coordinates in `shape`.
pub(super) fn ravel(vs: &mut Values, index: &[ExprId], shape: &[Dim]) -> ExprId {
    let mut flat = vs.arena.int(0);
    for (i, d) in index.iter().zip(shape) {
        let d = vs.arena.dim(d);
        flat = vs.arena.mul(flat, d);
        flat = vs.arena.add(flat, *i);
    }
    flat
}

/// Where a window reads its input, one index a spatial axis, for output position `out` and tap `k`; and the condition
/// under which that lies inside the input, `true` where it always does.
pub(super) fn window(vs: &mut Values, w: &Window, out: &[ExprId], k: &[ExprId]) -> (Vec<ExprId>, ExprId) {
    let mut index = vec![];
    let mut guard = vs.arena.constant(Scalar::bool(true));
    for (i, s) in w.0.iter().enumerate() {
        let at = tap(vs, s, out[i], k[i]);
        let zero = vs.arena.int(0);
        let low = vs.arena.ge(at, zero);
        guard = vs.arena.and(guard, low);
        // The output's size is such that the last window ends within the padding.
        if s.overhangs || s.end.known().is_none_or(|n| n > 0) {
            let size = vs.arena.dim(&s.size);
            let high = vs.arena.lt(at, size);
            guard = vs.arena.and(guard, high);
        }
        index.push(at);
    }
    (index, guard)
}

/// `out · stride + k · dilation - begin`.
pub(super) fn tap(vs: &mut Values, s: &Slide, out: ExprId, k: ExprId) -> ExprId {
    let zero = vs.arena.int(0);
    let at = scaled(vs, zero, out, s.stride);
    let at = scaled(vs, at, k, s.dilation);
    let begin = vs.arena.dim(&s.begin);
    vs.arena.sub(at, begin)
}

/// The inverse of [`tap`]: which window writes output `out` with its tap `k` in a transposed convolution, of `s.size`
/// windows, and whether there is one.
pub(super) fn untap(vs: &mut Values, s: &Slide, out: ExprId, k: ExprId) -> (ExprId, ExprId) {
    // Shifted by a multiple of the stride, so that division never sees a negative number.
    let step = Dim::from(s.stride);
    let shift = s.span().ceil_div(&step);
    let begin = vs.arena.dim(&s.begin.add(&shift.mul(&step)));
    let t = vs.arena.add(out, begin);
    let t = scaled(vs, t, k, -s.dilation);
    let step = vs.arena.int(s.stride);
    let rest = binary(vs, BinaryOp::FloorMod, t, step);
    let zero = vs.arena.int(0);
    let whole = binary(vs, BinaryOp::Eq, rest, zero);
    let t = binary(vs, BinaryOp::FloorDiv, t, step);
    let shift = vs.arena.dim(&shift);
    let at = vs.arena.sub(t, shift);
    let fits = within(vs, at, &s.size);
    let inside = vs.arena.and(whole, fits);
    (at, inside)
}

/// The least and greatest value of an integer type of at most 32 bits.
pub(super) fn limits(dtype: DType) -> Option<(f64, f64)> {
    let bits = i32::try_from(dtype.size() * 8).ok().filter(|b| *b <= 32 && dtype.is_int())?;
    Some(if dtype.is_unsigned() {
        (0.0, 2f64.powi(bits) - 1.0)
    } else {
        (-2f64.powi(bits - 1), 2f64.powi(bits - 1) - 1.0)
    })
}

/// `saturate(round(x) + zero)` as an element of an integer type: `x` is a float, `zero` an element of that type.
pub(super) fn quantized(vs: &mut Values, x: ExprId, zero: Option<ExprId>, dtype: DType) -> ExprId {
    let mut x = unary(vs, UnaryOp::Round, x);
    let ty = vs.arena.ty(x);
    if let Some(zero) = zero {
        let zero = vs.arena.cast(ty, zero);
        x = vs.arena.add(x, zero);
    }
    saturated(vs, x, dtype)
}

/// A float as an element of `dtype`: limited to the type's range and truncated where that is an integer type.
pub(super) fn saturated(vs: &mut Values, mut x: ExprId, dtype: DType) -> ExprId {
    if let Some((low, high)) = limits(dtype) {
        let (low, high) = (real(vs, x, low), real(vs, x, high));
        x = clamp(vs, x, low, high);
    }
    vs.arena.cast(Ty::of(dtype), x)
}
