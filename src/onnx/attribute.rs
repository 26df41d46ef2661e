//! Attributes: from the file, and against the op table.

use super::external::ExternalData;
use super::node::{Frame, RawAttr, RawNode, wrong_kind};
use super::proto::{AttributeProto, AttributeType};
use super::tensor;
use crate::error::{Error, Kind, Result};
use crate::graph::attrs::Default as Declared;
use crate::graph::ops::Op;
use crate::graph::{AttrValue, Attrs};
use std::rc::Rc;

/// A body of a node: attribute name, graph, scope.
pub(super) type Body = (String, Box<super::proto::GraphProto>, Rc<Frame>);

/// The attribute's value in that scope, with references to the function's attributes resolved; `None` where it refers to
/// an attribute that is absent.
pub(super) fn resolve(a: AttributeProto, frame: &Frame) -> Result<Option<AttributeProto>> {
    if a.ref_attr_name.is_empty() {
        return Ok(Some(a));
    }
    if frame.path.is_empty() {
        return Err(Error::new(
            Kind::InvalidModel,
            format!(
                "attribute \"{}\" refers to attribute \"{}\" of a function outside of one",
                a.name, a.ref_attr_name
            ),
        ));
    }
    let Some(given) = frame.attrs.get(&a.ref_attr_name) else { return Ok(None) };
    if a.r#type != 0 && given.r#type != 0 && a.r#type != given.r#type {
        return Err(Error::new(
            Kind::InvalidModel,
            format!("attribute \"{}\" refers to attribute \"{}\" of another kind", a.name, a.ref_attr_name),
        ));
    }
    Ok(Some(AttributeProto { name: a.name, ..given.clone() }))
}

/// Which field holds the value, where the file does not say.
fn guess(a: &AttributeProto) -> AttributeType {
    match a {
        _ if a.f.is_some() => AttributeType::Float,
        _ if a.i.is_some() => AttributeType::Int,
        _ if a.s.is_some() => AttributeType::String,
        _ if a.t.is_some() => AttributeType::Tensor,
        _ if a.g.is_some() => AttributeType::Graph,
        _ if !a.floats.is_empty() => AttributeType::Floats,
        _ if !a.ints.is_empty() => AttributeType::Ints,
        _ if !a.strings.is_empty() => AttributeType::Strings,
        _ if a.tp.is_some() => AttributeType::TypeProto,
        _ if a.sparse_tensor.is_some() => AttributeType::SparseTensor,
        _ => AttributeType::Undefined,
    }
}

/// The value of a resolved attribute.
pub(super) fn parse(a: AttributeProto, frame: &Rc<Frame>, external: &dyn ExternalData) -> Result<RawAttr> {
    let name = a.name.clone();
    let invalid = |what: String| Error::new(Kind::InvalidModel, format!("attribute \"{name}\" {what}"));
    let kind = match AttributeType::try_from(a.r#type) {
        Ok(AttributeType::Undefined) => guess(&a),
        Ok(kind) => kind,
        Err(_) => return Err(invalid(format!("is of the unknown kind {}", a.r#type))),
    };
    let empty = || invalid(format!("is declared as {kind:?} and holds none"));
    let text = |s: Vec<u8>| String::from_utf8(s).map_err(|_| invalid("is not UTF-8".into()));
    let value = match kind {
        // Numbers that are zero may be left out of the file.
        AttributeType::Float => AttrValue::Float(a.f.unwrap_or_default()),
        AttributeType::Int => AttrValue::Int(a.i.unwrap_or_default()),
        AttributeType::String => AttrValue::Str(text(a.s.unwrap_or_default())?),
        AttributeType::Floats => AttrValue::Floats(a.floats),
        AttributeType::Ints => AttrValue::Ints(a.ints),
        AttributeType::Strings => AttrValue::Strs(a.strings.into_iter().map(text).collect::<Result<_>>()?),
        AttributeType::Tensor => AttrValue::Tensor(tensor::array(*a.t.ok_or_else(empty)?, external)?),
        AttributeType::SparseTensor => {
            AttrValue::Tensor(tensor::dense(*a.sparse_tensor.ok_or_else(empty)?, external)?.1)
        }
        AttributeType::Graph => return Ok(RawAttr::Graph(a.g.ok_or_else(empty)?, Rc::clone(frame))),
        AttributeType::TypeProto => {
            let tensor_type = a.tp.and_then(|t| t.tensor_type);
            let t = tensor_type.ok_or_else(|| {
                Error::new(Kind::UnsupportedType, format!("attribute \"{name}\" is a type other than a tensor's"))
            })?;
            AttrValue::Type(tensor::dtype(t.elem_type)?)
        }
        AttributeType::Undefined => return Err(invalid("has no value".into())),
        AttributeType::Tensors | AttributeType::Graphs | AttributeType::SparseTensors | AttributeType::TypeProtos => {
            return Err(invalid(format!("is of kind {kind:?}, which no operator takes")));
        }
    };
    Ok(RawAttr::Value(value))
}

/// The node's attributes as the op table declares them, defaults filled in, and its bodies. What is not declared is
/// refused: an attribute that nobody reads would change nothing, silently.
pub(super) fn check(op: &'static Op, node: &mut RawNode) -> Result<(Attrs, Vec<Body>)> {
    let mut attrs = Attrs::default();
    let mut bodies = vec![];
    let invalid = |what: String| Error::new(Kind::InvalidModel, what);
    for declared in op.attrs {
        let name = declared.name;
        if let Declared::Internal(default) = declared.default {
            let set = node.internal.iter().find(|(n, _)| *n == name).map_or(default, |(_, v)| *v);
            attrs.0.insert(name, AttrValue::Int(set));
            continue;
        }
        let want = |want: &str| wrong_kind(op.name, name, want);
        match (declared.default, node.attrs.remove(name)) {
            (Declared::Graph | Declared::Required | Declared::Absent, Some(RawAttr::Graph(g, frame))) => {
                bodies.push((name.to_owned(), g, frame));
            }
            (Declared::Graph, Some(_)) => return Err(want("a graph")),
            (Declared::Graph | Declared::Required, None) => {
                return Err(invalid(format!("{} has no attribute \"{name}\"", op.name)));
            }
            (Declared::Absent | Declared::Internal(_), None) => {}
            (Declared::Int(n), None) => {
                attrs.0.insert(name, AttrValue::Int(n));
            }
            (Declared::Float(x), None) => {
                attrs.0.insert(name, AttrValue::Float(x));
            }
            (Declared::Str(s), None) => {
                attrs.0.insert(name, AttrValue::Str(s.to_owned()));
            }
            (default, Some(RawAttr::Value(value))) => {
                match (default, &value) {
                    (Declared::Int(_), AttrValue::Int(_))
                    | (Declared::Float(_), AttrValue::Float(_))
                    | (Declared::Str(_), AttrValue::Str(_))
                    | (Declared::Absent | Declared::Required, _) => {}
                    (Declared::Int(_), _) => return Err(want("an integer")),
                    (Declared::Float(_), _) => return Err(want("a float")),
                    _ => return Err(want("a string")),
                }
                attrs.0.insert(name, value);
            }
            (_, Some(RawAttr::Graph(..))) => return Err(want("a value but a graph")),
        }
    }
    if let Some(name) = node.attrs.keys().next() {
        return Err(invalid(format!("{} does not take the attribute \"{name}\"", op.name))
            .help("the attribute is misspelled, or belongs to another opset than the model states"));
    }
    Ok((attrs, bodies))
}
