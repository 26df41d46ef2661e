//! Small valid plans, golden outputs and manifests.

use nearside::plan::golden::{Case, Golden};
use nearside::plan::manifest::{self, Manifest, TensorMeta};
use nearside::plan::{
    self, Binding, Buffer, Candidate, CpuPlan, DimParam, Dispatch, GpuPlan, GpuRequires, Pack, Plan, Port, Role, Weight,
};
use nearside::tensor::{Array, DType, Dim, DimRange};
use nearside::trust::digest::describe;

/// Pieces of the binary formats: magic numbers, and lengths that promise more than there is.
pub(crate) const WORDS: &[&[u8]] = &[
    b"nearside",
    b"nsgolden",
    &[1, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    // Dims inside dims: one term, one atom, a quotient.
    &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    &[1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2],
];

/// Pieces of manifests.
pub(crate) const JSON: &[&[u8]] = &[
    b"\"format\":1,",
    b"\"format\":2,",
    b"\"size\":18446744073709551615",
    b"\"size\":-1",
    b"\"chunk_size\":1",
    b"\"chunk_size\":0",
    b"\"role\":\"plan\"",
    b"\"role\":\"weights\"",
    b"\"path\":\"../x\"",
    b"1e400",
    b"null",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"\\ud800",
    b"\xff",
];

fn port(name: &str, dtype: DType, shape: Vec<Dim>) -> Port {
    Port { name: name.into(), dtype, shape }
}

/// A plan of a model with a symbolic dim, weights, and code for the GPU.
pub(crate) fn plan() -> Plan {
    let n = Dim::sym("n");
    let half = n.add(&Dim::from(1i64)).floor_div(&Dim::from(2i64));
    let buffer = |role, bytes, parts| Buffer { role, bytes, parts };
    let whole = |buffer, size, writes| Binding { buffer, offset: 0, size, writes };
    Plan {
        name: "sample".into(),
        version: "1.0.0".into(),
        inputs: vec![port("x", DType::Float32, vec![n.clone(), 4.into()]), port("i", DType::Int64, vec![n.clone()])],
        outputs: vec![port("y", DType::Float32, vec![half.clone(), 4.into()])],
        dims: vec![DimParam { name: "n".into(), range: DimRange { min: 1, max: 16 } }],
        packs: vec![Pack { sha256: [7; 32], size: 1024 }],
        weights: vec![
            Weight { name: "w".into(), stored: DType::Float16, dtype: DType::Float32, len: 32, pack: 0, offset: 0 },
            Weight { name: "b".into(), stored: DType::Float32, dtype: DType::Float32, len: 8, pack: 0, offset: 256 },
        ],
        cpu: CpuPlan {
            weights: vec![Some(1024), None],
            inputs: vec![2048, 4096],
            outputs: vec![8192],
            dims: 0,
            memory: 65_536,
            arena: 4096,
            kernels: vec!["MatMul".into(), "Relu".into()],
            needs: vec![1, 1],
        },
        gpu: Some(GpuPlan {
            shaders: vec![(0, 100), (100, 250)],
            numbers: vec![vec![1, 2, 3], vec![-1; 5]],
            buffers: vec![
                buffer(Role::Weights(0), 512, vec![0, 256]),
                buffer(Role::Inputs, 1024, vec![0, 512]),
                buffer(Role::Slot, 512, vec![]),
                buffer(Role::Output(0), 512, vec![]),
                buffer(Role::Overflow, 4, vec![]),
                buffer(Role::Dims, 16, vec![]),
                buffer(Role::Numbers, 512, vec![0, 256]),
            ],
            dispatches: vec![
                Dispatch {
                    name: "MatMul".into(),
                    candidates: vec![Candidate {
                        shader: 0,
                        bindings: vec![whole(0, 512, false), whole(1, 256, false), whole(2, 512, true)],
                        workgroups: [half.maximum(&Dim::from(1i64)), 1.into(), 1.into()],
                    }],
                },
                Dispatch {
                    name: "Relu".into(),
                    candidates: vec![Candidate {
                        shader: 1,
                        bindings: vec![whole(2, 512, false), whole(3, 512, true), whole(5, 16, false)],
                        workgroups: [n.minimum(&half), 2.into(), 1.into()],
                    }],
                },
            ],
            requires: GpuRequires { max_buffer_size: 1024, max_storage_bindings: 3, ..GpuRequires::default() },
        }),
    }
}

pub(crate) fn plans() -> Vec<Vec<u8>> {
    let cpu_only = Plan { gpu: None, ..plan() };
    [plan(), cpu_only].iter().map(|p| plan::serialize(p).unwrap()).collect()
}

pub(crate) fn goldens() -> Vec<Vec<u8>> {
    let case = |n: usize| Case {
        inputs: vec![
            Array::from_f32(vec![n, 4], &vec![0.5; 4 * n]).unwrap(),
            Array::from_i64(vec![n], &vec![-1; n]).unwrap(),
        ],
        outputs: vec![Array::from_f32(vec![n.div_ceil(2), 4], &vec![2.0; 4 * n.div_ceil(2)]).unwrap()],
    };
    let golden = |cases| Golden { atol: 1e-4, rtol: 1e-3, spread: 0.5, cases };
    [golden(vec![case(1), case(3)]), golden(vec![])].iter().map(|g| g.serialize().unwrap()).collect()
}

pub(crate) fn manifests() -> Vec<Vec<u8>> {
    let meta = |name: &str, datatype: &str, shape| TensorMeta { name: name.into(), datatype: datatype.into(), shape };
    let manifest = Manifest {
        format: manifest::FORMAT,
        name: "sample".into(),
        version: "1.0.0-rc.1".into(),
        inputs: vec![meta("x", "FP32", vec![-1, 4]), meta("i", "INT64", vec![-1])],
        outputs: vec![meta("y", "FP32", vec![-1, 4])],
        files: vec![
            describe("model.plan", manifest::Role::Plan, b"plan", 1024),
            describe("model.wasm", manifest::Role::Wasm, &[1; 3000], 1024),
            describe("weights/a.bin", manifest::Role::Weights, &[2; 2048], 1024),
            describe("weights/b.bin", manifest::Role::Weights, &[], 1 << 20),
        ],
    };
    vec![manifest.to_json().unwrap()]
}
