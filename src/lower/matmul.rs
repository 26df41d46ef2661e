//! Matrix products: MatMul, Gemm, Einsum, MatMulInteger, QLinearMatMul. Each is one fold of products.

use super::integer::{self, Operand};
use super::math::{binary, fold, quantized, scalar};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::einsum::Equation;
use crate::kernel::{BinaryOp, ExprId, FoldOp, Ty, ValueId, Values};
use crate::tensor::{DType, Dim, Shape};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("MatMul", matmul),
    ("Gemm", gemm),
    ("Einsum", einsum),
    ("MatMulInteger", matmul_integer),
    ("QLinearMatMul", qlinear_matmul),
];

/// The indices of `a[…, m, k]` and `b[…, k, n]` for the output index `i` of `a @ b` and the inner index `k`.
fn operands(vs: &mut Values, a: ValueId, b: ValueId, i: &[ExprId], k: ExprId) -> (Vec<ExprId>, Vec<ExprId>) {
    let (sa, sb) = (vs.shape(a).to_vec(), vs.shape(b).to_vec());
    let rows = usize::from(sa.len() > 1);
    let columns = usize::from(sb.len() > 1);
    let batch = &i[..i.len() - rows - columns];
    let at = |vs: &mut Values, shape: &Shape| -> Vec<ExprId> {
        let own = shape.len().saturating_sub(2);
        let index = batch[batch.len() - own..].iter().zip(shape);
        index.map(|(i, d)| if d.is(1) { vs.arena.int(0) } else { *i }).collect()
    };
    let (mut ia, mut ib) = (at(vs, &sa), at(vs, &sb));
    if rows == 1 {
        ia.push(i[batch.len()]);
    }
    ia.push(k);
    ib.push(k);
    if columns == 1 {
        ib.push(i[i.len() - 1]);
    }
    (ia, ib)
}

fn inner(vs: &Values, a: ValueId) -> Dim {
    vs.shape(a).last().cloned().unwrap_or(Dim::from(1))
}

fn matmul(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    cx.func(|vs, i| {
        let k = inner(vs, a);
        fold(vs, FoldOp::Sum, &[k], |vs, k| {
            let (ia, ib) = operands(vs, a, b, i, k[0]);
            let (x, y) = (vs.load(a, &ia), vs.load(b, &ib));
            Ok(vs.arena.mul(x, y))
        })
    })
}

fn gemm(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (a, b, c) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let (ta, tb) = (cx.attrs().flag("transA")?, cx.attrs().flag("transB")?);
    let (alpha, beta) = (cx.attrs().float("alpha")?, cx.attrs().float("beta")?);
    cx.func(|vs, i| {
        let k = vs.shape(a)[usize::from(!ta)].clone();
        let mut y = fold(vs, FoldOp::Sum, &[k], |vs, k| {
            let x = vs.load(a, &if ta { [k[0], i[0]] } else { [i[0], k[0]] });
            let y = vs.load(b, &if tb { [i[1], k[0]] } else { [k[0], i[1]] });
            Ok(vs.arena.mul(x, y))
        })?;
        let ty = vs.arena.ty(y);
        if alpha != 1.0 {
            let alpha = vs.arena.real(ty, f64::from(alpha));
            y = vs.arena.mul(y, alpha);
        }
        if let Some(c) = c
            && beta != 0.0
        {
            let mut z = vs.load_broadcast(c, i);
            if beta != 1.0 {
                let beta = vs.arena.real(ty, f64::from(beta));
                z = vs.arena.mul(z, beta);
            }
            y = vs.arena.add(y, z);
        }
        Ok(y)
    })
}

