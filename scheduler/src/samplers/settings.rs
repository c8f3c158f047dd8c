//! Settings of samplers beyond the schedule.

use crate::program::Limit;

/// A solver's variant (diffusers' `solver_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SolverType {
    /// DPM-Solver++: half of the difference at full weight.
    Midpoint,
    /// DPM-Solver++: the exact integral of the linear part.
    Heun,
    /// UniPC with B(h) = h.
    Bh1,
    /// UniPC with B(h) = e^h - 1.
    Bh2,
}

/// How much noise DDPM adds (diffusers' `variance_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variance {
    /// The variance of the posterior, given the clean image (`fixed_small`).
    Posterior,
    /// The variance of the forward step (`fixed_large`).
    Step,
}

/// Settings of samplers beyond the schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Share of fresh noise of the samplers that have one: 0 is deterministic, 1 the sampler's full amount.
    pub eta: f64,
    /// Factor on fresh noise.
    pub s_noise: f64,
    /// Order of the multistep solvers.
    pub solver_order: usize,
    /// Order of SA-Solver's corrector.
    pub corrector_order: usize,
    /// See [`SolverType`].
    pub solver_type: SolverType,
    /// Lower the order in the last steps (of a run of fewer than 15, for the DPM solvers).
    pub lower_order_final: bool,
    /// First order in the last step.
    pub euler_at_final: bool,
    /// The steps that UniPC does not correct.
    pub disable_corrector: Vec<usize>,
    /// How denoised images are kept in range, if at all.
    pub limit: Option<Limit>,
    /// DDPM's noise.
    pub variance: Variance,
    /// LCM's boundary condition: the factor on the timestep.
    pub timestep_scaling: Option<f64>,
    /// The noise level at which a consistency model's images lie.
    pub sigma_min: f64,
    /// Number of steps of the whole schedule that pndm leaves out, counted as in diffusers' image-to-image pipelines.
    /// The schedule is then the tail that starts one step earlier.
    pub plms_skipped: usize,
    /// Churn of euler, heun and dpm_2: how much noise is added over the whole run, in units of the sigmas it is added at.
    pub s_churn: f64,
    /// The smallest sigma at which churn is applied.
    pub s_tmin: f64,
    /// The largest sigma at which churn is applied.
    pub s_tmax: f64,
    /// Absolute error that an adaptive sampler allows per element, for the whole run (rk45) or for each step
    /// (dpm_adaptive).
    pub absolute_tolerance: f64,
    /// The same error as a share of the element's size.
    pub relative_tolerance: f64,
    /// Whether the model predicts v and not the noise. PNDM extrapolates the prediction, and DDIM inversion keeps it.
    pub velocity: bool,
    /// PNDM's first steps by Runge-Kutta, if not empty: for each step the level where its first half-step lands, and
    /// the level that the model is told there.
    pub runge_kutta: Vec<(f64, f64)>,
    /// Signal-to-noise ratio of the predictor-corrector's Langevin steps.
    pub snr: f64,
    /// Number of the predictor-corrector's Langevin steps at every noise level.
    pub correct_steps: usize,
    /// How many steps repaint takes back at a time (diffusers' `jump_length`); half of the run if that has no more steps, 0 for none.
    pub jump_length: usize,
    /// How often repaint goes through such steps in all (diffusers' `jump_n_sample`).
    pub jump_n_sample: usize,
    /// β of every training timestep, if the schedule is diffusers' own for repaint, which then takes steps back timestep by timestep.
    pub betas: Vec<f64>,
    /// Whether something is known about the image. The samplers that can ([`crate::Sampler::constrains`]) then put it into x at every noise
    /// level ([`crate::Op::Constrain`]).
    pub constrained: bool,
}

impl Default for Settings {
    /// Deterministic and of second order, with k-diffusion's values. [`crate::Sampler::settings`] has the sampler's own
    /// share of noise.
    fn default() -> Self {
        Self {
            eta: 0.0,
            s_noise: 1.0,
            solver_order: 2,
            corrector_order: 2,
            solver_type: SolverType::Midpoint,
            lower_order_final: false,
            euler_at_final: false,
            disable_corrector: Vec::new(),
            limit: None,
            variance: Variance::Posterior,
            timestep_scaling: None,
            sigma_min: 0.0,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: f64::INFINITY,
            // k-diffusion's value for dpm_adaptive.
            absolute_tolerance: 0.0078,
            relative_tolerance: 0.05,
            velocity: false,
            runge_kutta: Vec::new(),
            // score_sde's for its variance-exploding models.
            plms_skipped: 0,
            snr: 0.16,
            correct_steps: 1,
            // diffusers' for RePaint.
            jump_length: 10,
            jump_n_sample: 10,
            betas: Vec::new(),
            constrained: false,
        }
    }
}
