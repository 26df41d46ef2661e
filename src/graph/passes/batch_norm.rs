//! BatchNormalization behind a convolution or matrix product with constant weights goes into the weights.
//!
//! With s = scale / √(variance + ε), normalizing W·x + b gives (s·W)·x + ((b − mean)·s + bias). The new weights are written
//! as nodes over constants, which constant folding computes. Where there is no such product, x·s + (bias − mean·s) is left.

use super::edit::{Adder, insert, producers, uses};
use crate::error::Result;
use crate::graph::infer::infer;
use crate::graph::{AttrValue, Graph, Node, ValueId};
use crate::tensor::{DType, known as known_shape};
use std::collections::HashMap;

/// Folds normalizations into Conv, ConvTranspose and Gemm, and makes others a product and a sum with constants. Types must
/// have been inferred, and are afterwards.
pub fn batch_norm(g: &mut Graph) -> Result<()> {
    let made = producers(g);
    let uses = uses(g);
    let mut added = vec![];
    let mut removed = vec![];
    for i in 0..g.nodes.len() {
        if !known(g, &g.nodes[i]) {
            continue;
        }
        match matches(g, &g.nodes[i], &made, &uses) {
            Some(p) => added.push((p, rewrite(g, p, i)?)),
            None => added.push((i, alone(g, i)?)),
        }
        removed.push(i);
    }
    if removed.is_empty() {
        return Ok(());
    }
    // The product computes what the normalization did.
    for i in &removed {
        g.nodes[*i].inputs.clear();
        g.nodes[*i].outputs.clear();
    }
    insert(g, added);
    g.nodes.retain(|n| n.op.name != "BatchNormalization" || !n.outputs.is_empty());
    infer(g)
}

fn constant(g: &Graph, v: Option<&Option<ValueId>>) -> bool {
    v.copied().flatten().is_some_and(|v| g.value(v).constant.is_some())
}

/// Whether a node is a normalization by known numbers of one type.
fn known(g: &Graph, node: &Node) -> bool {
    let inference = node.attrs.flag("training_mode").is_ok_and(|t| !t);
    let first_only = node.outputs.iter().skip(1).all(Option::is_none);
    let dtype = |i: usize| node.inputs.get(i).copied().flatten().and_then(|v| g.value(v).dtype);
    node.op.name == "BatchNormalization"
        && inference
        && first_only
        && (1..5).all(|i| constant(g, node.inputs.get(i)) && dtype(i) == dtype(0))
}

/// The position of the product that the normalization `node` can go into.
fn matches(g: &Graph, node: &Node, made: &HashMap<ValueId, usize>, uses: &HashMap<ValueId, usize>) -> Option<usize> {
    let x = node.inputs.first().copied().flatten().filter(|x| uses.get(x) == Some(&1))?;
    let product = *made.get(&x)?;
    let p = &g.nodes[product];
    let dtype = |n: &Node, i: usize| n.inputs.get(i).copied().flatten().and_then(|v| g.value(v).dtype);
    if dtype(node, 1) != dtype(p, 1) {
        return None;
    }
    let bias_known = p.inputs.get(2).is_none_or(|b| b.is_none() || constant(g, Some(b)));
    if !constant(g, p.inputs.get(1)) || !bias_known {
        return None;
    }
    let fits = match p.op.name {
        "Conv" => true,
        // With groups the weights hold the channels of all groups in two axes.
        "ConvTranspose" => p.attrs.int("group") == Ok(1),
        "Gemm" => match p.inputs.get(2).copied().flatten() {
            None => true,
            Some(c) => g.value(c).shape.as_ref().is_some_and(|s| s.len() <= 1),
        },
        _ => false,
    };
    fits.then_some(product)
}

