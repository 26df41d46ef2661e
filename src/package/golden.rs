//! Golden inputs and outputs: what a device must reproduce before it is trusted.

use crate::compile::{Compiled, Engine, run_cpu};
use crate::error::{Error, Kind, Result};
use crate::plan::golden::{Case, Golden};
use crate::plan::{Plan, resolve};
use crate::tensor::{Array, Bindings, DType, Sym};

/// Absolute and relative tolerance between devices: sums run in another order, and GPUs round transcendental functions
/// coarsely.
const ATOL: f64 = 1e-3;
const RTOL: f64 = 1e-2;

/// Operators at which a difference in the last bit becomes a step of the quantized type. A few such steps, of which devices
/// take different ones, are amplified by every layer: dynamically quantized MiniLM differs by 13 % of its norm between
/// ONNX Runtime's own levels of optimization, as it does between devices here.
const ROUNDING: [&str; 5] = ["DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Round"];

/// How far outputs of models with such operators may lie apart as a whole, of their norm. A device that computes something
/// else is off by the norm itself, or more.
const SPREAD: f64 = 0.5;

/// Inputs where the user gives none: floats spread evenly over -1..1 in a fixed order, integers and bools all 1, every
/// symbolic dim at the least of its bounds that is at least 2, or its greatest.
pub fn default_inputs(plan: &Plan) -> Result<Vec<Array>> {
    let bindings: Bindings =
        plan.dims.iter().map(|d| (Sym::clone(&d.name), d.range.min.max(2).min(d.range.max))).collect();
    let mut state = 1u64;
    plan.inputs
        .iter()
        .map(|port| {
            let shape = resolve(&port.shape, &bindings)?;
            let n: usize = shape.iter().product();
            let mut bytes = Vec::with_capacity(n * port.dtype.size());
            for _ in 0..n {
                // Numerical Recipes' LCG; the upper bits are good enough to tell values apart.
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                match port.dtype {
                    DType::Float32 => bytes.extend(x.to_le_bytes()),
                    DType::Float64 => bytes.extend(f64::from(x).to_le_bytes()),
                    DType::Float16 => bytes.extend(half::f16::from_f32(x).to_le_bytes()),
                    DType::BFloat16 => bytes.extend(half::bf16::from_f32(x).to_le_bytes()),
                    _ => bytes.extend(&1u64.to_le_bytes()[..port.dtype.size()]),
                }
            }
            Array::new(port.dtype, shape, bytes)
        })
        .collect()
}

/// The tensors that the signature names, in its order.
pub fn named_inputs(plan: &Plan, all: &[(String, Array)]) -> Result<Vec<Array>> {
    plan.inputs
        .iter()
        .map(|p| {
            let found = all.iter().find(|(name, _)| *name == p.name).map(|(_, a)| a.clone());
            let array = found.ok_or_else(|| {
                let names: Vec<&str> = all.iter().map(|(n, _)| n.as_str()).collect();
                Error::new(Kind::InvalidInput, format!("no tensor \"{}\"", p.name))
                    .help(format!("there are: {}", names.join(", ")))
            })?;
            if array.dtype() != p.dtype {
                let what = format!("\"{}\" is {} where {} is wanted", p.name, array.dtype(), p.dtype);
                return Err(Error::new(Kind::InvalidInput, what));
            }
            Ok(array)
        })
        .collect()
}

/// Runs the model on `inputs` with its simd128 code and keeps what comes out.
pub fn golden(compiled: &Compiled, inputs: Vec<Array>, engine: &dyn Engine) -> Result<Golden> {
    let plan = &compiled.plan;
    if inputs.len() != plan.inputs.len() {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("{} golden inputs for a model with {}", inputs.len(), plan.inputs.len()),
        ));
    }
    let outputs = run_cpu(compiled, &inputs, engine)?;
    let rounds = ROUNDING.iter().any(|op| compiled.report.ops.contains_key(*op));
    let spread = if rounds { SPREAD } else { 0.0 };
    Ok(Golden { atol: ATOL, rtol: RTOL, spread, cases: vec![Case { inputs, outputs }] })
}
