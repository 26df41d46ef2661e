//! Checks fusion and scheduling with the naive evaluator: what kernels compute over flat buffers must equal what the
//! functions they came from compute.

use super::reference::evaluate;
use super::{AttentionAs, Axis, ExprId, Form, Fusion, Kernel, Node, Schedule, Stmt, ValueId, Values, fuse, schedule};
use crate::error::Result;
use crate::tensor::{Array, Bindings, DType, Dim};
use std::collections::HashMap;

/// The outputs of scheduled kernels, each run in order by the naive evaluator.
pub(crate) fn run(values: &Values, s: &Schedule, inputs: &[Array], dims: &Bindings) -> Result<Vec<Array>> {
    let mut flat = values.clone();
    let mut at: HashMap<ValueId, ValueId> = HashMap::new();
    let mut written = vec![];
    let mut arrays = vec![];
    for (v, layout) in &s.layouts {
        let len = layout.len(values.shape(*v));
        match &values.get(*v).def {
            super::Def::Input(i) => {
                at.insert(*v, flat.input(arrays.len() + inputs.len(), values.dtype(*v), vec![len]));
                arrays.push(inputs[*i].reshaped(vec![inputs[*i].len()])?);
            }
            super::Def::Constant(a) => {
                let bytes = layout.arrange(a)?;
                let array = Array::new(a.dtype(), vec![bytes.len() / a.dtype().size()], bytes)?;
                at.insert(*v, flat.constant_array(array));
            }
            _ => written.push((*v, values.dtype(*v), vec![len])),
        }
    }
    let types = written.iter().map(|(_, d, shape)| (*d, shape.clone())).collect();
    flat.program(types, |vs, ids| {
        at.extend(written.iter().map(|w| w.0).zip(ids.iter().copied()));
        let body = s.kernels.iter().map(|k| statements(vs, k, &at)).collect::<Vec<_>>().concat();
        Ok((vec![], body))
    })?;
    let all = evaluate(&flat, &[inputs.to_vec(), arrays].concat(), dims)?;
    s.outputs
        .iter()
        .map(|v| {
            let shape = crate::plan::resolve(values.shape(*v), dims)?;
            all[at[v].0 as usize].reshaped(shape)
        })
        .collect()
}

fn statements(vs: &mut Values, k: &Kernel, at: &HashMap<ValueId, ValueId>) -> Vec<Stmt> {
    let move_loads = |vs: &mut Values, e: ExprId| {
        vs.arena.rewrite(e, &mut |arena, n| match n {
            Node::Load { value, index } => Some(arena.add_node(Node::Load { value: at[value], index: index.clone() })),
            _ => None,
        })
    };
    let body: Vec<Stmt> = match &k.form {
        Form::Program(_) => panic!("programs are not part of these tests"),
        _ => k
            .stores
            .iter()
            .map(|s| Stmt::Store {
                value: at[&s.value],
                index: vec![move_loads(vs, s.index)],
                to: move_loads(vs, s.to),
            })
            .collect(),
    };
    k.axes.iter().rev().fold(body, |body, a: &Axis| vec![Stmt::For { axis: *a, body }])
}

/// Pseudo-random floats in -1..1.
pub(crate) fn noise(shape: &[usize], seed: u64) -> Array {
    let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let n = shape.iter().product::<usize>();
    let data: Vec<f32> = (0..n)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Array::from_f32(shape.to_vec(), &data).unwrap()
}

/// Fuses and schedules, runs, and compares with the functions as they were. atol 1e-5.
fn agree(values: &Values, outputs: &[ValueId], inputs: &[Array], dims: &Bindings) -> Vec<Kernel> {
    let want = evaluate(values, inputs, dims).unwrap();
    let mut kernels = vec![];
    for fusion in [Fusion::Off, Fusion::On] {
        let mut vs = values.clone();
        let stored = fuse(&mut vs, outputs, fusion);
        let s = schedule(&mut vs, &stored, outputs, AttentionAs::Three);
        let got = run(&vs, &s, inputs, dims).unwrap();
        for (v, got) in outputs.iter().zip(got) {
            let (a, b) = (got.to_f64().unwrap(), want[v.0 as usize].to_f64().unwrap());
            assert_eq!(a.len(), b.len());
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                assert!((a - b).abs() <= 1e-5, "{fusion:?}, element {i}: {a}, not {b}");
            }
        }
        kernels = s.kernels;
    }
    kernels
}

fn shape(dims: &[i64]) -> Vec<Dim> {
    dims.iter().map(|d| Dim::from(*d)).collect()
}

fn map(vs: &mut Values, x: ValueId, f: impl FnOnce(&mut Values, ExprId, &[ExprId]) -> ExprId) -> ValueId {
    let s = vs.shape(x).to_vec();
    vs.func(DType::Float32, s, |vs, i| {
        let e = vs.load(x, i);
        Ok(f(vs, e, i))
    })
    .unwrap()
}