/// Rewrites the product at `p` to compute what the normalization at `n` gives. Returns the nodes of its new weights.
fn rewrite(g: &mut Graph, p: usize, n: usize) -> Result<Vec<Node>> {
    let (product, norm) = (g.nodes[p].clone(), g.nodes[n].clone());
    let input = |node: &Node, i: usize| node.inputs.get(i).copied().flatten();
    let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|i| input(&norm, i));
    let (Some(scale), Some(bias), Some(mean), Some(variance), Some(weight)) =
        (scale, bias, mean, variance, input(&product, 1))
    else {
        return Ok(vec![]);
    };
    let dtype = g.value(variance).dtype.unwrap_or(DType::Float32);
    let rank = g.value(weight).shape.as_ref().map_or(0, Vec::len);
    // The axis of the weights that counts the channels of the result.
    let axis = match product.op.name {
        "Conv" => 0,
        "Gemm" => usize::from(!product.attrs.flag("transB")?),
        _ => 1,
    };
    let mut column = vec![1i64; rank];
    column[axis] = -1;
    let epsilon = norm.attrs.float("epsilon")?;
    let beta = if product.op.name == "Gemm" { product.attrs.float("beta")? } else { 1.0 };
    let mut add = Adder::new(g, &norm.name);
    let factor = factor(&mut add, dtype, epsilon, scale, variance)?;
    let column = add.ints("column", &column)?;
    let factors = add.op("Reshape", "factors", &[factor, column], &[])?;
    let weights = add.op("Mul", "weight", &[weight, factors], &[])?;
    let offset = match input(&product, 2) {
        Some(b) if beta == 1.0 => add.op("Sub", "offset", &[b, mean], &[])?,
        Some(b) => {
            let beta = add.scalar("beta", dtype, f64::from(beta))?;
            let b = add.op("Mul", "scaled_bias", &[b, beta], &[])?;
            add.op("Sub", "offset", &[b, mean], &[])?
        }
        None => add.op("Neg", "offset", &[mean], &[])?,
    };
    let scaled = add.op("Mul", "scaled_offset", &[offset, factor], &[])?;
    let biases = add.op("Add", "bias", &[scaled, bias], &[])?;
    let nodes = add.nodes;
    let product = &mut g.nodes[p];
    product.inputs = vec![product.inputs[0], Some(weights), Some(biases)];
    product.outputs = vec![norm.outputs.first().copied().flatten()];
    if product.op.name == "Gemm" {
        product.attrs.0.insert("beta", AttrValue::Float(1.0));
    }
    Ok(nodes)
}

/// Rewrites the normalization at `n` as a product and a sum. Returns its nodes.
fn alone(g: &mut Graph, n: usize) -> Result<Vec<Node>> {
    let norm = g.nodes[n].clone();
    let inputs: Vec<ValueId> = norm.inputs.iter().flatten().copied().collect();
    let [x, scale, bias, mean, variance] = inputs[..] else { return Ok(vec![]) };
    let dtype = g.value(variance).dtype.unwrap_or(DType::Float32);
    let rank = g.value(x).shape.as_ref().map_or(2, Vec::len);
    let column: Vec<i64> = std::iter::once(-1).chain(std::iter::repeat_n(1, rank.saturating_sub(2))).collect();
    let epsilon = norm.attrs.float("epsilon")?;
    let mut add = Adder::new(g, &norm.name);
    let factor = factor(&mut add, dtype, epsilon, scale, variance)?;
    let shift = add.op("Mul", "shift", &[mean, factor], &[])?;
    let offset = add.op("Sub", "offset", &[bias, shift], &[])?;
    let column = add.ints("column", &column)?;
    let factors = add.op("Reshape", "factors", &[factor, column], &[])?;
    let offsets = add.op("Reshape", "offsets", &[offset, column], &[])?;
    let scaled = add.op("Mul", "scaled", &[x, factors], &[])?;
    add.node("Add", "shifted", &[scaled, offsets], &[], norm.outputs.clone())?;
    Ok(add.nodes)
}

