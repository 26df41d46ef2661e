//! The elements of small tensors that are computed from shapes, as dims.
//!
//! Exporters compute shapes with ordinary operators (Shape, Gather, Concat, Mul, …). Following the elements through them
//! leaves Reshape, Expand and their like with known targets, however many dims are symbolic.

use super::{Infer, Type};
use crate::graph::AttrValue;
use crate::tensor::{Array, DType, Dim, DimRange, known};
use std::collections::BTreeMap;

/// Tensors of more elements are not followed.
const LIMIT: usize = crate::graph::ops::rules::CONTENT_LIMIT;

/// A tensor whose elements are known, row-major.
#[derive(Debug, Clone)]
struct Known {
    shape: Vec<usize>,
    elements: Vec<Dim>,
}

/// The elements of each output, where they are known.
pub(super) fn elements(op: &str, cx: &Infer<'_>, outputs: &[Type]) -> Vec<Option<Vec<Dim>>> {
    let Some(first) = outputs.first() else { return vec![] };
    if op == "Split" {
        return split(cx, outputs).unwrap_or_default();
    }
    // Of floating-point tensors only what may be a size or a scale on its way to a shape is followed.
    let small = |shape: &Vec<usize>| !first.dtype.is_float() || shape.len() <= 1;
    let found = shape_of(&first.shape).filter(small).and_then(|shape| one(op, cx, first.dtype, &shape));
    let count = shape_of(&first.shape).map(|shape| shape.iter().product());
    vec![found.filter(|e| Some(e.len()) == count)]
}

/// The shape of a tensor that is small enough to be followed.
fn shape_of(shape: &[Dim]) -> Option<Vec<usize>> {
    let shape = known(shape)?;
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    (count <= LIMIT).then_some(shape)
}

/// Input `i`, where its elements are known.
fn input(cx: &Infer<'_>, i: usize) -> Option<Known> {
    let t = cx.optional(i)?;
    let shape = shape_of(&t.shape)?;
    let elements = match (&t.content, cx.constants.get(i).and_then(Option::as_ref)) {
        (Some(c), _) => c.clone(),
        (None, Some(a)) => whole(a)?,
        (None, None) => return None,
    };
    (elements.len() == shape.iter().product::<usize>()).then_some(Known { shape, elements })
}

/// The elements of a constant, where all are whole numbers. Zeros of negative sign are no whole numbers: 1/x shows it.
fn whole(a: &Array) -> Option<Vec<Dim>> {
    if let Some(ints) = a.to_i64() {
        return Some(ints.into_iter().map(Dim::from).collect());
    }
    let each = |x: f64| {
        let fits = x.fract() == 0.0 && x.abs() <= f64::from(1 << 24) && !(x == 0.0 && x.is_sign_negative());
        fits.then(|| Dim::from(x as i64))
    };
    a.to_f64()?.into_iter().map(each).collect()
}

fn one(op: &str, cx: &Infer<'_>, dtype: DType, shape: &[usize]) -> Option<Vec<Dim>> {
    let float = cx.optional(0).is_some_and(|t| t.dtype.is_float());
    match op {
        "Shape" => shape_content(cx),
        "Size" => Some(vec![crate::tensor::numel(&cx.optional(0)?.shape)]),
        "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" | "Flatten" => Some(input(cx, 0)?.elements),
        "Cast" | "CastLike" => cast(input(cx, 0)?.elements, dtype),
        // Elements are whole numbers already.
        "Floor" | "Ceil" | "Round" => Some(input(cx, 0)?.elements),
        "Neg" => Some(input(cx, 0)?.elements.iter().map(|d| Dim::from(0).sub(d)).collect()).filter(|_| !float),
        "Abs" => input(cx, 0)?.elements.into_iter().map(|d| (range(&d).min >= 0).then_some(d)).collect(),
        "Not" => input(cx, 0)?.elements.iter().map(|d| d.known().map(|n| Dim::from(i64::from(n == 0)))).collect(),
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Max" | "Min" | "Sum" | "Equal" | "Less" | "Greater"
        | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" => fold(op, cx, shape, float),
        "Where" => {
            let [c, a, b] = [0, 1, 2].map(|i| input(cx, i).and_then(|k| stretch(&k, shape)));
            let (c, a, b) = (c?, a?, b?);
            c.iter().zip(a.into_iter().zip(b)).map(|(c, (a, b))| Some(if c.known()? != 0 { a } else { b })).collect()
        }
        "Expand" => stretch(&input(cx, 0)?, shape),
        "Concat" => concat(cx),
        "Gather" => gather(cx, shape),
        "Slice" => slice(cx),
        "Transpose" => transpose(cx),
        "Range" => span(cx, shape),
        "ConstantOfShape" => {
            let value = match cx.attrs.get("value") {
                Some(AttrValue::Tensor(a)) => whole(a)?.first()?.clone(),
                _ => Dim::from(0),
            };
            Some(vec![value; shape.iter().product()])
        }
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" => reduce(op, cx, shape),
        _ => None,
    }
}

