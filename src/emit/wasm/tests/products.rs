//! Matrix products and convolutions.

use super::*;

/// Depthwise convolutions with padding, of row-major inputs and of those that lie with the channel last; tiles of columns
/// at both ends and between.
#[test]
fn depthwise_convolution() {
    // (channels, kernel, stride, padding, width, whether the channel is last)
    let table = [
        (4, 3, 1, 1, 10, false),
        (6, 3, 2, 1, 10, true),
        (33, 3, 1, 1, 10, false),
        (8, 3, 1, 1, 7, true),
        (4, 5, 1, 2, 33, true),
        (4, 5, 2, 2, 30, true),
        (4, 3, 1, 0, 17, true),
        (8, 7, 1, 6, 2, true),
    ];
    for (c, k, stride, pad, width, last) in table {
        let mut v = Values::new();
        let x = v.input(0, DType::Float32, dims(&[2, c, 9, width]));
        let x = if last {
            let w = v.constant_array(floats(&[c, c, 1, 1], 4));
            convolution(&mut v, x, w, [2, c, 9, width], [c, 1, 1], 1, 0)
        } else {
            x
        };
        let w = v.constant_array(floats(&[c, k, k], 5));
        let (oh, ow) = ((9 + 2 * pad - k) / stride + 1, (width + 2 * pad - k) / stride + 1);
        let y = v
            .func(DType::Float32, dims(&[2, c, oh, ow]), |v, i| {
                let i = i.to_vec();
                v.fold(FoldOp::Sum, &dims(&[k, k]), |v, k| {
                    let e = padded(v, x, [i[0], i[1]], [[i[2], k[0]], [i[3], k[1]]], stride as i64, pad as i64);
                    let w = v.load(w, &[i[1], k[0], k[1]]);
                    Ok(v.arena.mul(e, w))
                })
            })
            .unwrap();
        let y = v
            .func(DType::Float32, dims(&[2, c, oh, ow]), |v, i| {
                let e = v.load(y, i);
                let (lo, hi) = (v.arena.real(Ty::F32, 0.0), v.arena.real(Ty::F32, 6.0));
                let e = v.arena.binary(BinaryOp::Max, e, lo);
                Ok(v.arena.binary(BinaryOp::Min, e, hi))
            })
            .unwrap();
        check(
            &format!("{c} channels, {k}x{k}, stride {stride}, padding {pad}, width {width}"),
            &v,
            &[y],
            &[floats(&[2, c, 9, width], 2)],
            &Bindings::new(),
            1e-4,
            1e-5,
        );
    }
}

/// Matrix products of odd sizes, with a bias and an activation behind.
#[test]
fn matrix_products() {
    for (m, k, n) in [(1, 1, 1), (3, 5, 7), (4, 8, 8), (13, 33, 24), (17, 9, 50)] {
        for constant in [true, false] {
            let mut v = Values::new();
            let a = v.input(0, DType::Float32, dims(&[m, k]));
            let b =
                if constant { v.constant_array(floats(&[k, n], 4)) } else { v.input(1, DType::Float32, dims(&[k, n])) };
            let bias = v.constant_array(floats(&[n], 6));
            let y = v
                .func(DType::Float32, dims(&[m, n]), |v, i| {
                    let i = i.to_vec();
                    v.fold(FoldOp::Sum, &dims(&[k]), |v, k| {
                        let (p, q) = (v.load(a, &[i[0], k[0]]), v.load(b, &[k[0], i[1]]));
                        Ok(v.arena.mul(p, q))
                    })
                })
                .unwrap();
            let z = v
                .func(DType::Float32, dims(&[m, n]), |v, i| {
                    let (e, b) = (v.load(y, i), v.load(bias, &i[1..]));
                    let s = v.arena.binary(BinaryOp::Add, e, b);
                    Ok(v.arena.unary(UnaryOp::Tanh, s))
                })
                .unwrap();
            let inputs = [floats(&[m, k], 1), floats(&[k, n], 2)];
            check(&format!("{m}x{k}x{n}, constant: {constant}"), &v, &[z], &inputs, &Bindings::new(), 1e-5, 1e-5);
        }
    }
}

