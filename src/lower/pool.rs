//! Pooling: MaxPool, AveragePool, LpPool, GlobalMaxPool, GlobalAveragePool, GlobalLpPool, MaxUnpool. Each is a fold
//! over the window; padding is left out by a guard.

use super::math::{binary, clamp_index, count, fold, limits, mean, ravel, real, tap, unary, unravel, window, within};
use super::program::{Block, parallel};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::pool::{unpooled, window as geometry};
use crate::graph::ops::window::Window;
use crate::kernel::{BinaryOp, ExprId, FoldOp, Scalar, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{DType, Dim, Shape, numel};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("MaxPool", max_pool),
    ("AveragePool", average_pool),
    ("LpPool", lp_pool),
    ("GlobalMaxPool", |cx| global(cx, |vs, axes, f| fold(vs, FoldOp::Max, axes, f))),
    ("GlobalAveragePool", |cx| global(cx, |vs, axes, f| mean(vs, axes, f))),
    ("GlobalLpPool", global_lp),
    ("MaxUnpool", max_unpool),
];

/// The least value of a type, as MaxPool pads with it.
fn least(vs: &mut Values, dtype: DType) -> ExprId {
    vs.arena.real(Ty::of(dtype), limits(dtype).map_or(f64::NEG_INFINITY, |l| l.0))
}

/// The element of `x` that the window at output `i` reads at tap `k`; `outside` where that is padding.
fn read(vs: &mut Values, x: ValueId, w: &Window, i: &[ExprId], k: &[ExprId], outside: ExprId) -> ExprId {
    let (at, inside) = window(vs, w, &i[2..], k);
    let e = vs.load(x, &[&i[..2], &at[..]].concat());
    vs.arena.select(inside, e, outside)
}

fn max_pool(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let shape = cx.shape(0)?;
    let w = geometry(cx.attrs(), &shape)?;
    let mut out = cx.func(|vs, i| {
        fold(vs, FoldOp::Max, &w.kernel(), |vs, k| {
            let outside = least(vs, vs.dtype(x));
            Ok(read(vs, x, &w, i, k, outside))
        })
    })?;
    if cx.wants(1) {
        let (dtype, out_shape) = cx.output(1)?;
        let column_major = cx.attrs().flag("storage_order")?;
        out.push(cx.values.func(dtype, out_shape, |vs, i| {
            let kernel = w.kernel();
            let best = fold(vs, FoldOp::ArgMax { last: false }, &[numel(&kernel)], |vs, t| {
                let k = unravel(vs, t[0], &kernel);
                let outside = least(vs, vs.dtype(x));
                Ok(read(vs, x, &w, i, &k, outside))
            })?;
            // A window of one tap has nothing to search.
            let best = if kernel.iter().all(|d| d.is(1)) { vs.arena.int(0) } else { best };
            let k = unravel(vs, best, &kernel);
            let mut at: Vec<ExprId> = vec![];
            for (n, s) in w.0.iter().enumerate() {
                at.push(tap(vs, s, i[n + 2], k[n]));
            }
            let mut sizes: Shape = shape[2..].to_vec();
            if column_major {
                at.reverse();
                sizes.reverse();
            }
            let flat = ravel(vs, &[&i[..2], &at[..]].concat(), &[&shape[..2], &sizes[..]].concat());
            Ok(vs.arena.cast(Ty::I64, flat))
        })?);
    }
    Ok(out)
}