fn einsum(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let inputs: Vec<ValueId> = (0..cx.input_count()).map(|n| cx.input(n)).collect::<Result<_>>()?;
    let shapes: Vec<Shape> = inputs.iter().map(|v| cx.values.shape(*v).to_vec()).collect();
    let e = Equation::new(cx.attrs().str("equation")?, &shapes.iter().collect::<Vec<_>>())?;
    let summed = e.summed();
    cx.func(|vs, i| {
        let extents: Vec<Dim> = summed.iter().map(|l| e.size(*l)).collect();
        fold(vs, FoldOp::Sum, &extents, |vs, k| {
            let mut product = None;
            for ((v, labels), shape) in inputs.iter().zip(&e.operands).zip(&shapes) {
                let zero = vs.arena.int(0);
                let at: Vec<ExprId> = labels
                    .iter()
                    .zip(shape)
                    .map(|(l, d)| {
                        let outer = e.output.iter().position(|x| x == l).map(|n| i[n]);
                        let inner = summed.iter().position(|x| x == l).map(|n| k[n]);
                        if d.is(1) { zero } else { outer.or(inner).unwrap_or(zero) }
                    })
                    .collect();
                let x = vs.load(*v, &at);
                product = Some(product.map_or(x, |p| vs.arena.mul(p, x)));
            }
            Ok(product.unwrap_or_else(|| vs.arena.int(0)))
        })
    })
}

/// The zero point or scale of an operand: one number, one for each row (`a`) or column (`b`), or of the operand's rank
/// with 1 for the inner axis.
fn parameter(vs: &mut Values, p: ValueId, operand: &[ExprId], along: usize) -> ExprId {
    let shape = vs.shape(p).to_vec();
    if shape.iter().all(|d| d.is(1)) {
        return scalar(vs, p);
    }
    if shape.len() == 1 {
        return vs.load(p, &[operand[along]]);
    }
    vs.load_broadcast(p, operand)
}

/// `Σ (a - zero_a) · (b - zero_b)` in `I32`, for the operator whose operands and zero points are these.
fn integer_product(vs: &mut Values, a: Operand, b: Operand, shape: Shape) -> Result<ValueId> {
    if let Some(sums) = integer::product(vs, a, b)? {
        return Ok(sums);
    }
    vs.func(DType::Int32, shape, |vs, i| plain_product(vs, a, b, i))
}

/// The same for one element, where nothing is known of the operands.
fn plain_product(vs: &mut Values, (a, zero_a): Operand, (b, zero_b): Operand, i: &[ExprId]) -> Result<ExprId> {
    let k = inner(vs, a);
    fold(vs, FoldOp::Sum, &[k], |vs, k| {
        let (ia, ib) = operands(vs, a, b, i, k[0]);
        let mut centred = |v: ValueId, zero: Option<ValueId>, at: &[ExprId], along: usize| {
            let x = vs.load(v, at);
            let x = vs.arena.cast(Ty::I32, x);
            match zero {
                Some(z) => {
                    let z = parameter(vs, z, at, along);
                    let z = vs.arena.cast(Ty::I32, z);
                    vs.arena.sub(x, z)
                }
                None => x,
            }
        };
        let x = centred(a, zero_a, &ia, ia.len().saturating_sub(2));
        let y = centred(b, zero_b, &ib, ib.len() - 1);
        Ok(binary(vs, BinaryOp::Mul, x, y))
    })
}

fn matmul_integer(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (a, b) = ((cx.input(0)?, cx.optional(2)), (cx.input(1)?, cx.optional(3)));
    let (_, shape) = cx.output(0)?;
    Ok(vec![integer_product(cx.values, a, b, shape)?])
}

