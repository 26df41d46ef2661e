//! From stored values to kernels: layouts are chosen, indices become flat offsets, loops get their order.

use super::attention::{self, Parts};
use super::contract::{self, Grouped, Roles};
use super::expr::{Axis, ExprId, Node};
use super::fuse::has_fold;
use super::layout::Layout;
use super::program::{Program, Stmt};
use super::scheduled::{Attention, BOrder, Contract, Form, Kernel, Store};
use super::values::{Def, Func, ValueId, Values};
use super::views::{self, Moved};
use crate::tensor::{Dim, Shape};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The kernels of a model in order of execution, and where every stored value's elements lie.
#[derive(Debug)]
pub struct Schedule {
    pub kernels: Vec<Kernel>,
    /// The layout of every stored value.
    pub layouts: BTreeMap<ValueId, Layout>,
    /// The model's outputs, row-major, in order.
    pub outputs: Vec<ValueId>,
}

/// Whether attention becomes one kernel, or three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionAs {
    One,
    Three,
}

/// Schedules the stored values that fusion left, in order of definition.
pub fn schedule(values: &mut Values, stored: &[ValueId], outputs: &[ValueId], attention: AttentionAs) -> Schedule {
    let mut stored = stored.to_vec();
    let attention = match attention {
        AttentionAs::One => attention::find(values, &mut stored, outputs),
        AttentionAs::Three => BTreeMap::new(),
    };
    let order = stored.clone();
    let moved = views::find(values, &mut stored, outputs);
    let mut s = Scheduler { layouts: BTreeMap::new(), shapes: HashMap::new(), kernels: vec![], moved };
    s.constants(values, &order);
    for m in s.moved.clone().into_values() {
        s.place(values, m.to, Layout::row_major(values.shape(m.to).len()));
    }
    for v in &order {
        if s.moved.values().any(|m| m.to == *v) {
            continue;
        }
        values.path.clone_from(&values.get(*v).name.clone());
        match values.get(*v).def.clone() {
            Def::Input(_) => s.place(values, *v, Layout::row_major(values.shape(*v).len())),
            Def::Constant(_) => {}
            Def::Func(f) => match attention.get(v) {
                Some(parts) => s.attention(values, *v, &f, parts),
                None => s.function(values, *v, &f),
            },
            Def::Program(p, 0) => s.program(values, *v, &p),
            Def::Program(..) => {}
        }
    }
    // An output is row-major: one that the kernels want otherwise is copied, and so is one that no kernel writes, or that
    // stands twice in the signature.
    let mut seen = BTreeSet::new();
    let outputs = outputs
        .iter()
        .map(|v| {
            let written = matches!(values.get(*v).def, Def::Func(_) | Def::Program(..));
            if written && s.layouts.get(v).is_some_and(Layout::is_row_major) && seen.insert(*v) {
                return *v;
            }
            let (dtype, shape) = (values.dtype(*v), values.shape(*v).to_vec());
            let rank = shape.len();
            let axes: Vec<Axis> = shape.iter().map(|d| values.arena.axis(d.clone())).collect();
            let index: Vec<ExprId> = axes.iter().map(|a| values.arena.axis_expr(*a)).collect();
            let expr = values.load(*v, &index);
            values.path.clone_from(&values.get(*v).name.clone());
            let f = Func { axes, expr };
            let copy = values.define(dtype, shape, f.clone());
            s.place(values, copy, Layout::row_major(rank));
            s.loops(values, copy, &f);
            copy
        })
        .collect();
    s.layouts.retain(|v, _| !s.moved.contains_key(v));
    // An empty tensor takes no code, and its extents may not be divided by.
    s.kernels.retain(|k| !k.axes.iter().any(|a| values.arena.extent(*a).is(0)));
    Schedule { kernels: s.kernels, layouts: s.layouts, outputs }
}

struct Scheduler {
    layouts: BTreeMap<ValueId, Layout>,
    shapes: HashMap<ValueId, Shape>,
    kernels: Vec<Kernel>,
    /// Values whose writers store into another.
    moved: BTreeMap<ValueId, Moved>,
}

impl Scheduler {
    fn place(&mut self, values: &Values, v: ValueId, layout: Layout) {
        self.shapes.insert(v, values.shape(v).to_vec());
        self.layouts.insert(v, layout);
    }

