//! Emitted modules under wasmtime against the naive evaluator.

mod products;

use super::{Memory, Variant, emit, zeros_needed};
use crate::kernel::reference::evaluate;
use crate::kernel::{
    AttentionAs, BinaryOp, Def, ExprId, FoldOp, Fusion, Schedule, Stmt, Ty, UnaryOp, ValueId, Values, fuse, schedule,
};
use crate::runtime::cpu::CpuModule;
use crate::tensor::{Array, Bindings, DType, Dim, DimRange, Sym};

/// A module with its memory laid out: every value at a place of its own.
pub(super) struct Laid {
    pub(super) wasm: Vec<u8>,
    pub(super) memory: Memory,
}

pub(super) fn lay_out(values: &Values, s: &Schedule, variant: Variant) -> Laid {
    let mut next = 1024u64;
    let mut take = |bytes: u64| {
        let at = next;
        next = (next + bytes + 64).next_multiple_of(64);
        at as u32
    };
    let mut memory = Memory { dim_order: values.arena.ranges.keys().cloned().collect(), ..Memory::default() };
    memory.dims = take(64);
    memory.zeros = take(zeros_needed(values, &s.kernels));
    for (v, layout) in &s.layouts {
        let n = layout.len(values.shape(*v)).range(&values.arena.ranges).max;
        memory.at.insert(*v, take(n as u64 * values.dtype(*v).size() as u64));
    }
    memory.bytes = next;
    let wasm = emit(values, &s.kernels, &memory, variant).unwrap();
    wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all()).validate_all(&wasm).unwrap();
    assert_eq!(wasm, emit(values, &s.kernels, &memory, variant).unwrap(), "not deterministic");
    Laid { wasm, memory }
}

pub(in crate::emit) fn run(
    values: &Values,
    s: &Schedule,
    variant: Variant,
    inputs: &[Array],
    dims: &Bindings,
) -> Vec<Array> {
    let laid = lay_out(values, s, variant);
    let m = &laid.memory;
    let threads = if variant == Variant::Threads { 3 } else { 1 };
    let mut host = CpuModule::new(&laid.wasm, m.bytes, threads).unwrap();
    for (i, name) in m.dim_order.iter().enumerate() {
        host.write(m.dims + 4 * i as u32, &(dims[name] as i32).to_le_bytes()).unwrap();
    }
    for (v, layout) in &s.layouts {
        match &values.get(*v).def {
            Def::Input(i) => host.write(m.at[v], inputs[*i].bytes()).unwrap(),
            Def::Constant(a) => host.write(m.at[v], &layout.arrange(a).unwrap()).unwrap(),
            _ => {
                let n = layout.len(values.shape(*v)).eval(dims).unwrap() as usize * values.dtype(*v).size();
                host.write(m.at[v], &vec![0xAA; n]).unwrap();
            }
        }
    }
    host.run().unwrap();
    s.outputs
        .iter()
        .map(|v| {
            let shape = crate::plan::resolve(values.shape(*v), dims).unwrap();
            let n = shape.iter().product::<usize>() * values.dtype(*v).size();
            Array::new(values.dtype(*v), shape, host.read(m.at[v], n).unwrap()).unwrap()
        })
        .collect()
}

fn compare(what: &str, got: &Array, want: &Array, atol: f64, rtol: f64) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let (Some(g), Some(w)) = (got.to_f64(), want.to_f64()) else {
        assert_eq!(got.to_i64(), want.to_i64(), "{what}");
        assert_eq!(got.bytes(), want.bytes(), "{what}");
        return;
    };
    for (i, (g, w)) in g.iter().zip(&w).enumerate() {
        let same = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= atol + rtol * w.abs();
        assert!(same, "{what}: element {i} is {g}, not {w}");
    }
}

