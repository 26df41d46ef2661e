//! Between real numbers and integers with a scale and a zero point.

use super::formula::formula;
use super::map::operand;
use super::math::{fold, quantized, scalar};
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::quantize::{Grain, grain};
use crate::kernel::{BinaryOp, ExprId, FoldOp, Ty, ValueId, Values};
use crate::tensor::DType;

pub(super) const ROWS: &[(&str, Lower)] =
    &[("DequantizeLinear", dequantize), ("DynamicQuantizeLinear", dynamic), ("QuantizeLinear", quantize)];

/// The element of a scale or zero point for the data's element at `index`.
fn parameter(vs: &mut Values, v: ValueId, grain: Grain, index: &[ExprId]) -> ExprId {
    let at = match grain {
        Grain::Tensor => {
            let zero = vs.arena.int(0);
            vec![zero; vs.shape(v).len()]
        }
        Grain::Axis(axis) => vec![index[axis]],
        Grain::Block(axis, size) => {
            let mut at = index.to_vec();
            let size = vs.arena.int(size);
            at[axis] = vs.arena.binary(BinaryOp::FloorDiv, at[axis], size);
            at
        }
    };
    operand(vs, v, &at)
}

/// `saturate(round(x / scale) + zero)`, ties to even.
fn quantize(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, scale, zero, (dtype, _)) = (cx.input(0)?, cx.input(1)?, cx.optional(2), cx.output(0)?);
    let grain = grain(&cx.shape(0)?, &cx.shape(1)?, cx.attrs())?;
    cx.func(|vs, i| {
        let scale = parameter(vs, scale, grain, i);
        let zero = zero.map(|z| parameter(vs, z, grain, i));
        let x = vs.load(x, i);
        let ty = vs.arena.ty(scale);
        let x = vs.arena.cast(ty, x);
        let q = vs.arena.div(x, scale);
        Ok(quantized(vs, q, zero, dtype))
    })
}

/// `(x - zero) · scale`.
fn dequantize(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, scale, zero, (dtype, _)) = (cx.input(0)?, cx.input(1)?, cx.optional(2), cx.output(0)?);
    let grain = grain(&cx.shape(0)?, &cx.shape(1)?, cx.attrs())?;
    cx.func(|vs, i| {
        let scale = parameter(vs, scale, grain, i);
        // Unsigned types would wrap below zero.
        let signed = |vs: &mut Values, e: ExprId| vs.arena.cast(Ty::I32, e);
        let mut x = vs.load(x, i);
        if !vs.arena.ty(x).is_float() {
            x = signed(vs, x);
            if let Some(zero) = zero {
                let zero = parameter(vs, zero, grain, i);
                let zero = signed(vs, zero);
                x = vs.arena.sub(x, zero);
            }
        }
        let ty = vs.arena.ty(scale);
        let x = vs.arena.cast(ty, x);
        let y = vs.arena.mul(x, scale);
        Ok(vs.arena.cast(Ty::of(dtype), y))
    })
}

/// A scale and zero point under which 0..=255 covers the data and 0.
fn dynamic(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, shape, (dtype, out)) = (cx.input(0)?, cx.shape(0)?, cx.output(0)?);
    let low = cx.values.func(DType::Float32, vec![], |vs, _| {
        let all = fold(vs, FoldOp::Min, &shape, |vs, k| Ok(vs.load(x, k)))?;
        Ok(formula(&mut vs.arena, &[all], |x| x[0].min(0.0)))
    })?;
    let scale = cx.values.func(DType::Float32, vec![], |vs, _| {
        let all = fold(vs, FoldOp::Max, &shape, |vs, k| Ok(vs.load(x, k)))?;
        let low = vs.load(low, &[]);
        Ok(formula(&mut vs.arena, &[all, low], |x| {
            let span = x[0].max(0.0) - x[1];
            // All zeros: any scale will do.
            span.gt(0.0).select(span / 255.0, 1.0)
        }))
    })?;
    let zero = cx.values.func(DType::Uint8, vec![], |vs, _| {
        let (low, scale) = (vs.load(low, &[]), vs.load(scale, &[]));
        let z = formula(&mut vs.arena, &[low, scale], |x| -x[0] / x[1]);
        Ok(quantized(vs, z, None, DType::Uint8))
    })?;
    let y = cx.values.func(dtype, out, |vs, i| {
        let (x, scale, zero) = (vs.load(x, i), scalar(vs, scale), scalar(vs, zero));
        let q = vs.arena.div(x, scale);
        Ok(quantized(vs, q, Some(zero), DType::Uint8))
    })?;
    Ok(vec![y, scale, zero])
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::Int;
    use crate::lower::testing::{In, array, f32s, near};
    use crate::tensor::DType::{Int8, Uint8};

    #[test]
    fn cases() {
        let tolerance = (1e-7, 1e-6);
        let x = || In::Data(f32s(&[2, 2], &[0.5, 1.5, -300.0, 300.0]));
        let scale = |v: &[f64]| In::Constant(f32s(&[v.len()], v));
        let zero = In::Constant(array(Int8, &[2], &[0.0, 1.0]));
        let want = [array(Int8, &[2, 2], &[0.0, 3.0, -128.0, 127.0])];
        near("columns, ties to even", "QuantizeLinear", &[], &[x(), scale(&[1.0, 0.75]), zero], &want, tolerance);
        let one = [x(), In::Constant(f32s(&[], &[1.0]))];
        near(
            "uint8 by default",
            "QuantizeLinear",
            &[],
            &one,
            &[array(Uint8, &[2, 2], &[0.0, 2.0, 0.0, 255.0])],
            tolerance,
        );
        let mixed = [In::Data(array(Int8, &[2], &[-3.0, 5.0])), scale(&[0.5]), In::Constant(array(Int8, &[], &[1.0]))];
        near("a vector and a scalar", "DequantizeLinear", &[], &mixed, &[f32s(&[2], &[-2.0, 2.0])], tolerance);
        let q = In::Data(array(Uint8, &[1, 4], &[0.0, 1.0, 2.0, 255.0]));
        let blocks = In::Constant(f32s(&[1, 2], &[2.0, 0.5]));
        let zeros = In::Constant(array(Uint8, &[1, 2], &[1.0, 2.0]));
        let want = [f32s(&[1, 4], &[-2.0, 0.0, 0.0, 126.5])];
        near("blocks below zero", "DequantizeLinear", &[("block_size", Int(2))], &[q, blocks, zeros], &want, tolerance);
        let x = [In::Data(f32s(&[3], &[-1.0, 0.0, 4.1]))];
        let want = [array(Uint8, &[3], &[0.0, 50.0, 255.0]), f32s(&[], &[0.02]), array(Uint8, &[], &[50.0])];
        near("dynamic", "DynamicQuantizeLinear", &[], &x, &want, tolerance);
        let zeros = [In::Data(f32s(&[1], &[0.0]))];
        let want = [array(Uint8, &[1], &[0.0]), f32s(&[], &[1.0]), array(Uint8, &[], &[0.0])];
        near("all zeros", "DynamicQuantizeLinear", &[], &zeros, &want, tolerance);
    }
}
