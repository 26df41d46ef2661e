//! Tensors that stay on the device: reading and freeing them.

use super::adapter::Gpu;
use super::platform;
use super::session::GpuTensor;
use super::signal::Signal;
use crate::error::{Error, Kind, Result};
use crate::plan::convert::convert;
use crate::plan::gpu_dtype;
use crate::tensor::Array;

impl GpuTensor {
    /// Brings the elements to the host, in the tensor's own type.
    pub async fn read(&self, gpu: &Gpu) -> Result<Array> {
        gpu.check()?;
        let size = self.buffer.size();
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let staging = gpu.device.create_buffer(&descriptor);
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.buffer, 0, &staging, 0, size);
        gpu.queue.submit([encoder.finish()]);
        let mapped = Signal::new();
        let callback = mapped.clone();
        staging.slice(..).map_async(wgpu::MapMode::Read, move |r| callback.send(r));
        platform::settle(&gpu.device).or_else(|e| gpu.check().and(Err(e)))?;
        let read = mapped.await;
        gpu.check()?;
        read.map_err(|e| Error::new(Kind::DeviceLost, format!("the GPU gave no data: {e}")))?;
        let held = gpu_dtype(self.dtype)
            .ok_or_else(|| Error::new(Kind::UnsupportedType, format!("{} on the GPU", self.dtype)))?;
        let used = self.shape.iter().product::<usize>() * held.size();
        let view = staging.slice(..).get_mapped_range();
        let view = view.map_err(|e| Error::new(Kind::Internal, format!("the data is not mapped: {e}")))?;
        let short = || Error::new(Kind::Internal, "the buffer is shorter than its tensor");
        let bytes = convert(view.get(..used).ok_or_else(short)?, held, self.dtype)?.into_owned();
        drop(view);
        staging.destroy();
        Array::new(self.dtype, self.shape.clone(), bytes)
    }

    /// Frees the buffer now.
    pub fn destroy(&self) {
        self.buffer.destroy();
    }
}
