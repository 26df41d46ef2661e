//! Fusion: which values are stored, and which are computed inside the kernels that read them.
//!
//! Values are visited from the last to the first, so that every reader of a value is a kernel by then and shows how it
//! reads it. A value is inlined where that repeats no heavy work; then it is no longer stored.

use super::contract;
use super::expr::{Axis, BinaryOp, ExprId, Node, UnaryOp};
use super::program::{Program, Stmt};
use super::values::{Def, Func, ValueId, Values};
use crate::tensor::Dim;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What fusion may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fusion {
    /// Every value of its own (for tests: each operator alone).
    Off,
    On,
}

/// Arithmetic nodes that may be computed again for each reader.
const CHEAP: u32 = 3;
/// Arithmetic nodes that may be computed again within one kernel.
const REPEATED: u32 = 12;
/// A kernel with fewer independent rows than this leaves a GPU idle, so a large map does not take in a fold over them.
const FEW_ROWS: i64 = 64;
const LARGE: i64 = 16384;
/// Values that a kernel may read once something was inlined into it. WebGPU grants every adapter 8 storage buffers a
/// shader stage: these, what the kernel writes, and the overflow flag, without which it may read one more.
pub const MOST_READS: usize = 6;

/// Decides what is stored. Returns the stored values in order of definition; their functions then load only stored
/// values. Values that nothing needs are not among them.
pub fn fuse(values: &mut Values, outputs: &[ValueId], fusion: Fusion) -> Vec<ValueId> {
    let mut stored: BTreeSet<ValueId> = BTreeSet::new();
    let mut readers: HashMap<ValueId, BTreeSet<ValueId>> = HashMap::new();
    let mut program_reads: HashSet<ValueId> = HashSet::new();
    let outputs: BTreeSet<ValueId> = outputs.iter().copied().collect();
    let carriers = carriers(values, &outputs);
    let ids: Vec<ValueId> = values.iter().map(|(id, _)| id).collect();
    for v in ids.into_iter().rev() {
        let needed =
            outputs.contains(&v) || readers.contains_key(&v) || program_reads.contains(&v) || stored.contains(&v);
        if !needed {
            continue;
        }
        match values.get(v).def.clone() {
            Def::Input(_) | Def::Constant(_) => {
                stored.insert(v);
            }
            Def::Program(program, _) => {
                if program.writes.iter().all(|w| *w == v || !stored.contains(w)) {
                    program_reads.extend(reads_of_program(values, &program));
                }
                stored.extend(&program.writes);
            }
            Def::Func(f) => {
                let by = readers.get(&v).cloned().unwrap_or_default();
                let inline = fusion == Fusion::On
                    && !outputs.contains(&v)
                    && !program_reads.contains(&v)
                    && may_inline(values, v, &f, &by, carriers.contains(&v));
                if inline {
                    for r in by {
                        inline_into(values, v, &f, r);
                        register(values, r, &mut readers);
                    }
                } else {
                    stored.insert(v);
                    register(values, v, &mut readers);
                }
            }
        }
    }
    stored.into_iter().collect()
}

fn register(values: &Values, reader: ValueId, readers: &mut HashMap<ValueId, BTreeSet<ValueId>>) {
    if let Def::Func(f) = &values.get(reader).def {
        for v in loads(values, f.expr) {
            readers.entry(v).or_default().insert(reader);
        }
    }
}

/// The values that an expression loads.
pub fn loads(values: &Values, e: ExprId) -> BTreeSet<ValueId> {
    let mut all = BTreeSet::new();
    values.arena.visit(e, &mut |_, n| {
        if let Node::Load { value, .. } = n {
            all.insert(*value);
        }
    });
    all
}

/// The values that a program loads, its own scratch aside.
pub fn reads_of_program(values: &Values, program: &Program) -> BTreeSet<ValueId> {
    fn walk(values: &Values, stmts: &[Stmt], all: &mut BTreeSet<ValueId>) {
        for s in stmts {
            match s {
                Stmt::Set { to, .. } => all.extend(loads(values, *to)),
                Stmt::Store { index, to, .. } => {
                    index.iter().chain([to]).for_each(|e| all.extend(loads(values, *e)));
                }
                Stmt::For { body, .. } => walk(values, body, all),
                Stmt::While { condition, body } => {
                    all.extend(loads(values, *condition));
                    walk(values, body, all);
                }
                Stmt::If { condition, then, otherwise } => {
                    all.extend(loads(values, *condition));
                    walk(values, then, all);
                    walk(values, otherwise, all);
                }
            }
        }
    }
    let mut all = BTreeSet::new();
    walk(values, &program.body, &mut all);
    all.retain(|v| !program.writes.contains(v));
    all
}

