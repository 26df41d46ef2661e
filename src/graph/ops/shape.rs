//! Shapes of tensors, and views of them under other shapes (ai.onnx).
//!
//! Expand Flatten Reshape Shape Size Squeeze Transpose Unsqueeze

use super::Op;
use super::rules::{absent, axes, axis, broadcast, int, row};
use crate::error::{Error, Kind, Result};
use crate::graph::Attrs;
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, Dim, Shape, numel, show};

pub(super) const ROWS: &[Op] = &[
    row("Expand", &[8], (2, 2), &[], expand),
    row("Flatten", &[1, 11], (1, 1), &[int("axis", 1)], flatten),
    row("Reshape", &[5, 14], (2, 2), &[int("allowzero", 0)], reshape),
    row("Shape", &[1, 15], (1, 1), &[int("start", 0), absent("end")], shape),
    row("Size", &[1], (1, 1), &[], size),
    row("Squeeze", &[1, 11, 13], (1, 2), &[], squeeze),
    row("Transpose", &[1], (1, 1), &[absent("perm")], transpose),
    row("Unsqueeze", &[1, 11, 13], (2, 2), &[], unsqueeze),
];

/// The input's elements in the same order under another shape.
fn viewed(i: &Infer<'_>, shape: Shape) -> Result<Vec<Type>> {
    Ok(vec![Type::new(i.dtype(0)?, shape)])
}

fn expand(i: &Infer<'_>) -> Result<Vec<Type>> {
    let shape = broadcast(i.shape(0)?, &i.required_content(1, "the shape that Expand takes")?)?;
    Ok(vec![Type::new(i.dtype(0)?, shape)])
}

fn flatten(i: &Infer<'_>) -> Result<Vec<Type>> {
    let shape = i.shape(0)?;
    let at = i.attrs.int("axis")?;
    let at = if usize::try_from(at) == Ok(shape.len()) { shape.len() } else { axis(at, shape.len())? };
    viewed(i, vec![numel(&shape[..at]), numel(&shape[at..])])
}

fn reshape(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (from, keep_zero) = (i.shape(0)?, i.attrs.flag("allowzero")?);
    let asked = i.required_content(1, "the shape that Reshape takes")?;
    let wrong = || Error::new(Kind::InvalidShape, format!("{} does not reshape to {}", show(from), show(&asked)));
    let mut to = asked.clone();
    let mut open = None;
    for (n, d) in to.iter_mut().enumerate() {
        match d.known() {
            Some(0) if !keep_zero => *d = from.get(n).ok_or_else(wrong)?.clone(),
            Some(-1) if open.replace(n).is_some() => return Err(wrong().help("only one dimension may be -1")),
            Some(..-1) => return Err(wrong()),
            _ => {}
        }
    }
    let total = numel(from);
    if let Some(n) = open {
        to[n] = Dim::from(1);
        let rest = numel(&to);
        to[n] = match (total.known(), rest.known()) {
            (Some(t), Some(r)) if r <= 0 || t % r != 0 => return Err(wrong()),
            _ => total.floor_div(&rest),
        };
    } else if let (Some(t), Some(r)) = (total.known(), numel(&to).known())
        && t != r
    {
        return Err(wrong());
    }
    viewed(i, to)
}

/// Which axes `Shape` gives.
fn shape_range(attrs: &Attrs, rank: usize) -> Result<std::ops::Range<usize>> {
    let n = i64::try_from(rank).unwrap_or(i64::MAX);
    let at = |a: i64| usize::try_from((if a < 0 { a.saturating_add(n) } else { a }).clamp(0, n)).unwrap_or(0);
    let end = if attrs.get("end").is_some() { at(attrs.int("end")?) } else { rank };
    Ok(at(attrs.int("start")?).min(end)..end)
}

fn shape(i: &Infer<'_>) -> Result<Vec<Type>> {
    let shape = i.shape(0)?;
    Ok(vec![Type::new(DType::Int64, vec![Dim::from(shape_range(i.attrs, shape.len())?.len())])])
}

fn size(i: &Infer<'_>) -> Result<Vec<Type>> {
    i.input(0)?;
    Ok(vec![Type::new(DType::Int64, vec![])])
}

fn squeeze(i: &Infer<'_>) -> Result<Vec<Type>> {
    let shape = i.shape(0)?;
    let gone = match i.ints(1, "the axes of Squeeze")? {
        Some(list) => axes(&list, shape.len())?,
        None => (0..shape.len()).filter(|n| shape[*n].is(1)).collect(),
    };
    if let Some(n) = gone.iter().find(|n| !shape[**n].is(1)) {
        let e = format!("axis {n} of {} is squeezed and not 1", show(shape));
        return Err(Error::new(Kind::InvalidShape, e));
    }
    viewed(i, shape.iter().enumerate().filter(|(n, _)| !gone.contains(n)).map(|(_, d)| d.clone()).collect())
}

fn unsqueeze(i: &Infer<'_>) -> Result<Vec<Type>> {
    let shape = i.shape(0)?;
    let list = i.ints(1, "the axes of Unsqueeze")?.unwrap_or_default();
    let rank = shape.len() + list.len();
    let new = axes(&list, rank)?;
    let mut rest = shape.iter().cloned();
    viewed(i, (0..rank).filter_map(|n| if new.contains(&n) { Some(Dim::from(1)) } else { rest.next() }).collect())
}

/// The order of axes: output axis `n` is input axis `permutation[n]`. Without the attribute, reversed.
pub fn permutation(attrs: &Attrs, rank: usize) -> Result<Vec<usize>> {
    let Some(perm) = attrs.ints("perm")? else { return Ok((0..rank).rev().collect()) };
    let order = axes(perm, rank)?;
    if order.len() != rank {
        return Err(Error::new(Kind::InvalidModel, format!("permutation {perm:?} of a tensor of rank {rank}")));
    }
    Ok(order)
}

fn transpose(i: &Infer<'_>) -> Result<Vec<Type>> {
    let shape = i.shape(0)?;
    let order = permutation(i.attrs, shape.len())?;
    viewed(i, order.iter().map(|n| shape[*n].clone()).collect())
}
