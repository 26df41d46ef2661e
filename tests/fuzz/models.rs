//! Small valid models, and models of one operator with anything for inputs and attributes.

use nearside::graph::attrs::Default as Declared;
use nearside::graph::ops::{self, Op};
use nearside::onnx::proto::{
    AttributeProto, AttributeType, DimensionProto, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, SparseTensorProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto,
};
use prost::Message;

use crate::mutate::{EDGES, Random};

/// Names that mean something in a model.
pub(crate) const WORDS: &[&[u8]] = &[
    b"Conv",
    b"Gemm",
    b"Reshape",
    b"Slice",
    b"Pad",
    b"If",
    b"Loop",
    b"Constant",
    b"Gather",
    b"Split",
    b"Range",
    b"Tile",
    b"axis",
    b"axes",
    b"perm",
    b"pads",
    b"group",
    b"kernel_shape",
    b"strides",
    b"shape",
    b"ai.onnx.ml",
    b"local",
];

fn tensor_type(dtype: i32, shape: &[Option<i64>]) -> Option<TypeProto> {
    let dim = |(axis, n): (usize, &Option<i64>)| DimensionProto {
        dim_value: *n,
        dim_param: n.is_none().then(|| format!("d{axis}")),
    };
    let shape = TensorShapeProto { dim: shape.iter().enumerate().map(dim).collect() };
    let tensor_type = Some(TensorTypeProto { elem_type: dtype, shape: Some(shape) });
    Some(TypeProto { tensor_type, ..TypeProto::default() })
}

fn value(name: &str, dtype: i32, shape: &[Option<i64>]) -> ValueInfoProto {
    ValueInfoProto { name: name.into(), r#type: tensor_type(dtype, shape) }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: format!("{op}/{}", outputs.first().unwrap_or(&"")),
        input: inputs.iter().map(|s| (*s).into()).collect(),
        output: outputs.iter().map(|s| (*s).into()).collect(),
        attribute,
        ..NodeProto::default()
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind as i32, ..AttributeProto::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..attribute(name, AttributeType::Int) }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { ints: ints.to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(graph)), ..attribute(name, AttributeType::Graph) }
}

fn floats(name: &str, dims: &[i64]) -> TensorProto {
    let count = usize::try_from(dims.iter().product::<i64>()).unwrap();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        float_data: vec![0.5; count],
        ..Default::default()
    }
}

fn longs(name: &str, data: &[i64]) -> TensorProto {
    let raw = data.iter().flat_map(|n| n.to_le_bytes()).collect();
    TensorProto {
        name: name.into(),
        dims: vec![data.len() as i64],
        data_type: 7,
        raw_data: Some(raw),
        ..TensorProto::default()
    }
}

fn model(graph: GraphProto, opset: i64) -> Vec<u8> {
    let import = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    let function = FunctionProto {
        name: "Twice".into(),
        domain: "local".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["by".into()],
        node: vec![node("Add", &["a", "a"], &["s"], vec![]), node("Neg", &["s"], &["b"], vec![])],
        opset_import: vec![import("", opset)],
        ..FunctionProto::default()
    };
    let model = ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![import("", opset), import("local", 1)],
        functions: vec![function],
        metadata_props: vec![StringStringEntryProto { key: "author".into(), value: "x".into() }],
    };
    model.encode_to_vec()
}

/// An image network: convolution, pooling, a computed shape.
fn image() -> Vec<u8> {
    let conv = vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1]), int("group", 1)];
    let pool = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    let graph = GraphProto {
        name: "image".into(),
        node: vec![
            node("Conv", &["x", "w", "b"], &["c"], conv),
            node("Relu", &["c"], &["r"], vec![]),
            node("MaxPool", &["r"], &["p"], pool),
            node("Shape", &["p"], &["s"], vec![]),
            node("Slice", &["s", "zero", "one"], &["n"], vec![]),
            node("Concat", &["n", "rest"], &["to"], vec![int("axis", 0)]),
            node("Reshape", &["p", "to"], &["flat"], vec![]),
            node("Softmax", &["flat"], &["y"], vec![int("axis", -1)]),
        ],
        initializer: vec![
            floats("w", &[2, 3, 3, 3]),
            floats("b", &[2]),
            longs("zero", &[0]),
            longs("one", &[1]),
            longs("rest", &[-1]),
        ],
        input: vec![value("x", 1, &[None, Some(3), Some(8), Some(8)])],
        output: vec![value("y", 1, &[None, None])],
        value_info: vec![value("r", 1, &[None, Some(2), Some(8), Some(8)])],
        sparse_initializer: vec![],
    };
    model(graph, 13)
}

