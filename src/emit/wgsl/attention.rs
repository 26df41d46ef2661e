//! Attention in one kernel: an invocation has some rows of queries and of the result in registers, and goes through keys
//! and values once, with the softmax's maximum and sum carried along (Milakov & Gimelshein 2018).

use super::writer::{Gen, Val, ceil_div};
use crate::error::{Error, Kind, Result};
use crate::kernel::{Attention, Axis, ExprId, FoldOp, Kernel, Node};
use crate::tensor::{Dim, numel};
use std::collections::HashMap;

/// Invocations of a workgroup.
const GROUP: i64 = 32;
/// Vectors of the result that an invocation holds for a row.
const VECTORS: i64 = 16;

/// A part of the result's columns.
struct Column {
    /// What stands for the column axis.
    at: ExprId,
    wide: bool,
}

/// Writes the body of `main`; returns the dispatch's and the workgroup's size.
pub(super) fn write(g: &mut Gen<'_>, kernel: &Kernel, a: &Attention) -> Result<([Dim; 3], [u32; 3])> {
    let Some(store) = kernel.stores.first().copied() else {
        return Err(Error::new(Kind::Internal, "attention without a store").at(&kernel.name));
    };
    let batch: Vec<Axis> = kernel.axes.iter().copied().filter(|x| *x != a.m && *x != a.n).collect();
    let (m, n) = (g.values.arena.extent(a.m).clone(), g.values.arena.extent(a.n).clone());
    // Columns of an invocation: some whole vectors, or a single one.
    let quarters = n.known().filter(|n| n % 4 == 0 && *n > 0).map(|n| n / 4);
    let vectors = quarters.map(|q| (1..=VECTORS).rev().find(|v| q % v == 0).unwrap_or(1));
    let chunks = match (quarters, vectors) {
        (Some(q), Some(v)) => Dim::from(q / v),
        _ => n.clone(),
    };
    let depth = depth_of(g, a);
    let held = vectors.unwrap_or(1) + depth.map_or(1, |d| d / 4);
    let most = m.range(&g.values.arena.ranges).max;
    let rows: i64 = if held > 16 { 1 } else { most.clamp(1, 4) };

    let blocks = ceil_div(&m, rows);
    let arena = &mut g.values.arena;
    let (block, chunk) = (arena.axis(blocks), arena.axis(chunks));
    let order: Vec<Axis> = batch.iter().copied().chain([chunk, block]).collect();
    let points = numel(&order.iter().map(|x| g.values.arena.extent(*x).clone()).collect::<Vec<_>>());
    let dispatch = g.grid(&ceil_div(&points, GROUP))?;
    let p = g.fresh("p");
    g.line(&format!("let {p} = id * {GROUP} + tid;"));
    let end = g.dim_text(&points)?;
    g.line(&format!("if ({p} >= {end}) {{ return; }}"));
    g.bind_linear(&order, 0, &p)?;

    let first = g.values.arena.axis_expr(block);
    let first = g.value(first)?.text;
    let m_text = g.dim_text(&m)?;
    let whole = m.div_exact(&Dim::from(rows)).is_some();
    let mut row_axes = vec![];
    for r in 0..rows {
        let name = g.fresh("m");
        let at = format!("{first} * {rows} + {r}");
        let text = if whole { at } else { format!("min({at}, {m_text} - 1)") };
        g.line(&format!("let {name} = {text};"));
        let axis = g.values.arena.axis(m.clone());
        g.bind(axis, 0, name);
        row_axes.push(g.values.arena.axis_expr(axis));
    }
    let columns = columns(g, a, chunk, vectors)?;
    let scores: Vec<(ExprId, ExprId)> = row_axes
        .iter()
        .map(|r| {
            let with = HashMap::from([(a.m, *r)]);
            (g.values.arena.substitute(a.dot, &with), g.values.arena.substitute(a.score, &with))
        })
        .collect();
    let dots: Vec<Option<Vec<ExprId>>> = scores.iter().map(|(dot, _)| products(g, *dot)).collect();
    let values: Vec<ExprId> =
        columns.iter().map(|c| g.values.arena.substitute(a.value, &HashMap::from([(a.n, c.at)]))).collect();
    let mut roots: Vec<ExprId> = dots.iter().flatten().flatten().copied().collect();
    roots.extend(scores.iter().map(|(_, s)| *s).chain(values.iter().copied()));
    g.count(&roots);

    let mut sums = vec![];
    for r in 0..rows {
        let (max, sum) = (format!("max{r}"), format!("sum{r}"));
        g.line(&format!("var {max} = -3.4028234e38f;"));
        g.line(&format!("var {sum} = 0.0f;"));
        for (j, c) in columns.iter().enumerate() {
            let zero = if c.wide { "vec4<f32>()" } else { "0.0f" };
            g.line(&format!("var acc{r}_{j} = {zero};"));
        }
        sums.push((max, sum));
    }
    g.open_loop(a.t, "k")?;
    for ((dot, _), parts) in scores.iter().zip(&dots) {
        let Some(parts) = parts else { continue };
        let v = dot_product(g, parts)?;
        let level = g.blocks.len() - 1;
        if let Some(b) = g.blocks.get_mut(level) {
            b.memo.insert(*dot, Val::one(v));
        }
    }
    let mut weights = vec![];
    for ((_, score), (r, (max, sum))) in scores.iter().zip(sums.iter().enumerate()) {
        let s = g.named(*score)?.text;
        let c = g.fresh("c");
        g.line(&format!("if ({s} > {max}) {{"));
        g.line(&format!("  let {c} = exp({max} - {s});"));
        g.line(&format!("  {sum} = {sum} * {c};"));
        for j in 0..columns.len() {
            g.line(&format!("  acc{r}_{j} = acc{r}_{j} * {c};"));
        }
        g.line(&format!("  {max} = {s};"));
        g.line("}");
        let w = g.fresh("w");
        g.line(&format!("let {w} = exp({s} - {max});"));
        g.line(&format!("{sum} = {sum} + {w};"));
        weights.push(w);
    }
    for (j, e) in values.iter().enumerate() {
        let v = g.named(*e)?;
        for (r, w) in weights.iter().enumerate() {
            g.line(&format!("acc{r}_{j} = acc{r}_{j} + {w} * {};", v.text));
        }
    }
    g.close();

    let mut tile = vec![];
    for (r, row) in row_axes.iter().enumerate() {
        for (j, c) in columns.iter().enumerate() {
            let with = HashMap::from([(a.m, *row), (a.n, c.at)]);
            let name = g.fresh("t");
            g.line(&format!("let {name} = acc{r}_{j} / {};", sums[r].1));
            let result = Val { text: name, wide: c.wide };
            let index = g.values.arena.substitute(store.index, &with);
            tile.push((r, result, index, g.values.arena.substitute(store.to, &with)));
        }
    }
    let roots: Vec<ExprId> = tile.iter().flat_map(|(.., i, to)| [*i, *to]).collect();
    g.count(&roots);
    for (r, result, index, to) in tile {
        if let Node::Var(var, _) = g.values.arena.node(a.result) {
            let var = *var;
            g.vars.insert(var, result);
        }
        let v = g.value(to)?;
        let guarded = !whole && r > 0;
        if guarded {
            g.open(&format!("if ({first} * {rows} + {r} < {m_text})"));
        }
        g.store_value(store.value, index, to, v)?;
        if guarded {
            g.close();
        }
    }
    Ok((dispatch, [u32::try_from(GROUP).unwrap_or(1), 1, 1]))
}

