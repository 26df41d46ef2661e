//! Statements of programs under construction.

use crate::error::Result;
use crate::kernel::{Axis, ExprId, Node, Stmt, Ty, ValueId, Values, Var};
use crate::tensor::Dim;

/// A list of statements that grows. Expressions are made with `vs`.
pub(super) struct Block<'a> {
    pub(super) vs: &'a mut Values,
    pub(super) stmts: Vec<Stmt>,
}

/// A variable and its type.
#[derive(Clone, Copy)]
pub(super) struct Variable(Var, Ty);

impl Block<'_> {
    pub(super) fn new(vs: &mut Values) -> Block<'_> {
        Block { vs, stmts: vec![] }
    }

    /// Sets a new variable.
    pub(super) fn variable(&mut self, to: ExprId) -> Variable {
        let v = Variable(self.vs.arena.var(), self.vs.arena.ty(to));
        self.set(v, to);
        v
    }

    /// Sets a new variable and reads it: computes an expression once.
    pub(super) fn once(&mut self, to: ExprId) -> ExprId {
        let v = self.variable(to);
        self.get(v)
    }

    /// Overwrites a variable.
    pub(super) fn set(&mut self, v: Variable, to: ExprId) {
        self.stmts.push(Stmt::Set { var: v.0, ty: v.1, to });
    }

    /// Reads a variable.
    pub(super) fn get(&mut self, v: Variable) -> ExprId {
        self.vs.arena.add_node(Node::Var(v.0, v.1))
    }

    pub(super) fn store(&mut self, value: ValueId, index: &[ExprId], to: ExprId) {
        self.stmts.push(Stmt::Store { value, index: index.to_vec(), to });
    }

    /// A block inside this one.
    fn inner(&mut self, f: impl FnOnce(&mut Block<'_>) -> Result<()>) -> Result<Vec<Stmt>> {
        let mut inner = Block::new(&mut *self.vs);
        f(&mut inner)?;
        Ok(inner.stmts)
    }

    /// A loop over an extent.
    pub(super) fn each(&mut self, extent: &Dim, f: impl FnOnce(&mut Block<'_>, ExprId) -> Result<()>) -> Result<()> {
        let axis: Axis = self.vs.arena.axis(extent.clone());
        let index = self.vs.arena.axis_expr(axis);
        let body = self.inner(|b| f(b, index))?;
        self.stmts.push(Stmt::For { axis, body });
        Ok(())
    }

    /// Nested loops over a shape.
    pub(super) fn all(&mut self, shape: &[Dim], f: impl FnOnce(&mut Block<'_>, &[ExprId]) -> Result<()>) -> Result<()> {
        let axes: Vec<Axis> = shape.iter().map(|d| self.vs.arena.axis(d.clone())).collect();
        let index: Vec<ExprId> = axes.iter().map(|a| self.vs.arena.axis_expr(*a)).collect();
        let body = self.inner(|b| f(b, &index))?;
        self.stmts.extend(axes.into_iter().rev().fold(body, |body, axis| vec![Stmt::For { axis, body }]));
        Ok(())
    }

    pub(super) fn when(&mut self, condition: ExprId, then: impl FnOnce(&mut Block<'_>) -> Result<()>) -> Result<()> {
        self.when_else(condition, then, |_| Ok(()))
    }

    pub(super) fn when_else(
        &mut self,
        condition: ExprId,
        then: impl FnOnce(&mut Block<'_>) -> Result<()>,
        otherwise: impl FnOnce(&mut Block<'_>) -> Result<()>,
    ) -> Result<()> {
        let then = self.inner(then)?;
        let otherwise = self.inner(otherwise)?;
        self.stmts.push(Stmt::If { condition, then, otherwise });
        Ok(())
    }

    /// Repeats `body` while `condition`, an expression over variables, holds.
    pub(super) fn repeat(&mut self, condition: ExprId, body: impl FnOnce(&mut Block<'_>) -> Result<()>) -> Result<()> {
        let body = self.inner(body)?;
        self.stmts.push(Stmt::While { condition, body });
        Ok(())
    }
}

/// Parallel axes over a shape: the axes, and the index that they make.
pub(super) fn parallel(vs: &mut Values, shape: &[Dim]) -> (Vec<Axis>, Vec<ExprId>) {
    let axes: Vec<Axis> = shape.iter().map(|d| vs.arena.axis(d.clone())).collect();
    let index = axes.iter().map(|a| vs.arena.axis_expr(*a)).collect();
    (axes, index)
}
