//! Shaders against the naive evaluator, on a native adapter.
#![allow(clippy::unwrap_used)]

use super::testing::{Random, check};
use crate::kernel::{BinaryOp, ExprId, FoldOp, Fusion, Node, Scalar, Stmt, Ty, UnaryOp, ValueId, Values};
use crate::tensor::{Array, DType, Dim, Shape};

fn known(shape: &[usize]) -> Shape {
    shape.iter().map(|n| Dim::from(*n)).collect()
}

fn map(vs: &mut Values, x: ValueId, dtype: DType, f: impl Fn(&mut Values, ExprId) -> ExprId) -> ValueId {
    let shape = vs.shape(x).to_vec();
    vs.func(dtype, shape, |vs, i| {
        let x = vs.load(x, i);
        Ok(f(vs, x))
    })
    .unwrap()
}

#[test]
fn unary_operators_agree_with_the_evaluator() {
    use UnaryOp::*;
    let smooth =
        [-9.5f32, -3.0, -1.25, -1.0, -0.5, -1e-3, -1e-6, 0.0, 1e-6, 1e-3, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 7.0, 30.0];
    let unit = [-1.0f32, -0.75, -0.5, -0.1, -1e-4, 0.0, 1e-4, 0.2, 0.5, 0.51, 0.9, 1.0];
    let positive = [1e-30f32, 1e-5, 0.1, 0.5, 0.999, 1.0, 1.0001, 1.5, 2.0, 10.0, 1e10, 3e38];
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, 2.5, 3.5];
    let cases: Vec<(UnaryOp, &[f32], f64, f64)> = vec![
        (Neg, &smooth, 0.0, 0.0),
        (Abs, &smooth, 0.0, 0.0),
        (Sign, &smooth, 0.0, 0.0),
        (Sign, &odd, 0.0, 0.0),
        (Floor, &smooth, 0.0, 0.0),
        (Ceil, &smooth, 0.0, 0.0),
        (Trunc, &smooth, 0.0, 0.0),
        (Round, &smooth, 0.0, 0.0),
        (Sqrt, &positive, 0.0, 1e-6),
        (Exp, &smooth, 1e-9, 1e-5),
        (Log, &positive, 1e-9, 2e-7),
        (Log, &odd, 1e-9, 2e-7),
        (Sin, &smooth, 2e-7, 1e-6),
        (Cos, &smooth, 2e-7, 1e-6),
        (Asin, &unit, 1e-9, 1e-6),
        (Acos, &unit, 2e-7, 1e-6),
        (Atan, &smooth, 1e-9, 1e-6),
        (Tanh, &smooth, 1e-9, 1e-6),
        (Tanh, &odd, 1e-9, 1e-6),
        (Erf, &smooth, 1e-9, 1e-6),
        (RoundF16, &smooth, 0.0, 0.0),
        (RoundF16, &odd, 0.0, 0.0),
        (RoundF16, &positive, 0.0, 0.0),
        (RoundBf16, &smooth, 0.0, 0.0),
        (RoundBf16, &odd, 0.0, 0.0),
    ];
    for (op, data, atol, rtol) in cases {
        let make = |vs: &mut Values| {
            let x = vs.input(0, DType::Float32, known(&[data.len()]));
            vec![map(vs, x, DType::Float32, |vs, x| vs.arena.unary(op, x))]
        };
        let x = Array::from_f32(vec![data.len()], data).unwrap();
        check(&format!("{op:?}"), &make, &[x], &[], (atol, rtol));
    }
    for (op, dtype) in [(IsNan, DType::Bool), (IsInf, DType::Bool), (Bitcast(Ty::I32), DType::Int32)] {
        let make = |vs: &mut Values| {
            let x = vs.input(0, DType::Float32, known(&[8]));
            vec![map(vs, x, dtype, |vs, x| vs.arena.unary(op, x))]
        };
        let x = Array::from_f32(vec![8], &odd).unwrap();
        check(&format!("{op:?}"), &make, &[x], &[], (0.0, 0.0));
    }
}

