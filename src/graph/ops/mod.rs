//! The op table: one row an operator, kept with its family.

pub mod attention;
mod binary;
pub mod cast;
mod control;
pub mod conv;
pub mod einsum;
pub mod generate;
pub mod indexing;
mod loss;
mod matmul;
pub mod movement;
mod norm;
pub mod pool;
pub mod quantize;
pub mod recurrent;
pub mod reduce;
pub mod resize;
pub mod rules;
mod select;
pub mod shape;
pub mod signal;
mod softmax;
pub mod state;
mod unary;
pub mod window;

use super::attrs::Attr;
use super::infer::{Infer, Type};
use crate::error::Result;

/// A row of the op table. The graph holds one canonical form of each operator, the newest; the importer brings older
/// opsets to it.
#[derive(Debug)]
pub struct Op {
    /// The name in ai.onnx.
    pub name: &'static str,
    /// The opsets at which its meaning changed, oldest first; the last is the canonical form.
    pub since: &'static [i64],
    /// How many inputs it takes at least and at most.
    pub inputs: (usize, usize),
    /// How many outputs it gives at least and at most.
    pub outputs: (usize, usize),
    pub attrs: &'static [Attr],
    /// The types of its outputs from those of its inputs.
    pub infer: fn(&Infer<'_>) -> Result<Vec<Type>>,
}

/// The rows of every family.
pub fn table() -> impl Iterator<Item = &'static Op> {
    FAMILIES.iter().flat_map(|rows| rows.iter())
}

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Op> {
    table().find(|op| op.name == name)
}

static FAMILIES: &[&[Op]] = &[
    // One line a family.
    control::ROWS,
    matmul::ROWS,
    conv::ROWS,
    pool::ROWS,
    norm::ROWS,
    unary::ROWS,
    binary::ROWS,
    attention::ROWS,
    resize::ROWS,
    recurrent::ROWS,
    select::ROWS,
    signal::ROWS,
    state::ROWS,
    loss::ROWS,
    cast::ROWS,
    reduce::ROWS,
    softmax::ROWS,
    shape::ROWS,
    movement::ROWS,
    generate::ROWS,
    indexing::ROWS,
    quantize::ROWS,
];
