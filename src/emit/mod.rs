//! Kernels as code: the only place that writes for a target.

pub mod wgsl;
