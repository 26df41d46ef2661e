//! The GPU: a device that models share, sessions on it, tensors that stay there.

use super::runtime::Package;
use super::tensor::Tensor;
use super::{Result, throw, to_js};
use crate::error::{Error, Kind};
use crate::runtime::gpu::{Choice, Feed, Gpu, GpuSession, GpuTensor};
use crate::tensor::{Array, DType};
use js_sys::Promise;
use serde::Serialize;
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

/// A WebGPU device.
#[wasm_bindgen]
pub struct GpuDevice {
    gpu: Gpu,
}

/// Opens the GPU: any adapter that the browser offers, or with `hardware` only one that does not compute on the CPU.
#[wasm_bindgen(js_name = openGpu)]
pub async fn open_gpu(hardware: bool) -> Result<GpuDevice> {
    let choice = if hardware { Choice::Hardware } else { Choice::Any };
    Ok(GpuDevice { gpu: Gpu::open(choice).await.map_err(throw)? })
}

#[wasm_bindgen]
impl GpuDevice {
    /// Throws `device-limit` where the device is too small for a model.
    pub fn check(&self, package: &Package) -> Result<()> {
        let no_plan = || throw(Error::new(Kind::DeviceUnavailable, "the package has no code for the GPU"));
        let plan = package.plan.gpu.as_ref().ok_or_else(no_plan)?;
        self.gpu.check_limits(&plan.requires).map_err(throw)
    }

    /// Whether the device is lost.
    #[wasm_bindgen(js_name = isLost)]
    pub fn is_lost(&self) -> bool {
        self.gpu.is_lost()
    }

    /// Loses the device on purpose, for tests.
    pub fn destroy(&self) {
        self.gpu.destroy();
    }
}

/// A model on the GPU.
#[wasm_bindgen]
pub struct Session {
    /// Taken out while a run is under way.
    slot: Rc<RefCell<Slot>>,
    gpu: Gpu,
}

#[derive(Default)]
struct Slot {
    session: Option<GpuSession>,
    disposed: bool,
}

/// Allocates the model's buffers and compiles its pipelines. Meanwhile device and package may be freed: a load that is
/// aborted does not wait for this. `choice` is what [`Session::tune`] gave before, or empty.
#[wasm_bindgen(js_name = startSession, unchecked_return_type = "Promise<Session>")]
pub fn start_session(device: &GpuDevice, package: &Package, wgsl: String, choice: Vec<u32>) -> Promise {
    let (gpu, plan) = (device.gpu.clone(), package.plan.clone());
    future_to_promise(async move {
        let session = GpuSession::new(&gpu, plan, &wgsl, &choice).await.map_err(throw)?;
        let slot = Slot { session: Some(session), disposed: false };
        Ok(Session { slot: Rc::new(RefCell::new(slot)), gpu }.into())
    })
}

#[wasm_bindgen]
impl Session {
    /// Puts the bytes from `offset` of a pack in their places.
    pub fn upload(&self, pack: u32, offset: f64, bytes: &[u8]) -> Result<()> {
        let slot = self.slot.borrow();
        let session = slot.session.as_ref().ok_or_else(|| throw(gone()))?;
        session.upload(pack, offset as u64, bytes).map_err(throw)
    }

    /// Runs the model. The outputs come back as `{ type, dims, bytes }`, or with `stay` as [`GpuValue`]s.
    pub async fn run(&self, feeds: Feeds, stay: bool) -> Result<JsValue> {
        let slot = Rc::clone(&self.slot);
        let mut session = slot.borrow_mut().session.take().ok_or_else(|| throw(gone()))?;
        let inputs: Vec<Feed<'_>> = feeds
            .0
            .iter()
            .map(|f| match f {
                Owned::Host(a) => Feed::Host(a),
                Owned::Gpu(t) => Feed::Gpu(t),
            })
            .collect();
        let result = if stay {
            session.run_on_gpu(&inputs).await.map(Outputs::Gpu)
        } else {
            session.run(&inputs).await.map(Outputs::Host)
        };
        let mut slot = slot.borrow_mut();
        if slot.disposed {
            session.dispose();
            return Err(throw(gone()));
        }
        slot.session = Some(session);
        match result.map_err(throw)? {
            Outputs::Host(all) => to_js(&all.iter().map(Tensor::from).collect::<Vec<_>>()),
            Outputs::Gpu(all) => {
                let values = all.into_iter().map(|tensor| JsValue::from(GpuValue { tensor, gpu: self.gpu.clone() }));
                Ok(values.collect::<js_sys::Array>().into())
            }
        }
    }