/// Bodies, a function, sparse data.
fn control() -> Vec<u8> {
    let branch = |op: &str, out: &str| GraphProto {
        name: out.into(),
        node: vec![node(op, &["x"], &[out], vec![])],
        output: vec![value(out, 1, &[Some(2), Some(3)])],
        ..GraphProto::default()
    };
    let looped = GraphProto {
        name: "body".into(),
        node: vec![
            node("Identity", &["go"], &["go_on"], vec![]),
            node("Add", &["state", "x"], &["next"], vec![]),
            node("Exp", &["next"], &["each"], vec![]),
        ],
        input: vec![value("i", 7, &[]), value("go", 9, &[]), value("state", 1, &[Some(2), Some(3)])],
        output: vec![
            value("go_on", 9, &[]),
            value("next", 1, &[Some(2), Some(3)]),
            value("each", 1, &[Some(2), Some(3)]),
        ],
        ..GraphProto::default()
    };
    let twice = NodeProto { domain: "local".into(), ..node("Twice", &["x"], &["t"], vec![int("by", 2)]) };
    let bodies = vec![body("then_branch", branch("Neg", "yes")), body("else_branch", branch("Abs", "no"))];
    let indices = TensorProto { dims: vec![2], ..longs("", &[0, 4]) };
    let graph = GraphProto {
        name: "control".into(),
        node: vec![
            twice,
            node("If", &["which"], &["chosen"], bodies),
            node("Loop", &["times", "", "x"], &["last", "all"], vec![body("body", looped)]),
            node("Add", &["chosen", "sparse"], &["y"], vec![]),
            node("Mul", &["y", "t"], &["z"], vec![]),
        ],
        initializer: vec![TensorProto { dims: vec![], ..longs("times", &[3]) }],
        input: vec![value("x", 1, &[Some(2), Some(3)]), value("which", 9, &[])],
        output: vec![value("z", 1, &[Some(2), Some(3)]), value("all", 1, &[None, Some(2), Some(3)])],
        sparse_initializer: vec![SparseTensorProto {
            values: Some(floats("sparse", &[2])),
            indices: Some(indices),
            dims: vec![2, 3],
        }],
        value_info: vec![],
    };
    model(graph, 17)
}

/// Shape arithmetic and movement, in an old opset with attributes that became inputs.
fn movement() -> Vec<u8> {
    let graph = GraphProto {
        name: "movement".into(),
        node: vec![
            node("Transpose", &["x"], &["t"], vec![ints("perm", &[1, 0, 2])]),
            node("Slice", &["t"], &["s"], vec![ints("axes", &[0]), ints("starts", &[-3]), ints("ends", &[i64::MAX])]),
            node("Pad", &["s"], &["p"], vec![ints("pads", &[0, 1, 0, 0, 1, 0])]),
            node("Squeeze", &["p"], &["q"], vec![ints("axes", &[2])]),
            node("Split", &["q"], &["a", "b"], vec![int("axis", 0), ints("split", &[1, 2])]),
            node("ReduceSum", &["b"], &["r"], vec![ints("axes", &[0]), int("keepdims", 0)]),
            node("Tile", &["r", "times"], &["y"], vec![]),
        ],
        initializer: vec![longs("times", &[2])],
        input: vec![value("x", 1, &[Some(2), Some(4), Some(1)])],
        output: vec![value("y", 1, &[None]), value("a", 1, &[None, None])],
        ..GraphProto::default()
    };
    model(graph, 9)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![image(), control(), movement()]
}

/// A dim: mostly small, sometimes symbolic or at an edge.
fn dim(random: &mut Random) -> Option<i64> {
    match random.below(12) {
        0 => None,
        1 => Some(*random.pick(EDGES)),
        2 => Some(0),
        _ => Some(*random.pick(&[1, 2, 3, 4, 6, 8])),
    }
}

/// An integer as an attribute or an element of a small tensor.
fn number(random: &mut Random) -> i64 {
    if random.one_in(4) { *random.pick(EDGES) } else { random.below(7) as i64 - 3 }
}

