//! Plain loops: one invocation for each element or each four, or one workgroup for each row where folds depend on the
//! row only.

use super::vector::is_multiple;
use super::writer::{Gen, ceil_div};
use crate::error::Result;
use crate::kernel::{Axis, ExprId, FoldOp, Kernel, Node, Store};
use crate::tensor::{Dim, numel};
use std::collections::{BTreeSet, HashMap};

/// Invocations of a workgroup where they work apart.
const APART: u32 = 64;
/// Folds of at least this many elements are shared out to a workgroup, where there are few results.
const LONG: i64 = 256;
/// As many results keep a GPU busy without sharing folds out.
const MANY: i64 = 8192;

/// Writes the body of `main`; returns the dispatch's and the workgroup's size.
pub(super) fn write(g: &mut Gen<'_>, kernel: &Kernel) -> Result<([Dim; 3], [u32; 3])> {
    let mut stores = kernel.stores.clone();
    let mut axes = kernel.axes.clone();
    let lane = vectorize(g, &mut axes, &mut stores);
    let roots: Vec<ExprId> = stores.iter().flat_map(|s| [s.index, s.to]).collect();
    g.count(&roots);
    match rows(g, &axes, &stores) {
        Some((row_axes, work)) => {
            // Some four steps for each invocation.
            let size = (work / 16).clamp(8, 64).unsigned_abs().next_power_of_two().min(64);
            write_rows(g, &axes, &row_axes, &stores, u32::try_from(size).unwrap_or(64))
        }
        None => write_points(g, &axes, stores, lane),
    }
}

/// Splits the innermost axis by four where the first store is an aligned vector along it then.
fn vectorize(g: &mut Gen<'_>, axes: &mut [Axis], stores: &mut [Store]) -> bool {
    let (Some(last), Some(first)) = (axes.last_mut(), stores.first()) else { return false };
    let Some(n) = g.values.arena.extent(*last).div_exact(&Dim::from(4)) else { return false };
    if n.is(0) {
        return false;
    }
    let (q, lane, sum) = g.split(*last, n);
    let with = HashMap::from([(*last, sum)]);
    let index = g.values.arena.substitute(first.index, &with);
    if !g.is_aligned(index, lane) {
        return false;
    }
    g.lanes.insert(lane);
    for s in stores.iter_mut() {
        s.index = g.values.arena.substitute(s.index, &with);
        s.to = g.values.arena.substitute(s.to, &with);
    }
    *last = q;
    true
}

/// The folds that stand in no other fold.
fn outer_folds(g: &Gen<'_>, e: ExprId, out: &mut BTreeSet<ExprId>) {
    if let Node::Fold { .. } = g.values.arena.node(e) {
        out.insert(e);
        return;
    }
    for c in g.values.arena.children(e) {
        outer_folds(g, c, out);
    }
}

/// The axes that number the rows, where folds are to be computed once a row by a workgroup, and how many elements the
/// longest of them has at most.
fn rows(g: &mut Gen<'_>, axes: &[Axis], stores: &[Store]) -> Option<(Vec<Axis>, i64)> {
    let mut folds = BTreeSet::new();
    for s in stores {
        outer_folds(g, s.to, &mut folds);
    }
    let ranges = g.values.arena.ranges.clone();
    let extent =
        |g: &Gen<'_>, list: &[Axis]| numel(&list.iter().map(|a| g.values.arena.extent(*a).clone()).collect::<Vec<_>>());
    let mut row: BTreeSet<Axis> = BTreeSet::new();
    let mut shared = false;
    let mut work = 0i64;
    for f in folds {
        let free = g.free_axes(f);
        let missing: Vec<Axis> = axes.iter().copied().filter(|a| !free.contains(a)).collect();
        let Node::Fold { axes: over, .. } = g.values.arena.node(f).clone() else { continue };
        let size = extent(g, &over).range(&ranges).max;
        work = work.max(size);
        // A short fold is cheaper computed again than shared.
        if !extent(g, &missing).is(1) && size > 4 {
            shared = true;
            row.extend(axes.iter().copied().filter(|a| free.contains(a)));
        }
    }
    if shared {
        return Some((axes.iter().copied().filter(|a| row.contains(a)).collect(), work));
    }
    (work >= LONG && extent(g, axes).range(&ranges).max < MANY).then(|| (axes.to_vec(), work))
}

fn write_rows(
    g: &mut Gen<'_>,
    axes: &[Axis],
    rows: &[Axis],
    stores: &[Store],
    size: u32,
) -> Result<([Dim; 3], [u32; 3])> {
    let inner: Vec<Axis> = axes.iter().copied().filter(|a| !rows.contains(a)).collect();
    let count = numel(&rows.iter().map(|a| g.values.arena.extent(*a).clone()).collect::<Vec<_>>());
    let dispatch = g.grid(&count)?;
    g.bind_linear(rows, 0, "id")?;
    g.cooperative = Some((0, size));
    if inner.is_empty() {
        // The folds must be reached by every invocation, the stores by one.
        let mut done = vec![];
        for s in stores {
            done.push(g.value(s.to)?);
        }
        g.open("if (tid == 0)");
        for (s, v) in stores.iter().zip(done) {
            g.store_value(s.value, s.index, s.to, v)?;
        }
        g.close();
        return Ok((dispatch, [size, 1, 1]));
    }
    let points = numel(&inner.iter().map(|a| g.values.arena.extent(*a).clone()).collect::<Vec<_>>());
    let end = g.dim_text(&points)?;
    let i = g.fresh("p");
    let level = g.open(&format!("for (var {i} = tid; {i} < {end}; {i} = {i} + {size})"));
    g.bind_linear(&inner, level, &i)?;
    for s in stores {
        g.store(s.value, s.index, s.to)?;
    }
    g.close();
    Ok((dispatch, [size, 1, 1]))
}