#[test]
fn casts_agree_with_the_evaluator() {
    let reals = [0.0f32, -0.5, 1.5, -7.9, 100.0, 300.0, -130.0, 70_000.0, 1e9, -1e9, 0.25, 3.0];
    for to in [DType::Int8, DType::Int16, DType::Int32, DType::Int64, DType::Uint8, DType::Uint32, DType::Bool] {
        let make = |vs: &mut Values| {
            let x = vs.input(0, DType::Float32, known(&[12]));
            vec![map(vs, x, to, |vs, x| vs.arena.cast(Ty::of(to), x))]
        };
        check(&format!("f32 to {to}"), &make, &[Array::from_f32(vec![12], &reals).unwrap()], &[], (0.0, 0.0));
    }
    let mut random = Random(7);
    for from in [DType::Int8, DType::Int16, DType::Int32, DType::Int64, DType::Uint8, DType::Uint16, DType::Bool] {
        let high = if from == DType::Bool { 1 } else { 120 };
        let x = random.ints(from, &[3, 5], if from.is_unsigned() || from == DType::Bool { 0 } else { -120 }, high);
        for to in [DType::Float32, DType::Float16, DType::Int8, DType::Int64, DType::Uint8, DType::Bool] {
            let make = |vs: &mut Values| {
                let x = vs.input(0, from, known(&[3, 5]));
                vec![map(vs, x, to, |vs, x| vs.arena.cast(Ty::of(to), x))]
            };
            check(&format!("{from} to {to}"), &make, std::slice::from_ref(&x), &[], (0.0, 0.0));
        }
    }
}

