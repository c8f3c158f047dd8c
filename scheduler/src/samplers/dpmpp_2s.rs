use super::steps::{first_order, inverse_ratio, lambda_step, phis};
use crate::{Builder, Expr, Schedule, Settings, SolverType};

/// DPM-Solver++(2S): Lu et al. 2022b, Algorithm 1, with the schedule's own sigmas as its middle points; diffusers
/// `DPMSolverSinglestepScheduler` (`solver_order` 1, 2 or 3). Steps come in groups of as many steps as the order, and
/// each step of a group starts from the group's start.
pub(super) fn dpmpp_2s(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let frame = schedule.frame;
    let ends_at_zero = schedule.sigmas.last() == Some(&0.0);
    let orders = orders(schedule.full_steps, settings, ends_at_zero);
    let skipped = schedule.full_steps - schedule.steps();
    // The group's start, and the denoised images of the group, beginning with the one of its start.
    let mut start = (p.x(), schedule.sigmas[0]);
    let mut group: Vec<(f64, Expr)> = Vec::new();
    for (i, (sigma, sigma_next)) in schedule.pairs().enumerate() {
        let x = p.x();
        let denoised = p.denoise(x, sigma);
        let model = p.clip(denoised);
        p.step(sigma, model);
        let order = orders[i + skipped].min(group.len() + 1);
        let leaves_pure_noise = frame.alpha(start.1) == 0.0;
        if order == 1 || leaves_pure_noise {
            start = (x, sigma);
            group = vec![(0.0, model)];
            p.set_x(first_order(frame, x, model, sigma, sigma_next));
            continue;
        }
        let (x_start, sigma_start) = start;
        let h = lambda_step(frame, sigma_start, sigma_next);
        group.push((lambda_step(frame, sigma_start, sigma), model));
        let (phi_1, phi_2, phi_3) = phis(h);
        let (_, base) = group[0];
        // Differences from the start, in units of the whole step.
        let difference = |(h_i, m): (f64, Expr)| (m - base) * inverse_ratio(h, h_i);
        let d_last = difference(group[order - 1]);
        let target = match (order, settings.solver_type) {
            (2, SolverType::Heun) => base * phi_1 + d_last * phi_2,
            (2, _) => base * phi_1 + d_last * (0.5 * phi_1),
            (_, SolverType::Heun) => {
                let (r0, r1) = (group[2].0 / h, group[1].0 / h);
                let d_middle = difference(group[1]);
                let (d1, d2) = if r0 == r1 {
                    (d_last, Expr::zero())
                } else {
                    ((d_middle * r0 - d_last * r1) / (r0 - r1), (d_last - d_middle) * (2.0 / (r0 - r1)))
                };
                base * phi_1 + d1 * phi_2 - d2 * phi_3
            }
            _ => base * phi_1 + d_last * phi_2,
        };
        let next = x_start * (sigma_next / sigma_start) + target * frame.alpha(sigma_next);
        p.set_x(if h == 0.0 { x } else { next });
    }
}

/// diffusers' `get_order_list`.
fn orders(steps: usize, settings: &Settings, ends_at_zero: bool) -> Vec<usize> {
    let order = settings.solver_order.min(3);
    let group: Vec<usize> = (1..=order).collect();
    let mut orders = group.repeat(steps / order);
    let rest = steps % order;
    // Lower orders at the end where they were asked for, where the groups do not come out even, and where λ ends at infinity.
    if rest > 0 {
        orders.extend(1..=rest);
    } else if settings.lower_order_final || ends_at_zero {
        let last = orders.len() - 1;
        orders[last] = 1;
    }
    if ends_at_zero && let Some(last) = orders.last_mut() {
        *last = 1;
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_lists() {
        let lists = [
            (2, 5, false, vec![1, 2, 1, 2, 1]),
            (2, 4, true, vec![1, 2, 1, 1]),
            (3, 6, true, vec![1, 2, 3, 1, 2, 1]),
            (3, 5, true, vec![1, 2, 3, 1, 1]),
            (3, 5, false, vec![1, 2, 3, 1, 2]),
            (1, 3, false, vec![1, 1, 1]),
        ];
        for (solver_order, steps, ends_at_zero, expected) in lists {
            let settings = Settings { solver_order, ..Settings::default() };
            assert_eq!(orders(steps, &settings, ends_at_zero), expected, "{solver_order} {steps}");
        }
    }
}
