//! Removes what nothing reads: nodes, outputs of nodes, values.

use super::edit::names_inside;
use crate::graph::{Graph, Node, Value, ValueId};
use std::collections::{HashMap, HashSet};

/// Removes nodes whose results are not read or already known, and values that are not used. Inputs stay.
pub fn dead_code(g: &mut Graph) {
    sweep(g, &HashSet::new());
}

/// `outer` are the names of values around this graph, when it is a body.
fn sweep(g: &mut Graph, outer: &HashSet<String>) {
    let mut visible = outer.clone();
    if g.nodes.iter().any(|n| !n.bodies.is_empty()) {
        visible.extend(g.values.iter().map(|v| v.name.clone()));
    }
    for node in &mut g.nodes {
        node.bodies.iter_mut().for_each(|(_, body)| sweep(body, &visible));
    }
    let by_name: HashMap<String, ValueId> = match visible.is_empty() {
        true => HashMap::new(),
        false => (0u32..).map(ValueId).zip(&g.values).map(|(v, value)| (value.name.clone(), v)).collect(),
    };
    let mut live: HashSet<ValueId> = g.outputs.iter().map(|(_, v)| *v).collect();
    let mut kept: Vec<Node> = vec![];
    for mut node in std::mem::take(&mut g.nodes).into_iter().rev() {
        let needed = |v: &ValueId| live.contains(v) && g.values[v.0 as usize].constant.is_none();
        if !node.outputs.iter().flatten().any(needed) {
            continue;
        }
        // Positions carry meaning (the parts of a Split): outputs that nothing reads lose their name, not their place.
        node.outputs.iter_mut().for_each(|out| *out = out.filter(|v| live.contains(v)));
        live.extend(node.inputs.iter().flatten());
        let mut names = HashSet::new();
        names_inside(&node, &mut names);
        live.extend(names.iter().filter_map(|n| by_name.get(n)));
        kept.push(node);
    }
    kept.reverse();
    g.nodes = kept;
    live.extend(&g.inputs);
    compact(g, &live);
}

/// Keeps only these values and numbers them anew.
fn compact(g: &mut Graph, live: &HashSet<ValueId>) {
    let mut places: HashMap<ValueId, ValueId> = HashMap::new();
    let mut kept: Vec<Value> = vec![];
    for (v, value) in (0u32..).map(ValueId).zip(std::mem::take(&mut g.values)) {
        if live.contains(&v) {
            places.insert(v, ValueId(u32::try_from(kept.len()).unwrap_or(u32::MAX)));
            kept.push(value);
        }
    }
    g.values = kept;
    let at = |v: &mut ValueId| {
        if let Some(new) = places.get(v) {
            *v = *new;
        }
    };
    g.inputs.iter_mut().for_each(at);
    g.outputs.iter_mut().for_each(|(_, v)| at(v));
    for node in &mut g.nodes {
        node.inputs.iter_mut().chain(&mut node.outputs).flatten().for_each(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::graph;

    #[test]
    fn keeps_what_is_read() {
        let mut g = graph(
            "input x: float32[n, 4]
             input unused: float32[1]
             a = Relu(x)
             b = Exp(x)
             s = Shape(a)
             p, q = Split(a) {axis=1, num_outputs=2}
             output y = q",
        );
        dead_code(&mut g);
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n, 4]
input unused: float32[1]
a: float32[n, 4] = Relu(x)
_, q: float32[n, 2] = Split(a) {axis=1, num_outputs=2}
output y = q
"#);
    }
}
