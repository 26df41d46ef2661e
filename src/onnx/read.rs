//! The way from bytes to a graph: decode, inline functions, bring nodes to the newest operator set, build.

use super::attribute;
use super::build;
use super::external::ExternalData;
use super::node::{Frame, RawAttr, RawNode, Replacement, domain, opsets};
use super::proto::{FunctionProto, ModelProto, NodeProto};
use super::{tensor, upgrade};
use crate::error::{Error, Kind, Result};
use crate::graph::{AttrValue, Graph, ops};
use crate::tensor::Array;
use prost::Message;
use std::collections::HashMap;
use std::rc::Rc;

/// The operator sets of ai.onnx that are read. The last stands for onnx 1.22; no operator in the table changed its meaning
/// after 23, they only took more types.
pub(super) const OPSETS: std::ops::RangeInclusive<i64> = 7..=27;

/// The newest version of the file format.
const MAX_IR: i64 = 13;

/// The most nodes that a model may have after its functions are inlined: a small file may stand for a huge graph.
const MAX_NODES: usize = 1 << 20;

/// Reads an ONNX model. Functions are inlined, Constant nodes become constants, nodes are in topological order and in the
/// form of the newest operator set. Types are those that the model declares; [`crate::graph::infer`] finds the others.
pub fn read(bytes: &[u8], external: &dyn ExternalData) -> Result<Graph> {
    let model = decode(bytes)?;
    if !(1..=MAX_IR).contains(&model.ir_version) {
        return Err(Error::new(
            Kind::InvalidModel,
            format!("IR version {} is not one of 1 to {MAX_IR}", model.ir_version),
        )
        .help("is this an ONNX model? Newer versions of the format need a newer Nearside"));
    }
    let proto = model.graph.ok_or_else(|| {
        Error::new(Kind::InvalidModel, "the model has no graph").help("is this an ONNX model, and is it whole?")
    })?;
    let mut functions = HashMap::new();
    for f in model.functions {
        functions.insert(Key::of(&f.domain, &f.name, &f.overload), Rc::new(f));
    }
    let frame = Rc::new(Frame { opsets: opsets(&model.opset_import), ..Frame::default() });
    let mut reader = Reader { external, functions, calls: vec![], nodes: 0, missing: vec![], failed: None };
    let built = build::graph(&mut reader, proto, &frame, None);
    let (mut graph, _) = match built {
        Ok(built) => built,
        Err(e) => {
            reader.failed(e.clone());
            return Err(reader.finish().err().unwrap_or(e));
        }
    };
    reader.finish()?;
    graph.metadata = model.metadata_props.into_iter().map(|p| (p.key, p.value)).collect();
    Ok(graph)
}

fn decode(bytes: &[u8]) -> Result<ModelProto> {
    if i32::try_from(bytes.len()).is_err() {
        return Err(Error::new(
            Kind::InvalidModel,
            format!("{} bytes are more than the 2 GiB that protobuf allows", bytes.len()),
        )
        .help("save the model with external data"));
    }
    let mut model = ModelProto::default();
    let mut rest = bytes;
    model.merge(&mut rest).map_err(|e| {
        let offset = bytes.len() - rest.len();
        Error::new(Kind::InvalidModel, format!("not an ONNX model: {e}"))
            .at(format!("byte {offset} of {}", bytes.len()))
            .help("the file is damaged, cut off, or of another format")
    })?;
    Ok(model)
}

/// What identifies a function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    domain: String,
    name: String,
    overload: String,
}

impl Key {
    fn of(d: &str, name: &str, overload: &str) -> Key {
        Key { domain: domain(d).to_owned(), name: name.to_owned(), overload: overload.to_owned() }
    }
}

/// The state of reading one model.
pub(super) struct Reader<'a> {
    pub external: &'a dyn ExternalData,
    functions: HashMap<Key, Rc<FunctionProto>>,
    /// The functions being inlined, outermost first.
    calls: Vec<Key>,
    nodes: usize,
    missing: Vec<String>,
    failed: Option<Error>,
}

/// The nodes of a graph after inlining, and the constants that stood among them.
#[derive(Debug, Default)]
pub(super) struct Flat {
    pub nodes: Vec<RawNode>,
    pub constants: Vec<(String, Array)>,
}

