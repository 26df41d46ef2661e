//! Parts of tensors put together, cut out, repeated, rearranged: index maps.

use super::map::operand;
use super::math::clamp_index;
use super::{Cx, Lower};
use crate::error::Result;
use crate::graph::ops::movement::{cuts, pads};
use crate::graph::ops::rules::axis;
use crate::kernel::{BinaryOp, ExprId, MOST_READS, Scalar, Ty, ValueId, Values};
use crate::tensor::{DType, Dim};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("Concat", concat),
    ("DepthToSpace", depth_to_space),
    ("Pad", pad),
    ("ReverseSequence", reverse_sequence),
    ("Slice", slice),
    ("SpaceToDepth", space_to_depth),
    ("Split", split),
    ("Tile", tile),
];

/// Which input an element comes from is decided by nested selects along the axis.
fn concat(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let inputs = (0..cx.input_count()).map(|n| cx.input(n)).collect::<Result<Vec<_>>>()?;
    let at = axis(cx.attrs().int("axis")?, cx.shape(0)?.len())?;
    let mut inputs: Vec<ValueId> = inputs.into_iter().filter(|v| !cx.values.shape(*v)[at].is(0)).collect();
    let (dtype, shape) = cx.output(0)?;
    // No kernel reads more values than WebGPU can bind: groups are joined first, then joined.
    while inputs.len() > MOST_READS {
        let groups = inputs.chunks(MOST_READS).map(<[ValueId]>::to_vec).collect::<Vec<_>>();
        inputs = groups.into_iter().map(|g| join(cx.values, dtype, at, &g, &shape)).collect::<Result<_>>()?;
    }
    Ok(vec![join(cx.values, dtype, at, &inputs, &shape)?])
}

/// The inputs one after the other along an axis; 0 everywhere where there are none.
fn join(vs: &mut Values, dtype: DType, at: usize, inputs: &[ValueId], shape: &[Dim]) -> Result<ValueId> {
    let mut shape = shape.to_vec();
    let mut ends = vec![Dim::from(0)];
    for v in inputs {
        ends.push(ends[ends.len() - 1].add(&vs.shape(*v)[at]));
    }
    shape[at] = ends[inputs.len()].clone();
    vs.func(dtype, shape, |vs, i| {
        let mut all = None;
        for (n, v) in inputs.iter().enumerate().rev() {
            let mut index = i.to_vec();
            let start = vs.arena.dim(&ends[n]);
            index[at] = vs.arena.sub(i[at], start);
            let x = vs.load(*v, &index);
            all = Some(match all {
                None => x,
                Some(rest) => {
                    let end = vs.arena.dim(&ends[n + 1]);
                    let here = vs.arena.lt(i[at], end);
                    vs.arena.select(here, x, rest)
                }
            });
        }
        Ok(all.unwrap_or_else(|| vs.arena.constant(Scalar::int(Ty::of(dtype), 0))))
    })
}

fn split(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, shape) = (cx.input(0)?, cx.shape(0)?);
    let at = axis(cx.attrs().int("axis")?, shape.len())?;
    // Sizes of outputs that are not named are only known from the input.
    let sizes = if cx.optional(1).is_some() { Some(cx.content(1)?) } else { None };
    let parts = match cx.attrs().get("num_outputs") {
        Some(_) => cx.attrs().int("num_outputs")?,
        None => i64::try_from(cx.node.outputs.len()).unwrap_or(i64::MAX),
    };
    let each = shape[at].ceil_div(&Dim::from(parts));
    let mut all = vec![];
    let mut start = Dim::from(0);
    for n in 0..cx.node.outputs.len() {
        if cx.wants(n) {
            let (dtype, shape) = cx.output(n)?;
            all.push(cx.values.func(dtype, shape, |vs, i| {
                let mut index = i.to_vec();
                let start = vs.arena.dim(&start);
                index[at] = vs.arena.add(i[at], start);
                Ok(vs.load(x, &index))
            })?);
        } else {
            all.push(x);
        }
        start = start.add(sizes.as_ref().and_then(|s| s.get(n)).unwrap_or(&each));
    }
    Ok(all)
}

