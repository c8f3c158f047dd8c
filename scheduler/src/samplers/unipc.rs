use super::steps::{first_order, lambda_step};
use crate::{Builder, Expr, Schedule, Settings, SolverType};

/// UniPC: Zhao et al. 2023, a predictor of order `solver_order` and a corrector that reuses the next step's evaluation; diffusers
/// `UniPCMultistepScheduler` (data prediction, B(h) = h for `bh1`, e^h - 1 for `bh2`).
pub(super) fn unipc(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    // (λ, denoised) of earlier points, latest first.
    let mut history: Vec<(f64, Expr)> = Vec::new();
    // What the corrector needs from the previous step: its start, its sigmas and its order.
    let mut before: Option<(Expr, f64, f64, usize)> = None;
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let predicted = p.x();
        let denoised = p.denoise(predicted, sigma);
        let model = p.clip(denoised);
        p.step(sigma, model);

        let mut x = p.x();
        let corrected = before.filter(|&(_, from, to, _)| from != to && !settings.disable_corrector.contains(&(i - 1)));
        if let Some((start, from, to, order)) = corrected {
            let h = lambda_step(frame, from, to);
            let update = Update::new(h, &history, order, settings.solver_type);
            x = first_order(frame, start, history[0].1, from, to) + update.corrector(model) * frame.alpha(to);
            x = p.keep(x);
        }
        let lambda = frame.lambda(sigma);
        // Points with a λ of -∞ (a flow's first sigma) or with the same λ cannot be used for extrapolation.
        history.retain(|(earlier, _)| earlier.is_finite() && *earlier != lambda);
        history.insert(0, (lambda, model));
        history.truncate(settings.solver_order);
        let mut order = settings.solver_order.min(history.len());
        if settings.lower_order_final {
            order = order.min(schedule.steps() - i);
        }
        if sigma_next == 0.0 {
            order = 1;
        }
        let mut next = first_order(frame, x, model, sigma, sigma_next);
        if sigma != sigma_next {
            let h = lambda_step(frame, sigma, sigma_next);
            let update = Update::new(h, &history, order, settings.solver_type);
            next = next + update.predictor() * frame.alpha(sigma_next);
        }
        before = Some((x, sigma, sigma_next, order));
        p.set_x(next);
    }
}

/// UniPC with B(h) = h, independent of the configuration.
pub(super) fn unipc_bh1(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    unipc(p, schedule, &Settings { solver_type: SolverType::Bh1, ..settings.clone() });
}

/// The differences and weights of one step: equations 9 to 12 of the paper in data prediction.
struct Update {
    /// Steps back in units of h, then 1.
    ratios: Vec<f64>,
    differences: Vec<Expr>,
    right: Vec<f64>,
    b_h: f64,
    m0: Expr,
}

impl Update {
    fn new(h: f64, history: &[(f64, Expr)], order: usize, solver_type: SolverType) -> Self {
        let (lambda, m0) = history[0];
        let mut ratios: Vec<f64> = history[1..order].iter().map(|(earlier, _)| (earlier - lambda) / h).collect();
        let differences = history[1..order].iter().zip(&ratios).map(|((_, m), r)| (*m - m0) / *r).collect();
        ratios.push(1.0);
        let hh = -h;
        let phi_1 = hh.exp_m1();
        let b_h = if solver_type == SolverType::Bh1 { hh } else { phi_1 };
        let mut phi = if hh.is_infinite() { -1.0 } else { phi_1 / hh - 1.0 };
        let mut factorial = 1.0;
        let mut right = Vec::new();
        for i in 1..=order {
            right.push(phi * factorial / b_h);
            factorial *= (i + 1) as f64;
            phi = phi / hh - 1.0 / factorial;
        }
        Self { ratios, differences, right, b_h, m0 }
    }

    /// Rows ratios^k, k = 0, 1, ….
    fn solve(&self, unknowns: usize) -> Vec<f64> {
        let rows = (0..unknowns).map(|k| self.ratios[..unknowns].iter().map(|r| r.powi(k as i32)).collect()).collect();
        gauss(rows, self.right[..unknowns].to_vec())
    }

    fn predictor(&self) -> Expr {
        let weights = match self.differences.len() {
            0 => Vec::new(),
            1 => vec![0.5],
            n => self.solve(n),
        };
        -self.weighted(&weights) * self.b_h
    }

    fn corrector(&self, model: Expr) -> Expr {
        let n = self.differences.len() + 1;
        let weights = if n == 1 { vec![0.5] } else { self.solve(n) };
        if self.b_h.is_infinite() {
            // bh1 over an infinite step has no corrector.
            return Expr::zero();
        }
        -(self.weighted(&weights) + (model - self.m0) * weights[n - 1]) * self.b_h
    }

    fn weighted(&self, weights: &[f64]) -> Expr {
        self.differences.iter().zip(weights).map(|(&d, &w)| d * w).sum()
    }
}

/// Solves a small dense system by elimination with row exchange.
fn gauss(mut rows: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    for column in 0..n {
        let pivot =
            (column..n).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs())).unwrap_or(column);
        rows.swap(column, pivot);
        right.swap(column, pivot);
        let (above, below) = rows.split_at_mut(column + 1);
        for (offset, row) in below.iter_mut().enumerate() {
            let factor = row[column] / above[column][column];
            for (value, pivot) in row.iter_mut().zip(&above[column]) {
                *value -= factor * pivot;
            }
            right[column + 1 + offset] -= factor * right[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| rows[row][k] * right[k]).sum();
        right[row] = (right[row] - known) / rows[row][row];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::gauss;

    #[test]
    fn elimination() {
        let solution = gauss(vec![vec![0.0, 2.0, 1.0], vec![1.0, 1.0, 1.0], vec![2.0, -1.0, 0.0]], vec![7.0, 6.0, 0.0]);
        for (ours, theirs) in solution.iter().zip([1.0, 2.0, 3.0]) {
            assert!((ours - theirs).abs() < 1e-14, "{solution:?}");
        }
    }
}
