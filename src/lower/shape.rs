//! Shapes of tensors, and views of them under other shapes: index maps that fold into their readers.

use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::shape::permutation;
use crate::kernel::{BinaryOp, ExprId, Ty, ValueId, Values};
use crate::tensor::{Dim, numel};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("Expand", |cx| {
        let x = cx.input(0)?;
        cx.func(|vs, i| Ok(vs.load_broadcast(x, i)))
    }),
    ("Flatten", view),
    ("Reshape", view),
    ("Shape", shape),
    ("Size", size),
    ("Squeeze", view),
    ("Transpose", transpose),
    ("Unsqueeze", view),
];

/// The input's elements in the same order under the output's shape.
fn view(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, from, (_, to)) = (cx.input(0)?, cx.shape(0)?, cx.output(0)?);
    cx.func(|vs, i| {
        let at = reshape(vs, &from, &to, i);
        Ok(vs.load(x, &at))
    })
}

/// The index in shape `from` of the element that stands at `index` in shape `to`. Dims that group (their products match)
/// are taken apart by themselves, so that only dims which really merge or split cost a division.
pub(super) fn reshape(vs: &mut Values, from: &[Dim], to: &[Dim], index: &[ExprId]) -> Vec<ExprId> {
    let long = |shape: &[Dim]| -> Vec<usize> { (0..shape.len()).filter(|n| !shape[*n].is(1)).collect() };
    let (a, b) = (long(from), long(to));
    let zero = vs.arena.int(0);
    let mut out = vec![zero; from.len()];
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let (first_a, first_b) = (i, j);
        let (mut x, mut y) = (Dim::from(1), Dim::from(1));
        loop {
            let less = y.div_exact(&x).is_some() || x.known().zip(y.known()).is_some_and(|(x, y)| x < y);
            if i < a.len() && (i == first_a || less || j == b.len()) {
                x = x.mul(&from[a[i]]);
                i += 1;
            } else if j < b.len() {
                y = y.mul(&to[b[j]]);
                j += 1;
            } else {
                break;
            }
            if x == y && i > first_a && j > first_b {
                break;
            }
        }
        let mut flat = zero;
        for n in &b[first_b..j] {
            let d = vs.arena.dim(&to[*n]);
            flat = vs.arena.mul(flat, d);
            flat = vs.arena.add(flat, index[*n]);
        }
        for n in a[first_a..i].iter().skip(1).rev() {
            let d = vs.arena.dim(&from[*n]);
            out[*n] = vs.arena.binary(BinaryOp::FloorMod, flat, d);
            flat = vs.arena.binary(BinaryOp::FloorDiv, flat, d);
        }
        if let Some(n) = a[first_a..i].first() {
            out[*n] = flat;
        }
    }
    out
}

fn transpose(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let order = permutation(cx.attrs(), cx.shape(0)?.len())?;
    cx.func(|vs, i| {
        let mut at = i.to_vec();
        for (n, from) in order.iter().enumerate() {
            at[*from] = i[n];
        }
        Ok(vs.load(x, &at))
    })
}

/// Element `n` is the dim of axis `n` of those asked for. Small results are known as content and never come here.
fn shape(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let dims = cx.shape(0)?;
    let start = cx.attrs().int("start")?;
    let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
    let start =
        usize::try_from((if start < 0 { start.saturating_add(rank) } else { start }).clamp(0, rank)).unwrap_or(0);
    cx.func(|vs, i| {
        let mut all = vs.arena.int(0);
        for (n, d) in (0i64..).zip(&dims[start..]) {
            let (n, d) = (vs.arena.int(n), vs.arena.dim(d));
            let here = vs.arena.binary(BinaryOp::Eq, i[0], n);
            all = vs.arena.select(here, d, all);
        }
        Ok(vs.arena.cast(Ty::I64, all))
    })
}

fn size(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let n = numel(&cx.shape(0)?);
    cx.func(|vs, _| {
        let n = vs.arena.dim(&n);
        Ok(vs.arena.cast(Ty::I64, n))
    })
}