fn inline_into(values: &mut Values, v: ValueId, f: &Func, reader: ValueId) {
    let Def::Func(r) = values.get(reader).def.clone() else { return };
    let expr = values.arena.rewrite(r.expr, &mut |arena, n| match n {
        Node::Load { value, index } if *value == v => {
            let with = f.axes.iter().copied().zip(index.iter().copied()).collect();
            Some(arena.substitute(f.expr, &with))
        }
        _ => None,
    });
    values.redefine(reader, Def::Func(Func { axes: r.axes, expr }));
}

/// A load of the value in question, as a reader writes it.
struct Occurrence {
    free: BTreeSet<Axis>,
    index: Box<[ExprId]>,
    /// The folds around it.
    folds: Vec<ExprId>,
}

/// How many of these values read each value; a program counts once.
pub fn readers(values: &Values, of: impl Iterator<Item = ValueId>) -> HashMap<ValueId, u32> {
    let mut readers: HashMap<ValueId, u32> = HashMap::new();
    for v in of {
        let read = match &values.get(v).def {
            Def::Func(f) => loads(values, f.expr),
            Def::Program(p, 0) => reads_of_program(values, p),
            _ => continue,
        };
        read.into_iter().for_each(|r| *readers.entry(r).or_default() += 1);
    }
    readers
}

/// Contractions, and the maps that will be their epilogues: they are inlined only as an epilogue in turn.
fn carriers(values: &Values, outputs: &BTreeSet<ValueId>) -> HashSet<ValueId> {
    let readers = readers(values, values.iter().map(|(id, _)| id));
    let mut all = HashSet::new();
    for (id, value) in values.iter() {
        let Def::Func(f) = &value.def else { continue };
        let carries = contract::recognize(values, &f.axes, f.expr).is_some()
            || loads(values, f.expr).iter().any(|v| {
                all.contains(v)
                    && readers.get(v) == Some(&1)
                    && !outputs.contains(v)
                    && is_epilogue(values, f, &occurrences(values, f.expr, *v))
            });
        if carries {
            all.insert(id);
        }
    }
    all
}

fn may_inline(values: &Values, v: ValueId, f: &Func, readers: &BTreeSet<ValueId>, contraction: bool) -> bool {
    let view = is_view(values, f.expr);
    let folds = has_fold(values, f.expr);
    let weight = cost(values, f.expr, None);
    if readers.len() > 1 && !view && (folds || weight > CHEAP) {
        return false;
    }
    readers.iter().all(|r| {
        let Def::Func(reader) = &values.get(*r).def else { return false };
        let uses = occurrences(values, reader.expr, v);
        if !operand_stays(values, v, f, reader) {
            return false;
        }
        let mut read = loads(values, reader.expr);
        read.remove(&v);
        read.extend(loads(values, f.expr));
        let flag = values.arena.may_overflow(reader.expr) || values.arena.may_overflow(f.expr);
        if read.len() > MOST_READS + usize::from(!flag) {
            return false;
        }
        if view {
            return true;
        }
        if contraction {
            return is_epilogue(values, reader, &uses);
        }
        if folds {
            return is_row(values, v, f, reader, &uses);
        }
        // What does not depend on the innermost axis is computed once a row.
        let repeated = uses.len() as u32 * cost(values, f.expr, f.axes.last().copied());
        (uses.len() == 1 || repeated <= REPEATED)
            && (weight <= CHEAP || uses.iter().all(|o| !recomputes(values, reader, o)))
    })
}

