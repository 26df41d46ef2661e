//! Constant folding: what depends on constants alone is computed when the model is built.

use super::common::random;
use super::edit::{captured, producers};
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, Node, Value, ValueId};
use crate::tensor::{Array, known};
use std::collections::{HashMap, HashSet};

/// Computes a graph without inputs.
pub trait Evaluate {
    /// The outputs of the graph, in its order. Types are inferred.
    fn evaluate(&self, graph: &Graph) -> Result<Vec<Array>>;
}

/// Results up to this size, in bytes, are always kept. Larger ones only while they are not more than
/// [`GROWTH`] times what they are computed from: a filler of a few bytes stays a node.
const SMALL: u64 = 64 * 1024;
const GROWTH: u64 = 2;

/// Results are computed in batches of about this size, in bytes, so that memory stays bounded.
const BATCH: u64 = 32 * 1024 * 1024;

/// Replaces the nodes that depend on constants alone by their results. Returns whether there were any.
pub fn fold(g: &mut Graph, evaluate: &dyn Evaluate) -> Result<bool> {
    let made = producers(g);
    let mut chosen = choose(g, &made);
    let wanted = loop {
        let wanted = frontier(g, &made, &chosen);
        let grown: Vec<usize> = wanted.iter().filter(|v| grows(g, &made, **v)).map(|v| made[v]).collect();
        if grown.is_empty() {
            break wanted;
        }
        for i in grown {
            chosen[i] = false;
        }
        // What reads a node that stays stays as well.
        for i in 0..g.nodes.len() {
            let stays = |v: &ValueId| g.value(*v).constant.is_none() && made.get(v).is_none_or(|p| !chosen[*p]);
            chosen[i] = chosen[i] && !g.nodes[i].inputs.iter().flatten().any(stays);
        }
    };
    for batch in batches(g, &made, &chosen, &wanted) {
        let part = subgraph(g, &made, &chosen, &batch);
        let results = evaluate.evaluate(&part).map_err(|e| e.at("constant folding"))?;
        if results.len() != batch.len() {
            return Err(Error::new(Kind::Internal, "constant folding lost a result"));
        }
        for (v, array) in batch.into_iter().zip(results) {
            let value = g.value_mut(v);
            if value.dtype != Some(array.dtype())
                || value.shape.as_deref().and_then(known).as_deref() != Some(array.shape())
            {
                return Err(
                    Error::new(Kind::Internal, "constant folding gives another type than was inferred").at(&value.name)
                );
            }
            value.constant = Some(array);
        }
    }
    let any = chosen.contains(&true);
    let mut i = 0;
    g.nodes.retain(|_| {
        i += 1;
        !chosen[i - 1]
    });
    Ok(any)
}

/// The nodes that depend on constants alone.
fn choose(g: &Graph, made: &HashMap<ValueId, usize>) -> Vec<bool> {
    let mut chosen = vec![false; g.nodes.len()];
    for (i, node) in g.nodes.iter().enumerate() {
        let constant = |v: &ValueId| g.value(*v).constant.is_some() || made.get(v).is_some_and(|p| chosen[*p]);
        chosen[i] = node.bodies.is_empty()
            && !random(node)
            && !node.inputs.is_empty()
            && node.inputs.iter().flatten().all(constant)
            && node.outputs.iter().flatten().all(|v| size(g.value(*v)).is_some())
            && node.outputs.iter().flatten().any(|v| g.value(*v).constant.is_none());
    }
    chosen
}

/// The size of a value in bytes, where its shape is known.
fn size(v: &Value) -> Option<u64> {
    let shape = known(v.shape.as_ref()?)?;
    let count = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64))?;
    count.checked_mul(v.dtype?.size() as u64)
}

/// The results that are read outside of the chosen nodes.
fn frontier(g: &Graph, made: &HashMap<ValueId, usize>, chosen: &[bool]) -> Vec<ValueId> {
    let mut read: HashSet<ValueId> = captured(g);
    read.extend(g.outputs.iter().map(|(_, v)| *v));
    for (i, node) in g.nodes.iter().enumerate() {
        if !chosen[i] {
            read.extend(node.inputs.iter().flatten());
        }
    }
    let mut all: Vec<ValueId> = read.into_iter().filter(|v| made.get(v).is_some_and(|p| chosen[*p])).collect();
    all.retain(|v| g.value(*v).constant.is_none());
    all.sort();
    all
}

/// Whether a result is much larger than what it is computed from.
fn grows(g: &Graph, made: &HashMap<ValueId, usize>, v: ValueId) -> bool {
    let result = size(g.value(v)).unwrap_or(u64::MAX);
    if result <= SMALL {
        return false;
    }
    let (mut from, mut seen, mut open) = (0u64, HashSet::new(), vec![v]);
    while let Some(v) = open.pop() {
        match (&g.value(v).constant, made.get(&v)) {
            (Some(a), _) => from = from.saturating_add(a.bytes().len() as u64),
            (None, Some(p)) => {
                let new = g.nodes[*p].inputs.iter().flatten().copied().filter(|v| seen.insert(*v));
                open.extend(new.collect::<Vec<_>>());
            }
            (None, None) => {}
        }
    }
    result > from.saturating_mul(GROWTH)
}