/// The range of a dim, every symbol being some size.
fn range(d: &Dim) -> DimRange {
    d.range(&BTreeMap::new())
}

/// Shape's result: the dims from `start` to `end`.
fn shape_content(cx: &Infer<'_>) -> Option<Vec<Dim>> {
    let dims = &cx.optional(0)?.shape;
    let rank = i64::try_from(dims.len()).ok()?;
    let place = |name: &str, default: i64| {
        let n = match cx.attrs.get(name) {
            Some(AttrValue::Int(n)) => *n,
            _ => default,
        };
        usize::try_from(if n < 0 { n.saturating_add(rank).max(0) } else { n.min(rank) }).ok()
    };
    Some(dims.get(place("start", 0)?..place("end", rank)?).unwrap_or_default().to_vec())
}

/// Elements under another type, where they keep their value.
fn cast(elements: Vec<Dim>, dtype: DType) -> Option<Vec<Dim>> {
    let each = |d: Dim| match (dtype, d.known()) {
        (DType::Bool, Some(n)) => Some(Dim::from(i64::from(n != 0))),
        (DType::Bool, None) => (range(&d).min > 0).then(|| Dim::from(1)),
        // A symbolic size is taken to fit; that its bounds do is checked when they are known.
        (DType::Int64 | DType::Int32 | DType::Float32 | DType::Float64 | DType::Uint64 | DType::Uint32, None) => {
            Some(d)
        }
        (_, None) => None,
        (dtype, Some(n)) => {
            let bits = 8 * dtype.size();
            let (least, most) = match dtype {
                _ if dtype.is_float() => (-(1 << 24), 1 << 24),
                _ if bits == 64 => (if dtype.is_unsigned() { 0 } else { i64::MIN }, i64::MAX),
                _ if dtype.is_unsigned() => (0, (1i64 << bits) - 1),
                _ => (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1),
            };
            (least..=most).contains(&n).then_some(d)
        }
    };
    elements.into_iter().map(each).collect()
}

/// For each element of `shape`, row-major, the element of a tensor of `from` that broadcasting reads.
fn stretch(from: &Known, shape: &[usize]) -> Option<Vec<Dim>> {
    let skip = shape.len().checked_sub(from.shape.len())?;
    let count: usize = shape.iter().product();
    (0..count)
        .map(|mut n| {
            let (mut at, mut stride) = (0, 1);
            for (axis, extent) in shape.iter().enumerate().rev() {
                let i = n % extent;
                n /= extent;
                if let Some(own) = axis.checked_sub(skip).map(|a| from.shape[a]) {
                    at += if own == 1 { 0 } else { i * stride };
                    stride *= own;
                }
            }
            from.elements.get(at).cloned()
        })
        .collect()
}

/// An operator of two or more inputs, element by element.
fn fold(op: &str, cx: &Infer<'_>, shape: &[usize], float: bool) -> Option<Vec<Dim>> {
    let mut total = stretch(&input(cx, 0)?, shape)?;
    for i in 1..cx.inputs.len() {
        let other = stretch(&input(cx, i)?, shape)?;
        total = total.iter().zip(&other).map(|(a, b)| binary(op, cx, a, b, float)).collect::<Option<_>>()?;
    }
    Some(total)
}

