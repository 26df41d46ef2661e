//! Selection and small linear algebra: TopK, Det, as programs.

use super::math::{binary, clamp_index, real, unary};
use super::program::{Block, parallel};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::rules;
use crate::kernel::{BinaryOp, ExprId, Scalar, Ty, UnaryOp, ValueId};

pub(super) const ROWS: &[(&str, Lower)] = &[("TopK", top_k), ("Det", det)];

/// Selects one element after the other: each is the best of those that come behind the last one chosen, by value, and
/// by index among equals. In parallel over the other axes.
fn top_k(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let shape = cx.shape(0)?;
    let axis = rules::axis(cx.attrs().int("axis")?, shape.len())?;
    let better = if cx.attrs().flag("largest")? { BinaryOp::Gt } else { BinaryOp::Lt };
    let (dtype, out) = cx.output(0)?;
    let mut others = shape.clone();
    others.remove(axis);
    let written = vec![(dtype, out.clone()), (crate::tensor::DType::Int64, out.clone())];
    cx.values.program(written, |vs, y| {
        let (axes, outer) = parallel(vs, &others);
        let at = |i: ExprId| [&outer[..axis], &[i], &outer[axis..]].concat();
        let mut block = Block::new(vs);
        let none = block.vs.arena.int(-1);
        let start = block.vs.arena.constant(Scalar::int(Ty::of(dtype), 0));
        let last = (block.variable(start), block.variable(none));
        block.each(&out[axis], |block, k| {
            let best = (block.variable(start), block.variable(none));
            block.each(&shape[axis], |block, i| {
                let e = block.vs.load(x, &at(i));
                let e = block.once(e);
                let (last_value, last_index) = (block.get(last.0), block.get(last.1));
                let (best_value, best_index) = (block.get(best.0), block.get(best.1));
                let vs = &mut *block.vs;
                let zero = vs.arena.int(0);
                let first = binary(vs, BinaryOp::Lt, last_index, zero);
                let worse = binary(vs, better, last_value, e);
                let equal = binary(vs, BinaryOp::Eq, last_value, e);
                let later = binary(vs, BinaryOp::Gt, i, last_index);
                let later = vs.arena.and(equal, later);
                let open = binary(vs, BinaryOp::Or, worse, later);
                let open = binary(vs, BinaryOp::Or, first, open);
                let unset = binary(vs, BinaryOp::Lt, best_index, zero);
                let wins = binary(vs, better, e, best_value);
                let wins = binary(vs, BinaryOp::Or, unset, wins);
                let take = vs.arena.and(open, wins);
                block.when(take, |block| {
                    block.set(best.0, e);
                    block.set(best.1, i);
                    Ok(())
                })
            })?;
            // Where nothing compares (NaN), the last index stands.
            let found = block.get(best.1);
            let found = clamp_index(block.vs, found, &shape[axis]);
            let e = block.vs.load(x, &at(found));
            block.store(y[0], &at(k), e);
            let index = block.vs.arena.cast(Ty::I64, found);
            block.store(y[1], &at(k), index);
            block.set(last.0, e);
            block.set(last.1, found);
            Ok(())
        })?;
        Ok((axes, block.stmts))
    })
}

