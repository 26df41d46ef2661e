//! Elementwise operators of one tensor. Those of a smooth function keep a relative error near that of the target's own
//! functions also where the textbook formula cancels or overflows.

use super::formula::X;
use super::map::{in_float, map};
use super::{Cx, Lower};
use crate::error::{Error, Kind, Result};
use crate::kernel::{Scalar, UnaryOp, ValueId};
use std::f64::consts::{LN_2, PI, SQRT_2};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("Abs", |cx| one(cx, |x| x.abs())),
    ("Acos", |cx| op(cx, UnaryOp::Acos)),
    ("Acosh", |cx| one(cx, acosh)),
    ("Asin", |cx| op(cx, UnaryOp::Asin)),
    ("Asinh", |cx| one(cx, asinh)),
    ("Atan", |cx| op(cx, UnaryOp::Atan)),
    ("Atanh", |cx| one(cx, atanh)),
    ("BitwiseNot", |cx| op(cx, UnaryOp::Not)),
    ("Ceil", |cx| op(cx, UnaryOp::Ceil)),
    ("Celu", |cx| {
        let alpha = float(cx, "alpha")?;
        one(cx, |x| x.max(0.0) + ((x / alpha).exp_m1() * alpha).min(0.0))
    }),
    ("Cos", |cx| op(cx, UnaryOp::Cos)),
    ("Cosh", |cx| one(cx, |x| (x.abs() - LN_2).exp() + (-x.abs() - LN_2).exp())),
    ("Dropout", dropout),
    ("Elu", |cx| {
        let alpha = float(cx, "alpha")?;
        one(cx, |x| x.lt(0.0).select(x.exp_m1() * alpha, x))
    }),
    ("Erf", |cx| op(cx, UnaryOp::Erf)),
    ("Exp", |cx| one(cx, |x| x.exp())),
    ("Floor", |cx| op(cx, UnaryOp::Floor)),
    ("Gelu", gelu),
    ("HardSigmoid", |cx| {
        let (alpha, beta) = (float(cx, "alpha")?, float(cx, "beta")?);
        one(cx, |x| (x * alpha + beta).max(0.0).min(1.0))
    }),
    ("HardSwish", |cx| one(cx, |x| x * (x * (1.0 / 6.0) + 0.5).max(0.0).min(1.0))),
    ("Identity", |cx| one(cx, |x| x)),
    ("IsInf", is_inf),
    ("IsNaN", |cx| op(cx, UnaryOp::IsNan)),
    ("LeakyRelu", |cx| {
        let alpha = float(cx, "alpha")?;
        one(cx, |x| x.lt(0.0).select(x * alpha, x))
    }),
    ("Log", |cx| one(cx, |x| x.log())),
    ("Mish", |cx| one(cx, mish)),
    ("Neg", |cx| op(cx, UnaryOp::Neg)),
    ("Not", |cx| op(cx, UnaryOp::Not)),
    ("PRelu", |cx| map(cx, |x| x[0].lt(0.0).select(x[0] * x[1], x[0]))),
    ("Reciprocal", |cx| one(cx, |x| x.number(1.0) / x)),
    ("Relu", |cx| one(cx, |x| x.max(0.0))),
    ("Round", |cx| one(cx, |x| x.round())),
    ("Selu", |cx| {
        let (alpha, gamma) = (float(cx, "alpha")?, float(cx, "gamma")?);
        one(cx, |x| x.gt(0.0).select(x, x.exp_m1() * alpha) * gamma)
    }),
    ("Shrink", shrink),
    ("Sigmoid", |cx| one(cx, |x| x.sigmoid())),
    ("Sign", |cx| op(cx, UnaryOp::Sign)),
    ("Sin", |cx| op(cx, UnaryOp::Sin)),
    ("Sinh", |cx| one(cx, sinh)),
    ("Softplus", |cx| one(cx, |x| x.max(0.0) + (-x.abs()).exp().log_1p())),
    ("Softsign", |cx| one(cx, |x| x / (x.abs() + 1.0))),
    ("Sqrt", |cx| one(cx, |x| x.sqrt())),
    ("Swish", |cx| {
        let alpha = float(cx, "alpha")?;
        one(cx, |x| x * (x * alpha).sigmoid())
    }),
    ("Tan", |cx| one(cx, |x| x.unary(UnaryOp::Sin) / x.unary(UnaryOp::Cos))),
    ("Tanh", |cx| op(cx, UnaryOp::Tanh)),
    ("ThresholdedRelu", |cx| {
        let alpha = float(cx, "alpha")?;
        one(cx, |x| x.gt(alpha).select(x, 0.0))
    }),
];

