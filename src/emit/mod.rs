//! Kernels as code: the only places that write for a target.

pub mod wasm;
pub mod wgsl;
