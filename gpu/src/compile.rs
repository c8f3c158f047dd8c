//! Compiles kernels and binds buffers to them.

use crate::cache::Cache;
use crate::inner::Inner;
use crate::pipeline::{Layout, Part, Pipeline};
use crate::trusted;
use graph::DeviceError;
use shaders::Shader;
use std::sync::{Arc, PoisonError};

impl Inner {
    /// The compiled form of a shader that reads `operands` buffers.
    pub(crate) fn pipeline(&self, shader: &Shader, operands: usize) -> Result<Arc<Pipeline>, DeviceError> {
        let compiled = &self.pipelines.compiled;
        if let Some(known) = compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&shader.source) {
            return Ok(Arc::clone(known));
        }
        let layout = self.layout(operands)?;
        let handle = self.guarded(&format!("compiling kernel {}", shader.kernel), || {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(shader.kernel),
                source: wgpu::ShaderSource::Wgsl(shader.source.as_str().into()),
            };
            let module = if self.options.checked {
                self.device.create_shader_module(descriptor)
            } else {
                trusted::module(&self.device, descriptor)
            };
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(shader.kernel),
                layout: Some(&layout.pipeline),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: self.options.checked,
                    ..Default::default()
                },
                cache: self.cache.as_ref().map(Cache::used),
            })
        })?;
        let pipeline = Arc::new(Pipeline { kernel: shader.kernel, handle, layout });
        let mut compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.insert(shader.source.clone(), Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// The layout of a kernel's bindings, all in one group: operands, result, parameters.
    fn layout(&self, operands: usize) -> Result<Arc<Layout>, DeviceError> {
        let layouts = &self.pipelines.layouts;
        if let Some(known) = layouts.lock().unwrap_or_else(PoisonError::into_inner).get(&operands) {
            return Ok(Arc::clone(known));
        }
        let entry = |binding: usize, ty, has_dynamic_offset| wgpu::BindGroupLayoutEntry {
            binding: u32::try_from(binding).expect("an operation has a handful of operands"),
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
            count: None,
        };
        let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
        let entries: Vec<_> = (0..operands)
            .map(|i| entry(i, storage(true), false))
            .chain([
                entry(operands, storage(false), false),
                entry(operands + 1, wgpu::BufferBindingType::Uniform, true),
            ])
            .collect();
        let layout = self.guarded("laying out bindings", || {
            let bindings = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
            let pipeline = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&bindings)],
                immediate_size: 0,
            });
            Arc::new(Layout { bindings, pipeline })
        })?;
        layouts.lock().unwrap_or_else(PoisonError::into_inner).insert(operands, Arc::clone(&layout));
        Ok(layout)
    }

    /// Binds a kernel's operands, result and parameters.
    pub(crate) fn bind(
        &self,
        pipeline: &Pipeline,
        operands: &[Part<'_>],
        result: Part<'_>,
        params: Part<'_>,
    ) -> Result<wgpu::BindGroup, DeviceError> {
        let parts = operands.iter().copied().chain([result, params]);
        let entries: Vec<_> = (0..)
            .zip(parts)
            .map(|(binding, part)| wgpu::BindGroupEntry { binding, resource: part.binding() })
            .collect();
        self.guarded(&format!("binding kernel {}", pipeline.kernel), || {
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(pipeline.kernel),
                layout: &pipeline.layout.bindings,
                entries: &entries,
            })
        })
    }
}
