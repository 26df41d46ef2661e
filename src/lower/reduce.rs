//! Reductions over axes, and running sums.

use super::formula::{X, formula};
use super::math::{count, fold, limits};
use super::{Cx, Lower};
use crate::error::{Error, Kind, Result};
use crate::graph::ops::reduce::reduced;
use crate::graph::ops::rules::axis;
use crate::kernel::{ExprId, FoldOp, Node, Scalar, Stmt, Ty, UnaryOp, ValueId};
use crate::tensor::{DType, Dim};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("ArgMax", |cx| {
        let last = cx.attrs().flag("select_last_index")?;
        arg(cx, FoldOp::ArgMax { last })
    }),
    ("ArgMin", |cx| {
        let last = cx.attrs().flag("select_last_index")?;
        arg(cx, FoldOp::ArgMin { last })
    }),
    ("CumProd", |cx| cumulative(cx, true)),
    ("CumSum", |cx| cumulative(cx, false)),
    ("ReduceL1", |cx| reduce(cx, FoldOp::Sum, |x| x.abs(), |x, _| x)),
    ("ReduceL2", |cx| reduce(cx, FoldOp::Sum, |x| x * x, |x, _| x.sqrt())),
    ("ReduceLogSum", |cx| reduce(cx, FoldOp::Sum, |x| x, |x, _| x.log())),
    ("ReduceLogSumExp", log_sum_exp),
    ("ReduceMax", |cx| reduce(cx, FoldOp::Max, |x| x, |x, _| x)),
    ("ReduceMean", |cx| reduce(cx, FoldOp::Sum, |x| x, |x, n| x / n)),
    ("ReduceMin", |cx| reduce(cx, FoldOp::Min, |x| x, |x, _| x)),
    ("ReduceProd", |cx| reduce(cx, FoldOp::Prod, |x| x, |x, _| x)),
    ("ReduceSum", |cx| reduce(cx, FoldOp::Sum, |x| x, |x, _| x)),
    ("ReduceSumSquare", |cx| reduce(cx, FoldOp::Sum, |x| x * x, |x, _| x)),
];

/// What a reduction goes over: for an index of the output and one of the reduced axes, that of the input.
struct Plan {
    axes: Vec<usize>,
    rank: usize,
    keep: bool,
    extents: Vec<Dim>,
}

impl Plan {
    fn of(cx: &Cx<'_>, axes: Vec<usize>) -> Result<Plan> {
        let shape = cx.shape(0)?;
        let extents = axes.iter().map(|a| shape[*a].clone()).collect();
        Ok(Plan { axes, rank: shape.len(), keep: cx.attrs().flag("keepdims")?, extents })
    }

    fn index(&self, outer: &[ExprId], inner: &[ExprId]) -> Vec<ExprId> {
        let mut kept = outer.iter().enumerate().filter(|(n, _)| !self.keep || !self.axes.contains(n)).map(|(_, e)| *e);
        (0..self.rank)
            .filter_map(|n| self.axes.iter().position(|a| *a == n).map(|k| inner[k]).or_else(|| kept.next()))
            .collect()
    }
}

fn plan(cx: &Cx<'_>) -> Result<Plan> {
    let list = match cx.optional(1) {
        Some(_) => Some(cx.content(1)?),
        None => None,
    };
    let list: Option<Vec<i64>> = list.map(|l| l.iter().filter_map(Dim::known).collect());
    let axes = reduced(list.as_deref(), cx.shape(0)?.len(), cx.attrs())?;
    Plan::of(cx, axes)
}

