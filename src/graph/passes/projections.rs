//! Matrix products of one tensor with several constant matrices become one product: queries, keys and values of attention,
//! or the two halves of a gated layer.

use super::batch_norm::is_constant_of;
use super::edit::{Adder, insert, producers, uses};
use crate::error::Result;
use crate::graph::infer::infer;
use crate::graph::{AttrValue, Graph, ValueId};
use crate::tensor::{DType, known};
use std::collections::BTreeMap;

/// A product, and the addition of a constant row behind it.
struct Product {
    at: usize,
    weight: ValueId,
    /// The result, of the addition where there is one.
    out: ValueId,
    sum: Option<(usize, ValueId)>,
}

/// Joins the products of each tensor. Types must have been inferred, and are afterwards.
pub fn projections(g: &mut Graph) -> Result<()> {
    let mut groups: BTreeMap<(ValueId, DType, bool), Vec<Product>> = BTreeMap::new();
    let made = producers(g);
    let uses = uses(g);
    for at in 0..g.nodes.len() {
        let node = &g.nodes[at];
        let ("MatMul", [Some(x), Some(weight)], [Some(out)]) = (node.op.name, &node.inputs[..], &node.outputs[..])
        else {
            continue;
        };
        let (x, weight, out) = (*x, *weight, *out);
        let Some(dtype) = g.value(weight).dtype else { continue };
        if !is_constant_of(g, weight, |s| s.len() == 2) || g.value(x).shape.as_ref().is_none_or(|s| s.len() < 2) {
            continue;
        }
        let sum = sum_behind(g, out, weight, uses.get(&out) == Some(&1));
        let out = sum.map_or(out, |(s, _)| g.nodes[s].outputs.first().copied().flatten().unwrap_or(out));
        groups.entry((x, dtype, sum.is_some())).or_default().push(Product { at, weight, out, sum });
    }
    let mut added = vec![];
    let mut gone = vec![false; g.nodes.len()];
    for ((x, ..), group) in groups {
        if group.len() < 2 {
            continue;
        }
        let path = g.nodes[group[0].at].name.clone();
        let widths: Option<Vec<i64>> = group.iter().map(|p| width(g, p.weight)).collect();
        let Some(widths) = widths else { continue };
        let outputs: Vec<Option<ValueId>> = group.iter().map(|p| Some(p.out)).collect();
        let place = made.get(&x).map_or(0, |p| p + 1);
        let weights: Vec<ValueId> = group.iter().map(|p| p.weight).collect();
        let rows: Option<Vec<ValueId>> = group.iter().map(|p| p.sum.map(|(_, c)| c)).collect();
        for p in &group {
            gone[p.at] = true;
            if let Some((s, _)) = p.sum {
                gone[s] = true;
            }
        }
        let mut add = Adder::new(g, &path);
        let weight = add.op("Concat", "weights", &weights, &[("axis", AttrValue::Int(1))])?;
        let mut y = add.op("MatMul", "joined", &[x, weight], &[])?;
        if let Some(rows) = rows {
            let row = add.op("Concat", "biases", &rows, &[("axis", AttrValue::Int(0))])?;
            y = add.op("Add", "joined_sum", &[y, row], &[])?;
        }
        let parts = add.ints("parts", &widths)?;
        add.node("Split", "split", &[y, parts], &[("axis", AttrValue::Int(-1))], outputs)?;
        added.push((place, add.nodes));
    }
    if added.is_empty() {
        return Ok(());
    }
    for (node, gone) in g.nodes.iter_mut().zip(gone) {
        if gone {
            node.outputs.clear();
        }
    }
    insert(g, added);
    g.nodes.retain(|n| !n.outputs.is_empty());
    infer(g)
}

/// The columns of a constant matrix.
fn width(g: &Graph, weight: ValueId) -> Option<i64> {
    let shape = known(g.value(weight).shape.as_ref()?)?;
    i64::try_from(*shape.get(1)?).ok()
}

/// The addition of a constant row that alone reads the product `out`: its position and the row.
fn sum_behind(g: &Graph, out: ValueId, weight: ValueId, only_reader: bool) -> Option<(usize, ValueId)> {
    let columns = usize::try_from(width(g, weight)?).ok()?;
    let (at, node) = g.nodes.iter().enumerate().find(|(_, n)| only_reader && n.inputs.contains(&Some(out)))?;
    let ("Add", [Some(a), Some(b)]) = (node.op.name, &node.inputs[..]) else { return None };
    let row = if *a == out { *b } else { *a };
    is_constant_of(g, row, |s| s == [columns]).then_some((at, row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::graph;

    #[test]
    fn joins_products_of_one_tensor() {
        let mut g = graph(
            "input x: float32[b, s, 4]
             wq = float32[4, 4] [1.5]
             wk = float32[4, 4] [2.5]
             wv = float32[4, 2] [3.5]
             bq = float32[4] [1.5]
             bk = float32[4] [2.5]
             bv = float32[2] [3.5]
             x0 = Relu(x)
             q0 = MatMul(x0, wq)
             q = Add(q0, bq)
             k0 = MatMul(x0, wk)
             k = Add(bk, k0)
             v0 = MatMul(x0, wv)
             v = Add(v0, bv)
             alone = MatMul(x0, wq)
             output q
             output k
             output v
             output alone",
        );
        projections(&mut g).unwrap();
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[b, s, 4]
x0: float32[b, s, 4] = Relu(x)
q0:weights: float32[4, 10] = Concat(wq float32[4, 4], wk float32[4, 4], wv float32[4, 2] [3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5]) {axis=1}
q0:joined: float32[b, s, 10] = MatMul(x0, q0:weights)
q0:biases: float32[10] = Concat(bq float32[4] [1.5, 1.5, 1.5, 1.5], bk float32[4] [2.5, 2.5, 2.5, 2.5], bv float32[2] [3.5, 3.5]) {axis=0}
q0:joined_sum: float32[b, s, 10] = Add(q0:joined, q0:biases)
q: float32[b, s, 4], k: float32[b, s, 4], v: float32[b, s, 2] = Split(q0:joined_sum, q0:parts int64[3] [4, 4, 2]) {axis=-1}
alone: float32[b, s, 4] = MatMul(x0, wq float32[4, 4])
output q
output k
output v
output alone
"#);
    }
}
