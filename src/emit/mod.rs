//! Kernels as code: the only places that write for a target.

#[cfg(all(test, feature = "cli"))]
mod random;
pub mod wasm;
pub mod wgsl;
