//! Matrix products: MatMul, Gemm, Einsum, MatMulInteger, QLinearMatMul.

use super::Op;
use super::einsum::Equation;
use super::rules::{MANY, broadcast, float, int, rank, required, row};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, Dim, Shape, show};

pub(super) static ROWS: &[Op] = &[
    row("Einsum", &[12], (1, MANY), &[required("equation")], einsum),
    row(
        "Gemm",
        &[1, 6, 7, 9, 11, 13],
        (2, 3),
        &[float("alpha", 1.0), float("beta", 1.0), int("transA", 0), int("transB", 0)],
        gemm,
    ),
    row("MatMul", &[1, 9, 13], (2, 2), &[], |i| matmul(i, 0, 1, i.dtype(0)?)),
    row("MatMulInteger", &[10], (2, 4), &[], |i| matmul(i, 0, 1, DType::Int32)),
    row("QLinearMatMul", &[10, 21], (8, 8), &[], |i| matmul(i, 0, 3, i.dtype(7)?)),
];

fn matmul(i: &Infer<'_>, a: usize, b: usize, dtype: DType) -> Result<Vec<Type>> {
    Ok(vec![Type::new(dtype, product(i.shape(a)?, i.shape(b)?)?)])
}

/// The shape of `a @ b` as numpy's `matmul` has it.
fn product(a: &[Dim], b: &[Dim]) -> Result<Shape> {
    let bad =
        |why: &str| Err(Error::new(Kind::InvalidShape, format!("cannot multiply {} by {}: {why}", show(a), show(b))));
    let ((Some(ka), Some(_)), rows) = ((a.last(), b.last()), a.len() > 1) else {
        return bad("a scalar is no matrix");
    };
    let kb = &b[b.len().saturating_sub(2)];
    if ka != kb {
        return bad(&format!("the inner dimensions {ka} and {kb} differ"));
    }
    let mut shape = broadcast(&a[..a.len().saturating_sub(2)], &b[..b.len().saturating_sub(2)])?;
    if rows {
        shape.push(a[a.len() - 2].clone());
    }
    if b.len() > 1 {
        shape.push(b[b.len() - 1].clone());
    }
    Ok(shape)
}

fn gemm(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (a, b) = (i.shape(0)?, i.shape(1)?);
    rank("A", a, 2)?;
    rank("B", b, 2)?;
    let (ta, tb) = (usize::from(i.attrs.flag("transA")?), usize::from(i.attrs.flag("transB")?));
    if a[1 - ta] != b[tb] {
        return Err(Error::new(
            Kind::InvalidShape,
            format!(
                "cannot multiply {} by {}: the inner dimensions {} and {} differ",
                show(a),
                show(b),
                a[1 - ta],
                b[tb]
            ),
        ));
    }
    let shape = vec![a[ta].clone(), b[1 - tb].clone()];
    if let Some(c) = i.optional(2)
        && broadcast(&shape, &c.shape)? != shape
    {
        return Err(Error::new(
            Kind::InvalidShape,
            format!("C of shape {} for a product of shape {}", show(&c.shape), show(&shape)),
        ));
    }
    Ok(vec![Type::new(i.dtype(0)?, shape)])
}

fn einsum(i: &Infer<'_>) -> Result<Vec<Type>> {
    let shapes: Vec<&Shape> = (0..i.inputs.len()).map(|n| i.shape(n)).collect::<Result<_>>()?;
    let e = Equation::new(i.attrs.str("equation")?, &shapes)?;
    let shape = e.output.iter().map(|l| e.size(*l)).collect();
    Ok(vec![Type::new(i.dtype(0)?, shape)])
}