#[test]
fn binary_operators_agree_with_the_evaluator() {
    use BinaryOp::*;
    let mut random = Random(3);
    let pair = |op: BinaryOp, dtype: DType, a: &Array, b: &Array, tolerance: (f64, f64)| {
        let make = |vs: &mut Values| {
            let shape: Shape = known(a.shape());
            let x = vs.input(0, dtype, shape.clone());
            let y = vs.input(1, dtype, shape.clone());
            let out = if op.is_comparison() { DType::Bool } else { dtype };
            let f = vs.func(out, shape, |vs, i| {
                let (x, y) = (vs.load(x, i), vs.load(y, i));
                Ok(vs.arena.binary(op, x, y))
            });
            vec![f.unwrap()]
        };
        check(&format!("{op:?} of {dtype}"), &make, &[a.clone(), b.clone()], &[], tolerance);
    };
    let a = Array::from_f32(
        vec![16],
        &[1.0, -2.0, 3.5, -7.0, 6.0, 9.0, 0.0, 2.0, f32::NAN, 1.0, -3.0, 10.0, 0.5, 2.0, -2.0, 4.0],
    );
    let b = Array::from_f32(
        vec![16],
        &[2.0, 3.0, -2.0, 2.0, 3.0, -3.0, 2.0, 0.5, 1.0, f32::NAN, 3.0, 0.1, 0.5, -2.0, 3.0, 0.0],
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    for op in [Add, Sub, Mul, Min, Max, Pow, Eq, Ne, Lt, Le, Gt, Ge] {
        pair(op, DType::Float32, &a, &b, (1e-9, 1e-5));
    }
    let nonzero = Array::from_f32(vec![4], &[2.0, -3.0, 0.75, 1e3]).unwrap();
    let x = Array::from_f32(vec![4], &[7.5, 9.0, -0.8, -1e3]).unwrap();
    for op in [Div, Rem, FloorMod] {
        pair(op, DType::Float32, &x, &nonzero, (1e-6, 1e-6));
    }
    for (dtype, low) in
        [(DType::Int32, -9), (DType::Int8, -9), (DType::Uint8, 0), (DType::Uint32, 0), (DType::Int64, -9)]
    {
        let (a, b) = (random.ints(dtype, &[3, 8], low, 9), random.ints(dtype, &[3, 8], low, 9));
        for op in [Add, Mul, Div, Rem, FloorDiv, FloorMod, Min, Max, And, Or, Xor, Eq, Lt, Ge] {
            pair(op, dtype, &a, &b, (0.0, 0.0));
        }
        let n = random.ints(dtype, &[3, 8], 0, 7);
        pair(Shl, dtype, &a, &n, (0.0, 0.0));
        pair(Shr, dtype, &a, &n, (0.0, 0.0));
    }
    let (a, b) = (random.ints(DType::Bool, &[9], 0, 1), random.ints(DType::Bool, &[9], 0, 1));
    for op in [And, Or, Xor, Eq] {
        pair(op, DType::Bool, &a, &b, (0.0, 0.0));
    }
}

/// Softmax over the last axis of `[b, n]`, scaled by a constant.
pub(super) fn softmax(vs: &mut Values, shape: Shape) -> Vec<ValueId> {
    let x = vs.input(0, DType::Float32, shape.clone());
    let n = [shape[1].clone()];
    let y = vs.func(DType::Float32, shape, |vs, i| {
        let row = i[0];
        let max = vs.fold(FoldOp::Max, &n, |vs, k| Ok(vs.load(x, &[row, k[0]])))?;
        let e = |vs: &mut Values, j: ExprId| {
            let x = vs.load(x, &[row, j]);
            let d = vs.arena.sub(x, max);
            vs.arena.unary(UnaryOp::Exp, d)
        };
        let sum = vs.fold(FoldOp::Sum, &n, |vs, k| Ok(e(vs, k[0])))?;
        let top = e(vs, i[1]);
        Ok(vs.arena.div(top, sum))
    });
    vec![y.unwrap()]
}

#[test]
fn rows_agree_with_the_evaluator() {
    let mut random = Random(11);
    for n in [3usize, 4, 17, 64, 100, 1000] {
        let x = random.array(&[5, n]);
        check(
            &format!("softmax of {n}"),
            &|vs| softmax(vs, known(&[5, n])),
            std::slice::from_ref(&x),
            &[],
            (1e-7, 1e-5),
        );
        let symbolic = |vs: &mut Values| softmax(vs, vec![Dim::sym("b"), Dim::sym("n")]);
        check(&format!("softmax of n = {n}"), &symbolic, &[x], &[("b", 5), ("n", n as i64)], (1e-7, 1e-5));
    }
}

#[test]
fn folds_agree_with_the_evaluator() {
    let mut random = Random(5);
    let shapes: [[usize; 3]; 4] = [[2, 3, 8], [1, 40, 6], [3, 1, 7], [2, 17, 300]];
    for shape in shapes {
        let x = random.array(&shape);
        for op in [FoldOp::Sum, FoldOp::Prod, FoldOp::Max, FoldOp::Min] {
            for axes in [vec![0], vec![1], vec![2], vec![1, 2], vec![0, 1, 2]] {
                let make = |vs: &mut Values| {
                    let x = vs.input(0, DType::Float32, known(&shape));
                    let keep: Vec<usize> = (0..3).filter(|a| !axes.contains(a)).collect();
                    let out: Shape = keep.iter().map(|a| Dim::from(shape[*a])).collect();
                    let over: Vec<Dim> = axes.iter().map(|a| Dim::from(shape[*a])).collect();
                    let f = vs.func(DType::Float32, out, |vs, i| {
                        vs.fold(op, &over, |vs, k| {
                            let mut at = vec![ExprId(0); 3];
                            for (n, a) in keep.iter().enumerate() {
                                at[*a] = i[n];
                            }
                            for (n, a) in axes.iter().enumerate() {
                                at[*a] = k[n];
                            }
                            Ok(vs.load(x, &at))
                        })
                    });
                    vec![f.unwrap()]
                };
                let name = format!("{op:?} over {axes:?} of {shape:?}");
                check(&name, &make, std::slice::from_ref(&x), &[], (5e-5, 1e-5));
            }
        }
        for last in [false, true] {
            for op in [FoldOp::ArgMax { last }, FoldOp::ArgMin { last }] {
                let make = |vs: &mut Values| {
                    let x = vs.input(0, DType::Int8, known(&shape));
                    let f = vs.func(DType::Int32, known(&shape[..2]), |vs, i| {
                        vs.fold(op, &[Dim::from(shape[2])], |vs, k| Ok(vs.load(x, &[i[0], i[1], k[0]])))
                    });
                    vec![f.unwrap()]
                };
                let x = random.ints(DType::Int8, &shape, -2, 2);
                check(&format!("{op:?} of {shape:?}"), &make, &[x], &[], (0.0, 0.0));
            }
        }
    }
}

#[test]
fn views_agree_with_the_evaluator() {
    let mut random = Random(2);
    let x = random.array(&[4, 6, 8]);
    // A transpose, a broadcast, a strided slice with a guard.
    let make = |vs: &mut Values| {
        let x = vs.input(0, DType::Float32, known(&[4, 6, 8]));
        let turned = vs.func(DType::Float32, known(&[8, 4, 6]), |vs, i| Ok(vs.load(x, &[i[1], i[2], i[0]]))).unwrap();
        let padded = vs
            .func(DType::Float32, known(&[4, 10, 8]), |vs, i| {
                let (one, six, zero) = (vs.arena.int(1), vs.arena.int(6), vs.arena.real(Ty::F32, 0.5));
                let at = vs.arena.sub(i[1], one);
                let nothing = vs.arena.int(0);
                let (low, high) = (vs.arena.ge(at, nothing), vs.arena.lt(at, six));
                let inside = vs.arena.and(low, high);
                let v = vs.load(x, &[i[0], at, i[2]]);
                Ok(vs.arena.select(inside, v, zero))
            })
            .unwrap();
        let flat = vs
            .func(DType::Float32, known(&[24, 8]), |vs, i| {
                let six = vs.arena.int(6);
                let (a, b) =
                    (vs.arena.binary(BinaryOp::FloorDiv, i[0], six), vs.arena.binary(BinaryOp::FloorMod, i[0], six));
                Ok(vs.load(x, &[a, b, i[1]]))
            })
            .unwrap();
        let position = vs
            .func(DType::Int32, known(&[4, 12]), |vs, i| {
                let twelve = vs.arena.int(12);
                let row = vs.arena.mul(i[0], twelve);
                Ok(vs.arena.add(row, i[1]))
            })
            .unwrap();
        vec![turned, padded, flat, position]
    };
    check("views", &make, &[x], &[], (0.0, 0.0));
}

#[test]
fn arithmetic_that_leaves_32_bits_is_refused() {
    let run = |data: [i64; 2]| {
        let mut vs = Values::new();
        let x = vs.input(0, DType::Int64, known(&[2]));
        let f = map(&mut vs, x, DType::Int64, |vs, x| vs.arena.mul(x, x));
        let x = Array::from_i64(vec![2], &data).unwrap();
        super::testing::run(&mut vs, &[f], &[x], &Default::default(), Fusion::On, 0).overflow
    };
    assert!(!run([3, -46_340]));
    assert!(run([3, 46_341]));
}

#[test]
fn constants_that_are_no_numbers_survive() {
    let make = |vs: &mut Values| {
        let x = vs.input(0, DType::Float32, known(&[4]));
        let each = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX];
        each.iter()
            .map(|c| {
                map(vs, x, DType::Float32, |vs, x| {
                    let c = vs.arena.constant(Scalar::f32(*c));
                    vs.arena.add(x, c)
                })
            })
            .collect()
    };
    check("constants", &make, &[Array::from_f32(vec![4], &[0.0, 1.0, -1.0, 2.0]).unwrap()], &[], (0.0, 0.0));
}

