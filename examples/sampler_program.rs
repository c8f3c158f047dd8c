//! What a sampler does, as a table, without any model: `cargo run --release --example sampler_program -- heun 4`.

use scheduler::{Frame, Schedule, Settings, TimestepMap, sampler, sigmas};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "dpmpp_2m".to_owned());
    let steps = arguments.next().map_or(Ok(4), |text| text.parse())?;
    // EDM's sigmas (Karras et al. 2022, table 1), and its c_noise as the model's time.
    let sigmas = sigmas::karras(steps, 0.002, 80.0, 7.0)?;
    let schedule = Schedule::new(sigmas, Frame::VarianceExploding, TimestepMap::QuarterLog)?;
    print!("{}", sampler(&name)?.program(&schedule, &Settings::default()));
    Ok(())
}
