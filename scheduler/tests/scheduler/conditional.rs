//! Sampling given what is known: on Gaussian data p(unknown | known) has a closed form, and D is exact.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::ops::ControlFlow;

use scheduler::{Denoiser, Draw, Frame, Outcome, Schedule, Settings, TimestepMap, run, sampler, sigmas};

type Matrix = Vec<Vec<f64>>;

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().map(|row| (0..b[0].len()).map(|j| row.iter().zip(b).map(|(x, row)| x * row[j]).sum()).collect()).collect()
}

fn transposed(a: &Matrix) -> Matrix {
    (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
}

/// Gauss-Jordan; covariances need no pivoting.
fn inverse(a: &Matrix) -> Matrix {
    let n = a.len();
    let mut rows: Matrix =
        (0..n).map(|i| a[i].iter().copied().chain((0..n).map(|j| f64::from(u8::from(i == j)))).collect()).collect();
    for i in 0..n {
        let pivot = rows[i][i];
        rows[i].iter_mut().for_each(|v| *v /= pivot);
        let pivot_row = rows[i].clone();
        for (j, row) in rows.iter_mut().enumerate() {
            if j != i {
                let factor = row[i];
                row.iter_mut().zip(&pivot_row).for_each(|(v, p)| *v -= factor * p);
            }
        }
    }
    rows.into_iter().map(|row| row[n..].to_vec()).collect()
}

fn apply(a: &Matrix, x: &[f64]) -> Vec<f64> {
    a.iter().map(|row| row.iter().zip(x).map(|(a, x)| a * x).sum()).collect()
}

/// Normal data of which some orthonormal coordinates are known.
struct Problem {
    name: &'static str,
    mean: Vec<f64>,
    covariance: Matrix,
    /// Rows: an orthonormal basis, first of what is known, then of the rest.
    basis: Matrix,
    /// How many of the rows are known.
    known: usize,
    /// A point that agrees with what is known.
    image: Vec<f64>,
}

/// A mask over two of four elements, and the grey of a colour: all three channels change with it.
fn problems() -> [Problem; 2] {
    let unit = |i: usize| (0..4).map(|j| f64::from(u8::from(i == j))).collect::<Vec<f64>>();
    let (third, half, sixth) = (3.0_f64.sqrt().recip(), 0.5_f64.sqrt(), 6.0_f64.sqrt().recip());
    [
        Problem {
            name: "mask",
            mean: vec![0.4, -0.3, 0.2, 0.6],
            covariance: vec![
                vec![0.50, 0.30, -0.15, 0.10],
                vec![0.30, 0.60, 0.10, -0.20],
                vec![-0.15, 0.10, 0.40, 0.15],
                vec![0.10, -0.20, 0.15, 0.70],
            ],
            basis: vec![unit(1), unit(3), unit(0), unit(2)],
            known: 2,
            image: vec![0.0, 0.7, 0.0, -0.5],
        },
        Problem {
            name: "grey",
            mean: vec![0.5, -0.2, 0.1],
            covariance: vec![vec![0.60, 0.35, 0.10], vec![0.35, 0.50, -0.10], vec![0.10, -0.10, 0.30]],
            basis: vec![vec![third; 3], vec![half, -half, 0.0], vec![sixth, sixth, -2.0 * sixth]],
            known: 1,
            image: vec![1.1, 0.2, 0.5],
        },
    ]
}

impl Problem {
    /// The unknown coordinates of a point.
    fn unknown(&self, x: &[f64]) -> Vec<f64> {
        apply(&self.basis, x)[self.known..].to_vec()
    }

    /// Mean and covariance of the unknown coordinates given the known ones.
    fn exact(&self) -> (Vec<f64>, Matrix) {
        let turned = product(&product(&self.basis, &self.covariance), &transposed(&self.basis));
        let (k, n) = (self.known, self.basis.len());
        let block = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>| -> Matrix {
            rows.map(|i| turned[i][columns.clone()].to_vec()).collect()
        };
        let gain = product(&block(k..n, 0..k), &inverse(&block(0..k, 0..k)));
        let (mean, image) = (apply(&self.basis, &self.mean), apply(&self.basis, &self.image));
        let off: Vec<f64> = (0..k).map(|i| image[i] - mean[i]).collect();
        let mean = apply(&gain, &off).iter().zip(&mean[k..]).map(|(a, b)| a + b).collect();
        let explained = product(&gain, &block(0..k, k..n));
        let left = block(k..n, k..n);
        let covariance =
            left.iter().zip(&explained).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b).collect()).collect();
        (mean, covariance)
    }
}

