//! What is done otherwise in browsers.

use crate::error::Result;
use js_sys::{Array, Function, Object, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// Browsers run callbacks by themselves.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn settle(_device: &wgpu::Device) -> Result<()> {
    Ok(())
}

/// Milliseconds since some moment; 0 where the engine does not tell.
pub(super) fn now() -> f64 {
    let clock = || -> std::result::Result<Option<f64>, JsValue> {
        let performance = Reflect::get(&js_sys::global(), &"performance".into())?;
        let f: Function = Reflect::get(&performance, &"now".into())?.dyn_into()?;
        Ok(f.call0(&performance)?.as_f64())
    };
    clock().ok().flatten().unwrap_or_default()
}

/// A pipeline that was compiled ahead. While it lives the browser finds it when the same one is created again.
pub(super) struct Warm(#[allow(dead_code)] JsValue);

/// Compiles pipelines ahead with `createComputePipelineAsync`, which wgpu does not offer, so that creating them does not
/// block the page. What fails here fails again, with its message, where the pipeline is created.
pub(super) async fn warm(device: &wgpu::Device, code: &[(&str, Vec<wgpu::BindGroupLayoutEntry>)]) -> Vec<Warm> {
    let Some(device) = device.as_webgpu() else { return vec![] };
    let device: &JsValue = device.as_ref();
    let started: Vec<Promise> = code.iter().filter_map(|(code, entries)| start(device, code, entries).ok()).collect();
    let mut done = vec![];
    for p in started {
        if let Ok(pipeline) = JsFuture::from(p).await {
            done.push(Warm(pipeline));
        }
    }
    done
}

fn start(
    device: &JsValue,
    code: &str,
    entries: &[wgpu::BindGroupLayoutEntry],
) -> std::result::Result<Promise, JsValue> {
    let module = call(device, "createShaderModule", &object(&[("code", code.into())])?)?;
    let list = Array::new();
    for e in entries {
        let kind = match e.ty {
            wgpu::BindingType::Buffer { ty: wgpu::BufferBindingType::Uniform, .. } => "uniform",
            wgpu::BindingType::Buffer { ty: wgpu::BufferBindingType::Storage { read_only: true }, .. } => {
                "read-only-storage"
            }
            _ => "storage",
        };
        let buffer = object(&[("type", kind.into())])?;
        // GPUShaderStage.COMPUTE is 4.
        let entry = object(&[("binding", e.binding.into()), ("visibility", 4.into()), ("buffer", buffer)])?;
        list.push(&entry);
    }
    let group = call(device, "createBindGroupLayout", &object(&[("entries", list.into())])?)?;
    let layouts = object(&[("bindGroupLayouts", Array::of1(&group).into())])?;
    let layout = call(device, "createPipelineLayout", &layouts)?;
    let compute = object(&[("module", module), ("entryPoint", "main".into())])?;
    let descriptor = object(&[("layout", layout), ("compute", compute)])?;
    call(device, "createComputePipelineAsync", &descriptor)?.dyn_into()
}

fn object(fields: &[(&str, JsValue)]) -> std::result::Result<JsValue, JsValue> {
    let o: JsValue = Object::new().into();
    for (name, value) in fields {
        Reflect::set(&o, &(*name).into(), value)?;
    }
    Ok(o)
}

fn call(on: &JsValue, name: &str, argument: &JsValue) -> std::result::Result<JsValue, JsValue> {
    let f: Function = Reflect::get(on, &name.into())?.dyn_into()?;
    f.call1(on, argument)
}