/// scale / √(variance + ε)
fn factor(add: &mut Adder<'_>, dtype: DType, epsilon: f32, scale: ValueId, variance: ValueId) -> Result<ValueId> {
    let epsilon = add.scalar("epsilon", dtype, f64::from(epsilon))?;
    let spread = add.op("Add", "variance_epsilon", &[variance, epsilon], &[])?;
    let deviation = add.op("Sqrt", "deviation", &[spread], &[])?;
    add.op("Div", "factor", &[scale, deviation], &[])
}

/// Whether a value is a constant of that shape.
pub(super) fn is_constant_of(g: &Graph, v: ValueId, fits: impl Fn(&[usize]) -> bool) -> bool {
    let value = g.value(v);
    value.constant.is_some() && value.shape.as_deref().and_then(known_shape).is_some_and(|s| fits(&s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::graph;

    #[test]
    fn goes_into_the_weights() {
        let mut g = graph(
            "input x: float32[n, 3, 8, 8]
             w = float32[4, 3, 1, 1] [1]
             s = float32[4] [1, 2, 3, 4]
             b = float32[4] [5, 6, 7, 8]
             c = Conv(x, w)
             y = BatchNormalization(c, s, b, s, s)
             z = Relu(y)
             output z",
        );
        batch_norm(&mut g).unwrap();
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n, 3, 8, 8]
y:variance_epsilon: float32[4] = Add(s float32[4] [1, 2, 3, 4], y:epsilon float32[] [0.000009999999747378752])
y:deviation: float32[4] = Sqrt(y:variance_epsilon)
y:factor: float32[4] = Div(s float32[4] [1, 2, 3, 4], y:deviation)
y:factors: float32[4, 1, 1, 1] = Reshape(y:factor, y:column int64[4] [-1, 1, 1, 1]) {allowzero=0}
y:weight: float32[4, 3, 1, 1] = Mul(w float32[4, 3, 1, 1], y:factors)
y:offset: float32[4] = Neg(s float32[4] [1, 2, 3, 4])
y:scaled_offset: float32[4] = Mul(y:offset, y:factor)
y:bias: float32[4] = Add(y:scaled_offset, b float32[4] [5, 6, 7, 8])
y: float32[n, 4, 8, 8] = Conv(x, y:weight, y:bias) {auto_pad="NOTSET", group=1}
z: float32[n, 4, 8, 8] = Relu(y)
output z
"#);
    }

    #[test]
    fn stays_behind_a_product_that_is_read_elsewhere() {
        let text = "input x: float32[n, 3, 8, 8]
             w = float32[4, 3, 1, 1] [1]
             s = float32[4] [1, 2, 3, 4]
             c = Conv(x, w)
             y = BatchNormalization(c, s, s, s, s)
             output y
             output c";
        let mut g = graph(text);
        batch_norm(&mut g).unwrap();
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n, 3, 8, 8]
c: float32[n, 4, 8, 8] = Conv(x, w float32[4, 3, 1, 1]) {auto_pad="NOTSET", group=1}
y:variance_epsilon: float32[4] = Add(s float32[4] [1, 2, 3, 4], y:epsilon float32[] [0.000009999999747378752])
y:deviation: float32[4] = Sqrt(y:variance_epsilon)
y:factor: float32[4] = Div(s float32[4] [1, 2, 3, 4], y:deviation)
y:shift: float32[4] = Mul(s float32[4] [1, 2, 3, 4], y:factor)
y:offset: float32[4] = Sub(s float32[4] [1, 2, 3, 4], y:shift)
y:factors: float32[4, 1, 1] = Reshape(y:factor, y:column int64[3] [-1, 1, 1]) {allowzero=0}
y:offsets: float32[4, 1, 1] = Reshape(y:offset, y:column int64[3] [-1, 1, 1]) {allowzero=0}
y:scaled: float32[n, 4, 8, 8] = Mul(c, y:factors)
y: float32[n, 4, 8, 8] = Add(y:scaled, y:offsets)
output y
output c
"#);
    }
}
