//! Takes the branch of an If whose condition is known.

use super::edit::replace;
use crate::error::{Error, Kind, Result};
use crate::graph::infer::control::{decided, free};
use crate::graph::{Graph, ValueId};
use std::collections::HashMap;

/// Puts the taken branch of each If with a constant condition in its place, in bodies too. Returns whether there was one.
/// Types must have been inferred.
pub fn inline_ifs(g: &mut Graph) -> Result<bool> {
    let mut any = false;
    let mut pairs = HashMap::new();
    for mut node in std::mem::take(&mut g.nodes) {
        let condition = node.inputs.first().copied().flatten().and_then(|c| decided(g.value(c).constant.as_ref()));
        let (true, Some(condition)) = (node.op.name == "If", condition) else {
            for (_, body) in &mut node.bodies {
                any |= inline_ifs(body)?;
            }
            g.nodes.push(node);
            continue;
        };
        any = true;
        let name = if condition { "then_branch" } else { "else_branch" };
        let branch = node.bodies.into_iter().find(|(n, _)| n == name).map(|(_, b)| b);
        let branch = branch.ok_or_else(|| Error::new(Kind::Internal, format!("{} has no {name}", node.name)))?;
        let results = splice(g, branch);
        for (out, from) in node.outputs.iter().zip(results) {
            if let Some(out) = out {
                pairs.insert(*out, from);
            }
        }
    }
    replace(g, &pairs);
    Ok(any)
}

/// Appends a body's nodes to the graph around it. Returns what its outputs are there.
pub(super) fn splice(g: &mut Graph, body: Graph) -> Vec<ValueId> {
    let outer: HashMap<String, ValueId> =
        (0u32..).map(ValueId).zip(&g.values).map(|(v, value)| (value.name.clone(), v)).collect();
    let mut places: HashMap<ValueId, ValueId> = HashMap::new();
    for v in free(&body) {
        if let Some(o) = outer.get(&body.value(v).name) {
            places.insert(v, *o);
        }
    }
    for (v, value) in (0u32..).map(ValueId).zip(body.values) {
        places.entry(v).or_insert_with(|| g.add_value(value));
    }
    let at = |v: &mut ValueId| *v = places.get(v).copied().unwrap_or(*v);
    for mut node in body.nodes {
        node.inputs.iter_mut().chain(&mut node.outputs).flatten().for_each(at);
        g.nodes.push(node);
    }
    let mut results: Vec<ValueId> = body.outputs.iter().map(|(_, v)| *v).collect();
    results.iter_mut().for_each(at);
    results
}
