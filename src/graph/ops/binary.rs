//! Elementwise operators of several tensors (ai.onnx), under numpy's broadcasting.
//!
//! Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Clip Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min
//! Mod Mul Or Pow Sub Sum Where Xor

use super::Op;
use super::rules::{MANY, broadcast, broadcast_inputs, int, one_dtype, range, required, row};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::{DType, Dim, known, show};

pub(super) const ROWS: &[Op] = &[
    row("Add", &[7], (2, 2), &[], |i| arithmetic(i, |a, b| Some(a.add(b)))),
    row("And", &[7], (2, 2), &[], |i| logic(i, |a, b| Some(Dim::from(a.known()?.min(b.known()?))))),
    row("BitShift", &[11], (2, 2), &[required("direction")], plain),
    row("BitwiseAnd", &[18], (2, 2), &[], plain),
    row("BitwiseOr", &[18], (2, 2), &[], plain),
    row("BitwiseXor", &[18], (2, 2), &[], plain),
    row("Clip", &[6, 11], (1, 3), &[], clip),
    row("Div", &[7], (2, 2), &[], |i| arithmetic(i, quotient)),
    row("Equal", &[7], (2, 2), &[], |i| compare(i, |d| d.known().map(|d| d == 0).or(nonzero(d)))),
    row("Greater", &[7], (2, 2), &[], |i| compare(i, |d| sign(d, 1))),
    row("GreaterOrEqual", &[12], (2, 2), &[], |i| compare(i, |d| sign(d, 0))),
    row("Less", &[7], (2, 2), &[], |i| compare(i, |d| sign(d, 0).map(|ge| !ge))),
    row("LessOrEqual", &[12], (2, 2), &[], |i| compare(i, |d| sign(d, 1).map(|gt| !gt))),
    row("Max", &[6, 8], (1, MANY), &[], |i| arithmetic(i, |a, b| Some(a.maximum(b)))),
    row("Mean", &[6, 8], (1, MANY), &[], plain),
    row("Min", &[6, 8], (1, MANY), &[], |i| arithmetic(i, |a, b| Some(a.minimum(b)))),
    row("Mod", &[10], (2, 2), &[int("fmod", 0)], |i| arithmetic(i, remainder)),
    row("Mul", &[7], (2, 2), &[], |i| arithmetic(i, |a, b| Some(a.mul(b)))),
    row("Or", &[7], (2, 2), &[], |i| logic(i, |a, b| Some(Dim::from(a.known()?.max(b.known()?))))),
    row("Pow", &[7, 12], (2, 2), &[], power),
    row("Sub", &[7], (2, 2), &[], |i| arithmetic(i, |a, b| Some(a.sub(b)))),
    row("Sum", &[6, 8], (1, MANY), &[], plain),
    row("Where", &[9], (3, 3), &[], choose),
    row("Xor", &[7], (2, 2), &[], |i| logic(i, |a, b| Some(Dim::from(a.known()? ^ b.known()?)))),
];

fn plain(i: &Infer<'_>) -> Result<Vec<Type>> {
    Ok(vec![Type::new(one_dtype(i)?, broadcast_inputs(i)?)])
}

/// What is known of the elements of a broadcast result, where scalars and vectors of dims meet.
fn contents(i: &Infer<'_>, f: impl Fn(&Dim, &Dim) -> Option<Dim>) -> Option<Vec<Dim>> {
    let mut all: Option<Vec<Dim>> = None;
    for n in 0..i.inputs.len() {
        let c = i.content(n)?;
        all = Some(match all {
            None => c,
            Some(a) => {
                let len = if a.is_empty() || c.is_empty() { 0 } else { a.len().max(c.len()) };
                (0..len).map(|n| f(a.get(n).or(a.first())?, c.get(n).or(c.first())?)).collect::<Option<_>>()?
            }
        });
    }
    all
}

fn arithmetic(i: &Infer<'_>, f: impl Fn(&Dim, &Dim) -> Option<Dim>) -> Result<Vec<Type>> {
    Ok(vec![i.with_content(one_dtype(i)?, broadcast_inputs(i)?, contents(i, f))])
}

fn logic(i: &Infer<'_>, f: impl Fn(&Dim, &Dim) -> Option<Dim>) -> Result<Vec<Type>> {
    match one_dtype(i)? {
        DType::Bool => arithmetic(i, f),
        d => Err(Error::new(Kind::InvalidModel, format!("a logical operator on {d}"))),
    }
}

/// `f` decides on the difference of the elements.
fn compare(i: &Infer<'_>, f: impl Fn(&Dim) -> Option<bool>) -> Result<Vec<Type>> {
    one_dtype(i)?;
    let content = contents(i, |a, b| f(&a.sub(b)).map(|t| Dim::from(i64::from(t))));
    Ok(vec![i.with_content(DType::Bool, broadcast_inputs(i)?, content)])
}

/// Whether the difference is at least `least`, where that holds for every binding or none.
fn sign(d: &Dim, least: i64) -> Option<bool> {
    let r = range(d);
    if r.min >= least {
        return Some(true);
    }
    (r.max < least).then_some(false)
}

fn nonzero(d: &Dim) -> Option<bool> {
    let r = range(d);
    (r.min > 0 || r.max < 0).then_some(false)
}

/// Division that truncates, where it is known to be exact or of what is not negative.
fn quotient(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a.known(), b.known()) {
        (_, Some(0)) => None,
        (Some(a), Some(b)) => a.checked_div(b).map(Dim::from),
        _ => a.div_exact(b).or_else(|| (range(a).min >= 0 && range(b).min > 0).then(|| a.floor_div(b))),
    }
}

fn remainder(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a.known()?, b.known()?) {
        (a, b) if a >= 0 && b > 0 => Some(Dim::from(a % b)),
        _ => None,
    }
}

/// The base's type stands; the exponent may have another.
fn power(i: &Infer<'_>) -> Result<Vec<Type>> {
    Ok(vec![Type::new(i.dtype(0)?, broadcast_inputs(i)?)])
}

fn choose(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (c, a, b) = (i.input(0)?, i.input(1)?, i.input(2)?);
    if a.dtype != b.dtype || c.dtype != DType::Bool {
        let e = format!("Where of a {} condition, {} and {}", c.dtype, a.dtype, b.dtype);
        return Err(Error::new(Kind::InvalidModel, e));
    }
    let shape = broadcast(&broadcast(&c.shape, &a.shape)?, &b.shape)?;
    let content = || {
        let (c, a, b) = (i.content(0)?, i.content(1)?, i.content(2)?);
        let len = known(&shape)?.into_iter().product();
        let at = |v: &[Dim], n: usize| v.get(n).or(v.first()).cloned();
        (0..len).map(|n| if at(&c, n)?.known()? != 0 { at(&a, n) } else { at(&b, n) }).collect()
    };
    let content = if shape.len() <= 1 { content() } else { None };
    Ok(vec![i.with_content(a.dtype, shape, content)])
}

/// The bounds are optional scalars.
fn clip(i: &Infer<'_>) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    for bound in [1, 2].into_iter().filter_map(|n| i.optional(n)) {
        if bound.dtype != t.dtype || !bound.shape.iter().all(|d| d.is(1)) {
            let e = format!("Clip's bound is {} {}, not a {} scalar", bound.dtype, show(&bound.shape), t.dtype);
            return Err(Error::new(Kind::InvalidModel, e));
        }
    }
    Ok(vec![Type::new(t.dtype, t.shape.clone())])
}
