//! The typed graph of a model: nodes in topological order over values in single assignment. It names no device and no
//! file format.

pub mod attrs;
mod contents;
pub mod infer;
pub mod ops;
pub mod passes;
mod show;
#[cfg(test)]
pub(crate) mod testing;

pub use attrs::{Attr, AttrValue, Attrs};
pub use contents::Contents;

use crate::error::{Error, Kind, Result};
use crate::tensor::{Array, DType, Dim, DimRange, Shape, Sym};
use std::collections::BTreeMap;

/// A value of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// What is known of a value. Inference leaves data type and shape known for every value.
#[derive(Debug, Clone, Default)]
pub struct Value {
    pub name: String,
    pub dtype: Option<DType>,
    pub shape: Option<Shape>,
    /// The data, where it is constant.
    pub constant: Option<Array>,
    /// The elements of a small tensor of whole numbers (a shape, an index) as dims, row-major, where they are known
    /// symbolically.
    pub content: Option<Vec<Dim>>,
}

/// An operator applied to values.
#[derive(Debug, Clone)]
pub struct Node {
    /// The row of the op table.
    pub op: &'static ops::Op,
    /// The node's path: names of enclosing nodes and its own, joined by `/`.
    pub name: String,
    /// Every attribute of the row, given or by default.
    pub attrs: Attrs,
    /// `None` where an optional input is absent. Trailing absent inputs are dropped.
    pub inputs: Vec<Option<ValueId>>,
    /// `None` where an optional output is not used.
    pub outputs: Vec<Option<ValueId>>,
    /// The bodies of If, Loop and Scan, by attribute name. They see the values of the enclosing graph by name: a value of
    /// a body that is no input of it and that none of its nodes computes is the enclosing one of that name, if there is
    /// one. Names are unique across a graph and its bodies.
    pub bodies: Vec<(String, Graph)>,
}

/// A model, or the body of a control-flow node.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub name: String,
    pub inputs: Vec<ValueId>,
    /// Names at the interface and the values behind them.
    pub outputs: Vec<(String, ValueId)>,
    pub values: Vec<Value>,
    /// In topological order.
    pub nodes: Vec<Node>,
    /// The bounds of symbolic dims, where they are stated.
    pub ranges: BTreeMap<Sym, DimRange>,
    /// What the model's maker wrote beside it, by key: class names, the characters of a text recognizer.
    pub metadata: Vec<(String, String)>,
}

impl Graph {
    pub fn value(&self, v: ValueId) -> &Value {
        &self.values[v.0 as usize]
    }

    pub fn value_mut(&mut self, v: ValueId) -> &mut Value {
        &mut self.values[v.0 as usize]
    }

    /// Makes an input a constant: its data is part of the model from now on. Shapes may depend on it then, and a symbolic
    /// dim of it is what the data has.
    pub fn fix_input(&mut self, name: &str, data: Array) -> Result<()> {
        let Some(at) = self.inputs.iter().position(|v| self.value(*v).name == name) else {
            let names: Vec<&str> = self.inputs.iter().map(|v| self.value(*v).name.as_str()).collect();
            return Err(Error::new(Kind::InvalidInput, format!("there is no input \"{name}\""))
                .help(format!("the inputs are: {}", names.join(", "))));
        };
        let v = self.inputs[at];
        let value = self.value_mut(v);
        let fits = |(d, n): (&Dim, &usize)| d.known().is_none_or(|d| usize::try_from(d) == Ok(*n));
        let shape_fits =
            value.shape.as_ref().is_none_or(|s| s.len() == data.shape().len() && s.iter().zip(data.shape()).all(fits));
        if value.dtype.is_some_and(|d| d != data.dtype()) || !shape_fits {
            let dtype = value.dtype.map(|d| d.to_string()).unwrap_or_default();
            let shape = crate::tensor::show(value.shape.as_deref().unwrap_or_default());
            return Err(Error::new(
                Kind::InvalidInput,
                format!("input \"{name}\" is {dtype}{shape}, the data is {}{:?}", data.dtype(), data.shape()),
            ));
        }
        let extents = value.shape.iter().flatten().zip(data.shape());
        let known: BTreeMap<Sym, Dim> =
            extents.filter_map(|(d, n)| Some((Sym::from(d.as_sym()?), Dim::from(*n)))).collect();
        value.dtype = Some(data.dtype());
        value.shape = Some(data.shape().iter().map(|n| Dim::from(*n)).collect());
        value.constant = Some(data);
        self.inputs.remove(at);
        for d in self.values.iter_mut().flat_map(|v| v.shape.iter_mut().flatten()) {
            *d = d.substitute(&known);
        }
        Ok(())
    }

    /// A new value.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::infer::infer;
    use crate::graph::testing::untyped;

    #[test]
    fn an_input_becomes_a_constant() {
        let text = "input x: float32[n]
             input y: float32[n]
             input k: int64[2]
             z = Add(x, y)
             w = Expand(z, k)
             output w";
        let mut g = untyped(text);
        g.fix_input("k", Array::from_i64(vec![2], &[2, 3]).unwrap()).unwrap();
        g.fix_input("y", Array::from_f32(vec![3], &[1.0, 2.0, 3.0]).unwrap()).unwrap();
        infer(&mut g).unwrap();
        let names: Vec<&str> = g.inputs.iter().map(|v| g.value(*v).name.as_str()).collect();
        assert_eq!(names, ["x"]);
        assert_eq!(g.value(g.inputs[0]).shape, Some(vec![Dim::from(3)]));
        assert_eq!(g.value(g.outputs[0].1).shape, Some(vec![Dim::from(2), Dim::from(3)]));

        let wrong = [
            ("q", Array::from_f32(vec![3], &[0.0; 3]), "there is no input \"q\""),
            ("k", Array::from_f32(vec![2], &[0.0; 2]), "input \"k\" is int64[2], the data is float32[2]"),
            ("k", Array::from_i64(vec![3], &[0; 3]), "input \"k\" is int64[2], the data is int64[3]"),
        ];
        for (name, data, message) in wrong {
            let e = untyped(text).fix_input(name, data.unwrap()).unwrap_err();
            assert_eq!((e.kind(), e.message()), (Kind::InvalidInput, message));
        }
    }
}
