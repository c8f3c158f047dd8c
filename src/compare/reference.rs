//! The path that deterministic samplers approximate: the probability-flow ODE, solved so finely that its own error does not count.

use super::metrics::rms;
use pipelines::{Job, SampleShape, Step};
use scheduler::{Sampling, Schedule, TimestepMap, sampler, sigmas};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What the error of each step may be, root mean square over the elements, absolute and as a share of the element: scipy's and score_sde's rtol and atol.
/// (On the bundled diffusion model a tolerance of a tenth moves the end of the path by 1.4e-5.)
pub const TOLERANCE: f64 = 1e-6;

/// [`scheduler`]'s rk45 is told the tolerance of a whole path, and lets each step use this share of it.
const SHARE: f64 = 0.1;

/// Steps from which the solver starts to look for its own.
const FIRST_STEPS: usize = 40;

/// Nodes that one reading takes into account, two on each side where there are.
const WINDOW: usize = 4;

/// The solved path of one job: x and denoised at every noise level between where the sampler starts and 0.
#[derive(Debug, Clone)]
pub struct Reference {
    /// From the largest noise level to the smallest.
    nodes: Vec<Node>,
    /// The sample without noise.
    end: Vec<f32>,
    shape: SampleShape,
    evaluations: usize,
}

/// A step of the solver.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) log_sigma: f64,
    pub(super) x: Vec<f32>,
    pub(super) denoised: Vec<f32>,
}

/// Where the path is at one noise level.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The noisy sample, `[H, W, C]`.
    pub x: Vec<f32>,
    /// What the model makes of it.
    pub denoised: Vec<f32>,
}

/// How the path of a job is solved: from the same noise at the same level by the Dormand-Prince pair, down to the smallest level that the model
/// was trained on, and from there to 0 in one step of Euler's method, which is the denoised image.
pub(super) fn sampling(job: &Job) -> Result<Sampling, scheduler::Error> {
    let own = job.sampling();
    let first = own.schedule.sigmas[0];
    let last = smallest(&own.schedule.map).min(0.5 * first);
    let rk45 = sampler("rk45")?;
    let levels = sigmas::exponential(FIRST_STEPS, last, first)?;
    let mut schedule = Schedule::new(levels, own.schedule.frame, own.schedule.map.clone())?;
    schedule.init_noise_sigma = own.schedule.init_noise_sigma;
    let mut settings = rk45.settings();
    (settings.absolute_tolerance, settings.relative_tolerance) = (TOLERANCE / SHARE, TOLERANCE / SHARE);
    Ok(Sampling { sampler: rk45, schedule, settings, ..own.clone() })
}

/// The job that solves the path of another, by the same model; none where there is no such path: from a schedule that falls to 0 at once, say.
pub(crate) fn job_of(own: &Job) -> Option<Job> {
    let own = own.without_step_cache();
    Some(own.with_sampling(sampling(&own).ok()?))
}

/// Names a path: equal where model, start, conditions and guidance are.
pub(crate) fn name_of(model: &str, job: &Job, wants_unguided: bool) -> String {
    let (settings, schedule) = (job.settings(), &job.sampling().schedule);
    let mut hasher = DefaultHasher::new();
    let start = (schedule.sigmas[0].to_bits(), schedule.init_noise_sigma.to_bits());
    let text = (&settings.prompt, &settings.negative_prompt, settings.clip_skip, settings.class_label);
    let rest = (settings.width, settings.height, settings.guidance_scale.to_bits(), wants_unguided);
    settings.guidance_interval.map(|interval| interval.to_bits()).hash(&mut hasher);
    (model, start, text, rest, settings.seed, settings.rng.name()).hash(&mut hasher);
    settings.prompt_syntax.map(|syntax| syntax.name()).hash(&mut hasher);
    format!("reference-{:08x}", hasher.finish() & 0xFFFF_FFFF)
}

/// The smallest noise level that a model was trained on.
fn smallest(map: &TimestepMap) -> f64 {
    match map {
        TimestepMap::Discrete { log_sigmas } => log_sigmas.first().map_or(0.002, |log_sigma| log_sigma.exp()),
        // Of EDM and of OpenAI's consistency models: Karras et al. 2022, table 1.
        TimestepMap::QuarterLog | TimestepMap::ThousandQuarterLog => 0.002,
        TimestepMap::Proportional { .. } => 0.001,
    }
}

/// A path that is being solved.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    nodes: Vec<Node>,
    evaluations: usize,
}