/// Convolutions: a stem on few channels, padded and strided ones, 1x1, with an activation and a residual.
#[test]
fn convolutions() {
    // (input channels, height and width, output channels, kernel, stride, padding)
    let table = [
        (3, 9, 10, 7, 2, 3),
        (1, 5, 1, 3, 1, 1),
        (3, 7, 4, 3, 2, 1),
        (8, 7, 8, 3, 1, 1),
        (40, 5, 9, 1, 1, 0),
        (8, 6, 4, 1, 2, 0),
        (5, 7, 3, 5, 1, 2),
    ];
    for (c, size, n, k, stride, pad) in table {
        let mut v = Values::new();
        let x = v.input(0, DType::Float32, dims(&[2, c, size, size]));
        let w = v.constant_array(floats(&[n, c, k, k], 5));
        let bias = v.constant_array(floats(&[n], 6));
        let o = (size + 2 * pad - k) / stride + 1;
        let y = convolution(&mut v, x, w, [2, n, o, o], [c, k, k], stride as i64, pad as i64);
        let y = v
            .func(DType::Float32, dims(&[2, n, o, o]), |v, i| {
                let (e, b) = (v.load(y, i), v.load(bias, &i[1..2]));
                let s = v.arena.binary(BinaryOp::Add, e, b);
                let zero = v.arena.real(Ty::F32, 0.0);
                Ok(v.arena.binary(BinaryOp::Max, s, zero))
            })
            .unwrap();
        // A second one reads the first as it lies in memory.
        let w2 = v.constant_array(floats(&[n, n, 3, 3], 7));
        let z = convolution(&mut v, y, w2, [2, n, o, o], [n, 3, 3], 1, 1);
        let z = v
            .func(DType::Float32, dims(&[2, n, o, o]), |v, i| {
                let (e, r) = (v.load(z, i), v.load(y, i));
                Ok(v.arena.binary(BinaryOp::Add, e, r))
            })
            .unwrap();
        let name = format!("{c}x{size}x{size} to {n}, {k}x{k}, stride {stride}, padding {pad}");
        check(&name, &v, &[z], &[floats(&[2, c, size, size], 2)], &Bindings::new(), 2e-3, 1e-4);
    }
}

/// Grouped convolutions: few and many outputs a group, columns that fill tiles and that do not, with an epilogue.
#[test]
fn grouped_convolutions() {
    // (groups, input and output channels of a group, width, padding)
    for (groups, inputs, outputs, width, pad) in [(2, 3, 4, 7, 1), (3, 8, 8, 6, 0), (4, 5, 12, 9, 1), (2, 4, 2, 5, 1)] {
        let mut v = Values::new();
        let (c, n) = (groups * inputs, groups * outputs);
        let x = v.input(0, DType::Float32, dims(&[2, c, 5, width]));
        let w = v.constant_array(floats(&[n, inputs, 3, 3], 5));
        let bias = v.constant_array(floats(&[n], 6));
        let shape = dims(&[2, n, 3 + 2 * pad, width - 2 + 2 * pad]);
        let y = v
            .func(DType::Float32, shape, |v, i| {
                let i = i.to_vec();
                let sum = v.fold(FoldOp::Sum, &dims(&[3, 3, inputs]), |v, k| {
                    let zero = v.arena.int(0);
                    let (mut at, mut tests) = (vec![], vec![]);
                    for (o, k, n) in [(i[2], k[0], 5), (i[3], k[1], width as i64)] {
                        let p = v.arena.add(o, k);
                        let (pad, n) = (v.arena.int(pad as i64), v.arena.int(n));
                        let p = v.arena.sub(p, pad);
                        tests.push(v.arena.ge(p, zero));
                        tests.push(v.arena.lt(p, n));
                        at.push(p);
                    }
                    let guard = tests.into_iter().reduce(|a, b| v.arena.and(a, b)).unwrap();
                    let (per, inputs) = (v.arena.int(outputs as i64), v.arena.int(inputs as i64));
                    let group = v.arena.binary(BinaryOp::FloorDiv, i[1], per);
                    let first = v.arena.mul(group, inputs);
                    let channel = v.arena.add(first, k[2]);
                    let e = v.load(x, &[i[0], channel, at[0], at[1]]);
                    let z = v.arena.real(Ty::F32, 0.0);
                    let e = v.arena.select(guard, e, z);
                    let w = v.load(w, &[i[1], k[2], k[0], k[1]]);
                    Ok(v.arena.mul(e, w))
                })?;
                let b = v.load(bias, &i[1..2]);
                Ok(v.arena.add(sum, b))
            })
            .unwrap();
        let name = format!("{groups} groups of {inputs} to {outputs}, width {width}, padding {pad}");
        check(&name, &v, &[y], &[floats(&[2, c, 5, width], 2)], &Bindings::new(), 1e-4, 1e-5);
    }
}

