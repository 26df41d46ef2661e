//! Attributes of nodes: their declaration in the op table, their values, typed access.

use crate::error::{Error, Kind, Result};
use crate::tensor::{Array, DType};
use std::collections::BTreeMap;

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum AttrValue {
    Int(i64),
    Float(f32),
    Str(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strs(Vec<String>),
    Tensor(Array),
    Type(DType),
}

/// An attribute in the op table: its name, and what it is when it is not given.
#[derive(Debug, Clone, Copy)]
pub struct Attr {
    pub name: &'static str,
    pub default: Default,
}

/// The kind of an attribute and what stands where it is not given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Default {
    Int(i64),
    Float(f32),
    Str(&'static str),
    /// Optional, absent by default, of any kind.
    Absent,
    /// Must be given.
    Required,
    /// A body, which must be given. It stands in the node's `bodies`, not among its attributes.
    Graph,
    /// An integer that only the importer and passes set: a model that gives it is refused.
    Internal(i64),
}

/// The attributes of a node: only what the op table declares, checked when the node was made.
#[derive(Debug, Clone, PartialEq, std::default::Default)]
pub struct Attrs(pub BTreeMap<&'static str, AttrValue>);

impl Attrs {
    /// The attributes of a node of that operator where none is given.
    pub fn defaults(op: &super::ops::Op) -> Attrs {
        let value = |default: Default| match default {
            Default::Int(n) | Default::Internal(n) => Some(AttrValue::Int(n)),
            Default::Float(x) => Some(AttrValue::Float(x)),
            Default::Str(s) => Some(AttrValue::Str(s.to_owned())),
            Default::Absent | Default::Required | Default::Graph => None,
        };
        Attrs(op.attrs.iter().filter_map(|a| Some((a.name, value(a.default)?))).collect())
    }

    pub fn get(&self, name: &str) -> Option<&AttrValue> {
        self.0.get(name)
    }

    fn wrong(name: &str, want: &str) -> Error {
        Error::new(Kind::InvalidModel, format!("attribute \"{name}\" is not {want}"))
    }

    /// An integer; an error where it is absent or of another kind.
    pub fn int(&self, name: &str) -> Result<i64> {
        match self.get(name) {
            Some(AttrValue::Int(n)) => Ok(*n),
            _ => Err(Attrs::wrong(name, "an integer")),
        }
    }

    /// An integer used as a truth value.
    pub fn flag(&self, name: &str) -> Result<bool> {
        self.int(name).map(|n| n != 0)
    }

    pub fn float(&self, name: &str) -> Result<f32> {
        match self.get(name) {
            Some(AttrValue::Float(x)) => Ok(*x),
            _ => Err(Attrs::wrong(name, "a float")),
        }
    }

    pub fn str(&self, name: &str) -> Result<&str> {
        match self.get(name) {
            Some(AttrValue::Str(s)) => Ok(s),
            _ => Err(Attrs::wrong(name, "a string")),
        }
    }

    /// A list of integers; `None` where it is absent.
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>> {
        match self.get(name) {
            None => Ok(None),
            Some(AttrValue::Ints(v)) => Ok(Some(v)),
            Some(_) => Err(Attrs::wrong(name, "a list of integers")),
        }
    }

    /// A list of floats; `None` where it is absent.
    pub fn floats(&self, name: &str) -> Result<Option<&[f32]>> {
        match self.get(name) {
            None => Ok(None),
            Some(AttrValue::Floats(v)) => Ok(Some(v)),
            Some(_) => Err(Attrs::wrong(name, "a list of floats")),
        }
    }
}
