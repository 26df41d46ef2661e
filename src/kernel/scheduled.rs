//! What scheduling leaves for the emitters: kernels over flat buffers.

use super::expr::{Axis, ExprId};
use super::program::Stmt;
use super::values::{ValueId, Values};

/// A unit of work: one dispatch on the GPU, one function of `model.wasm`.
///
/// Every [`super::Node::Load`] and every store in a kernel has exactly one index: the element offset in the value's
/// buffer (layouts are resolved). Emitters know neither shapes nor layouts, only buffers of a data type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What it computes, for reports and profiles: the path of the node whose result it stores.
    pub name: String,
    /// The loops, outermost first, all parallel: every combination of indices stores other elements. The innermost is the
    /// one along which the first store is contiguous, where there is one.
    pub axes: Vec<Axis>,
    /// What each point of the iteration space stores. Empty in a program.
    pub stores: Vec<Store>,
    pub form: Form,
}

impl Kernel {
    /// The values it writes, each once.
    pub fn writes(&self) -> Vec<ValueId> {
        fn walk(stmts: &[Stmt], all: &mut Vec<ValueId>) {
            for s in stmts {
                match s {
                    Stmt::Store { value, .. } if !all.contains(value) => all.push(*value),
                    Stmt::For { body, .. } | Stmt::While { body, .. } => walk(body, all),
                    Stmt::If { then, otherwise, .. } => {
                        walk(then, all);
                        walk(otherwise, all);
                    }
                    Stmt::Set { .. } | Stmt::Store { .. } => {}
                }
            }
        }
        let mut all = vec![];
        for s in &self.stores {
            if !all.contains(&s.value) {
                all.push(s.value);
            }
        }
        if let Form::Program(stmts) = &self.form {
            walk(stmts, &mut all);
        }
        all
    }

    /// The expressions it evaluates, in order.
    pub fn expressions(&self) -> Vec<ExprId> {
        fn walk(stmts: &[Stmt], all: &mut Vec<ExprId>) {
            for s in stmts {
                match s {
                    Stmt::Set { to, .. } => all.push(*to),
                    Stmt::Store { index, to, .. } => all.extend(index.iter().chain([to])),
                    Stmt::For { body, .. } => walk(body, all),
                    Stmt::While { condition, body } => {
                        all.push(*condition);
                        walk(body, all);
                    }
                    Stmt::If { condition, then, otherwise } => {
                        all.push(*condition);
                        walk(then, all);
                        walk(otherwise, all);
                    }
                }
            }
        }
        let mut all: Vec<ExprId> = self.stores.iter().flat_map(|s| [s.to, s.index]).collect();
        match &self.form {
            Form::Program(stmts) => walk(stmts, &mut all),
            Form::Attention(a) => all.extend([a.score, a.value]),
            Form::Loops | Form::Contract(_) => {}
        }
        all
    }

    /// The values it reads, each once, in the order in which its expressions name them.
    pub fn reads(&self, values: &Values) -> Vec<ValueId> {
        let mut all = vec![];
        for e in self.expressions() {
            values.arena.visit(e, &mut |_, n| {
                if let super::Node::Load { value, .. } = n
                    && !all.contains(value)
                {
                    all.push(*value);
                }
            });
        }
        all
    }
}

/// `value[index] = to`; `index` is the flat element offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    pub value: ValueId,
    pub index: ExprId,
    pub to: ExprId,
}

/// How a kernel is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Plain loops. Folds inside are evaluated at the outermost depth at which all axes they depend on are bound, once for
    /// each distinct fold: a softmax or a normalization is a row of folds, then a loop.
    Loops,
    Contract(Contract),
    Attention(Attention),
    /// The statements of a program, run for every point of `axes`. Their loads and stores are flat as well.
    Program(Vec<Stmt>),
}

/// A matrix product or convolution: `kernel.axes` are `batch… m… n`; one store, whose expression contains `fold` once as
/// `Σ over k… of a · b`. What stands around `fold` is the epilogue, evaluated for each element of the register tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    /// How many of the kernel's axes, from the outermost, both operands depend on.
    pub batch: usize,
    /// The column axis: the kernel's innermost.
    pub n: Axis,
    /// Fold axes, outermost first; along the innermost, `a` is contiguous or strided.
    pub k: Vec<Axis>,
    /// The left operand: a load affine in batch, m and k axes, or `select(guard, load, 0)` with a guard of comparisons of
    /// affine expressions (a convolution's padding, where the value has no border).
    pub a: ExprId,
    /// The right operand: a load.
    pub b: ExprId,
    /// `Panel`: constant weights, whose flat offset is `(n / 8) · K · 8 + k · 8 + n % 8` with n padded up to a multiple
    /// of 8 by zeros. `Rows`: element n + 1 follows element n.
    pub b_order: BOrder,
    /// The fold in the store's expression.
    pub fold: ExprId,
}

/// How the right operand of a contraction lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BOrder {
    Panel,
    Rows,
}

/// The width of a panel: as many columns lie beside each other for one k.
pub const PANEL: usize = 8;

/// `out[batch…, m, n] = Σ_t softmax_t(score(batch…, m, t)) · value(batch…, t, n)`, in one kernel with an online softmax
/// (Milakov & Gimelshein 2018). `kernel.axes` are `batch… m n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    pub m: Axis,
    pub n: Axis,
    /// The key axis, over which the softmax runs.
    pub t: Axis,
    /// The score: contains one fold `Σ over d of q · k`; what stands around it (scale, mask) is applied to each score.
    pub score: ExprId,
    /// `Σ over d of q · k` inside `score`.
    pub dot: ExprId,
    /// The value operand: a load, contiguous in n.
    pub value: ExprId,
    /// The node in the store's expression that stands for the attention's result.
    pub result: ExprId,
}
