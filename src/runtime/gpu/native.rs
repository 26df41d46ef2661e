//! What is done otherwise outside of browsers.

use crate::error::{Error, Kind, Result};
use std::sync::OnceLock;
use std::time::Instant;

/// Waits until the device has done what was submitted, so that its callbacks have run.
pub(super) fn settle(device: &wgpu::Device) -> Result<()> {
    let done = device.poll(wgpu::PollType::wait_indefinitely());
    done.map(|_| ()).map_err(|e| Error::new(Kind::DeviceLost, format!("the GPU does not answer: {e}")))
}

/// Milliseconds since some moment.
pub(super) fn now() -> f64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_secs_f64() * 1000.0
}

/// Compiles pipelines ahead, without blocking the page. Natively a pipeline is compiled when it is created.
#[allow(clippy::unused_async)]
pub(super) async fn warm(_device: &wgpu::Device, _code: &[(&str, Vec<wgpu::BindGroupLayoutEntry>)]) -> Vec<Warm> {
    vec![]
}

/// A pipeline that was compiled ahead.
pub(super) struct Warm;
