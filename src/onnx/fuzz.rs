//! Damaged models never panic: bytes changed at random, and fields changed at random in models that still parse.
//!
//! Bounded and seeded as a test. With NEARSIDE_FUZZ_SECONDS set it runs for so long from a new seed, which it prints.

use super::proto::*;
use super::tests::{body, float, graph, info, int, ints, model, node, string};
use super::{NoExternalData, read};
use crate::graph::{infer::infer, ops, passes};
use prost::Message;
use std::time::{Duration, Instant};

/// A small generator (xorshift64*), so that a seed names a run on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A number that is likely to be at an edge.
    fn number(&mut self) -> i64 {
        const EDGES: &[i64] =
            &[0, 1, -1, 2, 3, 4, 7, 8, -2, 64, 1 << 31, -(1 << 31), 1 << 40, i64::MAX, i64::MIN, i64::MAX - 1];
        match self.below(4) {
            0 => self.next() as i64,
            _ => EDGES[self.below(EDGES.len())],
        }
    }
}

/// Models that use most of what a file can hold.
fn seeds() -> Vec<ModelProto> {
    let tensor = |name: &str, data_type: i32, dims: &[i64], ints: &[i64]| TensorProto {
        name: name.into(),
        data_type,
        dims: dims.to_vec(),
        int64_data: if data_type == 7 { ints.to_vec() } else { vec![] },
        float_data: if data_type == 1 { ints.iter().map(|i| *i as f32).collect() } else { vec![] },
        ..TensorProto::default()
    };
    let mut shapes = graph(
        &["x: float32[b, 6, 4]", "c: bool[]"],
        vec![
            node("Shape", &["x"], &["shape"], vec![]),
            node("Slice", &["shape", "zero", "one"], &["batch"], vec![]),
            node("Concat", &["batch", "rest"], &["target"], vec![int("axis", 0)]),
            node("Reshape", &["x", "target"], &["y"], vec![]),
            node("Transpose", &["y"], &["t"], vec![ints("perm", &[1, 0])]),
            node("Softmax", &["t"], &["s"], vec![int("axis", -1)]),
            node("ReduceMean", &["s", "one"], &["m"], vec![int("keepdims", 0)]),
            node("Split", &["x", "parts"], &["p", "q"], vec![int("axis", 2)]),
            node("Expand", &["m", "target"], &["e"], vec![]),
        ],
        &["e", "p", "q"],
    );
    shapes.initializer = vec![
        tensor("zero", 7, &[1], &[0]),
        tensor("one", 7, &[1], &[1]),
        tensor("rest", 7, &[1], &[24]),
        tensor("parts", 7, &[2], &[1, 3]),
    ];
    let mut layers = graph(
        &["x: float32[1, 2, 8, 8]"],
        vec![
            node(
                "Conv",
                &["x", "w", "v"],
                &["c"],
                vec![ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2]), string("auto_pad", "NOTSET")],
            ),
            node("BatchNormalization", &["c", "v", "v", "v", "v"], &["n"], vec![float("epsilon", 1e-3)]),
            node("MaxPool", &["n"], &["p"], vec![ints("kernel_shape", &[2, 2]), int("ceil_mode", 1)]),
            node("Flatten", &["p"], &["f"], vec![int("axis", 1)]),
            node("Gemm", &["f", "g", "v"], &["y"], vec![int("transB", 1)]),
            node("Pad", &["x", "pads"], &["z"], vec![string("mode", "reflect")]),
        ],
        &["y", "z"],
    );
    layers.initializer = vec![
        tensor("w", 1, &[2, 2, 3, 3], &[1; 36]),
        tensor("v", 1, &[2], &[1, 2]),
        tensor("g", 1, &[2, 18], &[1; 36]),
        tensor("pads", 7, &[8], &[0, 0, 1, 1, 0, 0, 1, 1]),
    ];
    let branch = |op: &str, out: &str| graph(&[], vec![node(op, &["x"], &[out], vec![])], &[out]);
    let attrs = vec![body("then_branch", branch("Relu", "r")), body("else_branch", branch("Neg", "s"))];
    let turn = graph(
        &["i: int64[]", "go: bool[]", "a: float32[n]"],
        vec![node("Add", &["a", "x"], &["b"], vec![]), node("Identity", &["go"], &["on"], vec![])],
        &["on", "b", "a"],
    );
    let mut control = graph(
        &["x: float32[n]", "c: bool[]"],
        vec![
            node("If", &["c"], &["y"], attrs),
            node("Loop", &["count", "", "y"], &["l", "rows"], vec![body("body", turn)]),
            NodeProto { domain: "my".into(), ..node("Twice", &["l"], &["t"], vec![int("how", 0)]) },
        ],
        &["t", "rows"],
    );
    control.initializer = vec![tensor("count", 7, &[], &[3])];
    control.value_info = vec![info("y: float32[n]")];
    let twice = FunctionProto {
        name: "Twice".into(),
        domain: "my".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["how".into()],
        node: vec![node("Add", &["a", "a"], &["b"], vec![])],
        ..FunctionProto::default()
    };
    let old = graph(
        &["x: float32[1, 1, 4, 4]"],
        vec![
            node("Unsqueeze", &["x"], &["u"], vec![ints("axes", &[0])]),
            node("Squeeze", &["u"], &["v"], vec![ints("axes", &[0])]),
            node("Clip", &["v"], &["w"], vec![float("min", 0.0)]),
            node("Slice", &["w"], &["y"], vec![ints("starts", &[1]), ints("ends", &[3]), ints("axes", &[2])]),
        ],
        &["y"],
    );
    vec![
        model(18, shapes),
        model(15, layers),
        ModelProto { functions: vec![twice], ..model(17, control) },
        model(9, old),
    ]
}

