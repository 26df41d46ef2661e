//! Reading and writing elements by indices (ai.onnx).
//!
//! Gather GatherElements GatherND ScatterElements ScatterND TensorScatter

use super::Op;
use super::rules::{axis, int, row, string};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::{Dim, Shape, show};

pub(super) const ROWS: &[Op] = &[
    row("Gather", &[1, 11], (2, 2), &[int("axis", 0)], gather),
    row("GatherElements", &[11], (2, 2), &[int("axis", 0)], gather_elements),
    row("GatherND", &[11, 12], (2, 2), &[int("batch_dims", 0)], gather_nd),
    row("ScatterElements", &[11, 16, 18], (3, 3), &[int("axis", 0), string("reduction", "none")], scatter_elements),
    row("ScatterND", &[11, 16, 18], (3, 3), &[string("reduction", "none")], scatter_nd),
    row("TensorScatter", &[24], (2, 3), &[int("axis", -2), string("mode", "linear")], tensor_scatter),
];

fn gather(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (data, indices) = (i.input(0)?, i.input(1)?);
    let at = axis(i.attrs.int("axis")?, data.shape.len())?;
    let shape = [&data.shape[..at], &indices.shape, &data.shape[at + 1..]].concat();
    Ok(vec![Type::new(data.dtype, shape)])
}

fn refused(what: &str, data: &[Dim], indices: &[Dim]) -> Error {
    Error::new(Kind::InvalidShape, format!("{what} of {} with indices {}", show(data), show(indices)))
}

fn gather_elements(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (data, indices) = (i.input(0)?, i.input(1)?);
    axis(i.attrs.int("axis")?, data.shape.len())?;
    if indices.shape.len() != data.shape.len() {
        return Err(refused("GatherElements", &data.shape, &indices.shape));
    }
    Ok(vec![Type::new(data.dtype, indices.shape.clone())])
}

/// How many coordinates the last axis of the indices gives.
pub fn coordinates(data: &[Dim], indices: &[Dim], batch: usize) -> Result<usize> {
    let n = indices.last().and_then(Dim::known).and_then(|n| usize::try_from(n).ok());
    n.filter(|n| *n > 0 && batch + n <= data.len() && batch < indices.len())
        .ok_or_else(|| refused("an operator on slices (ND)", data, indices))
}

fn gather_nd(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (data, indices) = (i.input(0)?, i.input(1)?);
    let batch = usize::try_from(i.attrs.int("batch_dims")?).unwrap_or(usize::MAX).min(data.shape.len());
    let n = coordinates(&data.shape, &indices.shape, batch)?;
    if data.shape[..batch] != indices.shape[..batch] {
        return Err(refused("GatherND in batches", &data.shape, &indices.shape));
    }
    let shape: Shape = [&indices.shape[..indices.shape.len() - 1], &data.shape[batch + n..]].concat();
    Ok(vec![Type::new(data.dtype, shape)])
}

fn scatter_elements(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (data, indices, updates) = (i.input(0)?, i.input(1)?, i.input(2)?);
    axis(i.attrs.int("axis")?, data.shape.len())?;
    if indices.shape.len() != data.shape.len() || updates.shape != indices.shape {
        return Err(refused(&format!("scattering {}", show(&updates.shape)), &data.shape, &indices.shape));
    }
    Ok(vec![Type::new(data.dtype, data.shape.clone())])
}

fn scatter_nd(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (data, indices, updates) = (i.input(0)?, i.input(1)?, i.input(2)?);
    let n = coordinates(&data.shape, &indices.shape, 0)?;
    let want = [&indices.shape[..indices.shape.len() - 1], &data.shape[n..]].concat();
    if updates.shape != want {
        return Err(refused(&format!("scattering {}", show(&updates.shape)), &data.shape, &indices.shape));
    }
    Ok(vec![Type::new(data.dtype, data.shape.clone())])
}

/// Inputs: past cache, update, and where in the cache each batch's update begins.
fn tensor_scatter(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (cache, update) = (i.input(0)?, i.input(1)?);
    let at = axis(i.attrs.int("axis")?, cache.shape.len())?;
    let fits = |n: usize| n == at || cache.shape[n] == update.shape[n];
    if at == 0 || cache.shape.len() != update.shape.len() || !(0..cache.shape.len()).all(fits) {
        return Err(refused(&format!("TensorScatter along axis {at}"), &cache.shape, &update.shape));
    }
    if let Some(starts) = i.optional(2)
        && starts.shape[..] != cache.shape[..1]
    {
        return Err(refused("TensorScatter", &cache.shape, &starts.shape));
    }
    Ok(vec![Type::new(cache.dtype, cache.shape.clone())])
}