/// Runs the outputs of `values` in every variant, fused and not, and compares.
fn check(name: &str, values: &Values, outputs: &[ValueId], inputs: &[Array], dims: &Bindings, atol: f64, rtol: f64) {
    let all = evaluate(values, inputs, dims).unwrap();
    for fusion in [Fusion::On, Fusion::Off] {
        let mut v = values.clone();
        let stored = fuse(&mut v, outputs, fusion);
        let s = schedule(&mut v, &stored, outputs, AttentionAs::Three);
        for variant in [Variant::Simd, Variant::Relaxed, Variant::Threads] {
            let got = run(&v, &s, variant, inputs, dims);
            for (o, g) in outputs.iter().zip(&got) {
                let what = format!("{name}, {fusion:?}, {variant:?}, output {}", o.0);
                compare(&what, g, &all[o.0 as usize], atol, rtol);
            }
        }
    }
}

/// Numbers from -2 to 2, the same every time.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..n)
        .map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect()
}

pub(super) fn floats(shape: &[usize], seed: u32) -> Array {
    Array::from_f32(shape.to_vec(), &noise(shape.iter().product(), seed)).unwrap()
}

pub(super) fn dims(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|n| Dim::from(*n)).collect()
}

/// Integers and floats of a type, with its extremes among them.
fn samples(dtype: DType, n: usize) -> Array {
    let x = noise(n, 7);
    let bytes: Vec<u8> = (0..n)
        .flat_map(|i| {
            let f = f64::from(x[i]);
            let int = match i % 11 {
                0 => i64::MIN,
                1 => i64::MAX,
                2 => 0,
                3 => -1,
                4 => 1,
                _ => (f * 20.0) as i64,
            };
            let float = match i % 23 {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => f64::NEG_INFINITY,
                3 => -0.0,
                4 => 0.0,
                5 => 1.0,
                6 => -1.0,
                7 => 0.5,
                8 => 2.5,
                9 => 1e-40,
                10 => 3e9,
                _ => f * 4.0,
            };
            match dtype {
                DType::Float32 => (float as f32).to_le_bytes().to_vec(),
                DType::Float64 => float.to_le_bytes().to_vec(),
                DType::Float16 => half::f16::from_f64(float).to_le_bytes().to_vec(),
                DType::BFloat16 => half::bf16::from_f64(float).to_le_bytes().to_vec(),
                DType::Bool => vec![u8::from(int & 1 != 0)],
                DType::Int8 | DType::Uint8 => vec![int as u8],
                DType::Int16 | DType::Uint16 => (int as u16).to_le_bytes().to_vec(),
                DType::Int32 | DType::Uint32 => (int as u32).to_le_bytes().to_vec(),
                DType::Int64 | DType::Uint64 => int.to_le_bytes().to_vec(),
            }
        })
        .collect();
    Array::new(dtype, vec![n], bytes).unwrap()
}

/// `out[i] = f(x[i])` over a vector of 46 elements (lanes and a tail).
fn map1(name: &str, x: &Array, out: DType, atol: f64, rtol: f64, f: impl Fn(&mut Values, ExprId) -> ExprId) {
    let mut v = Values::new();
    let shape = dims(x.shape());
    let a = v.input(0, x.dtype(), shape.clone());
    let y = v
        .func(out, shape, |v, i| {
            let e = v.load(a, i);
            Ok(f(v, e))
        })
        .unwrap();
    check(name, &v, &[y], std::slice::from_ref(x), &Bindings::new(), atol, rtol);
}

/// `out[i, j] = f(x[i], x[j])`.
fn map2(name: &str, x: &Array, out: DType, atol: f64, rtol: f64, f: impl Fn(&mut Values, ExprId, ExprId) -> ExprId) {
    let mut v = Values::new();
    let n = Dim::from(x.len());
    let a = v.input(0, x.dtype(), vec![n.clone()]);
    let y = v
        .func(out, vec![n.clone(), n], |v, i| {
            let (p, q) = (v.load(a, &i[..1]), v.load(a, &i[1..]));
            Ok(f(v, p, q))
        })
        .unwrap();
    check(name, &v, &[y], std::slice::from_ref(x), &Bindings::new(), atol, rtol);
}

