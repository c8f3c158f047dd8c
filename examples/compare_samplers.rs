//! Compares samplers with the library, step by step: `cargo run --release --example compare_samplers -- "a red heart"`.

use headwater::compare::{Axis, Comparison, Event, Model, Options, Value, cheapest, nearest};
use headwater::{DeviceChoice, DeviceSettings, Pipeline, PlanOptions, Request};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "a red heart".to_owned());
    let device = headwater::open_device(&DeviceChoice::Auto, &DeviceSettings::default())?;
    let name = headwater::bundled::DIFFUSION;
    let files = headwater::bundled::find(name).ok_or("no model is bundled")?.files();
    let pipe = Pipeline::from_pretrained(&device, &files, PlanOptions::default())?;

    let samplers = ["euler", "heun", "dpmpp_2m", "unipc"].map(|name| name.parse().map(Value::Sampler));
    let axes = vec![
        Axis::new(samplers.into_iter().collect::<Result<_, _>>()?)?,
        Axis::new([4, 8, 16].map(Value::Steps).into())?,
    ];
    let base = Request { prompt, seed: 7, ..Request::default() };
    let models = vec![Model { name: name.into(), pipe }];
    let mut comparison = Comparison::new(models, &base, axes, Options::default())?;

    let mut records = Vec::new();
    while let Some(event) = comparison.next()? {
        match event {
            Event::Solved { path, .. } => println!("reference: {} evaluations", path.evaluations()),
            Event::Step { step, .. } => {
                let error = step.error_x.unwrap_or(f64::NAN);
                println!("  step {:2}  sigma {:8.3}  error of x {error:.4}", step.step, step.sigma);
            }
            Event::Done { record, .. } => {
                let error = record.error_final.unwrap_or(f64::NAN);
                println!("{}: {} evaluations, {:.2} s, error {error:.4}", record.id, record.nfe, record.seconds);
                records.push(*record);
            }
            Event::Solving { .. } | Event::Drawing { .. } => {}
        }
    }
    for best in nearest(&records) {
        println!("within {} evaluations: {}, error {:.4}", best.nfe, best.label, best.error);
    }
    if let Some(best) = cheapest(&records, 0.05) {
        println!("cheapest within 0.05: {}, {} evaluations", best.label, best.used);
    }
    let (computed, shared) = comparison.evaluations();
    println!("{computed} evaluations computed, {shared} shared");
    Ok(())
}