fn any_attribute(name: &str, declared: Declared, random: &mut Random) -> AttributeProto {
    let texts: &[&[u8]] = &[
        b"NOTSET",
        b"SAME_UPPER",
        b"SAME_LOWER",
        b"VALID",
        b"none",
        b"tanh",
        b"linear",
        b"cubic",
        b"nearest",
        b"bilinear",
        b"reflect",
        b"edge",
        b"wrap",
        b"constant",
        b"DCR",
        b"CRD",
        b"add",
        b"mul",
        b"max",
        b"forward",
        b"reverse",
        b"bidirectional",
        b"LEFT",
        b"RIGHT",
        b"ij,jk->ik",
        b"...i,ij->...j",
        b"ii->i",
        b"a,b,c->",
        b"->",
        b",",
        b"i",
        b"",
    ];
    let list = |random: &mut Random| (0..random.below(7)).map(|_| number(random)).collect::<Vec<_>>();
    let kind = match declared {
        Declared::Int(_) => 0,
        Declared::Float(_) => 1,
        Declared::Str(_) => 2,
        _ => random.below(6),
    };
    match if random.one_in(16) { random.below(6) } else { kind } {
        0 => int(name, number(random)),
        1 => {
            let f = *random.pick(&[0.0, 1.0, -1.0, f32::NAN, f32::INFINITY, 1e-5, f32::MAX]);
            AttributeProto { f: Some(f), ..attribute(name, AttributeType::Float) }
        }
        2 => AttributeProto { s: Some(random.pick(texts).to_vec()), ..attribute(name, AttributeType::String) },
        3 => AttributeProto { t: Some(Box::new(constant("", random))), ..attribute(name, AttributeType::Tensor) },
        4 => {
            let strings = (0..random.below(4)).map(|_| random.pick(texts).to_vec()).collect();
            AttributeProto { strings, ..attribute(name, AttributeType::Strings) }
        }
        _ => ints(name, &list(random)),
    }
}

/// A small constant: a list of integers, or a tensor of any type.
fn constant(name: &str, random: &mut Random) -> TensorProto {
    let data: Vec<i64> = (0..random.below(9)).map(|_| number(random)).collect();
    let mut t = longs(name, &data);
    if data.len() == 1 && random.one_in(2) {
        t.dims = vec![];
    }
    if random.one_in(3) {
        t.data_type = *random.pick(&[1, 6, 9, 10, 2, 3]);
        t.raw_data = None;
        t.int32_data = data.iter().map(|n| *n as i32).collect();
        t.float_data = if t.data_type == 1 { data.iter().map(|n| *n as f32).collect() } else { vec![] };
    }
    t
}

/// A model of one operator of the table.
pub(crate) fn one_operator(random: &mut Random) -> Vec<u8> {
    let table: Vec<&Op> = ops::table().collect();
    let op = random.pick(&table);
    let (least, most) = op.inputs;
    let count = least + random.below(most.min(least.max(4) + 2) - least + 1);
    let count = if random.one_in(10) { random.below(7) } else { count };
    let shape: Vec<Option<i64>> = (0..random.below(6)).map(|_| dim(random)).collect();
    let dtype = *random.pick(&[1, 1, 1, 1, 7, 6, 9, 10, 3, 2]);
    let mut graph = GraphProto { name: op.name.into(), ..GraphProto::default() };
    let mut names = vec![];
    for i in 0..count {
        let name = format!("i{i}");
        if i >= least && random.one_in(5) {
            names.push(String::new());
            continue;
        }
        let as_constant = if i == 0 { random.one_in(8) } else { random.one_in(2) };
        if as_constant {
            graph.initializer.push(constant(&name, random));
        } else {
            // Inputs that fit each other are more telling than others.
            let mut shape = shape.clone();
            if random.one_in(2) {
                shape = (0..random.below(6)).map(|_| dim(random)).collect();
            } else if !shape.is_empty() && random.one_in(2) {
                let axis = random.below(shape.len());
                shape[axis] = dim(random);
            }
            let dtype = if random.one_in(3) { *random.pick(&[1, 7, 6, 9, 10, 11, 3, 2]) } else { dtype };
            graph.input.push(value(&name, dtype, &shape));
        }
        names.push(name);
    }
    let outputs: Vec<String> =
        (0..op.outputs.0.max(1 + random.below(op.outputs.1.min(4)))).map(|i| format!("o{i}")).collect();
    let mut attributes = vec![];
    for a in op.attrs {
        match a.default {
            Declared::Internal(_) => {}
            Declared::Graph => {
                let graph = GraphProto {
                    node: vec![node("Identity", &["i0"], &["inner"], vec![])],
                    output: vec![ValueInfoProto { name: "inner".into(), r#type: None }],
                    ..GraphProto::default()
                };
                attributes.push(body(a.name, graph));
            }
            declared => {
                if declared == Declared::Required || random.one_in(2) {
                    attributes.push(any_attribute(a.name, declared, random));
                }
            }
        }
    }
    let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    let named: Vec<&str> = outputs.iter().map(String::as_str).collect();
    graph.node.push(node(op.name, &inputs, &named, attributes));
    graph.output = outputs.iter().map(|name| ValueInfoProto { name: name.clone(), r#type: None }).collect();
    let opset = if random.one_in(3) { 7 + random.below(17) as i64 } else { 23 };
    model(graph, opset)
}
