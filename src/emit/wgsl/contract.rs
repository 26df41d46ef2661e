//! Matrix products and convolutions: every invocation computes a tile of rows by columns in registers, from operands read
//! straight out of their buffers. On CPU adapters this is the fastest form; caches serve what neighbours share.

use super::numbers::{is_atom, marked};
use super::vector::is_multiple;
use super::writer::{Access, Gen, Val, ceil_div};
use crate::error::Result;
use crate::kernel::{Axis, BOrder, Contract, ExprId, Kernel, Node, Store};
use crate::tensor::{Dim, numel};
use std::collections::HashMap;

/// A register tile and the workgroup around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    /// Rows of an invocation.
    pub rows: i64,
    /// Vectors of four columns of an invocation; even.
    pub vectors: i64,
    /// Of a workgroup's invocations, how many lie along the columns; the others lie along the rows.
    pub across: i64,
}

/// Invocations of a workgroup.
const GROUP: i64 = 32;

impl Tile {
    /// Invocations of a workgroup along the rows.
    fn down(&self) -> i64 {
        GROUP / self.across
    }
}

/// The tile for a product of that many rows and columns, where they are known.
pub(super) fn tile(m: Option<i64>, n: Option<i64>) -> Tile {
    let rows = m.unwrap_or(8).clamp(1, 8);
    // Sixteen columns where that fills whole tiles, eight otherwise.
    let n = n.unwrap_or(64);
    let vectors = if n % 16 == 0 { 4 } else { 2 };
    let tiles = |extent: i64, by: i64| (extent.max(1) - 1) / by + 1;
    let (wide, high) = (tiles(n, 4 * vectors), tiles(m.unwrap_or(1 << 20), rows));
    // As few idle invocations as possible.
    let groups = |across: &i64| tiles(wide, *across) * tiles(high, GROUP / across);
    let across = [4, 8, 2, 16, 1, 32].into_iter().min_by_key(groups).unwrap_or(4);
    Tile { rows, vectors, across }
}

/// The innermost fold axis, four at a time where the left operand has them in a vector.
struct Inner {
    axis: Axis,
    q: Axis,
    /// `4 · q + lane`, for the left operand.
    wide: ExprId,
    /// `4 · q`, for the right one.
    base: ExprId,
}