/// How many taps of the window at output `i` count: those inside the input, or inside the padded input.
fn taps(vs: &mut Values, w: &Window, i: &[ExprId], padding: bool, ty: Ty) -> Result<ExprId> {
    let mut n = vs.arena.real(ty, 1.0);
    for (axis, s) in w.0.iter().enumerate() {
        let (begin, end) = (&s.begin, &s.end);
        let padded = s.size.add(begin).add(end);
        let all = !s.overhangs && (padding || begin.is(0) && end.is(0));
        let along = if all {
            count(vs, ty, std::slice::from_ref(&s.kernel))
        } else if s.dilation == 1 {
            // The overlap of the window and the input, both as ranges.
            let zero = vs.arena.int(0);
            let first = tap(vs, s, i[axis + 2], zero);
            let kernel = vs.arena.dim(&s.kernel);
            let last = vs.arena.add(first, kernel);
            let (low, high) =
                if padding { (Dim::from(0).sub(begin), s.size.add(end)) } else { (Dim::from(0), s.size.clone()) };
            let (low, high) = (vs.arena.dim(&low), vs.arena.dim(&high));
            let first = binary(vs, BinaryOp::Max, first, low);
            let last = binary(vs, BinaryOp::Min, last, high);
            let n = vs.arena.sub(last, first);
            vs.arena.cast(ty, n)
        } else {
            fold(vs, FoldOp::Sum, std::slice::from_ref(&s.kernel), |vs, k| {
                let mut at = tap(vs, s, i[axis + 2], k[0]);
                if padding {
                    let begin = vs.arena.dim(begin);
                    at = vs.arena.add(at, begin);
                }
                let inside = within(vs, at, if padding { &padded } else { &s.size });
                let (one, none) = (vs.arena.real(ty, 1.0), vs.arena.real(ty, 0.0));
                Ok(vs.arena.select(inside, one, none))
            })?
        };
        n = if axis == 0 { along } else { vs.arena.mul(n, along) };
    }
    Ok(n)
}

fn average_pool(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let w = geometry(cx.attrs(), &cx.shape(0)?)?;
    let padding = cx.attrs().flag("count_include_pad")?;
    cx.func(|vs, i| {
        let ty = vs.ty(x);
        let sum = fold(vs, FoldOp::Sum, &w.kernel(), |vs, k| {
            let outside = vs.arena.real(ty, 0.0);
            Ok(read(vs, x, &w, i, k, outside))
        })?;
        let n = taps(vs, &w, i, padding, ty)?;
        Ok(vs.arena.div(sum, n))
    })
}

/// `|x|^p`.
pub(super) fn power(vs: &mut Values, x: ExprId, p: i64) -> ExprId {
    match p {
        1 => unary(vs, UnaryOp::Abs, x),
        2 => vs.arena.mul(x, x),
        _ => {
            let x = unary(vs, UnaryOp::Abs, x);
            let ty = vs.arena.ty(x);
            let p = vs.arena.constant(Scalar::int(ty, p));
            binary(vs, BinaryOp::Pow, x, p)
        }
    }
}

/// `x^(1/p)`.
#[allow(clippy::cast_precision_loss)]
pub(super) fn root(vs: &mut Values, x: ExprId, p: i64) -> ExprId {
    match p {
        1 => x,
        2 => unary(vs, UnaryOp::Sqrt, x),
        _ => {
            let p = real(vs, x, 1.0 / p as f64);
            binary(vs, BinaryOp::Pow, x, p)
        }
    }
}

fn lp_pool(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let w = geometry(cx.attrs(), &cx.shape(0)?)?;
    let p = cx.attrs().int("p")?;
    cx.func(|vs, i| {
        let sum = fold(vs, FoldOp::Sum, &w.kernel(), |vs, k| {
            let outside = vs.arena.real(vs.ty(x), 0.0);
            let x = read(vs, x, &w, i, k, outside);
            Ok(power(vs, x, p))
        })?;
        Ok(root(vs, sum, p))
    })
}

/// Pools everything behind the second axis.
fn global(
    cx: &mut Cx<'_>,
    combine: impl FnOnce(&mut Values, &[Dim], &dyn Fn(&mut Values, &[ExprId]) -> Result<ExprId>) -> Result<ExprId>,
) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axes = cx.shape(0)?[2..].to_vec();
    cx.func(|vs, i| combine(vs, &axes, &|vs, k| Ok(vs.load(x, &[&i[..2], k].concat()))))
}