fn write_points(g: &mut Gen<'_>, axes: &[Axis], mut stores: Vec<Store>, wide: bool) -> Result<([Dim; 3], [u32; 3])> {
    let mut axes = axes.to_vec();
    let group = group_outputs(g, &mut axes, &stores, wide);
    let points = numel(&axes.iter().map(|a| g.values.arena.extent(*a).clone()).collect::<Vec<_>>());
    let dispatch = g.grid(&ceil_div(&points, i64::from(APART)))?;
    let i = g.fresh("p");
    g.line(&format!("let {i} = id * {APART} + tid;"));
    let end = g.dim_text(&points)?;
    g.line(&format!("if ({i} >= {end}) {{ return; }}"));
    g.bind_linear(&axes, 0, &i)?;
    let Some(Grouped { axis, at, extent, fold }) = group else {
        for s in &stores {
            g.store(s.value, s.index, s.to)?;
        }
        return Ok((dispatch, [APART, 1, 1]));
    };
    // Neighbouring outputs of one invocation: what they read in common is read once.
    let stores_once = std::mem::take(&mut stores);
    let (mut each, mut folds) = (vec![], vec![]);
    for position in &at {
        let with = HashMap::from([(axis, *position)]);
        folds.push(g.values.arena.substitute(fold, &with));
        for s in &stores_once {
            let index = g.values.arena.substitute(s.index, &with);
            let to = g.values.arena.substitute(s.to, &with);
            each.push((*position, Store { value: s.value, index, to }));
        }
    }
    let roots: Vec<ExprId> = each.iter().flat_map(|(_, s)| [s.index, s.to]).collect();
    g.count(&roots);
    g.name_loads = true;
    g.folds_in_step(&folds)?;
    let mut done = vec![];
    for (_, s) in &each {
        done.push(g.value(s.to)?);
    }
    let whole = extent.div_exact(&Dim::from(i64::try_from(at.len()).unwrap_or(1))).is_some();
    for ((position, s), v) in each.into_iter().zip(done) {
        if whole {
            g.store_value(s.value, s.index, s.to, v)?;
            continue;
        }
        let (p, end) = (g.value(position)?.text, g.dim_text(&extent)?);
        g.open(&format!("if ({p} < {end})"));
        g.store_value(s.value, s.index, s.to, v)?;
        g.close();
    }
    Ok((dispatch, [APART, 1, 1]))
}

/// Several outputs along an axis for one invocation.
struct Grouped {
    axis: Axis,
    /// The positions along the axis.
    at: Vec<ExprId>,
    extent: Dim,
    /// The sum.
    fold: ExprId,
}

/// Where a short sum slides along the axis before the innermost (a depthwise convolution), several neighbouring outputs
/// go to one invocation. Replaces the axis by that of the groups.
fn group_outputs(g: &mut Gen<'_>, axes: &mut [Axis], stores: &[Store], wide: bool) -> Option<Grouped> {
    let n = axes.len();
    let [store] = stores else { return None };
    if !wide || n < 2 {
        return None;
    }
    let axis = axes[n - 2];
    let mut folds = BTreeSet::new();
    outer_folds(g, store.to, &mut folds);
    let [fold] = folds.into_iter().collect::<Vec<_>>()[..] else { return None };
    let Node::Fold { op: FoldOp::Sum | FoldOp::Max, axes: over, .. } = g.values.arena.node(fold).clone() else {
        return None;
    };
    let taps = numel(&over.iter().map(|a| g.values.arena.extent(*a).clone()).collect::<Vec<_>>()).known()?;
    if !(4..=32).contains(&taps) || !g.free_axes(fold).contains(&axis) {
        return None;
    }
    let extent = g.values.arena.extent(axis).clone();
    let most = extent.range(&g.values.arena.ranges).max;
    if most < 2 {
        return None;
    }
    // Seven divides the images of 224 by 224 at every scale.
    let by = match extent.known() {
        Some(e) => [7, 4, 5, 3, 2].into_iter().find(|d| e % d == 0).unwrap_or(4).min(e),
        None => 4,
    };
    let arena = &mut g.values.arena;
    let q = arena.axis(ceil_div(&extent, by));
    let (eq, factor) = (arena.axis_expr(q), arena.int(by));
    // A single group starts at 0, and its guards are decided here.
    let base = if arena.extent(q).is(1) { arena.int(0) } else { arena.mul(eq, factor) };
    let at = (0..by)
        .map(|i| {
            let i = arena.int(i);
            arena.add(base, i)
        })
        .collect();
    axes[n - 2] = q;
    debug_assert!(is_multiple(g.values, base, by));
    Some(Grouped { axis, at, extent, fold })
}
