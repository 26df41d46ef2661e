#![allow(clippy::unwrap_used)]

use super::{Choice, Feed, Gpu, GpuSession};
use crate::error::Kind;
use crate::plan::*;
use crate::tensor::{Array, DType, Dim, DimRange};
use std::sync::Arc;

const SHADER: &str = "@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> dims: array<vec4<i32>, 1>;
@group(0) @binding(4) var<storage, read_write> overflow: atomic<u32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    y[id.x] = x[id.x] * w[id.x % 2u] + f32(dims[0].x);
    if (x[id.x] > 99.0) { atomicStore(&overflow, 1u); }
}
";

/// `y[n] = x[n] · w[n mod 2] + n`.
fn plan() -> Plan {
    let buffer = |role, bytes, parts| Buffer { role, bytes, parts };
    let bind = |buffer, writes| Binding { buffer, offset: 0, size: 16, writes };
    let port = |name: &str| Port { name: name.into(), dtype: DType::Float32, shape: vec![Dim::sym("n")] };
    Plan {
        name: "m".into(),
        version: "1.0.0".into(),
        inputs: vec![port("x")],
        outputs: vec![port("y")],
        dims: vec![DimParam { name: "n".into(), range: DimRange { min: 1, max: 4 } }],
        packs: vec![Pack { sha256: [0; 32], size: 4 }],
        weights: vec![Weight {
            name: "w".into(),
            stored: DType::Float16,
            dtype: DType::Float32,
            len: 2,
            pack: 0,
            offset: 0,
        }],
        cpu: CpuPlan { weights: vec![None], inputs: vec![0], outputs: vec![0], memory: 65536, ..CpuPlan::default() },
        gpu: Some(GpuPlan {
            shaders: vec![(0, SHADER.len() as u32)],
            numbers: vec![],
            buffers: vec![
                buffer(Role::Weights(0), 256, vec![0]),
                buffer(Role::Inputs, 256, vec![0]),
                buffer(Role::Output(0), 16, vec![]),
                buffer(Role::Dims, 16, vec![]),
                buffer(Role::Overflow, 16, vec![]),
            ],
            dispatches: vec![Dispatch {
                name: "main".into(),
                candidates: vec![Candidate {
                    shader: 0,
                    bindings: vec![bind(1, false), bind(0, false), bind(2, true), bind(3, false), bind(4, true)],
                    workgroups: [Dim::sym("n"), Dim::from(1), Dim::from(1)],
                }],
            }],
            requires: GpuRequires { max_storage_bindings: 4, ..GpuRequires::default() },
        }),
    }
}

fn array(data: &[f32]) -> Array {
    Array::from_f32(vec![data.len()], data).unwrap()
}