/// The results in groups that share no node, joined up to [`BATCH`].
fn batches(g: &Graph, made: &HashMap<ValueId, usize>, chosen: &[bool], wanted: &[ValueId]) -> Vec<Vec<ValueId>> {
    // The group of a node is the smallest node that it is connected with.
    let mut group: Vec<usize> = (0..g.nodes.len()).collect();
    fn root(group: &mut [usize], mut i: usize) -> usize {
        while group[i] != i {
            group[i] = group[group[i]];
            i = group[i];
        }
        i
    }
    for (i, node) in g.nodes.iter().enumerate().filter(|(i, _)| chosen[*i]) {
        for p in node.inputs.iter().flatten().filter_map(|v| made.get(v)).filter(|p| chosen[**p]) {
            let (a, b) = (root(&mut group, i), root(&mut group, *p));
            group[a.max(b)] = a.min(b);
        }
    }
    let mut groups: Vec<(usize, Vec<ValueId>)> = vec![];
    let mut places: HashMap<usize, usize> = HashMap::new();
    for v in wanted {
        let r = root(&mut group, made[v]);
        let at = *places.entry(r).or_insert_with(|| {
            groups.push((r, vec![]));
            groups.len() - 1
        });
        groups[at].1.push(*v);
    }
    let mut all: Vec<Vec<ValueId>> = vec![];
    let mut room = 0;
    for (_, values) in groups {
        let bytes: u64 = values.iter().filter_map(|v| size(g.value(*v))).sum();
        match all.last_mut().filter(|_| bytes <= room) {
            Some(last) => {
                last.extend(values);
                room -= bytes;
            }
            None => {
                room = BATCH.saturating_sub(bytes);
                all.push(values);
            }
        }
    }
    all
}

/// The chosen nodes that these results need, as a graph of its own.
fn subgraph(g: &Graph, made: &HashMap<ValueId, usize>, chosen: &[bool], results: &[ValueId]) -> Graph {
    let mut needed = vec![false; g.nodes.len()];
    let mut open: Vec<ValueId> = results.to_vec();
    while let Some(v) = open.pop() {
        if let Some(p) = made.get(&v).copied().filter(|p| chosen[*p] && !needed[*p] && g.value(v).constant.is_none()) {
            needed[p] = true;
            open.extend(g.nodes[p].inputs.iter().flatten());
        }
    }
    let mut part = Graph { name: "constants".into(), ..Graph::default() };
    let mut places: HashMap<ValueId, ValueId> = HashMap::new();
    let mut at = |part: &mut Graph, v: ValueId| *places.entry(v).or_insert_with(|| part.add_value(g.value(v).clone()));
    for (i, node) in g.nodes.iter().enumerate().filter(|(i, _)| needed[*i]) {
        let mut each = |list: &[Option<ValueId>]| -> Vec<Option<ValueId>> {
            list.iter().map(|v| v.map(|v| at(&mut part, v))).collect()
        };
        let (inputs, outputs) = (each(&node.inputs), each(&node.outputs));
        let Node { op, name, attrs, .. } = &g.nodes[i];
        let copy = Node { op, name: name.clone(), attrs: attrs.clone(), inputs, outputs, bodies: vec![] };
        part.nodes.push(copy);
    }
    for v in results {
        let name = g.value(*v).name.clone();
        let own = at(&mut part, *v);
        part.outputs.push((name, own));
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::graph;
    use std::cell::RefCell;

    /// Gives tensors of zeros, and keeps the graphs that it was asked for.
    #[derive(Default)]
    struct Zeros(RefCell<Vec<String>>);

    impl Evaluate for Zeros {
        fn evaluate(&self, g: &Graph) -> Result<Vec<Array>> {
            self.0.borrow_mut().push(g.to_string());
            g.outputs
                .iter()
                .map(|(_, v)| {
                    let v = g.value(*v);
                    let bytes = vec![0u8; size(v).unwrap() as usize];
                    Array::new(v.dtype.unwrap(), known(v.shape.as_ref().unwrap()).unwrap(), bytes)
                })
                .collect()
        }
    }

    #[test]
    fn folds_what_is_constant() {
        let mut g = graph(
            "input x: float32[n, 2]
             w = float32[2] [1.5, 2.5]
             a = Exp(w)
             b = Neg(a)
             c = Sqrt(a)
             y = Mul(x, b)
             z = Add(y, c)
             output z
             output b",
        );
        let zeros = Zeros::default();
        assert_eq!(fold(&mut g, &zeros), Ok(true));
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n, 2]
y: float32[n, 2] = Mul(x, b float32[2] [0, 0])
z: float32[n, 2] = Add(y, c float32[2] [0, 0])
output z
output b = b float32[2] [0, 0]
"#);
        insta::assert_snapshot!(zeros.0.borrow().join("---\n"), @r#"
a: float32[2] = Exp(w float32[2] [1.5, 2.5])
b: float32[2] = Neg(a)
c: float32[2] = Sqrt(a)
output b
output c
"#);
        assert_eq!(fold(&mut g, &zeros), Ok(false));
    }

    #[test]
    fn keeps_what_grows() {
        let mut g = graph(
            "input x: float32[1]
             shape = int64[1] [100000]
             big = ConstantOfShape(shape)
             one = ReduceSum(big) {keepdims=1}
             y = Add(x, one)
             z = Add(x, big)
             output y
             output z",
        );
        let zeros = Zeros::default();
        assert_eq!(fold(&mut g, &zeros), Ok(false));
        // Where only a small result of it is read, it is folded.
        g.outputs.truncate(1);
        super::super::dead_code(&mut g);
        assert_eq!(fold(&mut g, &zeros), Ok(true));
        assert_eq!(g.nodes.len(), 1);
    }
}
