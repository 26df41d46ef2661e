//! Matrix products and convolutions through workgroup memory: a workgroup brings blocks of both operands there, and each
//! invocation computes a small tile from them. On GPUs this is faster than [`super::contract`], on CPU adapters slower.

use super::contract::{Column, epilogue};
use super::value::splat;
use super::writer::{Gen, ceil_div};
use crate::error::Result;
use crate::kernel::{Axis, Contract, ExprId, Kernel, Ty, Values};
use crate::tensor::{Dim, numel};
use std::collections::HashMap;

/// Rows and columns of a workgroup's block of the result.
const BLOCK: i64 = 64;
/// Steps of the sum for which operands are in workgroup memory at a time.
const DEPTH: i64 = 16;
/// Rows of an invocation, and its columns: one vector.
const TILE: i64 = 4;
/// Invocations of a workgroup: 16 by 16.
const GROUP: i64 = 256;
/// Smaller products do not fill a block.
const LEAST: i64 = 32;

/// Whether the product is large enough, and its columns are whole vectors.
pub(super) fn fits(values: &Values, kernel: &Kernel, c: &Contract) -> bool {
    let (batch, m) = split(kernel, c);
    let most = |axes: &[Axis]| extent(values, axes).range(&values.arena.ranges).max;
    let n = values.arena.extent(c.n);
    batch.len() + m.len() + 1 == kernel.axes.len()
        && most(m) >= LEAST
        && most(&c.k) >= DEPTH
        && n.known().is_some_and(|n| n >= LEAST && n % 4 == 0)
}

/// The axes of the batch and of the rows.
fn split<'a>(kernel: &'a Kernel, c: &Contract) -> (&'a [Axis], &'a [Axis]) {
    let last = kernel.axes.len().saturating_sub(1);
    kernel.axes[..last].split_at(c.batch.min(last))
}

fn extent(values: &Values, axes: &[Axis]) -> Dim {
    numel(&axes.iter().map(|a| values.arena.extent(*a).clone()).collect::<Vec<_>>())
}

/// New axes of the same extents, bound to the digits of `index` at `level`; what stands for the old ones.
fn bound(g: &mut Gen<'_>, axes: &[Axis], level: usize, index: &str) -> Result<HashMap<Axis, ExprId>> {
    let extents: Vec<Dim> = axes.iter().map(|a| g.values.arena.extent(*a).clone()).collect();
    let mine: Vec<Axis> = extents.into_iter().map(|e| g.values.arena.axis(e)).collect();
    g.bind_linear(&mine, level, index)?;
    Ok(axes.iter().copied().zip(mine.iter().map(|a| g.values.arena.axis_expr(*a))).collect())
}

