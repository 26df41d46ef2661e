//! Whole models, made here, through the reader.

use super::proto::*;
use super::{NoExternalData, read};
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, infer::infer};
use prost::Message;

pub(super) fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: format!("{op} of {}", outputs.first().unwrap_or(&"nothing")),
        input: inputs.iter().map(|s| (*s).into()).collect(),
        output: outputs.iter().map(|s| (*s).into()).collect(),
        attribute,
        ..NodeProto::default()
    }
}

pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(i), r#type: AttributeType::Int as i32, ..Default::default() }
}

pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(f), r#type: AttributeType::Float as i32, ..Default::default() }
}

pub(super) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: ints.into(), r#type: AttributeType::Ints as i32, ..Default::default() }
}

fn floats(name: &str, floats: &[f32]) -> AttributeProto {
    let r#type = AttributeType::Floats as i32;
    AttributeProto { name: name.into(), floats: floats.into(), r#type, ..Default::default() }
}

pub(super) fn string(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), s: Some(s.into()), r#type: AttributeType::String as i32, ..Default::default() }
}

pub(super) fn body(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        g: Some(Box::new(g)),
        r#type: AttributeType::Graph as i32,
        ..Default::default()
    }
}

fn reference(name: &str, to: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), ref_attr_name: to.into(), r#type: kind as i32, ..Default::default() }
}

/// `name: type[dims]`; a number, a name, or `?` for each dim.
pub(super) fn info(text: &str) -> ValueInfoProto {
    let Some((name, ty)) = text.split_once(": ") else {
        return ValueInfoProto { name: text.into(), r#type: None };
    };
    let (dtype, dims) = ty.trim_end_matches(']').split_once('[').unwrap();
    let dim = |d: &str| match (d, d.parse()) {
        ("?", _) => DimensionProto::default(),
        (_, Ok(n)) => DimensionProto { dim_value: Some(n), dim_param: None },
        _ => DimensionProto { dim_value: None, dim_param: Some(d.into()) },
    };
    let dim = dims.split(", ").filter(|d| !d.is_empty()).map(dim).collect();
    let elem_type = crate::tensor::DType::from_name(dtype).unwrap().onnx();
    let tensor_type = Some(TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim }) });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type, ..Default::default() }) }
}

pub(super) fn graph(inputs: &[&str], node: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    GraphProto {
        name: "test".into(),
        node,
        input: inputs.iter().map(|t| info(t)).collect(),
        output: outputs.iter().map(|t| info(t)).collect(),
        ..GraphProto::default()
    }
}

pub(super) fn model(opset: i64, graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        ..ModelProto::default()
    }
}

fn load(m: &ModelProto) -> Result<Graph> {
    let mut g = read(&m.encode_to_vec(), &NoExternalData)?;
    infer(&mut g)?;
    Ok(g)
}

