//! The softmax family: folds along a row, then a map over it.

use super::formula::formula;
use super::math::{ravel, unravel};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::rules::axis;
use crate::kernel::{BinaryOp, ExprId, FoldOp, Scalar, ValueId, Values};
use crate::tensor::{Dim, numel};

pub(super) const ROWS: &[(&str, Lower)] =
    &[("Hardmax", hardmax), ("LogSoftmax", |cx| softmax(cx, true)), ("Softmax", |cx| softmax(cx, false))];

/// The axes that a row runs over: one, or, in the older form, the axis and all after it.
fn row(cx: &Cx<'_>) -> Result<std::ops::Range<usize>> {
    let (rank, at) = (cx.shape(0)?.len(), cx.attrs().int("axis")?);
    let coerce = cx.attrs().flag("coerce")?;
    if rank == 0 || (coerce && usize::try_from(at) == Ok(rank)) {
        return Ok(rank..rank);
    }
    let at = axis(at, rank)?;
    Ok(at..if coerce { rank } else { at + 1 })
}

/// The index with that of a row in the place of the row's axes.
fn place(index: &[ExprId], row: &std::ops::Range<usize>, k: &[ExprId]) -> Vec<ExprId> {
    [&index[..row.start], k, &index[row.end..]].concat()
}

fn softmax(cx: &mut Cx<'_>, log: bool) -> Result<Vec<ValueId>> {
    let (x, row, shape) = (cx.input(0)?, row(cx)?, cx.shape(0)?);
    let extents: Vec<Dim> = shape[row.clone()].to_vec();
    cx.func(|vs, i| {
        let max = vs.fold(FoldOp::Max, &extents, |vs, k| Ok(vs.load(x, &place(i, &row, k))))?;
        let sum = vs.fold(FoldOp::Sum, &extents, |vs, k| {
            let x = vs.load(x, &place(i, &row, k));
            Ok(formula(&mut vs.arena, &[x, max], |x| (x[0] - x[1]).exp()))
        })?;
        let x = vs.load(x, i);
        Ok(formula(&mut vs.arena, &[x, max, sum], |x| {
            let d = x[0] - x[1];
            if log { d - x[2].log() } else { d.exp() / x[2] }
        }))
    })
}

/// 1 at the first of the greatest of a row, 0 elsewhere.
fn hardmax(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, row, shape, (dtype, _)) = (cx.input(0)?, row(cx)?, cx.shape(0)?, cx.output(0)?);
    let extents: Vec<Dim> = shape[row.clone()].to_vec();
    let ty = crate::kernel::Ty::of(dtype);
    cx.func(|vs, i| {
        let best = vs.fold(FoldOp::ArgMax { last: false }, &[numel(&extents)], |vs: &mut Values, k| {
            let k = unravel(vs, k[0], &extents);
            Ok(vs.load(x, &place(i, &row, &k)))
        })?;
        let here = ravel(vs, &i[row.clone()], &extents);
        let hit = vs.arena.binary(BinaryOp::Eq, here, best);
        let (one, zero) = (vs.arena.constant(Scalar::int(ty, 1)), vs.arena.constant(Scalar::int(ty, 0)));
        Ok(vs.arena.select(hit, one, zero))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::Int;
    use crate::lower::testing::{Case, In, f32s};

    #[test]
    fn rows_and_the_older_matrix_form() {
        let inf = f64::INFINITY;
        let case = |name, op, attrs, x, want| {
            Case { name, op, attrs, inputs: &[In::Symbolic(x, &["b"])], want: &[want], tolerance: (1e-7, 1e-5) }
                .check();
        };
        let x = || f32s(&[2, 2], &[1000.0, 1000.0, 0.0, -inf]);
        case("large and masked", "Softmax", &[], x(), f32s(&[2, 2], &[0.5, 0.5, 1.0, 0.0]));
        let ln2 = 2f64.ln();
        case("log", "LogSoftmax", &[], x(), f32s(&[2, 2], &[-ln2, -ln2, 0.0, -inf]));
        case("first of equals", "Hardmax", &[], x(), f32s(&[2, 2], &[1.0, 0.0, 1.0, 0.0]));
        let four = || f32s(&[1, 2, 2], &[0.0; 4]);
        case("one axis", "Softmax", &[("axis", Int(1))], four(), f32s(&[1, 2, 2], &[0.5; 4]));
        let old = [("axis", Int(1)), ("coerce", Int(1))];
        case("before opset 13", "Softmax", &old, four(), f32s(&[1, 2, 2], &[0.25; 4]));
        case("before opset 13", "Hardmax", &old, four(), f32s(&[1, 2, 2], &[1.0, 0.0, 0.0, 0.0]));
    }
}