/// The exact denoiser of a problem's data, over a row of samples, which holds to what is known.
struct Model<'a> {
    problem: &'a Problem,
    frame: Frame,
}

impl Denoiser<f64, ()> for Model<'_> {
    /// E[x0 | x] = m + αC(α²C + σ²)⁻¹(x - αm).
    fn denoise(&mut self, x: &[f64], sigma: f64, _: f64, out: &mut [f64]) -> Result<(), ()> {
        let Problem { mean, covariance, .. } = self.problem;
        let alpha = self.frame.alpha(sigma);
        let n = mean.len();
        let noisy: Matrix = (0..n)
            .map(|i| {
                (0..n).map(|j| alpha * alpha * covariance[i][j] + if i == j { sigma * sigma } else { 0.0 }).collect()
            })
            .collect();
        let gain = product(covariance, &inverse(&noisy));
        for (out, x) in out.chunks_mut(n).zip(x.chunks(n)) {
            for i in 0..n {
                out[i] = mean[i] + (0..n).map(|j| alpha * gain[i][j] * (x[j] - alpha * mean[j])).sum::<f64>();
            }
        }
        Ok(())
    }

    fn constrain(&mut self, x: &[f64], noise: &[f64], sigma: f64, out: &mut [f64]) {
        let Problem { basis, known, image, .. } = self.problem;
        let alpha = self.frame.alpha(sigma);
        let n = image.len();
        out.copy_from_slice(x);
        for ((out, x), noise) in out.chunks_mut(n).zip(x.chunks(n)).zip(noise.chunks(n)) {
            for row in &basis[..*known] {
                let off: f64 = (0..n).map(|j| row[j] * (alpha * image[j] + sigma * noise[j] - x[j])).sum();
                out.iter_mut().zip(row).for_each(|(out, v)| *out += off * v);
            }
        }
    }
}

/// Marsaglia's polar method on xorshift64* (Vigna 2016).
struct Normals(u64);

impl Normals {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn fill(&mut self, out: &mut [f64]) {
        for pair in out.chunks_mut(2) {
            let (u, v, square) = loop {
                let (u, v) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
                let square = u * u + v * v;
                if square < 1.0 {
                    break (u, v, square);
                }
            };
            let scale = (-2.0 * square.ln() / square).sqrt();
            pair[0] = u * scale;
            if let Some(second) = pair.get_mut(1) {
                *second = v * scale;
            }
        }
    }
}

/// n levels of the forward processes of score_sde and of EDM, and of a flow, down to about `low` and then to 0.
fn schedules(n: usize, low: f64) -> [(&'static str, Schedule); 4] {
    let ve = Frame::VarianceExploding;
    let exponential = |high: f64| (0..n).map(move |i| high * (low / high).powf(i as f64 / (n - 1) as f64));
    let schedule = |sigmas: Vec<f64>, frame| Schedule::new(sigmas, frame, TimestepMap::QuarterLog).unwrap();
    [
        ("VE", schedule(exponential(30.0).chain([0.0]).collect(), ve)),
        ("VP", schedule(sigmas::vp(n, 19.9, 0.1, 1e-3).unwrap(), ve)),
        ("EDM", schedule(sigmas::karras(n, low, 80.0, 7.0).unwrap(), ve)),
        ("flow", schedule(exponential(0.99).chain([0.0]).collect(), Frame::Flow)),
    ]
}

/// Mean and covariance of the unknown coordinates.
type Moments = (Vec<f64>, Matrix);

/// Those of a run of random samples; what is known comes out as it is.
fn sampled(problem: &Problem, samples: usize, schedule: &Schedule, name: &str, settings: &Settings) -> Moments {
    let n = problem.image.len();
    let mut normals = Normals(0x9E37_79B9_7F4A_7C15);
    let mut x = vec![0.0; n * samples];
    normals.fill(&mut x);
    x.iter_mut().for_each(|v| *v *= schedule.init_noise_sigma);
    let program = sampler(name).unwrap().program(schedule, settings);
    let mut model = Model { problem, frame: schedule.frame };
    let noise = |_: Draw, out: &mut [f64]| normals.fill(out);
    let outcome = run(&program, &x, &mut model, noise, |_| ControlFlow::Continue(()));
    let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };
    let known = |x: &[f64]| apply(&problem.basis, x)[..problem.known].to_vec();
    let image = known(&problem.image);
    for x in result.chunks(n) {
        assert!(known(x).iter().zip(&image).all(|(x, image)| (x - image).abs() < 1e-12), "what is known is not kept");
    }
    moments(&result.chunks(n).map(|x| problem.unknown(x)).collect())
}

