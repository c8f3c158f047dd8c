use super::dpmpp_2m::dpmpp_2m;
use crate::{Builder, Schedule, Settings, SolverType};

/// The two-step refined exponential solver: Zhang et al. 2023, arXiv:2308.02157; ComfyUI `res_multistep`. Its weights are those of
/// DPM-Solver++(2M) with the linear part integrated exactly.
pub(super) fn res_multistep(p: &mut Builder, schedule: &Schedule, settings: &Settings) {
    let settings = Settings { solver_order: 2, solver_type: SolverType::Heun, ..settings.clone() };
    dpmpp_2m(p, schedule, &settings);
}