/// The one node of a model without its outer parts, as text.
fn upgraded(opset: i64, inputs: &[&str], n: NodeProto) -> Result<String, Error> {
    let outputs: Vec<String> = n.output.clone();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let g = load(&model(opset, graph(inputs, vec![n], &outputs)))?;
    let text = g.to_string();
    let lines = text.lines().filter(|l| !l.starts_with("input ") && !l.starts_with("output "));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn brings_older_opsets_to_the_newest_form() {
    let x = "x: float32[2, 1, 4, 4]";
    let n = |op: &str, attrs: Vec<AttributeProto>| node(op, &["x"], &["y"], attrs);
    let cases: Vec<(&str, i64, Vec<&str>, NodeProto, &str)> = vec![
        (
            "Squeeze",
            11,
            vec![x],
            n("Squeeze", vec![ints("axes", &[1])]),
            "y: float32[2, 4, 4] = Squeeze(x, y:axes int64[1] [1])",
        ),
        (
            "Unsqueeze",
            12,
            vec!["x: float32[2]"],
            n("Unsqueeze", vec![ints("axes", &[0, 2])]),
            "y: float32[1, 2, 1] = Unsqueeze(x, y:axes int64[2] [0, 2])",
        ),
        (
            "ReduceSum",
            12,
            vec!["x: float32[2, 3]"],
            n("ReduceSum", vec![ints("axes", &[1]), int("keepdims", 0)]),
            "y: float32[2] = ReduceSum(x, y:axes int64[1] [1]) {keepdims=0, noop_with_empty_axes=0}",
        ),
        (
            "ReduceMean",
            17,
            vec!["x: float32[2, 3]"],
            n("ReduceMean", vec![ints("axes", &[-1])]),
            "y: float32[2, 1] = ReduceMean(x, y:axes int64[1] [-1]) {keepdims=1, noop_with_empty_axes=0}",
        ),
        (
            "Slice",
            9,
            vec!["x: float32[4, 4]"],
            n("Slice", vec![ints("starts", &[1]), ints("ends", &[3]), ints("axes", &[1])]),
            "y: float32[4, 2] = Slice(x, y:starts int64[1] [1], y:ends int64[1] [3], y:axes int64[1] [1])",
        ),
        (
            "Clip with both",
            6 + 1,
            vec!["x: float32[4]"],
            n("Clip", vec![float("min", 0.0), float("max", 6.5)]),
            "y:min: float32[] = [0] = CastLike(y:min_f32 float32[] [0], x) {round_mode=\"up\", saturate=1}\n\
             y:max: float32[] = CastLike(y:max_f32 float32[] [6.5], x) {round_mode=\"up\", saturate=1}\n\
             y: float32[4] = Clip(x, y:min, y:max)",
        ),
        ("Clip without", 9, vec!["x: float32[4]"], n("Clip", vec![]), "y: float32[4] = Clip(x)"),
        (
            "Softmax",
            11,
            vec!["x: float32[2, 3, 4]"],
            n("Softmax", vec![]),
            "y: float32[2, 3, 4] = Softmax(x) {axis=1, coerce=1}",
        ),
        (
            "Softmax now",
            13,
            vec!["x: float32[2, 3, 4]"],
            n("Softmax", vec![]),
            "y: float32[2, 3, 4] = Softmax(x) {axis=-1, coerce=0}",
        ),
        (
            "Dropout",
            7,
            vec!["x: float32[2]"],
            n("Dropout", vec![float("ratio", 0.3)]),
            "y: float32[2] = Dropout(x, y:ratio float32[] [0.30000001192092896])",
        ),
        (
            "Split in equal parts",
            11,
            vec!["x: float32[4]"],
            node("Split", &["x"], &["y", "z"], vec![]),
            "y: float32[2], z: float32[2] = Split(x) {axis=0, num_outputs=2}",
        ),
        (
            "Split in given parts",
            11,
            vec!["x: float32[4]"],
            node("Split", &["x"], &["y", "z"], vec![ints("split", &[1, 3])]),
            "y: float32[1], z: float32[3] = Split(x, y:split int64[2] [1, 3]) {axis=0}",
        ),
        (
            "Upsample",
            7,
            vec!["x: float32[1, 1, 2, 2]"],
            n("Upsample", vec![floats("scales", &[1.0, 1.0, 2.0, 3.0])]),
            "y: float32[1, 1, 4, 6] = Resize(x, _, y:scales float32[4] [1, 1, 2, 3]) {antialias=0, \
             coordinate_transformation_mode=\"asymmetric\", cubic_coeff_a=-0.75, exclude_outside=0, \
             extrapolation_value=0, keep_aspect_ratio_policy=\"stretch\", mode=\"nearest\", nearest_mode=\"floor\"}",
        ),
        (
            "Pad",
            10,
            vec!["x: float32[2]"],
            n("Pad", vec![ints("pads", &[1, 1])]),
            "y: float32[4] = Pad(x, y:pads int64[2] [1, 1]) {mode=\"constant\"}",
        ),
    ];
    for (name, opset, inputs, n, want) in cases {
        match upgraded(opset, &inputs, n) {
            Ok(got) => assert_eq!(got, want, "{name}"),
            Err(e) => panic!("{name}: {e}"),
        }
    }
}

#[test]
fn refuses_what_older_opsets_meant_otherwise() {
    let x = &["x: float32[2, 3]", "s: float32[3]"];
    let spatial = node("BatchNormalization", &["x", "s", "s", "s", "s"], &["y"], vec![int("spatial", 0)]);
    let e = upgraded(7, x, spatial).unwrap_err();
    assert_eq!((e.kind(), e.place()), (Kind::UnsupportedOp, Some("BatchNormalization of y")));
    let mask = node("Dropout", &["x"], &["y", "mask"], vec![]);
    assert_eq!(upgraded(9, x, mask).unwrap_err().kind(), Kind::UnsupportedOp);
}

#[test]
fn keeps_group_normalization_with_a_scale_for_each_group() {
    let x = &["x: float32[n, 6, 5]", "s: float32[2]", "b: float32[2]"];
    let text = upgraded(18, x, node("GroupNormalization", &["x", "s", "b"], &["y"], vec![int("num_groups", 2)]));
    let last = text.unwrap_or_else(|e| panic!("{e}"));
    let last = last.lines().last().unwrap().to_owned();
    assert!(
        last.starts_with("y: float32[n, 6, 5] = GroupNormalization(x, y:scale_by_channel, y:bias_by_channel)"),
        "{last}"
    );
}

#[test]
fn inlines_functions() {
    let inner = FunctionProto {
        name: "Twice".into(),
        domain: "my".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["how".into()],
        node: vec![
            node("Softmax", &["a"], &["t"], vec![reference("axis", "how", AttributeType::Int)]),
            node("Add", &["t", "t"], &["b"], vec![]),
        ],
        ..Default::default()
    };
    let call = |out: &str, from: &str, attrs: Vec<AttributeProto>| NodeProto {
        domain: "my".into(),
        ..node("Twice", &[from], &[out], attrs)
    };
    let nodes = vec![call("m", "x", vec![int("how", 0)]), call("y", "m", vec![])];
    let m = ModelProto {
        functions: vec![inner.clone()],
        ..model(17, graph(&["x: float32[2, 2]"], nodes, &["y: float32[2, 2]"]))
    };
    let g = load(&m).unwrap_or_else(|e| panic!("{e}"));
    insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[2, 2]
Twice of m/t: float32[2, 2] = Softmax(x) {axis=0, coerce=0}
m: float32[2, 2] = Add(Twice of m/t, Twice of m/t)
Twice of y/t: float32[2, 2] = Softmax(m) {axis=-1, coerce=0}
y: float32[2, 2] = Add(Twice of y/t, Twice of y/t)
output y
"#);
    assert_eq!(g.nodes[0].name, "Twice of m/Softmax of t");
    // A function that calls itself would never end.
    let again = FunctionProto { node: vec![call("b", "a", vec![])], ..inner };
    let e = load(&ModelProto { functions: vec![again], ..m }).unwrap_err();
    assert_eq!((e.kind(), e.message()), (Kind::InvalidModel, "function Twice calls itself"));
}

#[test]
fn takes_constants_however_they_are_written() {
    let nodes = vec![
        node("Constant", &[], &["i"], vec![int("value_int", 5)]),
        node("Constant", &[], &["l"], vec![ints("value_ints", &[2, 3])]),
        node("Constant", &[], &["f"], vec![float("value_float", 0.5)]),
        node("Constant", &[], &["v"], vec![floats("value_floats", &[0.5, 1.5])]),
        node("Relu", &["x"], &["y"], vec![]),
    ];
    let mut m = graph(&["x: float32[2]", "w: float32[1]"], nodes, &["i", "l", "f", "v", "y"]);
    // Files of old wrote weights as inputs too.
    m.initializer = vec![TensorProto {
        name: "w".into(),
        data_type: 1,
        dims: vec![1],
        float_data: vec![3.0],
        ..Default::default()
    }];
    let g = load(&model(13, m)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((g.inputs.len(), g.nodes.len()), (1, 1));
    let shapes: Vec<_> =
        g.outputs.iter().filter_map(|(_, v)| g.value(*v).constant.as_ref()).map(|a| a.shape().to_vec()).collect();
    assert_eq!(shapes, [vec![], vec![2], vec![], vec![2]]);
}

#[test]
fn sorts_nodes_and_names_symbols() {
    let nodes = vec![node("Relu", &["a"], &["b"], vec![]), node("Exp", &["x"], &["a"], vec![])];
    let g = load(&model(13, graph(&["x: float32[batch, ?, 3]"], nodes, &["b"]))).unwrap();
    insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[batch, x_1, 3]
a: float32[batch, x_1, 3] = Exp(x)
b: float32[batch, x_1, 3] = Relu(a)
output b
"#);
}

#[test]
fn types_go_into_and_out_of_bodies() {
    let branch = |op: &str| GraphProto { node: vec![node(op, &["h"], &["r"], vec![])], ..graph(&[], vec![], &["r"]) };
    let branch = |op: &str, out: &str| {
        let mut g = branch(op);
        g.node[0].output[0] = out.into();
        g.output[0].name = out.into();
        g
    };
    let nodes = vec![
        node("Exp", &["x"], &["h"], vec![]),
        node(
            "If",
            &["c"],
            &["y"],
            vec![body("then_branch", branch("Relu", "r")), body("else_branch", branch("Neg", "s"))],
        ),
    ];
    let m = model(13, graph(&["x: float32[n]", "c: bool[]"], nodes.clone(), &["y"]));
    let g = load(&m).unwrap_or_else(|e| panic!("{e}"));
    insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n]
input c: bool[]
h: float32[n] = Exp(x)
y: float32[n] = If(c)
  then_branch:
    r: float32[n] = Relu(h)
    output r
  else_branch:
    s: float32[n] = Neg(h)
    output s
output y
"#);
    // A known condition takes one branch.
    let mut known = graph(&["x: float32[n]"], nodes, &["y"]);
    known.initializer = vec![TensorProto { name: "c".into(), data_type: 9, int32_data: vec![0], ..Default::default() }];
    let mut g = load(&model(13, known)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(crate::graph::passes::inline_ifs(&mut g), Ok(true));
    crate::graph::passes::dead_code(&mut g);
    insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[n]
h: float32[n] = Exp(x)
s: float32[n] = Neg(h)
output y = s
"#);
}

#[test]
fn follows_shapes_through_their_computation() {
    // The flattening that exporters write: Shape, Gather, Concat, Reshape.
    let constant = |name: &str, dims: &[i64], data: &[i64]| TensorProto {
        name: name.into(),
        data_type: 7,
        dims: dims.to_vec(),
        int64_data: data.to_vec(),
        ..Default::default()
    };
    let nodes = vec![
        node("Shape", &["x"], &["shape"], vec![]),
        node("Slice", &["shape", "zero", "one"], &["batch"], vec![]),
        node("Mul", &["batch", "two"], &["rows"], vec![]),
        node("Concat", &["rows", "minus"], &["target"], vec![int("axis", 0)]),
        node("Reshape", &["x", "target"], &["y"], vec![]),
    ];
    let mut g = graph(&["x: float32[b, 6, 4]"], nodes, &["y"]);
    g.initializer = vec![
        constant("zero", &[1], &[0]),
        constant("one", &[1], &[1]),
        constant("two", &[1], &[2]),
        constant("minus", &[1], &[-1]),
    ];
    let g = load(&model(13, g)).unwrap_or_else(|e| panic!("{e}"));
    insta::assert_snapshot!(g.to_string(), @r#"
input x: float32[b, 6, 4]
shape: int64[3] = [b, 6, 4] = Shape(x) {start=0}
batch: int64[1] = [b] = Slice(shape, zero int64[1] [0], one int64[1] [1])
rows: int64[1] = [2 * b] = Mul(batch, two int64[1] [2])
target: int64[2] = [2 * b, -1] = Concat(rows, minus int64[1] [-1]) {axis=0}
y: float32[2 * b, 12] = Reshape(x, target) {allowzero=0}
output y
"#);
}

fn failure(m: &ModelProto) -> (Kind, String) {
    let e = load(m).unwrap_err();
    (e.kind(), e.to_string())
}

#[test]
fn tells_what_is_wrong() {
    let x = &["x: float32[2]"];
    let relu = |from: &str, to: &str| node("Relu", &[from], &[to], vec![]);
    let foreign = NodeProto { domain: "com.acme".into(), ..node("Frob", &["x"], &["a"], vec![]) };
    let cases: Vec<(&str, ModelProto, Kind, &str)> = vec![
        (
            "all missing operators at once",
            model(13, graph(x, vec![node("Frobnicate", &["x"], &["y"], vec![]), foreign], &["y"])),
            Kind::UnsupportedOp,
            "operators that are not implemented: com.acme.Frob (node \"Frob of a\", opset of an unstated version), \
             Frobnicate (node \"Frobnicate of y\", opset 13)",
        ),
        (
            "an attribute that nobody reads",
            model(13, graph(x, vec![node("Relu", &["x"], &["y"], vec![int("frob", 1)])], &["y"])),
            Kind::InvalidModel,
            "Relu of y: Relu does not take the attribute \"frob\"",
        ),
        (
            "an attribute that no file may give",
            model(13, graph(x, vec![node("Softmax", &["x"], &["y"], vec![int("coerce", 1)])], &["y"])),
            Kind::InvalidModel,
            "Softmax of y: Softmax does not take the attribute \"coerce\"",
        ),
        (
            "an attribute of another kind",
            model(13, graph(x, vec![node("Softmax", &["x"], &["y"], vec![string("axis", "0")])], &["y"])),
            Kind::InvalidModel,
            "Softmax of y: attribute \"axis\" of Softmax is not an integer",
        ),
        (
            "a cycle",
            model(13, graph(x, vec![relu("b", "a"), relu("a", "b")], &["b"])),
            Kind::InvalidModel,
            "the graph \"test\" has a cycle: \"Relu of b\" → \"Relu of a\"",
        ),
        (
            "a value that is never computed",
            model(13, graph(x, vec![relu("q", "y")], &["y"])),
            Kind::InvalidModel,
            "Relu of y: value \"q\" is used but never computed",
        ),
        (
            "a value that is defined twice",
            model(13, graph(x, vec![relu("x", "y"), relu("x", "y")], &["y"])),
            Kind::InvalidModel,
            "Relu of y: value \"y\" is defined twice",
        ),
        (
            "a declared type that is not the computed one",
            model(13, graph(x, vec![relu("x", "y")], &["y: float32[3]"])),
            Kind::InvalidShape,
            "Relu of y (float32[2]): \"y\" is declared as [3] and computed as [2]",
        ),
        (
            "too many inputs",
            model(13, graph(x, vec![node("Relu", &["x", "x"], &["y"], vec![])], &["y"])),
            Kind::InvalidModel,
            "Relu of y: Relu takes at least 1 and up to 1 inputs, 2 are given",
        ),
        ("a future opset", model(99, graph(x, vec![relu("x", "y")], &["y"])), Kind::UnsupportedOp, "Relu of opset 99"),
        (
            "an old opset in which the operator was another",
            model(5, graph(x, vec![relu("x", "y")], &["y"])),
            Kind::UnsupportedOp,
            "Relu of opset 5",
        ),
        ("no outputs", model(13, graph(x, vec![relu("x", "y")], &[])), Kind::InvalidModel, "the graph has no outputs"),
        (
            "an input without a rank",
            model(13, graph(&["x"], vec![relu("x", "y")], &["y"])),
            Kind::InvalidShape,
            "input \"x\" has no type or no rank",
        ),
    ];
    for (name, m, kind, text) in cases {
        let (got, message) = failure(&m);
        assert_eq!(got, kind, "{name}: {message}");
        assert!(message.contains(text), "{name}: {message}");
    }
}

#[test]
fn tells_where_a_damaged_file_breaks_off() {
    let nodes = vec![node("Relu", &["x"], &["y"], vec![])];
    let bytes = model(13, graph(&["x: float32[2]"], nodes, &["y"])).encode_to_vec();
    let fails = |bytes: &[u8]| read(bytes, &NoExternalData).unwrap_err();
    let cut = fails(&bytes[..bytes.len() - 8]);
    assert_eq!(cut.kind(), Kind::InvalidModel);
    assert!(cut.place().is_some_and(|p| p.starts_with("byte ")), "{cut}");
    assert_eq!(fails(&[]).kind(), Kind::InvalidModel);
    assert_eq!(fails(b"<!doctype html><title>404</title>").kind(), Kind::InvalidModel);
    let newer = ModelProto { ir_version: 1000, ..ModelProto::default() }.encode_to_vec();
    assert_eq!(fails(&newer).kind(), Kind::InvalidModel);
}

#[test]
fn bodies_nest_only_so_deep() {
    let mut inner = graph(&[], vec![node("Relu", &["x"], &["r"], vec![])], &["r"]);
    for _ in 0..200 {
        let n = node(
            "If",
            &["c"],
            &["r"],
            vec![body("then_branch", inner.clone()), body("else_branch", graph(&[], vec![], &["x"]))],
        );
        inner = graph(&[], vec![n], &["r"]);
    }
    inner.input = vec![info("x: float32[2]"), info("c: bool[]")];
    let e = read(&model(13, inner).encode_to_vec(), &NoExternalData).unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidModel);
    assert!(e.message().contains("recursion limit"), "{e}");
}