impl Reader<'_> {
    /// Notes an operator that there is not.
    pub(super) fn missing(&mut self, op: &str, path: &str, domain: &str, opset: Option<i64>) {
        let name = if domain.is_empty() { op.to_owned() } else { format!("{domain}.{op}") };
        let opset = opset.map_or_else(|| "of an unstated version".to_owned(), |v| v.to_string());
        self.missing.push(format!("{name} (node \"{path}\", opset {opset})"));
    }

    /// Notes an error in a node. All missing operators are told before it.
    pub(super) fn failed(&mut self, e: Error) {
        self.failed.get_or_insert(e);
    }

    fn finish(self) -> Result<()> {
        if !self.missing.is_empty() {
            let list = self.missing.join(", ");
            return Err(Error::new(Kind::UnsupportedOp, format!("operators that are not implemented: {list}"))
                .help("export the model without them, or with another opset"));
        }
        self.failed.map_or(Ok(()), Err)
    }

    /// Inlines functions, parses attributes and brings nodes to the newest operator set.
    pub(super) fn flatten(&mut self, nodes: Vec<NodeProto>, frame: &Rc<Frame>, out: &mut Flat) -> Result<()> {
        self.nodes += nodes.len();
        if self.nodes > MAX_NODES {
            return Err(Error::new(Kind::InvalidModel, format!("the model has more than {MAX_NODES} nodes")));
        }
        for (i, node) in nodes.into_iter().enumerate() {
            let path = frame.node_path(&if node.name.is_empty() {
                format!("{}_{i}", node.op_type)
            } else {
                node.name.clone()
            });
            let key = Key::of(&node.domain, &node.op_type, &node.overload);
            if let Some(f) = self.functions.get(&key).cloned() {
                self.call(key, &f, node, path.clone(), frame, out).map_err(|e| match e.place() {
                    Some(_) => e,
                    None => e.at(&path),
                })?;
                continue;
            }
            let opset = frame.opsets.get(&key.domain).copied();
            if !key.domain.is_empty() {
                self.missing(&node.op_type, &path, &key.domain, opset);
                let outputs = node.output.iter().map(|n| frame.rename(n)).collect();
                out.nodes.push(RawNode { path, outputs, ..RawNode::default() });
                continue;
            }
            let outputs = node.output.iter().map(|n| frame.rename(n)).collect();
            if let Err(e) = self.standard(node, &path, opset, frame, out) {
                self.failed(e.at(&path));
                // What the node would compute counts as known, so that only its own error is told.
                out.nodes.push(RawNode { path, outputs, ..RawNode::default() });
            }
        }
        Ok(())
    }

    /// A node of ai.onnx.
    fn standard(
        &mut self,
        node: NodeProto,
        path: &str,
        opset: Option<i64>,
        frame: &Rc<Frame>,
        out: &mut Flat,
    ) -> Result<()> {
        let opset = opset.ok_or_else(|| Error::new(Kind::InvalidModel, "the model states no version of ai.onnx"))?;
        let row = ops::find(&node.op_type);
        // An operator that has not changed since is read from older opsets too.
        let unchanged = row.is_some_and(|op| op.since.iter().all(|since| *since <= opset));
        if !(OPSETS.contains(&opset) || unchanged && opset < *OPSETS.start()) {
            let (first, last) = (OPSETS.start(), OPSETS.end());
            return Err(Error::new(
                Kind::UnsupportedOp,
                format!("{} of opset {opset}: opsets {first} to {last} are read", node.op_type),
            )
            .help("convert the model with onnx.version_converter"));
        }
        let mut raw = RawNode {
            op: node.op_type,
            path: path.to_owned(),
            inputs: node.input.iter().map(|n| frame.rename(n)).collect(),
            outputs: node.output.iter().map(|n| frame.rename(n)).collect(),
            ..RawNode::default()
        };
        let mut attrs = vec![];
        for a in node.attribute {
            let Some(a) = attribute::resolve(a, frame)? else { continue };
            attrs.push((a.name.clone(), attribute::parse(a, frame, self.external)));
        }
        if raw.op == "Constant" {
            let array = constant(attrs)?;
            let name = raw.outputs.pop().filter(|_| raw.outputs.is_empty());
            let name = name.ok_or_else(|| Error::new(Kind::InvalidModel, "Constant has one output"))?;
            out.constants.push((name, array));
            return Ok(());
        }
        for (name, value) in attrs {
            if raw.attrs.insert(name.clone(), value?).is_some() {
                return Err(Error::new(Kind::InvalidModel, format!("attribute \"{name}\" is given twice")));
            }
        }
        let mut made = Replacement::default();
        upgrade::node(raw, opset, &mut made)?;
        out.nodes.append(&mut made.nodes);
        out.constants.append(&mut made.constants);
        Ok(())
    }

    /// Puts the function's body where the node stands.
    fn call(
        &mut self,
        key: Key,
        f: &FunctionProto,
        node: NodeProto,
        path: String,
        frame: &Rc<Frame>,
        out: &mut Flat,
    ) -> Result<()> {
        let invalid = |what: String| Error::new(Kind::InvalidModel, format!("function {} {what}", f.name));
        if self.calls.contains(&key) {
            return Err(invalid("calls itself".into()));
        }
        if node.input.len() > f.input.len() || node.output.len() > f.output.len() {
            return Err(invalid(format!(
                "takes {} inputs and gives {} outputs, the node names {} and {}",
                f.input.len(),
                f.output.len(),
                node.input.len(),
                node.output.len()
            )));
        }
        let mut names = HashMap::new();
        for (i, formal) in f.input.iter().enumerate() {
            let actual = node.input.get(i).map(|n| frame.rename(n)).unwrap_or_default();
            names.insert(formal.clone(), actual);
        }
        for (formal, actual) in f.output.iter().zip(&node.output) {
            let actual = frame.rename(actual);
            if actual.is_empty() {
                continue;
            }
            if let Some(input) = names.get(formal) {
                // The function hands an input through.
                out.nodes.push(RawNode {
                    op: "Identity".into(),
                    path: format!("{path}/{formal}"),
                    inputs: vec![input.clone()],
                    outputs: vec![actual],
                    ..RawNode::default()
                });
            } else {
                names.insert(formal.clone(), actual);
            }
        }
        let mut attrs = HashMap::new();
        for a in &f.attribute_proto {
            attrs.insert(a.name.clone(), a.clone());
        }
        for a in node.attribute {
            if !f.attribute.contains(&a.name) && !attrs.contains_key(&a.name) {
                return Err(invalid(format!("does not take the attribute \"{}\"", a.name)));
            }
            if let Some(a) = attribute::resolve(a, frame)? {
                attrs.insert(a.name.clone(), a);
            }
        }
        let mut sets = frame.opsets.clone();
        sets.extend(opsets(&f.opset_import));
        let inner = Rc::new(Frame { path, names, attrs, opsets: sets });
        self.calls.push(key);
        let done = self.flatten(f.node.clone(), &inner, out);
        self.calls.pop();
        done
    }
}

