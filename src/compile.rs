//! The whole way of a model, from ONNX bytes to plan and code.

use crate::emit::wasm::{self, Memory, Variant};
use crate::emit::wgsl;
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, passes};
use crate::kernel::{self, AttentionAs, Fusion, Schedule};
use crate::lower::{self, Lowered};
use crate::onnx::{self, ExternalData};
use crate::plan::place::{self, CpuPlace, GpuPlace};
use crate::plan::weights::{self, Packed, WeightType};
use crate::plan::{Binding, Candidate, CpuPlan, DimParam, Dispatch, GpuPlan, GpuRequires, Plan, Port, memory};
use crate::tensor::{Array, DType, Dim, DimRange, Sym};
use crate::trust::digest;
use std::collections::BTreeMap;

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    pub name: String,
    pub version: String,
    /// Bounds of symbolic dims. A dim that is not named here is fixed at 1, and the report says so.
    pub dims: BTreeMap<Sym, DimRange>,
    /// Inputs that become constants, by name. Shapes may depend on what they hold.
    pub constants: Vec<(String, Array)>,
    pub weights: WeightType,
    pub fusion: Fusion,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "model".into(),
            version: "1.0.0".into(),
            dims: BTreeMap::new(),
            constants: vec![],
            weights: WeightType::F32,
            fusion: Fusion::On,
        }
    }
}

/// Runs emitted code at build time, to fold constants: wasmtime natively, the browser's or Node's engine in wasm.
pub trait Engine {
    /// Instantiates `wasm` (its simd128 variant), writes each of `data` at its offset, runs it once, and returns the bytes
    /// of each output (offset, length).
    fn run(&self, wasm: &[u8], data: &[(u32, &[u8])], outputs: &[(u32, usize)]) -> Result<Vec<Vec<u8>>>;
}

/// A compiled model: the plan, its code, its weights, and what is to be said of it.
#[derive(Debug)]
pub struct Compiled {
    pub plan: Plan,
    /// `model.wasm` in each variant.
    pub wasm: Vec<(Variant, Vec<u8>)>,
    pub wgsl: String,
    /// The bytes of each pack.
    pub packs: Vec<Vec<u8>>,
    pub report: Report,
}

/// Figures of a build.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What the user should know: dims that were fixed, a device that is not offered.
    pub notes: Vec<String>,
    /// Operators of the model as read, with their counts.
    pub ops: BTreeMap<&'static str, usize>,
    pub nodes_read: usize,
    pub nodes_after_passes: usize,
    pub values_lowered: usize,
    pub values_stored: usize,
    /// Bytes of activations on the CPU, and the least that liveness allows.
    pub cpu_activations: u64,
    pub cpu_optimum: u64,
    pub gpu_activations: u64,
    pub gpu_optimum: u64,
}

/// Compiles a model.
pub fn compile(bytes: &[u8], external: &dyn ExternalData, options: &Options, engine: &dyn Engine) -> Result<Compiled> {
    let mut report = Report::default();
    let mut graph = onnx::read(bytes, external)?;
    report.nodes_read = graph.nodes.len();
    for n in &graph.nodes {
        *report.ops.entry(n.op.name).or_default() += 1;
    }
    for (name, data) in &options.constants {
        graph.fix_input(name, data.clone())?;
    }
    let dims = bind_dims(&mut graph, options, &mut report)?;
    let passed = match options.fusion {
        Fusion::On => passes::run(&mut graph, &Folder { engine }),
        Fusion::Off => passes::required(&mut graph),
    };
    passed.map_err(|e| match e.kind() {
        // Most often the size of an image is missing.
        Kind::InvalidShape if e.help_text().is_none() && !report.notes.is_empty() => e.help(report.notes.join("; ")),
        _ => e,
    })?;
    report.nodes_after_passes = graph.nodes.len();
    compile_graph(&graph, &dims, options, report)
}

