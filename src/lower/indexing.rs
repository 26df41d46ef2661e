//! Reading and writing elements by indices. Negative indices count from the end. Indices come from outside: what lies
//! outside of the data is taken to its edge by reads and ignored by writes, so that no memory but the tensor's is touched.

use super::formula::formula;
use super::math::{clamp_index, within};
use super::{Cx, Lower};
use crate::error::{Error, Kind, Result};
use crate::graph::ops::indexing::coordinates;
use crate::graph::ops::rules::axis;
use crate::kernel::{Axis, BinaryOp, ExprId, Scalar, Stmt, Ty, ValueId, Values};
use crate::tensor::{Array, Dim};

pub(super) const ROWS: &[(&str, Lower)] = &[
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("GatherND", gather_nd),
    ("ScatterElements", scatter_elements),
    ("ScatterND", scatter_nd),
    ("TensorScatter", tensor_scatter),
];

/// Whether a tensor of indices is constant, and every one lies in `0..n`.
fn plain(vs: &Values, indices: ValueId, n: &Dim) -> bool {
    let (all, n) = (vs.constant(indices).and_then(Array::to_i64), n.known());
    all.zip(n).is_some_and(|(all, n)| all.iter().all(|i| (0..n).contains(i)))
}

/// Index `i` of an axis of `n` elements, counted from the end where it is negative; not yet within bounds.
fn wrapped(vs: &mut Values, i: ExprId, n: &Dim) -> ExprId {
    let n = vs.arena.dim(n);
    let n = {
        let ty = vs.arena.ty(i);
        vs.arena.cast(ty, n)
    };
    // In the index's own type, so that 64-bit values do not wrap into bounds. Unsigned ones have no negatives.
    if matches!(vs.arena.ty(i), Ty::U32 | Ty::U64) {
        return vs.arena.cast(Ty::I32, i);
    }
    formula(&mut vs.arena, &[i, n], |x| {
        let (i, n) = (x[0], x[1]);
        i.lt(0i64).select(i + n, i).max(-1i64).min(n).cast(Ty::I32)
    })
}

/// The element of `indices` at `at` as an index into an axis of `n` elements.
fn read_index(vs: &mut Values, indices: ValueId, at: &[ExprId], n: &Dim) -> ExprId {
    let i = vs.load(indices, at);
    if plain(vs, indices, n) {
        return vs.arena.cast(Ty::I32, i);
    }
    let i = wrapped(vs, i, n);
    clamp_index(vs, i, n)
}

fn gather(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (data, indices, shape, rank) = (cx.input(0)?, cx.input(1)?, cx.shape(0)?, cx.shape(1)?.len());
    let at = axis(cx.attrs().int("axis")?, shape.len())?;
    cx.func(|vs, i| {
        let k = read_index(vs, indices, &i[at..at + rank], &shape[at]);
        Ok(vs.load(data, &[&i[..at], &[k], &i[at + rank..]].concat()))
    })
}

fn gather_elements(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (data, indices, shape) = (cx.input(0)?, cx.input(1)?, cx.shape(0)?);
    let at = axis(cx.attrs().int("axis")?, shape.len())?;
    cx.func(|vs, i| {
        let mut index = i.to_vec();
        index[at] = read_index(vs, indices, i, &shape[at]);
        Ok(vs.load(data, &index))
    })
}

fn gather_nd(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (data, indices, shape, list) = (cx.input(0)?, cx.input(1)?, cx.shape(0)?, cx.shape(1)?);
    let batch = usize::try_from(cx.attrs().int("batch_dims")?).unwrap_or(usize::MAX).min(shape.len());
    let n = coordinates(&shape, &list, batch)?;
    cx.func(|vs, i| {
        let outer = &i[..list.len() - 1];
        let mut index = i[..batch].to_vec();
        for (k, d) in (0i64..).zip(&shape[batch..batch + n]) {
            let k = vs.arena.int(k);
            index.push(read_index(vs, indices, &[outer, &[k]].concat(), d));
        }
        index.extend(&i[outer.len()..]);
        Ok(vs.load(data, &index))
    })
}

/// How an update meets what is there; `None`: it replaces it.
fn reduction(cx: &Cx<'_>) -> Result<Option<BinaryOp>> {
    Ok(match cx.attrs().str("reduction")? {
        "none" => None,
        "add" => Some(BinaryOp::Add),
        "mul" => Some(BinaryOp::Mul),
        "max" => Some(BinaryOp::Max),
        "min" => Some(BinaryOp::Min),
        other => return Err(Error::new(Kind::InvalidModel, format!("a scatter's reduction is \"{other}\""))),
    })
}

