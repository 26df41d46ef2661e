//! A graph from the nodes of the file: values, bodies, topological order.

use super::attribute;
use super::node::{Frame, RawNode};
use super::proto::GraphProto;
use super::read::{Flat, OPSETS, Reader, declared};
use super::tensor;
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, Node, Value, ValueId, ops};
use crate::tensor::Array;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::rc::Rc;

/// The names of a graph while it is built.
#[derive(Default)]
struct Scope {
    graph: Graph,
    names: HashMap<String, ValueId>,
    defined: HashSet<ValueId>,
}

impl Scope {
    fn value(&mut self, name: &str) -> ValueId {
        if let Some(v) = self.names.get(name) {
            return *v;
        }
        let v = self.graph.add_value(Value { name: name.to_owned(), ..Value::default() });
        self.names.insert(name.to_owned(), v);
        v
    }

    fn define(&mut self, name: &str) -> Result<ValueId> {
        let v = self.value(name);
        if name.is_empty() || !self.defined.insert(v) {
            return Err(Error::new(Kind::InvalidModel, format!("value \"{name}\" is defined twice")));
        }
        Ok(v)
    }

    fn constant(&mut self, name: &str, array: Array) -> Result<()> {
        let v = self.define(name)?;
        let value = self.graph.value_mut(v);
        value.dtype = Some(array.dtype());
        value.shape = Some(array.shape().iter().map(|n| crate::tensor::Dim::from(*n)).collect());
        value.constant = Some(array);
        Ok(())
    }
}

/// A node, what it reads besides its inputs, and where it stood in the file.
struct Draft {
    node: Node,
    captured: Vec<ValueId>,
}