fn qlinear_matmul(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (a, b) = ((cx.input(0)?, Some(cx.input(2)?)), (cx.input(3)?, Some(cx.input(5)?)));
    let (scale_a, scale_b) = (cx.input(1)?, cx.input(4)?);
    let (scale_y, zero_y) = (cx.input(6)?, cx.input(7)?);
    let (dtype, shape) = cx.output(0)?;
    let sums = integer_product(cx.values, a, b, shape)?;
    cx.func(|vs, i| {
        let sum = vs.load(sums, i);
        let zero = vs.arena.int(0);
        let (ia, ib) = operands(vs, a.0, b.0, i, zero);
        let (sa, sb) =
            (parameter(vs, scale_a, &ia, ia.len().saturating_sub(2)), parameter(vs, scale_b, &ib, ib.len() - 1));
        let sy = scalar(vs, scale_y);
        let (sa, sb, sy) = (vs.arena.cast(Ty::F32, sa), vs.arena.cast(Ty::F32, sb), vs.arena.cast(Ty::F32, sy));
        let scale = vs.arena.mul(sa, sb);
        let scale = vs.arena.div(scale, sy);
        let x = vs.arena.cast(Ty::F32, sum);
        let x = vs.arena.mul(x, scale);
        let zero = scalar(vs, zero_y);
        Ok(quantized(vs, x, Some(zero), dtype))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{Float, Int, Str};
    use crate::lower::testing::{In, array, f32s, near, ramp};
    use crate::tensor::DType;

    /// Absolute and relative. What is wanted was computed by ONNX Runtime 1.31.
    const TOLERANCE: (f64, f64) = (1e-5, 1e-4);

    #[test]
    fn products() {
        near(
            "matrices",
            "MatMul",
            &[],
            &[In::Symbolic(ramp(&[2, 3], 7, 1.0), &["s", ""]), In::Data(ramp(&[3, 2], 3, 1.0))],
            &[f32s(&[2, 2], &[35.0, 20.0, -12.0, -3.0])],
            TOLERANCE,
        );
        near(
            "vectors",
            "MatMul",
            &[],
            &[In::Data(ramp(&[3], 7, 1.0)), In::Data(ramp(&[3], 3, 1.0))],
            &[f32s(&[], &[19.0])],
            TOLERANCE,
        );
        near(
            "vector and matrix",
            "MatMul",
            &[],
            &[In::Data(ramp(&[3], 7, 1.0)), In::Data(ramp(&[3, 2], 3, 1.0))],
            &[f32s(&[2], &[35.0, 20.0])],
            TOLERANCE,
        );
        near(
            "matrix and vector",
            "MatMul",
            &[],
            &[In::Data(ramp(&[2, 3], 7, 1.0)), In::Data(ramp(&[3], 3, 1.0))],
            &[f32s(&[2], &[19.0, -30.0])],
            TOLERANCE,
        );
        near(
            "broadcast batches",
            "MatMul",
            &[],
            &[In::Data(ramp(&[2, 1, 1, 2], 7, 1.0)), In::Data(ramp(&[2, 2, 1], 3, 1.0))],
            &[f32s(&[2, 2, 1, 1], &[21.0, 3.0, 0.0, 18.0])],
            TOLERANCE,
        );
        near(
            "batch of vectors",
            "MatMul",
            &[],
            &[In::Symbolic(ramp(&[2, 2, 2], 7, 1.0), &["b", "", ""]), In::Data(ramp(&[2], 3, 1.0))],
            &[f32s(&[2, 2], &[21.0, 0.0, 1.0, -20.0])],
            TOLERANCE,
        );
        near(
            "scaled, with a row",
            "Gemm",
            &[("transA", Int(1)), ("transB", Int(1)), ("alpha", Float(0.5)), ("beta", Float(2.0))],
            &[In::Data(ramp(&[3, 2], 7, 1.0)), In::Data(ramp(&[2, 3], 3, 1.0)), In::Data(ramp(&[2], 4, 1.0))],
            &[f32s(&[2, 2], &[5.0, -8.5, -21.5, -6.5])],
            TOLERANCE,
        );
        near(
            "with a column",
            "Gemm",
            &[],
            &[In::Data(ramp(&[2, 3], 7, 1.0)), In::Data(ramp(&[3, 2], 3, 1.0)), In::Data(ramp(&[2, 1], 4, 1.0))],
            &[f32s(&[2, 2], &[30.0, 15.0, -13.0, -4.0])],
            TOLERANCE,
        );
        near(
            "without a term",
            "Gemm",
            &[],
            &[In::Data(ramp(&[2, 3], 7, 1.0)), In::Data(ramp(&[3, 1], 3, 1.0))],
            &[f32s(&[2, 1], &[19.0, -30.0])],
            TOLERANCE,
        );
    }

    #[test]
    fn einsum() {
        near(
            "bhqd,bhkd->bhqk",
            "Einsum",
            &[("equation", Str("bhqd,bhkd->bhqk".into()))],
            &[In::Data(ramp(&[1, 2, 2, 3], 7, 1.0)), In::Data(ramp(&[1, 2, 1, 3], 7, 1.0))],
            &[f32s(&[1, 2, 2, 1], &[33.0, -17.0, 32.0, 29.0])],
            TOLERANCE,
        );
        near(
            "...ij,...jk",
            "Einsum",
            &[("equation", Str("...ij,...jk".into()))],
            &[In::Data(ramp(&[2, 1, 2], 7, 1.0)), In::Data(ramp(&[1, 2, 2], 7, 1.0))],
            &[f32s(&[2, 1, 2], &[21.0, 0.0, 0.0, 21.0])],
            TOLERANCE,
        );
        near(
            "ii->i",
            "Einsum",
            &[("equation", Str("ii->i".into()))],
            &[In::Data(ramp(&[3, 3], 7, 1.0))],
            &[f32s(&[3], &[-5.0, 1.0, -4.0])],
            TOLERANCE,
        );
        near(
            "ij,jk,kl->il",
            "Einsum",
            &[("equation", Str("ij,jk,kl->il".into()))],
            &[In::Data(ramp(&[1, 2], 7, 1.0)), In::Data(ramp(&[2, 3], 7, 1.0)), In::Data(ramp(&[3, 2], 7, 1.0))],
            &[f32s(&[1, 2], &[-155.0, 18.0])],
            TOLERANCE,
        );
        near(
            "...i->...",
            "Einsum",
            &[("equation", Str("...i->...".into()))],
            &[In::Data(ramp(&[2, 3], 7, 1.0))],
            &[f32s(&[2], &[-5.0, 3.0])],
            TOLERANCE,
        );
        near(
            "i,j->ij",
            "Einsum",
            &[("equation", Str("i,j->ij".into()))],
            &[In::Data(ramp(&[2], 7, 1.0)), In::Data(ramp(&[2], 7, 1.0))],
            &[f32s(&[2, 2], &[25.0, -10.0, -10.0, 4.0])],
            TOLERANCE,
        );
        near(
            "ij->",
            "Einsum",
            &[("equation", Str("ij->".into()))],
            &[In::Data(ramp(&[2, 3], 7, 1.0))],
            &[f32s(&[], &[-2.0])],
            TOLERANCE,
        );
    }

    #[test]
    fn quantized_products() {
        near(
            "without zero points",
            "MatMulInteger",
            &[],
            &[
                In::Data(array(DType::Uint8, &[2, 3], &[1.0, 250.0, 3.0, 100.0, 0.0, 7.0])),
                In::Data(array(DType::Int8, &[3, 2], &[5.0, -7.0, 127.0, -128.0, 0.0, 3.0])),
            ],
            &[array(DType::Int32, &[2, 2], &[31755.0, -31998.0, 500.0, -679.0])],
            TOLERANCE,
        );
        near(
            "a zero point a column",
            "MatMulInteger",
            &[],
            &[
                In::Data(array(DType::Uint8, &[2, 3], &[1.0, 250.0, 3.0, 100.0, 0.0, 7.0])),
                In::Data(array(DType::Int8, &[3, 2], &[5.0, -7.0, 127.0, -128.0, 0.0, 3.0])),
                In::Data(array(DType::Uint8, &[], &[9.0])),
                In::Data(array(DType::Int8, &[2], &[1.0, -2.0])),
            ],
            &[array(DType::Int32, &[2, 2], &[30340.0, -30356.0, -768.0, 669.0])],
            TOLERANCE,
        );
        near(
            "saturates",
            "QLinearMatMul",
            &[],
            &[
                In::Data(array(DType::Uint8, &[2, 3], &[1.0, 250.0, 3.0, 100.0, 0.0, 7.0])),
                In::Data(f32s(&[], &[0.1])),
                In::Data(array(DType::Uint8, &[], &[9.0])),
                In::Data(array(DType::Int8, &[3, 2], &[5.0, -7.0, 127.0, -128.0, 0.0, 3.0])),
                In::Data(f32s(&[], &[0.05])),
                In::Data(array(DType::Int8, &[], &[0.0])),
                In::Data(f32s(&[], &[0.5])),
                In::Data(array(DType::Uint8, &[], &[120.0])),
            ],
            &[array(DType::Uint8, &[2, 2], &[255.0, 0.0, 113.0, 125.0])],
            TOLERANCE,
        );
    }
}
