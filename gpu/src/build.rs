//! From a graph to a plan: memory, weights, kernels, parameters and bindings.

use crate::inner::Inner;
use crate::memory::Uploader;
use crate::pipeline::{Part, Pipeline, params_size};
use crate::plan::{Dispatch, GpuPlan, InputSlot, List, OutputSlot};
use crate::storage;
use crate::wait::both;
use graph::shape::numel;
use graph::{
    DeviceError, Graph, MemoryUse, Node, NodeId, Op, PlanOptions, Rate, Slots, WeightSource, half_values, kept_weights,
    passes,
};
use shaders::{Format, Operand, Problem, Shader};
use std::sync::Arc;

/// A chosen kernel whose parameters are not on the device yet.
struct Chosen {
    node: NodeId,
    shader: Shader,
    params: u32,
}

/// Builds a plan.
pub(crate) async fn plan(
    inner: &Arc<Inner>,
    graph: &Graph,
    weights: &dyn WeightSource,
    options: PlanOptions,
) -> Result<GpuPlan, DeviceError> {
    let graph = &split(inner, graph, weights, options);
    // Slots are assigned to a graph with all nodes of rate `Once` first. An optimised graph is in this order already.
    let graph = &passes::hoist(graph);
    let slots = Slots::assign(graph);
    let formats = formats(inner, graph, &slots, weights, options);
    let mut memory = MemoryUse::default();
    let mut inputs = Vec::new();

    let (chosen, uniform) = choose(inner, graph, &formats, options, &mut memory)?;
    // Drivers compile on the processor, and weights come from files: neither waits for the other.
    let allocating = allocate(inner, graph, &slots, &formats, weights, &mut memory, &mut inputs);
    let (pipelines, values) = both(|| compile(inner, graph, &chosen), allocating).await;
    let (values, pipelines) = (values?, pipelines?);
    let (mut once, mut step) = (Vec::new(), Vec::new());
    for (Chosen { node: id, shader, params }, pipeline) in chosen.into_iter().zip(pipelines) {
        let node = graph.node(id);
        let part = |id: NodeId| {
            let bytes = storage::bytes(numel(&graph.node(id).shape), formats[id.index()]);
            Part::start_of(&values[id.index()], bytes)
        };
        let operands: Vec<Part<'_>> = node.reads().map(part).collect();
        let uniform = Part { buffer: &uniform, offset: 0, size: params_size(&shader) };
        let bindings = inner.bind(&pipeline, &operands, part(id), uniform)?;
        let flops = graph.node_cost(id).flops;
        let dispatch = Dispatch { node: id, pipeline, bindings, params, groups: shader.groups, flops };
        match node.rate {
            Rate::Once => once.push(dispatch),
            Rate::Step => step.push(dispatch),
        }
    }

    if let Some(cache) = &inner.cache {
        cache.save();
    }

    let mut outputs = Vec::new();
    for (name, id) in graph.outputs() {
        let elements = numel(&graph.node(*id).shape);
        let staging = inner.staging_buffer(elements, &format!("output {name}"))?;
        outputs.push(OutputSlot { name: name.clone(), buffer: values[id.index()].clone(), staging, elements });
    }
    inner.settle().await?;
    Ok(GpuPlan {
        inner: Arc::clone(inner),
        graph: graph.clone(),
        formats,
        buffers: values,
        once: List::new(once, inner.options.submit),
        step: List::new(step, inner.options.submit),
        inputs,
        outputs,
        stale: true,
        ran: false,
        memory,
    })
}

/// Cuts weights and images that are too large for one binding.
fn split(inner: &Inner, graph: &Graph, weights: &dyn WeightSource, options: PlanOptions) -> Graph {
    let kept = kept_weights(graph, weights, options);
    let largest = inner.largest_binding();
    let graph = passes::split_weights(graph, |id, weight| {
        // It fits in every format.
        if storage::bytes(numel(&weight.value_shape()), Format::F32) <= largest {
            return None;
        }
        let format = storage::format(kept[id.index()], inner.profile.shader_f16);
        // Of as many rows as fit; blocks of eight bits have a little more than a byte an element.
        usize::try_from(largest * 64 / storage::bytes(64, format)).ok()
    });
    passes::split_images(&graph, usize::try_from(largest / storage::bytes(1, Format::F32)).unwrap_or(usize::MAX))
}

