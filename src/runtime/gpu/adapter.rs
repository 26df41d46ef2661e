//! The adapter and its device: choosing it, its limits against a plan's, and its loss.

use crate::error::{Error, Kind, Result};
use crate::plan::GpuRequires;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

/// Which adapter to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// A GPU; a software adapter is refused, because `model.wasm` is faster than it.
    Hardware,
    /// Whatever there is (tests, and users who ask for the GPU by name).
    Any,
}

/// What an adapter is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdapterInfo {
    pub name: String,
    pub driver: String,
    /// Computed on the CPU (SwiftShader, lavapipe).
    pub software: bool,
}

/// A device that sessions are made on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    info: Arc<AdapterInfo>,
    limits: Arc<wgpu::Limits>,
    trouble: Arc<Mutex<Trouble>>,
}

/// What the device reported by itself.
#[derive(Debug, Default)]
struct Trouble {
    lost: Option<String>,
    error: Option<String>,
}

impl Gpu {
    /// Opens an adapter with all that it offers.
    pub async fn open(choice: Choice) -> Result<Gpu> {
        let none = |what: String| {
            Error::new(Kind::DeviceUnavailable, what)
                .help("use the \"wasm\" device; natively, install a Vulkan driver (Debian: mesa-vulkan-drivers)")
        };
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..wgpu::RequestAdapterOptions::default()
        };
        let adapter = instance.request_adapter(&options).await;
        let adapter = adapter.map_err(|e| none(format!("there is no GPU adapter: {e}")))?;
        let raw = adapter.get_info();
        let known = ["swiftshader", "llvmpipe", "lavapipe", "softpipe", "basic render"];
        let all = format!("{} {} {}", raw.name, raw.driver, raw.driver_info).to_lowercase();
        let info = AdapterInfo {
            software: raw.device_type == wgpu::DeviceType::Cpu || known.iter().any(|k| all.contains(k)),
            name: raw.name,
            driver: format!("{} {}", raw.driver, raw.driver_info).trim().to_owned(),
        };
        if choice == Choice::Hardware && info.software {
            return Err(none(format!("the adapter \"{}\" computes in software", info.name)));
        }
        let limits = adapter.limits();
        let descriptor =
            wgpu::DeviceDescriptor { required_limits: limits.clone(), ..wgpu::DeviceDescriptor::default() };
        let (device, queue) =
            adapter.request_device(&descriptor).await.map_err(|e| none(format!("the adapter gives no device: {e}")))?;
        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let lost = Arc::clone(&trouble);
        device.set_device_lost_callback(move |reason, message| {
            let mut t = lost.lock().unwrap_or_else(PoisonError::into_inner);
            t.lost = Some(format!("{reason:?}: {message}"));
        });
        let errors = Arc::clone(&trouble);
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            let mut t = errors.lock().unwrap_or_else(PoisonError::into_inner);
            t.error.get_or_insert_with(|| e.to_string());
        }));
        Ok(Gpu { device, queue, info: Arc::new(info), limits: Arc::new(limits), trouble })
    }

    /// What the adapter is.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Whether the device is lost: then every session on it must be made again on another.
    pub fn is_lost(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).lost.is_some()
    }

    /// The device's loss, or an error that it reported outside of a call.
    pub(super) fn check(&self) -> Result<()> {
        let mut t = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &t.lost {
            return Err(Error::new(Kind::DeviceLost, format!("the GPU was lost: {why}")).help("load the model again"));
        }
        match t.error.take() {
            Some(what) => Err(Error::new(Kind::Internal, format!("the GPU reports: {what}"))),
            None => Ok(()),
        }
    }

    /// Whether the device offers what a plan requires; the error names the limit, what is needed and what is offered.
    pub fn check_limits(&self, r: &GpuRequires) -> Result<()> {
        let l = &self.limits;
        let list = [
            ("maxBufferSize", r.max_buffer_size, l.max_buffer_size),
            ("maxStorageBufferBindingSize", r.max_storage_binding, l.max_storage_buffer_binding_size),
            (
                "maxStorageBuffersPerShaderStage",
                u64::from(r.max_storage_bindings),
                u64::from(l.max_storage_buffers_per_shader_stage),
            ),
            (
                "maxComputeInvocationsPerWorkgroup",
                u64::from(r.max_workgroup_size),
                u64::from(l.max_compute_invocations_per_workgroup),
            ),
            (
                "maxComputeWorkgroupStorageSize",
                u64::from(r.max_workgroup_storage),
                u64::from(l.max_compute_workgroup_storage_size),
            ),
        ];
        // Browsers give no name.
        let adapter = if self.info.name.is_empty() { "the adapter" } else { &self.info.name };
        for (name, needed, offered) in list {
            if needed > offered {
                return Err(Error::new(
                    Kind::DeviceLimit,
                    format!("the model needs {name} = {needed}, and {adapter} offers {offered}"),
                )
                .help("use the \"wasm\" device, or rebuild the model with smaller --dim bounds"));
            }
        }
        Ok(())
    }

    /// Loses the device on purpose (tests).
    pub fn destroy(&self) {
        self.device.destroy();
    }
}