/// The largest difference of means and of covariances in standard errors of this many normal samples.
fn standard_errors(found: &Moments, (mean, covariance): &Moments, samples: usize) -> f64 {
    let root = (samples as f64).sqrt();
    let mut worst = 0.0_f64;
    for i in 0..mean.len() {
        worst = worst.max((found.0[i] - mean[i]).abs() / covariance[i][i].sqrt() * root);
        for j in 0..=i {
            // Of a product of two normal numbers (Isserlis' theorem).
            let std = (covariance[i][i] * covariance[j][j] + covariance[i][j].powi(2)).sqrt();
            worst = worst.max((found.1[i][j] - covariance[i][j]).abs() / std * root);
        }
    }
    worst
}

/// The largest difference of means, in standard deviations, and of covariances, as a share of the variances.
fn bias(found: &Moments, (mean, covariance): &Moments) -> (f64, f64) {
    let (mut of_mean, mut of_covariance) = (0.0_f64, 0.0_f64);
    for i in 0..mean.len() {
        of_mean = of_mean.max((found.0[i] - mean[i]).abs() / covariance[i][i].sqrt());
        for j in 0..=i {
            let scale = (covariance[i][i] * covariance[j][j]).sqrt();
            of_covariance = of_covariance.max((found.1[i][j] - covariance[i][j]).abs() / scale);
        }
    }
    (of_mean, of_covariance)
}

/// A whole distribution in a few points: x and the draws of one step are ±√J in one of their J coordinates each, so that means and
/// covariances over the points are those of independent normal numbers exactly. On Gaussian data every step is linear but for the lengths
/// that it measures, which are means of squares, so the points give what infinitely many samples would give.
struct Points<'a> {
    model: Model<'a>,
    /// Draws since x was last denoised.
    drawn: &'a Cell<usize>,
}

/// Mean and covariance over points.
fn moments(points: &Matrix) -> (Vec<f64>, Matrix) {
    let (count, n) = (points.len() as f64, points[0].len());
    let mean: Vec<f64> = (0..n).map(|i| points.iter().map(|x| x[i]).sum::<f64>() / count).collect();
    let product = |i: usize, j: usize| points.iter().map(|x| (x[i] - mean[i]) * (x[j] - mean[j])).sum::<f64>() / count;
    let covariance = (0..n).map(|i| (0..n).map(|j| product(i, j)).collect()).collect();
    (mean, covariance)
}

fn cholesky(a: &Matrix) -> Matrix {
    let n = a.len();
    let mut root = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let rest = a[i][j] - (0..j).map(|k| root[i][k] * root[j][k]).sum::<f64>();
            root[i][j] = if i == j { rest.sqrt() } else { rest / root[j][j] };
        }
    }
    root
}

/// Writes mean ± √J times the columns of a covariance's root into the points of x's own coordinates.
fn spread(x: &mut [f64], mean: &[f64], root: &Matrix) {
    let n = mean.len();
    let pairs = x.len() / (2 * n);
    for (point, x) in x.chunks_mut(n).enumerate() {
        let (column, sign) = (point / 2, if point % 2 == 0 { 1.0 } else { -1.0 });
        for i in 0..n {
            x[i] = mean[i] + if column < n { sign * (pairs as f64).sqrt() * root[i][column] } else { 0.0 };
        }
    }
}

