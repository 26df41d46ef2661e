//! What passes share: who computes and who reads a value, replacing values, adding nodes.

use crate::error::{Error, Kind, Result};
use crate::graph::infer::control::free;
use crate::graph::{AttrValue, Attrs, Graph, Node, Value, ValueId, ops};
use crate::tensor::{Array, DType};
use std::collections::{HashMap, HashSet};

/// The position of the node that computes each value.
pub(super) fn producers(g: &Graph) -> HashMap<ValueId, usize> {
    let outputs = |(i, n): (usize, &Node)| n.outputs.iter().flatten().map(|v| (*v, i)).collect::<Vec<_>>();
    g.nodes.iter().enumerate().flat_map(outputs).collect()
}

/// How often each value is read: by nodes, by bodies, as an output of the graph.
pub(super) fn uses(g: &Graph) -> HashMap<ValueId, usize> {
    let mut count = HashMap::new();
    let inside = captured(g);
    let read = g.nodes.iter().flat_map(|n| n.inputs.iter().flatten()).chain(g.outputs.iter().map(|(_, v)| v));
    for v in read.chain(&inside) {
        *count.entry(*v).or_insert(0) += 1;
    }
    count
}

/// The values that bodies read from the graph around them.
pub(super) fn captured(g: &Graph) -> HashSet<ValueId> {
    let mut names = HashSet::new();
    g.nodes.iter().for_each(|n| names_inside(n, &mut names));
    if names.is_empty() {
        return HashSet::new();
    }
    (0u32..).map(ValueId).take(g.values.len()).filter(|v| names.contains(&g.value(*v).name)).collect()
}

/// The names that a node's bodies may take from outside.
pub(super) fn names_inside(node: &Node, names: &mut HashSet<String>) {
    for (_, body) in &node.bodies {
        names.extend(free(body).into_iter().map(|v| body.value(v).name.clone()));
        body.nodes.iter().for_each(|n| names_inside(n, names));
    }
}

/// Lets every reader of the first value of a pair read the second.
pub(super) fn replace(g: &mut Graph, pairs: &HashMap<ValueId, ValueId>) {
    if pairs.is_empty() {
        return;
    }
    let last = |v: ValueId| {
        let mut v = v;
        while let Some(next) = pairs.get(&v) {
            v = *next;
        }
        v
    };
    let renamed: HashMap<String, String> =
        pairs.keys().map(|v| (g.value(*v).name.clone(), g.value(last(*v)).name.clone())).collect();
    for node in &mut g.nodes {
        node.inputs.iter_mut().flatten().for_each(|v| *v = last(*v));
        rename(node, &renamed);
    }
    g.outputs.iter_mut().for_each(|(_, v)| *v = last(*v));
}

fn rename(node: &mut Node, names: &HashMap<String, String>) {
    for (_, body) in &mut node.bodies {
        for v in free(body) {
            let value = body.value_mut(v);
            if let Some(name) = names.get(&value.name) {
                value.name.clone_from(name);
            }
        }
        body.nodes.iter_mut().for_each(|n| rename(n, names));
    }
}

/// Nodes added to a graph on behalf of another node.
pub(super) struct Adder<'a> {
    pub graph: &'a mut Graph,
    /// The path of the node that the new ones belong to.
    pub path: String,
    pub nodes: Vec<Node>,
}

impl<'a> Adder<'a> {
    pub(super) fn new(graph: &'a mut Graph, path: &str) -> Self {
        Adder { graph, path: path.to_owned(), nodes: vec![] }
    }

    /// A new value named after the node.
    pub(super) fn value(&mut self, what: &str) -> ValueId {
        let base = format!("{}:{what}", self.path);
        let taken = |name: &str| self.graph.values.iter().any(|v| v.name == name);
        let mut name = base.clone();
        for n in 1.. {
            if !taken(&name) {
                break;
            }
            name = format!("{base}_{n}");
        }
        self.graph.add_value(Value { name, ..Value::default() })
    }

    pub(super) fn constant(&mut self, what: &str, array: Array) -> ValueId {
        let v = self.value(what);
        let value = self.graph.value_mut(v);
        value.dtype = Some(array.dtype());
        value.shape = Some(array.shape().iter().map(|n| crate::tensor::Dim::from(*n)).collect());
        value.constant = Some(array);
        v
    }

    pub(super) fn ints(&mut self, what: &str, data: &[i64]) -> Result<ValueId> {
        let array = Array::from_i64(vec![data.len()], data)?;
        Ok(self.constant(what, array))
    }

    /// A scalar of a floating-point type.
    pub(super) fn scalar(&mut self, what: &str, dtype: DType, x: f64) -> Result<ValueId> {
        let bytes = match dtype {
            DType::Float64 => x.to_le_bytes().to_vec(),
            DType::Float16 => half::f16::from_f64(x).to_le_bytes().to_vec(),
            DType::BFloat16 => half::bf16::from_f64(x).to_le_bytes().to_vec(),
            _ => (x as f32).to_le_bytes().to_vec(),
        };
        let dtype = if dtype.is_float() { dtype } else { DType::Float32 };
        let array = Array::new(dtype, vec![], bytes)?;
        Ok(self.constant(what, array))
    }

    /// A new node with one output.
    pub(super) fn op(
        &mut self,
        op: &'static str,
        what: &str,
        inputs: &[ValueId],
        attrs: &[(&'static str, AttrValue)],
    ) -> Result<ValueId> {
        let out = self.value(what);
        self.node(op, what, inputs, attrs, vec![Some(out)])?;
        Ok(out)
    }

    /// A new node that computes these values.
    pub(super) fn node(
        &mut self,
        op: &'static str,
        what: &str,
        inputs: &[ValueId],
        attrs: &[(&'static str, AttrValue)],
        outputs: Vec<Option<ValueId>>,
    ) -> Result<()> {
        let row = ops::find(op).ok_or_else(|| Error::new(Kind::Internal, format!("the op table has no {op}")))?;
        let mut all = Attrs::defaults(row);
        all.0.extend(attrs.iter().cloned());
        self.nodes.push(Node {
            op: row,
            name: format!("{}/{what}", self.path),
            attrs: all,
            inputs: inputs.iter().map(|v| Some(*v)).collect(),
            outputs,
            bodies: vec![],
        });
        Ok(())
    }
}

/// Puts nodes before those at the given positions.
pub(super) fn insert(g: &mut Graph, mut added: Vec<(usize, Vec<Node>)>) {
    added.sort_by_key(|(at, _)| *at);
    let mut added = added.into_iter().peekable();
    let old = std::mem::take(&mut g.nodes);
    for (i, node) in old.into_iter().enumerate() {
        while let Some((_, new)) = added.next_if(|(at, _)| *at <= i) {
            g.nodes.extend(new);
        }
        g.nodes.push(node);
    }
    added.for_each(|(_, new)| g.nodes.extend(new));
}
