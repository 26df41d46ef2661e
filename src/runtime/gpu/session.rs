//! A plan on a device.

use super::adapter::Gpu;
use super::platform;
use super::signal::Signal;
use crate::error::{Error, Kind, Result};
use crate::plan::convert::convert;
use crate::plan::{Candidate, GpuPlan, Plan, Role, gpu_dtype, resolve};
use crate::runtime::weights::{Target, pieces};
use crate::tensor::{Array, Bindings, DType};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An input of a run.
#[derive(Debug, Clone, Copy)]
pub enum Feed<'a> {
    Host(&'a Array),
    /// An output that stayed on the same device.
    Gpu(&'a GpuTensor),
}

impl Feed<'_> {
    fn dtype(&self) -> DType {
        match self {
            Feed::Host(a) => a.dtype(),
            Feed::Gpu(t) => t.dtype,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Feed::Host(a) => a.shape(),
            Feed::Gpu(t) => &t.shape,
        }
    }
}

/// A tensor in a GPU buffer of its own, in the type that [`gpu_dtype`] gives.
#[derive(Debug, Clone)]
pub struct GpuTensor {
    pub(super) buffer: wgpu::Buffer,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

/// Figures of a session. A run creates no buffers and no bind groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub pipelines: usize,
    pub bind_groups: usize,
    pub buffers: usize,
    /// Bytes of all buffers, the staging buffer included.
    pub peak_bytes: u64,
    /// Of the last run.
    pub dispatches: usize,
    pub submits: usize,
    pub bind_groups_in_run: usize,
    pub buffers_in_run: usize,
    /// Dispatches that timing gave another shader than the default.
    pub tuned: usize,
}

/// A model on a device: its buffers, pipelines and bind groups.
pub struct GpuSession {
    pub(super) gpu: Gpu,
    pub(super) plan: Arc<Plan>,
    buffers: Vec<wgpu::Buffer>,
    pub(super) steps: Vec<Step>,
    /// Which of its candidates each dispatch is.
    pub(super) choice: Vec<u32>,
    /// All outputs at their greatest, then the overflow flag.
    staging: wgpu::Buffer,
    /// Where each output lies in the staging buffer, bytes, and last the flag.
    staged: Vec<u64>,
    scratch: Vec<u8>,
    pub(super) bound: Option<Vec<i32>>,
    pub(super) stats: Stats,
}

/// A dispatch, ready.
pub(super) struct Step {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
}

/// A compiled shader.
pub(super) type Pipelines = BTreeMap<u32, (wgpu::ComputePipeline, wgpu::BindGroupLayout)>;

impl Step {
    pub(super) fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, [x, y, z]: [u32; 3]) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// The size of a candidate's dispatch.
pub(super) fn workgroups(c: &Candidate, bindings: &Bindings) -> Result<[u32; 3]> {
    let mut size = [0u32; 3];
    for (n, dim) in size.iter_mut().zip(&c.workgroups) {
        *n = u32::try_from(dim.eval(bindings)?)
            .map_err(|_| Error::new(Kind::DimOutOfBounds, format!("{dim} workgroups")))?;
    }
    Ok(size)
}

fn invalid(what: &str) -> Error {
    Error::new(Kind::InvalidPackage, what).at("model.wgsl")
}

/// The bytes of a copy must be a multiple of this.
const COPY_ALIGN: u64 = 4;

