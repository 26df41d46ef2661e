//! What is done otherwise outside of browsers.

use crate::error::{Error, Kind, Result};

/// Waits until the device has done what was submitted, so that its callbacks have run.
pub(super) fn settle(device: &wgpu::Device) -> Result<()> {
    let done = device.poll(wgpu::PollType::wait_indefinitely());
    done.map(|_| ()).map_err(|e| Error::new(Kind::DeviceLost, format!("the GPU does not answer: {e}")))
}

/// Compiles pipelines ahead, without blocking the page. Natively a pipeline is compiled when it is created.
#[allow(clippy::unused_async)]
pub(super) async fn warm(_device: &wgpu::Device, _code: &[(&str, Vec<wgpu::BindGroupLayoutEntry>)]) -> Vec<Warm> {
    vec![]
}

/// A pipeline that was compiled ahead.
pub(super) struct Warm;