fn binary(op: &str, cx: &Infer<'_>, a: &Dim, b: &Dim, float: bool) -> Option<Dim> {
    let truth = |t: bool| Some(Dim::from(i64::from(t)));
    // Only what surely keeps within 64 bits: dims saturate, tensors wrap.
    let exact = |f: fn(i64, i64) -> Option<i64>, d: Dim| match (a.known(), b.known()) {
        (Some(x), Some(y)) => f(x, y).map(Dim::from),
        _ => Some(d),
    };
    match op {
        "Add" | "Sum" => exact(i64::checked_add, a.add(b)),
        "Sub" => exact(i64::checked_sub, a.sub(b)),
        // A zero of negative sign is no whole number.
        "Mul" if float && a.mul(b).is(0) && (range(a).min < 0 || range(b).min < 0) => None,
        "Mul" => exact(i64::checked_mul, a.mul(b)),
        "Div" if b.is(0) => None,
        "Div" if float => a.div_exact(b),
        // Integers are divided towards zero, dims downwards: the same where both are positive.
        "Div" => match (a.known(), b.known()) {
            (Some(x), Some(y)) => x.checked_div(y).map(Dim::from),
            _ if range(a).min >= 0 && range(b).min >= 0 => Some(a.floor_div(b)),
            _ => a.div_exact(b),
        },
        "Mod" if float || b.is(0) => None,
        "Mod" if matches!(cx.attrs.get("fmod"), Some(AttrValue::Int(n)) if *n != 0) => None,
        "Mod" => (range(b).min >= 0).then(|| a.sub(&b.mul(&a.floor_div(b)))),
        "Max" => Some(a.maximum(b)),
        "Min" => Some(a.minimum(b)),
        "And" => truth(a.known()? != 0 && b.known()? != 0),
        "Or" => truth(a.known()? != 0 || b.known()? != 0),
        _ => {
            let d = range(&a.sub(b));
            match op {
                "Equal" if d.min == 0 && d.max == 0 => truth(true),
                "Equal" if d.min > 0 || d.max < 0 => truth(false),
                "Less" if d.max < 0 => truth(true),
                "Less" if d.min >= 0 => truth(false),
                "LessOrEqual" if d.max <= 0 => truth(true),
                "LessOrEqual" if d.min > 0 => truth(false),
                "Greater" if d.min > 0 => truth(true),
                "Greater" if d.max <= 0 => truth(false),
                "GreaterOrEqual" if d.min >= 0 => truth(true),
                "GreaterOrEqual" if d.max < 0 => truth(false),
                _ => None,
            }
        }
    }
}

/// An axis attribute, counted from the front.
fn axis(cx: &Infer<'_>, default: i64, rank: usize) -> Option<usize> {
    let given = match cx.attrs.get("axis") {
        Some(AttrValue::Int(n)) => *n,
        _ => default,
    };
    crate::graph::ops::rules::axis(given, rank).ok()
}

/// A tensor around an axis: (elements before it, its extent, elements behind it).
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

fn concat(cx: &Infer<'_>) -> Option<Vec<Dim>> {
    let parts: Vec<Known> = (0..cx.inputs.len()).map(|i| input(cx, i)).collect::<Option<_>>()?;
    let axis = axis(cx, 0, parts.first()?.shape.len())?;
    let rows = around(&parts.first()?.shape, axis).0;
    let mut out = vec![];
    for row in 0..rows {
        for p in &parts {
            let width = p.elements.len().checked_div(rows)?;
            out.extend_from_slice(p.elements.get(row * width..(row + 1) * width)?);
        }
    }
    Some(out)
}

fn split(cx: &Infer<'_>, outputs: &[Type]) -> Option<Vec<Option<Vec<Dim>>>> {
    let from = input(cx, 0)?;
    let axis = axis(cx, 0, from.shape.len())?;
    let (rows, extent, behind) = around(&from.shape, axis);
    let mut start = 0;
    let mut all = vec![];
    for t in outputs {
        let width = known(&t.shape)?.get(axis).copied()?;
        let part: Option<Vec<&[Dim]>> = (0..rows)
            .map(|r| from.elements.get((r * extent + start) * behind..(r * extent + start + width) * behind))
            .collect();
        all.push(Some(part?.concat()));
        start += width;
    }
    Some(all)
}

