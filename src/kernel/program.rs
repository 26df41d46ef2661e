//! Statements, for what is no pure function of the output index: scans, sorts, scatters, data-dependent sizes.

use super::expr::{Axis, ExprId, Ty};
use super::values::ValueId;

/// A mutable variable of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Var(pub u32);

/// A statement. Loads in its expressions see every store before it in the same iteration of the parallel axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stmt {
    /// Declares or overwrites a variable.
    Set {
        var: Var,
        ty: Ty,
        to: ExprId,
    },
    /// Stores an element at logical coordinates.
    Store {
        value: ValueId,
        index: Vec<ExprId>,
        to: ExprId,
    },
    /// Runs `body` for every index of `axis`, in order.
    For {
        axis: Axis,
        body: Vec<Stmt>,
    },
    /// Runs `body` while `condition` holds.
    While {
        condition: ExprId,
        body: Vec<Stmt>,
    },
    If {
        condition: ExprId,
        then: Vec<Stmt>,
        otherwise: Vec<Stmt>,
    },
}

/// Statements run once for every index of the parallel axes. Different iterations write different elements and read none
/// that another writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Outermost first; independent of each other.
    pub parallel: Vec<Axis>,
    pub body: Vec<Stmt>,
    /// The values it writes: its outputs first, then scratch values that nothing else reads.
    pub writes: Vec<ValueId>,
}