#[test]
fn programs_agree_with_the_evaluator() {
    let mut random = Random(21);
    let x = random.array(&[3, 20]);
    // Sorts each row in place (insertion sort), then counts what is positive: loops, conditions, reads of own stores.
    let make = |vs: &mut Values| {
        let x = vs.input(0, DType::Float32, known(&[3, 20]));
        let out = vec![(DType::Float32, known(&[3, 20])), (DType::Int64, known(&[3]))];
        vs.program(out, |vs, out| {
            let a = &mut vs.arena;
            let (rows, columns, again) = (a.axis(Dim::from(3)), a.axis(Dim::from(20)), a.axis(Dim::from(20)));
            let (r, c, d) = (a.axis_expr(rows), a.axis_expr(columns), a.axis_expr(again));
            let (at, held, count) = (a.var(), a.var(), a.var());
            let (zero, one) = (a.int(0), a.int(1));
            let (ev, eh) = (a.add_node(Node::Var(at, Ty::I32)), a.add_node(Node::Var(held, Ty::F32)));
            let before = a.sub(ev, one);
            let clamped = a.binary(BinaryOp::Max, before, zero);
            let left = vs.load(out[0], &[r, clamped]);
            let a = &mut vs.arena;
            let (further, low) = (a.binary(BinaryOp::Gt, ev, zero), a.real(Ty::F32, -1e9));
            let before_it = a.select(further, left, low);
            let condition = a.binary(BinaryOp::Gt, before_it, eh);
            let first = vs.load(x, &[r, c]);
            let sorted = vs.load(out[0], &[r, d]);
            let a = &mut vs.arena;
            let none = a.real(Ty::F32, 0.0);
            let positive = a.binary(BinaryOp::Gt, sorted, none);
            let (nil, step) = (a.constant(Scalar::int(Ty::I64, 0)), a.constant(Scalar::int(Ty::I64, 1)));
            let en = a.add_node(Node::Var(count, Ty::I64));
            let more = a.add(en, step);
            let body = vec![
                Stmt::For {
                    axis: columns,
                    body: vec![
                        Stmt::Set { var: at, ty: Ty::I32, to: c },
                        Stmt::Set { var: held, ty: Ty::F32, to: first },
                        Stmt::While {
                            condition,
                            body: vec![
                                Stmt::Store { value: out[0], index: vec![r, ev], to: left },
                                Stmt::Set { var: at, ty: Ty::I32, to: before },
                            ],
                        },
                        Stmt::Store { value: out[0], index: vec![r, ev], to: eh },
                    ],
                },
                Stmt::Set { var: count, ty: Ty::I64, to: nil },
                Stmt::For {
                    axis: again,
                    body: vec![Stmt::If {
                        condition: positive,
                        then: vec![Stmt::Set { var: count, ty: Ty::I64, to: more }],
                        otherwise: vec![],
                    }],
                },
                Stmt::Store { value: out[1], index: vec![r], to: en },
            ];
            Ok((vec![rows], body))
        })
        .unwrap()
    };
    check("insertion sort", &make, &[x], &[], (0.0, 0.0));
}