/// Gaussian elimination with partial pivoting on a copy of each matrix.
fn det(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let shape = cx.shape(0)?;
    let (dtype, out) = cx.output(0)?;
    let n = shape[shape.len() - 1].clone();
    cx.values.program(vec![(dtype, out.clone()), (dtype, shape)], |vs, y| {
        let (axes, outer) = parallel(vs, &out);
        let at = |i: ExprId, j: ExprId| [&outer[..], &[i, j]].concat();
        let copy = y[1];
        let mut block = Block::new(vs);
        block.all(&[n.clone(), n.clone()], |block, i| {
            let e = block.vs.load(x, &at(i[0], i[1]));
            block.store(copy, &at(i[0], i[1]), e);
            Ok(())
        })?;
        let one = block.vs.arena.real(Ty::of(dtype), 1.0);
        let product = block.variable(one);
        block.each(&n, |block, k| {
            // The row whose element in this column is greatest.
            let pivot = block.variable(k);
            block.each(&n, |block, i| {
                let p = block.get(pivot);
                let vs = &mut *block.vs;
                let (a, b) = (vs.load(copy, &at(i, k)), vs.load(copy, &at(p, k)));
                let (a, b) = (unary(vs, UnaryOp::Abs, a), unary(vs, UnaryOp::Abs, b));
                let below = binary(vs, BinaryOp::Gt, i, k);
                let greater = binary(vs, BinaryOp::Gt, a, b);
                let take = vs.arena.and(below, greater);
                block.when(take, |block| {
                    block.set(pivot, i);
                    Ok(())
                })
            })?;
            let p = block.get(pivot);
            let moved = binary(block.vs, BinaryOp::Ne, p, k);
            block.when(moved, |block| {
                block.each(&n, |block, j| {
                    let a = block.vs.load(copy, &at(k, j));
                    let a = block.once(a);
                    let b = block.vs.load(copy, &at(p, j));
                    block.store(copy, &at(k, j), b);
                    block.store(copy, &at(p, j), a);
                    Ok(())
                })?;
                let d = block.get(product);
                let d = unary(block.vs, UnaryOp::Neg, d);
                block.set(product, d);
                Ok(())
            })?;
            let head = block.vs.load(copy, &at(k, k));
            let head = block.once(head);
            let d = block.get(product);
            let d = block.vs.arena.mul(d, head);
            block.set(product, d);
            let zero = real(block.vs, head, 0.0);
            let regular = binary(block.vs, BinaryOp::Ne, head, zero);
            block.each(&n, |block, i| {
                let below = binary(block.vs, BinaryOp::Gt, i, k);
                let go = block.vs.arena.and(below, regular);
                block.when(go, |block| {
                    let a = block.vs.load(copy, &at(i, k));
                    let factor = block.vs.arena.div(a, head);
                    let factor = block.once(factor);
                    block.each(&n, |block, j| {
                        let (a, b) = (block.vs.load(copy, &at(i, j)), block.vs.load(copy, &at(k, j)));
                        let b = block.vs.arena.mul(factor, b);
                        let a = block.vs.arena.sub(a, b);
                        block.store(copy, &at(i, j), a);
                        Ok(())
                    })
                })
            })
        })?;
        let d = block.get(product);
        block.store(y[0], &outer, d);
        Ok((axes, block.stmts))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::Int;
    use crate::lower::testing::{In, f32s, i64s, near, ramp};

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn first_elements() {
        near(
            "greatest",
            "TopK",
            &[],
            &[In::Data(f32s(&[2, 4], &[3.0, 1.0, 3.0, 2.0, 0.0, 5.0, 4.0, 5.0])), In::Constant(i64s(&[1], &[3.0]))],
            &[f32s(&[2, 3], &[3.0, 3.0, 2.0, 5.0, 5.0, 4.0]), i64s(&[2, 3], &[0.0, 2.0, 3.0, 1.0, 3.0, 2.0])],
            TOLERANCE,
        );
        near(
            "least",
            "TopK",
            &[("largest", Int(0))],
            &[In::Data(f32s(&[2, 4], &[3.0, 1.0, 3.0, 2.0, 0.0, 5.0, 4.0, 5.0])), In::Constant(i64s(&[1], &[2.0]))],
            &[f32s(&[2, 2], &[1.0, 2.0, 0.0, 4.0]), i64s(&[2, 2], &[1.0, 3.0, 0.0, 2.0])],
            TOLERANCE,
        );
        near(
            "along the first axis",
            "TopK",
            &[("axis", Int(0))],
            &[In::Symbolic(ramp(&[3, 2], 7, 1.0), &["", "w"]), In::Constant(i64s(&[1], &[2.0]))],
            &[f32s(&[2, 2], &[1.0, 5.0, -2.0, 2.0]), i64s(&[2, 2], &[2.0, 1.0, 1.0, 0.0])],
            TOLERANCE,
        );
    }

    #[test]
    fn determinants() {
        near(
            "pivots",
            "Det",
            &[],
            &[In::Data(f32s(&[3, 3], &[0.0, 2.0, 1.0, 1.0, 1.0, 0.0, 3.0, 0.0, 1.0]))],
            &[f32s(&[], &[-5.0])],
            TOLERANCE,
        );
        near(
            "batch, one singular",
            "Det",
            &[],
            &[In::Data(f32s(&[2, 2, 2], &[1.0, 2.0, 2.0, 4.0, 4.0, 3.0, 2.0, 1.0]))],
            &[f32s(&[2], &[0.0, -2.0])],
            TOLERANCE,
        );
    }
}
