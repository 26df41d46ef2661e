//! Selection and small linear algebra: TopK, Det.

use super::Op;
use super::rules::{axis, int, row};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, show};

pub(super) static ROWS: &[Op] = &[
    row("Det", &[11, 22], (1, 1), &[], |i| {
        let x = i.shape(0)?;
        match &x[..] {
            [batch @ .., rows, columns] if rows == columns => Ok(vec![Type::new(i.dtype(0)?, batch.to_vec())]),
            _ => {
                Err(Error::new(Kind::InvalidShape, format!("the determinant of {}: it needs square matrices", show(x))))
            }
        }
    }),
    Op {
        name: "TopK",
        since: &[1, 10, 11, 24],
        inputs: (2, 2),
        outputs: (1, 2),
        attrs: &[int("axis", -1), int("largest", 1), int("sorted", 1)],
        infer: top_k,
    },
];

fn top_k(i: &Infer<'_>) -> Result<Vec<Type>> {
    let x = i.input(0)?;
    let axis = axis(i.attrs.int("axis")?, x.shape.len())?;
    let k = i.required_content(1, "the number of elements of a TopK")?;
    let mut shape = x.shape.clone();
    match &k[..] {
        [k] if k.known().is_none_or(|k| k >= 0 && shape[axis].known().is_none_or(|n| k <= n)) => {
            shape[axis] = k.clone()
        }
        _ => {
            let what = format!("the first {} of {} elements", show(&k), shape[axis]);
            return Err(Error::new(Kind::InvalidShape, what));
        }
    }
    Ok(vec![Type::new(x.dtype, shape.clone()), Type::new(DType::Int64, shape)])
}