/// `relu(x · w + bias) + r`, x `[batch…, m, k]`, w constant `[k, n]` or an input `[batch…, k, n]`.
pub(super) fn matmul(vs: &mut Values, batch: &[Dim], m: &Dim, k: usize, n: usize, w: Option<&Array>) -> Vec<ValueId> {
    let shape = |tail: [Dim; 2]| [batch, &tail[..]].concat();
    let (dk, dn) = (Dim::from(k), Dim::from(n));
    let x = vs.input(0, DType::Float32, shape([m.clone(), dk.clone()]));
    let constant = w.is_some();
    let w = match w {
        Some(w) => vs.constant_array(w.clone()),
        None => vs.input(1, DType::Float32, shape([dk.clone(), dn.clone()])),
    };
    let bias = Array::from_f32(vec![n], &(0..n).map(|i| i as f32 * 0.01).collect::<Vec<_>>()).unwrap();
    let bias = vs.constant_array(bias);
    let y = vs
        .func(DType::Float32, shape([m.clone(), dn]), |vs, i| {
            let (outer, last) = i.split_at(i.len() - 2);
            let sum = vs.fold(FoldOp::Sum, &[dk], |vs, k| {
                let a = vs.load(x, &[outer, &[last[0], k[0]]].concat());
                let b = match constant {
                    true => vs.load(w, &[k[0], last[1]]),
                    false => vs.load(w, &[outer, &[k[0], last[1]]].concat()),
                };
                Ok(vs.arena.mul(a, b))
            })?;
            let bias = vs.load(bias, &[last[1]]);
            let sum = vs.arena.add(sum, bias);
            let zero = vs.arena.real(Ty::F32, 0.0);
            Ok(vs.arena.binary(BinaryOp::Max, sum, zero))
        })
        .unwrap();
    vec![y]
}

