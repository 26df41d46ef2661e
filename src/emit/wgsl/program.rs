//! Programs: one invocation runs the statements for each point of the parallel axes.

use super::writer::{Gen, Val, ceil_div, type_name};
use crate::error::{Error, Kind, Result};
use crate::kernel::{ExprId, Kernel, Stmt};
use crate::tensor::{Dim, numel};

/// Invocations of a workgroup.
const GROUP: i64 = 64;

/// Writes the body of `main`; returns the dispatch's and the workgroup's size.
pub(super) fn write(g: &mut Gen<'_>, kernel: &Kernel, body: &[Stmt]) -> Result<([Dim; 3], [u32; 3])> {
    let points = numel(&kernel.axes.iter().map(|a| g.values.arena.extent(*a).clone()).collect::<Vec<_>>());
    let group = if points.is(1) { 1 } else { GROUP };
    let dispatch = g.grid(&ceil_div(&points, group))?;
    let i = g.fresh("p");
    g.line(&format!("let {i} = id * {group} + tid;"));
    let end = g.dim_text(&points)?;
    g.line(&format!("if ({i} >= {end}) {{ return; }}"));
    g.bind_linear(&kernel.axes, 0, &i)?;
    let mut roots = vec![];
    declare(g, body, &mut roots)?;
    g.count(&roots);
    statements(g, body)?;
    Ok((dispatch, [u32::try_from(group).unwrap_or(1), 1, 1]))
}

/// Declares every variable, notes what the statements write, and collects their expressions.
fn declare(g: &mut Gen<'_>, body: &[Stmt], roots: &mut Vec<ExprId>) -> Result<()> {
    for s in body {
        match s {
            Stmt::Set { var, ty, to } => {
                roots.push(*to);
                if !g.vars.contains_key(var) {
                    let name = g.fresh("v");
                    let ty = type_name(*ty, false)?;
                    g.line(&format!("var {name}: {ty};"));
                    g.vars.insert(*var, Val::one(name));
                }
            }
            Stmt::Store { value, index, to } => {
                roots.extend(index);
                roots.push(*to);
                g.mutable.insert(*value);
            }
            Stmt::For { body, .. } => declare(g, body, roots)?,
            Stmt::While { condition, body } => {
                roots.push(*condition);
                declare(g, body, roots)?;
            }
            Stmt::If { condition, then, otherwise } => {
                roots.push(*condition);
                declare(g, then, roots)?;
                declare(g, otherwise, roots)?;
            }
        }
    }
    Ok(())
}

fn statements(g: &mut Gen<'_>, body: &[Stmt]) -> Result<()> {
    for s in body {
        g.current = g.blocks.len() - 1;
        match s {
            Stmt::Set { var, to, .. } => {
                let v = g.value(*to)?;
                let name = g.vars.get(var).map(|v| v.text.clone()).unwrap_or_default();
                g.line(&format!("{name} = {};", v.text));
            }
            Stmt::Store { value, index, to } => match index[..] {
                [index] => g.store(*value, index, *to)?,
                _ => return Err(Error::new(Kind::Internal, "a store in a kernel has one index")),
            },
            Stmt::For { axis, body } => {
                g.open_loop(*axis, "k")?;
                statements(g, body)?;
                g.close();
            }
            Stmt::While { condition, body } => {
                g.open("loop");
                let c = g.value(*condition)?.text;
                g.line(&format!("if (!({c})) {{ break; }}"));
                statements(g, body)?;
                g.close();
            }
            Stmt::If { condition, then, otherwise } => {
                let c = g.value(*condition)?.text;
                g.open(&format!("if ({c})"));
                statements(g, then)?;
                g.close();
                if !otherwise.is_empty() {
                    g.open("else");
                    statements(g, otherwise)?;
                    g.close();
                }
            }
        }
    }
    Ok(())
}
