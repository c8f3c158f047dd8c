//! Looking into a plan: which node is wrong first, and where the time goes.

use crate::build::describe;
use crate::check::{Check, Evaluation};
use crate::device::GpuDevice;
use crate::options::SubmitBudget;
use crate::plan::{Dispatch, GpuPlan, cut};
use crate::storage;
use graph::shape::numel;
use graph::{Array, DeviceError, Graph, NodeId, NodeTime, Op, Plan, PlanOptions, WeightSource, block_on};
use shaders::{EIGHT_BITS, Format};
use std::time::{Duration, Instant};

/// The first node of a graph whose result differs from the reference by more than rounding.
#[derive(Debug, Clone, PartialEq)]
pub struct Divergence {
    /// The node.
    pub node: NodeId,
    /// The checkpoint path of the scope that made it.
    pub path: String,
    /// Operation, shape and path in words.
    pub description: String,
    /// The kernel that computed it.
    pub kernel: &'static str,
    /// How far it is off.
    pub check: Check,
}

/// Runs a graph node by node and names the first that is wrong, in running order.
///
/// Each node is compared with its reference on the operands that the device itself computed, so that errors do not add
/// up along the way and the node named is the one at fault.
///
/// # Errors
/// When the plan cannot be built, an input is missing, or the device fails.
pub fn first_divergence(
    device: &GpuDevice,
    graph: &Graph,
    inputs: &[(&str, &[f32])],
    weights: &dyn WeightSource,
    options: PlanOptions,
) -> Result<Option<Divergence>, DeviceError> {
    let mut plan = device.gpu_plan(graph, weights, options)?;
    for (name, data) in inputs {
        plan.write(name, data)?;
    }
    plan.first_divergence()
}

impl GpuPlan {
    /// As [`first_divergence`], on the inputs written last.
    ///
    /// # Errors
    /// When an input was never written or the device fails.
    pub fn first_divergence(&mut self) -> Result<Option<Divergence>, DeviceError> {
        self.check_inputs()?;
        // Nodes share buffers, so a complete run has overwritten most values. Everything is run again, node by node.
        self.stale = true;
        let mut values: Vec<Option<Array<f32>>> = vec![None; self.graph.nodes().len()];
        for i in 0..values.len() {
            let (id, node) = self.graph.iter().nth(i).expect("one value for each node");
            let value = match &node.op {
                Op::Input(_) | Op::Weight(_) | Op::Constant(_) => self.value(id)?,
                Op::Reshape(_) => {
                    let operand = values[node.inputs[0].index()].as_ref().expect("operands come first");
                    Array::new(node.shape.clone(), operand.data.clone())
                }
                _ => {
                    let dispatch = self.once.dispatches.iter().chain(&self.step.dispatches).find(|d| d.node == id);
                    if let Some(dispatch) = dispatch {
                        // An earlier run may have left the right result in this buffer. NaN replaces it, so that a
                        // kernel that writes nothing is noticed.
                        let mut nothing = match self.formats[i] {
                            Format::F32 => f32::NAN.to_le_bytes().repeat(numel(&node.shape)),
                            _ => half::f16::NAN.to_le_bytes().repeat(numel(&node.shape)),
                        };
                        nothing.resize(nothing.len().next_multiple_of(4), 0);
                        self.inner.queue.write_buffer(&self.buffers[i], 0, &nothing);
                        self.run_alone(dispatch)?;
                    }
                    let value = self.value(id)?;
                    let check = self.check(id, dispatch.map(|dispatch| dispatch.pipeline.kernel), &values, &value);
                    if let (false, Some(dispatch)) = (check.passed(), dispatch) {
                        return Ok(Some(Divergence {
                            node: id,
                            path: node.path.clone(),
                            description: describe(&self.graph, id),
                            kernel: dispatch.pipeline.kernel,
                            check,
                        }));
                    }
                    value
                }
            };
            values[i] = Some(value);
        }
        Ok(None)
    }