/// A contraction's operands must remain affine loads: what feeds one is inlined only where it is such a load.
fn operand_stays(values: &Values, v: ValueId, f: &Func, reader: &Func) -> bool {
    let Some((a, b)) = contract::operands(values, &reader.axes, reader.expr) else { return true };
    let feeds = |e| contract::load_of(values, e) == Some(v);
    if !feeds(a) && !feeds(b) {
        return true;
    }
    match values.arena.node(f.expr) {
        Node::Load { value, index } => {
            values.dtype(*value) == crate::tensor::DType::Float32
                && index.iter().all(|i| values.arena.affine(*i).is_some())
                // Inlined, a reader's affine index stays affine only where this one is.
                && !(feeds(b) && values.constant(*value).is_none() && values.constant(v).is_some())
        }
        _ => false,
    }
}

/// Whether the reader is a map over the whole contraction, each element once: then it is its epilogue.
fn is_epilogue(values: &Values, reader: &Func, uses: &[Occurrence]) -> bool {
    let [only] = uses else { return false };
    if !only.folds.is_empty() || has_fold(values, reader.expr) {
        return false;
    }
    let mut seen = BTreeSet::new();
    for i in &only.index {
        match values.arena.node(*i) {
            Node::Axis(a) if seen.insert(*a) => {}
            Node::Const(_) => {}
            _ => return false,
        }
    }
    reader.axes.iter().all(|a| seen.contains(a) || values.arena.extent(*a).is(1))
}

/// Whether folds inlined into the reader are computed once for each row: they are read outside the axes of other folds,
/// and the sets of axes that the reader's folds depend on are nested.
fn is_row(values: &Values, v: ValueId, f: &Func, reader: &Func, uses: &[Occurrence]) -> bool {
    if contract::recognize(values, &reader.axes, reader.expr).is_some() {
        return false;
    }
    let own: BTreeSet<Axis> = reader.axes.iter().copied().collect();
    let mut sets: Vec<BTreeSet<Axis>> = vec![];
    values.arena.visit(reader.expr, &mut |id, n| {
        if matches!(n, Node::Fold { .. }) {
            sets.push(values.arena.free_axes(id).intersection(&own).copied().collect());
        }
    });
    let mut distinct: BTreeSet<&[ExprId]> = BTreeSet::new();
    for o in uses {
        let inside: BTreeSet<Axis> = o.folds.iter().flat_map(|e| fold_axes(values, *e)).collect();
        if o.free.iter().any(|a| inside.contains(a)) {
            return false;
        }
        sets.push(o.free.clone());
        distinct.insert(&o.index);
    }
    // Each element of the value may be computed once only: it is read at one index.
    if distinct.len() != 1 || !uses.iter().all(|o| is_injective(values, &o.index)) {
        return false;
    }
    sets.sort_by_key(BTreeSet::len);
    let nested = sets.windows(2).all(|w| w[0].is_subset(&w[1]));
    let rows = size(values, &values.get(v).shape);
    let points: i64 = reader.axes.iter().map(|a| upper(values, values.arena.extent(*a))).fold(1, i64::saturating_mul);
    // Deep folds in folds of folds are left to kernels of their own.
    nested && !(rows < FEW_ROWS && points > LARGE) && depth(values, f.expr) < 4
}

/// How deep folds are nested or chained in an expression.
fn depth(values: &Values, e: ExprId) -> u32 {
    fn walk(values: &Values, e: ExprId, memo: &mut HashMap<ExprId, u32>) -> u32 {
        if let Some(d) = memo.get(&e) {
            return *d;
        }
        let inner = values.arena.children(e).into_iter().map(|c| walk(values, c, memo)).max().unwrap_or(0);
        let d = inner + u32::from(matches!(values.arena.node(e), Node::Fold { .. }));
        memo.insert(e, d);
        d
    }
    walk(values, e, &mut HashMap::new())
}

/// Whether different points read different elements: every index is one axis of its own, or a constant.
fn is_injective(values: &Values, index: &[ExprId]) -> bool {
    let mut seen = BTreeSet::new();
    index.iter().all(|i| match values.arena.node(*i) {
        Node::Axis(a) => seen.insert(*a),
        Node::Const(_) => true,
        _ => false,
    })
}