/// Writes the body of `main`; returns the dispatch's and the workgroup's size.
pub(super) fn write(g: &mut Gen<'_>, kernel: &Kernel, c: &Contract) -> Result<([Dim; 3], [u32; 3])> {
    let extents =
        |g: &Gen<'_>, axes: &[Axis]| numel(&axes.iter().map(|a| g.values.arena.extent(*a).clone()).collect::<Vec<_>>());
    let last = kernel.axes.len().saturating_sub(1);
    let batch = &kernel.axes[..c.batch.min(last)];
    let m_axes = &kernel.axes[c.batch.min(last)..last];
    let (m, n) = (extents(g, m_axes), g.values.arena.extent(c.n).clone());
    let t = tile(m.known(), n.known());
    let groups = [ceil_div(&n, 4 * t.vectors * t.across), ceil_div(&m, t.rows * t.down()), extents(g, batch)];
    let dispatch = g.grid(&groups[0].mul(&groups[1]).mul(&groups[2]))?;
    let (gx, gy) = (g.dim_text(&groups[0])?, g.dim_text(&groups[1])?);
    let (x, y) = (g.fresh("x"), g.fresh("y"));
    let (across, high) = (marked(t.across), marked(t.rows * t.down()));
    g.line(&format!("let {x} = (id % {gx}) * {across} + tid % {across};"));
    g.line(&format!("let {y} = ((id / {gx}) % {gy}) * {high} + (tid / {across}) * {};", t.rows));
    let m_text = g.dim_text(&m)?;
    let wide = g.dim_text(&ceil_div(&n, 4 * t.vectors))?;
    g.line(&format!("if (({y} >= {m_text}) | ({x} >= {wide})) {{ return; }}"));
    let z = g.fresh("z");
    g.line(&format!("let {z} = id / ({gx} * {gy});"));
    g.bind_linear(batch, 0, &z)?;

    // Products whose rows fill whole tiles look after them as the others do: that costs little, and they share shaders.
    let rows_whole = t.rows == 1;
    // What stands for the row axes in the products, and in the epilogue: apart, so that the text does not depend on which
    // of their strides happen to be equal.
    let (mut rows, mut ends): (Vec<HashMap<Axis, ExprId>>, Vec<_>) = (vec![], vec![]);
    for i in 0..t.rows {
        let r = g.fresh("m");
        let at = format!("{y} + {i}");
        let text = if rows_whole { at } else { format!("min({at}, {m_text} - 1)") };
        g.line(&format!("let {r} = {text};"));
        let extents: Vec<Dim> = m_axes.iter().map(|a| g.values.arena.extent(*a).clone()).collect();
        let mine: Vec<Axis> = extents.iter().map(|e| g.values.arena.axis(e.clone())).collect();
        g.bind_linear(&mine, 0, &r)?;
        rows.push(m_axes.iter().copied().zip(mine.iter().map(|a| g.values.arena.axis_expr(*a))).collect());
        let again: Vec<Axis> = extents.into_iter().map(|e| g.values.arena.axis(e)).collect();
        for (a, b) in mine.iter().zip(&again) {
            g.bind_again(*a, *b);
        }
        ends.push(m_axes.iter().copied().zip(again.iter().map(|a| g.values.arena.axis_expr(*a))).collect());
    }
    let (columns, n_lane) = columns(g, c, &t, &n, &x)?;
    let ragged = n.div_exact(&Dim::from(4)).is_none();
    if ragged
        && c.b_order == BOrder::Panel
        && let Node::Load { value, .. } = g.values.arena.node(c.b)
    {
        let value = *value;
        g.padded.insert(value);
    }
    g.lanes.insert(n_lane);

    let mut accumulators = vec![];
    for i in 0..rows.len() {
        for j in 0..columns.len() {
            let name = format!("acc{i}_{j}");
            g.line(&format!("var {name} = vec4<f32>();"));
            accumulators.push(name);
        }
    }
    g.ragged = ragged;
    products(g, c, &rows, &columns, &accumulators)?;
    epilogue(g, kernel.stores.first(), c, &ends, &columns, &accumulators, (&y, &m_text, rows_whole))?;
    let size = [GROUP, 1, 1].map(|n| u32::try_from(n).unwrap_or(1));
    Ok((dispatch, size))
}

/// A vector of columns: what stands for the column axis, and the first column's text.
pub(super) struct Column {
    pub at: ExprId,
    pub first: String,
    /// Whether all four columns exist for every invocation.
    pub whole: bool,
}

fn columns(g: &mut Gen<'_>, c: &Contract, t: &Tile, n: &Dim, x: &str) -> Result<(Vec<Column>, Axis)> {
    let lane = g.values.arena.axis(Dim::from(4));
    let el = g.values.arena.axis_expr(lane);
    let mut all = vec![];
    let whole = n.div_exact(&Dim::from(4 * t.vectors)).is_some();
    for j in 0..t.vectors {
        // A panel of eight columns is two vectors.
        let (width, within) = if c.b_order == BOrder::Panel { (8, 4 * (j % 2)) } else { (4, 0) };
        let per = 4 * t.vectors / width;
        let p = g.values.arena.axis(ceil_div(n, width));
        let place = j * 4 / width;
        let text = if per == 1 { x.to_owned() } else { format!("({x} * {per} + {place})") };
        let name = g.fresh("n");
        g.line(&format!("let {name} = {text};"));
        g.bind(p, 0, name.clone());
        let arena = &mut g.values.arena;
        let (ep, w, o) = (arena.axis_expr(p), arena.int(width), arena.int(within));
        let base = arena.mul(ep, w);
        // The offset in the panel is summed first, so that it is seen to stay inside it.
        let inside = arena.add(el, o);
        let at = arena.add(base, inside);
        all.push(Column { at, first: format!("({name} * {width} + {within})"), whole });
    }
    Ok((all, lane))
}