#[test]
fn every_type_loads_and_stores() {
    for d in DType::ALL {
        map1(&format!("copy of {d}"), &samples(d, 46), d, 0.0, 0.0, |_, e| e);
    }
}

#[test]
fn casts() {
    for from in DType::ALL {
        for to in DType::ALL {
            map1(&format!("{from} to {to}"), &samples(from, 46), to, 0.0, 0.0, |v, e| v.arena.cast(Ty::of(to), e));
        }
    }
}

#[test]
fn binary_operators() {
    use BinaryOp::{Add, And, Div, Eq, FloorDiv, FloorMod, Ge, Gt, Le, Lt, Max, Min, Mul, Ne, Or, Rem, Sub, Xor};
    let ints = [Add, Sub, Mul, Div, Rem, FloorDiv, FloorMod, Min, Max, And, Or, Xor];
    let floats = [Add, Sub, Mul, Div, Rem, FloorMod, Min, Max];
    let compare = [Eq, Ne, Lt, Le, Gt, Ge];
    for d in [DType::Float32, DType::Float64, DType::Int32, DType::Uint32, DType::Int64, DType::Uint64, DType::Int8] {
        let ops: &[BinaryOp] = if d.is_float() { &floats } else { &ints };
        for op in ops {
            map2(&format!("{op:?} of {d}"), &samples(d, 34), d, 0.0, 0.0, |v, a, b| v.arena.binary(*op, a, b));
        }
        for op in compare {
            map2(&format!("{op:?} of {d}"), &samples(d, 34), DType::Bool, 0.0, 0.0, |v, a, b| v.arena.binary(op, a, b));
        }
    }
    for op in [And, Or, Xor, Eq, Ne] {
        map2(&format!("{op:?} of bool"), &samples(DType::Bool, 34), DType::Bool, 0.0, 0.0, |v, a, b| {
            v.arena.binary(op, a, b)
        });
    }
    for (d, rtol) in [(DType::Float32, 2e-7), (DType::Float64, 1e-12)] {
        map2(&format!("Pow of {d}"), &samples(d, 46), d, 0.0, rtol, |v, a, b| v.arena.binary(BinaryOp::Pow, a, b));
        for y in [1.0, 2.0, 3.0] {
            map1(&format!("{d} to the {y}"), &samples(d, 46), d, 0.0, 2e-7, |v, e| {
                let y = v.arena.real(Ty::of(d), y);
                v.arena.binary(BinaryOp::Pow, e, y)
            });
        }
    }
}

#[test]
fn unary_operators() {
    use UnaryOp::{Abs, Ceil, Floor, IsInf, IsNan, Neg, Not, Round, RoundBf16, RoundF16, Sign, Sqrt, Trunc};
    for d in [DType::Float32, DType::Float64] {
        for op in [Neg, Abs, Sign, Floor, Ceil, Trunc, Round, Sqrt] {
            map1(&format!("{op:?} of {d}"), &samples(d, 46), d, 0.0, 0.0, |v, e| v.arena.unary(op, e));
        }
        for op in [IsNan, IsInf] {
            map1(&format!("{op:?} of {d}"), &samples(d, 46), DType::Bool, 0.0, 0.0, |v, e| v.arena.unary(op, e));
        }
    }
    for op in [RoundF16, RoundBf16] {
        map1(&format!("{op:?}"), &samples(DType::Float32, 46), DType::Float32, 0.0, 0.0, |v, e| v.arena.unary(op, e));
    }
    for d in [DType::Int32, DType::Int64, DType::Uint8, DType::Uint64] {
        for op in [Neg, Abs, Sign, Not] {
            map1(&format!("{op:?} of {d}"), &samples(d, 46), d, 0.0, 0.0, |v, e| v.arena.unary(op, e));
        }
    }
    map1("Not of bool", &samples(DType::Bool, 46), DType::Bool, 0.0, 0.0, |v, e| v.arena.unary(Not, e));
}