#[test]
fn products_agree_with_the_evaluator() {
    let mut random = Random(31);
    for (m, k, n) in [
        (1usize, 8usize, 8usize),
        (3, 4, 5),
        (17, 12, 24),
        (20, 7, 10),
        (64, 32, 64),
        (5, 16, 100),
        (9, 3, 1),
        (70, 20, 36),
    ] {
        let x = random.array(&[m, k]);
        let w = random.array(&[k, n]);
        let name = format!("{m} x {k} x {n}");
        let make = |vs: &mut Values| matmul(vs, &[], &Dim::from(m), k, n, Some(&w));
        let shaders = check(&name, &make, std::slice::from_ref(&x), &[], (1e-5, 1e-5));
        assert!(shaders.iter().any(|s| s.code.literal().contains("acc0_0")), "{name} is no contraction");
        let make = |vs: &mut Values| matmul(vs, &[], &Dim::sym("m"), k, n, Some(&w));
        check(&format!("{name}, m at run time"), &make, &[x], &[("m", m as i64)], (1e-5, 1e-5));
        let (x, w) = (random.array(&[3, m, k]), random.array(&[3, k, n]));
        let make = |vs: &mut Values| matmul(vs, &[Dim::from(3)], &Dim::from(m), k, n, None);
        check(&format!("{name}, batched"), &make, &[x, w], &[], (1e-5, 1e-5));
    }
}

#[test]
fn products_that_differ_in_extents_share_a_shader() {
    let mut random = Random(37);
    let widths = [8usize, 32, 64, 32];
    let weights: Vec<Array> = widths.windows(2).map(|w| random.array(&[w[0], w[1]])).collect();
    let make = |vs: &mut Values| {
        let mut x = vs.input(0, DType::Float32, known(&[20, widths[0]]));
        for w in &weights {
            let (k, n) = (Dim::from(w.shape()[0]), Dim::from(w.shape()[1]));
            let w = vs.constant_array(w.clone());
            let product = vs.func(DType::Float32, vec![Dim::from(20), n], |vs, i| {
                let sum = vs.fold(FoldOp::Sum, &[k], |vs, k| {
                    let (a, b) = (vs.load(x, &[i[0], k[0]]), vs.load(w, &[k[0], i[1]]));
                    Ok(vs.arena.mul(a, b))
                })?;
                Ok(vs.arena.unary(UnaryOp::Tanh, sum))
            });
            x = product.unwrap();
        }
        vec![x]
    };
    let x = random.array(&[20, widths[0]]);
    let shaders = check("three layers", &make, &[x], &[], (1e-5, 1e-5));
    let shared = super::share(&shaders.iter().map(|s| &s.code).collect::<Vec<_>>());
    assert_eq!(shared.len(), 1);
    assert!(shared[0].users.iter().all(|(_, numbers)| !numbers.is_empty()));
}

#[test]
fn large_products_have_a_candidate_in_workgroup_memory() {
    for (m, n, all) in [(64, 64, 2), (16, 64, 1), (64, 30, 1), (64, 16, 1)] {
        let w = Array::from_f32(vec![32, n], &vec![0.5; 32 * n]).unwrap();
        let mut values = Values::new();
        let outputs = matmul(&mut values, &[], &Dim::from(m), 32, n, Some(&w));
        let stored = crate::kernel::fuse(&mut values, &outputs, Fusion::On);
        let scheduled = crate::kernel::schedule(&mut values, &stored, &outputs, crate::kernel::AttentionAs::One);
        let candidates = super::emit_candidates(&mut values, &scheduled.kernels[0], &[]).unwrap();
        assert_eq!(candidates.len(), all, "{m} x 32 x {n}");
        assert_eq!(candidates[0].workgroup_storage, 0);
        assert_eq!(candidates.last().map(|c| c.workgroup_storage > 0), Some(all > 1));
    }
}

/// A convolution with padding: x `[1, c, h, w]`, weights `[o, c, kh, kw]`; depthwise where `groups` is `c`.
pub(super) struct Conv {
    pub c: usize,
    pub o: usize,
    pub hw: usize,
    pub k: usize,
    pub stride: usize,
    pub depthwise: bool,
}

