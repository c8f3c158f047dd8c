//! A graph bound to a device: a list of dispatches that is recorded and submitted again at every step.

use crate::inner::Inner;
use crate::options::SubmitBudget;
use crate::pipeline::Pipeline;
use graph::{DeviceError, Graph, MemoryUse, NodeId, Plan, Rate, Work};
use shaders::Format;
use std::ops::Range;
use std::sync::Arc;

/// One kernel launch, with everything that replaying it needs.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// What it computes.
    pub(crate) node: NodeId,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) bindings: wgpu::BindGroup,
    /// Where its parameters begin in the plan's uniform buffer.
    pub(crate) params: u32,
    pub(crate) groups: [u32; 3],
    pub(crate) flops: u64,
}

/// Dispatches in running order, cut into submissions.
#[derive(Debug, Default)]
pub(crate) struct List {
    pub(crate) dispatches: Vec<Dispatch>,
    submissions: Vec<Range<usize>>,
}

impl List {
    pub(crate) fn new(dispatches: Vec<Dispatch>, budget: SubmitBudget) -> Self {
        let submissions = cut(dispatches.iter().map(|d| d.flops), budget);
        Self { dispatches, submissions }
    }
}

/// Ranges of consecutive dispatches that keep within the budget, each as long as it can be.
pub(crate) fn cut(flops: impl Iterator<Item = u64>, budget: SubmitBudget) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (i, flops) in flops.enumerate() {
        match ranges.last_mut() {
            Some(range) if range.len() < budget.dispatches && sum + flops <= budget.flops => {
                range.end = i + 1;
                sum += flops;
            }
            _ => {
                ranges.push(i..i + 1);
                sum = flops;
            }
        }
    }
    ranges
}

/// A value that the caller writes.
#[derive(Debug)]
pub(crate) struct InputSlot {
    pub(crate) name: String,
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) elements: usize,
    pub(crate) rate: Rate,
    pub(crate) written: bool,
}

/// A value that the caller reads.
#[derive(Debug)]
pub(crate) struct OutputSlot {
    pub(crate) name: String,
    pub(crate) buffer: wgpu::Buffer,
    pub(crate) staging: wgpu::Buffer,
    pub(crate) elements: usize,
}

/// A graph with its weights on a GPU.
#[derive(Debug)]
pub struct GpuPlan {
    pub(crate) inner: Arc<Inner>,
    pub(crate) graph: Graph,
    /// The buffer of each node's value. A reshape shares the buffer of its operand.
    pub(crate) buffers: Vec<wgpu::Buffer>,
    /// How that buffer holds it.
    pub(crate) formats: Vec<Format>,
    pub(crate) once: List,
    pub(crate) step: List,
    pub(crate) inputs: Vec<InputSlot>,
    pub(crate) outputs: Vec<OutputSlot>,
    /// Whether values of rate `Once` must be computed again, because an input has changed.
    pub(crate) stale: bool,
    pub(crate) ran: bool,
    pub(crate) memory: MemoryUse,
}

impl GpuPlan {
    /// Number of kernel launches of each rate.
    #[must_use]
    pub fn dispatches(&self, rate: Rate) -> usize {
        match rate {
            Rate::Once => self.once.dispatches.len(),
            Rate::Step => self.step.dispatches.len(),
        }
    }

    /// Hands everything that a run computes to the driver.
    fn submit(&mut self) -> Result<(), DeviceError> {
        self.inner.faults.check()?;
        self.check_inputs()?;
        if self.stale {
            self.replay(&self.once);
            self.stale = false;
        }
        self.replay(&self.step);
        self.inner.poll()?;
        self.ran = true;
        Ok(())
    }

    pub(crate) fn check_inputs(&self) -> Result<(), DeviceError> {
        match self.inputs.iter().find(|input| !input.written) {
            Some(input) => Err(DeviceError::Binding(format!("input {} was never written", input.name))),
            None => Ok(()),
        }
    }

    /// Records and submits a list. Nothing here allocates, hashes or compiles except what wgpu does for an encoder.
    fn replay(&self, list: &List) {
        for range in &list.submissions {
            let mut encoder = self.inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            let mut current: Option<&Arc<Pipeline>> = None;
            for dispatch in &list.dispatches[range.clone()] {
                if !current.is_some_and(|pipeline| Arc::ptr_eq(pipeline, &dispatch.pipeline)) {
                    pass.set_pipeline(&dispatch.pipeline.handle);
                    current = Some(&dispatch.pipeline);
                }
                dispatch.launch(&mut pass);
            }
            drop(pass);
            self.inner.queue.submit([encoder.finish()]);
        }
    }
}

impl Dispatch {
    /// Binds and launches; the pipeline is set already.
    pub(crate) fn launch(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_bind_group(0, &self.bindings, &[self.params]);
        let [x, y, z] = self.groups;
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Plan for GpuPlan {
    #[cfg(not(target_family = "wasm"))]
    fn profile(&mut self) -> Result<Vec<graph::NodeTime>, DeviceError> {
        self.times()
    }

    fn write(&mut self, input: &str, data: &[f32]) -> Result<(), DeviceError> {
        self.inner.faults.check()?;
        let mut known = false;
        // A model may name one input in several places.
        for slot in self.inputs.iter_mut().filter(|slot| slot.name == input) {
            if data.len() != slot.elements {
                return Err(DeviceError::Binding(format!(
                    "input {input} has {} elements and was given {}",
                    slot.elements,
                    data.len()
                )));
            }
            self.inner.queue.write_buffer(&slot.buffer, 0, bytemuck::cast_slice(data));
            slot.written = true;
            self.stale |= slot.rate == Rate::Once;
            known = true;
        }
        if !known {
            return Err(DeviceError::Binding(format!("this graph has no input {input}")));
        }
        self.inner.faults.check()
    }

    fn run_async(&mut self) -> Work<'_, ()> {
        Box::pin(async { self.submit() })
    }

    fn read_async<'a>(&'a mut self, output: &'a str) -> Work<'a, Vec<f32>> {
        Box::pin(async move {
            self.inner.faults.check()?;
            let slot = self
                .outputs
                .iter()
                .find(|slot| slot.name == output)
                .ok_or_else(|| DeviceError::Binding(format!("this graph has no output {output}")))?;
            if !self.ran {
                return Err(DeviceError::Binding(format!("output {output} was read before anything ran")));
            }
            self.inner.read_back(&slot.buffer, &slot.staging, slot.elements).await
        })
    }

    fn memory(&self) -> MemoryUse {
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_keep_within_the_budget() {
        let budget = SubmitBudget { dispatches: 3, flops: 10 };
        let ranges = cut([4, 6, 1, 1, 1, 1, 50, 2].into_iter(), budget);
        assert_eq!(ranges, [0..2, 2..5, 5..6, 6..7, 7..8]);
        assert!(cut(std::iter::empty(), budget).is_empty());
    }
}