/// How each node's value is stored.
fn formats(
    inner: &Inner,
    graph: &Graph,
    slots: &Slots,
    weights: &dyn WeightSource,
    options: PlanOptions,
) -> Vec<Format> {
    let kept = kept_weights(graph, weights, options);
    let half = half_values(graph, options);
    let format = |id: NodeId| match half[id.index()] && inner.profile.shader_f16 {
        true => Format::F16,
        false => storage::format(kept[slots.root(id).index()], inner.profile.shader_f16),
    };
    graph.iter().map(|(id, _)| format(id)).collect()
}

/// Compiles the chosen kernels, in their order.
fn compile(inner: &Inner, graph: &Graph, chosen: &[Chosen]) -> Result<Vec<Arc<Pipeline>>, DeviceError> {
    chosen.iter().map(|chosen| inner.pipeline(&chosen.shader, graph.node(chosen.node).reads().count())).collect()
}

/// Memory for every node's value, with weights and constants in place.
async fn allocate(
    inner: &Inner,
    graph: &Graph,
    slots: &Slots,
    formats: &[Format],
    weights: &dyn WeightSource,
    memory: &mut MemoryUse,
    inputs: &mut Vec<InputSlot>,
) -> Result<Vec<wgpu::Buffer>, DeviceError> {
    // Sizes are checked value by value before slots are allocated, so that the error names the value that is too large.
    for (id, node) in graph.iter().filter(|(id, node)| slots.root(*id) == *id && !node.op.is_leaf()) {
        inner.check_size(storage::bytes(numel(&node.shape), Format::F32), &describe(graph, id))?;
    }
    let mut sizes = vec![0; slots.sizes().len()];
    for (id, node) in graph.iter() {
        if let Some(slot) = slots.of(id) {
            sizes[slot.0] = storage::bytes(numel(&node.shape), formats[id.index()]).max(sizes[slot.0]);
        }
    }
    let mut shared = Vec::with_capacity(sizes.len());
    for (i, bytes) in sizes.into_iter().enumerate() {
        memory.activations += Inner::buffer_size(bytes);
        shared.push(inner.storage_buffer(bytes, &format!("intermediate values {i}"))?);
    }

    let mut uploader = Uploader::new(inner);
    let mut values: Vec<wgpu::Buffer> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.iter() {
        let what = describe(graph, id);
        let elements = numel(&node.shape);
        let single = storage::bytes(elements, Format::F32);
        let value = match &node.op {
            Op::Input(input) => {
                let buffer = inner.storage_buffer(single, &what)?;
                memory.activations += buffer.size();
                inputs.push(InputSlot {
                    name: input.name.clone(),
                    buffer: buffer.clone(),
                    elements,
                    rate: input.rate,
                    written: false,
                });
                buffer
            }
            Op::Constant(constant) => {
                let buffer = inner.storage_buffer(single, &what)?;
                memory.weights += buffer.size();
                let bytes: &[u8] = bytemuck::cast_slice(&constant.data);
                for (i, piece) in bytes.chunks(Uploader::PIECE).enumerate() {
                    uploader.write(&buffer, (i * Uploader::PIECE) as u64, piece, &what).await?;
                }
                buffer
            }
            Op::Weight(weight) => {
                let view = weights.weight(&weight.name).ok_or_else(|| DeviceError::Weight {
                    name: weight.name.clone(),
                    reason: weights.why_not(&weight.name),
                })?;
                storage::check(&weight.name, &weight.shape, &view)?;
                let format = formats[id.index()];
                let buffer = inner.storage_buffer(storage::bytes(elements, format), &what)?;
                memory.weights += buffer.size();
                storage::upload(&mut uploader, &buffer, &weight.name, &weight.value(view), format).await?;
                weights.release(&weight.name);
                buffer
            }
            _ => match slots.of(id) {
                Some(slot) => shared[slot.0].clone(),
                // A reshape of an input, a weight or a constant.
                None => values[slots.root(id).index()].clone(),
            },
        };
        values.push(value);
    }
    uploader.flush().await?;
    Ok(values)
}

