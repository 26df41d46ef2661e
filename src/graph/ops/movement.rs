//! Parts of tensors put together, cut out, repeated, rearranged (ai.onnx).
//!
//! Concat DepthToSpace Pad ReverseSequence Slice SpaceToDepth Split Tile

use super::Op;
use super::rules::{MANY, absent, axes, axis, depends_on_data, greatest, int, least, one_dtype, range, rank};
use super::rules::{required, row, same, string};
use crate::error::{Error, Kind, Result};
use crate::graph::infer::{Infer, Type};
use crate::tensor::{Dim, Shape, show};

pub(super) const ROWS: &[Op] = &[
    row("Concat", &[4, 11], (1, MANY), &[required("axis")], concat),
    row("DepthToSpace", &[1, 11], (1, 1), &[required("blocksize"), string("mode", "DCR")], |i| blocks(i, true)),
    row("Pad", &[2, 11, 18, 19], (2, 4), &[string("mode", "constant")], pad),
    row("ReverseSequence", &[10], (2, 2), &[int("batch_axis", 1), int("time_axis", 0)], reverse_sequence),
    row("Slice", &[1, 10, 11], (3, 5), &[], slice),
    row("SpaceToDepth", &[1], (1, 1), &[required("blocksize")], |i| blocks(i, false)),
    Op {
        name: "Split",
        since: &[2, 11, 13, 18],
        inputs: (1, 2),
        outputs: (1, MANY),
        attrs: &[int("axis", 0), absent("num_outputs")],
        infer: split,
    },
    row("Tile", &[6], (2, 2), &[], tile),
];

fn concat(i: &Infer<'_>) -> Result<Vec<Type>> {
    let dtype = one_dtype(i)?;
    let mut shape = i.shape(0)?.clone();
    let at = axis(i.attrs.int("axis")?, shape.len())?;
    shape[at] = Dim::from(0);
    for t in i.inputs.iter().flatten() {
        let fits = |n: usize| n == at || t.shape[n] == shape[n];
        if t.shape.len() != shape.len() || !(0..shape.len()).all(fits) {
            let all: Vec<String> = i.inputs.iter().flatten().map(|t| show(&t.shape)).collect();
            let e = format!("shapes {} do not concatenate along axis {at}", all.join(", "));
            return Err(Error::new(Kind::InvalidShape, e));
        }
        shape[at] = shape[at].add(&t.shape[at]);
    }
    Ok(vec![Type::new(dtype, shape)])
}

/// The sizes of the parts of `Split` along its axis.
fn parts(i: &Infer<'_>, whole: &Dim) -> Result<Vec<Dim>> {
    if i.optional(1).is_some() {
        return i.required_content(1, "the sizes that Split takes");
    }
    let n = match i.attrs.get("num_outputs") {
        Some(_) => i.attrs.int("num_outputs")?,
        None => i64::try_from(i.outputs).unwrap_or(i64::MAX),
    };
    if !(1..=1 << 16).contains(&n) {
        return Err(Error::new(Kind::InvalidModel, format!("Split into {n} parts")));
    }
    let each = whole.ceil_div(&Dim::from(n));
    let last = whole.sub(&each.mul(&Dim::from(n - 1)));
    Ok((0..n).map(|k| if k == n - 1 { last.clone() } else { each.clone() }).collect())
}

fn split(i: &Infer<'_>) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    let at = axis(i.attrs.int("axis")?, t.shape.len())?;
    let parts = parts(i, &t.shape[at])?;
    let sum = parts.iter().fold(Dim::from(0), |s, d| s.add(d));
    let negative = parts.iter().any(|d| d.known().is_some_and(|n| n < 0));
    if negative || sum.sub(&t.shape[at]).known().is_some_and(|n| n != 0) {
        let e = format!("parts of sizes {} of axis {at} of {}", show(&parts), show(&t.shape));
        return Err(Error::new(Kind::InvalidShape, e));
    }
    if i.outputs > parts.len() {
        let e = format!("Split into {} parts with {} outputs", parts.len(), i.outputs);
        return Err(Error::new(Kind::InvalidModel, e));
    }
    let part = |d: Dim| {
        let mut shape = t.shape.clone();
        shape[at] = d;
        Type::new(t.dtype, shape)
    };
    Ok(parts.into_iter().map(part).collect())
}

