use super::steps::lambda_step;
use crate::{Builder, Expr, Schedule, Settings, TimestepMap};

/// SA-Solver: Xue et al. 2023, a stochastic Adams predictor and corrector on the denoised image, one evaluation a step; diffusers
/// `SASolverScheduler` (data prediction).
///
/// τ, the share of noise, is eta between the training timesteps 200 and 800 and 0 elsewhere, as in diffusers; over a schedule without
/// training timesteps it is eta throughout. Noise is drawn in every step, used or not.
pub(super) fn sa_solver(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    let steps = schedule.steps();
    let most = settings.solver_order.max(settings.corrector_order.saturating_sub(1));
    // (length in λ of the step that left it, denoised), latest first.
    let mut history: Vec<(f64, Expr)> = Vec::new();
    let mut before: Option<Step> = None;
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let predicted = p.x();
        let denoised = p.denoise(predicted, sigma);
        let model = p.clip(denoised);
        p.step(sigma, model);
        let mut x = p.x();
        if let Some(step) = &before {
            x = step.correct(model, &history);
            x = p.keep(x);
        }
        let tau = match schedule.map {
            TimestepMap::Discrete { .. } | TimestepMap::Proportional { .. }
                if !(200.0..=800.0).contains(&schedule.timesteps[i]) =>
            {
                0.0
            }
            _ => settings.eta,
        };
        let h = lambda_step(frame, sigma, sigma_next);
        let left = if settings.lower_order_final { steps - i } else { usize::MAX - 1 };
        let done = i.min(most);
        let predictor_order = if h.is_finite() { settings.solver_order.min(left).min(done + 1) } else { 1 };
        let corrector_order = if h.is_finite() { settings.corrector_order.min(left + 1).min(done + 2) } else { 1 };
        let noise = p.noise(sigma, sigma_next);
        let kept = if tau == 0.0 { 1.0 } else { (-tau * tau * h).exp() };
        let base = x * (sigma_next / sigma * kept)
            + noise * (sigma_next * (1.0 - kept * kept).max(0.0).sqrt() * settings.s_noise);
        let base = if h == 0.0 { x } else { p.keep(base) };
        let step = Step { base, alpha: frame.alpha(sigma_next), h, c: 1.0 + tau * tau, corrector_order };
        p.set_x(step.predict(model, &history, predictor_order));
        history.insert(0, (h, model));
        history.truncate(3);
        before = Some(step);
    }
}

/// What predictor and corrector of one step share.
struct Step {
    /// The old x's share and the noise.
    base: Expr,
    alpha: f64,
    h: f64,
    /// 1 + τ².
    c: f64,
    corrector_order: usize,
}

impl Step {
    /// c·∫ e^(-c(h-u))·u^j du over the step, for j = 0, 1, 2.
    fn integrals(&self) -> [f64; 3] {
        let (h, c) = (self.h, self.c);
        let j0 = -(-c * h).exp_m1();
        if h.is_infinite() {
            return [j0, 0.0, 0.0];
        }
        let j1 = h - j0 / c;
        [j0, j1, h * h - 2.0 * j1 / c]
    }

    /// `history` is of the steps before this one.
    fn predict(&self, model: Expr, history: &[(f64, Expr)], order: usize) -> Expr {
        let [j0, ..] = self.integrals();
        let (h, c) = (self.h, self.c);
        let usable = history.iter().take_while(|(length, _)| length.is_finite() && *length != 0.0).count();
        let target = match (order.min(usable + 1), history) {
            (2, &[(h_0, m1), ..]) => {
                // The paper's simplification: the linear part integrated without its exponential.
                let w = c * h * h / (2.0 * h_0);
                model * (j0 + w) - m1 * w
            }
            (3, &[(h_0, m1), (h_1, m2), ..]) => self.through(&[(0.0, model), (-h_0, m1), (-h_0 - h_1, m2)]),
            _ => model * j0,
        };
        self.base + target * self.alpha
    }

    /// `history[0]` is this step's own start.
    fn correct(&self, model: Expr, history: &[(f64, Expr)]) -> Expr {
        let [j0, ..] = self.integrals();
        let (h, c) = (self.h, self.c);
        let usable = history.iter().take_while(|(length, _)| length.is_finite() && *length != 0.0).count();
        let target = match (self.corrector_order.min(usable + 1), history) {
            (2, &[(_, m0), ..]) => model * (c * h / 2.0) + m0 * (j0 - c * h / 2.0),
            (3, &[(_, m0), (h_0, m1), ..]) => self.through(&[(h, model), (0.0, m0), (-h_0, m1)]),
            _ => model * j0,
        };
        self.base + target * self.alpha
    }

    /// The polynomial of degree 2 through three points, integrated.
    fn through(&self, points: &[(f64, Expr); 3]) -> Expr {
        let [j0, j1, j2] = self.integrals();
        (0..3)
            .map(|i| {
                let (a, b, (u, m)) = (points[(i + 1) % 3].0, points[(i + 2) % 3].0, points[i]);
                m * ((j2 - (a + b) * j1 + a * b * j0) / ((u - a) * (u - b)))
            })
            .sum()
    }
}