fn ints(cx: &Cx<'_>, i: usize) -> Result<Option<Vec<i64>>> {
    Ok(match cx.optional(i) {
        Some(_) => Some(cx.content(i)?.iter().filter_map(Dim::known).collect()),
        None => None,
    })
}

fn slice(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let (axes, steps) = (ints(cx, 3)?, ints(cx, 4)?);
    let cuts = cuts(&cx.shape(0)?, &cx.content(1)?, &cx.content(2)?, axes.as_deref(), steps.as_deref())?;
    cx.func(|vs, i| {
        let mut index = vec![];
        for (cut, i) in cuts.iter().zip(i) {
            let (start, step) = (vs.arena.dim(&cut.start), vs.arena.int(cut.step));
            let offset = vs.arena.mul(*i, step);
            index.push(vs.arena.add(offset, start));
        }
        Ok(vs.load(x, &index))
    })
}

fn pad(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, shape, value, (dtype, _)) = (cx.input(0)?, cx.shape(0)?, cx.optional(2), cx.output(0)?);
    let axes = ints(cx, 3)?;
    let pads = pads(&shape, &cx.content(1)?, axes.as_deref())?;
    let mode = cx.attrs().str("mode")?.to_owned();
    cx.func(|vs, i| {
        let mut index = vec![];
        let mut inside = vs.arena.constant(Scalar::bool(true));
        for (n, (begin, end)) in pads.iter().enumerate() {
            let shift = vs.arena.dim(begin);
            let at = vs.arena.sub(i[n], shift);
            let none = |d: &Dim| d.known().is_some_and(|n| n <= 0);
            if mode == "constant" {
                if !none(begin) {
                    let zero = vs.arena.int(0);
                    let low = vs.arena.ge(at, zero);
                    inside = vs.arena.and(inside, low);
                }
                if !none(end) {
                    let size = vs.arena.dim(&shape[n]);
                    let high = vs.arena.lt(at, size);
                    inside = vs.arena.and(inside, high);
                }
                index.push(at);
            } else if none(begin) && none(end) {
                index.push(at);
            } else {
                index.push(outside(vs, &mode, at, &shape[n], begin, end));
            }
        }
        let element = vs.load(x, &index);
        if mode != "constant" {
            return Ok(element);
        }
        let zero = vs.arena.int(0);
        let other = match value {
            Some(v) => {
                let at = vec![zero; vs.shape(v).len()];
                operand(vs, v, &at)
            }
            None => vs.arena.constant(Scalar::int(Ty::of(dtype), 0)),
        };
        Ok(vs.arena.select(inside, element, other))
    })
}

/// The element that stands for one outside of an axis.
fn outside(vs: &mut Values, mode: &str, at: ExprId, d: &Dim, begin: &Dim, end: &Dim) -> ExprId {
    let size = vs.arena.dim(d);
    match mode {
        "edge" => clamp_index(vs, at, d),
        "wrap" => vs.arena.binary(BinaryOp::FloorMod, at, size),
        // "reflect": the edge is not repeated.
        _ if d.is(1) => vs.arena.int(0),
        _ => {
            let zero = vs.arena.int(0);
            let twice = vs.arena.dim(&d.sub(&Dim::from(1)).mul(&Dim::from(2)));
            let once = |p: &Dim| d.known().zip(p.known()).is_none_or(|(d, p)| p < d);
            let near = if once(begin) && once(end) {
                let mirrored = vs.arena.sub(zero, at);
                vs.arena.binary(BinaryOp::Max, at, mirrored)
            } else {
                vs.arena.binary(BinaryOp::FloorMod, at, twice)
            };
            let far = vs.arena.sub(twice, near);
            vs.arena.binary(BinaryOp::Min, near, far)
        }
    }
}

fn tile(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, shape) = (cx.input(0)?, cx.shape(0)?);
    cx.func(|vs, i| {
        let mut index = vec![];
        for (i, d) in i.iter().zip(&shape) {
            let d = vs.arena.dim(d);
            index.push(vs.arena.binary(BinaryOp::FloorMod, *i, d));
        }
        Ok(vs.load(x, &index))
    })
}