/// The loops over the fold axes.
fn products(
    g: &mut Gen<'_>,
    c: &Contract,
    rows: &[HashMap<Axis, ExprId>],
    columns: &[Column],
    accumulators: &[String],
) -> Result<()> {
    let zero = g.values.arena.int(0);
    let (ones, loops): (Vec<Axis>, Vec<Axis>) = c.k.iter().partition(|a| g.values.arena.extent(**a).is(1));
    let fixed: HashMap<Axis, ExprId> = ones.into_iter().map(|a| (a, zero)).collect();
    let (a, b) = (g.values.arena.substitute(c.a, &fixed), g.values.arena.substitute(c.b, &fixed));
    // The axis along which the left operand is contiguous goes innermost.
    let mut loops = loops;
    let mut inner = None;
    for at in (0..loops.len()).rev() {
        inner = four_at_a_time(g, loops[at], a);
        if inner.is_some() {
            loops[at..].rotate_left(1);
            break;
        }
    }
    let (looped, unrolled) = match (&inner, loops.split_last()) {
        (Some(i), Some((_, outer))) => ([outer, &[i.q]].concat(), vec![]),
        // A short innermost axis (the colours of an image) is unrolled.
        (None, Some((k, outer))) if g.values.arena.extent(*k).known().is_some_and(|n| n <= 4) => {
            (outer.to_vec(), vec![*k])
        }
        _ => (loops.clone(), vec![]),
    };
    for k in &looped {
        g.open_loop(*k, "k")?;
    }
    // One step: the left operand of each row, then for each k the right operand of each column.
    let mut left: Vec<Vec<ExprId>> = vec![];
    let mut right: Vec<Vec<ExprId>> = vec![];
    for row in rows {
        let ai = g.values.arena.substitute(a, row);
        left.push(match &inner {
            Some(i) => vec![g.values.arena.substitute(ai, &HashMap::from([(i.axis, i.wide)]))],
            None => g.unrolled(&unrolled, ai),
        });
    }
    for column in columns {
        let bj = g.values.arena.substitute(b, &HashMap::from([(c.n, column.at)]));
        right.push(match &inner {
            Some(i) => (0..4)
                .map(|u| {
                    let u = g.values.arena.int(u);
                    let k = g.values.arena.add(i.base, u);
                    g.values.arena.substitute(bj, &HashMap::from([(i.axis, k)]))
                })
                .collect(),
            None => g.unrolled(&unrolled, bj),
        });
    }
    let roots: Vec<ExprId> = left.iter().chain(&right).flatten().copied().collect();
    g.count(&roots);
    let steps = right.first().map_or(0, Vec::len);
    let mut a_names = vec![];
    for row in &left {
        let mut names = vec![];
        for e in row {
            names.push(step_value(g, *e, "a")?);
        }
        a_names.push(names);
    }
    if inner.is_some() {
        // Four steps at once, as the product of a matrix: an accumulator is read and written once for them.
        for (j, column) in right.iter().enumerate() {
            let mut parts = vec![];
            for e in column {
                let v = step_value(g, *e, "q")?;
                parts.push(if v.wide { v.text } else { format!("vec4<f32>({})", v.text) });
            }
            let matrix = g.fresh("f");
            g.line(&format!("let {matrix} = mat4x4<f32>({});", parts.join(", ")));
            for (i, names) in a_names.iter().enumerate() {
                let acc = &accumulators[i * columns.len() + j];
                g.line(&format!("{acc} = {acc} + {matrix} * {};", names[0].text));
            }
        }
    }
    for s in 0..if inner.is_some() { 0 } else { steps } {
        let mut b_names = vec![];
        for column in &right {
            let v = step_value(g, column[s], "q")?;
            b_names.push(if v.wide { v.text } else { format!("vec4<f32>({})", v.text) });
        }
        for (i, names) in a_names.iter().enumerate() {
            for (j, b) in b_names.iter().enumerate() {
                let acc = &accumulators[i * columns.len() + j];
                g.line(&format!("{acc} = {acc} + {} * {b};", names[s].text));
            }
        }
    }
    for _ in &looped {
        g.close();
    }
    Ok(())
}

