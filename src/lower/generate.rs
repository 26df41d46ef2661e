//! Tensors made from shapes, numbers and indices.

use super::map::{operand, single};
use super::{Cx, Lower};
use crate::error::{Error, Kind, Result};
use crate::graph::ops::generate::fill;
use crate::graph::ops::rules::axis;
use crate::kernel::{BinaryOp, ExprId, Scalar, Ty, ValueId, Values};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("ConstantOfShape", |cx| {
        let value = single(&fill(cx.attrs())?).ok_or_else(|| Error::new(Kind::InvalidModel, "an empty \"value\""))?;
        cx.func(|vs, _| Ok(vs.arena.constant(value)))
    }),
    ("EyeLike", eye_like),
    ("OneHot", one_hot),
    ("Range", range),
    ("Trilu", trilu),
];

fn eye_like(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (k, (dtype, _)) = (cx.attrs().int("k")?, cx.output(0)?);
    cx.func(|vs, i| {
        let k = vs.arena.int(k);
        let diagonal = vs.arena.add(i[0], k);
        let on = vs.arena.binary(BinaryOp::Eq, i[1], diagonal);
        Ok(vs.arena.cast(Ty::of(dtype), on))
    })
}

/// An index of any type as `I32`, counted from the end where it is negative.
fn from_either_end(vs: &mut Values, index: ExprId, n: ExprId) -> ExprId {
    let index = vs.arena.cast(Ty::I32, index);
    let zero = vs.arena.int(0);
    let (negative, wrapped) = (vs.arena.lt(index, zero), vs.arena.add(index, n));
    vs.arena.select(negative, wrapped, index)
}

/// Indices outside of `-depth..depth` give a row that is off everywhere.
fn one_hot(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (indices, values, (_, out)) = (cx.input(0)?, cx.input(2)?, cx.output(0)?);
    let at = axis(cx.attrs().int("axis")?, out.len())?;
    cx.func(|vs, i| {
        let mut rest = i.to_vec();
        let place = rest.remove(at);
        let hot = operand(vs, indices, &rest);
        let depth = vs.arena.dim(&out[at]);
        let hot = from_either_end(vs, hot, depth);
        let (zero, one) = (vs.arena.int(0), vs.arena.int(1));
        let (off, on) = (vs.load(values, &[zero]), vs.load(values, &[one]));
        let hit = vs.arena.binary(BinaryOp::Eq, place, hot);
        Ok(vs.arena.select(hit, on, off))
    })
}

fn range(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (start, delta, (dtype, _)) = (cx.input(0)?, cx.input(2)?, cx.output(0)?);
    cx.func(|vs, i| {
        let zero = vs.arena.int(0);
        let scalar = |vs: &mut Values, v: ValueId| {
            let at = vec![zero; vs.shape(v).len()];
            operand(vs, v, &at)
        };
        let (start, delta) = (scalar(vs, start), scalar(vs, delta));
        let n = vs.arena.cast(Ty::of(dtype), i[0]);
        let offset = vs.arena.mul(n, delta);
        Ok(vs.arena.add(start, offset))
    })
}

/// The upper or lower triangle, from diagonal `k` on; zeros elsewhere.
fn trilu(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, k, upper, (dtype, out)) = (cx.input(0)?, cx.optional(1), cx.attrs().flag("upper")?, cx.output(0)?);
    cx.func(|vs, i| {
        let (row, column) = (i[out.len() - 2], i[out.len() - 1]);
        let k = match k {
            Some(k) => {
                let zero = vs.arena.int(0);
                let at = vec![zero; vs.shape(k).len()];
                let k = operand(vs, k, &at);
                vs.arena.cast(Ty::I32, k)
            }
            None => vs.arena.int(0),
        };
        let diagonal = vs.arena.add(row, k);
        let op = if upper { BinaryOp::Ge } else { BinaryOp::Le };
        let kept = vs.arena.binary(op, column, diagonal);
        let x = vs.load(x, i);
        let zero = vs.arena.constant(Scalar::int(Ty::of(dtype), 0));
        Ok(vs.arena.select(kept, x, zero))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Int, Tensor};
    use crate::lower::testing::{In, array, f32s, i64s, near};
    use crate::tensor::DType;

    #[test]
    fn cases() {
        let tolerance = (1e-6, 0.0);
        let shape = [In::Constant(i64s(&[2], &[1.0, 2.0]))];
        let seven = [("value", Tensor(array(DType::Int32, &[1], &[7.0])))];
        near("filled", "ConstantOfShape", &seven, &shape, &[array(DType::Int32, &[1, 2], &[7.0, 7.0])], tolerance);
        let square = || f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        near(
            "EyeLike",
            "EyeLike",
            &[("k", Int(1))],
            &[In::Data(square())],
            &[f32s(&[2, 2], &[0.0, 1.0, 0.0, 0.0])],
            tolerance,
        );
        let k = |n| [In::Symbolic(square(), &["s", "s"]), In::Constant(i64s(&[], &[n]))];
        near("upper", "Trilu", &[], &k(1.0), &[f32s(&[2, 2], &[0.0, 2.0, 0.0, 0.0])], tolerance);
        near("lower", "Trilu", &[("upper", Int(0))], &k(0.0), &[f32s(&[2, 2], &[1.0, 0.0, 3.0, 4.0])], tolerance);
        let scalar = |n| In::Constant(f32s(&[], &[n]));
        near(
            "floats",
            "Range",
            &[],
            &[scalar(1.0), scalar(2.0), scalar(0.4)],
            &[f32s(&[3], &[1.0, 1.4, 1.8])],
            tolerance,
        );
        let whole = |n| In::Constant(i64s(&[], &[n]));
        near(
            "downwards",
            "Range",
            &[],
            &[whole(5.0), whole(0.0), whole(-2.0)],
            &[i64s(&[3], &[5.0, 3.0, 1.0])],
            tolerance,
        );
        let hot = [In::Data(i64s(&[3], &[1.0, -1.0, 5.0])), whole(3.0), In::Data(f32s(&[2], &[0.0, 2.0]))];
        let want = [f32s(&[3, 3], &[0.0, 2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0])];
        near("negative and outside", "OneHot", &[], &hot, &want, tolerance);
    }
}
