//! An adapter that has been opened.

use crate::adapter::Adapter;
use crate::build;
use crate::fault::{self, Faults};
use crate::pipeline::Pipelines;
use crate::plan::GpuPlan;
use graph::{Device, DeviceError, DeviceInfo, DeviceKind, Graph, Plan, PlanOptions, WeightSource};
use shaders::Profile;
use std::sync::Arc;

/// How much work one submission may hold. A desktop's watchdog resets a GPU that is busy with one for about two seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmitBudget {
    /// Dispatches.
    pub dispatches: usize,
    /// Floating-point operations. A single dispatch above this is still submitted whole.
    pub flops: u64,
}

impl Default for SubmitBudget {
    fn default() -> Self {
        // 20 GFLOP take a second at 20 GFLOP/s, slower than any GPU that has a watchdog, and two milliseconds on a large
        // card, where another submission costs some 50 µs.
        Self { dispatches: 4096, flops: 20_000_000_000 }
    }
}

/// How to open an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Keep naga's bounds checks in every kernel: slower, for tests and for doubtful drivers.
    pub checked: bool,
    /// Use the adapter's half-precision arithmetic type where it has one; half-precision weights are unpacked from
    /// words otherwise.
    pub shader_f16: bool,
    /// Pretend that the largest binding is this many bytes, where the adapter's is larger.
    pub max_binding_bytes: Option<u64>,
    /// When to split a run into several submissions.
    pub submit: SubmitBudget,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self { checked: false, shader_f16: true, max_binding_bytes: None, submit: SubmitBudget::default() }
    }
}

/// One opened adapter. Clones share it.
#[derive(Debug, Clone)]
pub struct GpuDevice {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) info: DeviceInfo,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    pub(crate) profile: Profile,
    pub(crate) faults: Arc<Faults>,
    pub(crate) pipelines: Pipelines,
    pub(crate) options: GpuOptions,
    pub(crate) timestamps: bool,
}

impl GpuDevice {
    pub(crate) fn open(adapter: &Adapter, options: GpuOptions) -> Result<Self, DeviceError> {
        let info = adapter.info().clone();
        let mut wanted = wgpu::Features::TIMESTAMP_QUERY;
        wanted.set(wgpu::Features::SHADER_F16, options.shader_f16);
        let features = wanted & adapter.handle.features();
        let mut limits = adapter.handle.limits();
        if let Some(bytes) = options.max_binding_bytes {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(bytes);
        }
        let (device, queue) = pollster::block_on(adapter.handle.request_device(&wgpu::DeviceDescriptor {
            label: Some("headwater"),
            required_features: features,
            required_limits: limits.clone(),
            ..Default::default()
        }))
        .map_err(|error| DeviceError::Failed { device: info.name.clone(), reason: error.to_string() })?;
        let faults = Faults::watch(&device, &info.name);
        let profile = Profile {
            name: info.name.clone(),
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            max_storage_bindings: limits.max_storage_buffers_per_shader_stage,
            max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroup_size: [
                limits.max_compute_workgroup_size_x,
                limits.max_compute_workgroup_size_y,
                limits.max_compute_workgroup_size_z,
            ],
            max_workgroup_storage: limits.max_compute_workgroup_storage_size,
            max_groups: limits.max_compute_workgroups_per_dimension,
            barriers_are_slow: info.kind == DeviceKind::SoftwareGpu,
        };
        let inner = Inner {
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            pipelines: Pipelines::default(),
            info,
            device,
            queue,
            limits,
            profile,
            faults,
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the kernels see of this adapter.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.inner.profile
    }

    /// [`Device::plan`], with the plan's own type.
    ///
    /// # Errors
    /// As [`Device::plan`].
    pub fn gpu_plan(
        &self,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: PlanOptions,
    ) -> Result<GpuPlan, DeviceError> {
        build::plan(&self.inner, graph, weights, options)
    }
}

impl Device for GpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.inner.info
    }

    fn plan(
        &self,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: PlanOptions,
    ) -> Result<Box<dyn Plan>, DeviceError> {
        Ok(Box::new(self.gpu_plan(graph, weights, options)?))
    }
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