/// The value under a name of its own, read where it stands.
fn step_value(g: &mut Gen<'_>, e: ExprId, prefix: &str) -> Result<Val> {
    let v = g.value(e)?;
    if is_atom(&v.text) {
        return Ok(v);
    }
    let name = g.fresh(prefix);
    g.line(&format!("let {name} = {};", v.text));
    Ok(Val { text: name, wide: v.wide })
}

/// Splits the innermost fold axis by four where the left operand is an aligned vector along it then.
fn four_at_a_time(g: &mut Gen<'_>, k: Axis, a: ExprId) -> Option<Inner> {
    let quarters = g.values.arena.extent(k).div_exact(&Dim::from(4))?;
    let (q, lane, wide) = g.split(k, quarters);
    let body = g.values.arena.substitute(a, &HashMap::from([(k, wide)]));
    if !g.any_aligned(body, lane) {
        return None;
    }
    g.lanes.insert(lane);
    let (eq, four) = (g.values.arena.axis_expr(q), g.values.arena.int(4));
    let base = g.values.arena.mul(eq, four);
    debug_assert!(is_multiple(g.values, base, 4));
    Some(Inner { axis: k, q, wide, base })
}

/// Stores the tile through the expression around the fold.
pub(super) fn epilogue(
    g: &mut Gen<'_>,
    store: Option<&Store>,
    c: &Contract,
    rows: &[HashMap<Axis, ExprId>],
    columns: &[Column],
    accumulators: &[String],
    (y, m, rows_whole): (&str, &str, bool),
) -> Result<()> {
    let Some(store) = store else { return Ok(()) };
    let n = g.values.arena.extent(c.n).clone();
    let n = g.dim_text(&n)?;
    let mut tile = vec![];
    for (i, row) in rows.iter().enumerate() {
        for (j, column) in columns.iter().enumerate() {
            let mut with = row.clone();
            with.insert(c.n, column.at);
            let fold = g.values.arena.substitute(c.fold, &with);
            let index = g.values.arena.substitute(store.index, &with);
            let to = g.values.arena.substitute(store.to, &with);
            let acc = Val::four(accumulators[i * columns.len() + j].clone());
            if let Some(b) = g.blocks.first_mut() {
                b.memo.insert(fold, acc);
            }
            tile.push((i, column, index, to));
        }
    }
    let roots: Vec<ExprId> = tile.iter().flat_map(|(.., index, to)| [*index, *to]).collect();
    g.count(&roots);
    for (i, row) in tile.chunk_by(|a, b| a.0 == b.0).enumerate() {
        let mut computed = vec![];
        for (_, column, index, to) in row {
            computed.push((column, *index, *to, g.value(*to)?));
        }
        if !rows_whole {
            g.open(&format!("if ({y} + {i} < {m})"));
        }
        for (column, index, to, v) in computed {
            if g.ragged {
                store_each(g, store, column, index, to, &v, &n)?;
            } else if column.whole {
                g.store_value(store.value, index, to, v)?;
            } else {
                g.open(&format!("if ({} < {n})", column.first));
                g.store_value(store.value, index, to, v)?;
                g.close();
            }
        }
        if !rows_whole {
            g.close();
        }
    }
    Ok(())
}

/// Stores those of four columns that exist.
fn store_each(
    g: &mut Gen<'_>,
    store: &Store,
    column: &Column,
    index: ExprId,
    to: ExprId,
    v: &Val,
    n: &str,
) -> Result<()> {
    let whole = g.fresh("t");
    let dtype = g.values.dtype(store.value);
    let text = g.stored(dtype, to, v.clone())?;
    g.line(&format!("let {whole} = {text};"));
    let lane = g.lane_of(index);
    for (l, part) in ["x", "y", "z", "w"].iter().enumerate() {
        let at = match lane {
            Some(lane) => {
                let k = g.values.arena.int(i64::try_from(l).unwrap_or(0));
                g.values.arena.substitute(index, &HashMap::from([(lane, k)]))
            }
            None => index,
        };
        let name = g.buffer(store.value, Access { single: true, written: true, ..Access::default() })?;
        let at = g.value(at)?.text;
        let value = if v.wide { format!("{whole}.{part}") } else { whole.clone() };
        g.line(&format!("if ({} + {l} < {n}) {{ {name}[{at}] = {value}; }}", column.first));
    }
    Ok(())
}
