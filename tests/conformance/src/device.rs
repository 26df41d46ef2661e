//! What runs a case.

use nearside::compile::Engine;
use nearside::emit::wasm::Variant;
use nearside::error::{Error, Kind, Result};
use nearside::runtime::cpu;
use nearside::runtime::native::{self, DeviceName, Parts};
use nearside::tensor::Array;

use crate::case::Built;

pub(crate) enum Device {
    /// `model.wasm` under wasmtime, in the variant that `nearside run` takes; or native wgpu.
    Native(DeviceName),
    /// Nothing: the package is written for a browser.
    Pack,
}

impl Device {
    pub(crate) fn new(mode: &str) -> Result<Device> {
        match mode {
            "cpu" => Ok(Device::Native(DeviceName::Cpu)),
            "gpu" => Ok(Device::Native(DeviceName::Gpu)),
            "pack" => Ok(Device::Pack),
            _ => Err(Error::new(Kind::InvalidInput, format!("mode \"{mode}\" is not cpu, gpu or pack"))),
        }
    }
}

/// Runs a compiled case.
pub(crate) fn run(name: DeviceName, built: &Built) -> Result<Vec<Array>> {
    let compiled = &built.compiled;
    let code = compiled.wasm.iter().find(|(variant, _)| *variant == Variant::Relaxed);
    let (_, wasm) = code.ok_or_else(|| Error::new(Kind::Internal, "no relaxed-simd code"))?;
    let parts = Parts { plan: &compiled.plan, wasm, wgsl: &compiled.wgsl, packs: &compiled.packs };
    let (outputs, _) = native::Device::open(name, &parts, 1)?.run_timed(&compiled.plan, &built.inputs)?;
    Ok(outputs)
}

/// Runs emitted code at build time.
pub(crate) struct Wasmtime;

impl Engine for Wasmtime {
    fn run(&self, wasm: &[u8], data: &[(u32, &[u8])], outputs: &[(u32, usize)]) -> Result<Vec<Vec<u8>>> {
        cpu::run_once(wasm, data, outputs)
    }
}
