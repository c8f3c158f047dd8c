//! A custom sampler next to those of the list, on data that is a mixture of two Gaussians. Prints the distance of each
//! sampler from the exact end of the path, for several numbers of steps.
//!
//!     cargo run -p headwater-scheduler --example custom_sampler

use std::ops::ControlFlow;

use scheduler::{Builder, Draw, Frame, Outcome, Program, SAMPLERS, Schedule, TimestepMap, run, sigmas};

/// Ralston's second-order method: the second evaluation at two thirds of the step.
fn ralston(schedule: &Schedule) -> Program {
    let mut p = Builder::new(schedule, None);
    for (sigma, sigma_next) in schedule.pairs() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let d = (x - denoised) / sigma;
        let dt = sigma_next - sigma;
        let sigma_2 = sigma + dt * 2.0 / 3.0;
        let x_2 = p.keep(x + d * (sigma_2 - sigma));
        let denoised_2 = p.denoise(x_2, sigma_2);
        let d_2 = (x_2 - denoised_2) / sigma_2;
        p.set_x(x + (d / 4.0 + d_2 * 3.0 / 4.0) * dt);
    }
    p.finish("ralston")
}

/// E[x0 | x] for data that is 0.7 N(-1, 0.3²) + 0.3 N(2, 0.3²).
fn denoised(x: f64, sigma: f64) -> f64 {
    let variance = 0.3 * 0.3 + sigma * sigma;
    let part = |weight: f64, mean: f64| {
        let density = weight * (-(x - mean).powi(2) / (2.0 * variance)).exp();
        (density, density * (mean + 0.3 * 0.3 / variance * (x - mean)))
    };
    let ((a, a_mean), (b, b_mean)) = (part(0.7, -1.0), part(0.3, 2.0));
    (a_mean + b_mean) / (a + b)
}

fn end_of_path(program: &Program, start: f64) -> Result<f64, std::convert::Infallible> {
    let mut denoiser =
        |x: &[f64], sigma: f64, _timestep: f64, out: &mut [f64]| -> Result<(), std::convert::Infallible> {
            out[0] = denoised(x[0], sigma);
            Ok(())
        };
    let no_noise = |_: Draw, out: &mut [f64]| out.fill(0.0);
    match run(program, &[start], &mut denoiser, no_noise, |_| ControlFlow::Continue(()))? {
        Outcome::Finished(x) => Ok(x[0]),
        Outcome::Stopped { .. } => Ok(f64::NAN),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schedule =
        |n| Schedule::new(sigmas::karras(n, 0.01, 20.0, 7.0)?, Frame::VarianceExploding, TimestepMap::QuarterLog);
    let start = 13.0;
    let exact = end_of_path(&ralston(&schedule(5_000)?), start)?;
    let counts = [5, 10, 20, 40];
    println!("{:20} {}", "steps", counts.map(|n| format!("{n:>10}")).concat());
    let row = |name: &str, program: &dyn Fn(&Schedule) -> Program| -> Result<(), Box<dyn std::error::Error>> {
        print!("{name:20} ");
        for n in counts {
            print!("{:>10.1e}", (end_of_path(&program(&schedule(n)?), start)? - exact).abs());
        }
        println!();
        Ok(())
    };
    row("ralston", &ralston)?;
    for sampler in SAMPLERS.iter().filter(|sampler| !sampler.stochastic) {
        row(sampler.name, &|schedule| sampler.program(schedule, &sampler.settings()))?;
    }
    Ok(())
}