/// A convolution with padding 1 and a 3x3 kernel.
fn conv(vs: &mut Values, x: ValueId, w: ValueId) -> ValueId {
    let (n, ic, h, wd) = match vs.shape(x) {
        [n, c, h, w] => (n.clone(), c.clone(), h.clone(), w.clone()),
        _ => panic!("rank"),
    };
    let oc = vs.shape(w)[0].clone();
    vs.func(DType::Float32, vec![n, oc, h.clone(), wd.clone()], |vs, i| {
        let i = i.to_vec();
        vs.fold(super::FoldOp::Sum, &[Dim::from(3), Dim::from(3), ic], |vs, k| {
            let one = vs.arena.int(1);
            let zero = vs.arena.int(0);
            let y = vs.arena.add(i[2], k[0]);
            let y = vs.arena.sub(y, one);
            let xx = vs.arena.add(i[3], k[1]);
            let xx = vs.arena.sub(xx, one);
            let (h, wd) = (vs.arena.dim(&h), vs.arena.dim(&wd));
            let mut guard = vs.arena.ge(y, zero);
            for g in [vs.arena.lt(y, h), vs.arena.ge(xx, zero), vs.arena.lt(xx, wd)] {
                guard = vs.arena.and(guard, g);
            }
            let a = vs.load(x, &[i[0], k[2], y, xx]);
            let none = vs.arena.real(super::Ty::F32, 0.0);
            let a = vs.arena.select(guard, a, none);
            let b = vs.load(w, &[i[1], k[2], k[0], k[1]]);
            Ok(vs.arena.mul(a, b))
        })
    })
    .unwrap()
}

fn relu_bias(vs: &mut Values, x: ValueId, bias: ValueId, axis: usize) -> ValueId {
    let y = map(vs, x, |vs, e, i| {
        let b = vs.load(bias, &[i[axis]]);
        vs.arena.add(e, b)
    });
    map(vs, y, |vs, e, _| {
        let zero = vs.arena.real(super::Ty::F32, 0.0);
        vs.arena.binary(super::BinaryOp::Max, e, zero)
    })
}

#[test]
fn convolutions_take_bias_and_relu_and_put_channels_last() {
    let mut vs = Values::new();
    let x = vs.input(0, DType::Float32, shape(&[1, 3, 5, 6]));
    let w = vs.constant_array(noise(&[10, 3, 3, 3], 1));
    let b = vs.constant_array(noise(&[10], 2));
    let w2 = vs.constant_array(noise(&[4, 10, 3, 3], 3));
    let b2 = vs.constant_array(noise(&[4], 4));
    let y = conv(&mut vs, x, w);
    let y = relu_bias(&mut vs, y, b, 1);
    let y = conv(&mut vs, y, w2);
    let y = relu_bias(&mut vs, y, b2, 1);
    let kernels = agree(&vs, &[y], &[noise(&[1, 3, 5, 6], 5)], &Bindings::new());
    let contracts = kernels.iter().filter(|k| matches!(k.form, Form::Contract(_))).count();
    assert_eq!((contracts, kernels.len()), (2, 3), "two convolutions and the copy to NCHW");
}

#[test]
fn a_normalization_is_one_kernel() {
    let mut vs = Values::new();
    let s = vec![Dim::sym("s"), Dim::from(7)];
    let x = vs.input(0, DType::Float32, s.clone());
    let row = vec![Dim::sym("s"), Dim::from(1)];
    let mean = |vs: &mut Values, x: ValueId| {
        vs.func(DType::Float32, row.clone(), |vs, i| {
            let i = i[0];
            let sum = vs.fold(super::FoldOp::Sum, &[Dim::from(7)], |vs, k| Ok(vs.load(x, &[i, k[0]])))?;
            let n = vs.arena.real(super::Ty::F32, 7.0);
            Ok(vs.arena.div(sum, n))
        })
        .unwrap()
    };
    let mu = mean(&mut vs, x);
    let d = map(&mut vs, x, |vs, e, i| {
        let m = vs.load_broadcast(mu, i);
        vs.arena.sub(e, m)
    });
    let q = map(&mut vs, d, |vs, e, _| vs.arena.mul(e, e));
    let var = mean(&mut vs, q);
    let y = map(&mut vs, d, |vs, e, i| {
        let v = vs.load_broadcast(var, i);
        let eps = vs.arena.real(super::Ty::F32, 1e-5);
        let v = vs.arena.add(v, eps);
        let r = vs.arena.unary(super::UnaryOp::Sqrt, v);
        vs.arena.div(e, r)
    });
    let kernels = agree(&vs, &[y], &[noise(&[3, 7], 1)], &Bindings::from([("s".into(), 3)]));
    assert_eq!(kernels.len(), 1);
}