/// What `Slice` takes of an axis: element `n` is input element `start + n · step`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub start: Dim,
    pub step: i64,
    pub len: Dim,
}

/// Starts and ends with this magnitude mean "to the end".
const FAR: i64 = i32::MAX as i64;

/// The cut along each axis of `shape`.
pub fn cuts(
    shape: &[Dim],
    starts: &[Dim],
    ends: &[Dim],
    list: Option<&[i64]>,
    steps: Option<&[i64]>,
) -> Result<Vec<Cut>> {
    let all: Vec<i64> = (0..).take(starts.len()).collect();
    let at = axes(list.unwrap_or(&all), shape.len())?;
    let ones = vec![1; starts.len()];
    let steps = steps.unwrap_or(&ones);
    if ends.len() != starts.len() || at.len() != starts.len() || steps.len() != starts.len() {
        return Err(Error::new(Kind::InvalidModel, "Slice with starts, ends, axes and steps of different lengths"));
    }
    let mut cuts: Vec<Cut> = shape.iter().map(|d| Cut { start: Dim::from(0), step: 1, len: d.clone() }).collect();
    for (n, a) in at.into_iter().enumerate() {
        cuts[a] = cut(&shape[a], &starts[n], &ends[n], steps[n])?;
    }
    Ok(cuts)
}

fn cut(d: &Dim, start: &Dim, end: &Dim, step: i64) -> Result<Cut> {
    let (zero, one) = (Dim::from(0), Dim::from(1));
    if step == 0 || step == i64::MIN {
        return Err(Error::new(Kind::InvalidModel, format!("Slice with step {step}")));
    }
    let last = d.sub(&one);
    // (least start, greatest start, least end, greatest end)
    let bounds = if step > 0 { [&zero, d, &zero, d] } else { [&zero, &last, &Dim::from(-1), &last] };
    let start = bounded(start, d, bounds[0], bounds[1])?;
    let end = bounded(end, d, bounds[2], bounds[3])?;
    let span = if step > 0 { end.sub(&start) } else { start.sub(&end) };
    Ok(Cut { start, step, len: greatest(&span.ceil_div(&Dim::from(step.abs())), &zero) })
}

/// A start or end, counted from the end where it is negative, within bounds.
fn bounded(v: &Dim, d: &Dim, low: &Dim, high: &Dim) -> Result<Dim> {
    let r = range(v);
    let from_end = match v.known() {
        Some(n) if n >= FAR => return Ok(high.clone()),
        Some(n) if n <= -FAR => return Ok(low.clone()),
        _ if r.min >= 0 => false,
        _ if r.max < 0 => true,
        _ => return Err(depends_on_data(&format!("the sign of Slice's {v}"))),
    };
    let v = if from_end { d.add(v) } else { v.clone() };
    Ok(greatest(&least(&v, high), low))
}

fn slice(i: &Infer<'_>) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    let starts = i.required_content(1, "the starts of Slice")?;
    let ends = i.required_content(2, "the ends of Slice")?;
    let (at, steps) = (i.ints(3, "the axes of Slice")?, i.ints(4, "the steps of Slice")?);
    let cuts = cuts(&t.shape, &starts, &ends, at.as_deref(), steps.as_deref())?;
    Ok(vec![Type::new(t.dtype, cuts.into_iter().map(|c| c.len).collect())])
}

/// The elements before and after each axis of `shape` that `Pad` adds; where negative, takes away.
pub fn pads(shape: &[Dim], pads: &[Dim], list: Option<&[i64]>) -> Result<Vec<(Dim, Dim)>> {
    let at = match list {
        Some(list) => axes(list, shape.len())?,
        None => (0..shape.len()).collect(),
    };
    if pads.len() != 2 * at.len() {
        let e = format!("Pad with {} numbers for {} axes", pads.len(), at.len());
        return Err(Error::new(Kind::InvalidModel, e));
    }
    let mut all: Vec<(Dim, Dim)> = shape.iter().map(|_| (Dim::from(0), Dim::from(0))).collect();
    for (n, a) in at.iter().enumerate() {
        all[*a] = (pads[n].clone(), pads[n + at.len()].clone());
    }
    Ok(all)
}

