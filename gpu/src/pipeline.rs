//! Compiled kernels, found by their source text, so that layers with equal kernels share one.

use shaders::Shader;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) kernel: &'static str,
    pub(crate) handle: wgpu::ComputePipeline,
    pub(crate) layout: Arc<Layout>,
}

/// What kernels with the same number of operands share.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) bindings: wgpu::BindGroupLayout,
    pub(crate) pipeline: wgpu::PipelineLayout,
}

/// All kernels compiled on a device so far.
#[derive(Debug, Default)]
pub(crate) struct Pipelines {
    pub(crate) compiled: Mutex<HashMap<String, Arc<Pipeline>>>,
    pub(crate) layouts: Mutex<HashMap<usize, Arc<Layout>>>,
}

/// A part of a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) buffer: &'a wgpu::Buffer,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl<'a> Part<'a> {
    /// The first `bytes` of a buffer in whole words, which is what kernels expect a binding to span. A binding cannot
    /// be empty, so a value without elements is bound as 16 bytes.
    pub(crate) fn start_of(buffer: &'a wgpu::Buffer, bytes: u64) -> Self {
        Self { buffer, offset: 0, size: if bytes == 0 { 16 } else { bytes.next_multiple_of(4) } }
    }

    /// As wgpu binds it.
    pub(crate) fn binding(self) -> wgpu::BindingResource<'a> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: self.buffer,
            offset: self.offset,
            size: NonZeroU64::new(self.size),
        })
    }
}

/// Bytes of a kernel's parameters as a uniform buffer holds them.
pub(crate) fn params_size(shader: &Shader) -> u64 {
    (shader.params.len() as u64 * 4).next_multiple_of(16).max(16)
}
