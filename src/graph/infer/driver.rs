//! Runs the shape rules over a graph.

use super::{Infer, Type, content, control};
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, Node, Value, ValueId};
use crate::tensor::{Array, DType, Dim, known, show};

/// No tensor is larger than this, in bytes: sizes and offsets computed from shapes stay far from overflow.
const MOST: i64 = 1 << 46;

/// Finds the data type and shape of every value, and the elements of small integer tensors where they follow from shapes.
/// What the model declares of a value is checked against what is found. Bodies of control flow are inferred as well.
pub fn infer(graph: &mut Graph) -> Result<()> {
    for i in 0..graph.nodes.len() {
        // The bodies are taken out while they are inferred: they read the values around them.
        let mut bodies = std::mem::take(&mut graph.nodes[i].bodies);
        let found = node(graph, &graph.nodes[i], &mut bodies);
        graph.nodes[i].bodies = bodies;
        let types = found.map_err(|e| e.at(place(graph, &graph.nodes[i])))?;
        let outputs = graph.nodes[i].outputs.clone();
        for (out, mut t) in outputs.iter().zip(types) {
            for d in t.shape.iter_mut().chain(t.content.iter_mut().flatten()) {
                *d = d.within(&graph.ranges);
            }
            if let Some(v) = out {
                let value = graph.value_mut(*v);
                settle(value, t).map_err(|e| e.at(place(graph, &graph.nodes[i])))?;
            }
        }
    }
    for (name, v) in &graph.outputs {
        let v = graph.value(*v);
        if v.dtype.is_none() || v.shape.is_none() {
            return Err(Error::new(Kind::InvalidModel, format!("output \"{name}\" is never computed")));
        }
    }
    Ok(())
}

/// The node's path and the types of its inputs.
fn place(graph: &Graph, node: &Node) -> String {
    let one = |v: &Option<ValueId>| match v.map(|v| graph.value(v)) {
        None => "-".to_owned(),
        Some(Value { dtype: Some(d), shape: Some(s), .. }) => format!("{d}{}", show(s)),
        Some(_) => "?".to_owned(),
    };
    let inputs: Vec<String> = node.inputs.iter().map(one).collect();
    format!("{} ({})", node.name, inputs.join(", "))
}

/// The type of a value that is used.
pub(super) fn type_of(graph: &Graph, v: ValueId) -> Result<Type> {
    match graph.value(v) {
        Value { dtype: Some(dtype), shape: Some(shape), content, .. } => {
            Ok(Type { dtype: *dtype, shape: shape.clone(), content: content.clone() })
        }
        Value { name, .. } => Err(Error::new(Kind::InvalidShape, format!("the type of \"{name}\" is not known"))),
    }
}

fn node(graph: &Graph, node: &Node, bodies: &mut [(String, Graph)]) -> Result<Vec<Type>> {
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for v in &node.inputs {
        inputs.push(v.map(|v| type_of(graph, v)).transpose()?);
    }
    let constants: Vec<Option<Array>> =
        node.inputs.iter().map(|v| v.and_then(|v| graph.value(v).constant.clone())).collect();
    let cx = Infer { attrs: &node.attrs, inputs: &inputs, constants: &constants, outputs: node.outputs.len() };
    if !bodies.is_empty() {
        return control::node(graph, node.op.name, &cx, bodies);
    }
    let mut types = (node.op.infer)(&cx)?;
    if types.len() < node.outputs.len() {
        return Err(Error::new(
            Kind::InvalidModel,
            format!("{} gives {} outputs here, {} are named", node.op.name, types.len(), node.outputs.len()),
        ));
    }
    if types.iter().any(|t| t.content.is_none()) {
        let found = content::elements(node.op.name, &cx, &types);
        for (t, found) in types.iter_mut().zip(found) {
            t.content = t.content.take().or(found);
        }
    }
    Ok(types)
}

/// Takes over what was found of a value, checked against what was declared.
fn settle(value: &mut Value, t: Type) -> Result<()> {
    if let Some(declared) = value.dtype.filter(|d| *d != t.dtype) {
        return Err(Error::new(
            Kind::InvalidModel,
            format!("\"{}\" is declared as {declared} and computed as {}", value.name, t.dtype),
        ));
    }
    if let Some(declared) = &value.shape {
        let fits = |(a, b): (&Dim, &Dim)| a.known().is_none() || b.known().is_none() || a == b;
        if declared.len() != t.shape.len() || !declared.iter().zip(&t.shape).all(fits) {
            return Err(Error::new(
                Kind::InvalidShape,
                format!("\"{}\" is declared as {} and computed as {}", value.name, show(declared), show(&t.shape)),
            ));
        }
    }
    if t.shape.iter().any(|d| d.known().is_some_and(|n| n < 0)) {
        return Err(Error::new(
            Kind::InvalidShape,
            format!("\"{}\" would have the shape {}", value.name, show(&t.shape)),
        ));
    }
    let mut sizes = t.shape.iter().filter_map(Dim::known).filter(|d| *d > 0);
    let fits = sizes.try_fold(t.dtype.size() as i64, |n, d| n.checked_mul(d).filter(|n| *n <= MOST));
    if fits.is_none() {
        let shape = show(&t.shape);
        return Err(Error::new(
            Kind::InvalidShape,
            format!("\"{}\" of shape {shape} is larger than any memory", value.name),
        ));
    }
    value.constant = t.content.as_ref().and_then(|c| constant(t.dtype, &t.shape, c));
    (value.dtype, value.shape, value.content) = (Some(t.dtype), Some(t.shape), t.content);
    Ok(())
}

/// The tensor of these elements, where all are whole numbers that its type holds.
fn constant(dtype: DType, shape: &[Dim], content: &[Dim]) -> Option<Array> {
    let shape = known(shape)?;
    let ints: Vec<i64> = content.iter().map(Dim::known).collect::<Option<_>>()?;
    fn bytes<const N: usize>(ints: &[i64], f: impl Fn(i64) -> Option<[u8; N]>) -> Option<Vec<u8>> {
        ints.iter().map(|n| f(*n)).collect::<Option<Vec<_>>>().map(|v| v.concat())
    }
    let exact = |n: i64, most: i64| (-most..=most).contains(&n);
    let bytes = match dtype {
        DType::Bool => bytes(&ints, |n| Some([u8::from(n != 0)])),
        DType::Int8 => bytes(&ints, |n| i8::try_from(n).ok().map(i8::to_le_bytes)),
        DType::Uint8 => bytes(&ints, |n| u8::try_from(n).ok().map(u8::to_le_bytes)),
        DType::Int16 => bytes(&ints, |n| i16::try_from(n).ok().map(i16::to_le_bytes)),
        DType::Uint16 => bytes(&ints, |n| u16::try_from(n).ok().map(u16::to_le_bytes)),
        DType::Int32 => bytes(&ints, |n| i32::try_from(n).ok().map(i32::to_le_bytes)),
        DType::Uint32 => bytes(&ints, |n| u32::try_from(n).ok().map(u32::to_le_bytes)),
        DType::Int64 => bytes(&ints, |n| Some(n.to_le_bytes())),
        DType::Uint64 => bytes(&ints, |n| u64::try_from(n).ok().map(u64::to_le_bytes)),
        DType::Float32 => bytes(&ints, |n| exact(n, 1 << 24).then(|| (n as f32).to_le_bytes())),
        DType::Float64 => bytes(&ints, |n| exact(n, 1 << 53).then(|| (n as f64).to_le_bytes())),
        DType::Float16 | DType::BFloat16 => None,
    }?;
    Array::new(dtype, shape, bytes).ok()
}