/// Changes bytes: bits, runs, cuts.
fn damage_bytes(r: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=r.below(4) {
        let n = bytes.len();
        if n == 0 {
            return;
        }
        let at = r.below(n);
        match r.below(6) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << r.below(8),
            2 => bytes[at] = r.next() as u8,
            3 => bytes.insert(at, 0xff),
            4 => {
                let to = (at + r.below(16)).min(n);
                bytes.drain(at..to);
            }
            _ => {
                let to = (at + r.below(64)).min(n);
                let copy = bytes[at..to].to_vec();
                let place = r.below(n);
                bytes.splice(place..place, copy);
            }
        }
    }
}

/// Changes a field of the graph to another value of its type.
fn damage_graph(r: &mut Random, g: &mut GraphProto) {
    let names: Vec<&str> = ops::table().map(|op| op.name).collect();
    let values: Vec<String> = g
        .node
        .iter()
        .flat_map(|n| n.input.iter().chain(&n.output).cloned())
        .chain([String::new(), "nowhere".into()])
        .collect();
    if r.below(8) == 0 {
        let at = r.below(g.node.len());
        if !g.node.is_empty() {
            g.node.remove(at);
        }
    }
    if r.below(3) == 0
        && let Some(i) = g.initializer.len().checked_sub(1).map(|n| r.below(n + 1))
    {
        let t = &mut g.initializer[i];
        match r.below(4) {
            0 => t.dims.push(r.number()),
            1 => t.data_type = r.below(20) as i32,
            2 => t.int64_data.iter_mut().for_each(|n| *n = if r.below(2) == 0 { r.number() } else { *n }),
            _ => {
                t.dims.pop();
            }
        }
    }
    if r.below(3) == 0
        && let Some(i) = g.input.len().checked_sub(1).map(|n| r.below(n + 1))
        && let Some(t) = g.input[i].r#type.as_mut().and_then(|t| t.tensor_type.as_mut())
    {
        if r.below(2) == 0 {
            t.elem_type = r.below(14) as i32;
        } else if let Some(shape) = t.shape.as_mut() {
            shape.dim.push(DimensionProto { dim_value: Some(r.number()), dim_param: None });
            let keep = r.below(5);
            shape.dim.rotate_right(1);
            shape.dim.truncate(keep);
        }
    }
    let count = g.node.len();
    let Some(node) = g.node.get_mut(r.below(count)) else { return };
    match r.below(6) {
        0 => node.op_type = names[r.below(names.len())].into(),
        1 => {
            let at = r.below(node.input.len() + 1);
            node.input.insert(at, values[r.below(values.len())].clone());
        }
        2 => {
            node.input.pop();
        }
        3 => node.output.push(format!("new{}", r.below(3))),
        _ => {
            let row = ops::find(&node.op_type);
            let declared = row.map(|op| op.attrs).unwrap_or_default();
            if let Some(a) = node.attribute.iter_mut().find(|a| a.g.is_some()).and_then(|a| a.g.as_mut())
                && r.below(2) == 0
            {
                return damage_graph(r, a);
            }
            if declared.is_empty() {
                return;
            }
            let name = declared[r.below(declared.len())].name;
            node.attribute.retain(|a| a.name != name);
            node.attribute.push(match r.below(4) {
                0 => ints(name, &(0..r.below(6)).map(|_| r.number()).collect::<Vec<_>>()),
                1 => float(name, f32::from_bits(r.next() as u32)),
                2 => string(name, ["", "NOTSET", "SAME_UPPER", "linear", "reflect"][r.below(5)]),
                _ => int(name, r.number()),
            });
        }
    }
}

fn run(bytes: &[u8]) {
    if let Ok(mut g) = read(bytes, &NoExternalData)
        && passes::required(&mut g).is_ok()
    {
        passes::identities(&mut g);
        passes::common_subexpressions(&mut g);
        let _ = passes::batch_norm(&mut g).and_then(|()| passes::bias(&mut g));
        let _ = passes::projections(&mut g);
        let _ = g.to_string();
    }
}

/// One damaged model; the seed alone decides which.
fn round(seed: u64, seeds: &[ModelProto]) {
    let mut r = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    r.next();
    let mut m = seeds[r.below(seeds.len())].clone();
    if r.below(2) == 0 {
        let mut bytes = m.encode_to_vec();
        damage_bytes(&mut r, &mut bytes);
        return run(&bytes);
    }
    for _ in 0..=r.below(3) {
        if let Some(g) = m.graph.as_mut() {
            damage_graph(&mut r, g);
        }
    }
    run(&m.encode_to_vec());
}

#[test]
fn damaged_models_never_panic() {
    let seeds = seeds();
    seeds.iter().for_each(|m| {
        let mut g = read(&m.encode_to_vec(), &NoExternalData).unwrap_or_else(|e| panic!("{e}"));
        infer(&mut g).unwrap_or_else(|e| panic!("{e}"));
    });
    let seconds = std::env::var("NEARSIDE_FUZZ_SECONDS").ok().and_then(|s| s.parse::<u64>().ok());
    let start = Instant::now();
    let first = match seconds {
        Some(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()) << 24,
        None => 0,
    };
    for seed in first.. {
        let more = match seconds {
            Some(s) => start.elapsed() < Duration::from_secs(s),
            None => seed < first + 3000,
        };
        if !more {
            break;
        }
        if std::panic::catch_unwind(|| round(seed, &seeds)).is_err() {
            panic!("the damaged model of seed {seed} panicked: see above");
        }
    }
}
