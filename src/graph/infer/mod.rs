//! Types of values from the types of what they are computed from.

mod content;
pub(super) mod control;
mod driver;

pub use driver::infer;

use super::attrs::Attrs;
use crate::tensor::{Array, DType, Dim, Shape};

/// A value's type, and what is known of its elements.
#[derive(Debug, Clone)]
pub struct Type {
    pub dtype: DType,
    pub shape: Shape,
    /// The elements of a small integer tensor as dims, where they are known.
    pub content: Option<Vec<Dim>>,
}

impl Type {
    pub fn new(dtype: DType, shape: Shape) -> Self {
        Type { dtype, shape, content: None }
    }
}

/// What a shape rule sees of its node.
#[derive(Debug)]
pub struct Infer<'a> {
    pub attrs: &'a Attrs,
    /// The type of each input, `None` where it is absent.
    pub inputs: &'a [Option<Type>],
    /// The data of each input, where it is constant.
    pub constants: &'a [Option<Array>],
    /// How many outputs the node names.
    pub outputs: usize,
}