/// Compiles a graph whose types are inferred.
fn compile_graph(graph: &Graph, dims: &[DimParam], options: &Options, mut report: Report) -> Result<Compiled> {
    let ranges: BTreeMap<Sym, DimRange> = dims.iter().map(|d| (Sym::clone(&d.name), d.range)).collect();
    let order: Vec<Sym> = ranges.keys().cloned().collect();
    let lowered = lower::graph(graph, ranges)?;
    report.values_lowered = lowered.values.len();

    let fused = Fused::of(lowered, options.fusion);
    let mut cpu = Target::schedule(fused.clone(), AttentionAs::Three);
    report.values_stored = cpu.schedule.layouts.len();
    let gpu_attention = if options.fusion == Fusion::On { AttentionAs::One } else { AttentionAs::Three };
    let mut gpu = Target::schedule(fused, gpu_attention);
    let packed = weights::pack(&[(&cpu.values, &cpu.schedule), (&gpu.values, &gpu.schedule)], options.weights)?;

    let inputs = graph.inputs.len();
    let (cpu_place, wasm) =
        cpu.emit_wasm(&packed, inputs, &order, &[Variant::Simd, Variant::Relaxed, Variant::Threads])?;
    (report.cpu_activations, report.cpu_optimum) = (cpu_place.plan.arena, cpu_place.optimum);
    let (gpu_plan, wgsl) = match gpu.emit_wgsl(&packed, inputs, &order) {
        Ok((place, plan, wgsl)) => {
            (report.gpu_activations, report.gpu_optimum) = (place.activations, place.optimum);
            (Some(plan), wgsl)
        }
        Err(e) if matches!(e.kind(), Kind::UnsupportedType | Kind::DeviceLimit) => {
            report.notes.push(format!("runs on wasm only, not on WebGPU: {e}"));
            (None, String::new())
        }
        Err(e) => return Err(e),
    };
    let plan = Plan {
        name: options.name.clone(),
        version: options.version.clone(),
        inputs: graph.inputs.iter().map(|v| port(graph, graph.value(*v).name.clone(), *v)).collect::<Result<_>>()?,
        outputs: graph.outputs.iter().map(|(n, v)| port(graph, n.clone(), *v)).collect::<Result<_>>()?,
        dims: dims.to_vec(),
        packs: packed.files.iter().map(|f| digest::pack(f)).collect(),
        weights: packed.weights,
        cpu: cpu_place.plan,
        gpu: gpu_plan,
    };
    Ok(Compiled { plan, wasm, wgsl, packs: packed.files, report })
}

fn port(graph: &Graph, name: String, v: crate::graph::ValueId) -> Result<Port> {
    let value = graph.value(v);
    match (value.dtype, value.shape.clone()) {
        (Some(dtype), Some(shape)) => Ok(Port { name, dtype, shape }),
        _ => Err(Error::new(Kind::InvalidModel, format!("\"{name}\" has no type"))),
    }
}

/// Gives every symbolic dim of the inputs its bounds. One that can have a single value only becomes that value.
fn bind_dims(graph: &mut Graph, options: &Options, report: &mut Report) -> Result<Vec<DimParam>> {
    let mut names: Vec<Sym> = vec![];
    for v in &graph.inputs {
        for d in graph.value(*v).shape.iter().flatten() {
            names.extend(d.syms().into_iter().filter(|s| !names.contains(s)).collect::<Vec<_>>());
        }
    }
    if let Some(unknown) = options.dims.keys().find(|n| !names.contains(n)) {
        let known: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        return Err(Error::new(Kind::InvalidInput, format!("the model has no dimension \"{unknown}\""))
            .help(format!("its symbolic dimensions are: {}", known.join(", "))));
    }
    let mut fixed: BTreeMap<Sym, Dim> = BTreeMap::new();
    let mut dims = vec![];
    for name in names {
        let range = match options.dims.get(&name) {
            Some(r) if r.min < 0 || r.max < r.min || r.max > i64::from(i32::MAX) => {
                return Err(Error::new(Kind::DimOutOfBounds, format!("bounds {}..{} of \"{name}\"", r.min, r.max))
                    .help("state them as MIN..MAX with 0 <= MIN <= MAX"));
            }
            Some(r) => *r,
            None => {
                report
                    .notes
                    .push(format!("dimension \"{name}\" is fixed at 1: state --dim {name}=MIN..MAX to vary it"));
                DimRange { min: 1, max: 1 }
            }
        };
        if range.min == range.max {
            fixed.insert(name, Dim::from(range.min));
        } else {
            dims.push(DimParam { name, range });
        }
    }
    dims.sort_by(|a, b| a.name.cmp(&b.name));
    graph.ranges = dims.iter().map(|d| (Sym::clone(&d.name), d.range)).collect();
    for value in &mut graph.values {
        for d in value.shape.iter_mut().flatten() {
            *d = d.substitute(&fixed);
        }
    }
    Ok(dims)
}

/// A lowered model after fusion, which is the same for every target.
#[derive(Clone)]
struct Fused {
    values: kernel::Values,
    outputs: Vec<kernel::ValueId>,
    /// What kernels write to memory.
    stored: Vec<kernel::ValueId>,
}