fn gather(cx: &Infer<'_>, shape: &[usize]) -> Option<Vec<Dim>> {
    let (from, at) = (input(cx, 0)?, input(cx, 1)?);
    let axis = axis(cx, 0, from.shape.len())?;
    let (rows, extent, behind) = around(&from.shape, axis);
    let n = i64::try_from(extent).ok()?;
    let place = |d: &Dim| {
        let i = d.known()?;
        usize::try_from(if i < 0 { i + n } else { i }).ok().filter(|i| *i < extent)
    };
    let at: Vec<usize> = at.elements.iter().map(place).collect::<Option<_>>()?;
    let mut out = Vec::with_capacity(shape.iter().product());
    for r in 0..rows {
        for i in &at {
            out.extend_from_slice(from.elements.get((r * extent + i) * behind..(r * extent + i + 1) * behind)?);
        }
    }
    Some(out)
}

fn slice(cx: &Infer<'_>) -> Option<Vec<Dim>> {
    let mut from = input(cx, 0)?;
    let ints = |i: usize| input(cx, i)?.elements.iter().map(Dim::known).collect::<Option<Vec<i64>>>();
    let (starts, ends) = (ints(1)?, ints(2)?);
    let axes = if cx.optional(3).is_some() { ints(3)? } else { (0..).take(starts.len()).collect() };
    let steps = if cx.optional(4).is_some() { ints(4)? } else { vec![1; starts.len()] };
    for (((start, end), axis), step) in starts.iter().zip(ends).zip(axes).zip(steps) {
        let axis = crate::graph::ops::rules::axis(axis, from.shape.len()).ok()?;
        let (rows, extent, behind) = around(&from.shape, axis);
        let n = i64::try_from(extent).ok()?;
        let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
        let clamp = |i: i64| (if i < 0 { i.saturating_add(n) } else { i }).clamp(low, high);
        let (mut i, end) = (clamp(*start), clamp(end));
        let mut picked = vec![];
        while step != 0 && (if step > 0 { i < end } else { i > end }) {
            picked.push(usize::try_from(i).ok().filter(|i| *i < extent)?);
            i = i.saturating_add(step);
        }
        let mut out = vec![];
        for r in 0..rows {
            for i in &picked {
                out.extend_from_slice(from.elements.get((r * extent + i) * behind..(r * extent + i + 1) * behind)?);
            }
        }
        from.elements = out;
        from.shape[axis] = picked.len();
    }
    Some(from.elements)
}

fn transpose(cx: &Infer<'_>) -> Option<Vec<Dim>> {
    let from = input(cx, 0)?;
    let rank = from.shape.len();
    let order: Vec<usize> = match cx.attrs.get("perm") {
        Some(AttrValue::Ints(p)) => p.iter().map(|a| usize::try_from(*a).ok()).collect::<Option<_>>()?,
        _ => (0..rank).rev().collect(),
    };
    let stride = |axis: usize| from.shape.get(axis + 1..).map(|s| s.iter().product::<usize>());
    // Each axis of the result multiplies the places read so far.
    let mut places = vec![0usize];
    for a in order {
        let (extent, stride) = (*from.shape.get(a)?, stride(a)?);
        places = places.iter().flat_map(|p| (0..extent).map(move |i| p + i * stride)).collect();
    }
    places.into_iter().map(|p| from.elements.get(p).cloned()).collect()
}

fn span(cx: &Infer<'_>, shape: &[usize]) -> Option<Vec<Dim>> {
    let (start, delta) = (input(cx, 0)?.elements.first()?.clone(), input(cx, 2)?.elements.first()?.clone());
    let count = i64::try_from(*shape.first()?).ok()?;
    Some((0..count).map(|i| start.add(&delta.mul(&Dim::from(i)))).collect())
}

/// A reduction of all elements.
fn reduce(op: &str, cx: &Infer<'_>, shape: &[usize]) -> Option<Vec<Dim>> {
    let from = input(cx, 0)?;
    let all = shape.iter().product::<usize>() == 1;
    let same = from.elements.len() == 1 && all;
    if same {
        return Some(from.elements);
    }
    let mut elements = from.elements.iter();
    let first = elements.next().filter(|_| all)?.clone();
    let fold = |total: Dim, d: &Dim| match op {
        "ReduceProd" => total.mul(d),
        "ReduceSum" => total.add(d),
        "ReduceMax" => total.maximum(d),
        _ => total.minimum(d),
    };
    Some(vec![elements.fold(first, fold)])
}