    fn check(&self, id: NodeId, kernel: Option<&str>, values: &[Option<Array<f32>>], value: &Array<f32>) -> Check {
        let node = self.graph.node(id);
        let load = |ids: &[NodeId]| -> Vec<Array<f32>> {
            ids.iter().map(|id| values[id.index()].clone().expect("operands come first")).collect()
        };
        let operands = load(&node.inputs);
        let extras = node.epilogue.as_ref().map(|epilogue| (&epilogue.expr, load(&epilogue.inputs)));
        let evaluation = Evaluation {
            op: &node.op,
            operands: &operands,
            epilogue: extras.as_ref().map(|(expr, extras)| (*expr, &extras[..])),
            out: &node.shape,
            half: self.formats[id.index()] == Format::F16,
            eight_bits: kernel == Some(EIGHT_BITS),
        };
        evaluation.check(&value.data)
    }

    fn run_alone(&self, dispatch: &Dispatch) -> Result<(), DeviceError> {
        self.inner.guarded("running a kernel", || {
            let mut encoder = self.inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            self.encode_alone(&mut encoder, dispatch, None);
            self.inner.queue.submit([encoder.finish()]);
        })
    }

    fn encode_alone(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        dispatch: &Dispatch,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        pass.set_pipeline(&dispatch.pipeline.handle);
        dispatch.launch(&mut pass);
    }

    /// A node's current value on the device, widened to `f32`.
    fn value(&self, id: NodeId) -> Result<Array<f32>, DeviceError> {
        let node = self.graph.node(id);
        let (count, buffer) = (numel(&node.shape), &self.buffers[id.index()]);
        let staging = self.inner.staging_buffer(count, "a traced value")?;
        let format = self.formats[id.index()];
        let bytes = usize::try_from(storage::bytes(count, format)).expect("what is in memory fits the address space");
        let bytes: Vec<u8> = block_on(self.inner.read_back(buffer, &staging, bytes))?;
        Ok(Array::new(node.shape.clone(), storage::decode(&bytes, format)))
    }
}

/// Passes timed in one submission: wgpu allows 4096 queries in a set, and a pass takes two.
const TIMED_TOGETHER: usize = 1024;

impl GpuPlan {
    /// Runs every dispatch of the plan alone and times it: by the device's own clock where it has one, else by ours,
    /// submission and waiting included. Kernels that do nothing but wait for memory look slower than in a run.
    ///
    /// # Errors
    /// When an input was never written or the device fails.
    pub(crate) fn times(&mut self) -> Result<Vec<NodeTime>, DeviceError> {
        self.run()?;
        self.inner.wait()?;
        let dispatches: Vec<&Dispatch> = self.once.dispatches.iter().chain(&self.step.dispatches).collect();
        let mut durations = Vec::with_capacity(dispatches.len());
        let budget = self.inner.options.submit;
        let budget = SubmitBudget { dispatches: budget.dispatches.min(TIMED_TOGETHER), ..budget };
        for range in cut(dispatches.iter().map(|d| d.flops), budget) {
            let chunk = &dispatches[range];
            if self.inner.timestamps {
                durations.extend(self.timed_by_device(chunk)?);
            } else {
                for dispatch in chunk {
                    let start = Instant::now();
                    self.run_alone(dispatch)?;
                    self.inner.wait()?;
                    durations.push(start.elapsed());
                }
            }
        }
        let describe = |(dispatch, time): (&Dispatch, Duration)| {
            let node = self.graph.node(dispatch.node);
            let cost = self.graph.node_cost(dispatch.node);
            NodeTime {
                path: node.path.clone(),
                op: node.op.name(),
                kernel: dispatch.pipeline.kernel,
                rate: node.rate,
                seconds: time.as_secs_f64(),
                processor: None,
                flops: cost.flops,
                bytes: cost.elements * size_of::<f32>() as u64,
            }
        };
        Ok(dispatches.into_iter().zip(durations).map(describe).collect())
    }