/// `⌊x / n⌋` and `x mod n`.
fn divided(vs: &mut Values, x: ExprId, n: ExprId) -> (ExprId, ExprId) {
    (vs.arena.binary(BinaryOp::FloorDiv, x, n), vs.arena.binary(BinaryOp::FloorMod, x, n))
}

fn joined(vs: &mut Values, q: ExprId, n: ExprId, r: ExprId) -> ExprId {
    let q = vs.arena.mul(q, n);
    vs.arena.add(q, r)
}

fn depth_to_space(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, size, (_, out)) = (cx.input(0)?, cx.attrs().int("blocksize")?, cx.output(0)?);
    let columns_first = cx.attrs().str("mode")? == "CRD";
    cx.func(|vs, i| {
        let b = vs.arena.int(size);
        let ((h, y), (w, x_in)) = (divided(vs, i[2], b), divided(vs, i[3], b));
        let block = joined(vs, y, b, x_in);
        let (channels, square) = (vs.arena.dim(&out[1]), vs.arena.int(size * size));
        let c = if columns_first { joined(vs, i[1], square, block) } else { joined(vs, block, channels, i[1]) };
        Ok(vs.load(x, &[i[0], c, h, w]))
    })
}

fn space_to_depth(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, size, shape) = (cx.input(0)?, cx.attrs().int("blocksize")?, cx.shape(0)?);
    cx.func(|vs, i| {
        let (b, channels) = (vs.arena.int(size), vs.arena.dim(&shape[1]));
        let (block, c) = divided(vs, i[1], channels);
        let (y, x_in) = divided(vs, block, b);
        let (h, w) = (joined(vs, i[2], b, y), joined(vs, i[3], b, x_in));
        Ok(vs.load(x, &[i[0], c, h, w]))
    })
}

/// The first `lengths[batch]` elements along the time axis in reverse order.
fn reverse_sequence(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (x, lengths, shape) = (cx.input(0)?, cx.input(1)?, cx.shape(0)?);
    let batch = axis(cx.attrs().int("batch_axis")?, shape.len())?;
    let time = axis(cx.attrs().int("time_axis")?, shape.len())?;
    cx.func(|vs, i| {
        let n = vs.load(lengths, &[i[batch]]);
        let n = vs.arena.cast(Ty::I32, n);
        let one = vs.arena.int(1);
        let last = vs.arena.sub(n, one);
        let back = vs.arena.sub(last, i[time]);
        let within = vs.arena.lt(i[time], n);
        let mut index = i.to_vec();
        let at = vs.arena.select(within, back, i[time]);
        // Lengths come from outside.
        index[time] = clamp_index(vs, at, &shape[time]);
        Ok(vs.load(x, &index))
    })
}

#[cfg(test)]
mod tests {
    use crate::error::Kind;
    use crate::graph::AttrValue::{Int, Str};
    use crate::lower::testing::{Case, In, exact, f32s, i64s, run};

    fn ints(v: &[f64]) -> In {
        In::Constant(i64s(&[v.len()], v))
    }

    fn count(n: usize) -> Vec<f64> {
        (0..n).map(|n| n as f64).collect()
    }

    #[test]
    fn concat_and_split() {
        let (a, b) = (f32s(&[2, 1], &[0.0, 1.0]), f32s(&[2, 2], &[2.0, 3.0, 4.0, 5.0]));
        let both = [In::Symbolic(a, &["", "s"]), In::Symbolic(b, &["", "t"])];
        let joined = f32s(&[2, 3], &[0.0, 2.0, 3.0, 1.0, 4.0, 5.0]);
        exact("along a symbolic axis", "Concat", &[("axis", Int(-1))], &both, &[joined]);
        let many: Vec<In> = count(9).iter().map(|n| In::Data(f32s(&[1], &[*n]))).collect();
        exact("more than a kernel may read", "Concat", &[("axis", Int(0))], &many, &[f32s(&[9], &count(9))]);
        let x = f32s(&[5], &count(5));
        let parts = [f32s(&[2], &[0.0, 1.0]), f32s(&[2], &[2.0, 3.0]), f32s(&[1], &[4.0])];
        exact("last part smaller", "Split", &[("num_outputs", Int(3))], &[In::Data(x.clone())], &parts);
        let sized = [In::Data(x.clone()), ints(&[1.0, 4.0])];
        exact("sizes", "Split", &[], &sized, &[f32s(&[1], &[0.0]), f32s(&[4], &[1.0, 2.0, 3.0, 4.0])]);
        let e = run("Split", &[], &[In::Data(x), ints(&[1.0, 3.0])], 2).err();
        assert_eq!(e.map(|e| e.kind()), Some(Kind::InvalidShape));
    }

