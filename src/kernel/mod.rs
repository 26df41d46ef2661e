//! The kernel IR. An operator lowers to [`Func`]s: a tensor as an expression over its axes, where a view is an index
//! map, a map is a scalar expression, and a reduction or contraction is a [`Node::Fold`]. What is not a pure function of
//! the index (scans, sorts, scatters) is a [`Program`] of statements over the same expressions. Fusion inlines functions
//! into each other; scheduling turns what remains into [`Kernel`]s, which the emitters print.

mod arena;
mod attention;
#[cfg(test)]
mod check;
mod contract;
pub mod expr;
mod fuse;
mod layout;
mod program;
#[cfg(test)]
pub mod reference;
mod schedule;
mod scheduled;
mod values;
mod views;

pub use arena::{Affine, Arena};
pub use expr::{Axis, BinaryOp, ExprId, FoldOp, Node, Scalar, Ty, UnaryOp};
pub use fuse::{Fusion, MOST_READS, fuse};
pub use layout::Layout;
pub use program::{Program, Stmt, Var};
pub use schedule::{AttentionAs, Schedule, schedule};
pub use scheduled::{Attention, BOrder, Contract, Form, Kernel, PANEL, Store};
pub use values::{Def, Func, Value, ValueId, Values};
