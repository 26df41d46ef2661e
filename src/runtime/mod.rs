//! Running a compiled model: how weights reach a device, what a model's signature looks like from outside, and the
//! devices themselves. Uses plan, tensor, trust and error only.

pub mod convert;
pub mod signature;
pub mod weights;