    /// Constants lie as their readers want them: panels for contractions, the channel last for depthwise convolutions. One
    /// that is read in two ways lies row-major.
    fn constants(&mut self, values: &Values, stored: &[ValueId]) {
        let mut wanted: BTreeMap<ValueId, BTreeSet<Layout>> = BTreeMap::new();
        for v in stored {
            let exprs: Vec<(Vec<Axis>, ExprId)> = match &values.get(*v).def {
                Def::Func(f) => vec![(f.axes.clone(), f.expr)],
                Def::Program(p, 0) => {
                    for read in super::fuse::reads_of_program(values, p) {
                        wanted.entry(read).or_default().insert(Layout::row_major(values.shape(read).len()));
                    }
                    vec![]
                }
                _ => vec![],
            };
            for (axes, expr) in exprs {
                let roles = contract::recognize(values, &axes, expr);
                let panel = roles.as_ref().and_then(|r| Some((r.b, contract::panel_dims(values, r)?)));
                values.arena.visit(expr, &mut |id, n| {
                    let Node::Load { value, index } = n else { return };
                    if values.constant(*value).is_none() {
                        return;
                    }
                    let layout = match &panel {
                        Some((b, (batch, k, n))) if *b == id => {
                            Layout::Panel { batch: batch.clone(), k: k.clone(), n: *n }
                        }
                        _ if roles.is_none() && has_fold(values, expr) => channel_last(values, &axes, index),
                        _ => Layout::row_major(index.len()),
                    };
                    wanted.entry(*value).or_default().insert(layout);
                });
            }
        }
        for v in stored {
            if values.constant(*v).is_some() {
                let rank = values.shape(*v).len();
                let layout = match wanted.get(v).map(|w| w.iter().collect::<Vec<_>>()).as_deref() {
                    Some([one]) => (*one).clone(),
                    _ => Layout::row_major(rank),
                };
                self.place(values, *v, layout);
            }
        }
    }

    fn function(&mut self, values: &mut Values, v: ValueId, f: &Func) {
        let roles = contract::recognize(values, &f.axes, f.expr);
        let layout = match &roles {
            Some(r) if f.axes.len() > 2 => last(&f.axes, r.n),
            Some(_) => Layout::row_major(f.axes.len()),
            None => self.inherited(values, f),
        };
        if roles.is_none()
            && let Some(g) = contract::grouped(values, &f.axes, f.expr)
            && self.groups(values, v, f, &g)
        {
            return;
        }
        self.place(values, v, layout);
        match roles {
            Some(r) => self.contraction(values, v, f, r),
            None => self.loops(values, v, f),
        }
    }

    /// A grouped convolution, where its weights lie with the channel last.
    fn groups(&mut self, values: &mut Values, v: ValueId, f: &Func, g: &Grouped) -> bool {
        if self.column_stride(values, &g.roles) != Some(Dim::from(1)) {
            return false;
        }
        self.place(values, v, last(&f.axes, g.channel));
        let channel = HashMap::from([(g.channel, g.at)]);
        let flat = self.flat(values, g.expr);
        let mut store = self.store(values, v, &f.axes, flat);
        store.index = values.arena.substitute(store.index, &channel);
        self.tiles(values, v, &g.roles, BOrder::Rows, store)
    }

    /// How far the right operand moves with a column.
    fn column_stride(&self, values: &mut Values, r: &Roles) -> Option<Dim> {
        let offset = self.flat(values, r.b);
        values.arena.affine(self.index_of(values, offset)).and_then(|a| a.terms.get(&r.n).cloned())
    }

    /// The order of the largest value of the same rank that the function reads, where that is not row-major.
    fn inherited(&self, values: &Values, f: &Func) -> Layout {
        let rank = f.axes.len();
        let mut best: Option<(i64, &Layout)> = None;
        values.arena.visit(f.expr, &mut |_, n| {
            let Node::Load { value, index } = n else { return };
            let Some(layout) = self.layouts.get(value) else { return };
            if index.len() != rank || values.constant(*value).is_some() || values.shape(*value).is_empty() {
                return;
            }
            // Only a value that is read along the same axes hands its order down.
            let aligned = index.iter().zip(&f.axes).all(|(i, a)| {
                let free = values.arena.free_axes(*i);
                free.is_empty() || free.contains(a) || values.arena.extent(*a).is(1)
            });
            let size =
                values.shape(*value).iter().map(|d| d.range(&values.arena.ranges).max).fold(1, i64::saturating_mul);
            if aligned && matches!(layout, Layout::Dense(_)) && best.is_none_or(|(s, _)| size > s) {
                best = Some((size, layout));
            }
        });
        best.map_or_else(|| Layout::row_major(rank), |(_, l)| l.clone())
    }