/// Builds a graph. `body` is the path of the node it is a body of. Returns with it the names that it takes from the
/// enclosing graph.
pub(super) fn graph(
    reader: &mut Reader<'_>,
    proto: GraphProto,
    frame: &Rc<Frame>,
    body: Option<&str>,
) -> Result<(Graph, Vec<String>)> {
    let mut scope = Scope { graph: Graph { name: proto.name, ..Graph::default() }, ..Scope::default() };
    for t in proto.initializer {
        let name = frame.rename(&t.name);
        scope.constant(&name, tensor::array(t, reader.external)?)?;
    }
    for t in proto.sparse_initializer {
        let (name, array) = tensor::dense(t, reader.external)?;
        scope.constant(&frame.rename(&name), array)?;
    }
    for input in proto.input {
        let name = frame.rename(&input.name);
        // Before IR version 4 every initializer had to be an input as well.
        if scope.names.get(&name).is_some_and(|v| scope.graph.value(*v).constant.is_some()) {
            continue;
        }
        let v = scope.define(&name)?;
        scope.graph.inputs.push(v);
        let (dtype, shape) = declared(&name, input.r#type.as_ref())?;
        if body.is_none() && (dtype.is_none() || shape.is_none()) {
            return Err(Error::new(Kind::InvalidShape, format!("input \"{name}\" has no type or no rank"))
                .help("export the model with the rank of each input; sizes may stay open"));
        }
        let value = scope.graph.value_mut(v);
        (value.dtype, value.shape) = (dtype, shape);
    }
    let mut flat = Flat::default();
    reader.flatten(proto.node, frame, &mut flat)?;
    for (name, array) in flat.constants {
        scope.constant(&name, array)?;
    }
    let mut drafts = vec![];
    let opset = frame.opsets.get("").copied();
    for raw in flat.nodes {
        let path = raw.path.clone();
        let defined: Result<Vec<Option<ValueId>>> =
            raw.outputs.iter().map(|n| if n.is_empty() { Ok(None) } else { scope.define(n).map(Some) }).collect();
        let outputs = defined.map_err(|e| e.at(&path))?;
        if raw.op.is_empty() {
            continue;
        }
        let op = ops::find(&raw.op).filter(|op| op.since.first().is_none_or(|first| *first <= *OPSETS.end()));
        let Some(op) = op else {
            reader.missing(&raw.op, &path, "", opset);
            continue;
        };
        match draft(reader, &mut scope, op, raw, outputs) {
            Ok(d) => drafts.push(d),
            Err(e) => reader.failed(e.at(&path)),
        }
    }
    for output in proto.output {
        let name = frame.rename(&output.name);
        let v = scope.value(&name);
        if scope.graph.outputs.iter().any(|(n, _)| *n == name) {
            return Err(Error::new(Kind::InvalidModel, format!("output \"{name}\" is named twice")));
        }
        let (dtype, shape) = declared(&name, output.r#type.as_ref())?;
        let value = scope.graph.value_mut(v);
        if value.constant.is_none() && !scope.graph.inputs.contains(&v) {
            let value = scope.graph.value_mut(v);
            (value.dtype, value.shape) = (dtype, shape);
        }
        scope.graph.outputs.push((name, v));
    }
    if scope.graph.outputs.is_empty() && body.is_none() {
        return Err(Error::new(Kind::InvalidModel, "the graph has no outputs"));
    }
    for info in proto.value_info {
        let Some(v) = scope.names.get(&frame.rename(&info.name)).copied() else { continue };
        // What is declared of values inside is only a check on what is inferred: unsupported types show at the operators.
        let Ok((dtype, shape)) = declared(&info.name, info.r#type.as_ref()) else { continue };
        let value = scope.graph.value_mut(v);
        value.dtype = value.dtype.or(dtype);
        value.shape = value.shape.take().or(shape);
    }
    let free = (0u32..).map(ValueId).take(scope.graph.values.len()).filter(|v| !scope.defined.contains(v));
    let free: Vec<String> = free.map(|v| scope.graph.value(v).name.clone()).collect();
    if let (Some(name), None) = (free.first(), body) {
        let reader_of = drafts.iter().find(|d| {
            let inputs = d.node.inputs.iter().flatten().chain(&d.captured);
            inputs.map(|v| &scope.graph.value(*v).name).any(|n| n == name)
        });
        let e = Error::new(Kind::InvalidModel, format!("value \"{name}\" is used but never computed"));
        return Err(reader_of.map_or(e.clone(), |d| e.at(&d.node.name)));
    }
    scope.graph.nodes = sorted(drafts, &scope.graph)?;
    Ok((scope.graph, free))
}

fn draft(
    reader: &mut Reader<'_>,
    scope: &mut Scope,
    op: &'static ops::Op,
    mut raw: RawNode,
    mut outputs: Vec<Option<ValueId>>,
) -> Result<Draft> {
    let (attrs, list) = attribute::check(op, &mut raw)?;
    let mut inputs: Vec<Option<ValueId>> = raw.inputs.iter().map(|n| (!n.is_empty()).then(|| scope.value(n))).collect();
    inputs.truncate(inputs.iter().rposition(Option::is_some).map_or(0, |n| n + 1));
    outputs.truncate(outputs.iter().rposition(Option::is_some).map_or(0, |n| n + 1));
    let (least, most) = op.inputs;
    if inputs.len() > most || inputs.len() < least || inputs[..least].contains(&None) {
        let given = inputs.iter().flatten().count();
        let most = if most == usize::MAX { "any number of".to_owned() } else { format!("up to {most}") };
        return Err(Error::new(
            Kind::InvalidModel,
            format!("{} takes at least {least} and {most} inputs, {given} are given", op.name),
        ));
    }
    if outputs.len() > op.outputs.1 || (outputs.is_empty() && op.outputs.0 > 0) {
        return Err(Error::new(
            Kind::InvalidModel,
            format!("{} gives {} to {} outputs, {} are named", op.name, op.outputs.0, op.outputs.1, outputs.len()),
        ));
    }
    let mut bodies = vec![];
    let mut captured = vec![];
    for (name, proto, frame) in list {
        let (graph, free) = self::graph(reader, *proto, &frame, Some(&raw.path))?;
        captured.extend(free.iter().map(|n| scope.value(n)));
        bodies.push((name, graph));
    }
    Ok(Draft { node: Node { op, name: raw.path, attrs, inputs, outputs, bodies }, captured })
}

/// The nodes in an order in which each reads only what earlier ones compute; the file's order where that is one.
fn sorted(drafts: Vec<Draft>, graph: &Graph) -> Result<Vec<Node>> {
    let mut producer: HashMap<ValueId, usize> = HashMap::new();
    for (i, d) in drafts.iter().enumerate() {
        producer.extend(d.node.outputs.iter().flatten().map(|v| (*v, i)));
    }
    let needs: Vec<HashSet<usize>> = drafts
        .iter()
        .map(|d| d.node.inputs.iter().flatten().chain(&d.captured).filter_map(|v| producer.get(v).copied()).collect())
        .collect();
    let mut readers: Vec<Vec<usize>> = vec![vec![]; drafts.len()];
    let mut open: Vec<usize> = needs.iter().map(HashSet::len).collect();
    for (i, n) in needs.iter().enumerate() {
        n.iter().for_each(|p| readers[*p].push(i));
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..drafts.len()).filter(|i| open[*i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(drafts.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for r in &readers[i] {
            open[*r] -= 1;
            if open[*r] == 0 {
                ready.push(Reverse(*r));
            }
        }
    }
    if order.len() < drafts.len() {
        return Err(cycle(&drafts, &needs, &open, graph));
    }
    let mut drafts: Vec<Option<Node>> = drafts.into_iter().map(|d| Some(d.node)).collect();
    Ok(order.into_iter().filter_map(|i| drafts[i].take()).collect())
}

/// Names the nodes of one cycle.
fn cycle(drafts: &[Draft], needs: &[HashSet<usize>], open: &[usize], graph: &Graph) -> Error {
    // From any node that never became ready, its needs that never did lead into a cycle.
    let mut walk: Vec<usize> = vec![];
    let mut at = open.iter().position(|n| *n > 0);
    while let Some(i) = at {
        if let Some(start) = walk.iter().position(|w| *w == i) {
            walk.drain(..start);
            break;
        }
        walk.push(i);
        at = needs[i].iter().copied().filter(|p| open[*p] > 0).min();
    }
    walk.reverse();
    let shown: Vec<String> = walk.iter().take(8).map(|i| format!("\"{}\"", drafts[*i].node.name)).collect();
    let more = if walk.len() > 8 { format!(" and {} more", walk.len() - 8) } else { String::new() };
    Error::new(Kind::InvalidModel, format!("the graph \"{}\" has a cycle: {}{more}", graph.name, shown.join(" → ")))
}