    #[test]
    fn slices() {
        let far = i64::MAX as f64;
        let cases: &[(&str, f64, f64, f64, &[f64])] = &[
            ("middle", 1.0, 4.0, 1.0, &[1.0, 2.0, 3.0]),
            ("last", -1.0, far, 1.0, &[5.0]),
            ("backwards", -1.0, -far, -2.0, &[5.0, 3.0, 1.0]),
            ("beyond the end", 4.0, 100.0, 1.0, &[4.0, 5.0]),
            ("nothing", 3.0, 2.0, 1.0, &[]),
        ];
        for (name, start, end, step, want) in cases {
            for x in [In::Data(f32s(&[6], &count(6))), In::Symbolic(f32s(&[6], &count(6)), &["s"])] {
                let inputs = [x, ints(&[*start]), ints(&[*end]), ints(&[0.0]), ints(&[*step])];
                let want = [f32s(&[want.len()], want)];
                Case { name, op: "Slice", attrs: &[], inputs: &inputs, want: &want, tolerance: (0.0, 0.0) }.check();
            }
        }
    }

    #[test]
    fn pads() {
        let cases: &[(&str, &[f64], &[f64])] = &[
            ("constant", &[1.0, 2.0], &[9.0, 0.0, 1.0, 2.0, 9.0, 9.0]),
            ("constant", &[-1.0, 1.0], &[1.0, 2.0, 9.0]),
            ("edge", &[2.0, 1.0], &[0.0, 0.0, 0.0, 1.0, 2.0, 2.0]),
            ("reflect", &[2.0, 2.0], &[2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0]),
            ("reflect", &[5.0, 0.0], &[1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0]),
            ("wrap", &[2.0, 4.0], &[1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0]),
        ];
        for (mode, pads, want) in cases {
            let inputs = [In::Data(f32s(&[3], &count(3))), ints(pads), In::Constant(f32s(&[], &[9.0])), ints(&[-1.0])];
            let (attrs, want) = ([("mode", Str((*mode).into()))], [f32s(&[want.len()], want)]);
            Case { name: mode, op: "Pad", attrs: &attrs, inputs: &inputs, want: &want, tolerance: (0.0, 0.0) }.check();
        }
    }

    #[test]
    fn rearrangements() {
        let x = || In::Symbolic(f32s(&[2, 1], &[1.0, 2.0]), &["s"]);
        exact(
            "Tile",
            "Tile",
            &[],
            &[x(), ints(&[2.0, 2.0])],
            &[f32s(&[4, 2], &[1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0])],
        );
        let depth = [In::Data(f32s(&[1, 8, 1, 1], &count(8)))];
        let size = ("blocksize", Int(2));
        let dcr = f32s(&[1, 2, 2, 2], &[0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
        exact("DCR", "DepthToSpace", &[size.clone()], &depth, &[dcr.clone()]);
        let crd = [size.clone(), ("mode", Str("CRD".into()))];
        exact("CRD", "DepthToSpace", &crd, &depth, &[f32s(&[1, 2, 2, 2], &count(8))]);
        exact("back", "SpaceToDepth", &[size], &[In::Data(dcr)], &[f32s(&[1, 8, 1, 1], &count(8))]);
        let times = [In::Data(f32s(&[3, 2], &count(6))), In::Data(i64s(&[2], &[2.0, 3.0]))];
        exact("ReverseSequence", "ReverseSequence", &[], &times, &[f32s(&[3, 2], &[2.0, 5.0, 0.0, 3.0, 4.0, 1.0])]);
    }
}
