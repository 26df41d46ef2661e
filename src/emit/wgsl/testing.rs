//! Runs scheduled kernels on a native adapter and compares them with the naive evaluator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Shader, emit_candidates, share, validate};
use crate::kernel::{AttentionAs, Def, Fusion, Layout, ValueId, Values, fuse, reference, schedule};
use crate::plan::convert::convert;
use crate::plan::gpu_dtype;
use crate::tensor::{Array, Bindings, DType, Sym};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

pub(super) struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
}

/// The one device of the tests. Its guard keeps tests from running dispatches at the same time.
pub(super) fn gpu() -> std::sync::MutexGuard<'static, Gpu> {
    static GPU: OnceLock<Mutex<Gpu>> = OnceLock::new();
    let made = GPU.get_or_init(|| {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
            .expect("an adapter: apt-get install mesa-vulkan-drivers");
        let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        Mutex::new(Gpu { device, queue })
    });
    made.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A compiled shader with its bind group.
pub(super) struct Ready {
    pub pipeline: wgpu::ComputePipeline,
    pub group: wgpu::BindGroup,
    pub size: [u32; 3],
}

impl Gpu {
    pub(super) fn buffer(&self, bytes: &[u8], len: u64) -> wgpu::Buffer {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let size = len.max(bytes.len() as u64).max(16).next_multiple_of(16);
        let b = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: usage | wgpu::BufferUsages::UNIFORM,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&b, 0, bytes);
        b
    }

    pub(super) fn prepare(
        &self,
        (shader, text): (&Shader, &str),
        numbers: Option<&wgpu::Buffer>,
        buffers: &HashMap<ValueId, wgpu::Buffer>,
        dims: &wgpu::Buffer,
        flag: &wgpu::Buffer,
        bindings: &Bindings,
    ) -> Ready {
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let mut bound: Vec<&wgpu::Buffer> = shader.bindings.iter().map(|(v, _)| &buffers[v]).collect();
        bound.extend(shader.uses_dims.then_some(dims));
        bound.extend(shader.overflow.then_some(flag));
        bound.extend(numbers);
        let entries: Vec<wgpu::BindGroupEntry<'_>> = bound
            .iter()
            .enumerate()
            .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
            .collect();
        let layout = pipeline.get_bind_group_layout(0);
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        });
        let size = [0, 1, 2].map(|i| shader.workgroups[i].eval(bindings).unwrap() as u32);
        Ready { pipeline, group, size }
    }

    pub(super) fn dispatch(&self, all: &[Ready]) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for r in all {
            pass.set_pipeline(&r.pipeline);
            pass.set_bind_group(0, &r.group, &[]);
            pass.dispatch_workgroups(r.size[0], r.size[1], r.size[2]);
        }
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }

    pub(super) fn wait(&self) {
        self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    }

    pub(super) fn read(&self, buffer: &wgpu::Buffer) -> Vec<u8> {
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let size = buffer.size();
        let staging =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
        self.queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |r| r.unwrap());
        self.wait();
        staging.slice(..).get_mapped_range().unwrap().to_vec()
    }
}

/// What a run gave: outputs, and whether the overflow flag was set.
pub(in crate::emit) struct Ran {
    pub outputs: Vec<Array>,
    pub overflow: bool,
    pub shaders: Vec<Shader>,
}

