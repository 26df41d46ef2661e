//! Operators to the kernel IR: one file a family, one function an operator.

mod attention;
mod binary;
mod cast;
mod conv;
pub mod formula;
mod generate;
mod indexing;
mod integer;
mod loss;
pub mod map;
mod math;
mod matmul;
mod movement;
mod norm;
mod pool;
mod program;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod roi;
mod sample;
mod select;
mod shape;
mod signal;
mod softmax;
mod state;
#[cfg(test)]
pub mod testing;
mod unary;

use crate::error::{Error, Kind, Result};
use crate::graph::{Attrs, Graph, Node};
use crate::kernel::{ExprId, ValueId, Values};
use crate::tensor::{Array, DType, Dim, Shape};
use std::collections::{BTreeMap, HashMap};

/// What a lowering function sees of its node.
pub struct Cx<'a> {
    pub values: &'a mut Values,
    pub graph: &'a Graph,
    pub node: &'a Node,
    inputs: Vec<Option<ValueId>>,
}

/// Lowers a node: returns one value for each output it names, of the inferred type.
pub type Lower = fn(&mut Cx<'_>) -> Result<Vec<ValueId>>;

/// Name of the operator and its lowering, one list a family.
const FAMILIES: &[&[(&str, Lower)]] = &[
    // One line a family.
    matmul::ROWS,
    conv::ROWS,
    pool::ROWS,
    norm::ROWS,
    unary::ROWS,
    binary::ROWS,
    attention::ROWS,
    resize::ROWS,
    recurrent::ROWS,
    select::ROWS,
    signal::ROWS,
    state::ROWS,
    roi::ROWS,
    sample::ROWS,
    loss::ROWS,
    cast::ROWS,
    reduce::ROWS,
    softmax::ROWS,
    shape::ROWS,
    movement::ROWS,
    generate::ROWS,
    indexing::ROWS,
    quantize::ROWS,
];

/// The operators that have a lowering, with it.
pub fn table() -> impl Iterator<Item = (&'static str, Lower)> {
    FAMILIES.iter().flat_map(|rows| rows.iter().copied())
}

/// The lowering of the operator of that name.
pub fn find(op: &str) -> Option<Lower> {
    table().find(|(name, _)| *name == op).map(|(_, lower)| lower)
}

impl Cx<'_> {
    pub fn attrs(&self) -> &Attrs {
        &self.node.attrs
    }

    /// A required input.
    pub fn input(&self, i: usize) -> Result<ValueId> {
        self.optional(i)
            .ok_or_else(|| Error::new(Kind::InvalidModel, format!("input {i} of {} is missing", self.node.op.name)))
    }

    /// An input that may be absent.
    pub fn optional(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// How many inputs are named.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// The shape of input `i`, which must be present.
    pub fn shape(&self, i: usize) -> Result<Shape> {
        Ok(self.values.shape(self.input(i)?).to_vec())
    }

    /// The elements of a small integer input (starts, axes, a shape) as dims; an error where they are not known at build
    /// time.
    pub fn content(&self, i: usize) -> Result<Vec<Dim>> {
        let id = self.node.inputs.get(i).copied().flatten();
        let value = id.map(|id| self.graph.value(id));
        let known = value.and_then(|v| {
            let ints = v.constant.as_ref().and_then(Array::to_i64);
            v.content.clone().or_else(|| ints.map(|v| v.into_iter().map(Dim::from).collect()))
        });
        known.ok_or_else(|| {
            Error::new(Kind::InvalidShape, format!("input {i} of {} depends on data at run time", self.node.op.name))
                .help("fold it to a constant when exporting the model")
        })
    }

    /// Whether the node names output `i`.
    pub fn wants(&self, i: usize) -> bool {
        self.node.outputs.get(i).copied().flatten().is_some()
    }

    /// The inferred type of output `i`.
    pub fn output(&self, i: usize) -> Result<(DType, Shape)> {
        let v = self.node.outputs.get(i).copied().flatten().map(|id| self.graph.value(id));
        match v {
            Some(v) => match (v.dtype, &v.shape) {
                (Some(d), Some(s)) => Ok((d, s.clone())),
                _ => Err(Error::new(Kind::Internal, format!("output {i} has no inferred type"))),
            },
            None => Err(Error::new(Kind::Internal, format!("output {i} is not named"))),
        }
    }

    /// Output 0 as a function of its index.
    pub fn func(&mut self, f: impl FnOnce(&mut Values, &[ExprId]) -> Result<ExprId>) -> Result<Vec<ValueId>> {
        let (dtype, shape) = self.output(0)?;
        Ok(vec![self.values.func(dtype, shape, f)?])
    }
}

/// A lowered model: its values, and which of them are the outputs, in the graph's order.
#[derive(Debug)]
pub struct Lowered {
    pub values: Values,
    pub outputs: Vec<ValueId>,
}

/// Lowers a graph whose types are inferred. Operators without a lowering are reported all at once.
pub fn graph(g: &Graph, ranges: BTreeMap<crate::tensor::Sym, crate::tensor::DimRange>) -> Result<Lowered> {
    let mut missing: Vec<String> = g
        .nodes
        .iter()
        .filter(|n| find(n.op.name).is_none())
        .map(|n| format!("{} (node \"{}\")", n.op.name, n.name))
        .collect();
    missing.sort();
    if !missing.is_empty() {
        return Err(Error::new(
            Kind::UnsupportedOp,
            format!("operators that are not implemented: {}", missing.join(", ")),
        ));
    }
    let mut values = Values::new();
    values.arena.ranges = ranges;
    let mut at: HashMap<crate::graph::ValueId, ValueId> = HashMap::new();
    for (position, id) in g.inputs.iter().enumerate() {
        let v = g.value(*id);
        let (Some(dtype), Some(shape)) = (v.dtype, v.shape.clone()) else {
            return Err(Error::new(Kind::InvalidModel, format!("input \"{}\" has no type", v.name)));
        };
        values.path.clone_from(&v.name);
        at.insert(*id, values.input(position, dtype, shape));
    }
    for node in &g.nodes {
        values.path.clone_from(&node.name);
        let ids = lower_node(g, node, &mut values, &mut at).map_err(|e| e.at(&node.name))?;
        for (out, id) in node.outputs.iter().zip(ids) {
            if let Some(out) = out {
                at.insert(*out, id);
            }
        }
    }
    let mut outputs = vec![];
    for (name, id) in &g.outputs {
        values.path.clone_from(name);
        outputs.push(value_of(g, *id, &mut values, &mut at)?);
    }
    Ok(Lowered { values, outputs })
}

fn lower_node(
    g: &Graph,
    node: &Node,
    values: &mut Values,
    at: &mut HashMap<crate::graph::ValueId, ValueId>,
) -> Result<Vec<ValueId>> {
    let Some(lower) = find(node.op.name) else {
        return Err(Error::new(Kind::UnsupportedOp, node.op.name));
    };
    // What is known symbolically needs no code of the operator's.
    let known = |id: &Option<crate::graph::ValueId>| id.is_none_or(|id| g.value(id).content.is_some());
    if node.outputs.iter().all(known) {
        return Ok(vec![]);
    }
    let mut inputs = vec![];
    for i in &node.inputs {
        inputs.push(match i {
            Some(id) => Some(value_of(g, *id, values, at)?),
            None => None,
        });
    }
    let named = node.outputs.iter().rposition(Option::is_some).map_or(0, |n| n + 1);
    let ids = lower(&mut Cx { values, graph: g, node, inputs })?;
    if ids.len() < named {
        return Err(Error::new(Kind::Internal, format!("{} lowers to {} of {named} outputs", node.op.name, ids.len())));
    }
    for (out, id) in node.outputs.iter().zip(&ids) {
        if let Some(v) = out.map(|o| g.value(o))
            && (v.dtype != Some(values.dtype(*id)) || v.shape.as_deref() != Some(values.shape(*id)))
        {
            let got = format!("{} {}", values.dtype(*id), crate::tensor::show(values.shape(*id)));
            let want = crate::tensor::show(v.shape.as_deref().unwrap_or_default());
            return Err(Error::new(
                Kind::Internal,
                format!("{} lowers to {got} where {want} was inferred", node.op.name),
            ));
        }
    }
    Ok(ids)
}

/// The lowered value of a graph value: already there, constant, or known symbolically.
fn value_of(
    g: &Graph,
    id: crate::graph::ValueId,
    values: &mut Values,
    at: &mut HashMap<crate::graph::ValueId, ValueId>,
) -> Result<ValueId> {
    if let Some(v) = at.get(&id) {
        return Ok(*v);
    }
    let v = g.value(id);
    let made = match (&v.constant, &v.content, v.dtype, &v.shape) {
        (Some(a), ..) => {
            let path = std::mem::replace(&mut values.path, v.name.clone());
            let made = values.constant_array(a.clone());
            values.path = path;
            made
        }
        (None, Some(dims), Some(dtype), Some(shape)) => values.func(dtype, shape.clone(), |vs, index| {
            let ty = crate::kernel::Ty::of(dtype);
            let mut e = vs.arena.constant(crate::kernel::Scalar::int(ty, 0));
            // The elements are numbered row-major.
            let number = index.iter().zip(&shape[..]).fold(None, |number, (i, extent)| {
                let Some(number) = number else { return Some(*i) };
                let extent = vs.arena.dim(extent);
                let row = vs.arena.binary(crate::kernel::BinaryOp::Mul, number, extent);
                Some(vs.arena.binary(crate::kernel::BinaryOp::Add, row, *i))
            });
            for (n, d) in dims.iter().enumerate().rev() {
                let d = vs.arena.dim(d);
                let d = vs.arena.cast(ty, d);
                let Some(number) = number else { return Ok(d) };
                let n = vs.arena.int(i64::try_from(n).unwrap_or(i64::MAX));
                let here = vs.arena.binary(crate::kernel::BinaryOp::Eq, number, n);
                e = vs.arena.select(here, d, e);
            }
            Ok(e)
        })?,
        _ => return Err(Error::new(Kind::InvalidModel, format!("value \"{}\" is used but never computed", v.name))),
    };
    at.insert(id, made);
    Ok(made)
}
