//! An adapter that has been opened.

use crate::adapter::Adapter;
use crate::build;
use crate::cache::Cache;
use crate::fault::Faults;
pub(crate) use crate::inner::Inner;
pub(crate) use crate::options::GpuOptions;
use crate::pipeline::Pipelines;
#[cfg(not(target_family = "wasm"))]
use crate::plan::GpuPlan;
use crate::trusted;
#[cfg(not(target_family = "wasm"))]
use graph::block_on;
use graph::{Device, DeviceError, DeviceInfo, DeviceKind, Graph, Plan, PlanOptions, WeightSource, Work};
use shaders::Profile;
use std::path::Path;
use std::sync::Arc;

/// One opened adapter. Clones share it.
#[derive(Debug, Clone)]
pub struct GpuDevice {
    pub(crate) inner: Arc<Inner>,
}

impl Adapter {
    /// Opens this adapter.
    ///
    /// # Errors
    /// When the driver refuses.
    pub async fn open_async(&self, options: GpuOptions) -> Result<GpuDevice, DeviceError> {
        GpuDevice::open(self, options, None).await
    }

    /// [`open_async`](Self::open_async), waited for.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(&self, options: GpuOptions) -> Result<GpuDevice, DeviceError> {
        block_on(self.open_async(options))
    }

    /// The same, with the kernels that its driver compiled kept in a folder between runs, where the driver hands them
    /// out, and at most so many bytes there: files of other adapters and drivers go first, the oldest first. Whatever is wrong with the
    /// folder or what lies there, kernels are compiled as without it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(not(target_family = "wasm"))]
    pub fn open_with_cache(
        &self,
        options: GpuOptions,
        folder: &Path,
        most_bytes: u64,
    ) -> Result<GpuDevice, DeviceError> {
        block_on(GpuDevice::open(self, options, Some((folder, most_bytes))))
    }
}

impl GpuDevice {
    async fn open(adapter: &Adapter, options: GpuOptions, cache: Option<(&Path, u64)>) -> Result<Self, DeviceError> {
        let info = adapter.info().clone();
        let mut wanted = wgpu::Features::TIMESTAMP_QUERY;
        wanted.set(wgpu::Features::PIPELINE_CACHE, cache.is_some());
        wanted.set(wgpu::Features::SHADER_F16, options.shader_f16);
        wanted.set(wgpu::Features::SUBGROUP, options.subgroups);
        let cooperative = cooperative(&adapter.handle).filter(|_| options.cooperative);
        wanted.set(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, cooperative.is_some());
        let features = wanted & adapter.handle.features();
        let mut limits = if options.least_limits { wgpu::Limits::default() } else { adapter.handle.limits() };
        if let Some(bytes) = options.max_binding_bytes {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(bytes);
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("headwater"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: match cooperative {
                Some(_) => trusted::experimental(),
                None => wgpu::ExperimentalFeatures::disabled(),
            },
            ..Default::default()
        };
        let opened = adapter.handle.request_device(&descriptor).await;
        let (device, queue) =
            opened.map_err(|error| DeviceError::Failed { device: info.name.clone(), reason: error.to_string() })?;
        let faults = Faults::watch(&device, &info.name);
        let profile = Profile {
            name: info.name.clone(),
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            cooperative: cooperative.filter(|_| features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)),
            integer_products: options.integer_products,
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
        let mut inner = Inner {
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            pipelines: Pipelines::default(),
            info,
            device,
            queue,
            limits,
            profile,
            faults,
            cache: None,
            options,
            #[cfg(target_family = "wasm")]
            late: Default::default(),
        };
        inner.cache = cache.and_then(|(folder, most)| Cache::open(&inner, &adapter.handle.get_info(), folder, most));
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
    #[cfg(not(target_family = "wasm"))]
    pub fn gpu_plan(
        &self,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: PlanOptions,
    ) -> Result<GpuPlan, DeviceError> {
        block_on(build::plan(&self.inner, graph, weights, options))
    }
}

impl Device for GpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.inner.info
    }

    fn plan_async<'a>(
        &'a self,
        graph: &'a Graph,
        weights: &'a dyn WeightSource,
        options: PlanOptions,
    ) -> Work<'a, Box<dyn Plan>> {
        Box::pin(async move {
            let plan = build::plan(&self.inner, graph, weights, options).await;
            if plan.is_err() {
                // What else went wrong is this plan's fault, and not the next one's.
                let _ = self.inner.verdict().await;
            }
            Ok(Box::new(plan?) as Box<dyn Plan>)
        })
    }

    fn ways(&self, graph: &Graph, weights: &dyn WeightSource, options: PlanOptions) -> Vec<Vec<&'static str>> {
        build::ways(&self.inner, graph, weights, options)
    }
}

/// Invocations of a subgroup of an adapter whose subgroups multiply matrices of 8 × 8 `f32` and are all of one size.
fn cooperative(adapter: &wgpu::Adapter) -> Option<u32> {
    let info = adapter.get_info();
    let single = wgpu::CooperativeScalarType::F32;
    let fits = |units: &wgpu::CooperativeMatrixProperties| {
        (units.m_size, units.n_size, units.k_size, units.ab_type, units.cr_type) == (8, 8, 8, single, single)
    };
    (info.subgroup_min_size == info.subgroup_max_size && adapter.cooperative_matrix_properties().iter().any(fits))
        .then_some(info.subgroup_min_size)
}