impl Denoiser<f64, ()> for Points<'_> {
    fn denoise(&mut self, x: &[f64], sigma: f64, timestep: f64, out: &mut [f64]) -> Result<(), ()> {
        self.model.denoise(x, sigma, timestep, out)
    }

    /// Nothing but x matters here: the draws that went into it may have their coordinates back.
    fn hold(&mut self, x: &mut [f64], _: f64) {
        let (mean, covariance) = moments(&x.chunks(self.model.problem.mean.len()).map(<[f64]>::to_vec).collect());
        spread(x, &mean, &cholesky(&covariance));
        self.drawn.set(0);
    }

    fn constrain(&mut self, x: &[f64], noise: &[f64], sigma: f64, out: &mut [f64]) {
        self.model.constrain(x, noise, sigma, out);
    }
}

/// What infinitely many samples would give.
fn limit(problem: &Problem, schedule: &Schedule, name: &str, settings: &Settings) -> Moments {
    /// Most draws between two evaluations.
    const DRAWS: usize = 2;
    let n = problem.image.len();
    let mut x = vec![0.0; 2 * n * n * (1 + DRAWS)];
    let root: Matrix =
        (0..n).map(|i| (0..n).map(|j| if i == j { schedule.init_noise_sigma } else { 0.0 }).collect()).collect();
    spread(&mut x, &vec![0.0; n], &root);
    let drawn = Cell::new(0);
    let unit = |_: Draw, out: &mut [f64]| {
        assert!(drawn.get() < DRAWS);
        let first = n * (1 + drawn.get());
        let size = ((n * (1 + DRAWS)) as f64).sqrt();
        out.fill(0.0);
        for i in 0..n {
            (out[2 * n * (first + i) + i], out[2 * n * (first + i) + n + i]) = (size, -size);
        }
        drawn.set(drawn.get() + 1);
    };
    let program = sampler(name).unwrap().program(schedule, settings);
    let mut points = Points { model: Model { problem, frame: schedule.frame }, drawn: &drawn };
    let outcome = run(&program, &x, &mut points, unit, |_| ControlFlow::Continue(()));
    let Ok(Outcome::Finished(result)) = outcome else { panic!("nobody stopped it") };
    moments(&result.chunks(n).map(|x| problem.unknown(x)).collect())
}

/// More standard errors than chance gives in any of the comparisons here: 7e-6 each.
const CHANCE: f64 = 4.5;
const SAMPLES: usize = 3000;

/// Random samples of the conditional distribution, with corrector steps enough that the method's own error is below a standard error.
fn predictor_corrector_samples(problem: &Problem) {
    for ((kind, schedule), correct_steps) in schedules(40, 0.02).into_iter().zip([32, 80, 48, 24]) {
        let settings = Settings { constrained: true, snr: 0.1, correct_steps, ..Settings::default() };
        let exact = problem.exact();
        let of_method = standard_errors(&limit(problem, &schedule, "predictor_corrector", &settings), &exact, SAMPLES);
        let found = sampled(problem, SAMPLES, &schedule, "predictor_corrector", &settings);
        let error = standard_errors(&found, &exact, SAMPLES);
        println!("{} {kind}: {error:.1} standard errors, the method's own {of_method:.2}", problem.name);
        assert!(of_method < 1.0, "{} {kind}: {of_method}", problem.name);
        assert!(error < CHANCE, "{} {kind}: {error}", problem.name);
    }
}

#[test]
fn predictor_corrector_fills_a_mask() {
    predictor_corrector_samples(&problems()[0]);
}

#[test]
fn predictor_corrector_colours_a_grey() {
    predictor_corrector_samples(&problems()[1]);
}

/// The few points stand for many samples, also where a method is far from the conditional distribution.
#[test]
fn samples_approach_their_limit() {
    for problem in problems() {
        for (kind, schedule) in schedules(40, 0.02) {
            for name in ["predictor_corrector", "repaint", "ald"] {
                let settings =
                    Settings { constrained: true, eta: 0.5, jump_n_sample: 3, correct_steps: 2, ..Settings::default() };
                let expected = limit(&problem, &schedule, name, &settings);
                let found = sampled(&problem, SAMPLES, &schedule, name, &settings);
                let error = standard_errors(&found, &expected, SAMPLES);
                let off = standard_errors(&expected, &problem.exact(), SAMPLES);
                println!("{} {kind} {name}: {error:.1} standard errors, {off:.0} from the exact", problem.name);
                assert!(error < CHANCE, "{} {kind} {name}: {error}", problem.name);
            }
        }
    }
}

