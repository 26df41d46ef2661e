//! What runs a case.

use nearside::compile::{Engine, run_cpu};
use nearside::error::{Error, Kind, Result};
use nearside::tensor::Array;

use crate::case::Built;

pub(crate) enum Device {
    /// `model.wasm` under wasmtime.
    Cpu(Box<dyn Engine>),
    /// Native wgpu.
    Gpu(Box<dyn Engine>),
    /// Nothing: the package is written for a browser.
    Pack(Box<dyn Engine>),
}