/// `after(fold of before(x), number of elements)`. What is not closed over integers is computed in `F32` for them.
fn reduce(
    cx: &mut Cx<'_>,
    op: FoldOp,
    before: impl for<'a> FnOnce(X<'a>) -> X<'a>,
    after: impl for<'a> FnOnce(X<'a>, X<'a>) -> X<'a>,
) -> Result<Vec<ValueId>> {
    let (x, plan, (dtype, _)) = (cx.input(0)?, plan(cx)?, cx.output(0)?);
    let real = matches!(cx.node.op.name, "ReduceL2" | "ReduceLogSum");
    cx.func(|vs, i| {
        let ty = match Ty::of(dtype) {
            Ty::Bool => Ty::I32,
            Ty::I32 | Ty::I64 | Ty::U32 | Ty::U64 if real => Ty::F32,
            ty => ty,
        };
        let all = fold(vs, op, &plan.extents, |vs, k| {
            let x = vs.load(x, &plan.index(i, k));
            let x = vs.arena.cast(ty, x);
            Ok(formula(&mut vs.arena, &[x], |x| before(x[0])))
        })?;
        let n = count(vs, ty, &plan.extents);
        Ok(formula(&mut vs.arena, &[all, n], |x| {
            let y = after(x[0], x[1]);
            // Of nothing, the fold gives the extremum of the computing type, which a narrow type cannot hold.
            let y = match (op, limits(dtype)) {
                (FoldOp::Max, Some((low, _))) if dtype.size() < 4 => y.max(low),
                (FoldOp::Min, Some((_, high))) if dtype.size() < 4 => y.min(high),
                (FoldOp::Max, _) if dtype == DType::Bool => y.max(0i64),
                _ => y,
            };
            y.cast(Ty::of(dtype))
        }))
    })
}

/// `m + log Σ exp(x - m)` for the maximum m, or for 0 where that is infinite.
fn log_sum_exp(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, plan, (dtype, _)) = (cx.input(0)?, plan(cx)?, cx.output(0)?);
    cx.func(|vs, i| {
        let ty = if Ty::of(dtype) == Ty::F64 { Ty::F64 } else { Ty::F32 };
        let max = fold(vs, FoldOp::Max, &plan.extents, |vs, k| {
            let x = vs.load(x, &plan.index(i, k));
            Ok(vs.arena.cast(ty, x))
        })?;
        let max = formula(&mut vs.arena, &[max], |m| m[0].unary(UnaryOp::IsInf).select(m[0].number(0.0), m[0]));
        let sum = fold(vs, FoldOp::Sum, &plan.extents, |vs, k| {
            let x = vs.load(x, &plan.index(i, k));
            let x = vs.arena.cast(ty, x);
            Ok(formula(&mut vs.arena, &[x, max], |x| (x[0] - x[1]).exp()))
        })?;
        Ok(formula(&mut vs.arena, &[sum, max], |x| (x[0].log() + x[1]).cast(Ty::of(dtype))))
    })
}

fn arg(cx: &mut Cx<'_>, op: FoldOp) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let at = axis(cx.attrs().int("axis")?, cx.shape(0)?.len())?;
    let plan = Plan::of(cx, vec![at])?;
    cx.func(|vs, i| {
        let best = vs.fold(op, &plan.extents, |vs, k| Ok(vs.load(x, &plan.index(i, k))))?;
        Ok(vs.arena.cast(Ty::I64, best))
    })
}

