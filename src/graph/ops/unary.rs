//! Elementwise operators of one tensor (ai.onnx): the output has the shape of the input.
//!
//! Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Cos Cosh Dropout Elu Erf Exp Floor Gelu HardSigmoid
//! HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not PRelu Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin
//! Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu

use super::Op;
use super::rules::{absent, broadcast, float, int, row, same, string};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, show};

pub(super) const ROWS: &[Op] = &[
    row("Abs", &[6], (1, 1), &[], same),
    row("Acos", &[7], (1, 1), &[], same),
    row("Acosh", &[9], (1, 1), &[], same),
    row("Asin", &[7], (1, 1), &[], same),
    row("Asinh", &[9], (1, 1), &[], same),
    row("Atan", &[7], (1, 1), &[], same),
    row("Atanh", &[9], (1, 1), &[], same),
    row("BitwiseNot", &[18], (1, 1), &[], same),
    row("Ceil", &[6], (1, 1), &[], same),
    row("Celu", &[12], (1, 1), &[float("alpha", 1.0)], same),
    row("Cos", &[7], (1, 1), &[], same),
    row("Cosh", &[9], (1, 1), &[], same),
    Op {
        name: "Dropout",
        since: &[7, 10, 12],
        inputs: (1, 3),
        outputs: (1, 2),
        attrs: &[absent("seed")],
        infer: dropout,
    },
    row("Elu", &[6], (1, 1), &[float("alpha", 1.0)], same),
    row("Erf", &[9], (1, 1), &[], same),
    row("Exp", &[6], (1, 1), &[], same),
    row("Floor", &[6], (1, 1), &[], same),
    row("Gelu", &[20], (1, 1), &[string("approximate", "none")], same),
    row("HardSigmoid", &[6], (1, 1), &[float("alpha", 0.2), float("beta", 0.5)], same),
    row("HardSwish", &[14], (1, 1), &[], same),
    row("Identity", &[1], (1, 1), &[], same),
    row("IsInf", &[10], (1, 1), &[int("detect_negative", 1), int("detect_positive", 1)], truth),
    row("IsNaN", &[9], (1, 1), &[], truth),
    row("LeakyRelu", &[6], (1, 1), &[float("alpha", 0.01)], same),
    row("Log", &[6], (1, 1), &[], same),
    row("Mish", &[18], (1, 1), &[], same),
    row("Neg", &[6], (1, 1), &[], same),
    row("Not", &[1], (1, 1), &[], same),
    row("PRelu", &[7], (2, 2), &[], prelu),
    row("Reciprocal", &[6], (1, 1), &[], same),
    row("Relu", &[6], (1, 1), &[], same),
    row("Round", &[11], (1, 1), &[], same),
    row("Selu", &[6], (1, 1), &[float("alpha", 1.673_263_2), float("gamma", 1.050_701)], same),
    row("Shrink", &[9], (1, 1), &[float("bias", 0.0), float("lambd", 0.5)], same),
    row("Sigmoid", &[6], (1, 1), &[], same),
    row("Sign", &[9], (1, 1), &[], same),
    row("Sin", &[7], (1, 1), &[], same),
    row("Sinh", &[9], (1, 1), &[], same),
    row("Softplus", &[1], (1, 1), &[], same),
    row("Softsign", &[1], (1, 1), &[], same),
    row("Sqrt", &[6], (1, 1), &[], same),
    row("Swish", &[24], (1, 1), &[float("alpha", 1.0)], same),
    row("Tan", &[7], (1, 1), &[], same),
    row("Tanh", &[6], (1, 1), &[], same),
    row("ThresholdedRelu", &[10], (1, 1), &[float("alpha", 1.0)], same),
];

fn truth(i: &Infer<'_>) -> Result<Vec<Type>> {
    Ok(vec![Type::new(DType::Bool, i.shape(0)?.clone())])
}

/// Inference only: the output is the input and the mask is true everywhere.
fn dropout(i: &Infer<'_>) -> Result<Vec<Type>> {
    let zero_ratio = || {
        let ratio = i.constants.get(1).and_then(Option::as_ref);
        ratio.and_then(|a| a.to_f64()).is_some_and(|r| r == [0.0])
    };
    if let Some(mode) = i.ints(2, "Dropout's training_mode")?
        && mode.first().is_some_and(|m| *m != 0)
        && !zero_ratio()
    {
        return Err(Error::new(Kind::UnsupportedOp, "Dropout in training mode")
            .help("export the model for inference (model.eval() in PyTorch)"));
    }
    let t = i.input(0)?;
    Ok(vec![Type::new(t.dtype, t.shape.clone()), Type::new(DType::Bool, t.shape.clone())])
}

/// The slope broadcasts to the input, and not the other way.
fn prelu(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (x, slope) = (i.input(0)?, i.input(1)?);
    if broadcast(&x.shape, &slope.shape)? != x.shape {
        let e = format!("PRelu's slope {} does not broadcast to its input {}", show(&slope.shape), show(&x.shape));
        return Err(Error::new(Kind::InvalidShape, e));
    }
    same(i)
}
