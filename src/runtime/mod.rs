//! Running a compiled model: how weights reach a device, what a model's signature looks like from outside, and the
//! devices themselves. Uses plan, tensor, trust and error only.

#[cfg(all(feature = "cli", not(target_arch = "wasm32")))]
pub mod cpu;
#[cfg(any(feature = "cli", all(feature = "web", target_arch = "wasm32")))]
pub mod gpu;
#[cfg(all(feature = "cli", not(target_arch = "wasm32")))]
pub mod native;
pub mod signature;
pub mod weights;
