use crate::clock::Clock;
use crate::compile::{Compiled, Step, compile, zeros};
use crate::kernels::Tools;
use crate::memory::Memory;
use crate::parallel::Threads;
use graph::shape::numel;
use graph::{DeviceError, Graph, MemoryUse, NodeId, Op, Plan, PlanOptions, Rate, Slots, WeightSource, Work, passes};

/// A graph bound to the processor: weights packed, memory reserved. Running it allocates no memory for tensors.
pub struct CpuPlan {
    threads: Threads,
    graph: Graph,
    slots: Slots,
    compiled: Compiled,
    /// One buffer per slot.
    buffers: Vec<Memory<f32>>,
    heads: Memory<f32>,
    /// By node number: whether this input was written.
    written: Vec<bool>,
    /// Whether values of rate `Once` are up to date.
    settled: bool,
    ran: bool,
}

impl CpuPlan {
    pub(crate) fn new(
        device: &str,
        threads: Threads,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: PlanOptions,
    ) -> Result<CpuPlan, DeviceError> {
        // Slots are assigned to a graph with all nodes of rate `Once` first. An optimised graph is in this order
        // already.
        let graph = passes::hoist(graph);
        let slots = Slots::assign(&graph);
        let compiled = compile(&graph, &slots, weights, options, &threads, device)?;
        let buffers = slots.sizes().iter().map(|size| zeros(*size, device)).collect::<Result<_, _>>()?;
        let heads = zeros(compiled.heads, device)?;
        let written = vec![false; graph.nodes().len()];
        Ok(CpuPlan { threads, graph, slots, compiled, buffers, heads, written, settled: false, ran: false })
    }

    fn run_timed(&mut self, done: &mut (dyn FnMut(&Graph, NodeId, Clock) + Send)) -> Result<(), DeviceError> {
        self.check_written()?;
        self.ran = false;
        let CpuPlan { threads, graph, slots, compiled, buffers, heads, settled, .. } = self;
        threads.install(|| {
            let mut tools = Tools { packs: &compiled.packs, heads };
            for step in &compiled.steps {
                if *settled && graph.node(step.id).rate == Rate::Once {
                    continue;
                }
                let start = Clock::now();
                run_step(step, graph, slots, &compiled.leaves, buffers, &mut tools);
                done(graph, step.id, start);
            }
        });
        self.settled = true;
        self.ran = true;
        Ok(())
    }

    /// An output of the last run.
    fn value_of(&self, output: &str) -> Result<Vec<f32>, DeviceError> {
        let unknown = || DeviceError::Binding(format!("the graph has no output {output}"));
        let id = self.graph.output(output).ok_or_else(unknown)?;
        if !self.ran {
            return Err(DeviceError::Binding(format!("output {output} was read before the graph ran")));
        }
        Ok(value(id, &self.graph, &self.slots, &self.compiled.leaves, &self.buffers).to_vec())
    }

    fn check_written(&self) -> Result<(), DeviceError> {
        let missing = self.graph.iter().find_map(|(id, node)| match &node.op {
            Op::Input(input) if !self.written[id.index()] => Some(&input.name),
            _ => None,
        });
        match missing {
            Some(name) => Err(DeviceError::Binding(format!("input {name} was never written"))),
            None => Ok(()),
        }
    }
}

/// The value of a node: in its slot, or in its leaf's own memory.
fn value<'a>(
    id: NodeId,
    graph: &Graph,
    slots: &Slots,
    leaves: &'a [Memory<f32>],
    buffers: &'a [Memory<f32>],
) -> &'a [f32] {
    match slots.of(id) {
        Some(slot) => &buffers[slot.0][..numel(&graph.node(id).shape)],
        None => &leaves[slots.root(id).index()],
    }
}

