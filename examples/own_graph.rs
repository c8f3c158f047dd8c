//! A model of one's own in the graph language, priced, optimised and run: `cargo run --release --example own_graph`.

use graph::{Device as _, MemoryWeights, PlanOptions, Rate, Scope, passes};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Two layers with a residual connection; weights are named as a checkpoint would name them.
    let s = Scope::root();
    let x = s.input("x", &[4, 64], Rate::Step);
    let hidden = s.at("fc1").linear(&x.layer_norm(1e-5), 256).gelu();
    let y = &s.at("fc2").linear(&hidden, 64) + &x;
    let graph = s.finish(&[("y", &y)])?;
    let optimised = passes::optimize(&graph);
    println!("as written:\n{graph}\nfused:\n{optimised}");
    println!("{} floating-point operations a step", optimised.cost(Rate::Step).flops);

    let mut weights = MemoryWeights::default();
    for spec in optimised.weights() {
        let count = graph::shape::numel(&spec.shape);
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37).sin() * 0.1).collect();
        weights.insert(spec.name, spec.shape, &values);
    }
    let device = cpu::CpuDevice::new(None)?;
    let mut plan = device.plan(&optimised, &weights, PlanOptions::default())?;
    plan.write("x", &[0.5; 4 * 64])?;
    plan.run()?;
    println!("y starts {:?}", &plan.read("y")?[..4]);
    Ok(())
}