fn global_lp(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let p = cx.attrs().int("p")?;
    global(cx, |vs, axes, f| {
        let sum = fold(vs, FoldOp::Sum, axes, |vs, k| {
            let x = f(vs, k)?;
            Ok(power(vs, x, p))
        })?;
        Ok(root(vs, sum, p))
    })
}

/// Zeros, then every element stored where its index says. An index that leaves its channel's plane is left out.
fn max_unpool(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.shape(0)?;
    let plane = unpooled(cx.attrs(), &shape)?;
    let (dtype, out) = cx.output(0)?;
    cx.values.program(vec![(dtype, out.clone())], |vs, y| {
        let (axes, outer) = parallel(vs, &out[..2]);
        let mut block = Block::new(vs);
        block.all(&out[2..], |block, at| {
            let zero = block.vs.arena.constant(Scalar::int(Ty::of(dtype), 0));
            block.store(y[0], &[&outer[..], at].concat(), zero);
            Ok(())
        })?;
        let size = numel(&plane[2..]);
        block.all(&shape[2..], |block, at| {
            let from = [&outer[..], at].concat();
            let vs = &mut *block.vs;
            let (e, flat) = (vs.load(x, &from), vs.load(indices, &from));
            let flat = vs.arena.cast(Ty::I32, flat);
            let first = ravel(vs, &outer, &plane[..2]);
            let area = vs.arena.dim(&size);
            let first = vs.arena.mul(first, area);
            let local = vs.arena.sub(flat, first);
            let inside = within(vs, local, &size);
            let local = clamp_index(vs, local, &size);
            let place = unravel(vs, local, &plane[2..]);
            block.when(inside, |block| {
                block.store(y[0], &[&outer[..], &place].concat(), e);
                Ok(())
            })
        })?;
        Ok((axes, block.stmts))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Int, Ints, Str};
    use crate::lower::testing::{In, f32s, i64s, near, ramp};

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn pooling() {
        near(
            "indices",
            "MaxPool",
            &[("kernel_shape", Ints(vec![2, 2])), ("strides", Ints(vec![1, 2]))],
            &[In::Data(ramp(&[1, 2, 3, 4], 7, 1.0))],
            &[
                f32s(&[1, 2, 2, 2], &[2.0, 5.0, 3.0, 4.0, 4.0, 5.0, 4.0, 2.0]),
                i64s(&[1, 2, 2, 2], &[1.0, 3.0, 9.0, 6.0, 17.0, 14.0, 17.0, 23.0]),
            ],
            TOLERANCE,
        );
        near(
            "column-major indices, padded",
            "MaxPool",
            &[
                ("kernel_shape", Ints(vec![2, 2])),
                ("strides", Ints(vec![2, 2])),
                ("pads", Ints(vec![1, 1, 1, 1])),
                ("storage_order", Int(1)),
            ],
            &[In::Symbolic(ramp(&[1, 1, 3, 3], 7, 1.0), &["", "", "h", "w"])],
            &[f32s(&[1, 1, 2, 2], &[-5.0, 2.0, 5.0, 1.0]), i64s(&[1, 1, 2, 2], &[0.0, 3.0, 1.0, 4.0])],
            TOLERANCE,
        );
        near(
            "dilated",
            "MaxPool",
            &[("kernel_shape", Ints(vec![2])), ("dilations", Ints(vec![3]))],
            &[In::Data(ramp(&[1, 1, 5], 7, 1.0))],
            &[f32s(&[1, 1, 2], &[5.0, 2.0])],
            TOLERANCE,
        );
        near(
            "ceil",
            "MaxPool",
            &[("kernel_shape", Ints(vec![3])), ("strides", Ints(vec![2])), ("ceil_mode", Int(1))],
            &[In::Symbolic(ramp(&[1, 1, 6], 7, 1.0), &["", "", "w"])],
            &[f32s(&[1, 1, 3], &[2.0, 5.0, 1.0])],
            TOLERANCE,
        );
        near(
            "padding left out",
            "AveragePool",
            &[("kernel_shape", Ints(vec![2, 2])), ("pads", Ints(vec![1, 1, 0, 0]))],
            &[In::Data(ramp(&[1, 1, 3, 3], 7, 1.0))],
            &[f32s(&[1, 1, 3, 3], &[-5.0, -1.5, 0.0, 0.0, 0.75, -0.5, 4.5, 2.5, -1.5])],
            TOLERANCE,
        );
        near(
            "padding counted",
            "AveragePool",
            &[("kernel_shape", Ints(vec![2, 2])), ("pads", Ints(vec![1, 1, 0, 0])), ("count_include_pad", Int(1))],
            &[In::Symbolic(ramp(&[1, 1, 3, 3], 7, 1.0), &["", "", "h", "w"])],
            &[f32s(&[1, 1, 3, 3], &[-1.25, -0.75, 0.0, 0.0, 0.75, -0.5, 2.25, 2.5, -1.5])],
            TOLERANCE,
        );
        near(
            "ceil, padding counted",
            "AveragePool",
            &[
                ("kernel_shape", Ints(vec![3])),
                ("strides", Ints(vec![2])),
                ("pads", Ints(vec![1, 0])),
                ("ceil_mode", Int(1)),
                ("count_include_pad", Int(1)),
            ],
            &[In::Data(ramp(&[1, 1, 6], 7, 1.0))],
            &[f32s(&[1, 1, 3], &[-1.0, 1.66667, 1.0])],
            TOLERANCE,
        );
        near(
            "dilated average",
            "AveragePool",
            &[("kernel_shape", Ints(vec![2])), ("dilations", Ints(vec![2])), ("pads", Ints(vec![1, 1]))],
            &[In::Data(ramp(&[1, 1, 5], 7, 1.0))],
            &[f32s(&[1, 1, 5], &[2.0, -3.5, 3.5, -0.5, 5.0])],
            TOLERANCE,
        );
        near(
            "same upper",
            "AveragePool",
            &[("kernel_shape", Ints(vec![2])), ("strides", Ints(vec![2])), ("auto_pad", Str("SAME_UPPER".into()))],
            &[In::Data(ramp(&[1, 1, 5], 7, 1.0))],
            &[f32s(&[1, 1, 3], &[-1.5, 1.5, 1.0])],
            TOLERANCE,
        );
        near(
            "norm of order 3",
            "LpPool",
            &[("kernel_shape", Ints(vec![2])), ("p", Int(3))],
            &[In::Data(ramp(&[1, 1, 5], 7, 1.0))],
            &[f32s(&[1, 1, 4], &[5.10447, 2.51984, 5.10447, 5.0133])],
            TOLERANCE,
        );
        near(
            "global average",
            "GlobalAveragePool",
            &[],
            &[In::Symbolic(ramp(&[2, 2, 3], 7, 1.0), &["n", "", "w"])],
            &[f32s(&[2, 2, 1], &[-1.66667, 1.0, 0.0, -1.0])],
            TOLERANCE,
        );
        near(
            "global maximum",
            "GlobalMaxPool",
            &[],
            &[In::Data(ramp(&[1, 2, 2, 2], 7, 1.0))],
            &[f32s(&[1, 2, 1, 1], &[5.0, 4.0])],
            TOLERANCE,
        );
        near(
            "unpooled",
            "MaxUnpool",
            &[("kernel_shape", Ints(vec![2, 2])), ("strides", Ints(vec![2, 2]))],
            &[
                In::Data(f32s(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0])),
                In::Data(i64s(&[1, 1, 2, 2], &[5.0, 7.0, 13.0, 15.0])),
            ],
            &[f32s(&[1, 1, 4, 4], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 4.0])],
            TOLERANCE,
        );
    }
}