#[test]
fn a_session_runs_with_other_dims_and_feeds_another() {
    pollster::block_on(async {
        let gpu = Gpu::open(Choice::Any).await.unwrap();
        let mut session = GpuSession::new(&gpu, Arc::new(plan()), SHADER, &[]).await.unwrap();
        let halves: Vec<u8> = [2.0f32, -1.0].iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        session.upload(0, 0, &halves).unwrap();
        let x = array(&[1.0, 2.0, 3.0]);
        let y = session.run(&[Feed::Host(&x)]).await.unwrap();
        assert_eq!(y, [array(&[5.0, 1.0, 9.0])]);
        let one = array(&[1.0]);
        assert_eq!(session.run(&[Feed::Host(&one)]).await.unwrap(), [array(&[3.0])]);
        let kept = session.run_on_gpu(&[Feed::Host(&x)]).await.unwrap();
        assert_eq!(session.run(&[Feed::Gpu(&kept[0])]).await.unwrap(), [array(&[13.0, 2.0, 21.0])]);
        let stats = session.stats();
        assert_eq!((stats.dispatches, stats.submits, stats.bind_groups_in_run, stats.buffers_in_run), (1, 1, 0, 0));

        let kind = |r: crate::error::Result<Vec<Array>>| r.err().map(|e| e.kind());
        assert_eq!(kind(session.run(&[]).await), Some(Kind::InvalidInput));
        let five = array(&[0.0; 5]);
        assert_eq!(kind(session.run(&[Feed::Host(&five)]).await), Some(Kind::DimOutOfBounds));
        let whole = Array::from_i64(vec![1], &[1]).unwrap();
        assert_eq!(kind(session.run(&[Feed::Host(&whole)]).await), Some(Kind::InvalidInput));
        let big = array(&[100.0]);
        assert_eq!(kind(session.run(&[Feed::Host(&big)]).await), Some(Kind::Overflow));
        assert_eq!(session.run(&[Feed::Host(&one)]).await.unwrap(), [array(&[3.0])], "the flag does not stay");

        gpu.destroy();
        assert_eq!(kind(session.run(&[Feed::Host(&one)]).await), Some(Kind::DeviceLost));
        assert!(gpu.is_lost());
    });
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_made() {
    pollster::block_on(async {
        let gpu = Gpu::open(Choice::Any).await.unwrap();
        let mut large = plan();
        if let Some(g) = &mut large.gpu {
            g.requires.max_storage_binding = 1 << 50;
        }
        let e = GpuSession::new(&gpu, Arc::new(large), SHADER, &[]).await.err().unwrap();
        assert_eq!(e.kind(), Kind::DeviceLimit);
        assert!(e.message().contains("maxStorageBufferBindingSize = 1125899906842624"), "{e}");
        let mut none = plan();
        none.gpu = None;
        let e = GpuSession::new(&gpu, Arc::new(none), SHADER, &[]).await.err().unwrap();
        assert_eq!(e.kind(), Kind::DeviceUnavailable);
        let e = GpuSession::new(&gpu, Arc::new(plan()), &SHADER[1..], &[]).await.err().unwrap();
        assert_eq!(e.kind(), Kind::InvalidPackage);
        let broken = SHADER.replace("array<f32>", "array<f33>");
        let e = GpuSession::new(&gpu, Arc::new(plan()), &broken, &[]).await.err().unwrap();
        assert_eq!(e.kind(), Kind::Internal);
    });
}

#[test]
fn the_fastest_candidate_is_taken_and_remembered() {
    pollster::block_on(async {
        // The same shader again, with work that nobody needs.
        let slow =
            SHADER.replace("y[id.x] =", "for (var i = 0u; i < 100000u; i++) { y[id.x] = f32(i); }\n    y[id.x] =");
        let code = slow.clone() + SHADER;
        let mut two = plan();
        if let Some(g) = &mut two.gpu {
            g.shaders = vec![(0, slow.len() as u32), (slow.len() as u32, code.len() as u32)];
            let first = g.dispatches[0].candidates[0].clone();
            g.dispatches[0].candidates.push(Candidate { shader: 1, ..first });
        }
        let (gpu, two) = (Gpu::open(Choice::Any).await.unwrap(), Arc::new(two));
        let x = array(&[1.0, 2.0, 3.0]);
        let halves: Vec<u8> = [2.0f32, -1.0].iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        let answer = [array(&[5.0, 1.0, 9.0])];
        let mut session = GpuSession::new(&gpu, Arc::clone(&two), &code, &[]).await.unwrap();
        session.upload(0, 0, &halves).unwrap();
        assert_eq!(session.run(&[Feed::Host(&x)]).await.unwrap(), answer);
        session.time_candidates(&code).await.unwrap();
        assert_eq!(session.stats().tuned, 1);
        assert_eq!(session.run(&[Feed::Host(&x)]).await.unwrap(), answer);
        let chosen = session.tune(&code).await.unwrap();
        assert_eq!(chosen, [1]);
        for (choice, tuned) in [(&chosen[..], 1), (&[2], 0), (&[1, 1], 0)] {
            let mut again = GpuSession::new(&gpu, Arc::clone(&two), &code, choice).await.unwrap();
            again.upload(0, 0, &halves).unwrap();
            assert_eq!((again.stats().tuned, again.run(&[Feed::Host(&x)]).await.unwrap()), (tuned, answer.to_vec()));
        }
    });
}