#[test]
fn transcendental_functions() {
    use UnaryOp::{Acos, Asin, Atan, Cos, Erf, Exp, Log, Sin, Tanh};
    // (operator, from, to, atol, rtol for f32, rtol for f64), over a sweep of the range.
    let table = [
        (Exp, -100.0, 89.0, 1.7e-38, 1.7e-7, 5e-16),
        (Log, 1e-3, 50.0, 2e-8, 1.5e-7, 2e-15),
        (Log, 1e-42, 1e-37, 0.0, 1.5e-7, 2e-15),
        (Sin, -40.0, 40.0, 2e-16, 1.2e-7, 1e-12),
        (Cos, -40.0, 40.0, 2e-16, 1.2e-7, 1e-12),
        (Asin, -1.0, 1.0, 1e-16, 1.2e-7, 1e-15),
        (Acos, -1.0, 1.0, 1e-16, 1.2e-7, 1e-15),
        (Atan, -30.0, 30.0, 1e-16, 1.2e-7, 1e-15),
        (Tanh, -9.5, 9.5, 0.0, 3e-7, 1e-15),
        (Erf, -4.5, 4.5, 0.0, 4e-7, 4e-15),
    ];
    for (op, from, to, atol, rtol32, rtol64) in table {
        let n = 4001;
        let at = |i: usize| from + (to - from) * i as f64 / (n - 1) as f64;
        let x32: Vec<f32> = (0..n).map(|i| at(i) as f32).collect();
        let x32 = Array::from_f32(vec![n], &x32).unwrap();
        map1(&format!("{op:?} of f32"), &x32, DType::Float32, atol, rtol32, |v, e| v.arena.unary(op, e));
        let bytes: Vec<u8> = (0..n).flat_map(|i| at(i).to_le_bytes()).collect();
        let x64 = Array::new(DType::Float64, vec![n], bytes).unwrap();
        let atol = if op == Erf { 1e-9 } else { atol };
        let rtol64 = if op == Erf { 1e-6 } else { rtol64 };
        map1(&format!("{op:?} of f64"), &x64, DType::Float64, atol, rtol64, |v, e| v.arena.unary(op, e));
        for d in [DType::Float32, DType::Float64] {
            map1(&format!("special values of {op:?}"), &samples(d, 23), d, 1e-37, 1e-6, |v, e| v.arena.unary(op, e));
        }
    }
}

/// A row softmax and a normalization over a symbolic dim, with a broadcast and a tail.
#[test]
fn rows_with_folds() {
    let mut v = Values::new();
    let s = Dim::sym("s");
    v.arena.ranges.insert(Sym::from("s"), DimRange { min: 1, max: 70 });
    let shape = vec![Dim::from(3), s.clone()];
    let x = v.input(0, DType::Float32, shape.clone());
    let softmax = v
        .func(DType::Float32, shape.clone(), |v, i| {
            let row = i[0];
            let max = v.fold(FoldOp::Max, std::slice::from_ref(&s), |v, k| Ok(v.load(x, &[row, k[0]])))?;
            let e = |v: &mut Values, at: ExprId| {
                let x = v.load(x, &[row, at]);
                let d = v.arena.sub(x, max);
                v.arena.unary(UnaryOp::Exp, d)
            };
            let sum = v.fold(FoldOp::Sum, std::slice::from_ref(&s), |v, k| Ok(e(v, k[0])))?;
            let e = e(v, i[1]);
            Ok(v.arena.div(e, sum))
        })
        .unwrap();
    let mean = v
        .func(DType::Float32, vec![Dim::from(3)], |v, i| {
            let sum = v.fold(FoldOp::Sum, std::slice::from_ref(&s), |v, k| Ok(v.load(softmax, &[i[0], k[0]])))?;
            let n = v.arena.dim(&s);
            let n = v.arena.cast(Ty::F32, n);
            Ok(v.arena.div(sum, n))
        })
        .unwrap();
    let first = v
        .func(DType::Int32, vec![Dim::from(3)], |v, i| {
            v.fold(FoldOp::ArgMax { last: false }, std::slice::from_ref(&s), |v, k| Ok(v.load(x, &[i[0], k[0]])))
        })
        .unwrap();
    for n in [1usize, 3, 4, 17, 64, 70] {
        let dims = Bindings::from([("s".into(), n as i64)]);
        check(&format!("s = {n}"), &v, &[softmax, mean, first], &[floats(&[3, n], 3)], &dims, 1e-7, 1e-5);
    }
}