fn run_step(
    step: &Step,
    graph: &Graph,
    slots: &Slots,
    leaves: &[Memory<f32>],
    buffers: &mut [Memory<f32>],
    tools: &mut Tools<'_>,
) {
    let slot = slots.of(step.id).expect("only leaves own no slot, and they are no steps").0;
    // No operand shares the result's slot: both are alive while the node runs.
    let mut out = std::mem::take(&mut buffers[slot]);
    let read = |id: &NodeId| value(*id, graph, slots, leaves, buffers);
    let reads: Vec<&[f32]> = step.reads.iter().map(read).collect();
    let operands: Vec<&[f32]> = step.epilogue.iter().flat_map(|(_, ids)| ids.iter().map(read)).collect();
    let epilogue = step.epilogue.as_ref().map(|(fused, _)| (fused, &*operands));
    step.kernel.run(tools, &reads, epilogue, &mut out[..numel(&graph.node(step.id).shape)]);
    buffers[slot] = out;
}

impl Plan for CpuPlan {
    #[cfg(not(target_family = "wasm"))]
    fn profile(&mut self) -> Result<Vec<graph::NodeTime>, DeviceError> {
        self.settled = false;
        let mut times = Vec::with_capacity(self.compiled.steps.len());
        self.run_timed(&mut |graph, id, start| {
            let (seconds, processor) = start.elapsed();
            let (node, cost) = (graph.node(id), graph.node_cost(id));
            times.push(graph::NodeTime {
                op: node.op.name(),
                kernel: "native",
                path: node.path.clone(),
                rate: node.rate,
                seconds,
                processor,
                flops: cost.flops,
                bytes: cost.elements * size_of::<f32>() as u64,
            });
        })?;
        Ok(times)
    }

    fn write(&mut self, input: &str, data: &[f32]) -> Result<(), DeviceError> {
        let unknown = || DeviceError::Binding(format!("the graph has no input {input}"));
        let id = self.graph.input(input).ok_or_else(unknown)?;
        let node = self.graph.node(id);
        let own = &mut self.compiled.leaves[id.index()];
        if own.len() != data.len() {
            let (shape, needs, has) = (&node.shape, own.len(), data.len());
            let message = format!("input {input} of shape {shape:?} needs {needs} elements and was given {has}");
            return Err(DeviceError::Binding(message));
        }
        own.copy_from_slice(data);
        self.written[id.index()] = true;
        if node.rate == Rate::Once {
            self.settled = false;
        }
        Ok(())
    }

    fn run_async(&mut self) -> Work<'_, ()> {
        Box::pin(async { self.run_timed(&mut |_, _, _| {}) })
    }

    fn read_async<'a>(&'a mut self, output: &'a str) -> Work<'a, Vec<f32>> {
        Box::pin(async move { self.value_of(output) })
    }

    fn memory(&self) -> MemoryUse {
        let inputs = self.graph.nodes().iter().filter(|node| matches!(node.op, Op::Input(_)));
        let elements = inputs.map(|node| numel(&node.shape)).sum::<usize>()
            + self.slots.sizes().iter().sum::<usize>()
            + self.heads.len();
        MemoryUse { weights: self.compiled.weight_bytes, activations: (elements * size_of::<f32>()) as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CpuDevice;
    use graph::{MemoryWeights, Scope};

    #[test]
    fn what_does_not_change_is_not_computed_again() {
        let s = Scope::root();
        let (prompt, x) = (s.input("prompt", &[2, 3], Rate::Once), s.input("x", &[2, 3], Rate::Step));
        let once = prompt.layer_norm(1e-5);
        let y = &x.layer_norm(1e-5) + &once;
        let graph = passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit"));
        let device = CpuDevice::new(Some(1)).expect("a thread starts");
        let mut plan = device
            .plan_native(&graph, &MemoryWeights::default(), PlanOptions::default())
            .expect("the graph needs no weights");
        plan.write("x", &[1.0; 6]).expect("it is an input");
        let mut rates = |write: &str| {
            plan.write(write, &[1.0; 6]).expect("it is an input");
            let mut rates = Vec::new();
            plan.run_timed(&mut |graph, id, _| rates.push(graph.node(id).rate)).expect("both inputs were written");
            rates
        };
        assert_eq!(rates("prompt"), [Rate::Once, Rate::Step]);
        assert_eq!(rates("x"), [Rate::Step]);
        assert_eq!(rates("prompt"), [Rate::Once, Rate::Step]);
    }
}