/// With more corrector steps the mean goes to the conditional one, and the covariance up to what Langevin steps of this length add, about
/// snr².
#[test]
fn predictor_corrector_is_exact_in_the_limit() {
    for problem in problems() {
        for (kind, schedule) in schedules(60, 0.02) {
            let at = |correct_steps, snr| {
                let settings = Settings { constrained: true, snr, correct_steps, ..Settings::default() };
                bias(&limit(&problem, &schedule, "predictor_corrector", &settings), &problem.exact())
            };
            let growing = [0, 1, 4, 16, 64].map(|correct_steps| at(correct_steps, 0.1));
            let shorter = at(512, 0.05);
            println!("{} {kind}: {growing:.4?}, half the length {shorter:.4?}", problem.name);
            let falls = growing.windows(2).all(|pair| pair[1].0 < pair[0].0 && pair[1].1 < pair[0].1);
            assert!(falls && growing[0].0 > 0.1, "{} {kind}: {growing:?}", problem.name);
            assert!(growing[4].0 < 0.015 && growing[4].1 < 0.0125, "{} {kind}: {:?}", problem.name, growing[4]);
            assert!(shorter.0 < 0.006 && shorter.1 < 0.003, "{} {kind}: {shorter:?}", problem.name);
        }
    }
}

/// Annealed Langevin dynamics takes a fixed number of short steps at a level, so it needs levels enough.
#[test]
fn ald_is_exact_in_the_limit() {
    for problem in problems() {
        for i in 0..4 {
            let growing = [60, 240, 960].map(|n| {
                let (_, schedule) = &schedules(n, 0.02)[i];
                let settings = Settings { constrained: true, ..Settings::default() };
                bias(&limit(&problem, schedule, "ald", &settings), &problem.exact())
            });
            let kind = schedules(2, 0.02)[i].0;
            println!("{} {kind}: {growing:.4?}", problem.name);
            let falls = growing.windows(2).all(|pair| pair[1].0 < 0.5 * pair[0].0 && pair[1].1 < 0.5 * pair[0].1);
            assert!(falls && growing[2].0 < 0.025 && growing[2].1 < 0.08, "{} {kind}: {growing:?}", problem.name);
        }
    }
}

/// RePaint's mean goes to the conditional one as steps are repeated, and its covariance as steps become shorter besides. What is left is
/// of the order of the noise at the upper end of a jump, which the repeated steps do not see beyond: here it is below σ = 0.1.
fn repaint_is_exact_in_the_limit(problem: &Problem) {
    for i in 0..4 {
        let kind = schedules(2, 0.005)[i].0;
        for eta in [0.0, 1.0] {
            let at = |n, jump_n_sample| {
                let (_, schedule) = &schedules(n, 0.005)[i];
                let jump_length = schedule.sigmas.iter().filter(|sigma| **sigma < 0.1).count();
                let settings = Settings { constrained: true, eta, jump_n_sample, jump_length, ..Settings::default() };
                bias(&limit(problem, schedule, "repaint", &settings), &problem.exact())
            };
            let growing = [1, 10, 100, 300].map(|jump_n_sample| at(240, jump_n_sample));
            let longer = at(60, 300);
            println!("{} {kind} eta {eta}: {growing:.4?}, in longer steps {longer:.4?}", problem.name);
            let falls = growing.windows(2).all(|pair| pair[1].0 < pair[0].0);
            assert!(falls && growing[0].0 > 0.15, "{} {kind} {eta}: {growing:?}", problem.name);
            assert!(growing[3].0 < 0.015, "{} {kind} {eta}: {:?}", problem.name, growing[3]);
            assert!(growing[3].1 < 0.55 * longer.1, "{} {kind} {eta}: {:?} {longer:?}", problem.name, growing[3]);
        }
    }
}

#[test]
fn repaint_fills_a_mask() {
    repaint_is_exact_in_the_limit(&problems()[0]);
}

#[test]
fn repaint_colours_a_grey() {
    repaint_is_exact_in_the_limit(&problems()[1]);
}