/// A softmax over the middle axis: rows across the one along which elements are neighbours.
#[test]
fn rows_across() {
    for (c, n) in [(3, 4), (5, 23), (21, 6), (2, 3)] {
        let mut v = Values::new();
        let x = v.input(0, DType::Float32, dims(&[2, c, n]));
        let softmax = v
            .func(DType::Float32, dims(&[2, c, n]), |v, i| {
                let i = i.to_vec();
                let max = v.fold(FoldOp::Max, &dims(&[c]), |v, k| Ok(v.load(x, &[i[0], k[0], i[2]])))?;
                let e = |v: &mut Values, at: ExprId| {
                    let x = v.load(x, &[i[0], at, i[2]]);
                    let d = v.arena.sub(x, max);
                    v.arena.unary(UnaryOp::Exp, d)
                };
                let sum = v.fold(FoldOp::Sum, &dims(&[c]), |v, k| Ok(e(v, k[0])))?;
                let e = e(v, i[1]);
                Ok(v.arena.div(e, sum))
            })
            .unwrap();
        check(&format!("{c} x {n}"), &v, &[softmax], &[floats(&[2, c, n], 3)], &Bindings::new(), 1e-7, 1e-5);
    }
}

/// Folds of every operator and type, along the innermost and along the outer axis.
#[test]
fn folds_of_every_operator() {
    for d in [DType::Float32, DType::Int32, DType::Int64, DType::Uint8, DType::Bool] {
        for op in [
            FoldOp::Sum,
            FoldOp::Prod,
            FoldOp::Max,
            FoldOp::Min,
            FoldOp::ArgMax { last: false },
            FoldOp::ArgMax { last: true },
            FoldOp::ArgMin { last: false },
            FoldOp::ArgMin { last: true },
        ] {
            if d == DType::Bool && matches!(op, FoldOp::Sum | FoldOp::Prod) {
                continue;
            }
            let x = match d {
                DType::Float32 => floats(&[5, 77], 9),
                _ => samples(d, 5 * 77).reshaped(vec![5, 77]).unwrap(),
            };
            let position = matches!(op, FoldOp::ArgMax { .. } | FoldOp::ArgMin { .. });
            let out = if position { DType::Int32 } else { d };
            let mut v = Values::new();
            let a = v.input(0, d, dims(&[5, 77]));
            let rows =
                v.func(out, dims(&[5]), |v, i| v.fold(op, &dims(&[77]), |v, k| Ok(v.load(a, &[i[0], k[0]])))).unwrap();
            let columns =
                v.func(out, dims(&[77]), |v, i| v.fold(op, &dims(&[5]), |v, k| Ok(v.load(a, &[k[0], i[0]])))).unwrap();
            check(&format!("{op:?} of {d}"), &v, &[rows, columns], &[x], &Bindings::new(), 1e-5, 1e-5);
        }
    }
}

