//! Matrix products `[m, k] × [n, k]ᵀ` by a weight, as a plan runs them. `compare.py` beside this file times PyTorch on
//! the same shapes in turn with this program.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use graph::{Device, MemoryWeights, Plan, PlanOptions, Rate, Scope, passes};

/// (m, n, k): a cube, then the products of small transformers over 64 and 128 tokens, then a single conditioning vector.
const SHAPES: [(usize, usize, usize); 10] = [
    (1024, 1024, 1024),
    (64, 256, 256),
    (64, 1024, 256),
    (64, 256, 1024),
    (128, 384, 384),
    (128, 1152, 384),
    (128, 1536, 384),
    (128, 384, 1536),
    (256, 1024, 1024),
    (2, 1536, 256),
];

fn plan(m: usize, n: usize, k: usize) -> Box<dyn Plan> {
    let s = Scope::root();
    let x = s.input("x", &[m, k], Rate::Step);
    let y = s.linear_no_bias(&x, n);
    let graph = passes::optimize(&s.finish(&[("y", &y)]).expect("the shapes fit"));
    let mut weights = MemoryWeights::default();
    let noise = |i: usize| (i as f32 * 0.618_034).fract() - 0.5;
    weights.insert("weight", [n, k], &(0..n * k).map(noise).collect::<Vec<_>>());
    // The comparison sets the number of threads, so that PyTorch and this program use the same.
    let threads = std::env::var("HEADWATER_THREADS").ok().and_then(|threads| threads.parse().ok());
    let device = cpu::CpuDevice::new(threads).expect("threads start");
    let mut plan = device.plan(&graph, &weights, PlanOptions::default()).expect("the graph fits");
    plan.write("x", &(0..m * k).map(noise).collect::<Vec<_>>()).expect("the input fits");
    plan
}

fn gemm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm");
    group.sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    for (m, n, k) in SHAPES {
        let mut plan = plan(m, n, k);
        // Counted in floating-point operations: criterion's "Gelem/s" are GFLOP/s.
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{m}x{n}x{k}")), |bencher| {
            bencher.iter(|| plan.run().expect("the plan runs"));
        });
    }
    group.finish();
}

/// Answers lines of `m n k repetitions` with the median and least seconds of one product, until its input ends.
fn serve() {
    for line in std::io::stdin().lines() {
        let line = line.expect("the input is text");
        let numbers: Vec<usize> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [m, n, k, repetitions] = numbers[..] else { continue };
        let mut plan = plan(m, n, k);
        plan.run().expect("the plan runs");
        let mut seconds: Vec<f64> = (0..repetitions.max(1))
            .map(|_| {
                let start = std::time::Instant::now();
                plan.run().expect("the plan runs");
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        println!("{} {}", seconds[seconds.len() / 2], seconds[0]);
    }
}

criterion_group!(benches, gemm);

fn main() {
    if std::env::args().any(|argument| argument == "--serve") {
        return serve();
    }
    benches();
}