#[cfg(test)]
mod tests {
    use crate::error::Kind;
    use crate::graph::AttrValue::{Int, Ints};
    use crate::kernel::{BinaryOp, Def, Node};
    use crate::lower::testing::{In, exact, f32s, i64s, lower, run};

    fn count(n: usize) -> Vec<f64> {
        (0..n).map(|n| n as f64).collect()
    }

    /// (from, names of its dims, to, whether its index map divides)
    #[test]
    fn reshape_divides_only_where_dims_merge_or_split() {
        let cases: &[(&[usize], &'static [&'static str], &[f64], bool)] = &[
            (&[2, 3, 4], &["b", "s"], &[0.0, -1.0, 2.0, 2.0], false),
            (&[2, 3, 2, 2], &["b", "s"], &[0.0, 0.0, 4.0], true),
            (&[2, 3, 4], &["b", "s"], &[-1.0, 4.0], true),
            (&[2, 1, 6], &["b"], &[0.0, 6.0, 1.0, 1.0], false),
            (&[4, 6], &[], &[3.0, 8.0], true),
            (&[2, 3], &["b"], &[0.0, -1.0], false),
        ];
        for (from, names, to, divides) in cases {
            let n = from.iter().product();
            let x = f32s(from, &count(n));
            let inputs = [In::Symbolic(x.clone(), names), In::Constant(i64s(&[to.len()], to))];
            let out = run("Reshape", &[], &inputs, 1).unwrap();
            assert_eq!(out[0].bytes(), x.bytes(), "{from:?} to {to:?}");
            let (lowered, ..) = lower("Reshape", &[], &inputs, 1).unwrap();
            let Def::Func(f) = &lowered.values.get(lowered.outputs[0]).def else { panic!("not a function") };
            let mut found = false;
            lowered.values.arena.visit(f.expr, &mut |_, n| {
                found |= matches!(n, Node::Binary(BinaryOp::FloorDiv | BinaryOp::FloorMod, ..));
            });
            assert_eq!(found, *divides, "{from:?} to {to:?}");
        }
        let e = run("Reshape", &[], &[In::Data(f32s(&[4], &count(4))), In::Constant(i64s(&[1], &[3.0]))], 1).err();
        assert_eq!(
            e.as_ref().map(|e| (e.kind(), e.message())),
            Some((Kind::InvalidShape, "[4] does not reshape to [3]"))
        );
    }

    #[test]
    fn cases() {
        let x = f32s(&[2, 1, 3], &count(6));
        let data = In::Symbolic(x.clone(), &["b"]);
        let ints = |v: &[f64]| In::Constant(i64s(&[v.len()], v));
        let one = [data.clone()];
        exact("Flatten", "Flatten", &[("axis", Int(-1))], &one, &[f32s(&[2, 3], &count(6))]);
        exact("Squeeze", "Squeeze", &[], &one, &[f32s(&[2, 3], &count(6))]);
        exact("Unsqueeze", "Unsqueeze", &[], &[data.clone(), ints(&[0.0, -1.0])], &[f32s(&[1, 2, 1, 3, 1], &count(6))]);
        let turned = f32s(&[3, 2, 1], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        exact("Transpose", "Transpose", &[("perm", Ints(vec![2, 0, 1]))], &one, &[turned]);
        let wide = f32s(&[2, 2, 3], &[0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 3.0, 4.0, 5.0]);
        exact("Expand", "Expand", &[], &[data.clone(), ints(&[2.0, 1.0])], &[wide]);
        exact("Shape", "Shape", &[("start", Int(-2))], &one, &[i64s(&[2], &[1.0, 3.0])]);
        exact("Size", "Size", &[], &one, &[i64s(&[], &[6.0])]);
        let e = run("Squeeze", &[], &[data, ints(&[0.0])], 1).err();
        assert_eq!(e.map(|e| e.kind()), Some(Kind::InvalidShape));
    }
}