/// Products over a symbolic number of rows and a batch, one operand transposed, then a function without a vector form.
#[test]
fn batched_products() {
    let mut v = Values::new();
    let s = Dim::sym("s");
    v.arena.ranges.insert(Sym::from("s"), DimRange { min: 1, max: 40 });
    let (h, d) = (Dim::from(2), Dim::from(12));
    let q = v.input(0, DType::Float32, vec![s.clone(), h.clone(), d.clone()]);
    let k = v.input(1, DType::Float32, vec![s.clone(), h.clone(), d.clone()]);
    let w = v.constant_array(floats(&[24, 19], 3));
    let scores = v
        .func(DType::Float32, vec![h.clone(), s.clone(), s.clone()], |v, i| {
            let i = i.to_vec();
            v.fold(FoldOp::Sum, std::slice::from_ref(&d), |v, e| {
                let (a, b) = (v.load(q, &[i[1], i[0], e[0]]), v.load(k, &[i[2], i[0], e[0]]));
                Ok(v.arena.mul(a, b))
            })
        })
        .unwrap();
    let mixed = v
        .func(DType::Float32, vec![s.clone(), h.clone(), d.clone()], |v, i| {
            let i = i.to_vec();
            v.fold(FoldOp::Sum, std::slice::from_ref(&s), |v, t| {
                let (a, b) = (v.load(scores, &[i[1], i[0], t[0]]), v.load(k, &[t[0], i[1], i[2]]));
                Ok(v.arena.mul(a, b))
            })
        })
        .unwrap();
    let out = v
        .func(DType::Float32, vec![s.clone(), Dim::from(19)], |v, i| {
            let i = i.to_vec();
            v.fold(FoldOp::Sum, &dims(&[24]), |v, e| {
                let twelve = v.arena.int(12);
                let h = v.arena.binary(BinaryOp::FloorDiv, e[0], twelve);
                let d = v.arena.binary(BinaryOp::FloorMod, e[0], twelve);
                let (a, b) = (v.load(mixed, &[i[0], h, d]), v.load(w, &[e[0], i[1]]));
                Ok(v.arena.mul(a, b))
            })
        })
        .unwrap();
    let sine = v
        .func(DType::Float32, vec![s.clone(), Dim::from(19)], |v, i| {
            let e = v.load(out, i);
            let small = v.arena.real(Ty::F32, 1e-4);
            let e = v.arena.binary(BinaryOp::Mul, e, small);
            Ok(v.arena.unary(UnaryOp::Sin, e))
        })
        .unwrap();
    for n in [1usize, 2, 5, 6, 7, 12, 33] {
        let inputs = [floats(&[n, 2, 12], 1), floats(&[n, 2, 12], 2)];
        let dims = Bindings::from([("s".into(), n as i64)]);
        check(&format!("s = {n}"), &v, &[scores, sine], &inputs, &dims, 1e-3, 1e-4);
    }
}