impl Fused {
    fn of(lowered: Lowered, fusion: Fusion) -> Self {
        let Lowered { mut values, outputs } = lowered;
        let stored = kernel::fuse(&mut values, &outputs, fusion);
        Fused { values, outputs, stored }
    }
}

/// A model on its way to one target.
struct Target {
    values: kernel::Values,
    schedule: Schedule,
}

impl Target {
    fn schedule(fused: Fused, attention: AttentionAs) -> Self {
        let Fused { mut values, outputs, stored } = fused;
        let schedule = kernel::schedule(&mut values, &stored, &outputs, attention);
        Target { values, schedule }
    }

    fn emit_wasm(
        &mut self,
        packed: &Packed,
        inputs: usize,
        dims: &[Sym],
        variants: &[Variant],
    ) -> Result<(CpuPlace, Vec<(Variant, Vec<u8>)>)> {
        let zeros = wasm::zeros_needed(&self.values, &self.schedule.kernels);
        let place = place::cpu(&self.values, &self.schedule, packed, inputs, dims.len(), zeros)?;
        let memory = Memory {
            at: place.at.clone(),
            dims: place.dims,
            dim_order: dims.to_vec(),
            zeros: place.zeros,
            bytes: place.plan.memory,
        };
        let mut code = vec![];
        for v in variants {
            code.push((*v, wasm::emit(&self.values, &self.schedule.kernels, &memory, *v)?));
        }
        Ok((place, code))
    }

    fn emit_wgsl(&mut self, packed: &Packed, inputs: usize, dims: &[Sym]) -> Result<(GpuPlace, GpuPlan, String)> {
        let mut place = place::gpu(&self.values, &self.schedule, packed, inputs, dims.len())?;
        // The candidates of each kernel, in rounds: first all defaults.
        let mut emitted = vec![];
        for (i, k) in self.schedule.kernels.iter().enumerate() {
            let all = wgsl::emit_candidates(&mut self.values, k, dims).map_err(|e| e.at(&k.name))?;
            for (round, shader) in all.into_iter().enumerate() {
                place::check_workgroups(&k.name, &shader.workgroups, &self.values)?;
                emitted.push((round, i, shader));
            }
        }
        emitted.sort_by_key(|(round, i, _)| (*round, *i));
        let mut text = String::new();
        let mut shaders: Vec<(u32, u32)> = vec![];
        let mut numbers: Vec<Vec<i32>> = vec![];
        // Of each candidate: its shader, and which numbers it gets.
        let mut users: BTreeMap<usize, (u32, Option<usize>)> = BTreeMap::new();
        for shared in wgsl::share(&emitted.iter().map(|(.., s)| &s.code).collect::<Vec<_>>()) {
            wgsl::validate(&shared.wgsl)?;
            for (candidate, list) in shared.users {
                let known = numbers.iter().position(|n| *n == list).unwrap_or(numbers.len());
                let wanted = (!list.is_empty()).then_some(known);
                if wanted == Some(numbers.len()) {
                    numbers.push(list);
                }
                users.insert(candidate, (shaders.len() as u32, wanted));
            }
            let start = text.len() as u32;
            text.push_str(&shared.wgsl);
            shaders.push((start, text.len() as u32));
        }
        let ranges = place.numbers(&numbers);
        let named = |k: &kernel::Kernel| Dispatch { name: k.name.clone(), candidates: vec![] };
        let mut dispatches: Vec<Dispatch> = self.schedule.kernels.iter().map(named).collect();
        let mut requires = GpuRequires::default();
        for (i, (round, k, shader)) in emitted.into_iter().enumerate() {
            let dispatch = &mut dispatches[k];
            let internal = |what: &str| Error::new(Kind::Internal, what).at(&dispatch.name);
            let (number, wanted) = *users.get(&i).ok_or_else(|| internal("a kernel has no shader"))?;
            let mut bindings: Vec<Binding> = vec![];
            for (v, writes) in &shader.bindings {
                let at = place.at.get(v).ok_or_else(|| internal("a value has no place"))?;
                bindings.push(Binding { writes: *writes, ..*at });
            }
            let whole = |buffer: u32, writes: bool| Binding {
                buffer,
                offset: 0,
                size: place.buffers[buffer as usize].bytes,
                writes,
            };
            // A client that cannot run another candidate than the default can do without it.
            if round == 0 {
                let (storage, r) = (bindings.len() as u32 + u32::from(shader.overflow), &mut requires);
                r.max_storage_bindings = r.max_storage_bindings.max(storage);
                r.max_storage_binding = bindings.iter().map(|b| b.size).fold(r.max_storage_binding, u64::max);
                r.max_workgroup_size = r.max_workgroup_size.max(shader.workgroup_size);
                r.max_workgroup_storage = r.max_workgroup_storage.max(shader.workgroup_storage);
            }
            bindings.extend(place.dims.filter(|_| shader.uses_dims).map(|b| whole(b, false)));
            bindings.extend(shader.overflow.then(|| whole(place.overflow, true)));
            bindings.extend(wanted.and_then(|n| ranges.get(n)).copied());
            dispatch.candidates.push(Candidate { shader: number, bindings, workgroups: shader.workgroups });
        }
        requires.max_buffer_size = place.buffers.iter().map(|b| b.bytes).max().unwrap_or(0);
        let plan = GpuPlan { shaders, numbers, buffers: place.buffers.clone(), dispatches, requires };
        Ok((place, plan, text))
    }
}