/// Guards: padding along the innermost and outer axes, a concatenation, a gather, a transposition, a flip.
#[test]
fn views() {
    let mut v = Values::new();
    let x = v.input(0, DType::Float32, dims(&[5, 7]));
    let ids = v.input(1, DType::Int64, dims(&[6]));
    let pad = v
        .func(DType::Float32, dims(&[9, 12]), |v, i| {
            let two = v.arena.int(2);
            let (r, c) = (v.arena.sub(i[0], two), v.arena.sub(i[1], two));
            let (zero, five, seven) = (v.arena.int(0), v.arena.int(5), v.arena.int(7));
            let tests = [v.arena.ge(r, zero), v.arena.lt(r, five), v.arena.ge(c, zero), v.arena.lt(c, seven)];
            let guard = tests.into_iter().reduce(|a, b| v.arena.and(a, b)).unwrap();
            let e = v.load(x, &[r, c]);
            let z = v.arena.real(Ty::F32, 0.0);
            Ok(v.arena.select(guard, e, z))
        })
        .unwrap();
    let concat = v
        .func(DType::Float32, dims(&[5, 14]), |v, i| {
            let seven = v.arena.int(7);
            let left = v.arena.lt(i[1], seven);
            let at = v.arena.sub(i[1], seven);
            let (a, b) = (v.load(x, &[i[0], i[1]]), v.load(x, &[i[0], at]));
            Ok(v.arena.select(left, a, b))
        })
        .unwrap();
    let gather = v
        .func(DType::Float32, dims(&[6, 7]), |v, i| {
            let id = v.load(ids, &[i[0]]);
            let id = v.arena.cast(Ty::I32, id);
            Ok(v.load(x, &[id, i[1]]))
        })
        .unwrap();
    let turned = v.func(DType::Float32, dims(&[7, 5]), |v, i| Ok(v.load(x, &[i[1], i[0]]))).unwrap();
    let flipped = v
        .func(DType::Float32, dims(&[5, 7]), |v, i| {
            let six = v.arena.int(6);
            let c = v.arena.sub(six, i[1]);
            Ok(v.load(x, &[i[0], c]))
        })
        .unwrap();
    let inputs = [floats(&[5, 7], 1), Array::from_i64(vec![6], &[4, 0, 3, 3, 1, 2]).unwrap()];
    check("views", &v, &[pad, concat, gather, turned, flipped], &inputs, &Bindings::new(), 0.0, 0.0);
}

/// A program: a running sum, a search with `while`, a branch.
#[test]
fn programs() {
    let mut v = Values::new();
    let x = v.input(0, DType::Float32, dims(&[4, 9]));
    let (sum, count) = (v.arena.var(), v.arena.var());
    let ids = v
        .program(vec![(DType::Float32, dims(&[4, 9])), (DType::Int32, dims(&[4]))], |v, out| {
            let (row, col) = (v.arena.axis(Dim::from(4)), v.arena.axis(Dim::from(9)));
            let (r, c) = (v.arena.axis_expr(row), v.arena.axis_expr(col));
            let zero = v.arena.real(Ty::F32, 0.0);
            let (none, one, nine) = (v.arena.int(0), v.arena.int(1), v.arena.int(9));
            let s = v.arena.add_node(crate::kernel::Node::Var(sum, Ty::F32));
            let n = v.arena.add_node(crate::kernel::Node::Var(count, Ty::I32));
            let e = v.load(x, &[r, c]);
            let next = v.arena.binary(BinaryOp::Add, s, e);
            let after = v.arena.add(n, one);
            let inside = v.arena.lt(n, nine);
            let eight = v.arena.int(8);
            let last = v.arena.binary(BinaryOp::Min, n, eight);
            let found = v.load(out[0], &[r, last]);
            let small = v.arena.binary(BinaryOp::Lt, found, zero);
            let go = v.arena.and(inside, small);
            let big = v.arena.binary(BinaryOp::Gt, n, one);
            let seven = v.arena.int(7);
            Ok((
                vec![row],
                vec![
                    Stmt::Set { var: sum, ty: Ty::F32, to: zero },
                    Stmt::For {
                        axis: col,
                        body: vec![
                            Stmt::Set { var: sum, ty: Ty::F32, to: next },
                            Stmt::Store { value: out[0], index: vec![r, c], to: s },
                        ],
                    },
                    Stmt::Set { var: count, ty: Ty::I32, to: none },
                    Stmt::While { condition: go, body: vec![Stmt::Set { var: count, ty: Ty::I32, to: after }] },
                    Stmt::If {
                        condition: big,
                        then: vec![Stmt::Store { value: out[1], index: vec![r], to: n }],
                        otherwise: vec![Stmt::Store { value: out[1], index: vec![r], to: seven }],
                    },
                ],
            ))
        })
        .unwrap();
    check("program", &v, &ids, &[floats(&[4, 9], 8)], &Bindings::new(), 1e-6, 1e-6);
}

