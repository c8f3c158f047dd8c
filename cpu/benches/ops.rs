//! Everything but matrix products: elementwise expressions and layer normalisation in bytes per second, attention in
//! floating-point operations per second.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use graph::{Device, Graph, MemoryWeights, Op, Plan, PlanOptions, Rate, Scope, Tensor, passes};

fn plan(graph: &Graph) -> Box<dyn Plan> {
    let device = cpu::CpuDevice::new(None).expect("the global pool starts");
    let weights = MemoryWeights::default();
    let mut plan = device.plan(graph, &weights, PlanOptions::default()).expect("the graph fits");
    for node in graph.nodes() {
        if let Op::Input(input) = &node.op {
            let len: usize = input.shape.iter().product();
            let data: Vec<f32> = (0..len).map(|i| (i as f32 * 0.618_034).fract() * 4.0 - 2.0).collect();
            plan.write(&input.name, &data).expect("the input fits");
        }
    }
    plan
}

fn graph(build: impl Fn(&Scope) -> Tensor) -> Graph {
    let s = Scope::root();
    let y = build(&s);
    passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit"))
}

fn bytes(criterion: &mut Criterion) {
    type Build = fn(&Scope, &Tensor) -> Tensor;
    let builds: [(&str, Build); 7] = [
        ("scale", |_, x| x.scale(2.0)),
        ("add", |s, x| x + &s.input("other", x.shape(), Rate::Step)),
        ("silu", |_, x| x.silu()),
        ("gelu", |_, x| x.gelu()),
        ("gelu_tanh", |_, x| x.gelu_tanh()),
        ("gate", |s, x| &(&x.gelu() * &s.input("gate", &[x.extent(-1)], Rate::Step)) + x),
        ("layer_norm_modulate", |s, x| {
            let row = |name| s.input(name, &[1, x.extent(-1)], Rate::Step);
            x.layer_norm(1e-6).modulate(&row("shift"), &row("scale"))
        }),
    ];
    for shape in [[128, 1536], [4096, 1152]] {
        let mut group = criterion.benchmark_group(format!("bytes {}x{}", shape[0], shape[1]));
        group.sample_size(20).measurement_time(std::time::Duration::from_secs(1));
        for (name, build) in builds {
            let graph = graph(|s| build(s, &s.input("x", &shape, Rate::Step)));
            let elements: u64 = graph.iter().map(|(id, _)| graph.node_cost(id).elements).sum();
            let mut plan = plan(&graph);
            group.throughput(Throughput::Bytes(4 * elements));
            group.bench_function(name, |bencher| bencher.iter(|| plan.run().expect("the plan runs")));
        }
        group.finish();
    }
}

fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(20).measurement_time(std::time::Duration::from_secs(1));
    // Batch, tokens, heads, channels per head.
    for (batch, tokens, heads, depth) in [(2, 64, 6, 64), (2, 256, 6, 64), (1, 1024, 16, 72), (1, 4096, 8, 64)] {
        let shape = [batch, tokens, heads * depth];
        let graph = graph(|s| {
            let [q, k, v] = ["q", "k", "v"].map(|name| s.input(name, &shape, Rate::Step));
            q.attention(&k, &v, heads, false, None)
        });
        let mut plan = plan(&graph);
        group.throughput(Throughput::Elements(graph.cost(Rate::Step).flops));
        let id = BenchmarkId::from_parameter(format!("{batch}x{tokens}x{heads}x{depth}"));
        group.bench_function(id, |bencher| bencher.iter(|| plan.run().expect("the plan runs")));
    }
    group.finish();
}

criterion_group!(benches, bytes, attention);
criterion_main!(benches);