fn pad(i: &Infer<'_>) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    let list = i.ints(3, "the axes of Pad")?;
    let all = pads(&t.shape, &i.required_content(1, "the sizes that Pad takes")?, list.as_deref())?;
    let shape: Shape = t.shape.iter().zip(&all).map(|(d, (a, b))| d.add(a).add(b)).collect();
    if shape.iter().any(|d| d.known().is_some_and(|n| n < 0)) {
        return Err(Error::new(Kind::InvalidShape, format!("Pad takes more away than {} has", show(&t.shape))));
    }
    let constant = match i.attrs.str("mode")? {
        "constant" => true,
        "reflect" | "edge" | "wrap" => false,
        other => return Err(Error::new(Kind::InvalidModel, format!("Pad's mode is \"{other}\""))),
    };
    // Other modes have nothing to repeat.
    if !constant && t.shape.iter().zip(&shape).any(|(d, s)| d.is(0) && !s.is(0)) {
        return Err(Error::new(Kind::InvalidShape, format!("Pad of the empty {}", show(&t.shape))));
    }
    Ok(vec![Type::new(t.dtype, shape)])
}

fn tile(i: &Infer<'_>) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    let repeats = i.required_content(1, "the repeats of Tile")?;
    if repeats.len() != t.shape.len() {
        let e = format!("Tile of {} with repeats {}", show(&t.shape), show(&repeats));
        return Err(Error::new(Kind::InvalidShape, e));
    }
    Ok(vec![Type::new(t.dtype, t.shape.iter().zip(&repeats).map(|(d, r)| d.mul(r)).collect())])
}

/// (N, C, H, W) between depth and space.
fn blocks(i: &Infer<'_>, to_space: bool) -> Result<Vec<Type>> {
    let t = i.input(0)?;
    rank("the input of DepthToSpace or SpaceToDepth", &t.shape, 4)?;
    let size = i.attrs.int("blocksize")?;
    let wrong = || Error::new(Kind::InvalidShape, format!("blocks of {size} x {size} of {}", show(&t.shape)));
    if !(1..=1 << 15).contains(&size) {
        return Err(wrong());
    }
    let (b, square) = (Dim::from(size), Dim::from(size * size));
    let divided = |d: &Dim, by: &Dim| match (d.div_exact(by), d.known()) {
        (Some(q), _) => Ok(q),
        (None, Some(_)) => Err(wrong()),
        (None, None) => Ok(d.floor_div(by)),
    };
    let [n, c, h, w] = &t.shape[..] else { return Err(wrong()) };
    Ok(vec![Type::new(
        t.dtype,
        if to_space {
            vec![n.clone(), divided(c, &square)?, h.mul(&b), w.mul(&b)]
        } else {
            vec![n.clone(), c.mul(&square), divided(h, &b)?, divided(w, &b)?]
        },
    )])
}

fn reverse_sequence(i: &Infer<'_>) -> Result<Vec<Type>> {
    let (shape, lengths) = (i.shape(0)?, i.shape(1)?);
    let (batch, time) = (axis(i.attrs.int("batch_axis")?, shape.len())?, axis(i.attrs.int("time_axis")?, shape.len())?);
    if batch == time || lengths[..] != [shape[batch].clone()] {
        let e = format!("ReverseSequence of {} along axis {time}, lengths {}", show(shape), show(lengths));
        return Err(Error::new(Kind::InvalidShape, e));
    }
    same(i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_symbolic_axes() {
        let s = Dim::sym("s");
        let cases = [
            ("x[1:]", 1, i64::MAX, 1, "(-1 + s)", "1"),
            ("x[:-1]", 0, -1, 1, "(-1 + s)", "0"),
            ("x[-1:]", -1, i64::MAX, 1, "1", "(-1 + s)"),
            ("x[::-1]", -1, i64::MIN, -1, "s", "(-1 + s)"),
            ("x[::2]", 0, i64::MAX, 2, "⌊(1 + s) / 2⌋", "0"),
        ];
        for (name, start, end, step, len, first) in cases {
            let c = cut(&s, &Dim::from(start), &Dim::from(end), step).unwrap();
            assert_eq!((c.len.to_string().as_str(), c.start.to_string().as_str()), (len, first), "{name}");
        }
    }
}
