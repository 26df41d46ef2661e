//! Reductions over axes, and running sums (ai.onnx).
//!
//! ArgMax ArgMin CumProd CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
//! ReduceSum ReduceSumSquare

use super::Op;
use super::rules::{axes, axis, int, row, same};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::graph::{Attr, Attrs};
use crate::tensor::{DType, Dim, Shape};

const ATTRS: &[Attr] = &[int("keepdims", 1), int("noop_with_empty_axes", 0)];
const ARG: &[Attr] = &[int("axis", 0), int("keepdims", 1), int("select_last_index", 0)];
const CUMULATIVE: &[Attr] = &[int("exclusive", 0), int("reverse", 0)];

const fn reduction(name: &'static str, since: &'static [i64]) -> Op {
    row(name, since, (1, 2), ATTRS, reduce)
}

pub(super) const ROWS: &[Op] = &[
    row("ArgMax", &[1, 11, 12], (1, 1), ARG, arg),
    row("ArgMin", &[1, 11, 12], (1, 1), ARG, arg),
    row("CumProd", &[26], (2, 2), CUMULATIVE, cumulative),
    row("CumSum", &[11], (2, 2), CUMULATIVE, cumulative),
    reduction("ReduceL1", &[1, 11, 18]),
    reduction("ReduceL2", &[1, 11, 18]),
    reduction("ReduceLogSum", &[1, 11, 18]),
    reduction("ReduceLogSumExp", &[1, 11, 18]),
    reduction("ReduceMax", &[1, 11, 18]),
    reduction("ReduceMean", &[1, 11, 18]),
    reduction("ReduceMin", &[1, 11, 18]),
    reduction("ReduceProd", &[1, 11, 18]),
    reduction("ReduceSum", &[1, 11, 13]),
    reduction("ReduceSumSquare", &[1, 11, 18]),
];

/// Which axes a reduction goes over: those listed, and all where none are, unless that is asked to mean none.
pub fn reduced(list: Option<&[i64]>, rank: usize, attrs: &Attrs) -> Result<Vec<usize>> {
    match list {
        Some(list) if !list.is_empty() => axes(list, rank),
        _ if attrs.flag("noop_with_empty_axes")? => Ok(vec![]),
        _ => Ok((0..rank).collect()),
    }
}

fn without(shape: &[Dim], axes: &[usize], keep: bool) -> Shape {
    let all = shape.iter().enumerate();
    all.filter_map(|(n, d)| match (axes.contains(&n), keep) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(Dim::from(1)),
        (true, false) => None,
    })
    .collect()
}

fn reduce(i: &Infer<'_>) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    let list = i.ints(1, "the reduction's axes")?;
    let axes = reduced(list.as_deref(), t.shape.len(), i.attrs)?;
    let shape = without(&t.shape, &axes, i.attrs.flag("keepdims")?);
    Ok(vec![Type::new(t.dtype, shape)])
}

fn arg(i: &Infer<'_>) -> Result<Vec<Type>> {
    let shape = i.shape(0)?;
    let axis = axis(i.attrs.int("axis")?, shape.len())?;
    if shape[axis].is(0) {
        return Err(Error::new(Kind::InvalidShape, format!("the index of an extremum along the empty axis {axis}")));
    }
    Ok(vec![Type::new(DType::Int64, without(shape, &[axis], i.attrs.flag("keepdims")?))])
}

fn cumulative(i: &Infer<'_>) -> Result<Vec<Type>> {
    let at = i.ints(1, "the axis of a running sum")?;
    axis(at.and_then(|a| a.first().copied()).unwrap_or(0), i.shape(0)?.len())?;
    same(i)
}