impl GpuSession {
    /// Creates everything that runs need. `wgsl` is the package's `model.wgsl`. Weights are uploaded afterwards. `choice` is
    /// what [`GpuSession::tune`] gave on this adapter before, and empty where it never ran; one that does not fit the plan
    /// is not heeded.
    pub async fn new(gpu: &Gpu, plan: Arc<Plan>, wgsl: &str, choice: &[u32]) -> Result<Self> {
        let g = gpu_plan(&plan)?;
        gpu.check()?;
        gpu.check_limits(&g.requires)?;
        let memory = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let make = |bytes: u64, usage: wgpu::BufferUsages| {
            let size = bytes.max(16).next_multiple_of(16);
            gpu.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let buffers: Vec<wgpu::Buffer> = g
            .buffers
            .iter()
            .map(|b| match b.role {
                Role::Dims | Role::Numbers => make(b.bytes, usage | wgpu::BufferUsages::UNIFORM),
                _ => make(b.bytes, usage | wgpu::BufferUsages::STORAGE),
            })
            .collect();
        let mut staged = vec![];
        let mut total = 0u64;
        for i in 0..plan.outputs.len() {
            staged.push(total);
            total += g.buffers[output_buffer(g, i)?].bytes.next_multiple_of(COPY_ALIGN);
        }
        staged.push(total);
        let staging = make(total + 4, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
        if let Some(e) = memory.pop().await {
            let needed: u64 = g.buffers.iter().map(|b| b.bytes).sum();
            return Err(Error::new(Kind::DeviceLimit, format!("the GPU has no {needed} bytes free: {e}"))
                .help("use the \"wasm\" device"));
        }
        for (b, buffer) in g.buffers.iter().zip(&buffers).filter(|(b, _)| b.role == Role::Numbers) {
            for (at, numbers) in b.parts.iter().zip(&g.numbers) {
                let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
                gpu.queue.write_buffer(buffer, *at, &bytes);
            }
        }
        let fits = choice.len() == g.dispatches.len()
            && choice.iter().zip(&g.dispatches).all(|(c, d)| (*c as usize) < d.candidates.len());
        let choice = if fits { choice.to_vec() } else { vec![0; g.dispatches.len()] };
        let mut session = GpuSession {
            gpu: gpu.clone(),
            choice,
            buffers,
            steps: vec![],
            scratch: vec![],
            staging,
            staged,
            bound: None,
            stats: Stats::default(),
            plan,
        };
        session.compile(wgsl).await?;
        Ok(session)
    }

    /// Creates pipelines and bind groups.
    async fn compile(&mut self, wgsl: &str) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let g = gpu_plan(&plan)?;
        let chosen: Vec<&Candidate> =
            self.choice.iter().zip(&g.dispatches).filter_map(|(c, d)| d.candidates.get(*c as usize)).collect();
        let scope = self.gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let pipelines = self.pipelines(wgsl, &chosen).await?;
        self.steps = chosen.iter().map(|c| self.step(&pipelines, c)).collect::<Result<_>>()?;
        if let Some(e) = scope.pop().await {
            self.gpu.check()?;
            return Err(Error::new(Kind::Internal, format!("the GPU refuses the model's shaders: {e}")));
        }
        self.stats.pipelines = pipelines.len();
        self.stats.bind_groups = self.steps.len();
        self.stats.buffers = self.buffers.len() + 1;
        self.stats.peak_bytes = self.buffers.iter().map(wgpu::Buffer::size).sum::<u64>() + self.staging.size();
        self.stats.tuned = self.choice.iter().filter(|c| **c > 0).count();
        Ok(())
    }

    /// The pipelines of these candidates.
    pub(super) async fn pipelines(&self, wgsl: &str, candidates: &[&Candidate]) -> Result<Pipelines> {
        let g = gpu_plan(&self.plan)?;
        let device = &self.gpu.device;
        let mut code: BTreeMap<u32, (&str, Vec<wgpu::BindGroupLayoutEntry>)> = BTreeMap::new();
        for c in candidates {
            let range = g.shaders.get(c.shader as usize);
            let text = range.and_then(|(start, end)| wgsl.get(*start as usize..*end as usize));
            let text = text.ok_or_else(|| invalid("shorter than the plan says"))?;
            code.entry(c.shader).or_insert_with(|| (text, layout_entries(g, c)));
        }
        let warm = platform::warm(device, &code.values().cloned().collect::<Vec<_>>()).await;
        let mut pipelines = BTreeMap::new();
        for (shader, (text, entries)) in &code {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: None,
                source: wgpu::ShaderSource::Wgsl((*text).into()),
            });
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries });
            let whole = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: Some(&whole),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            pipelines.insert(*shader, (pipeline, layout));
        }
        drop(warm);
        Ok(pipelines)
    }

    /// A candidate with its buffers.
    pub(super) fn step(&self, pipelines: &Pipelines, c: &Candidate) -> Result<Step> {
        let missing = || invalid("a dispatch names a shader that is not there");
        let (pipeline, layout) = pipelines.get(&c.shader).ok_or_else(missing)?;
        let mut entries = vec![];
        for (binding, b) in (0u32..).zip(&c.bindings) {
            let buffer = self.buffers.get(b.buffer as usize).ok_or_else(missing)?;
            let size = wgpu::BufferSize::new(b.size.next_multiple_of(16));
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: b.offset, size });
            entries.push(wgpu::BindGroupEntry { binding, resource });
        }
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
        Ok(Step { pipeline: pipeline.clone(), group: self.gpu.device.create_bind_group(&descriptor) })
    }

    /// Uploads the bytes `[offset, offset + bytes.len())` of a pack, in any order, converted to the GPU's types.
    pub fn upload(&self, pack: u32, offset: u64, bytes: &[u8]) -> Result<()> {
        let g = gpu_plan(&self.plan)?;
        let wanted = |role: Role| g.buffers.iter().position(|b| b.role == role).and_then(|i| self.buffers.get(i));
        let Some(buffer) = wanted(Role::Weights(pack)) else { return Ok(()) };
        for p in pieces(&self.plan, Target::Gpu, pack, offset, bytes.len() as u64)? {
            let range = usize::try_from(p.from).ok().zip(usize::try_from(p.from + p.len).ok());
            let Some(part) = range.and_then(|(from, to)| bytes.get(from..to)) else { continue };
            let part = convert(part, p.stored, p.dtype)?;
            self.gpu.queue.write_buffer(buffer, p.to, &part);
        }
        self.gpu.check()
    }

    /// Computes the outputs and brings them to the host.
    pub async fn run(&mut self, inputs: &[Feed<'_>]) -> Result<Vec<Array>> {
        let bindings = self.submit(inputs, true)?;
        let mapped = Signal::new();
        let callback = mapped.clone();
        let used = self.staging.size();
        self.staging.slice(..used).map_async(wgpu::MapMode::Read, move |r| callback.send(r));
        platform::settle(&self.gpu.device).or_else(|e| self.gpu.check().and(Err(e)))?;
        let read = mapped.await;
        self.gpu.check()?;
        read.map_err(|e| Error::new(Kind::DeviceLost, format!("the GPU gave no results: {e}")))?;
        let result = self.collect(&bindings);
        self.staging.unmap();
        result
    }

    /// Computes the outputs and leaves them on the GPU, in buffers of their own: this creates them.
    pub async fn run_on_gpu(&mut self, inputs: &[Feed<'_>]) -> Result<Vec<GpuTensor>> {
        // The flag decides whether the outputs may be used, so that the run is finished as any other.
        let bindings = self.submit(inputs, true)?;
        let mapped = Signal::new();
        let callback = mapped.clone();
        self.staging.slice(..).map_async(wgpu::MapMode::Read, move |r| callback.send(r));
        platform::settle(&self.gpu.device).or_else(|e| self.gpu.check().and(Err(e)))?;
        let read = mapped.await;
        self.gpu.check()?;
        read.map_err(|e| Error::new(Kind::DeviceLost, format!("the GPU gave no results: {e}")))?;
        let refused = self.refused();
        self.staging.unmap();
        refused?;
        let plan = Arc::clone(&self.plan);
        let g = gpu_plan(&plan)?;
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut all = vec![];
        for (i, port) in plan.outputs.iter().enumerate() {
            let shape = resolve(&port.shape, &bindings)?;
            let bytes = (shape.iter().product::<usize>() as u64 * 4).max(4);
            let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let descriptor = wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
            let buffer = self.gpu.device.create_buffer(&descriptor);
            encoder.copy_buffer_to_buffer(&self.buffers[output_buffer(g, i)?], 0, &buffer, 0, bytes);
            all.push(GpuTensor { buffer, dtype: port.dtype, shape });
        }
        self.gpu.queue.submit([encoder.finish()]);
        self.stats.submits += 1;
        self.stats.buffers_in_run = all.len();
        self.gpu.check()?;
        Ok(all)
    }

    /// Writes the inputs and submits the one pass.
    fn submit(&mut self, inputs: &[Feed<'_>], stage: bool) -> Result<Bindings> {
        self.gpu.check()?;
        let plan = Arc::clone(&self.plan);
        let g = gpu_plan(&plan)?;
        let bindings = self.check_inputs(inputs)?;
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.write_inputs(g, inputs, &mut encoder)?;
        self.write_dims(g, &bindings)?;
        let flag = g.buffers.iter().position(|b| b.role == Role::Overflow).and_then(|i| self.buffers.get(i));
        if let Some(flag) = flag {
            encoder.clear_buffer(flag, 0, Some(4));
        }
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for ((step, d), c) in self.steps.iter().zip(&g.dispatches).zip(&self.choice) {
            if let Some(c) = d.candidates.get(*c as usize) {
                step.dispatch(&mut pass, workgroups(c, &bindings).map_err(|e| e.at(&d.name))?);
            }
        }
        drop(pass);
        if stage {
            for (i, port) in plan.outputs.iter().enumerate() {
                let elements = resolve(&port.shape, &bindings)?.iter().product::<usize>() as u64;
                if elements > 0 {
                    let from = &self.buffers[output_buffer(g, i)?];
                    encoder.copy_buffer_to_buffer(from, 0, &self.staging, self.staged[i], elements * 4);
                }
            }
            if let (Some(flag), Some(at)) = (flag, self.staged.last()) {
                encoder.copy_buffer_to_buffer(flag, 0, &self.staging, *at, 4);
            }
        }
        self.gpu.queue.submit([encoder.finish()]);
        self.stats.dispatches = self.steps.len();
        self.stats.submits = 1;
        self.stats.bind_groups_in_run = 0;
        self.stats.buffers_in_run = 0;
        Ok(bindings)
    }

    fn check_inputs(&self, inputs: &[Feed<'_>]) -> Result<Bindings> {
        let ports = &self.plan.inputs;
        if inputs.len() != ports.len() {
            let what = format!("{} inputs where the model has {}", inputs.len(), ports.len());
            return Err(Error::new(Kind::InvalidInput, what));
        }
        for (port, feed) in ports.iter().zip(inputs) {
            if port.dtype != feed.dtype() {
                return Err(Error::new(Kind::InvalidInput, format!("{} where {} is wanted", feed.dtype(), port.dtype))
                    .at(format!("input \"{}\"", port.name)));
            }
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(Feed::shape).collect();
        self.plan.bind(&shapes)
    }

    /// All inputs in one write.
    fn write_inputs(&mut self, g: &GpuPlan, inputs: &[Feed<'_>], encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        let Some(at) = g.buffers.iter().position(|b| b.role == Role::Inputs) else { return Ok(()) };
        let (to, parts) = (&self.buffers[at], &g.buffers[at].parts);
        self.scratch.clear();
        for ((port, feed), part) in self.plan.inputs.iter().zip(inputs).zip(parts) {
            let Feed::Host(a) = feed else { continue };
            let wanted = gpu_dtype(port.dtype)
                .ok_or_else(|| Error::new(Kind::UnsupportedType, format!("{} on the GPU", port.dtype)))?;
            let bytes = convert(a.bytes(), port.dtype, wanted).map_err(|e| e.at(format!("input \"{}\"", port.name)))?;
            let start = usize::try_from(*part).unwrap_or(usize::MAX);
            if self.scratch.len() < start + bytes.len() {
                self.scratch.resize(start + bytes.len(), 0);
            }
            self.scratch[start..start + bytes.len()].copy_from_slice(&bytes);
        }
        if !self.scratch.is_empty() {
            self.gpu.queue.write_buffer(to, 0, &self.scratch);
        }
        for (feed, part) in inputs.iter().zip(parts) {
            if let Feed::Gpu(t) = feed {
                let bytes = t.shape.iter().product::<usize>() as u64 * 4;
                if bytes > 0 {
                    encoder.copy_buffer_to_buffer(&t.buffer, 0, to, *part, bytes);
                }
            }
        }
        Ok(())
    }

    /// The uniform of the dims, where they are others than in the last run.
    fn write_dims(&mut self, g: &GpuPlan, bindings: &Bindings) -> Result<()> {
        let mut values = vec![];
        for d in &self.plan.dims {
            let n = bindings.get(&d.name).copied().unwrap_or(d.range.min);
            values.push(
                i32::try_from(n)
                    .map_err(|_| Error::new(Kind::DimOutOfBounds, format!("dimension \"{}\" is {n}", d.name)))?,
            );
        }
        if self.bound.as_ref() == Some(&values) {
            return Ok(());
        }
        let buffer = g.buffers.iter().position(|b| b.role == Role::Dims).and_then(|i| self.buffers.get(i));
        if let Some(buffer) = buffer {
            let bytes: Vec<u8> = values.iter().flat_map(|n| n.to_le_bytes()).collect();
            self.gpu.queue.write_buffer(buffer, 0, &bytes);
        }
        self.bound = Some(values);
        Ok(())
    }

    /// [`Kind::Overflow`] where a kernel set the flag. The staging buffer is mapped.
    fn refused(&self) -> Result<()> {
        let at = self.staged.last().copied().unwrap_or(0);
        let flag = self.mapped(at, 4)?;
        let used = gpu_plan(&self.plan)?.buffers.iter().any(|b| b.role == Role::Overflow);
        if used && flag.iter().any(|b| *b != 0) {
            return Err(Error::new(Kind::Overflow, "64-bit integers left the 32 bits that the GPU computes in")
                .help("run this input on the \"wasm\" device, which computes in 64 bits"));
        }
        Ok(())
    }

    fn mapped(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        if len == 0 {
            return Ok(vec![]);
        }
        let view = self.staging.slice(at..at + len).get_mapped_range();
        view.map(|v| v.to_vec()).map_err(|e| Error::new(Kind::Internal, format!("the results are not mapped: {e}")))
    }

    /// The outputs in the mapped staging buffer, in their own types.
    fn collect(&self, bindings: &Bindings) -> Result<Vec<Array>> {
        self.refused()?;
        let mut all = vec![];
        for (port, at) in self.plan.outputs.iter().zip(&self.staged) {
            let shape = resolve(&port.shape, bindings)?;
            let bytes = self.mapped(*at, shape.iter().product::<usize>() as u64 * 4)?;
            let held = gpu_dtype(port.dtype)
                .ok_or_else(|| Error::new(Kind::UnsupportedType, format!("{} on the GPU", port.dtype)))?;
            let bytes = if held == port.dtype { bytes } else { convert(&bytes, held, port.dtype)?.into_owned() };
            all.push(Array::new(port.dtype, shape, bytes)?);
        }
        Ok(all)
    }

    /// Figures of this session and its last run.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The device this session is on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Frees the session's memory now; dropping a session leaves that to the garbage collector of the browser.
    pub fn dispose(self) {
        for b in self.buffers.iter().chain([&self.staging]) {
            b.destroy();
        }
    }
}

pub(super) fn gpu_plan(plan: &Plan) -> Result<&GpuPlan> {
    plan.gpu.as_ref().ok_or_else(|| {
        Error::new(Kind::DeviceUnavailable, "the model has no GPU plan")
            .at("model.plan")
            .help("the build report says why; use the \"wasm\" device")
    })
}

fn output_buffer(g: &GpuPlan, i: usize) -> Result<usize> {
    let wanted = g.buffers.iter().position(|b| matches!(b.role, Role::Output(n) if n as usize == i));
    wanted.ok_or_else(|| Error::new(Kind::InvalidPackage, format!("output {i} has no buffer")).at("model.plan"))
}

fn layout_entries(g: &GpuPlan, c: &Candidate) -> Vec<wgpu::BindGroupLayoutEntry> {
    let each = (0u32..).zip(&c.bindings).map(|(binding, b)| {
        let uniform = g.buffers.get(b.buffer as usize).is_some_and(|b| matches!(b.role, Role::Dims | Role::Numbers));
        let ty = match uniform {
            true => wgpu::BufferBindingType::Uniform,
            false => wgpu::BufferBindingType::Storage { read_only: !b.writes },
        };
        wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        }
    });
    each.collect()
}
