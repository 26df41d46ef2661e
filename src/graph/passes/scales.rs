//! Products with dequantized weights multiply by the integers and scale what comes out: with w = (q − z)·s for each output
//! channel, Σ x·w is s·Σ x·(q − z). Integers of 8 bits stay as small in the weight packs as they are in the model, nothing is
//! dequantized in a run, and the scale goes into the product's kernel with whatever follows.

use super::edit::{Adder, insert, producers};
use crate::error::Result;
use crate::graph::infer::infer;
use crate::graph::ops::quantize::{Grain, centred, grain};
use crate::graph::{Graph, Node, ValueId};
use crate::tensor::{Array, DType, Dim};
use std::collections::HashMap;

/// Takes scales out of the constant weights of Conv, MatMul and Gemm. Types must have been inferred, and are afterwards.
pub fn scales(g: &mut Graph) -> Result<()> {
    let made = producers(g);
    let mut added = vec![];
    let mut integers: HashMap<ValueId, ValueId> = HashMap::new();
    for p in 0..g.nodes.len() {
        let Some(found) = matches(g, &g.nodes[p], &made) else { continue };
        let weight = match integers.get(&found.weight) {
            Some(v) => *v,
            None => {
                let path = g.value(found.weight).name.clone();
                let v = Adder::new(g, &path).constant("integers", found.integers);
                integers.insert(found.weight, v);
                v
            }
        };
        let node = &mut g.nodes[p];
        let (name, bias) = (node.name.clone(), node.inputs.get(2).copied().flatten());
        let out = std::mem::take(&mut node.outputs);
        node.inputs.truncate(2);
        node.inputs[1] = Some(weight);
        let mut add = Adder::new(g, &name);
        let sum = add.value("sum");
        let scale = add.constant("scale", found.scale);
        let nodes = match bias {
            None => {
                add.node("Mul", "scaled", &[sum, scale], &[], out)?;
                add.nodes
            }
            Some(bias) => {
                let scaled = add.op("Mul", "scaled", &[sum, scale], &[])?;
                let bias = match &found.column {
                    None => bias,
                    Some(column) => {
                        let column = add.ints("column", column)?;
                        add.op("Reshape", "bias", &[bias, column], &[])?
                    }
                };
                add.node("Add", "biased", &[scaled, bias], &[], out)?;
                add.nodes
            }
        };
        g.nodes[p].outputs = vec![Some(sum)];
        added.push((p + 1, nodes));
    }
    if added.is_empty() {
        return Ok(());
    }
    insert(g, added);
    infer(g)
}

/// A product whose weights can do without their scale.
struct Found {
    /// The dequantized weights.
    weight: ValueId,
    /// The weights less their zero points.
    integers: Array,
    /// As the result is multiplied by it.
    scale: Array,
    /// The shape in which a bias is added, where that is not its own.
    column: Option<Vec<i64>>,
}

fn matches(g: &Graph, node: &Node, made: &HashMap<ValueId, usize>) -> Option<Found> {
    let weight = node.inputs.get(1).copied().flatten()?;
    let rank = g.value(weight).shape.as_ref()?.len();
    // The axis of the weights that counts the channels of the result, and how many axes follow those in the result.
    let (channel, behind) = match node.op.name {
        "Conv" => (0, rank - 2),
        "MatMul" if rank == 2 => (1, 0),
        "Gemm" if node.attrs.float("alpha").ok()? == 1.0 && node.attrs.float("beta").ok()? == 1.0 => {
            (usize::from(!node.attrs.flag("transB").ok()?), 0)
        }
        _ => return None,
    };
    let d = g.nodes.get(*made.get(&weight)?).filter(|d| d.op.name == "DequantizeLinear")?;
    let input = |i: usize| d.inputs.get(i).copied().flatten();
    let constant = |v: ValueId| g.value(v).constant.as_ref();
    let q = constant(input(0)?).filter(|a| matches!(a.dtype(), DType::Int8 | DType::Uint8))?;
    let scale = constant(input(1)?).filter(|a| a.dtype() == DType::Float32)?;
    let zeros = match input(2) {
        Some(z) => constant(z)?.to_i64()?,
        None => vec![0],
    };
    if g.value(weight).dtype != Some(DType::Float32) {
        return None;
    }
    let dims = |a: &Array| a.shape().iter().map(|n| Dim::from(*n)).collect::<Vec<_>>();
    let per_channel = match grain(&dims(q), &dims(scale), &d.attrs).ok()? {
        Grain::Tensor => false,
        Grain::Axis(axis) if axis == channel => true,
        Grain::Axis(_) | Grain::Block(..) => return None,
    };
    let channels = q.shape()[channel];
    let integers: Vec<f32> = centred(q, &zeros, channel)?.iter().map(|x| *x as f32).collect();
    let column = std::iter::once(channels).chain(std::iter::repeat_n(1, behind));
    let shape = if per_channel { column.clone().collect() } else { vec![] };
    Some(Found {
        weight,
        integers: Array::from_f32(q.shape().to_vec(), &integers).ok()?,
        scale: scale.reshaped(shape).ok()?,
        column: (behind > 0).then(|| column.map(|n| n as i64).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::graph;

    #[test]
    fn go_behind_the_product() {
        let mut g = graph(
            "input x: float32[n, 2, 8, 8]
             q = int8[3, 2, 1, 1] [1, -2, 3, -4, 5, -6]
             s = float32[3] [0.5, 0.25, 2]
             z = int8[3] [0, 1, 2]
             b = float32[3] [1, 2, 3]
             w = DequantizeLinear(q, s, z) {axis=0}
             y = Conv(x, w, b)
             output y",
        );
        scales(&mut g).unwrap();
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n, 2, 8, 8]
w: float32[3, 2, 1, 1] = DequantizeLinear(q int8[3, 2, 1, 1] [1, -2, 3, -4, 5, -6], s float32[3] [0.5, 0.25, 2], z int8[3] [0, 1, 2]) {axis=0, block_size=0, output_dtype=0}
y:sum: float32[n, 3, 8, 8] = Conv(x, w:integers float32[3, 2, 1, 1] [1, -2, 2, -5, 3, -8]) {auto_pad="NOTSET", group=1}
y:scaled: float32[n, 3, 8, 8] = Mul(y:sum, y:scale float32[3, 1, 1] [0.5, 0.25, 2])
y:bias: float32[3, 1, 1] = Reshape(b float32[3] [1, 2, 3], y:column int64[3] [3, 1, 1]) {allowzero=0}
y: float32[n, 3, 8, 8] = Add(y:scaled, y:bias)
output y
"#);
    }

    #[test]
    fn of_rows_of_a_matrix_stay() {
        let text = "input x: float32[n, 2]
             q = int8[2, 3] [1, -2, 3, -4, 5, -6]
             s = float32[2] [0.5, 0.25]
             w = DequantizeLinear(q, s) {axis=0}
             y = MatMul(x, w)
             output y";
        let mut g = graph(text);
        scales(&mut g).unwrap();
        assert_eq!(g.to_string(), graph(text).to_string());
    }
}
