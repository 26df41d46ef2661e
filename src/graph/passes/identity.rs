//! Removes nodes that give what they take.

use super::edit::{producers, replace, uses};
use crate::graph::infer::control::decided;
use crate::graph::{Graph, Node, ValueId};
use crate::tensor::DType;
use std::collections::HashMap;

/// Lets the readers of Identity, inference-time Dropout, casts to the same type and reshapes to the same shape read what
/// these take, and the readers of a cast of a cast read past casts that lose nothing. An output of the graph stays apart
/// from inputs and constants.
pub fn identities(g: &mut Graph) {
    let made = producers(g);
    let uses = uses(g);
    let is_output = |g: &Graph, v: ValueId| g.outputs.iter().any(|(_, o)| *o == v);
    let mut pairs: HashMap<ValueId, ValueId> = HashMap::new();
    let mut shorter = vec![];
    for (i, node) in g.nodes.iter().enumerate() {
        let (Some(Some(x)), Some(Some(y))) = (node.inputs.first(), node.outputs.first()) else { continue };
        if unchanged(g, node, &uses) {
            let source = std::iter::successors(Some(*x), |v| pairs.get(v).copied()).last().unwrap_or(*x);
            if made.contains_key(&source) || !is_output(g, *y) {
                pairs.insert(*y, *x);
            }
        } else if let Some(from) = past_cast(g, node, &made) {
            shorter.push((i, from));
        }
    }
    for (i, from) in shorter {
        g.nodes[i].inputs[0] = Some(from);
    }
    replace(g, &pairs);
    if !pairs.is_empty() {
        let gone = |v: &Option<ValueId>| v.is_none_or(|v| pairs.contains_key(&v) || !uses.contains_key(&v));
        g.nodes.retain(|n| {
            !n.outputs.first().copied().flatten().is_some_and(|v| pairs.contains_key(&v)) || !n.outputs.iter().all(gone)
        });
    }
}

/// Whether the first output of a node is its first input.
fn unchanged(g: &Graph, node: &Node, uses: &HashMap<ValueId, usize>) -> bool {
    let (Some(Some(x)), Some(Some(y))) = (node.inputs.first(), node.outputs.first()) else { return false };
    let (x, y) = (g.value(*x), g.value(*y));
    let rest_unused = node.outputs[1..].iter().flatten().all(|v| !uses.contains_key(v));
    match node.op.name {
        "Identity" => true,
        "Dropout" => {
            let training = node.inputs.get(2).copied().flatten();
            rest_unused && training.is_none_or(|t| decided(g.value(t).constant.as_ref()) == Some(false))
        }
        "Cast" | "CastLike" => x.dtype == y.dtype && x.dtype.is_some(),
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Expand" => x.shape == y.shape && x.shape.is_some(),
        "Concat" | "Sum" | "Mean" | "Max" | "Min" => node.inputs.len() == 1,
        "Transpose" => {
            let order = node.attrs.ints("perm").ok().flatten();
            order.is_some_and(|p| p.iter().zip(0..).all(|(a, b)| *a == b))
        }
        _ => false,
    }
}

/// The value that a cast may read instead of the cast that it reads, because that one keeps every value as it is.
fn past_cast(g: &Graph, node: &Node, made: &HashMap<ValueId, usize>) -> Option<ValueId> {
    let is_cast = |n: &Node| matches!(n.op.name, "Cast" | "CastLike");
    if !is_cast(node) {
        return None;
    }
    let between = node.inputs.first().copied().flatten()?;
    let first = made.get(&between).map(|i| &g.nodes[*i]).filter(|n| is_cast(n))?;
    let from = first.inputs.first().copied().flatten()?;
    holds(g.value(between).dtype?, g.value(from).dtype?).then_some(from)
}

/// Whether type `wide` has every value of type `narrow`.
fn holds(wide: DType, narrow: DType) -> bool {
    // Bits that a whole number may take, sign aside.
    let bits = |d: DType| match d {
        DType::Bool => 1,
        DType::Float16 => 11,
        DType::BFloat16 => 8,
        DType::Float32 => 24,
        DType::Float64 => 53,
        _ => 8 * d.size() - usize::from(!d.is_unsigned()),
    };
    match (wide, narrow) {
        _ if wide == narrow => true,
        (DType::Bool, _) => false,
        (DType::Float64, _) if narrow.is_float() => true,
        (DType::Float32, DType::Float16 | DType::BFloat16) => true,
        _ if narrow.is_float() => false,
        _ => bits(wide) >= bits(narrow) && (!wide.is_unsigned() || narrow.is_unsigned() || narrow == DType::Bool),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::graph;

    #[test]
    fn knows_what_a_type_holds() {
        use DType::*;
        let cases = [
            (Float32, Float16, true),
            (Float32, BFloat16, true),
            (Float16, BFloat16, false),
            (Float32, Int16, true),
            (Float32, Int32, false),
            (Float64, Uint32, true),
            (Int64, Int32, true),
            (Int64, Uint32, true),
            (Uint64, Int32, false),
            (Int32, Uint32, false),
            (Int32, Float16, false),
            (Uint8, Bool, true),
            (Bool, Uint8, false),
        ];
        for (wide, narrow, want) in cases {
            assert_eq!(holds(wide, narrow), want, "{wide} {narrow}");
        }
    }

    #[test]
    fn removes_identities() {
        let mut g = graph(
            "input x: float16[n, 4]
             target = int64[2] [0, 4]
             a = Identity(x)
             b = Cast(a) {to=1}
             c = Cast(b) {to=10}
             d = Dropout(c)
             e = Reshape(d, target)
             f = Relu(e)
             g = Identity(f)
             h = Identity(x)
             output g
             output h",
        );
        identities(&mut g);
        identities(&mut g);
        insta::assert_snapshot!(g.to_string(), @r#"
input x: float16[n, 4]
b: float32[n, 4] = Cast(x) {round_mode="up", saturate=1, to=1}
f: float16[n, 4] = Relu(x)
h: float16[n, 4] = Identity(x)
output g = f
output h
"#);
    }
}
