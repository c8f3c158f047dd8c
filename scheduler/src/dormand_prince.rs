//! The embedded Runge-Kutta pair of order 5(4) of Dormand & Prince 1980, and how its steps are chosen.

/// Where in the step each stage is taken.
pub(crate) const NODES: [f64; 7] = [0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];

/// Weights of the stages before; the last row is the solution, of order 5, at which the next step's first stage is taken.
pub(crate) const STAGES: [[f64; 6]; 7] = [
    [0.0; 6],
    [0.2, 0.0, 0.0, 0.0, 0.0, 0.0],
    [3.0 / 40.0, 9.0 / 40.0, 0.0, 0.0, 0.0, 0.0],
    [44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0, 0.0, 0.0, 0.0],
    [19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0, 0.0, 0.0],
    [9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0, 0.0],
    [35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];

/// Weights of the difference between the solutions of order 5 and 4.
pub(crate) const ERROR: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];

/// The share of the tolerance that one step may use, so that the errors of all steps add up to less than the tolerance.
/// scipy's RK45 and score_sde allow each step the whole tolerance. (Shares in proportion to the step's length would
/// bound the sum strictly, but the rounding errors of a model in f32 do not shrink with the step.)
const SHARE: f64 = 0.1;

/// What to do after a step whose error was measured in units of the tolerance: whether to take it, and by what to multiply its length.
/// Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, equation II.4.13.
///
/// `after_rejection` is whether the attempt before failed; `shortest` is whether the step cannot be shortened any more;
/// it is then taken whatever its error. A step whose error is NaN is taken as well, because it would be shortened for
/// ever.
pub(crate) fn judge(error: f64, after_rejection: bool, shortest: bool) -> (bool, f64) {
    let error = error / SHARE;
    let accepted = error <= 1.0 || error.is_nan() || shortest;
    let factor = if error.is_nan() { 1.0 } else { (0.9 * error.powf(-0.2)).clamp(0.2, 10.0) };
    let factor = if shortest { factor.max(1.0) } else { factor };
    (accepted, if after_rejection || !accepted { factor.min(1.0) } else { factor })
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn steps_never_shrink_below_the_shortest() {
        assert_eq!(judge(f64::INFINITY, false, false), (false, 0.2));
        assert_eq!(judge(f64::INFINITY, false, true), (true, 1.0));
        assert_eq!(judge(f64::NAN, true, false), (true, 1.0));
        assert_eq!(judge(0.0, true, false), (true, 1.0));
        assert_eq!(judge(0.0, false, false), (true, 10.0));
    }
}