/// `out[index] = update`, combined with what is there, where `inside`.
fn update(
    vs: &mut Values,
    out: ValueId,
    index: Vec<ExprId>,
    inside: ExprId,
    update: ExprId,
    op: Option<BinaryOp>,
) -> Vec<Stmt> {
    let to = match op {
        Some(op) => {
            let old = vs.load(out, &index);
            // Narrow integers wrap when they are stored; bools add as "or" and multiply as "and".
            match (vs.arena.ty(old), op) {
                (Ty::Bool, BinaryOp::Add | BinaryOp::Max) => vs.arena.binary(BinaryOp::Or, old, update),
                (Ty::Bool, _) => vs.arena.binary(BinaryOp::And, old, update),
                _ => vs.arena.binary(op, old, update),
            }
        }
        None => update,
    };
    let store = Stmt::Store { value: out, index, to };
    match vs.arena.as_int(inside) {
        Some(0) => vec![],
        Some(_) => vec![store],
        None => vec![Stmt::If { condition: inside, then: vec![store], otherwise: vec![] }],
    }
}

/// New axes over `shape`, and their indices.
fn loops(vs: &mut Values, shape: &[Dim]) -> (Vec<Axis>, Vec<ExprId>) {
    let axes: Vec<Axis> = shape.iter().map(|d| vs.arena.axis(d.clone())).collect();
    let index = axes.iter().map(|a| vs.arena.axis_expr(*a)).collect();
    (axes, index)
}

/// `body` for every index of `axes`, outermost first.
fn nested(axes: &[Axis], body: Vec<Stmt>) -> Vec<Stmt> {
    axes.iter().rev().fold(body, |body, axis| vec![Stmt::For { axis: *axis, body }])
}

/// Every line along the axis is independent of the others: it is copied, then updated.
fn scatter_elements(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (data, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (shape, list, op, (dtype, out_shape)) = (cx.shape(0)?, cx.shape(1)?, reduction(cx)?, cx.output(0)?);
    let at = axis(cx.attrs().int("axis")?, shape.len())?;
    cx.values.program(vec![(dtype, out_shape)], |vs, out| {
        let (axes, index) = loops(vs, &shape);
        let copied = vs.load(data, &index);
        let copy = Stmt::Store { value: out[0], index: index.clone(), to: copied };
        let mut body = vec![Stmt::For { axis: axes[at], body: vec![copy] }];
        let along = vs.arena.axis(list[at].clone());
        let mut from = index.clone();
        from[at] = vs.arena.axis_expr(along);
        let to = vs.load(indices, &from);
        let to = wrapped(vs, to, &shape[at]);
        let inside = if plain(vs, indices, &shape[at]) {
            vs.arena.constant(Scalar::bool(true))
        } else {
            within(vs, to, &shape[at])
        };
        let new = vs.load(updates, &from);
        let mut place = index.clone();
        place[at] = to;
        let scatter = vec![Stmt::For { axis: along, body: update(vs, out[0], place, inside, new, op) }];
        // The indices may cover less than the data along the other axes.
        let mut covered = vs.arena.constant(Scalar::bool(true));
        for n in (0..shape.len()).filter(|n| *n != at && list[*n] != shape[*n]) {
            let d = vs.arena.dim(&list[n]);
            let c = vs.arena.lt(index[n], d);
            covered = vs.arena.and(covered, c);
        }
        body.extend(match vs.arena.as_int(covered) {
            Some(0) => vec![],
            Some(_) => scatter,
            None => vec![Stmt::If { condition: covered, then: scatter, otherwise: vec![] }],
        });
        let parallel = axes.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, a)| *a).collect();
        Ok((parallel, body))
    })
}