    /// Takes the fastest shaders on this adapter, between runs; returns what was chosen.
    pub async fn tune(&self, wgsl: String) -> Result<Vec<u32>> {
        let slot = Rc::clone(&self.slot);
        let mut session = slot.borrow_mut().session.take().ok_or_else(|| throw(gone()))?;
        let chosen = session.tune(&wgsl).await;
        let mut slot = slot.borrow_mut();
        if slot.disposed {
            session.dispose();
            return Err(throw(gone()));
        }
        slot.session = Some(session);
        chosen.map_err(throw)
    }

    /// Figures of the session and its last run.
    pub fn stats(&self) -> Result<JsValue> {
        match &self.slot.borrow().session {
            Some(session) => to_js(&session.stats()),
            None => Ok(JsValue::UNDEFINED),
        }
    }

    /// Frees the buffers; those of a run under way when it has ended.
    pub fn dispose(&self) {
        let mut slot = self.slot.borrow_mut();
        slot.disposed = true;
        if let Some(session) = slot.session.take() {
            session.dispose();
        }
    }
}

enum Outputs {
    Host(Vec<Array>),
    Gpu(Vec<GpuTensor>),
}

fn gone() -> Error {
    Error::new(Kind::Disposed, "the model was disposed")
}

/// The inputs of a run, in the order of the signature.
#[wasm_bindgen]
#[derive(Default)]
pub struct Feeds(Vec<Owned>);

enum Owned {
    Host(Array),
    Gpu(GpuTensor),
}

#[wasm_bindgen]
impl Feeds {
    #[wasm_bindgen(constructor)]
    pub fn new() -> Feeds {
        Feeds::default()
    }

    /// An input from the CPU: little-endian elements of `dtype`.
    pub fn host(&mut self, dtype: &str, dims: Vec<u32>, bytes: Vec<u8>) -> Result<()> {
        let unknown = || throw(Error::new(Kind::InvalidInput, format!("\"{dtype}\" is not a data type")));
        let dtype = DType::from_name(dtype).ok_or_else(unknown)?;
        let dims = dims.into_iter().map(|n| n as usize).collect();
        self.0.push(Owned::Host(Array::new(dtype, dims, bytes).map_err(throw)?));
        Ok(())
    }

    /// An input that lies on the GPU.
    pub fn gpu(&mut self, value: &GpuValue) {
        self.0.push(Owned::Gpu(value.tensor.clone()));
    }
}

/// A tensor on the GPU.
#[wasm_bindgen]
pub struct GpuValue {
    tensor: GpuTensor,
    gpu: Gpu,
}

#[derive(Serialize)]
struct Described<'a> {
    #[serde(rename = "type")]
    dtype: DType,
    dims: &'a [usize],
}

#[wasm_bindgen]
impl GpuValue {
    /// `{ type, dims }`.
    pub fn describe(&self) -> Result<JsValue> {
        to_js(&Described { dtype: self.tensor.dtype, dims: &self.tensor.shape })
    }

    /// The elements, little-endian. Meanwhile this may be freed.
    #[wasm_bindgen(unchecked_return_type = "Promise<Uint8Array>")]
    pub fn read(&self) -> Promise {
        let (tensor, gpu) = (self.tensor.clone(), self.gpu.clone());
        future_to_promise(async move {
            let array = tensor.read(&gpu).await.map_err(throw)?;
            Ok(js_sys::Uint8Array::from(array.bytes()).into())
        })
    }

    /// Frees the buffer.
    pub fn destroy(&self) {
        self.tensor.destroy();
    }
}