    fn timed_by_device(&self, dispatches: &[&Dispatch]) -> Result<Vec<Duration>, DeviceError> {
        let inner = &*self.inner;
        let count = u32::try_from(dispatches.len() * 2).expect("a chunk is small");
        let ticks_usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = inner.buffer(u64::from(count) * 8, ticks_usage, "timestamps")?;
        inner.guarded("timing kernels", || {
            let set = inner.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let mut encoder = inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for (dispatch, begin) in dispatches.iter().zip((0..).step_by(2)) {
                let writes = wgpu::ComputePassTimestampWrites {
                    query_set: &set,
                    beginning_of_pass_write_index: Some(begin),
                    end_of_pass_write_index: Some(begin + 1),
                };
                self.encode_alone(&mut encoder, dispatch, Some(writes));
            }
            encoder.resolve_query_set(&set, 0..count, &resolved, 0);
            inner.queue.submit([encoder.finish()]);
        })?;
        let staging = inner.staging_buffer(count as usize * 2, "timestamps")?;
        let ticks: Vec<u64> = block_on(inner.read_back(&resolved, &staging, count as usize))?;
        let period = f64::from(inner.queue.get_timestamp_period());
        let duration = |pair: &[u64]| Duration::from_secs_f64(pair[1].saturating_sub(pair[0]) as f64 * period * 1e-9);
        Ok(ticks.chunks_exact(2).map(duration).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{adapters, choose};
    use crate::options::GpuOptions;
    use graph::{DeviceKind, MemoryWeights, Rate, Scope, passes};

    fn software() -> GpuDevice {
        let found = adapters("vulkan".parse().unwrap());
        let adapter = found.iter().find(|adapter| adapter.info().kind == DeviceKind::SoftwareGpu);
        adapter
            .expect("Mesa's software Vulkan driver (Debian: mesa-vulkan-drivers)")
            .open(GpuOptions::default())
            .unwrap()
    }

    fn plan(device: &GpuDevice) -> GpuPlan {
        let s = Scope::root();
        let x = s.input("x", &[4, 8], Rate::Step);
        let h = s.at("first").linear(&x, 8);
        let y = s.at("second").linear(&h, 8);
        let z = s.at("third").linear(&y, 8);
        let graph = passes::optimize(&s.finish(&[("z", &z)]).unwrap());
        let mut weights = MemoryWeights::default();
        for spec in graph.weights() {
            let count = numel(&spec.shape);
            weights.insert(spec.name, spec.shape, &(0..count).map(|i| (i % 7) as f32 * 0.1).collect::<Vec<_>>());
        }
        let mut plan = device.gpu_plan(&graph, &weights, PlanOptions::default()).unwrap();
        plan.write("x", &[0.5; 32]).unwrap();
        plan
    }

    #[test]
    fn the_faulty_node_is_named_and_not_those_after_it() {
        let device = software();
        let mut plan = plan(&device);
        assert_eq!(plan.first_divergence(), Ok(None));
        // The second layer's kernel runs on the first layer's operands.
        plan.step.dispatches[1].bindings = plan.step.dispatches[0].bindings.clone();
        let divergence = plan.first_divergence().unwrap().expect("a node that nobody computes is wrong");
        assert_eq!(divergence.path, "second");
        assert!(divergence.description.contains("matmul [4, 8] of second"), "{}", divergence.description);
    }

    #[test]
    fn a_lost_device_is_an_error_everywhere() {
        let device = software();
        let mut plan = plan(&device);
        plan.run().unwrap();
        device.inner.device.destroy();
        let _ = device.inner.wait();
        let lost =
            |result: Result<(), DeviceError>| assert!(matches!(result, Err(DeviceError::Lost { .. })), "{result:?}");
        lost(plan.run());
        lost(plan.write("x", &[0.0; 32]));
        lost(plan.read("z").map(|_| ()));
        lost(plan.times().map(|_| ()));
        lost(device.gpu_plan(&plan.graph.clone(), &MemoryWeights::default(), PlanOptions::default()).map(|_| ()));
        assert!(choose("vulkan".parse().unwrap(), &crate::Choice::Best).is_ok());
    }
}
