//! Runs a plan's dispatches with wgpu: natively and, in a browser, over WebGPU. Everything is created when a session is
//! made; a run is one write of all inputs, one compute pass, one submit and one mapping of the staging buffer.

mod adapter;
#[cfg_attr(target_arch = "wasm32", path = "browser.rs")]
#[cfg_attr(not(target_arch = "wasm32"), path = "native.rs")]
mod platform;
mod session;
mod signal;
mod tensor;
mod tuning;

pub use adapter::{AdapterInfo, Choice, Gpu};
pub use session::{Feed, GpuSession, GpuTensor, Stats};

#[cfg(all(test, feature = "cli"))]
mod tests;