#[test]
fn a_transposed_right_operand_is_packed() {
    let mut vs = Values::new();
    let q = vs.input(0, DType::Float32, shape(&[2, 5, 4]));
    let k = vs.input(1, DType::Float32, shape(&[2, 6, 4]));
    let t = vs
        .func(DType::Float32, shape(&[2, 4, 6]), |vs, i| {
            let at = [i[0], i[2], i[1]];
            Ok(vs.load(k, &at))
        })
        .unwrap();
    let y = vs
        .func(DType::Float32, shape(&[2, 5, 6]), |vs, i| {
            let i = i.to_vec();
            vs.fold(super::FoldOp::Sum, &[Dim::from(4)], |vs, e| {
                let a = vs.load(q, &[i[0], i[1], e[0]]);
                let b = vs.load(t, &[i[0], e[0], i[2]]);
                Ok(vs.arena.mul(a, b))
            })
        })
        .unwrap();
    let kernels = agree(&vs, &[y], &[noise(&[2, 5, 4], 1), noise(&[2, 6, 4], 2)], &Bindings::new());
    assert_eq!(kernels.len(), 2);
    assert!(matches!(&kernels[1].form, Form::Contract(c) if c.batch == 1 && c.b_order == super::BOrder::Rows));
}

#[test]
fn a_residual_goes_into_the_epilogue_and_not_into_the_next_row_kernel() {
    let mut vs = Values::new();
    let x = vs.input(0, DType::Float32, shape(&[6, 8]));
    let w = vs.constant_array(noise(&[8, 8], 1));
    let y = vs
        .func(DType::Float32, shape(&[6, 8]), |vs, i| {
            let i = i.to_vec();
            vs.fold(super::FoldOp::Sum, &[Dim::from(8)], |vs, k| {
                let a = vs.load(x, &[i[0], k[0]]);
                let b = vs.load(w, &[k[0], i[1]]);
                Ok(vs.arena.mul(a, b))
            })
        })
        .unwrap();
    let r = map(&mut vs, y, |vs, e, i| {
        let x = vs.load(x, i);
        vs.arena.add(e, x)
    });
    let m = vs
        .func(DType::Float32, shape(&[6, 1]), |vs, i| {
            let i = i[0];
            vs.fold(super::FoldOp::Max, &[Dim::from(8)], |vs, k| Ok(vs.load(r, &[i, k[0]])))
        })
        .unwrap();
    let z = map(&mut vs, r, |vs, e, i| {
        let m = vs.load_broadcast(m, i);
        vs.arena.sub(e, m)
    });
    let kernels = agree(&vs, &[z], &[noise(&[6, 8], 3)], &Bindings::new());
    assert_eq!(kernels.len(), 2);
}

#[test]
fn an_output_that_is_an_input_is_copied() {
    let mut vs = Values::new();
    let x = vs.input(0, DType::Float32, shape(&[2, 3]));
    let kernels = agree(&vs, &[x], &[noise(&[2, 3], 3)], &Bindings::new());
    assert_eq!(kernels.len(), 1);
    assert_eq!(kernels[0].axes.len(), 1, "both axes run as one");
}

#[test]
fn a_reshaping_view_is_stored_by_its_writer() {
    let mut vs = Values::new();
    let p = vs.input(0, DType::Float32, shape(&[2, 3, 5, 4]));
    let v = vs.input(1, DType::Float32, shape(&[2, 3, 4, 6]));
    let y = vs
        .func(DType::Float32, shape(&[2, 3, 5, 6]), |vs, i| {
            let i = i.to_vec();
            vs.fold(super::FoldOp::Sum, &[Dim::from(4)], |vs, k| {
                let a = vs.load(p, &[i[0], i[1], i[2], k[0]]);
                let b = vs.load(v, &[i[0], i[1], k[0], i[3]]);
                Ok(vs.arena.mul(a, b))
            })
        })
        .unwrap();
    // Transpose to [2, 5, 3, 6], reshape to [2, 5, 18].
    let z = vs
        .func(DType::Float32, shape(&[2, 5, 18]), |vs, i| {
            let six = vs.arena.int(6);
            let h = vs.arena.binary(super::BinaryOp::FloorDiv, i[2], six);
            let d = vs.arena.binary(super::BinaryOp::FloorMod, i[2], six);
            let at = [i[0], h, i[1], d];
            Ok(vs.load(y, &at))
        })
        .unwrap();
    let kernels = agree(&vs, &[z], &[noise(&[2, 3, 5, 4], 3), noise(&[2, 3, 4, 6], 4)], &Bindings::new());
    assert_eq!(kernels.len(), 1);
}

#[test]
fn a_batch_of_one_is_a_contraction_too() {
    let mut vs = Values::new();
    let x = vs.input(0, DType::Float32, shape(&[1, 5, 4]));
    let w = vs.constant_array(noise(&[4, 6], 2));
    let y = vs
        .func(DType::Float32, shape(&[1, 5, 6]), |vs, i| {
            let i = i.to_vec();
            vs.fold(super::FoldOp::Sum, &[Dim::from(4)], |vs, k| {
                let a = vs.load_broadcast(x, &[i[0], i[1], k[0]]);
                let b = vs.load(w, &[k[0], i[2]]);
                Ok(vs.arena.mul(a, b))
            })
        })
        .unwrap();
    let kernels = agree(&vs, &[y], &[noise(&[1, 5, 4], 3)], &Bindings::new());
    assert!(matches!(&kernels[..], [Kernel { form: Form::Contract(_), .. }]));
}