/// A running sum or product along an axis; the other axes are independent.
fn cumulative(cx: &mut Cx<'_>, product: bool) -> Result<Vec<ValueId>> {
    let (x, shape, (dtype, out)) = (cx.input(0)?, cx.shape(0)?, cx.output(0)?);
    let at = cx.content(1)?.first().and_then(Dim::known);
    let at = at.ok_or_else(|| Error::new(Kind::InvalidModel, "the axis of a running sum is no number"))?;
    let at = axis(at, shape.len())?;
    let (exclusive, reverse) = (cx.attrs().flag("exclusive")?, cx.attrs().flag("reverse")?);
    let ty = Ty::of(dtype);
    cx.values.program(vec![(dtype, out)], |vs, out| {
        let axes: Vec<_> = shape.iter().map(|d| vs.arena.axis(d.clone())).collect();
        let mut index: Vec<ExprId> = axes.iter().map(|a| vs.arena.axis_expr(*a)).collect();
        if reverse {
            let last = vs.arena.dim(&shape[at].sub(&Dim::from(1)));
            index[at] = vs.arena.sub(last, index[at]);
        }
        let var = vs.arena.var();
        let so_far = vs.arena.add_node(Node::Var(var, ty));
        let start = vs.arena.constant(Scalar::int(ty, i64::from(product)));
        let x = vs.load(x, &index);
        let next = if product { vs.arena.mul(so_far, x) } else { vs.arena.add(so_far, x) };
        let step = Stmt::Set { var, ty, to: next };
        let store = Stmt::Store { value: out[0], index, to: so_far };
        let body = if exclusive { vec![store, step] } else { vec![step, store] };
        let parallel = axes.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, a)| *a).collect();
        Ok((parallel, vec![Stmt::Set { var, ty, to: start }, Stmt::For { axis: axes[at], body }]))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::Int;
    use crate::lower::testing::{Case, In, array, exact, f32s, i64s, near};
    use crate::tensor::DType;

    #[test]
    fn reductions() {
        let x = f32s(&[2, 3], &[1.0, -2.0, 3.0, 4.0, 5.0, -6.0]);
        let keep = |n| ("keepdims", Int(n));
        let last = |op, want: &[f64]| {
            let inputs = [In::Symbolic(x.clone(), &["b", ""]), In::Constant(i64s(&[1], &[-1.0]))];
            let want = [f32s(&[2], want)];
            Case { name: op, op, attrs: &[keep(0)], inputs: &inputs, want: &want, tolerance: (1e-6, 1e-6) }.check();
        };
        last("ReduceSum", &[2.0, 3.0]);
        last("ReduceMean", &[2.0 / 3.0, 1.0]);
        last("ReduceMax", &[3.0, 5.0]);
        last("ReduceMin", &[-2.0, -6.0]);
        last("ReduceProd", &[-6.0, -120.0]);
        last("ReduceL1", &[6.0, 15.0]);
        last("ReduceL2", &[14f64.sqrt(), 77f64.sqrt()]);
        last("ReduceSumSquare", &[14.0, 77.0]);
        last("ReduceLogSum", &[2f64.ln(), 3f64.ln()]);
        last("ReduceLogSumExp", &[3.132_845_2, 5.313_273_6]);
        let all = [In::Data(x.clone())];
        let tolerance = (1e-6, 1e-6);
        near("all axes", "ReduceSum", &[], &all, &[f32s(&[1, 1], &[5.0])], tolerance);
        near("no axes", "ReduceSum", &[("noop_with_empty_axes", Int(1))], &all, &[x.clone()], tolerance);
        let none = [In::Data(f32s(&[2, 0], &[])), In::Constant(i64s(&[1], &[1.0]))];
        near("sum of nothing", "ReduceSum", &[keep(0)], &none, &[f32s(&[2], &[0.0, 0.0])], tolerance);
        near("maximum of nothing", "ReduceMax", &[keep(0)], &none, &[f32s(&[2], &[f64::NEG_INFINITY; 2])], tolerance);
        let bytes = [In::Data(array(DType::Int8, &[0], &[]))];
        near("least of no bytes", "ReduceMin", &[keep(0)], &bytes, &[array(DType::Int8, &[], &[127.0])], tolerance);
        let large = [In::Data(f32s(&[2], &[1000.0, 1000.0]))];
        near(
            "log-sum-exp of large",
            "ReduceLogSumExp",
            &[keep(0)],
            &large,
            &[f32s(&[], &[1000.0 + 2f64.ln()])],
            tolerance,
        );
    }

    #[test]
    fn extrema_and_running_sums() {
        let ties = [In::Data(f32s(&[2, 3], &[2.0, 2.0, 1.0, 0.0, 3.0, 3.0]))];
        exact("first", "ArgMax", &[("axis", Int(1)), ("keepdims", Int(0))], &ties, &[i64s(&[2], &[0.0, 1.0])]);
        let last = [("axis", Int(-1)), ("select_last_index", Int(1))];
        exact("last", "ArgMax", &last, &ties, &[i64s(&[2, 1], &[1.0, 2.0])]);
        exact("least", "ArgMin", &[("keepdims", Int(0))], &ties, &[i64s(&[3], &[1.0, 0.0, 0.0])]);
        let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let at = |axis: f64| [In::Data(x.clone()), In::Constant(i64s(&[], &[axis]))];
        let six = |v: &[f64]| [f32s(&[2, 3], v)];
        exact("along rows", "CumSum", &[], &at(1.0), &six(&[1.0, 3.0, 6.0, 4.0, 9.0, 15.0]));
        exact("reverse", "CumSum", &[("reverse", Int(1))], &at(-1.0), &six(&[6.0, 5.0, 3.0, 15.0, 11.0, 6.0]));
        exact("exclusive", "CumSum", &[("exclusive", Int(1))], &at(0.0), &six(&[0.0, 0.0, 0.0, 1.0, 2.0, 3.0]));
    }
}
