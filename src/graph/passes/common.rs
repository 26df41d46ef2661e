//! Computes once what is computed twice.

use super::edit::replace;
use crate::graph::{Graph, Node, ValueId};
use crate::tensor::Array;
use std::collections::{BTreeMap, HashMap};

/// Constants up to this size, in bytes, are compared with one another.
const SMALL: usize = 4096;

/// Whether a node gives something else each time it runs.
pub(super) fn random(node: &Node) -> bool {
    matches!(
        node.op.name,
        "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" | "Bernoulli" | "Multinomial"
    ) || (node.op.name == "Dropout" && node.inputs.len() > 2)
}

/// Merges equal small constants, and nodes that apply the same operator with the same attributes to the same values.
pub fn common_subexpressions(g: &mut Graph) {
    let mut constants: HashMap<(Vec<u8>, Vec<usize>, crate::tensor::DType), ValueId> = HashMap::new();
    let mut pairs: HashMap<ValueId, ValueId> = HashMap::new();
    for (v, value) in (0u32..).map(ValueId).zip(&g.values) {
        let Some(a) = value.constant.as_ref().filter(|a: &&Array| a.bytes().len() <= SMALL) else { continue };
        let first = *constants.entry((a.bytes().to_vec(), a.shape().to_vec(), a.dtype())).or_insert(v);
        if first != v {
            pairs.insert(v, first);
        }
    }
    // Values that a node computes and that are known keep their place: the node goes when nothing reads it.
    replace(g, &pairs);
    pairs.clear();
    let mut seen: BTreeMap<(&str, Vec<Option<ValueId>>), Vec<usize>> = BTreeMap::new();
    for i in 0..g.nodes.len() {
        let node = &g.nodes[i];
        if !node.bodies.is_empty() || random(node) {
            continue;
        }
        let now = |v: &Option<ValueId>| v.map(|v| pairs.get(&v).copied().unwrap_or(v));
        let inputs: Vec<_> = node.inputs.iter().map(now).collect();
        let others = seen.entry((node.op.name, inputs)).or_default();
        let same = |j: &&usize| {
            let other = &g.nodes[**j];
            let covers = |(a, b): (&Option<ValueId>, &Option<ValueId>)| a.is_none() || b.is_some();
            other.attrs == node.attrs
                && other.outputs.len() == node.outputs.len()
                && node.outputs.iter().zip(&other.outputs).all(covers)
        };
        match others.iter().find(same) {
            Some(j) => {
                let both = node.outputs.iter().zip(&g.nodes[*j].outputs);
                pairs.extend(both.filter_map(|(a, b)| Some(((*a)?, (*b)?))));
            }
            None => others.push(i),
        }
    }
    replace(g, &pairs);
    g.nodes.retain(|n| n.outputs.iter().flatten().next().is_none_or(|v| !pairs.contains_key(v)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::graph;

    #[test]
    fn merges_equal_nodes() {
        let mut g = graph(
            "input x: float32[n, 4]
             one = float32[1] [1]
             uno = float32[1] [1]
             a = Add(x, one)
             b = Add(x, uno)
             c = Softmax(a) {axis=0}
             d = Softmax(b) {axis=1}
             e = Softmax(b) {axis=0}
             y = Sub(c, e)
             z = Sub(c, d)
             output y
             output z
             output e",
        );
        common_subexpressions(&mut g);
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n, 4]
a: float32[n, 4] = Add(x, one float32[1] [1])
c: float32[n, 4] = Softmax(a) {axis=0, coerce=0}
d: float32[n, 4] = Softmax(a) {axis=1, coerce=0}
y: float32[n, 4] = Sub(c, c)
z: float32[n, 4] = Sub(c, d)
output y
output z
output e = c
"#);
    }
}