fn one(cx: &mut Cx<'_>, f: impl for<'a> FnOnce(X<'a>) -> X<'a>) -> Result<Vec<ValueId>> {
    map(cx, |x| f(x[0]))
}

fn op(cx: &mut Cx<'_>, op: UnaryOp) -> Result<Vec<ValueId>> {
    one(cx, |x| x.unary(op))
}

fn float(cx: &Cx<'_>, name: &str) -> Result<f64> {
    cx.attrs().float(name).map(f64::from)
}

/// Beyond it, `x² + 1` is `x²` in `F32` and would soon overflow.
const LARGE: f64 = 1e8;

fn asinh(x: X<'_>) -> X<'_> {
    let a = x.abs();
    let b = a.min(LARGE);
    let near = (b + b * b / ((b * b + 1.0).sqrt() + 1.0)).log_1p();
    a.lt(LARGE).select(near, a.log() + LN_2).copy_sign(x)
}

fn acosh(x: X<'_>) -> X<'_> {
    let t = x.min(LARGE) - 1.0;
    let near = (t + (t * (t + 2.0)).sqrt()).log_1p();
    x.lt(LARGE).select(near, x.log() + LN_2)
}

fn atanh(x: X<'_>) -> X<'_> {
    let a = x.abs();
    let b = (a * 2.0 / (-a + 1.0)).log_1p() * 0.5;
    b.copy_sign(x)
}

fn sinh(x: X<'_>) -> X<'_> {
    let (mut odd, mut factorial) = (vec![], 1.0);
    for n in 0..7u32 {
        odd.push(1.0 / factorial);
        factorial *= f64::from((2 * n + 2) * (2 * n + 3));
    }
    let near = x * (x * x).polynomial(&odd);
    let far = ((x.abs() - LN_2).exp() - (-x.abs() - LN_2).exp()).copy_sign(x);
    x.abs().lt(1.0).select(near, far)
}

/// `x tanh(log(1 + eˣ))` as a quotient of polynomials in `eˣ`, which is 1 from 20 on.
fn mish(x: X<'_>) -> X<'_> {
    let e = x.min(20.0).exp();
    let n = e * (e + 2.0);
    x * (n / (n + 2.0))
}

fn gelu(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    match cx.attrs().str("approximate")? {
        "none" => one(cx, |x| x * 0.5 * ((x * (1.0 / SQRT_2)).unary(UnaryOp::Erf) + 1.0)),
        "tanh" => one(cx, |x| {
            let inner = (x + x * x * x * 0.044715) * (2.0 / PI).sqrt();
            x * 0.5 * (inner.unary(UnaryOp::Tanh) + 1.0)
        }),
        other => Err(Error::new(Kind::InvalidModel, format!("Gelu's approximate is \"{other}\", not none or tanh"))),
    }
}

fn is_inf(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (negative, positive) = (cx.attrs().flag("detect_negative")?, cx.attrs().flag("detect_positive")?);
    one(cx, |x| {
        let inf = x.unary(UnaryOp::IsInf);
        match (negative, positive) {
            (true, true) => inf,
            (true, false) => inf.and(x.lt(0.0)),
            (false, true) => inf.and(x.gt(0.0)),
            (false, false) => x.constant(Scalar::bool(false)),
        }
    })
}

fn shrink(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (bias, lambd) = (float(cx, "bias")?, float(cx, "lambd")?);
    one(cx, |x| in_float(x, |x| x.lt(-lambd).select(x + bias, x.gt(lambd).select(x - bias, 0.0))))
}

fn dropout(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let mut out = cx.func(|vs, i| Ok(vs.load(x, i)))?;
    if cx.wants(1) {
        let (dtype, shape) = cx.output(1)?;
        out.push(cx.values.func(dtype, shape, |vs, _| Ok(vs.arena.constant(Scalar::bool(true))))?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue;
    use crate::lower::testing::{Case, In, array, difference, f32s, numbers, run};
    use crate::tensor::DType;

    /// Against `f64`, where textbook formulas cancel, overflow or lose their sign. (absolute, relative)
    #[test]
    fn smooth_functions_keep_their_digits() {
        type F = fn(f64) -> f64;
        let cases: &[(&str, F, &[f64])] = &[
            ("Acosh", f64::acosh, &[1.0, 1.000_001, 2.0, 1e4, 1e30]),
            ("Asinh", f64::asinh, &[0.0, 1e-6, -1e-3, 2.0, -1e30]),
            ("Atanh", f64::atanh, &[0.0, 1e-6, -0.3, 0.999]),
            ("Cosh", f64::cosh, &[0.0, -3.0, 88.9]),
            ("Elu", |x| if x < 0.0 { x.exp_m1() } else { x }, &[-1e-6, -0.4, -90.0, 2.0]),
            ("Mish", |x| x * (x.exp().ln_1p()).tanh(), &[-50.0, -1.0, 0.0, 3.0, 80.0]),
            ("Sigmoid", |x| 1.0 / (1.0 + (-x).exp()), &[-100.0, -1.0, 0.0, 1.0, 100.0]),
            ("Sinh", f64::sinh, &[1e-6, -0.5, 1.5, -88.9]),
            ("Softplus", |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), &[-60.0, -5.0, 0.0, 5.0, 100.0]),
            ("Tan", f64::tan, &[0.0, 1e-6, -1.2]),
        ];
        for (op, f, xs) in cases {
            let got = run(op, &[], &[In::Data(f32s(&[xs.len()], xs))], 1).unwrap();
            let want: Vec<f64> = numbers(&f32s(&[xs.len()], xs)).into_iter().map(f).collect();
            assert_eq!(difference(&got[0], &f32s(&[xs.len()], &want), (1e-12, 2e-5)), None, "{op}");
        }
    }

    #[test]
    fn cases() {
        let nan = f64::NAN;
        let inf = f64::INFINITY;
        let float = |op: &str, attrs: &[(&'static str, AttrValue)], x: &[f64], want: &[f64]| {
            let (x, want) = (f32s(&[x.len()], x), f32s(&[want.len()], want));
            Case { name: op, op, attrs, inputs: &[In::Data(x)], want: &[want], tolerance: (1e-6, 1e-5) }.check();
        };
        float("Relu", &[], &[-1.0, 2.0, nan], &[0.0, 2.0, nan]);
        float("Sign", &[], &[-2.0, -0.0, 3.0], &[-1.0, 0.0, 1.0]);
        float("Round", &[], &[0.5, 1.5, -2.5], &[0.0, 2.0, -2.0]);
        float("LeakyRelu", &[("alpha", AttrValue::Float(0.5))], &[-2.0, 2.0], &[-1.0, 2.0]);
        float("HardSigmoid", &[], &[-9.0, 0.0, 9.0], &[0.0, 0.5, 1.0]);
        float("HardSwish", &[], &[-4.0, 3.0, 1.0], &[0.0, 3.0, 2.0 / 3.0]);
        float("Gelu", &[], &[1.0, -1.0], &[0.841_344_7, -0.158_655_3]);
        float("Gelu", &[("approximate", AttrValue::Str("tanh".into()))], &[1.0], &[0.841_192]);
        float(
            "Shrink",
            &[("bias", AttrValue::Float(1.0)), ("lambd", AttrValue::Float(1.5))],
            &[-2.0, 1.0, 2.0],
            &[-1.0, 0.0, 1.0],
        );
        float("ThresholdedRelu", &[], &[0.5, 1.0, 1.5], &[0.0, 0.0, 1.5]);
        let truth = |op, attrs, x: &[f64], want: &[f64]| {
            let (x, want) = (f32s(&[x.len()], x), array(DType::Bool, &[want.len()], want));
            Case { name: op, op, attrs, inputs: &[In::Data(x)], want: &[want], tolerance: (0.0, 0.0) }.check();
        };
        truth("IsNaN", &[], &[nan, inf, 0.0], &[1.0, 0.0, 0.0]);
        truth("IsInf", &[("detect_positive", AttrValue::Int(0))], &[nan, inf, -inf], &[0.0, 0.0, 1.0]);
        let int = |op, dtype, x: &[f64], want: &[f64]| {
            let (x, want) = (array(dtype, &[x.len()], x), array(dtype, &[want.len()], want));
            Case { name: op, op, attrs: &[], inputs: &[In::Data(x)], want: &[want], tolerance: (0.0, 0.0) }.check();
        };
        int("Neg", DType::Int8, &[-128.0, 5.0], &[-128.0, -5.0]);
        int("Abs", DType::Uint8, &[255.0], &[255.0]);
        int("BitwiseNot", DType::Uint16, &[0.0, 65535.0], &[65535.0, 0.0]);
        int("Not", DType::Bool, &[0.0, 1.0], &[1.0, 0.0]);
    }

    #[test]
    fn dropout_only_infers() {
        let x = f32s(&[2], &[1.0, 2.0]);
        let flag = |b| In::Constant(array(DType::Bool, &[], &[b]));
        let out = run("Dropout", &[], &[In::Data(x.clone()), In::Absent, flag(0.0)], 2).unwrap();
        assert_eq!((&out[0], numbers(&out[1])), (&x, vec![1.0, 1.0]));
        let e = run("Dropout", &[], &[In::Data(x), In::Absent, flag(1.0)], 1).err();
        assert_eq!(e.map(|e| e.kind()), Some(crate::error::Kind::UnsupportedOp));
    }
}