/// The number of elements of the dot product, where it is known and a multiple of 4.
fn depth_of(g: &Gen<'_>, a: &Attention) -> Option<i64> {
    match g.values.arena.node(a.dot) {
        Node::Fold { axes, .. } => match axes[..] {
            [d] => g.values.arena.extent(d).known().filter(|n| n % 4 == 0),
            _ => None,
        },
        _ => None,
    }
}

fn columns(g: &mut Gen<'_>, a: &Attention, chunk: Axis, vectors: Option<i64>) -> Result<Vec<Column>> {
    let ec = g.values.arena.axis_expr(chunk);
    let Some(vectors) = vectors else {
        return Ok(vec![Column { at: ec, wide: false }]);
    };
    let lane = g.values.arena.axis(Dim::from(4));
    g.lanes.insert(lane);
    let text = g.value(ec)?.text;
    let quarters = g.values.arena.extent(a.n).floor_div(&Dim::from(4));
    let mut all = vec![];
    for j in 0..vectors {
        let q = g.values.arena.axis(quarters.clone());
        let name = g.fresh("n");
        g.line(&format!("let {name} = {text} * {vectors} + {j};"));
        g.bind(q, 0, name);
        let arena = &mut g.values.arena;
        let (eq, el, four) = (arena.axis_expr(q), arena.axis_expr(lane), arena.int(4));
        let base = arena.mul(eq, four);
        all.push(Column { at: arena.add(base, el), wide: true });
    }
    Ok(all)
}

/// The products of the dot product, four at a time, where its operands are aligned vectors then.
fn products(g: &mut Gen<'_>, dot: ExprId) -> Option<Vec<ExprId>> {
    let Node::Fold { op: FoldOp::Sum, axes, body } = g.values.arena.node(dot).clone() else { return None };
    let [d] = axes[..] else { return None };
    let n = g.values.arena.extent(d).known().filter(|n| n % 4 == 0 && (4..=256).contains(n))?;
    let lane = g.values.arena.axis(Dim::from(4));
    let mut all = vec![];
    for i in 0..n / 4 {
        let arena = &mut g.values.arena;
        let (base, el) = (arena.int(4 * i), arena.axis_expr(lane));
        let at = arena.add(el, base);
        all.push(arena.substitute(body, &HashMap::from([(d, at)])));
    }
    g.lanes.insert(lane);
    if !all.first().is_some_and(|e| g.any_aligned(*e, lane)) {
        g.lanes.remove(&lane);
        return None;
    }
    Some(all)
}

/// The sum of vectors of products; returns its name.
fn dot_product(g: &mut Gen<'_>, parts: &[ExprId]) -> Result<String> {
    let mut acc = String::new();
    for e in parts {
        let v = g.value(*e)?;
        let x = if v.wide { v.text } else { format!("vec4<f32>({})", v.text) };
        let text = if acc.is_empty() { x } else { format!("{acc} + {x}") };
        acc = g.fresh("s");
        g.line(&format!("let {acc} = {text};"));
    }
    let dot = g.fresh("s");
    g.line(&format!("let {dot} = ({acc}.x + {acc}.y) + ({acc}.z + {acc}.w);"));
    Ok(dot)
}