/// An element of an image in NCHW, zero beyond its edges: of a batch and channel, at an output place and a tap for each axis.
pub(super) fn padded(
    v: &mut Values,
    x: ValueId,
    [batch, channel]: [ExprId; 2],
    places: [[ExprId; 2]; 2],
    stride: i64,
    pad: i64,
) -> ExprId {
    let shape: Vec<Dim> = v.shape(x).to_vec();
    let (s, p, zero) = (v.arena.int(stride), v.arena.int(pad), v.arena.int(0));
    let mut at = vec![];
    let mut tests = vec![];
    for ([o, k], n) in places.into_iter().zip(&shape[2..]) {
        let q = v.arena.mul(o, s);
        let q = v.arena.add(q, k);
        let q = v.arena.sub(q, p);
        let n = v.arena.dim(n);
        tests.push(v.arena.ge(q, zero));
        tests.push(v.arena.lt(q, n));
        at.push(q);
    }
    let guard = tests.into_iter().reduce(|a, b| v.arena.and(a, b)).unwrap();
    let e = v.load(x, &[batch, channel, at[0], at[1]]);
    let z = v.arena.real(Ty::F32, 0.0);
    v.arena.select(guard, e, z)
}

/// A convolution over NCHW with padding and a residual behind, written as the operator lowers.
pub(super) fn convolution(
    v: &mut Values,
    x: ValueId,
    w: ValueId,
    out: [usize; 4],
    k: [usize; 3],
    stride: i64,
    pad: i64,
) -> ValueId {
    v.func(DType::Float32, dims(&out), |v, i| {
        let i = i.to_vec();
        v.fold(FoldOp::Sum, &dims(&[k[1], k[2], k[0]]), |v, k| {
            let e = padded(v, x, [i[0], k[2]], [[i[2], k[0]], [i[3], k[1]]], stride, pad);
            let w = v.load(w, &[i[1], k[2], k[0], k[1]]);
            Ok(v.arena.mul(e, w))
        })
    })
    .unwrap()
}

/// The abort word stops a run, in one thread and in several.
#[test]
fn a_run_can_be_stopped() {
    let mut v = Values::new();
    let x = v.input(0, DType::Float32, dims(&[8]));
    let y = v.func(DType::Float32, dims(&[8]), |v, i| Ok(v.load(x, i))).unwrap();
    let z = v.func(DType::Float32, dims(&[8]), |v, i| Ok(v.load(y, i))).unwrap();
    let stored = fuse(&mut v, &[y, z], Fusion::Off);
    let s = schedule(&mut v, &stored, &[y, z], AttentionAs::Three);
    for variant in [Variant::Simd, Variant::Threads] {
        let laid = lay_out(&v, &s, variant);
        let mut host = CpuModule::new(&laid.wasm, laid.memory.bytes, 2).unwrap();
        host.write(super::ABORT, &[1]).unwrap();
        assert_eq!(host.run().map_err(|e| e.kind()), Err(crate::error::Kind::Aborted), "{variant:?}");
        host.write(super::ABORT, &[0]).unwrap();
        assert_eq!(host.run(), Ok(()), "{variant:?}");
        assert_eq!(host.step(1), Ok(()), "{variant:?}");
        assert_eq!(host.step(99), Ok(()), "{variant:?}");
    }
}
