//! Graphs for tests, from text in the form that [`super::show`] prints:
//!
//! ```text
//! input x: float32[b, 3]
//! w = float32[3] [1, 2, 3]
//! y = Mul(x, w)
//! z = Softmax(y) {axis=1}
//! output z
//! ```

use super::{AttrValue, Attrs, Graph, Node, Value, ValueId, infer, ops};
use crate::tensor::{Array, DType, Dim, Shape};

/// The graph of that text, with inferred types.
pub(crate) fn graph(text: &str) -> Graph {
    let mut g = untyped(text);
    infer::infer(&mut g).unwrap_or_else(|e| panic!("{e}"));
    g
}

/// The graph of that text, with the types of its inputs only.
pub(crate) fn untyped(text: &str) -> Graph {
    let mut g = Graph::default();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if let Some(input) = line.strip_prefix("input ") {
            let (name, ty) = input.split_once(": ").expect("input NAME: TYPE");
            let (dtype, shape) = parse_type(ty);
            let v = value(&mut g, name);
            (g.value_mut(v).dtype, g.value_mut(v).shape) = (Some(dtype), Some(shape));
            g.inputs.push(v);
        } else if let Some(output) = line.strip_prefix("output ") {
            let (name, from) = output.split_once(" = ").unwrap_or((output, output));
            let v = value(&mut g, from);
            g.outputs.push((name.to_owned(), v));
        } else {
            let (left, right) = line.split_once(" = ").expect("NAME = …");
            if right.find('[') < right.find('(').or(Some(usize::MAX)) && right.contains('[') {
                let v = value(&mut g, left);
                let array = parse_constant(right);
                let shape = array.shape().iter().map(|n| Dim::from(*n)).collect();
                let made = g.value_mut(v);
                (made.dtype, made.shape, made.constant) = (Some(array.dtype()), Some(shape), Some(array));
            } else {
                let node = parse_node(&mut g, left, right);
                g.nodes.push(node);
            }
        }
    }
    g
}

fn value(g: &mut Graph, name: &str) -> ValueId {
    if let Some(i) = g.values.iter().position(|v| v.name == name) {
        return ValueId(i as u32);
    }
    g.add_value(Value { name: name.to_owned(), ..Value::default() })
}

/// `float32[b, 3]`.
fn parse_type(text: &str) -> (DType, Shape) {
    let (dtype, shape) = text.trim().split_once('[').expect("TYPE[…]");
    let dims = list(shape.trim_end_matches(']'));
    let dim = |d: &String| d.parse::<i64>().map_or_else(|_| Dim::sym(d), Dim::from);
    (DType::from_name(dtype).expect("a data type"), dims.iter().map(dim).collect())
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
}

/// `float32[2] [1, 2.5]`; one element stands for all.
fn parse_constant(text: &str) -> Array {
    let (ty, data) = text.split_once("] [").expect("TYPE[…] [DATA]");
    let (dtype, shape) = parse_type(&format!("{ty}]"));
    let shape = crate::tensor::known(&shape).expect("whole dims");
    let mut data: Vec<f64> = list(data.trim_end_matches(']')).iter().map(|x| x.parse().expect("a number")).collect();
    if let [x] = data[..] {
        data = vec![x; shape.iter().product()];
    }
    let bytes: Vec<u8> = data
        .iter()
        .flat_map(|x| match dtype {
            DType::Float32 => (*x as f32).to_le_bytes().to_vec(),
            DType::Float64 => x.to_le_bytes().to_vec(),
            DType::Float16 => half::f16::from_f64(*x).to_le_bytes().to_vec(),
            DType::BFloat16 => half::bf16::from_f64(*x).to_le_bytes().to_vec(),
            _ => (*x as i64).to_le_bytes()[..dtype.size()].to_vec(),
        })
        .collect();
    Array::new(dtype, shape, bytes).expect("as many elements as the shape says")
}

/// `Op(a, _, b) {axis=1}`.
fn parse_node(g: &mut Graph, left: &str, right: &str) -> Node {
    let (name, rest) = right.split_once('(').expect("OP(…)");
    let (inputs, attrs) = rest.split_once(')').expect("OP(…)");
    let op = ops::find(name).unwrap_or_else(|| panic!("no operator {name}"));
    let mut given = Attrs::defaults(op);
    // Lists have commas of their own.
    let inner = attrs.trim().trim_start_matches('{').trim_end_matches('}');
    for part in inner.split(", ").fold(Vec::<String>::new(), |mut all, part| {
        match all.last_mut().filter(|_| !part.contains('=')) {
            Some(last) => *last = format!("{last}, {part}"),
            None => all.push(part.to_owned()),
        }
        all
    }) {
        let Some((key, text)) = part.split_once('=') else { continue };
        let declared = op.attrs.iter().find(|a| a.name == key).unwrap_or_else(|| panic!("{name} has no {key}"));
        given.0.insert(declared.name, parse_attr(text));
    }
    let mut id = |n: &String| (n != "_").then(|| value(g, n));
    let inputs = list(inputs).iter().map(&mut id).collect();
    let outputs: Vec<Option<ValueId>> = list(left).iter().map(&mut id).collect();
    Node { op, name: left.split(',').next().unwrap_or(left).into(), attrs: given, inputs, outputs, bodies: vec![] }
}

fn parse_attr(text: &str) -> AttrValue {
    if let Some(s) = text.strip_prefix('"') {
        return AttrValue::Str(s.trim_end_matches('"').to_owned());
    }
    if let Some(inner) = text.strip_prefix('[') {
        let parts = list(inner.trim_end_matches(']'));
        let ints = parts.iter().map(|p| p.parse()).collect::<Result<Vec<i64>, _>>();
        return match ints {
            Ok(v) => AttrValue::Ints(v),
            Err(_) => AttrValue::Floats(parts.iter().map(|p| p.parse().expect("a number")).collect()),
        };
    }
    match (text.parse(), text.parse()) {
        (Ok(n), _) => AttrValue::Int(n),
        (_, Ok(x)) => AttrValue::Float(x),
        _ => AttrValue::Tensor(parse_constant(text)),
    }
}