/// Writes the body of `main`; returns the dispatch's and the workgroup's size.
pub(super) fn write(g: &mut Gen<'_>, kernel: &Kernel, c: &Contract) -> Result<([Dim; 3], [u32; 3])> {
    let (batch, m_axes) = split(kernel, c);
    let (m, n, k) = (extent(g.values, m_axes), g.values.arena.extent(c.n).clone(), extent(g.values, &c.k));
    let groups = [ceil_div(&n, BLOCK), ceil_div(&m, BLOCK), extent(g.values, batch)];
    let dispatch = g.grid(&groups[0].mul(&groups[1]).mul(&groups[2]))?;
    let (gx, gy) = (g.dim_text(&groups[0])?, g.dim_text(&groups[1])?);
    let (x, y, z) = (g.fresh("x"), g.fresh("y"), g.fresh("z"));
    g.line(&format!("let {x} = (id % {gx}) * {BLOCK};"));
    g.line(&format!("let {y} = ((id / {gx}) % {gy}) * {BLOCK};"));
    g.line(&format!("let {z} = id / ({gx} * {gy});"));
    g.bind_linear(batch, 0, &z)?;
    let (m_text, k_text) = (g.dim_text(&m)?, g.dim_text(&k)?);
    let quarters = n.floor_div(&Dim::from(4));
    let q_text = g.dim_text(&quarters)?;
    let side = BLOCK / TILE;
    let (tx, ty) = (g.fresh("x"), g.fresh("y"));
    g.line(&format!("let {tx} = tid % {side};"));
    g.line(&format!("let {ty} = tid / {side};"));
    let accumulators: Vec<String> = (0..TILE).map(|i| format!("acc{i}_0")).collect();
    for name in &accumulators {
        g.line(&format!("var {name} = vec4<f32>();"));
    }
    let (left, right) = (BLOCK * DEPTH, BLOCK * DEPTH / 4);
    g.shared.push_str(&format!("var<workgroup> left: array<f32, {left}>;\n"));
    g.shared.push_str(&format!("var<workgroup> right: array<vec4<f32>, {right}>;\n"));
    g.shared_bytes += u32::try_from(left * 8).unwrap_or(u32::MAX);

    let lane = g.values.arena.axis(Dim::from(4));
    g.lanes.insert(lane);
    let whole = k.div_exact(&Dim::from(DEPTH)).is_some();
    let k0 = g.fresh("k");
    let outer = g.open(&format!("for (var {k0} = 0; {k0} < {k_text}; {k0} = {k0} + {DEPTH})"));
    // The left block, by column: each invocation brings every 256th element.
    let l = g.fresh("k");
    let inner = g.open(&format!("for (var {l} = tid; {l} < {left}; {l} = {l} + {GROUP})"));
    let (row, step) = (g.fresh("m"), g.fresh("k"));
    g.line(&format!("let {row} = min({y} + {l} / {DEPTH}, {m_text} - 1);"));
    let at = format!("{k0} + {l} % {DEPTH}");
    let text = if whole { at.clone() } else { format!("min({at}, {k_text} - 1)") };
    g.line(&format!("let {step} = {text};"));
    let mut with = bound(g, m_axes, inner, &row)?;
    with.extend(bound(g, &c.k, inner, &step)?);
    let a = g.values.arena.substitute(c.a, &with);
    g.count(&[a]);
    let v = g.value(a)?;
    let v = if whole { v.text } else { format!("select(0.0f, {}, {at} < {k_text})", v.text) };
    g.line(&format!("left[({l} % {DEPTH}) * {BLOCK} + {l} / {DEPTH}] = {v};"));
    g.close();
    // The right block: a vector for each invocation.
    let (step, q) = (g.fresh("k"), g.fresh("n"));
    let at = format!("{k0} + {ty}");
    let text = if whole { at.clone() } else { format!("min({at}, {k_text} - 1)") };
    g.line(&format!("let {step} = {text};"));
    let mut with = bound(g, &c.k, outer, &step)?;
    g.line_at(0, &format!("let {q} = min({x} / 4 + {tx}, {q_text} - 1);"));
    let axis = g.values.arena.axis(quarters);
    g.bind(axis, 0, q);
    let arena = &mut g.values.arena;
    let (eq, el, four) = (arena.axis_expr(axis), arena.axis_expr(lane), arena.int(4));
    let base = arena.mul(eq, four);
    let column = arena.add(base, el);
    with.insert(c.n, column);
    let b = g.values.arena.substitute(c.b, &with);
    g.count(&[b]);
    let v = g.value(b)?;
    let v = splat(Ty::F32, &v, true)?;
    let v = if whole { v } else { format!("select(vec4<f32>(), {v}, {at} < {k_text})") };
    g.line(&format!("right[tid] = {v};"));
    g.line("workgroupBarrier();");
    let (u, vector) = (g.fresh("k"), g.fresh("q"));
    g.open(&format!("for (var {u} = 0; {u} < {DEPTH}; {u} = {u} + 1)"));
    g.line(&format!("let {vector} = right[{u} * {side} + {tx}];"));
    for (i, name) in accumulators.iter().enumerate() {
        g.line(&format!("{name} = {name} + left[{u} * {BLOCK} + {ty} * {TILE} + {i}] * {vector};"));
    }
    g.close();
    g.line("workgroupBarrier();");
    g.close();

    let first = g.fresh("y");
    g.line(&format!("let {first} = {y} + {ty} * {TILE};"));
    let mut rows = vec![];
    for i in 0..TILE {
        let row = g.fresh("m");
        g.line(&format!("let {row} = min({first} + {i}, {m_text} - 1);"));
        rows.push(bound(g, m_axes, 0, &row)?);
    }
    let whole = n.div_exact(&Dim::from(BLOCK)).is_some();
    let columns = [Column { at: column, first: format!("{x} + {tx} * 4"), whole }];
    epilogue(g, kernel.stores.first(), c, &rows, &columns, &accumulators, (&first, &m_text, false))?;
    Ok((dispatch, [u32::try_from(GROUP).unwrap_or(1), 1, 1]))
}
