//! Folds: unrolled, as loops, four elements at a time along their own innermost axis, or by a whole workgroup.

use super::value::splat;
use super::vector::{at_zero, canonical, is_multiple, stride};
use super::writer::{Gen, Val, type_name};
use crate::error::Result;
use crate::kernel::{Axis, BinaryOp, ExprId, FoldOp, Node, Ty};
use crate::tensor::{Dim, numel};
use std::collections::HashMap;

/// Folds of at most this many elements are unrolled.
const UNROLL: i64 = 32;
/// Innermost axes of at most this many elements are unrolled inside the loops of the others.
const UNROLL_INNER: i64 = 8;

impl Gen<'_> {
    pub(super) fn fold(&mut self, op: FoldOp, axes: &[Axis], body: ExprId, level: usize) -> Result<Val> {
        let saved = self.blocks.split_off(level + 1);
        let outer = std::mem::replace(&mut self.current, level);
        let made = match self.cooperative {
            Some((at, size)) if at == level => self.fold_together(op, axes, body, size),
            _ => self.fold_alone(op, axes, body),
        };
        self.blocks.extend(saved);
        self.current = outer;
        made
    }

    fn extent_of(&self, axes: &[Axis]) -> Dim {
        let extents: Vec<Dim> = axes.iter().map(|a| self.values.arena.extent(*a).clone()).collect();
        numel(&extents)
    }

    fn fold_alone(&mut self, op: FoldOp, axes: &[Axis], body: ExprId) -> Result<Val> {
        let ty = self.values.arena.ty(body);
        let level = self.current;
        let arg = matches!(op, FoldOp::ArgMax { .. } | FoldOp::ArgMin { .. });
        if !arg && self.extent_of(axes).known().is_some_and(|n| (1..=UNROLL).contains(&n)) {
            let mut all = vec![];
            let mut bodies = self.unrolled(axes, body);
            if op == FoldOp::Sum {
                self.leave_out_zeros(&mut bodies);
            }
            for b in bodies {
                let b = if self.name_loads { canonical(self.values, b) } else { b };
                let v = self.value(b)?;
                all.push(v);
            }
            let wide = all.iter().any(|v| v.wide);
            let mut acc = String::new();
            for v in all {
                let x = splat(ty, &v, wide)?;
                let text = if acc.is_empty() { x } else { self.combine(op, ty, wide, &acc, &x) };
                acc = self.fresh("s");
                self.line(&format!("let {acc} = {text};"));
            }
            return Ok(Val { text: acc, wide });
        }
        let (axes, body, lane) = if arg { (axes.to_vec(), body, false) } else { self.lane_along(axes, body) };
        // The innermost axes that are short are unrolled.
        let mut split = axes.len();
        while !arg && split > 1 && self.extent_of(&axes[split - 1..]).known().is_some_and(|n| n <= UNROLL_INNER) {
            split -= 1;
        }
        for a in &axes[..split] {
            self.open_loop(*a, "k")?;
        }
        let acc = self.fresh("s");
        let at = self.fresh("s");
        let mut wide = false;
        let mut parts = vec![];
        for b in self.unrolled(&axes[split..], body) {
            let v = self.value(b)?;
            wide |= v.wide;
            parts.push(v);
        }
        let name = type_name(ty, wide)?;
        let init = self.initial(op, ty);
        self.line_at(level, &format!("var {acc}: {name} = {name}({init});"));
        if arg {
            let int = type_name(Ty::I32, wide)?;
            self.line_at(level, &format!("var {at}: {int} = {int}(0);"));
        }
        for v in parts {
            let x = splat(ty, &v, wide)?;
            if arg {
                let k = match axes.first() {
                    Some(a) => self.values.arena.axis_expr(*a),
                    None => self.values.arena.int(0),
                };
                let k = self.value(k)?.text;
                let better = self.fresh("t");
                let test = better_than(op, &acc, &x);
                self.line(&format!("let {better} = {test};"));
                self.line(&format!("{acc} = select({acc}, {x}, {better});"));
                let int = type_name(Ty::I32, wide)?;
                self.line(&format!("{at} = select({at}, {int}({k}), {better});"));
            } else {
                let text = self.combine(op, ty, wide, &acc, &x);
                self.line(&format!("{acc} = {text};"));
            }
        }
        for _ in &axes[..split] {
            self.close();
        }
        if arg {
            return Ok(Val { text: at, wide });
        }
        if lane && wide {
            return self.across(op, ty, &acc);
        }
        Ok(Val { text: acc, wide })
    }

    /// Takes products with what a guard is known to leave out from the terms of a sum, unless there are no others.
    fn leave_out_zeros(&self, terms: &mut Vec<ExprId>) {
        let zero = |e: ExprId| matches!(self.values.arena.node(e), Node::Const(s) if s.bits == 0);
        let nothing = |b: &ExprId| match self.values.arena.node(*b) {
            Node::Binary(BinaryOp::Mul, x, y) => zero(*x) || zero(*y),
            _ => false,
        };
        if !terms.iter().all(nothing) {
            terms.retain(|b| !nothing(b));
        }
    }

    /// Computes folds over the same axes together: their innermost axis is unrolled inside one nest of loops, so that what
    /// they read in common is read once, and the code stays short.
    pub(super) fn folds_in_step(&mut self, folds: &[ExprId]) -> Result<()> {
        let mut all = vec![];
        for e in folds {
            let Node::Fold { op, axes, body } = self.values.arena.node(*e).clone() else { return Ok(()) };
            all.push((op, axes, body));
        }
        let Some((op, axes, _)) = all.first().cloned() else { return Ok(()) };
        let Some((inner, outer)) = axes.split_last() else { return Ok(()) };
        if self.extent_of(outer).is(1) || all.iter().any(|(o, a, _)| *o != op || *a != axes) {
            return Ok(());
        }
        let names: Vec<String> = all.iter().map(|_| self.fresh("s")).collect();
        for a in outer {
            self.open_loop(*a, "k")?;
        }
        for ((e, name), (_, _, body)) in folds.iter().zip(&names).zip(&all) {
            let ty = self.values.arena.ty(*body);
            let mut parts = self.unrolled(&[*inner], *body);
            if op == FoldOp::Sum {
                self.leave_out_zeros(&mut parts);
            }
            let mut values = vec![];
            for part in parts {
                let part = canonical(self.values, part);
                values.push(self.value(part)?);
            }
            let wide = values.iter().any(|v| v.wide);
            for v in values {
                let text = self.combine(op, ty, wide, name, &splat(ty, &v, wide)?);
                self.line(&format!("{name} = {text};"));
            }
            let declared = type_name(ty, wide)?;
            let init = self.initial(op, ty);
            self.line_at(0, &format!("var {name}: {declared} = {declared}({init});"));
            if let Some(b) = self.blocks.first_mut() {
                b.memo.insert(*e, Val { text: name.clone(), wide });
            }
        }
        for _ in outer {
            self.close();
        }
        Ok(())
    }

    /// The body at every index of the axes, in order.
    pub(super) fn unrolled(&mut self, axes: &[Axis], body: ExprId) -> Vec<ExprId> {
        let mut all = vec![body];
        for a in axes {
            let n = self.values.arena.extent(*a).known().unwrap_or(0);
            let mut next = vec![];
            for b in all {
                for i in 0..n {
                    let i = self.values.arena.int(i);
                    next.push(self.values.arena.substitute(b, &HashMap::from([(*a, i)])));
                }
            }
            all = next;
        }
        all
    }

    /// Splits the innermost axis by four where its loads are aligned vectors then and the body is the same for all
    /// elements of an outer lane. Returns the axes, the body and whether that was done.
    fn lane_along(&mut self, axes: &[Axis], body: ExprId) -> (Vec<Axis>, ExprId, bool) {
        let same = (axes.to_vec(), body, false);
        let Some((last, outer)) = axes.split_last() else { return same };
        let extent = self.values.arena.extent(*last).clone();
        let Some(n) = extent.div_exact(&Dim::from(4)) else { return same };
        if self.lane_of(body).is_some() || self.ragged {
            return same;
        }
        let (q, lane, split) = self.split(*last, n);
        let wide_body = self.values.arena.substitute(body, &HashMap::from([(*last, split)]));
        self.lanes.insert(lane);
        if !self.any_aligned(wide_body, lane) {
            self.lanes.remove(&lane);
            return same;
        }
        self.count(&[wide_body]);
        ([outer, &[q]].concat(), wide_body, true)
    }

    /// New axes q (of extent `quarters`) and lane, and `4 · q + lane`, which stands for `axis`.
    pub(super) fn split(&mut self, _axis: Axis, quarters: Dim) -> (Axis, Axis, ExprId) {
        let arena = &mut self.values.arena;
        let (q, lane) = (arena.axis(quarters), arena.axis(Dim::from(4)));
        let (eq, el, four) = (arena.axis_expr(q), arena.axis_expr(lane), arena.int(4));
        let q4 = arena.mul(eq, four);
        let sum = arena.add(q4, el);
        (q, lane, sum)
    }

    /// Whether a load under `e` is an aligned vector along the lane.
    pub(super) fn any_aligned(&mut self, e: ExprId, lane: Axis) -> bool {
        let mut loads = vec![];
        self.values.arena.visit(e, &mut |_, n| {
            if let Node::Load { index, .. } = n
                && let [i] = index[..]
            {
                loads.push(i);
            }
        });
        loads.into_iter().any(|i| self.is_aligned(i, lane))
    }

    /// Whether an index is that of an aligned vector along the lane.
    pub(super) fn is_aligned(&mut self, index: ExprId, lane: Axis) -> bool {
        stride(self.values, index, lane) == Some(1) && {
            let base = at_zero(self.values, index, lane);
            is_multiple(self.values, base, 4)
        }
    }

    /// Combines the four elements of a vector.
    fn across(&mut self, op: FoldOp, ty: Ty, acc: &str) -> Result<Val> {
        let part = |c: &str| format!("{acc}.{c}");
        let a = self.combine(op, ty, false, &part("x"), &part("y"));
        let b = self.combine(op, ty, false, &part("z"), &part("w"));
        let text = self.combine(op, ty, false, &a, &b);
        let name = self.fresh("s");
        self.line(&format!("let {name} = {text};"));
        Ok(Val::one(name))
    }

    /// A fold whose elements are shared out to the invocations of the workgroup.
    fn fold_together(&mut self, op: FoldOp, axes: &[Axis], body: ExprId, size: u32) -> Result<Val> {
        let ty = self.values.arena.ty(body);
        let level = self.current;
        let arg = matches!(op, FoldOp::ArgMax { .. } | FoldOp::ArgMin { .. });
        let (axes, body, lane) = if arg { (axes.to_vec(), body, false) } else { self.lane_along(axes, body) };
        let total = self.extent_of(&axes);
        let end = self.dim_text(&total)?;
        let k = self.fresh("k");
        let inner = self.open(&format!("for (var {k} = tid; {k} < {end}; {k} = {k} + {size})"));
        self.bind_linear(&axes, inner, &k)?;
        let acc = self.fresh("s");
        let at = self.fresh("s");
        let v = self.value(body)?;
        let wide = v.wide;
        let name = type_name(ty, wide)?;
        let init = self.initial(op, ty);
        self.line_at(level, &format!("var {acc}: {name} = {name}({init});"));
        if arg {
            let int = type_name(Ty::I32, wide)?;
            self.line_at(level, &format!("var {at}: {int} = {int}(2147483647);"));
            let better = self.fresh("t");
            let (first, any) = (type_name(Ty::Bool, wide)?, better_than(op, &acc, &v.text));
            self.line(&format!("let {better} = {any} | {first}({k} == tid);"));
            self.line(&format!("{acc} = select({acc}, {}, {better});", v.text));
            self.line(&format!("{at} = select({at}, {int}({k}), {better});"));
        } else {
            let text = self.combine(op, ty, wide, &acc, &v.text);
            self.line(&format!("{acc} = {text};"));
        }
        self.close();
        let (acc, wide) = match lane && wide {
            true => (self.across(op, ty, &acc)?.text, false),
            false => (acc, wide),
        };
        let name = type_name(ty, wide)?;
        // One barrier a fold: every invocation goes through all partial results by itself, and the next fold uses other
        // arrays, so that none is overwritten while it is read.
        self.folds += 1;
        let turn = self.folds % 2;
        let bytes = if wide { 16 } else { 4 };
        let s = self.share(&format!("shared{turn}"), &name, size, bytes);
        let place = type_name(Ty::I32, wide)?;
        let i = if arg { self.share(&format!("place{turn}"), &place, size, bytes) } else { String::new() };
        self.line(&format!("{s}[tid] = {acc};"));
        if arg {
            self.line(&format!("{i}[tid] = {at};"));
        }
        self.line("workgroupBarrier();");
        let (out, index, w) = (self.fresh("s"), self.fresh("s"), self.fresh("w"));
        self.line(&format!("var {out} = {s}[0];"));
        if arg {
            self.line(&format!("var {index} = {i}[0];"));
        }
        self.line(&format!("for (var {w} = 1; {w} < {size}; {w} = {w} + 1) {{"));
        let other = format!("{s}[{w}]");
        if arg {
            // Of equals the one with the lower or the higher index; an invocation without elements never wins.
            let j = format!("{i}[{w}]");
            let (sign, last) = match op {
                FoldOp::ArgMin { last } => ("<", last),
                FoldOp::ArgMax { last } => (">", last),
                _ => (">", false),
            };
            let order = if last { ">" } else { "<" };
            let none = format!("{place}(2147483647)");
            let take = self.fresh("t");
            let better =
                format!("({other} {sign} {out}) | (({other} == {out}) & ({j} {order} {index})) | ({index} == {none})");
            self.line(&format!("  let {take} = ({j} != {none}) & ({better});"));
            self.line(&format!("  {out} = select({out}, {other}, {take});"));
            self.line(&format!("  {index} = select({index}, {j}, {take});"));
        } else {
            let text = self.combine(op, ty, wide, &out, &other);
            self.line(&format!("  {out} = {text};"));
        }
        self.line("}");
        Ok(Val { text: if arg { index } else { out }, wide })
    }

    /// Binds axes to the digits of a linear index, innermost fastest.
    pub(super) fn bind_linear(&mut self, axes: &[Axis], level: usize, index: &str) -> Result<()> {
        let mut rest = index.to_owned();
        for (n, a) in axes.iter().enumerate().rev() {
            let extent = self.values.arena.extent(*a).clone();
            if extent.is(1) && axes.len() > 1 {
                self.bind(*a, level, "0");
                continue;
            }
            if axes[..n].iter().all(|a| self.values.arena.extent(*a).is(1)) {
                self.bind(*a, level, rest.clone());
                continue;
            }
            let e = self.dim_text(&extent)?;
            let (digit, next) = (self.fresh("p"), self.fresh("r"));
            // One division: processors have none of vectors of integers.
            self.line_at(level, &format!("let {next} = {rest} / {e};"));
            self.line_at(level, &format!("let {digit} = {rest} - {next} * {e};"));
            self.bind(*a, level, digit);
            rest = next;
        }
        Ok(())
    }

    /// A workgroup array of one element an invocation, shared by all folds of its type.
    fn share(&mut self, prefix: &str, ty: &str, size: u32, bytes: u32) -> String {
        let name = format!("{prefix}_{}", ty.replace('<', "_").replace('>', ""));
        let text = format!("var<workgroup> {name}: array<{ty}, {size}>;\n");
        if !self.shared.contains(&text) {
            self.shared.push_str(&text);
            self.shared_bytes += size * bytes;
        }
        name
    }

    /// What a fold starts from.
    fn initial(&mut self, op: FoldOp, ty: Ty) -> String {
        let lowest = matches!(op, FoldOp::Max | FoldOp::ArgMax { .. });
        let text = match (op, ty) {
            (FoldOp::Sum, Ty::Bool) => "false",
            (FoldOp::Prod, Ty::Bool) => "true",
            (FoldOp::Sum, _) => "0",
            (FoldOp::Prod, _) => "1",
            (_, Ty::F32) => return self.call("f32_bits", false, &[if lowest { "0xff800000u" } else { "0x7f800000u" }]),
            (_, Ty::Bool) => {
                if lowest {
                    "false"
                } else {
                    "true"
                }
            }
            (_, Ty::U32 | Ty::U64) => {
                if lowest {
                    "0u"
                } else {
                    "4294967295u"
                }
            }
            _ => {
                if lowest {
                    "bitcast<i32>(0x80000000u)"
                } else {
                    "2147483647"
                }
            }
        };
        text.to_owned()
    }

    /// One step of a fold.
    pub(super) fn combine(&mut self, op: FoldOp, ty: Ty, wide: bool, acc: &str, x: &str) -> String {
        match (op, ty) {
            (FoldOp::Sum | FoldOp::Max, Ty::Bool) => format!("({acc} | {x})"),
            (FoldOp::Prod | FoldOp::Min, Ty::Bool) => format!("({acc} & {x})"),
            (FoldOp::Sum, Ty::I64) => self.call("l_add", wide, &[acc, x]),
            (FoldOp::Sum, Ty::U64) => self.call("m_add", wide, &[acc, x]),
            (FoldOp::Prod, Ty::I64) => self.call("l_mul", wide, &[acc, x]),
            (FoldOp::Prod, Ty::U64) => self.call("m_mul", wide, &[acc, x]),
            (FoldOp::Sum, _) => format!("({acc} + {x})"),
            (FoldOp::Prod, _) => format!("({acc} * {x})"),
            (FoldOp::Max, Ty::F32) => self.call("f_max", wide, &[acc, x]),
            (FoldOp::Min, Ty::F32) => self.call("f_min", wide, &[acc, x]),
            (FoldOp::Max | FoldOp::ArgMax { .. }, _) => format!("max({acc}, {x})"),
            (FoldOp::Min | FoldOp::ArgMin { .. }, _) => format!("min({acc}, {x})"),
        }
    }
}

/// Whether `x` replaces `acc` as the extreme element.
fn better_than(op: FoldOp, acc: &str, x: &str) -> String {
    match op {
        FoldOp::ArgMax { last: false } => format!("({x} > {acc})"),
        FoldOp::ArgMax { last: true } => format!("({x} >= {acc})"),
        FoldOp::ArgMin { last: true } => format!("({x} <= {acc})"),
        _ => format!("({x} < {acc})"),
    }
}
