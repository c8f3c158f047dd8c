//! Convolutions of 3×3 in every way, at the shapes of Stable Diffusion 1.5's UNet (256² and 512²) and autoencoder, in
//! floating-point operations of the direct way per second.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use graph::ops::Conv2d;
use graph::{Convolution, Device, MemoryWeights, PlanOptions, Rate, Scope, Tile, passes};

/// Side of the picture, channels in, channels out.
const SHAPES: [(usize, usize, usize); 14] = [
    (64, 320, 320),
    (32, 320, 320),
    (32, 640, 640),
    (16, 640, 640),
    (16, 1280, 1280),
    (8, 1280, 1280),
    (4, 1280, 1280),
    (16, 2560, 1280),
    (64, 512, 512),
    (128, 256, 256),
    (256, 128, 128),
    (128, 32, 32),
    (64, 16, 16),
    (64, 4, 320),
];

fn convolutions(criterion: &mut Criterion) {
    let device = cpu::CpuDevice::new(None).expect("the global pool starts");
    let values = |len: usize| -> Vec<f32> { (0..len).map(|i| (i as f32 * 0.618_034).fract() * 0.2 - 0.1).collect() };
    let ways = [
        ("direct", Convolution::Direct),
        ("winograd2", Convolution::Winograd(Tile::Two)),
        ("winograd4", Convolution::Winograd(Tile::Four)),
    ];
    for (side, channels, out) in SHAPES {
        let s = Scope::root();
        let x = s.input("x", &[1, side, side, channels], Rate::Step);
        let y = s.push(Conv2d::same(3), &[&x, &s.weight("weight", &[out, 3, 3, channels]), &s.weight("bias", &[out])]);
        let graph = passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit"));
        let mut weights = MemoryWeights::default();
        weights.insert("weight", [out, 3, 3, channels], &values(out * 9 * channels));
        weights.insert("bias", [out], &values(out));
        let mut group = criterion.benchmark_group(format!("{side}x{side} {channels} to {out}"));
        group.sample_size(10).measurement_time(std::time::Duration::from_secs(1));
        group.throughput(Throughput::Elements(graph.cost(Rate::Step).flops));
        for (name, convolution) in ways {
            let options = PlanOptions { convolution, ..Default::default() };
            let mut plan = device.plan(&graph, &weights, options).expect("the graph fits");
            plan.write("x", &values(side * side * channels)).expect("the input fits");
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| plan.run().expect("the plan runs"));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, convolutions);
criterion_main!(benches);