/// Folds constant parts of a graph by compiling and running them.
struct Folder<'a> {
    engine: &'a dyn Engine,
}

impl passes::Evaluate for Folder<'_> {
    /// The outputs of a graph without inputs.
    fn evaluate(&self, graph: &Graph) -> Result<Vec<Array>> {
        let lowered = lower::graph(graph, BTreeMap::new())?;
        let mut target = Target::schedule(Fused::of(lowered, Fusion::On), AttentionAs::Three);
        let packed = weights::pack(&[(&target.values, &target.schedule)], WeightType::F32)?;
        let (place, code) = target.emit_wasm(&packed, 0, &[], &[Variant::Simd])?;
        let types: Vec<(DType, Vec<usize>)> = target
            .schedule
            .outputs
            .iter()
            .map(|v| {
                let shape = crate::tensor::known(target.values.shape(*v));
                Ok((
                    target.values.dtype(*v),
                    shape.ok_or_else(|| Error::new(Kind::Internal, "a constant of unknown shape"))?,
                ))
            })
            .collect::<Result<_>>()?;
        let bytes = run_once(self.engine, &code[0].1, &place.plan, &packed, &types)?;
        types.into_iter().zip(bytes).map(|((dtype, shape), b)| Array::new(dtype, shape, b)).collect()
    }
}

/// Runs a compiled model's simd128 code on inputs.
pub fn run_cpu(compiled: &Compiled, inputs: &[Array], engine: &dyn Engine) -> Result<Vec<Array>> {
    let plan = &compiled.plan;
    let shapes: Vec<&[usize]> = inputs.iter().map(Array::shape).collect();
    let bindings = plan.bind(&shapes)?;
    let dims = memory::dims(plan, &bindings)?;
    let mut data: Vec<(u32, &[u8])> = vec![(plan.cpu.dims, &dims)];
    data.extend(plan.cpu.inputs.iter().copied().zip(inputs.iter().map(Array::bytes)));
    let placed = memory::weights(&plan.weights, &plan.cpu, &compiled.packs).collect::<Result<Vec<_>>>()?;
    data.extend(placed.iter().map(|(at, b)| (*at, &b[..])));
    let types: Vec<(DType, Vec<usize>)> = plan
        .outputs
        .iter()
        .map(|p| Ok((p.dtype, crate::plan::resolve(&p.shape, &bindings)?)))
        .collect::<Result<_>>()?;
    let regions: Vec<(u32, usize)> = plan
        .cpu
        .outputs
        .iter()
        .zip(&types)
        .map(|(at, (dtype, shape))| (*at, shape.iter().product::<usize>() * dtype.size()))
        .collect();
    let Some((_, wasm)) = compiled.wasm.iter().find(|(v, _)| *v == Variant::Simd) else {
        return Err(Error::new(Kind::Internal, "no simd128 code"));
    };
    let bytes = engine.run(wasm, &data, &regions)?;
    types.into_iter().zip(bytes).map(|((dtype, shape), b)| Array::new(dtype, shape, b)).collect()
}

fn run_once(
    engine: &dyn Engine,
    wasm: &[u8],
    cpu: &CpuPlan,
    packed: &Packed,
    outputs: &[(DType, Vec<usize>)],
) -> Result<Vec<Vec<u8>>> {
    let placed = memory::weights(&packed.weights, cpu, &packed.files).collect::<Result<Vec<_>>>()?;
    let data: Vec<(u32, &[u8])> = placed.iter().map(|(at, b)| (*at, &b[..])).collect();
    let regions: Vec<(u32, usize)> = cpu
        .outputs
        .iter()
        .zip(outputs)
        .map(|(at, (dtype, shape))| (*at, shape.iter().product::<usize>() * dtype.size()))
        .collect();
    engine.run(wasm, &data, &regions)
}