/// The value of a Constant node.
fn constant(mut attrs: Vec<(String, Result<RawAttr>)>) -> Result<Array> {
    let one = attrs.pop().filter(|_| attrs.is_empty());
    let (name, value) =
        one.ok_or_else(|| Error::new(Kind::InvalidModel, "Constant takes one of its attributes and no other"))?;
    let wrong = || Err(Error::new(Kind::InvalidModel, format!("attribute \"{name}\" of Constant is of a wrong kind")));
    match (name.as_str(), value?) {
        ("value" | "sparse_value", RawAttr::Value(AttrValue::Tensor(a))) => Ok(a),
        ("value_int", RawAttr::Value(AttrValue::Int(n))) => Array::from_i64(vec![], &[n]),
        ("value_ints", RawAttr::Value(AttrValue::Ints(v))) => Array::from_i64(vec![v.len()], &v),
        ("value_float", RawAttr::Value(AttrValue::Float(x))) => Array::from_f32(vec![], &[x]),
        ("value_floats", RawAttr::Value(AttrValue::Floats(v))) => Array::from_f32(vec![v.len()], &v),
        ("value_string" | "value_strings", _) => {
            Err(Error::new(Kind::UnsupportedType, "Constant of strings: data type string is not supported"))
        }
        ("value" | "sparse_value" | "value_int" | "value_ints" | "value_float" | "value_floats", _) => wrong(),
        _ => Err(Error::new(Kind::InvalidModel, format!("Constant does not take the attribute \"{name}\""))),
    }
}

/// The declared type of a value: data type and shape, each where it is stated. Dims that are neither numbers nor named
/// become symbols of the value's name and axis.
pub(super) fn declared(
    name: &str,
    t: Option<&super::proto::TypeProto>,
) -> Result<(Option<crate::tensor::DType>, Option<crate::tensor::Shape>)> {
    let Some(t) = t else { return Ok((None, None)) };
    let Some(tensor_type) = &t.tensor_type else {
        let other = match t {
            _ if t.sequence_type.is_some() => "a sequence",
            _ if t.map_type.is_some() => "a map",
            _ if t.optional_type.is_some() => "an optional",
            _ if t.sparse_tensor_type.is_some() => "a sparse tensor",
            _ => return Ok((None, None)),
        };
        return Err(Error::new(Kind::UnsupportedType, format!("\"{name}\" is {other}; only tensors are supported")));
    };
    let dtype = match tensor_type.elem_type {
        0 => None,
        n => Some(tensor::dtype(n).map_err(|e| e.at(format!("value \"{name}\"")))?),
    };
    let shape = tensor_type.shape.as_ref().map(|s| {
        let dim = |(axis, d): (usize, &super::proto::DimensionProto)| match (&d.dim_param, d.dim_value) {
            // Some exporters write "?" for every open size, though they are not one.
            (Some(p), _) if !matches!(p.as_str(), "" | "?" | "*") => crate::tensor::Dim::sym(p),
            // Some exporters write -1 where the size is open.
            (_, Some(n)) if n >= 0 => crate::tensor::Dim::from(n),
            _ => crate::tensor::Dim::sym(&format!("{name}_{axis}")),
        };
        s.dim.iter().enumerate().map(dim).collect()
    });
    Ok((dtype, shape))
}