impl Recording {
    pub(crate) fn push(&mut self, step: &Step<'_>) {
        self.evaluations = step.evaluations;
        let (x, denoised) = (step.x.to_vec(), step.denoised.to_vec());
        self.nodes.push(Node { log_sigma: step.sigma.ln(), x, denoised });
    }

    /// Bytes of what it holds.
    #[cfg(feature = "serve")]
    pub(crate) fn bytes(&self) -> usize {
        bytes(&self.nodes)
    }

    pub(crate) fn finish(self, end: Vec<f32>, shape: SampleShape) -> Reference {
        Reference { nodes: self.nodes, end, shape, evaluations: self.evaluations }
    }
}

/// Of the samples of some nodes.
#[cfg(feature = "serve")]
fn bytes(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| size_of_val(&*node.x) + size_of_val(&*node.denoised)).sum()
}

impl Reference {
    /// How often the model ran for it.
    #[must_use]
    pub fn evaluations(&self) -> usize {
        self.evaluations
    }

    /// How many steps the solver took.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.nodes.len()
    }

    /// Extents of the sample.
    #[must_use]
    pub fn shape(&self) -> SampleShape {
        self.shape
    }

    /// The sample at the end, without noise: `[H, W, C]`.
    #[must_use]
    pub fn end(&self) -> &[f32] {
        &self.end
    }

    /// The path at a noise level; none above the first.
    ///
    /// Between the solver's steps it is the polynomial through x and its derivative, x - D in ln σ, at the four nearest of them (Hermite's
    /// interpolation, of degree 7): of higher order than the solver. Below the last step it is the line to the end.
    #[must_use]
    pub fn at(&self, sigma: f64) -> Option<Point> {
        let (first, last) = (self.nodes.first()?, self.nodes.last()?);
        if sigma <= last.log_sigma.exp() {
            let part = sigma / last.log_sigma.exp();
            let x = self.end.iter().zip(&last.x).map(|(end, x)| mix(*end, *x, part)).collect();
            return Some(Point { x, denoised: last.denoised.clone() });
        }
        let at = sigma.ln();
        // Levels that are computed in two ways may differ in their last digits.
        if at > first.log_sigma + 1e-9 {
            return None;
        }
        let after = self.nodes.partition_point(|node| node.log_sigma > at);
        let start = after.saturating_sub(WINDOW / 2).min(self.nodes.len().saturating_sub(WINDOW));
        let window = &self.nodes[start..self.nodes.len().min(start + WINDOW)];
        let levels: Vec<f64> = window.iter().map(|node| node.log_sigma).collect();
        // The derivative is x - D, so that each node adds (w + v) x - v D for the weights w of its value and v of its derivative.
        let weights = hermite(&levels, at);
        let x = self.sum(window.iter().zip(&weights).map(|(node, (w, v))| (node, w + v, -v)));
        let denoised = self.sum(window.iter().zip(lagrange(&levels, at)).map(|(node, w)| (node, 0.0, w)));
        Some(Point { x, denoised })
    }

    /// Root mean square of a job's final sample minus the path at the level where its sampler ends; none above the first level.
    pub(crate) fn distance(&self, job: &Job, sample: &[f32]) -> Option<f64> {
        let schedule = &job.sampling().schedule;
        let last = schedule.sigmas.last().copied().unwrap_or(0.0);
        if last == 0.0 || !job.program().is_fixed() {
            return Some(rms(sample, self.end()));
        }
        #[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
        let scale = schedule.final_scale as f32;
        let point = self.at(last)?;
        Some(rms(sample, &point.x.iter().map(|v| v * scale).collect::<Vec<_>>()))
    }

    /// Bytes of what it holds.
    #[cfg(feature = "serve")]
    pub(crate) fn bytes(&self) -> usize {
        bytes(&self.nodes)
    }

    /// The noise levels at which the solver stopped, and its denoised images there.
    #[cfg(feature = "serve")]
    pub(crate) fn levels(&self) -> impl ExactSizeIterator<Item = (f64, &[f32])> {
        self.nodes.iter().map(|node| (node.log_sigma.exp(), node.denoised.as_slice()))
    }

    /// Σ a x + b D over nodes.
    fn sum<'a>(&self, terms: impl Iterator<Item = (&'a Node, f64, f64)>) -> Vec<f32> {
        let mut sum = vec![0.0_f64; self.end.len()];
        for (node, a, b) in terms {
            for ((sum, x), denoised) in sum.iter_mut().zip(&node.x).zip(&node.denoised) {
                *sum += a * f64::from(*x) + b * f64::from(*denoised);
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
        sum.into_iter().map(|value| value as f32).collect()
    }

    #[cfg(feature = "report")]
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    #[cfg(feature = "report")]
    pub(super) fn from_parts(nodes: Vec<Node>, end: Vec<f32>, shape: SampleShape, evaluations: usize) -> Self {
        Self { nodes, end, shape, evaluations }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
fn mix(from: f32, to: f32, part: f64) -> f32 {
    (f64::from(from) * (1.0 - part) + f64::from(to) * part) as f32
}

/// Lagrange's basis at a point: the weights of the values of the polynomial through them.
fn lagrange(levels: &[f64], at: f64) -> Vec<f64> {
    let one = |j: usize| {
        let others = levels.iter().enumerate().filter(|(i, _)| *i != j);
        others.map(|(_, level)| (at - level) / (levels[j] - level)).product()
    };
    (0..levels.len()).map(one).collect()
}

/// Hermite's basis at a point: the weights of values and derivatives of the polynomial that has both. With Lagrange's l_j they are
/// (1 - 2 l_j'(t_j) (t - t_j)) l_j², and (t - t_j) l_j².
fn hermite(levels: &[f64], at: f64) -> Vec<(f64, f64)> {
    let slope = |j: usize| -> f64 {
        levels.iter().enumerate().filter(|(i, _)| *i != j).map(|(_, level)| 1.0 / (levels[j] - level)).sum()
    };
    let weights = lagrange(levels, at).into_iter().enumerate();
    weights
        .map(|(j, l)| {
            let distance = at - levels[j];
            ((1.0 - 2.0 * slope(j) * distance) * l * l, distance * l * l)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hermite_gives_polynomials_of_degree_seven_exactly() {
        let levels = [2.0, 1.1, 0.7, -0.5];
        let (value, derivative) = (|t: f64| t.powi(7) - 2.0 * t.powi(3), |t: f64| 7.0 * t.powi(6) - 6.0 * t * t);
        for at in [1.9, 1.0, 0.7, 0.0] {
            let weights = hermite(&levels, at);
            let found: f64 = levels.iter().zip(weights).map(|(t, w)| w.0 * value(*t) + w.1 * derivative(*t)).sum();
            assert!((found - value(at)).abs() < 1e-12, "{at}: {found}");
        }
    }

    /// One normal distribution per element, whose path has a closed form (Song et al. 2021, equation 13): the same distance from the mean in
    /// standard deviations everywhere.
    #[test]
    fn readings_between_the_solvers_steps_lie_on_the_path() {
        let data = [(0.3, 0.5), (-1.0, 1.2), (2.0, 0.2)];
        let exact = |sigma: f64, i: usize| data[i].0 + (1.3 - i as f64) * f64::hypot(data[i].1, sigma);
        let denoised = |x: f64, sigma: f64, i: usize| {
            let variance: f64 = data[i].1 * data[i].1;
            data[i].0 + variance / (variance + sigma * sigma) * (x - data[i].0)
        };
        let node = |log_sigma: f64| {
            let sigma = log_sigma.exp();
            let x: Vec<f32> = (0..3).map(|i| exact(sigma, i) as f32).collect();
            let denoised = (0..3).map(|i| denoised(exact(sigma, i), sigma, i) as f32).collect();
            Node { log_sigma, x, denoised }
        };
        // Longer steps than the solver takes.
        let nodes: Vec<Node> = (0..=32).map(|i| node(4.0 - f64::from(i) * 0.25)).collect();
        let end = (0..3).map(|i| exact(0.0, i) as f32).collect();
        let shape = SampleShape { height: 1, width: 1, channels: 3 };
        let reference = Reference { nodes, end, shape, evaluations: 0 };
        for sigma in [54.0, 30.0, 3.3, 0.777, 0.051, 0.019] {
            let point = reference.at(sigma).expect("inside");
            for i in 0..3 {
                let error = (f64::from(point.x[i]) - exact(sigma, i)).abs() / (1.0 + sigma);
                assert!(error < 2e-6, "sigma {sigma}, element {i}: {error:e}");
            }
        }
        assert!(reference.at(60.0).is_none(), "above the start");
        assert_eq!(reference.at(0.0).expect("the end").x, reference.end);
    }
}