/// The best kernel for each node, and the uniform buffer with the parameters of all of them.
fn choose(
    inner: &Inner,
    graph: &Graph,
    formats: &[Format],
    options: PlanOptions,
    memory: &mut MemoryUse,
) -> Result<(Vec<Chosen>, wgpu::Buffer), DeviceError> {
    let align = inner.limits.min_uniform_buffer_offset_alignment as usize;
    let mut chosen = Vec::new();
    let mut words: Vec<u8> = Vec::new();
    for (id, node) in graph.iter() {
        if node.op.is_leaf() || matches!(node.op, Op::Reshape(_)) || numel(&node.shape) == 0 {
            continue;
        }
        let problem = problem(graph, id, |id| formats[id.index()]);
        let measured = options.winners.and_then(|winners| winners.way(graph, node));
        let shader = best(inner, &problem, measured).ok_or_else(|| {
            inner.faults.unsupported(format!("no kernel computes {} within its limits", describe(graph, id)))
        })?;
        words.resize(words.len().next_multiple_of(align), 0);
        let params = u32::try_from(words.len()).map_err(|_| inner.faults.unsupported("the graph is too long"))?;
        words.extend_from_slice(bytemuck::cast_slice(&shader.params));
        let spanned = params as usize + usize::try_from(params_size(&shader)).expect("a few words");
        words.resize(spanned, 0);
        chosen.push(Chosen { node: id, shader, params });
    }
    let size = Inner::buffer_size(words.len() as u64);
    words.resize(usize::try_from(size).expect("as long as what is in memory"), 0);
    let usage = wgpu::BufferUsages::UNIFORM.union(wgpu::BufferUsages::COPY_DST);
    let uniform = inner.buffer(size, usage, "parameters")?;
    memory.activations += size;
    inner.guarded("uploading parameters", || inner.queue.write_buffer(&uniform, 0, &words))?;
    Ok((chosen, uniform))
}

/// The kernel that was measured to be the fastest; else the first that is not to be avoided, or the first when all are.
fn best(inner: &Inner, problem: &Problem<'_>, measured: Option<&str>) -> Option<Shader> {
    let mut candidates = shaders::candidates(problem, &inner.profile);
    let wanted = |shader: &Shader| !inner.options.avoid.contains(&shader.kernel);
    let winner = candidates.iter().position(|shader| Some(shader.kernel) == measured && wanted(shader));
    let first = winner.or_else(|| candidates.iter().position(wanted)).unwrap_or(0);
    (first < candidates.len()).then(|| candidates.swap_remove(first))
}

/// The kernels that may be the fastest for each node, the one that is taken unless told otherwise first. Naive ones are never that.
pub(crate) fn ways(
    inner: &Inner,
    graph: &Graph,
    weights: &dyn WeightSource,
    options: PlanOptions,
) -> Vec<Vec<&'static str>> {
    let formats = formats(inner, graph, &Slots::assign(graph), weights, options);
    let of = |(id, node): (NodeId, &Node)| -> Vec<&'static str> {
        if node.op.is_leaf() || matches!(node.op, Op::Reshape(_)) || numel(&node.shape) == 0 {
            return Vec::new();
        }
        let problem = problem(graph, id, |id| formats[id.index()]);
        let names = shaders::candidates(&problem, &inner.profile).into_iter().map(|shader| shader.kernel);
        names.filter(|name| !name.ends_with("_naive") && !inner.options.avoid.contains(name)).collect()
    };
    graph.iter().map(of).collect()
}

/// A node as kernels see it.
pub(crate) fn problem(graph: &Graph, id: NodeId, format: impl Fn(NodeId) -> Format) -> Problem<'_> {
    let node = graph.node(id);
    let operand = |id: &NodeId| Operand { shape: &graph.node(*id).shape, format: format(*id) };
    let epilogue = node.epilogue.as_ref();
    Problem {
        op: &node.op,
        operands: node.inputs.iter().map(operand).collect(),
        epilogue: epilogue.map(|e| &e.expr),
        extras: epilogue.iter().flat_map(|e| &e.inputs).map(operand).collect(),
        out: &node.shape,
        result: format(id),
    }
}

/// A node in words, for errors.
pub(crate) fn describe(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    match &node.op {
        Op::Input(input) => format!("input {} {:?}", input.name, node.shape),
        Op::Weight(weight) => format!("weight {} {:?}", weight.name, node.shape),
        op if node.path.is_empty() => format!("{} {:?}", op.name(), node.shape),
        op => format!("{} {:?} of {}", op.name(), node.shape, node.path),
    }
}