pub(super) fn conv(vs: &mut Values, s: &Conv, w: &Array) -> Vec<ValueId> {
    let x = vs.input(0, DType::Float32, known(&[1, s.c, s.hw, s.hw]));
    let w = vs.constant_array(w.clone());
    let pad = (s.k / 2) as i64;
    let out = (s.hw + 2 * (s.k / 2) - s.k) / s.stride + 1;
    let y = vs.func(DType::Float32, known(&[1, s.o, out, out]), |vs, i| {
        let mut over = known(&[s.k, s.k]);
        if !s.depthwise {
            over.insert(0, Dim::from(s.c));
        }
        let sum = vs.fold(FoldOp::Sum, &over, |vs, k| {
            let (ch, wc) = if s.depthwise { (i[1], vs.arena.int(0)) } else { (k[0], k[0]) };
            let taps = &k[k.len() - 2..];
            let mut at = vec![i[0], ch];
            let mut guard = vs.arena.constant(Scalar::bool(true));
            for d in 0..2 {
                let (stride, pad) = (vs.arena.int(s.stride as i64), vs.arena.int(pad));
                let p = vs.arena.mul(i[2 + d], stride);
                let p = vs.arena.add(p, taps[d]);
                let p = vs.arena.sub(p, pad);
                let (zero, end) = (vs.arena.int(0), vs.arena.int(s.hw as i64));
                let (low, high) = (vs.arena.ge(p, zero), vs.arena.lt(p, end));
                guard = vs.arena.and(guard, low);
                guard = vs.arena.and(guard, high);
                at.push(p);
            }
            let v = vs.load(x, &at);
            let none = vs.arena.real(Ty::F32, 0.0);
            let v = vs.arena.select(guard, v, none);
            let w = vs.load(w, &[i[1], wc, taps[0], taps[1]]);
            Ok(vs.arena.mul(v, w))
        })?;
        let zero = vs.arena.real(Ty::F32, 0.0);
        Ok(vs.arena.binary(BinaryOp::Max, sum, zero))
    });
    vec![y.unwrap()]
}

#[test]
fn convolutions_agree_with_the_evaluator() {
    let mut random = Random(41);
    let case = |c, o, hw, k, stride, depthwise| Conv { c, o, hw, k, stride, depthwise };
    let cases = [
        case(3, 8, 9, 3, 2, false),
        case(8, 16, 7, 3, 1, false),
        case(8, 36, 9, 3, 1, false),
        case(4, 6, 5, 1, 1, false),
        case(8, 12, 6, 1, 2, false),
        case(8, 8, 10, 3, 1, true),
        case(16, 16, 9, 5, 2, true),
        case(6, 6, 7, 3, 1, true),
    ];
    for s in cases {
        let x = random.array(&[1, s.c, s.hw, s.hw]);
        let w = random.array(&[s.o, if s.depthwise { 1 } else { s.c }, s.k, s.k]);
        let name = format!("{} to {} of {}, {}, stride {}", s.c, s.o, s.hw, s.k, s.stride);
        check(&name, &|vs| conv(vs, &s, &w), &[x], &[], (1e-5, 1e-5));
    }
}

/// `softmax(q · kᵀ · scale + mask) · v`, q `[h, m, d]`, k `[h, t, d]`, v `[h, t, n]`, mask `[t]`.
pub(super) fn attention(vs: &mut Values, h: usize, m: &Dim, t: &Dim, d: usize, n: usize) -> Vec<ValueId> {
    let (dh, dd, dn) = (Dim::from(h), Dim::from(d), Dim::from(n));
    let q = vs.input(0, DType::Float32, vec![dh.clone(), m.clone(), dd.clone()]);
    let k = vs.input(1, DType::Float32, vec![dh.clone(), t.clone(), dd.clone()]);
    let v = vs.input(2, DType::Float32, vec![dh.clone(), t.clone(), dn.clone()]);
    let mask = vs.input(3, DType::Float32, vec![t.clone()]);
    let over = [t.clone()];
    let shape = vec![dh.clone(), m.clone(), t.clone()];
    let score = vs.func(DType::Float32, shape.clone(), |vs, i| {
        let sum = vs.fold(FoldOp::Sum, &[dd], |vs, e| {
            let (x, y) = (vs.load(q, &[i[0], i[1], e[0]]), vs.load(k, &[i[0], i[2], e[0]]));
            Ok(vs.arena.mul(x, y))
        })?;
        let scale = vs.arena.real(Ty::F32, 0.25);
        let sum = vs.arena.mul(sum, scale);
        let mask = vs.load(mask, &[i[2]]);
        Ok(vs.arena.add(sum, mask))
    });
    let score = score.unwrap();
    let p = vs.func(DType::Float32, shape, |vs, i| {
        let max = vs.fold(FoldOp::Max, &over, |vs, e| Ok(vs.load(score, &[i[0], i[1], e[0]])))?;
        let e = |vs: &mut Values, j: ExprId| {
            let x = vs.load(score, &[i[0], i[1], j]);
            let d = vs.arena.sub(x, max);
            vs.arena.unary(UnaryOp::Exp, d)
        };
        let sum = vs.fold(FoldOp::Sum, &over, |vs, j| Ok(e(vs, j[0])))?;
        let top = e(vs, i[2]);
        Ok(vs.arena.div(top, sum))
    });
    let p = p.unwrap();
    let y = vs.func(DType::Float32, vec![dh, m.clone(), dn], |vs, i| {
        vs.fold(FoldOp::Sum, &over, |vs, t| {
            let (x, y) = (vs.load(p, &[i[0], i[1], t[0]]), vs.load(v, &[i[0], t[0], i[2]]));
            Ok(vs.arena.mul(x, y))
        })
    });
    vec![y.unwrap()]
}

