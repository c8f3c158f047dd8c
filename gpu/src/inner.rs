//! What everything that works on an opened adapter shares.

use crate::cache::Cache;
use crate::fault::{self, Faults};
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
}

impl Inner {
    /// Runs calls of wgpu that report errors to scopes, and returns the first of those errors.
    pub(crate) fn guarded<T>(&self, doing: &str, work: impl FnOnce() -> T) -> Result<T, DeviceError> {
        self.faults.check()?;
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let value = work();
        // Scopes end in the opposite order; all of them must end before any error returns.
        let errors = [
            pollster::block_on(validation.pop()),
            pollster::block_on(internal.pop()),
            pollster::block_on(memory.pop()),
        ];
        match errors.iter().flatten().next() {
            Some(error) => Err(self.faults.convert(error, doing)),
            None => self.faults.check().map(|()| value),
        }
    }

    /// Waits until everything submitted is done.
    pub(crate) fn wait(&self) -> Result<(), DeviceError> {
        fault::poll(&self.device, &self.faults, true)
    }

    /// Lets the driver report what happened and free what it no longer needs.
    pub(crate) fn poll(&self) -> Result<(), DeviceError> {
        fault::poll(&self.device, &self.faults, false)
    }
}