/// Schedules what computes the outputs and runs it; candidate `which` of each kernel, where it has as many.
pub(in crate::emit) fn run(
    values: &mut Values,
    outputs: &[ValueId],
    inputs: &[Array],
    dims: &Bindings,
    fusion: Fusion,
    which: usize,
) -> Ran {
    let stored = fuse(values, outputs, fusion);
    let attention = if fusion == Fusion::On { AttentionAs::One } else { AttentionAs::Three };
    let scheduled = schedule(values, &stored, outputs, attention);
    let order: Vec<Sym> = dims.keys().cloned().collect();
    let mut shaders = vec![];
    for k in &scheduled.kernels {
        let mut all = emit_candidates(values, k, &order).unwrap_or_else(|e| panic!("{}: {e}", k.name));
        shaders.push(all.swap_remove(which.min(all.len() - 1)));
    }
    let gpu = gpu();
    let mut buffers = HashMap::new();
    for (v, layout) in &scheduled.layouts {
        let len = layout.len(values.shape(*v)).eval(dims).unwrap() as u64 * 4;
        let dtype = values.dtype(*v);
        let to = gpu_dtype(dtype).unwrap();
        let bytes = match &values.get(*v).def {
            Def::Constant(a) => convert(&layout.arrange(a).unwrap(), dtype, to).unwrap().into_owned(),
            Def::Input(i) => convert(inputs[*i].bytes(), dtype, to).unwrap().into_owned(),
            // Garbage: what is read before it is written shows.
            _ => vec![0x7f; len as usize],
        };
        assert_eq!(bytes.len() as u64, len, "{}", values.get(*v).name);
        buffers.insert(*v, gpu.buffer(&bytes, len));
    }
    let mut words: Vec<u8> = order.iter().flat_map(|s| (dims[s] as i32).to_le_bytes()).collect();
    words.resize(words.len().next_multiple_of(16), 0);
    let dim_buffer = gpu.buffer(&words, 16);
    let flag = gpu.buffer(&[0; 4], 16);
    let mut ready: Vec<Option<Ready>> = shaders.iter().map(|_| None).collect();
    for shared in share(&shaders.iter().map(|s| &s.code).collect::<Vec<_>>()) {
        validate(&shared.wgsl).unwrap_or_else(|e| panic!("{e}"));
        for (k, numbers) in &shared.users {
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
            let uniform = (!bytes.is_empty()).then(|| gpu.buffer(&bytes, 16));
            let shader = (&shaders[*k], shared.wgsl.as_str());
            ready[*k] = Some(gpu.prepare(shader, uniform.as_ref(), &buffers, &dim_buffer, &flag, dims));
        }
    }
    let ready: Vec<Ready> = ready.into_iter().flatten().collect();
    gpu.dispatch(&ready);
    let overflow = gpu.read(&flag)[0] != 0;
    let outputs = scheduled
        .outputs
        .iter()
        .map(|v| {
            let dtype = values.dtype(*v);
            let shape: Vec<usize> = values.shape(*v).iter().map(|d| d.eval(dims).unwrap() as usize).collect();
            let n: usize = shape.iter().product();
            assert!(scheduled.layouts.get(v).is_some_and(Layout::is_row_major));
            let bytes = gpu.read(&buffers[v]);
            let back = match gpu_dtype(dtype).unwrap() {
                from if from == dtype => bytes[..n * 4].to_vec(),
                from => convert(&bytes[..n * 4], from, dtype).unwrap().into_owned(),
            };
            Array::new(dtype, shape, back).unwrap()
        })
        .collect();
    Ran { outputs, overflow, shaders }
}

/// Asserts that the outputs agree with the naive evaluator: |got - want| <= atol + rtol · |want|.
pub(super) fn check(
    name: &str,
    make: &dyn Fn(&mut Values) -> Vec<ValueId>,
    inputs: &[Array],
    dims: &[(&str, i64)],
    (atol, rtol): (f64, f64),
) -> Vec<Shader> {
    let bindings: Bindings = dims.iter().map(|(n, v)| (Sym::from(*n), *v)).collect();
    let mut shaders = vec![];
    for (which, fusion) in [(0, Fusion::On), (1, Fusion::On), (0, Fusion::Off)] {
        let mut values = Values::new();
        let outputs = make(&mut values);
        let all = reference::evaluate(&values, inputs, &bindings).unwrap_or_else(|e| panic!("{name}: {e}"));
        let want: Vec<Array> = outputs.iter().map(|v| all[v.0 as usize].clone()).collect();
        let ran = run(&mut values, &outputs, inputs, &bindings, fusion, which);
        for (i, (got, want)) in ran.outputs.iter().zip(&want).enumerate() {
            let text = || ran.shaders.iter().map(|s| s.code.literal()).collect::<Vec<_>>().join("\n");
            compare(&format!("{name}, fusion {fusion:?}, candidate {which}, output {i}"), got, want, atol, rtol, &text);
        }
        assert!(!ran.overflow, "{name}: overflow");
        if which == 0 && fusion == Fusion::On {
            shaders = ran.shaders;
        }
    }
    shaders
}

fn compare(name: &str, got: &Array, want: &Array, atol: f64, rtol: f64, text: &dyn Fn() -> String) {
    assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{name}");
    if let (Some(g), Some(w)) = (got.to_f64(), want.to_f64()) {
        for (i, (g, w)) in g.iter().zip(&w).enumerate() {
            let same = (g.is_nan() && w.is_nan()) || g == w || (g - w).abs() <= atol + rtol * w.abs();
            assert!(same, "{name}: element {i} is {g}, not {w}\n{}", text());
        }
    } else {
        let (g, w) = (got.to_i64(), want.to_i64());
        assert_eq!(g, w, "{name}\n{}", text());
    }
}

/// Pseudo-random numbers (a linear congruential generator), so that failures come again.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// In -1..1.
    pub(super) fn real(&mut self) -> f32 {
        (self.next() % 20_001) as f32 / 10_000.0 - 1.0
    }

    pub(super) fn array(&mut self, shape: &[usize]) -> Array {
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| self.real()).collect();
        Array::from_f32(shape.to_vec(), &data).unwrap()
    }

    pub(super) fn ints(&mut self, dtype: DType, shape: &[usize], low: i64, high: i64) -> Array {
        let n: usize = shape.iter().product();
        let each = |r: &mut Random| low + (r.next() as i64) % (high - low + 1);
        let bytes: Vec<u8> = (0..n).flat_map(|_| each(self).to_le_bytes()[..dtype.size()].to_vec()).collect();
        Array::new(dtype, shape.to_vec(), bytes).unwrap()
    }
}
