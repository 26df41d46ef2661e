//! Data types, shapes with symbolic dims, constant data. Nothing here computes on tensor data.

mod array;
mod dim;
mod dtype;

pub use array::Array;
pub use dim::{Bindings, Dim, DimRange, DimStep, Sym};
pub use dtype::DType;

/// A shape: one [`Dim`] an axis, outermost first. Scalars have none.
pub type Shape = Vec<Dim>;

/// The number of elements of a shape.
pub fn numel(shape: &[Dim]) -> Dim {
    shape.iter().fold(Dim::from(1), |n, d| n.mul(d))
}

/// The shape as integers, where no dim is symbolic.
pub fn known(shape: &[Dim]) -> Option<Vec<usize>> {
    shape.iter().map(|d| d.known().and_then(|n| usize::try_from(n).ok())).collect()
}

/// `[2, seq, 384]`.
pub fn show(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(", "))
}
