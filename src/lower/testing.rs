//! Runs one operator as the compiler would: shape rule, lowering, naive evaluation.

use super::Lowered;
use crate::error::{Error, Kind, Result};
use crate::graph::attrs::Default as AttrDefault;
use crate::graph::infer::{Infer, Type};
use crate::graph::{AttrValue, Attrs, Graph, Node, Value, ops};
use crate::kernel::reference;
use crate::tensor::{Array, Bindings, DType, Dim, DimRange, Shape};
use std::collections::BTreeMap;

/// An input of an operator under test.
#[derive(Clone)]
pub enum In {
    /// Given at run time, its shape known.
    Data(Array),
    /// Given at run time, its shape symbolic where a name stands.
    Symbolic(Array, &'static [&'static str]),
    /// Known when the model is built.
    Constant(Array),
    Absent,
}

/// Runs operator `name` for its first `outputs` outputs.
pub fn run(name: &str, attrs: &[(&'static str, AttrValue)], inputs: &[In], outputs: usize) -> Result<Vec<Array>> {
    let (lowered, data, dims) = lower(name, attrs, inputs, outputs)?;
    let all = reference::evaluate(&lowered.values, &data, &dims)?;
    Ok(lowered.outputs.iter().map(|id| all[id.0 as usize].clone()).collect())
}

/// Infers and lowers one operator.
pub fn lower(
    name: &str,
    given: &[(&'static str, AttrValue)],
    inputs: &[In],
    outputs: usize,
) -> Result<(Lowered, Vec<Array>, Bindings)> {
    let op = ops::find(name).ok_or_else(|| Error::new(Kind::UnsupportedOp, name))?;
    let mut attrs = Attrs::default();
    for a in op.attrs {
        let value = given.iter().find(|(n, _)| *n == a.name).map(|(_, v)| v.clone());
        let default = match a.default {
            AttrDefault::Int(n) => Some(AttrValue::Int(n)),
            AttrDefault::Float(x) => Some(AttrValue::Float(x)),
            AttrDefault::Str(s) => Some(AttrValue::Str(s.into())),
            AttrDefault::Internal(n) => Some(AttrValue::Int(n)),
            AttrDefault::Absent | AttrDefault::Graph => None,
            AttrDefault::Required if value.is_some() => None,
            AttrDefault::Required => return Err(Error::new(Kind::InvalidModel, format!("{name} needs {}", a.name))),
        };
        if let Some(v) = value.or(default) {
            attrs.0.insert(a.name, v);
        }
    }
    if let Some((unknown, _)) = given.iter().find(|(n, _)| op.attrs.iter().all(|a| a.name != *n)) {
        return Err(Error::new(Kind::InvalidModel, format!("{name} has no attribute {unknown}")));
    }
    let mut g = Graph::default();
    let (mut data, mut dims, mut ranges) = (vec![], Bindings::new(), BTreeMap::new());
    let (mut types, mut constants, mut ids) = (vec![], vec![], vec![]);
    for i in inputs {
        let (array, names, constant) = match i {
            In::Absent => {
                types.push(None);
                constants.push(None);
                ids.push(None);
                continue;
            }
            In::Data(a) => (a, &[][..], false),
            In::Symbolic(a, names) => (a, *names, false),
            In::Constant(a) => (a, &[][..], true),
        };
        let shape: Shape = (0..array.shape().len())
            .map(|n| match names.get(n) {
                Some(name) if !name.is_empty() => Dim::sym(name),
                _ => Dim::from(array.shape()[n]),
            })
            .collect();
        for (d, n) in shape.iter().zip(array.shape()) {
            if let Some(s) = d.as_sym() {
                dims.insert(s.into(), i64::try_from(*n).unwrap_or(0));
                ranges.insert(s.into(), DimRange { min: 1, max: 1000 });
            }
        }
        let constant = constant.then(|| array.clone());
        let id = g.add_value(Value {
            name: format!("in{}", ids.len()),
            dtype: Some(array.dtype()),
            shape: Some(shape.clone()),
            constant: constant.clone(),
            content: None,
        });
        if constant.is_none() {
            g.inputs.push(id);
            data.push(array.clone());
        }
        types.push(Some(Type::new(array.dtype(), shape)));
        constants.push(constant);
        ids.push(Some(id));
    }
    let inferred = (op.infer)(&Infer { attrs: &attrs, inputs: &types, constants: &constants, outputs })?;
    assert!(inferred.len() >= outputs, "{name} infers {} of {outputs} outputs", inferred.len());
    let mut outs = vec![];
    for (n, t) in inferred.into_iter().take(outputs).enumerate() {
        let value = Value {
            name: format!("out{n}"),
            dtype: Some(t.dtype),
            shape: Some(t.shape),
            constant: None,
            content: t.content,
        };
        let id = g.add_value(value);
        g.outputs.push((format!("out{n}"), id));
        outs.push(Some(id));
    }
    g.nodes.push(Node { op, name: name.into(), attrs, inputs: ids, outputs: outs, bodies: vec![] });
    Ok((super::graph(&g, ranges)?, data, dims))
}

/// An array of any type from numbers.
pub fn array(dtype: DType, shape: &[usize], data: &[f64]) -> Array {
    let bytes: Vec<u8> = data
        .iter()
        .flat_map(|x| {
            let scalar = crate::kernel::Scalar::real(crate::kernel::Ty::of(dtype), *x);
            reference::bytes(dtype, scalar)
        })
        .collect();
    Array::new(dtype, shape.to_vec(), bytes).unwrap()
}

/// A float32 array of whole numbers from -5 to 5 times `scale`: element `n` is `(step · n) mod 11 - 5` of it.
pub fn ramp(shape: &[usize], step: usize, scale: f64) -> Array {
    let count = shape.iter().product();
    let data: Vec<f64> = (0..count).map(|n: usize| ((n * step % 11) as f64 - 5.0) * scale).collect();
    f32s(shape, &data)
}

/// A float32 array.
pub fn f32s(shape: &[usize], data: &[f64]) -> Array {
    array(DType::Float32, shape, data)
}

/// An int64 array.
pub fn i64s(shape: &[usize], data: &[f64]) -> Array {
    array(DType::Int64, shape, data)
}

/// The elements of an array of any type as numbers.
pub fn numbers(a: &Array) -> Vec<f64> {
    let ints = || a.to_i64().map(|v| v.into_iter().map(|n| n as f64).collect());
    a.to_f64().or_else(ints).unwrap_or_default()
}

/// A named case: an operator on inputs, and its first outputs.
pub struct Case<'a> {
    pub name: &'a str,
    pub op: &'a str,
    pub attrs: &'a [(&'static str, AttrValue)],
    pub inputs: &'a [In],
    pub want: &'a [Array],
    /// Absolute and relative tolerance.
    pub tolerance: (f64, f64),
}

impl Case<'_> {
    /// Runs the case and compares types, shapes and elements.
    pub fn check(&self) {
        let got =
            run(self.op, self.attrs, self.inputs, self.want.len()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        for (n, (got, want)) in got.iter().zip(self.want).enumerate() {
            let place = format!("{}, output {n}", self.name);
            assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{place}");
            if let Some(e) = difference(got, want, self.tolerance) {
                panic!("{place}: {e}");
            }
        }
    }
}

/// Where two arrays of one type and shape differ by more than `absolute + relative · |want|`.
pub fn difference(got: &Array, want: &Array, (absolute, relative): (f64, f64)) -> Option<String> {
    let (a, b) = (numbers(got), numbers(want));
    let far =
        |x: f64, y: f64| x != y && !(x.is_nan() && y.is_nan()) && !((x - y).abs() <= absolute + relative * y.abs());
    let n = a.iter().zip(&b).position(|(x, y)| far(*x, *y))?;
    Some(format!("element {n} is {}, not {} (of {a:?}, wanted {b:?})", a[n], b[n]))
}

/// Checks a case within (absolute, relative) tolerances.
pub fn near(
    name: &str,
    op: &str,
    attrs: &[(&'static str, AttrValue)],
    inputs: &[In],
    want: &[Array],
    tolerance: (f64, f64),
) {
    Case { name, op, attrs, inputs, want, tolerance }.check();
}

/// Checks a case whose outputs are exact.
pub fn exact(name: &str, op: &str, attrs: &[(&'static str, AttrValue)], inputs: &[In], want: &[Array]) {
    near(name, op, attrs, inputs, want, (0.0, 0.0));
}
