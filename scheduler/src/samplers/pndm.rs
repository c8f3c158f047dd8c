use crate::{Builder, Expr, Schedule, Settings};

/// Pseudo linear multistep: Liu et al. 2022, section 3.3; diffusers `PNDMScheduler`. Started by three steps of Runge-Kutta (F-PNDM) if
/// the settings have their middles, else by one repeated step (PLMS, `skip_prk_steps`): n steps take n+9 or n+1 evaluations.
///
/// The weights are Adams-Bashforth's for equal steps in the timestep, applied to what the model predicts: the noise, or v, which is
/// then read as noise at the step's own x.
pub(super) fn pndm(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    // Latest first.
    let mut outputs: Vec<Expr> = Vec::new();
    let prediction = |x: Expr, denoised: Expr, sigma: f64| {
        let noise = (x - denoised) / sigma;
        if settings.velocity { (noise - denoised * sigma) / sigma.hypot(1.0) } else { noise }
    };
    let noise_of = |output: Expr, x: Expr, sigma: f64| {
        let scale = sigma.hypot(1.0);
        if settings.velocity { output / scale + x * (sigma / (scale * scale)) } else { output }
    };
    let first = if settings.plms_skipped > 0 {
        outputs.push(tail_start(p, schedule, settings, prediction, noise_of));
        2
    } else {
        0
    };
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate().skip(first) {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        let output = p.keep(prediction(x, denoised, sigma));
        outputs.insert(0, output);
        outputs.truncate(4);
        // The middles belong to the first steps of the whole schedule. A tail is started as if there were none.
        let is_whole = schedule.steps() == schedule.full_steps;
        if let Some(&(landing, middle)) = settings.runge_kutta.get(i).filter(|_| is_whole) {
            let to = |output: Expr, level: f64| x + noise_of(output, x, sigma) * (level - sigma);
            // The same variance-preserving x, used at another timestep than the one it was computed for.
            let x_2 = p.keep(to(output, landing) * (middle.hypot(1.0) / landing.hypot(1.0)));
            let denoised_2 = p.denoise(x_2, middle);
            let output_2 = p.keep(prediction(x_2, denoised_2, middle));
            let x_3 = p.keep(to(output_2, middle));
            let denoised_3 = p.denoise(x_3, middle);
            let output_3 = p.keep(prediction(x_3, denoised_3, middle));
            let x_4 = p.keep(to(output_3, sigma_next));
            let denoised_4 = p.denoise(x_4, sigma_next);
            let mean = (output + output_2 * 2.0 + output_3 * 2.0 + prediction(x_4, denoised_4, sigma_next)) / 6.0;
            p.set_x(to(mean, sigma_next));
            continue;
        }
        let combined = match outputs[..] {
            [e0, e1, e2, e3] => (e0 * 55.0 - e1 * 59.0 + e2 * 37.0 - e3 * 9.0) / 24.0,
            [e0, e1, e2] => (e0 * 23.0 - e1 * 16.0 + e2 * 5.0) / 12.0,
            [e0, e1] => (e0 * 3.0 - e1) / 2.0,
            _ => output,
        };
        let next = x + noise_of(combined, x, sigma) * (sigma_next - sigma);
        if i == 0 && schedule.steps() > 1 {
            // The first step again, with the mean of both ends.
            let x_2 = p.keep(next);
            let denoised_2 = p.denoise(x_2, sigma_next);
            let mean = (output + prediction(x_2, denoised_2, sigma_next)) / 2.0;
            p.set_x(x + noise_of(mean, x, sigma) * (sigma_next - sigma));
        } else {
            p.set_x(next);
        }
    }
}

/// diffusers' first step of a tail. diffusers' list of timesteps contains the second timestep twice, for the repeated
/// step, and a tail of the list has no such repetition. So the step before the tail's first is taken and repeated, and
/// its result is used as if it were one level lower. A tail that lacks only the very first step starts at the
/// repetition, which is treated as a step from the level above.
fn tail_start(
    p: &mut Builder,
    schedule: &Schedule,
    settings: &Settings,
    prediction: impl Fn(Expr, Expr, f64) -> Expr,
    noise_of: impl Fn(Expr, Expr, f64) -> Expr,
) -> Expr {
    let sigmas = &schedule.sigmas;
    let start = usize::from(settings.plms_skipped == 1);
    let reread = |x: Expr, from: usize, to: usize| x * (sigmas[to].hypot(1.0) / sigmas[from].hypot(1.0));
    let x = p.x();
    let denoised = p.denoise(x, sigmas[start]);
    p.step(sigmas[start], denoised);
    let output = p.keep(prediction(x, denoised, sigmas[start]));
    let landed = x + noise_of(output, x, sigmas[start]) * (sigmas[start + 1] - sigmas[start]);
    let x_2 = p.keep(reread(landed, start + 1, 1));
    let denoised_2 = p.denoise(x_2, sigmas[1]);
    let mean = (output + prediction(x_2, denoised_2, sigmas[1])) / 2.0;
    let x = reread(x, start, 0);
    let next = x + noise_of(mean, x, sigmas[0]) * (sigmas[1] - sigmas[0]);
    p.set_x(reread(next, 1, 2));
    output
}
