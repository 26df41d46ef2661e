//! Graphs as text: one line a value, for people and for snapshots.

use super::{AttrValue, Graph, ValueId};
use crate::tensor::{Array, show};
use std::fmt::{self, Write};

/// Constants of at most as many elements are printed whole.
const WHOLE: usize = 8;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        block(self, f, 0)
    }
}

fn block(g: &Graph, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    let indent = "  ".repeat(depth);
    for v in &g.inputs {
        writeln!(f, "{indent}input {}", typed(g, *v))?;
    }
    for node in &g.nodes {
        let outputs: Vec<String> =
            node.outputs.iter().map(|v| v.map_or_else(|| "_".to_owned(), |v| typed(g, v))).collect();
        let inputs: Vec<String> =
            node.inputs.iter().map(|v| v.map_or_else(|| "_".to_owned(), |v| used(g, v))).collect();
        let attrs: Vec<String> = node.attrs.0.iter().map(|(k, v)| format!("{k}={}", attr(v))).collect();
        let attrs = if attrs.is_empty() { String::new() } else { format!(" {{{}}}", attrs.join(", ")) };
        writeln!(f, "{indent}{} = {}({}){attrs}", outputs.join(", "), node.op.name, inputs.join(", "))?;
        for (name, body) in &node.bodies {
            writeln!(f, "{indent}  {name}:")?;
            block(body, f, depth + 2)?;
        }
    }
    for (name, v) in &g.outputs {
        let used = used(g, *v);
        if used == *name {
            writeln!(f, "{indent}output {name}")?
        } else {
            writeln!(f, "{indent}output {name} = {used}")?
        }
    }
    Ok(())
}

/// `y: float32[b, 3]`, with the elements where they are known.
fn typed(g: &Graph, v: ValueId) -> String {
    let v = g.value(v);
    let mut text = v.name.clone();
    if v.dtype.is_some() || v.shape.is_some() {
        let dtype = v.dtype.map_or_else(|| "?".to_owned(), |d| d.to_string());
        let shape = v.shape.as_deref().map_or_else(|| "[?]".to_owned(), show);
        let _ = write!(text, ": {dtype}{shape}");
    }
    if let Some(content) = &v.content {
        let _ = write!(text, " = {}", show(content));
    }
    text
}

/// A value's name, and for constants their type and, where it is short, their data.
fn used(g: &Graph, v: ValueId) -> String {
    let v = g.value(v);
    match &v.constant {
        Some(a) if v.content.is_none() => format!("{} {}", v.name, constant(a)),
        _ => v.name.clone(),
    }
}

/// `float32[2] [1, 2.5]`, or without the data where it is long.
fn constant(a: &Array) -> String {
    let ty = format!("{}{:?}", a.dtype(), a.shape());
    if a.len() > WHOLE {
        return ty;
    }
    match (a.to_i64(), a.to_f64()) {
        (Some(v), _) => format!("{ty} {v:?}"),
        (None, Some(v)) => {
            let v: Vec<String> = v.iter().map(ToString::to_string).collect();
            format!("{ty} [{}]", v.join(", "))
        }
        _ => ty,
    }
}

fn attr(v: &AttrValue) -> String {
    match v {
        AttrValue::Int(n) => n.to_string(),
        AttrValue::Float(x) => x.to_string(),
        AttrValue::Str(s) => format!("{s:?}"),
        AttrValue::Ints(v) => format!("{v:?}"),
        AttrValue::Floats(v) => format!("{v:?}"),
        AttrValue::Strs(v) => format!("{v:?}"),
        AttrValue::Tensor(a) => constant(a),
        AttrValue::Type(d) => d.to_string(),
    }
}