    fn contraction(&mut self, values: &mut Values, v: ValueId, f: &Func, r: Roles) {
        let constant = contract::load_of(values, r.b).is_some_and(|b| values.constant(b).is_some());
        let panel = constant
            && contract::load_of(values, r.b)
                .and_then(|b| self.layouts.get(&b))
                .is_some_and(|l| matches!(l, Layout::Panel { .. }));
        let (mut expr, mut r) = (f.expr, r);
        if !panel && self.column_stride(values, &r) != Some(Dim::from(1)) {
            let packed = self.pack(values, &r);
            expr = values.arena.rewrite(expr, &mut |arena, n| (*n == *arena.node(r.b)).then_some(packed));
            match contract::recognize(values, &f.axes, expr) {
                Some(again) if again.b == packed => r = again,
                _ => return self.loops(values, v, &Func { axes: f.axes.clone(), expr }),
            }
        }
        let flat = self.flat(values, expr);
        let store = self.store(values, v, &f.axes, flat);
        let order = if panel { BOrder::Panel } else { BOrder::Rows };
        if !self.tiles(values, v, &r, order, store) {
            self.loops(values, v, f);
        }
    }

    /// Adds the kernel of a contraction; false where its flat form is not one.
    fn tiles(&mut self, values: &mut Values, v: ValueId, r: &Roles, b_order: BOrder, store: Store) -> bool {
        // Every node of the flat expression is found again through the rewritten fold.
        let fold = self.flat(values, r.fold);
        let Node::Fold { body, .. } = *values.arena.node(fold) else { return false };
        let Node::Binary(_, x, y) = *values.arena.node(body) else { return false };
        let b = self.flat(values, r.b);
        let (a, b) = if y == b { (x, y) } else { (y, x) };
        let axes: Vec<Axis> = r.batch.iter().chain(&r.m).copied().chain([r.n]).collect();
        let contract = Contract { batch: r.batch.len(), n: r.n, k: r.k.clone(), a, b, b_order, fold };
        let kernel =
            Kernel { name: values.get(v).name.clone(), axes, stores: vec![store], form: Form::Contract(contract) };
        self.push(values, kernel);
        true
    }

    fn attention(&mut self, values: &mut Values, v: ValueId, f: &Func, p: &Parts) {
        self.place(values, v, Layout::row_major(f.axes.len()));
        let var = values.arena.var();
        let result = values.arena.add_node(Node::Var(var, values.arena.ty(p.fold)));
        let to = values.arena.rewrite(f.expr, &mut |arena, n| (*n == *arena.node(p.fold)).then_some(result));
        let to = self.flat(values, to);
        let score = self.flat(values, p.score);
        let value = self.flat(values, p.value);
        let mut dot = score;
        values.arena.visit(score, &mut |id, n| {
            if matches!(n, Node::Fold { .. }) {
                dot = id;
            }
        });
        let store = self.store(values, v, &f.axes, to);
        let kernel = Kernel {
            name: values.get(v).name.clone(),
            axes: p.batch.iter().copied().chain([p.m, p.n]).collect(),
            stores: vec![store],
            form: Form::Attention(Attention { m: p.m, n: p.n, t: p.t, score, dot, value, result }),
        };
        self.push(values, kernel);
    }

    /// The right operand as a value of its own, `[batch…, k…, n]`, so that its columns lie beside each other.
    fn pack(&mut self, values: &mut Values, r: &Roles) -> ExprId {
        let from: Vec<Axis> = r.batch.iter().chain(&r.k).copied().chain([r.n]).collect();
        let shape: Shape = from.iter().map(|a| values.arena.extent(*a).clone()).collect();
        let axes: Vec<Axis> = shape.iter().map(|d| values.arena.axis(d.clone())).collect();
        let with: HashMap<Axis, ExprId> =
            from.iter().copied().zip(axes.iter().map(|a| values.arena.axis_expr(*a)).collect::<Vec<_>>()).collect();
        let expr = values.arena.substitute(r.b, &with);
        let dtype = contract::load_of(values, r.b).map_or(crate::tensor::DType::Float32, |v| values.dtype(v));
        let rank = axes.len();
        let f = Func { axes, expr };
        let packed = values.define(dtype, shape, f.clone());
        self.place(values, packed, Layout::row_major(rank));
        self.loops(values, packed, &f);
        let index: Vec<ExprId> = from.iter().map(|a| values.arena.axis_expr(*a)).collect();
        values.load(packed, &index)
    }