#[test]
fn attention_agrees_with_the_evaluator() {
    let mut random = Random(61);
    for (h, m, t, d, n) in
        [(2usize, 5usize, 7usize, 8usize, 8usize), (3, 8, 4, 32, 32), (1, 1, 9, 6, 5), (2, 3, 3, 64, 128)]
    {
        let mut inputs = vec![random.array(&[h, m, d]), random.array(&[h, t, d]), random.array(&[h, t, n])];
        let mut mask = vec![0.0; t];
        mask[0] = f32::NEG_INFINITY;
        mask[t / 2] = -3.0e38;
        inputs.push(Array::from_f32(vec![t], &mask).unwrap());
        let name = format!("{h} heads, {m} x {t}, {d}, {n}");
        let make = |vs: &mut Values| attention(vs, h, &Dim::from(m), &Dim::from(t), d, n);
        check(&name, &make, &inputs, &[], (1e-6, 1e-5));
        let make = |vs: &mut Values| attention(vs, h, &Dim::sym("m"), &Dim::sym("t"), d, n);
        let shaders = check(&name, &make, &inputs, &[("m", m as i64), ("t", t as i64)], (1e-6, 1e-5));
        assert!(shaders.iter().any(|s| s.code.literal().contains("max0")), "{name} is no attention");
    }
}

/// The shaders of what computes the outputs, as text.
fn text(make: &dyn Fn(&mut Values) -> Vec<ValueId>, dims: &[crate::tensor::Sym]) -> String {
    let mut values = Values::new();
    let outputs = make(&mut values);
    let stored = crate::kernel::fuse(&mut values, &outputs, Fusion::On);
    let scheduled = crate::kernel::schedule(&mut values, &stored, &outputs, crate::kernel::AttentionAs::One);
    let all = scheduled.kernels.iter().map(|k| super::emit_candidates(&mut values, k, dims).unwrap()[0].code.literal());
    all.collect::<Vec<_>>().join("\n")
}

#[test]
fn shaders_as_text() {
    let scale = |vs: &mut Values| {
        let x = vs.input(0, DType::Float32, known(&[2, 8]));
        vec![map(vs, x, DType::Float32, |vs, x| {
            let half = vs.arena.real(Ty::F32, 0.5);
            let y = vs.arena.mul(x, half);
            vs.arena.unary(UnaryOp::Tanh, y)
        })]
    };
    insta::assert_snapshot!("map", text(&scale, &[]));
    let rows = |vs: &mut Values| softmax(vs, vec![Dim::from(2), Dim::sym("n")]);
    insta::assert_snapshot!("softmax", text(&rows, &["n".into()]));
    let w = Array::from_f32(vec![4, 8], &[0.5; 32]).unwrap();
    insta::assert_snapshot!("product", text(&|vs| matmul(vs, &[], &Dim::from(2), 4, 8, Some(&w)), &[]));
}
