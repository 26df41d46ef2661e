//! Nodes on their way from the file to the graph: functions inlined, names resolved, attributes parsed.

use super::proto::{AttributeProto, GraphProto, OperatorSetIdProto};
use crate::error::{Error, Kind, Result};
use crate::graph::AttrValue;
use crate::tensor::Array;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A node of ai.onnx with the names of its values at the graph it is inlined into.
#[derive(Debug, Clone, Default)]
pub(super) struct RawNode {
    pub op: String,
    /// The node's path.
    pub path: String,
    /// Names; empty where absent.
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attrs: BTreeMap<String, RawAttr>,
    /// Attributes that no file may give.
    pub internal: Vec<(&'static str, i64)>,
}

/// An attribute's value, or a body together with the scope of its names.
#[derive(Debug, Clone)]
pub(super) enum RawAttr {
    Value(AttrValue),
    Graph(Box<GraphProto>, Rc<Frame>),
}

/// The scope of a function's instance, or of the main graph.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// The path of the node that the function stands for; empty in the main graph.
    pub path: String,
    /// Formal names and what they stand for; empty where an optional input is absent.
    pub names: HashMap<String, String>,
    /// Attributes that the instance was given.
    pub attrs: HashMap<String, AttributeProto>,
    /// Versions of the operator sets, by domain.
    pub opsets: BTreeMap<String, i64>,
}

/// The operator sets by domain; the default domain under its empty name.
pub(super) fn opsets(list: &[OperatorSetIdProto]) -> BTreeMap<String, i64> {
    list.iter().map(|o| (domain(&o.domain).to_owned(), o.version)).collect()
}

/// The domain under one name: ai.onnx is the default one.
pub(super) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

impl Frame {
    /// What `name` is called in the graph that everything is inlined into.
    pub(super) fn rename(&self, name: &str) -> String {
        match self.names.get(name) {
            Some(actual) => actual.clone(),
            None if name.is_empty() || self.path.is_empty() => name.to_owned(),
            None => format!("{}/{name}", self.path),
        }
    }

    /// The path of a node of that name.
    pub(super) fn node_path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) }
    }
}

impl RawNode {
    /// The name of input `i`, where it is present.
    pub(super) fn input(&self, i: usize) -> Option<&str> {
        self.inputs.get(i).map(String::as_str).filter(|n| !n.is_empty())
    }

    /// Whether output `i` is used.
    pub(super) fn wants(&self, i: usize) -> bool {
        self.outputs.get(i).is_some_and(|n| !n.is_empty())
    }

    /// Sets input `i`, filling up with absent ones.
    pub(super) fn set_input(&mut self, i: usize, name: String) {
        if self.inputs.len() <= i {
            self.inputs.resize(i + 1, String::new());
        }
        self.inputs[i] = name;
    }

    /// A name for a new value that belongs to this node. Output names are unique in a graph.
    pub(super) fn fresh(&self, what: &str) -> String {
        let output = self.outputs.iter().find(|n| !n.is_empty()).unwrap_or(&self.path);
        format!("{output}:{what}")
    }

    pub(super) fn set(&mut self, name: &str, value: AttrValue) {
        self.attrs.insert(name.to_owned(), RawAttr::Value(value));
    }

    fn take(&mut self, name: &str) -> Option<RawAttr> {
        self.attrs.remove(name)
    }

    /// Removes an integer attribute.
    pub(super) fn take_int(&mut self, name: &str) -> Result<Option<i64>> {
        match self.take(name) {
            None => Ok(None),
            Some(RawAttr::Value(AttrValue::Int(n))) => Ok(Some(n)),
            Some(_) => Err(wrong_kind(&self.op, name, "an integer")),
        }
    }

    /// Removes a float attribute.
    pub(super) fn take_float(&mut self, name: &str) -> Result<Option<f32>> {
        match self.take(name) {
            None => Ok(None),
            Some(RawAttr::Value(AttrValue::Float(x))) => Ok(Some(x)),
            Some(_) => Err(wrong_kind(&self.op, name, "a float")),
        }
    }

    /// Removes a list of integers.
    pub(super) fn take_ints(&mut self, name: &str) -> Result<Option<Vec<i64>>> {
        match self.take(name) {
            None => Ok(None),
            Some(RawAttr::Value(AttrValue::Ints(v))) => Ok(Some(v)),
            Some(_) => Err(wrong_kind(&self.op, name, "a list of integers")),
        }
    }

    /// Removes a list of floats.
    pub(super) fn take_floats(&mut self, name: &str) -> Result<Option<Vec<f32>>> {
        match self.take(name) {
            None => Ok(None),
            Some(RawAttr::Value(AttrValue::Floats(v))) => Ok(Some(v)),
            Some(_) => Err(wrong_kind(&self.op, name, "a list of floats")),
        }
    }

    /// The string attribute, which stays.
    pub(super) fn str(&self, name: &str) -> Option<&str> {
        match self.attrs.get(name) {
            Some(RawAttr::Value(AttrValue::Str(s))) => Some(s),
            _ => None,
        }
    }
}

/// An attribute of another kind than the operator declares.
pub(super) fn wrong_kind(op: &str, name: &str, want: &str) -> Error {
    Error::new(Kind::InvalidModel, format!("attribute \"{name}\" of {op} is not {want}"))
}

/// What a node of an older operator set becomes: constants, and nodes in order.
#[derive(Debug, Default)]
pub(super) struct Replacement {
    pub nodes: Vec<RawNode>,
    pub constants: Vec<(String, Array)>,
}

impl Replacement {
    /// A new constant that belongs to `node`; returns its name.
    pub(super) fn constant(&mut self, node: &RawNode, what: &str, array: Array) -> String {
        let name = node.fresh(what);
        self.constants.push((name.clone(), array));
        name
    }

    /// A one-dimensional int64 constant.
    pub(super) fn ints(&mut self, node: &RawNode, what: &str, data: &[i64]) -> Result<String> {
        Ok(self.constant(node, what, Array::from_i64(vec![data.len()], data)?))
    }

    /// A new node that belongs to `node`, with one output; returns the output's name.
    pub(super) fn node(
        &mut self,
        node: &RawNode,
        op: &str,
        what: &str,
        inputs: &[&str],
        attrs: &[(&str, i64)],
    ) -> String {
        let name = node.fresh(what);
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), RawAttr::Value(AttrValue::Int(*v)))).collect();
        self.nodes.push(RawNode {
            op: op.to_owned(),
            path: format!("{}/{what}", node.path),
            inputs: inputs.iter().map(|s| (*s).to_owned()).collect(),
            outputs: vec![name.clone()],
            attrs,
            internal: vec![],
        });
        name
    }
}