    fn loops(&mut self, values: &mut Values, v: ValueId, f: &Func) {
        let order = match self.layouts.get(&v) {
            Some(Layout::Dense(order)) => order.clone(),
            _ => (0..f.axes.len()).collect(),
        };
        let mut axes: Vec<Axis> = order.iter().map(|d| f.axes[*d]).collect();
        rows_first(values, &mut axes, f.expr);
        let to = self.flat(values, f.expr);
        let store = self.store(values, v, &f.axes, to);
        let kernel = Kernel { name: values.get(v).name.clone(), axes, stores: vec![store], form: Form::Loops };
        self.push(values, kernel);
    }

    fn program(&mut self, values: &mut Values, v: ValueId, p: &Program) {
        for w in &p.writes {
            self.place(values, *w, Layout::row_major(values.shape(*w).len()));
        }
        let body = self.flat_stmts(values, &p.body);
        self.kernels.push(Kernel {
            name: values.get(v).name.clone(),
            axes: p.parallel.clone(),
            stores: vec![],
            form: Form::Program(body),
        });
    }

    fn flat_stmts(&mut self, values: &mut Values, stmts: &[Stmt]) -> Vec<Stmt> {
        stmts
            .iter()
            .map(|s| match s {
                Stmt::Set { var, ty, to } => Stmt::Set { var: *var, ty: *ty, to: self.flat(values, *to) },
                Stmt::Store { value, index, to } => {
                    let index: Vec<ExprId> = index.iter().map(|i| self.flat(values, *i)).collect();
                    let at = self.offset(values, *value, &index);
                    Stmt::Store { value: *value, index: vec![at], to: self.flat(values, *to) }
                }
                Stmt::For { axis, body } => Stmt::For { axis: *axis, body: self.flat_stmts(values, body) },
                Stmt::While { condition, body } => {
                    Stmt::While { condition: self.flat(values, *condition), body: self.flat_stmts(values, body) }
                }
                Stmt::If { condition, then, otherwise } => Stmt::If {
                    condition: self.flat(values, *condition),
                    then: self.flat_stmts(values, then),
                    otherwise: self.flat_stmts(values, otherwise),
                },
            })
            .collect()
    }

    /// Drops axes of one index and merges neighbours that every offset runs through as one.
    fn push(&mut self, values: &mut Values, mut kernel: Kernel) {
        let zero = values.arena.int(0);
        let ones: Vec<Axis> = kernel.axes.iter().copied().filter(|a| values.arena.extent(*a).is(1)).collect();
        // A contraction keeps its column axis.
        let keep = match &kernel.form {
            Form::Contract(c) => Some(c.n),
            _ => None,
        };
        let with: HashMap<Axis, ExprId> = ones.iter().filter(|a| Some(**a) != keep).map(|a| (*a, zero)).collect();
        if let Form::Contract(c) = &mut kernel.form {
            c.batch -= kernel.axes[..c.batch].iter().filter(|a| with.contains_key(a)).count();
        }
        kernel.axes.retain(|a| !with.contains_key(a));
        substitute(values, &mut kernel, &with);
        if kernel.form == Form::Loops {
            merge_axes(values, &mut kernel);
        }
        self.kernels.push(kernel);
    }

    /// Where the function's value is stored.
    fn store(&self, values: &mut Values, v: ValueId, axes: &[Axis], to: ExprId) -> Store {
        match self.moved.get(&v) {
            Some(m) => Store { value: m.to, index: self.offset(values, m.to, &m.index), to },
            None => {
                let index: Vec<ExprId> = axes.iter().map(|a| values.arena.axis_expr(*a)).collect();
                Store { value: v, index: self.offset(values, v, &index), to }
            }
        }
    }

    fn offset(&self, values: &mut Values, v: ValueId, index: &[ExprId]) -> ExprId {
        let rank = index.len();
        let layout = self.layouts.get(&v).cloned().unwrap_or_else(|| Layout::row_major(rank));
        match self.shapes.get(&v) {
            Some(shape) => layout.offset(&mut values.arena, shape, index),
            None => values.arena.int(0),
        }
    }

    /// The expression with every load at its flat offset.
    fn flat(&self, values: &mut Values, e: ExprId) -> ExprId {
        let Values { arena, .. } = values;
        arena.rewrite(e, &mut |arena, n| match n {
            Node::Load { value, index } => {
                let layout = self.layouts.get(value).cloned().unwrap_or_else(|| Layout::row_major(index.len()));
                let shape = self.shapes.get(value)?;
                let at = layout.offset(arena, shape, index);
                Some(arena.add_node(Node::Load { value: *value, index: [at].into() }))
            }
            _ => None,
        })
    }

