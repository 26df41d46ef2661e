//! A constant that is added to each channel of a convolution becomes its bias.

use super::batch_norm::is_constant_of;
use super::edit::{Adder, insert, producers, uses};
use crate::error::Result;
use crate::graph::infer::infer;
use crate::graph::{Graph, Node, ValueId};
use std::collections::HashMap;

/// Moves additions behind Conv and ConvTranspose into them. Types must have been inferred, and are afterwards.
pub fn bias(g: &mut Graph) -> Result<()> {
    let made = producers(g);
    let uses = uses(g);
    let mut added = vec![];
    let mut removed = vec![];
    for i in 0..g.nodes.len() {
        let Some((p, constant)) = matches(g, &g.nodes[i], &made, &uses) else { continue };
        let name = g.nodes[i].name.clone();
        let old = g.nodes[p].inputs.get(2).copied().flatten();
        let mut add = Adder::new(g, &name);
        let flat = add.ints("flat", &[-1])?;
        let mut bias = add.op("Reshape", "bias", &[constant, flat], &[])?;
        if let Some(old) = old {
            bias = add.op("Add", "sum", &[old, bias], &[])?;
        }
        let new = add.nodes;
        let out = g.nodes[i].outputs.clone();
        let product = &mut g.nodes[p];
        product.inputs.resize(3, None);
        product.inputs[2] = Some(bias);
        product.outputs = out;
        added.push((p, new));
        removed.push(i);
        g.nodes[i].outputs.clear();
    }
    if removed.is_empty() {
        return Ok(());
    }
    insert(g, added);
    g.nodes.retain(|n| n.op.name != "Add" || !n.outputs.is_empty());
    infer(g)
}

/// The convolution that the addition `node` can go into, and the constant that it adds.
fn matches(
    g: &Graph,
    node: &Node,
    made: &HashMap<ValueId, usize>,
    uses: &HashMap<ValueId, usize>,
) -> Option<(usize, ValueId)> {
    let ("Add", [Some(a), Some(b)]) = (node.op.name, &node.inputs[..]) else { return None };
    [(*a, *b), (*b, *a)].into_iter().find_map(|(x, c)| {
        let p = *made.get(&x).filter(|_| uses.get(&x) == Some(&1))?;
        let product = &g.nodes[p];
        // A convolution that already took an addition computes another value now.
        let own = matches!(product.op.name, "Conv" | "ConvTranspose") && product.outputs.first() == Some(&Some(x));
        let shape = g.value(x).shape.as_ref()?;
        let channels = usize::try_from(shape.get(1)?.known()?).ok()?;
        let per_channel = |s: &[usize]| {
            let channel = s.len().checked_sub(shape.len() - 1);
            let rest = s.iter().enumerate().all(|(i, d)| *d == 1 || Some(i) == channel);
            s.len() <= shape.len() && rest && channel.is_some_and(|i| s[i] == channels)
        };
        let known_bias = product.inputs.get(2).copied().flatten().is_none_or(|b| is_constant_of(g, b, |_| true));
        (own && known_bias && is_constant_of(g, c, per_channel)).then_some((p, c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::graph;

    #[test]
    fn takes_a_constant_for_each_channel() {
        let mut g = graph(
            "input x: float32[n, 3, 8, 8]
             w = float32[4, 3, 1, 1] [1]
             c = float32[4, 1, 1] [1, 2, 3, 4]
             row = float32[8] [1]
             a = Conv(x, w)
             b = Add(c, a)
             d = Conv(x, w)
             e = Add(d, row)
             output b
             output e",
        );
        bias(&mut g).unwrap();
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n, 3, 8, 8]
b:bias: float32[4] = [1, 2, 3, 4] = Reshape(c float32[4, 1, 1] [1, 2, 3, 4], b:flat int64[1] [-1]) {allowzero=0}
b: float32[n, 4, 8, 8] = Conv(x, w float32[4, 3, 1, 1], b:bias) {auto_pad="NOTSET", group=1}
d: float32[n, 4, 8, 8] = Conv(x, w float32[4, 3, 1, 1]) {auto_pad="NOTSET", group=1}
e: float32[n, 4, 8, 8] = Add(d, row float32[8] [1, 1, 1, 1, 1, 1, 1, 1])
output b
output e
"#);
    }
}
