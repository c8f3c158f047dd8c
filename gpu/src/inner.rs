//! What everything that works on an opened adapter shares.

use crate::cache::Cache;
use crate::fault::Faults;
use crate::options::GpuOptions;
use crate::pipeline::Pipelines;
use graph::{DeviceError, DeviceInfo};
use shaders::Profile;
use std::sync::Arc;

/// wgpu's device and queue, with what is known about them and the kernels compiled so far.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) info: DeviceInfo,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    pub(crate) profile: Profile,
    pub(crate) faults: Arc<Faults>,
    pub(crate) pipelines: Pipelines,
    pub(crate) cache: Option<Cache>,
    pub(crate) options: GpuOptions,
    pub(crate) timestamps: bool,
    #[cfg(target_family = "wasm")]
    pub(crate) late: crate::wait::Late,
}

impl Inner {
    /// Runs calls of wgpu that report errors to scopes, and returns the first of those errors; in a browser, where they come later,
    /// [`settle`](Self::settle) returns it.
    pub(crate) fn guarded<T>(&self, doing: &str, work: impl FnOnce() -> T) -> Result<T, DeviceError> {
        self.faults.check()?;
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = work();
        // Scopes end in the opposite order; all of them must end before any error returns.
        self.judge(doing, [validation.pop(), internal.pop(), memory.pop()])?;
        self.faults.check().map(|()| value)
    }
}