    fn index_of(&self, values: &Values, load: ExprId) -> ExprId {
        match values.arena.node(load) {
            Node::Load { index, .. } => index.first().copied().unwrap_or(load),
            _ => load,
        }
    }
}

/// Row-major, with the dim of one axis last.
fn last(axes: &[Axis], n: Axis) -> Layout {
    let (mut order, end): (Vec<usize>, Vec<usize>) = (0..axes.len()).partition(|d| axes[*d] != n);
    order.extend(end);
    Layout::Dense(order)
}

/// For a constant that a fold reads along a channel (a depthwise convolution's weights): the channel's dim last.
fn channel_last(values: &Values, axes: &[Axis], index: &[ExprId]) -> Layout {
    let dims: Vec<usize> = (0..index.len())
        .filter(|d| matches!(values.arena.node(index[*d]), Node::Axis(a) if axes.contains(a)))
        .collect();
    match dims[..] {
        [c] if index.len() > 2 => Layout::Dense((0..index.len()).filter(|d| *d != c).chain([c]).collect()),
        _ => Layout::row_major(index.len()),
    }
}

/// Where folds depend on some of the axes only, those go outside, so that the folds are computed once for each of them.
fn rows_first(values: &Values, axes: &mut [Axis], e: ExprId) {
    let own: BTreeSet<Axis> = axes.iter().copied().collect();
    let mut sets: Vec<BTreeSet<Axis>> = vec![];
    values.arena.visit(e, &mut |id, n| {
        if matches!(n, Node::Fold { .. }) {
            sets.push(values.arena.free_axes(id).intersection(&own).copied().collect());
        }
    });
    axes.sort_by_key(|a| std::cmp::Reverse(sets.iter().filter(|s| s.contains(a)).count()));
}

fn substitute(values: &mut Values, kernel: &mut Kernel, with: &HashMap<Axis, ExprId>) {
    if with.is_empty() {
        return;
    }
    let mut sub = |e: &mut ExprId| *e = values.arena.substitute(*e, with);
    for s in &mut kernel.stores {
        sub(&mut s.index);
        sub(&mut s.to);
    }
    match &mut kernel.form {
        Form::Contract(c) => {
            sub(&mut c.a);
            sub(&mut c.b);
            sub(&mut c.fold);
        }
        Form::Attention(a) => {
            sub(&mut a.score);
            sub(&mut a.dot);
            sub(&mut a.value);
            sub(&mut a.result);
        }
        Form::Loops | Form::Program(_) => {}
    }
}

/// Two neighbouring axes are one where every offset moves by the inner extent times the inner step for a step of the
/// outer, and nothing else looks at them.
fn merge_axes(values: &mut Values, kernel: &mut Kernel) {
    let mut at = kernel.axes.len();
    while at >= 2 {
        at -= 1;
        if at >= kernel.axes.len() {
            continue;
        }
        let (outer, inner) = (kernel.axes[at - 1], kernel.axes[at]);
        let extent = values.arena.extent(inner).clone();
        if !kernel.stores.iter().all(|s| {
            runs_through(values, s.index, outer, inner, &extent) && all_run_through(values, s.to, outer, inner, &extent)
        }) {
            continue;
        }
        let merged = values.arena.axis(values.arena.extent(outer).mul(&extent));
        let zero = values.arena.int(0);
        let m = values.arena.axis_expr(merged);
        substitute(values, kernel, &HashMap::from([(outer, zero), (inner, m)]));
        kernel.axes.splice(at - 1..=at, [merged]);
    }
}

fn runs_through(values: &Values, index: ExprId, outer: Axis, inner: Axis, extent: &Dim) -> bool {
    let free = values.arena.free_axes(index);
    if !free.contains(&outer) && !free.contains(&inner) {
        return true;
    }
    let Some(affine) = values.arena.affine(index) else { return false };
    match (affine.terms.get(&outer), affine.terms.get(&inner)) {
        (Some(o), Some(i)) => *o == i.mul(extent),
        (None, None) => true,
        _ => false,
    }
}

fn all_run_through(values: &Values, e: ExprId, outer: Axis, inner: Axis, extent: &Dim) -> bool {
    // Offsets are looked at as a whole; an axis met outside of one forbids merging.
    match values.arena.node(e) {
        Node::Axis(a) => *a != outer && *a != inner,
        Node::Load { index, .. } => index.iter().all(|i| runs_through(values, *i, outer, inner, extent)),
        _ => values.arena.children(e).into_iter().all(|c| all_run_through(values, c, outer, inner, extent)),
    }
}