/// Places inside the updated slices are independent of each other: the data there is copied, then updated in order.
fn scatter_nd(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (data, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (shape, list, op, (dtype, out_shape)) = (cx.shape(0)?, cx.shape(1)?, reduction(cx)?, cx.output(0)?);
    let n = coordinates(&shape, &list, 0)?;
    cx.values.program(vec![(dtype, out_shape)], |vs, out| {
        let (outer, mut index) = loops(vs, &shape[..n]);
        let (inner, within_slice) = loops(vs, &shape[n..]);
        index.extend(&within_slice);
        let copied = vs.load(data, &index);
        let mut body = nested(&outer, vec![Stmt::Store { value: out[0], index, to: copied }]);
        let (each, which) = loops(vs, &list[..list.len() - 1]);
        let mut place = vec![];
        let mut inside = vs.arena.constant(Scalar::bool(true));
        for (k, d) in (0i64..).zip(&shape[..n]) {
            let k = vs.arena.int(k);
            let i = vs.load(indices, &[&which[..], &[k]].concat());
            let i = wrapped(vs, i, d);
            let ok = within(vs, i, d);
            inside = vs.arena.and(inside, ok);
            place.push(i);
        }
        place.extend(&within_slice);
        let new = vs.load(updates, &[&which[..], &within_slice].concat());
        body.extend(nested(&each, update(vs, out[0], place, inside, new, op)));
        Ok((inner, body))
    })
}

/// Each batch's update lies over its cache from a start on; "circular" goes on at the beginning.
fn tensor_scatter(cx: &mut Cx<'_>) -> Result<Vec<ValueId>> {
    let (cache, new, starts) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let (shape, added) = (cx.shape(0)?, cx.shape(1)?);
    let at = axis(cx.attrs().int("axis")?, shape.len())?;
    let circular = match cx.attrs().str("mode")? {
        "circular" => true,
        "linear" => false,
        other => return Err(Error::new(Kind::InvalidModel, format!("TensorScatter's mode is \"{other}\""))),
    };
    cx.func(|vs, i| {
        let start = match starts {
            Some(s) => {
                let s = vs.load(s, &i[..1]);
                vs.arena.cast(Ty::I32, s)
            }
            None => vs.arena.int(0),
        };
        let mut k = vs.arena.sub(i[at], start);
        if circular {
            let n = vs.arena.dim(&shape[at]);
            k = vs.arena.binary(BinaryOp::FloorMod, k, n);
        }
        let inside = within(vs, k, &added[at]);
        let mut index = i.to_vec();
        index[at] = k;
        let (new, old) = (vs.load(new, &index), vs.load(cache, i));
        Ok(vs.arena.select(inside, new, old))
    })
}

#[cfg(test)]
mod tests {
    use crate::graph::AttrValue::{self, Int, Str};
    use crate::lower::testing::{Case, In, exact, f32s, i64s};
    use crate::tensor::Array;

    #[test]
    fn gathers() {
        let x = f32s(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let case = |name, op, attrs, indices: Array, want| {
            let want = [want];
            for indices in [In::Data(indices.clone()), In::Constant(indices)] {
                let inputs = [In::Symbolic(x.clone(), &["s"]), indices];
                Case { name, op, attrs, inputs: &inputs, want: &want, tolerance: (0.0, 0.0) }.check();
            }
        };
        case("rows", "Gather", &[], i64s(&[1], &[-1.0]), f32s(&[1, 3], &[3.0, 4.0, 5.0]));
        case("scalar", "Gather", &[("axis", Int(1))], i64s(&[], &[2.0]), f32s(&[2], &[2.0, 5.0]));
        case(
            "beyond the edges",
            "Gather",
            &[("axis", Int(1))],
            i64s(&[2], &[-9.0, 1e12]),
            f32s(&[2, 2], &[0.0, 2.0, 3.0, 5.0]),
        );
        let each = i64s(&[2, 1], &[2.0, -3.0]);
        case("elements", "GatherElements", &[("axis", Int(1))], each, f32s(&[2, 1], &[2.0, 3.0]));
        case("slices", "GatherND", &[], i64s(&[1, 1], &[1.0]), f32s(&[1, 3], &[3.0, 4.0, 5.0]));
        case("places", "GatherND", &[], i64s(&[2, 2], &[0.0, 1.0, -1.0, -1.0]), f32s(&[2], &[1.0, 5.0]));
        let batches = [In::Data(x.clone()), In::Data(i64s(&[2, 1], &[2.0, 0.0]))];
        let want = [f32s(&[2], &[2.0, 3.0])];
        exact("batches", "GatherND", &[("batch_dims", Int(1))], &batches, &want);
    }

    #[test]
    fn scatters() {
        let x = f32s(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let case = |name: &str,
                    op: &str,
                    attrs: &[(&'static str, AttrValue)],
                    indices: Array,
                    updates: Array,
                    want: &[f64]| {
            let inputs = [In::Data(x.clone()), In::Data(indices), In::Data(updates)];
            Case { name, op, attrs, inputs: &inputs, want: &[f32s(&[2, 3], want)], tolerance: (0.0, 0.0) }.check();
        };
        let two = || f32s(&[1, 2], &[10.0, 20.0]);
        let axis = ("axis", Int(1));
        let reduce = |r: &str| ("reduction", Str(r.into()));
        let at = || i64s(&[1, 2], &[2.0, -1.0]);
        case("the last one stays", "ScatterElements", &[axis.clone()], at(), two(), &[0.0, 1.0, 20.0, 3.0, 4.0, 5.0]);
        case("add", "ScatterElements", &[axis.clone(), reduce("add")], at(), two(), &[0.0, 1.0, 32.0, 3.0, 4.0, 5.0]);
        case("max", "ScatterElements", &[axis, reduce("max")], at(), two(), &[0.0, 1.0, 20.0, 3.0, 4.0, 5.0]);
        let rows = f32s(&[2, 3], &[1.0; 6]);
        let twice = i64s(&[2, 1], &[1.0, -1.0]);
        case("rows", "ScatterND", &[reduce("add")], twice, rows, &[0.0, 1.0, 2.0, 5.0, 6.0, 7.0]);
        let places = i64s(&[2, 2], &[0.0, 0.0, 7.0, 0.0]);
        case("outside is ignored", "ScatterND", &[], places, f32s(&[2], &[9.0, 8.0]), &[9.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}
