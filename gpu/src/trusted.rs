//! The only unsafe code of this crate.
#![allow(unsafe_code, reason = "turning off a shader's runtime checks is an unsafe call by wgpu's design")]

/// Lets a device have what wgpu calls experimental: units for small matrices, and only where they are asked for.
pub(crate) fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: wgpu warns that such features may have faults of its own. Callers ask for them by an option that is off by
    // default.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// A driver's cache of compiled kernels, beginning with what an earlier one held.
///
/// The caller must pass what `PipelineCache::get_data` gave and nothing else, as far as a file can be trusted.
pub(crate) fn cache(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    // SAFETY: `cache.rs` passes only files that it wrote, whole by their checksum, and named after adapter and driver; wgpu
    // and Vulkan compare both once more.
    unsafe { device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor { label: None, data, fallback: true }) }
}

/// Compiles a kernel without naga's bounds checks and without the counter it adds to every loop, which cost a factor on
/// some drivers.
///
/// The caller must pass kernels of the `shaders` crate alone: every variant of those is run against its reference with
/// checks on and off, between sentinels, and each guards its accesses by the shapes it is given.
pub(crate) fn module(device: &wgpu::Device, descriptor: wgpu::ShaderModuleDescriptor<'_>) -> wgpu::ShaderModule {
    // SAFETY: undefined behaviour would need an access out of bounds or an endless loop. The only source of text is
    // `shaders::KERNELS` (see above); no text of a user or of a model ever becomes part of a shader except numbers.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
