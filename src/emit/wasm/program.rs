//! Statements.

use super::writer::{FrameKind, Writer, internal, val};
use crate::error::Result;
use crate::kernel::{Kernel, Stmt, Ty, Var};
use std::collections::HashMap;
use wasm_encoder::{BlockType, ValType};

fn variables(body: &[Stmt], out: &mut HashMap<Var, Ty>) {
    for s in body {
        match s {
            Stmt::Set { var, ty, .. } => {
                out.insert(*var, *ty);
            }
            Stmt::Store { .. } => {}
            Stmt::For { body, .. } | Stmt::While { body, .. } => variables(body, out),
            Stmt::If { then, otherwise, .. } => {
                variables(then, out);
                variables(otherwise, out);
            }
        }
    }
}

impl Writer<'_> {
    /// Writes the loops over the parallel axes and the statements in them.
    pub(super) fn program(&mut self, kernel: &Kernel, body: &[Stmt]) -> Result<()> {
        self.count_uses(kernel.expressions());
        self.mutated = kernel.writes().into_iter().collect();
        let mut vars = HashMap::new();
        variables(body, &mut vars);
        let mut vars: Vec<(Var, Ty)> = vars.into_iter().collect();
        vars.sort();
        for (v, ty) in vars {
            let l = self.local(val(ty));
            self.vars.insert(v, l);
        }
        if kernel.axes.is_empty() {
            return self.only_first_part(|g| g.statements(body));
        }
        let split = self.split_axis(&kernel.axes);
        self.over(&kernel.axes, split, &mut |g| g.statements(body))
    }

    fn statements(&mut self, body: &[Stmt]) -> Result<()> {
        body.iter().try_for_each(|s| self.statement(s))
    }

    /// Runs `f` as a statement: what depends on variables or written memory is computed anew in each.
    fn one(&mut self, f: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let old = self.statement;
        self.statement = self.top() + 1;
        let code = self.framed(FrameKind::Straight, f);
        self.statement = old;
        self.append(&code?);
        Ok(())
    }

    fn statement(&mut self, s: &Stmt) -> Result<()> {
        match s {
            Stmt::Set { var, to, .. } => {
                let l = *self.vars.get(var).ok_or_else(|| internal("a variable without a local"))?;
                self.one(|g| {
                    g.scalar(*to)?;
                    g.i().local_set(l);
                    Ok(())
                })
            }
            Stmt::Store { value, index, to } => {
                let index = *index.first().ok_or_else(|| internal("a store without an index"))?;
                self.one(|g| g.store(*value, index, *to))
            }
            Stmt::For { axis, body } => {
                let index = self.local(ValType::I32);
                let (end, runs) = (self.extent(*axis)?, self.runs(*axis));
                self.i().i32_const(0).local_set(index);
                self.for_loop(*axis, index, end, 1, runs, |g| g.statements(body))
            }
            Stmt::While { condition, body } => {
                let code = self.framed(FrameKind::MaybeLoop, |g| {
                    g.one(|g| g.scalar(*condition))?;
                    g.i().i32_eqz().br_if(1);
                    g.statements(body)
                })?;
                self.i().block(BlockType::Empty).loop_(BlockType::Empty);
                self.append(&code);
                self.i().br(0).end().end();
                Ok(())
            }
            Stmt::If { condition, then, otherwise } => {
                self.one(|g| g.scalar(*condition))?;
                let yes = self.framed(FrameKind::Branch, |g| g.statements(then))?;
                let no = self.framed(FrameKind::Branch, |g| g.statements(otherwise))?;
                self.i().if_(BlockType::Empty);
                self.append(&yes);
                if !no.is_empty() {
                    self.i().else_();
                    self.append(&no);
                }
                self.i().end();
                Ok(())
            }
        }
    }
}
