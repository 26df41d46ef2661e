//! The native devices: `model.wasm` under wasmtime, WGSL through wgpu.

use super::cpu::CpuModule;
use super::gpu::{Choice, Feed, Gpu, GpuSession};
use crate::error::{Error, Kind, Result};
use crate::plan::{Plan, memory, resolve};
use crate::tensor::Array;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A kind of device, as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceName {
    Cpu,
    Gpu,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceName::Cpu => "cpu",
            DeviceName::Gpu => "gpu",
        })
    }
}

/// The code and weights of a model, wherever they come from.
pub struct Parts<'a> {
    pub plan: &'a Plan,
    /// `model.wasm`, in the variant for the number of threads.
    pub wasm: &'a [u8],
    pub wgsl: &'a str,
    pub packs: &'a [Vec<u8>],
}

/// A model on a device.
pub enum Device {
    Cpu { module: CpuModule, threads: usize },
    Gpu(Box<GpuSession>),
}

impl Device {
    /// Loads a model. More than one thread needs the threaded variant.
    pub fn open(name: DeviceName, parts: &Parts<'_>, threads: usize) -> Result<Device> {
        match name {
            DeviceName::Cpu => {
                let mut module = CpuModule::new(parts.wasm, parts.plan.cpu.memory, threads)?;
                for placed in memory::weights(&parts.plan.weights, &parts.plan.cpu, parts.packs) {
                    let (at, bytes) = placed?;
                    module.write(at, &bytes)?;
                }
                Ok(Device::Cpu { module, threads })
            }
            DeviceName::Gpu => {
                let gpu = pollster::block_on(Gpu::open(Choice::Any))?;
                let session = pollster::block_on(GpuSession::new(&gpu, Arc::new(parts.plan.clone()), parts.wgsl, &[]))?;
                for (i, bytes) in (0u32..).zip(parts.packs) {
                    session.upload(i, 0, bytes)?;
                }
                Ok(Device::Gpu(Box::new(session)))
            }
        }
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        match self {
            Device::Gpu(session) => format!("gpu ({})", session.gpu().info().name),
            Device::Cpu { threads, .. } => {
                format!("cpu (wasmtime, {threads} thread{})", if *threads == 1 { "" } else { "s" })
            }
        }
    }

    /// Runs the model on inputs in the order of its signature; the time does not count checking them.
    pub fn run_timed(&mut self, plan: &Plan, inputs: &[Array]) -> Result<(Vec<Array>, Duration)> {
        if inputs.len() != plan.inputs.len() {
            return Err(Error::new(Kind::InvalidInput, format!("{} inputs, not {}", inputs.len(), plan.inputs.len())));
        }
        for (port, array) in plan.inputs.iter().zip(inputs) {
            if port.dtype != array.dtype() {
                return Err(Error::new(
                    Kind::InvalidInput,
                    format!("{} where {} is wanted", array.dtype(), port.dtype),
                )
                .at(format!("input \"{}\"", port.name)));
            }
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(Array::shape).collect();
        let bindings = plan.bind(&shapes)?;
        match self {
            Device::Gpu(session) => {
                let start = Instant::now();
                let feeds: Vec<Feed<'_>> = inputs.iter().map(Feed::Host).collect();
                let outputs = pollster::block_on(session.run(&feeds))?;
                Ok((outputs, start.elapsed()))
            }
            Device::Cpu { module, .. } => {
                let start = Instant::now();
                module.write(plan.cpu.dims, &memory::dims(plan, &bindings)?)?;
                for (at, array) in plan.cpu.inputs.iter().zip(inputs) {
                    module.write(*at, array.bytes())?;
                }
                module.run()?;
                let mut outputs = vec![];
                for (port, at) in plan.outputs.iter().zip(&plan.cpu.outputs) {
                    let shape = resolve(&port.shape, &bindings)?;
                    let len = shape.iter().product::<usize>() * port.dtype.size();
                    outputs.push(Array::new(port.dtype, shape, module.read(*at, len)?)?);
                }
                Ok((outputs, start.elapsed()))
            }
        }
    }

    /// Milliseconds of each kernel, the least of `runs`. The inputs are those of the run before.
    pub fn profile(&mut self, plan: &Plan, runs: usize) -> Result<Vec<(String, f64)>> {
        match self {
            Device::Gpu(_) => Err(Error::new(Kind::InvalidInput, "a run on the GPU is one pass, without times inside")
                .help("profile with --device cpu")),
            Device::Cpu { module, .. } => {
                let mut best = vec![f64::INFINITY; plan.cpu.kernels.len()];
                for _ in 0..runs {
                    for (i, b) in best.iter_mut().enumerate() {
                        let start = Instant::now();
                        module.step(u32::try_from(i).unwrap_or(u32::MAX))?;
                        *b = b.min(start.elapsed().as_secs_f64() * 1e3);
                    }
                }
                Ok(plan.cpu.kernels.iter().cloned().zip(best).collect())
            }
        }
    }
}
