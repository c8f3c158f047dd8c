//! Samplers with Langevin steps: x + δ·score + √(2δ)·z, which keep the distribution of their noise level.

use std::sync::Arc;

use super::steps::posterior;
use crate::program::Continue;
use crate::{Builder, Expr, Program, Schedule, Settings};

/// Puts what is known about the image into x under fresh noise of its level, and as it is at sigma 0: Song et al. 2021b, appendix I.2;
/// score_sde `controllable_generation.py`.
fn renew_known(p: &mut Builder, settings: &Settings, sigma: f64) {
    if settings.constrained {
        let noise = if sigma == 0.0 { Expr::zero() } else { p.fresh_noise() };
        let x = p.constrain(p.x(), noise, sigma);
        p.set_x(x);
    }
}

/// Langevin steps at each noise level.
const STEPS: usize = 5;
/// δ in units of σ²: NCSN's ε = 2e-5 at σ = 0.01, halved as its update is written.
const STEP_SIZE: f64 = 0.1;

/// Annealed Langevin dynamics: Song & Ermon 2019, Algorithm 1, with the denoised image at the end (Song & Ermon 2020). Five steps at
/// every noise level, of a size in proportion to its variance. What is known about the image is renewed after each, where their
/// Algorithm 2, inpainting, keeps one noise of it for a level.
pub(super) fn ald(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    for (sigma, sigma_next) in schedule.pairs() {
        let (alpha, alpha_next) = (frame.alpha(sigma), frame.alpha(sigma_next));
        if alpha == 0.0 {
            // At pure noise there is no score to follow.
            let x = p.x();
            let denoised = p.denoise(x, sigma);
            p.step(sigma, denoised);
            posterior(p, frame, x, denoised, sigma, sigma_next, settings);
            renew_known(p, settings, sigma_next);
            continue;
        }
        for i in 0..STEPS {
            let x = p.x();
            let denoised = p.denoise(x, sigma);
            if i == 0 {
                p.step(sigma, denoised);
            }
            // σ²·score is what lies between x and its denoised image.
            let pull = (denoised * alpha - x) * STEP_SIZE;
            let noise = p.fresh_noise() * ((2.0 * STEP_SIZE).sqrt() * sigma * settings.s_noise);
            p.set_x(x + pull + noise);
            renew_known(p, settings, sigma);
        }
        if sigma_next == 0.0 {
            let denoised = p.denoise(p.x(), sigma);
            p.set_x(denoised);
            renew_known(p, settings, 0.0);
        } else if alpha != alpha_next {
            p.set_x(p.x() * (alpha_next / alpha));
        }
    }
}

/// Predictor-corrector sampling: Song et al. 2021b, Algorithms 2 and 4; score_sde `pc_sampler` with the reverse-diffusion predictor and
/// the Langevin corrector. The corrector's step follows from the norms of the score and of its noise, which have to be measured.
///
/// What is known about the image is renewed after every corrector's and every predictor's step, under the noise of the level that x has
/// reached (appendix I.2; score_sde's `pc_inpainter` and `pc_colorizer`, which use the level before the predictor's step). What is sampled
/// is then the conditional distribution up to an error that vanishes with the noise, if the corrector has steps enough to follow.
pub(super) fn predictor_corrector(schedule: &Schedule, settings: &Settings) -> Program {
    let p = Builder::new(schedule, settings.limit);
    let corrections = settings.correct_steps;
    let (schedule, settings) = (schedule.clone(), settings.clone());
    State { schedule, settings, i: 0, corrections, noise_norm: None, draws: 0 }.start_step(p)
}

#[derive(Debug, Clone)]
struct State {
    schedule: Schedule,
    settings: Settings,
    /// Number of the current step.
    i: usize,
    /// Langevin steps left at this level.
    corrections: usize,
    /// The measured norm of the noise, until the norm of the score is known.
    noise_norm: Option<f64>,
    draws: usize,
}

impl State {
    fn level(&self) -> (f64, f64) {
        let sigma = self.schedule.sigmas[self.i];
        (sigma, self.schedule.frame.alpha(sigma))
    }

    /// Denoises x and draws the corrector's noise, to be measured; carries over (x, denoised, noise).
    fn start_step(mut self, mut p: Builder) -> Program {
        // Levels without a corrector, all of them at once: there may be many.
        while self.level().1 == 0.0 || self.corrections == 0 {
            self.predict(&mut p);
            if self.i == self.schedule.steps() {
                return p.finish("predictor_corrector");
            }
        }
        let x = p.x();
        let denoised = p.denoise(x, self.level().0);
        let noise = p.fresh_noise();
        p.measure(noise, None);
        self.noise_norm = None;
        self.draws = p.draws();
        p.finish_segment("predictor_corrector", &[x, denoised, noise], Some(Arc::new(self)))
    }

    /// From the corrected x to the next level.
    fn predict(&mut self, p: &mut Builder) {
        let frame = self.schedule.frame;
        let (sigma, alpha) = self.level();
        let sigma_next = self.schedule.sigmas[self.i + 1];
        let alpha_next = frame.alpha(sigma_next);
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        p.step(sigma, denoised);
        self.i += 1;
        self.corrections = self.settings.correct_steps;
        if sigma_next == 0.0 {
            p.set_x(denoised);
        } else if alpha == 0.0 {
            posterior(p, frame, x, denoised, sigma, sigma_next, &self.settings);
        } else {
            let ratio = sigma_next / sigma * (alpha / alpha_next);
            let removed = 1.0 - ratio * ratio;
            let mut next = x * (alpha_next / alpha * ratio * ratio) + denoised * (alpha_next * removed);
            if removed > 0.0 {
                next = next + p.noise(sigma, sigma_next) * (alpha_next / alpha * sigma * removed.sqrt());
            }
            p.set_x(next);
        }
        renew_known(p, &self.settings, sigma_next);
    }
}

impl Continue for State {
    fn next(&self, measured: f64) -> Program {
        let (sigma, alpha) = self.level();
        let (mut p, carried) = Builder::resume(&self.schedule, self.settings.limit, &[0, 1, 2], self.i);
        p.set_draws(self.draws);
        let (x, denoised, noise): (Expr, Expr, Expr) = (carried[0], carried[1], carried[2]);
        // In x/α, where the noise level is σ/α: σ²·score / α.
        let pull = denoised - x / alpha;
        let variance = (sigma / alpha) * (sigma / alpha);
        let Some(noise_norm) = self.noise_norm else {
            p.measure(pull / variance, None);
            let state = Self { noise_norm: Some(measured), ..self.clone() };
            return p.finish_segment("predictor_corrector", &[x, denoised, noise], Some(Arc::new(state)));
        };
        // score_sde, LangevinCorrector. Without a score there is no step.
        let ratio = self.settings.snr * noise_norm / measured;
        let delta = if ratio.is_finite() { 2.0 * ratio * ratio } else { 0.0 };
        p.set_x(x + pull * (alpha * delta / variance) + noise * (alpha * (2.0 * delta).sqrt() * self.settings.s_noise));
        renew_known(&mut p, &self.settings, sigma);
        Self { corrections: self.corrections - 1, ..self.clone() }.start_step(p)
    }
}