/// Whether the occurrence is evaluated more often than the value has elements.
fn recomputes(values: &Values, reader: &Func, o: &Occurrence) -> bool {
    // A fold is computed once for each index of the axes that it depends on.
    let mut around: BTreeSet<Axis> = match o.folds.last() {
        Some(inner) => values.arena.free_axes(*inner),
        None => reader.axes.iter().copied().collect(),
    };
    around.extend(o.folds.last().iter().flat_map(|e| fold_axes(values, **e)));
    around.iter().any(|a| !o.free.contains(a) && !values.arena.extent(*a).is(1))
}

fn fold_axes(values: &Values, e: ExprId) -> Vec<Axis> {
    match values.arena.node(e) {
        Node::Fold { axes, .. } => axes.to_vec(),
        _ => vec![],
    }
}

fn upper(values: &Values, d: &Dim) -> i64 {
    d.range(&values.arena.ranges).max
}

fn size(values: &Values, shape: &[Dim]) -> i64 {
    shape.iter().map(|d| upper(values, d)).fold(1, i64::saturating_mul)
}

fn occurrences(values: &Values, e: ExprId, v: ValueId) -> Vec<Occurrence> {
    let mut found: BTreeMap<(ExprId, Vec<ExprId>), Occurrence> = BTreeMap::new();
    let mut seen: HashSet<(ExprId, Vec<ExprId>)> = HashSet::new();
    let mut todo = vec![(e, vec![])];
    while let Some((e, folds)) = todo.pop() {
        if !seen.insert((e, folds.clone())) {
            continue;
        }
        if let Node::Load { value, index } = values.arena.node(e)
            && *value == v
        {
            let o = Occurrence { free: values.arena.free_axes(e), index: index.clone(), folds: folds.clone() };
            found.insert((e, folds.clone()), o);
        }
        let mut inner = folds;
        if matches!(values.arena.node(e), Node::Fold { .. }) {
            inner.push(e);
        }
        todo.extend(values.arena.children(e).into_iter().map(|c| (c, inner.clone())));
    }
    found.into_values().collect()
}

/// Whether an expression only moves elements: loads, choices between loads by index, constants.
fn is_view(values: &Values, e: ExprId) -> bool {
    match values.arena.node(e) {
        Node::Const(_) | Node::Dim(_) => true,
        Node::Load { index, .. } => index.iter().all(|i| !has_load(values, *i)),
        Node::Select { condition, then, otherwise } => {
            !has_load(values, *condition) && is_view(values, *then) && is_view(values, *otherwise)
        }
        _ => false,
    }
}

fn has_load(values: &Values, e: ExprId) -> bool {
    !loads(values, e).is_empty()
}

/// Whether an expression folds.
pub fn has_fold(values: &Values, e: ExprId) -> bool {
    let mut found = false;
    values.arena.visit(e, &mut |_, n| found |= matches!(n, Node::Fold { .. }));
    found
}

/// Arithmetic nodes of an expression that depend on `axis` where one is given, transcendental functions counting more;
/// what computes affine indices of loads is free.
fn cost(values: &Values, e: ExprId, axis: Option<Axis>) -> u32 {
    let mut seen = HashSet::new();
    let mut todo = vec![e];
    let mut sum = 0;
    while let Some(e) = todo.pop() {
        if !seen.insert(e) || axis.is_some_and(|a| !values.arena.free_axes(e).contains(&a)) {
            continue;
        }
        let node = values.arena.node(e);
        sum += match node {
            Node::Unary(op, _) => match op {
                UnaryOp::Exp
                | UnaryOp::Log
                | UnaryOp::Sin
                | UnaryOp::Cos
                | UnaryOp::Asin
                | UnaryOp::Acos
                | UnaryOp::Atan
                | UnaryOp::Tanh
                | UnaryOp::Erf => 10,
                UnaryOp::Sqrt => 3,
                _ => 1,
            },
            Node::Binary(BinaryOp::Pow, ..) => 20,
            Node::Binary(BinaryOp::Div | BinaryOp::Rem, ..) => 3,
            Node::Binary(..) | Node::Select { .. } => 1,
            _ => 0,
        };
        // A gather's index is work too; an affine one is not.
        match node {
            Node::Load { index, .. } => todo.extend(index.iter().filter(|i| has_load(values, **i))),
            _ => todo.extend(values.arena.children(e)),
        }
    }
    sum
}
