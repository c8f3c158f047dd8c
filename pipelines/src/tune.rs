//! Which way of computing each operation of a model is the fastest on this device, measured.

use crate::error::PipelineError;
use crate::job::Job;
use crate::pipeline::Pipeline;
use graph::shape::numel;
use graph::{
    Activations, DeviceError, Graph, Kept, MemoryWeights, Op, Plan, PlanOptions, Storage, Winners, alone, kept_weights,
    passes, shape_key,
};
use std::collections::BTreeSet;

/// What was measured of operations of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// The operation and its shapes, as [`Winners`] know them.
    pub shape: String,
    /// Ways and the seconds of their rounds, the device's own choice first. What took far longer than the rest in its first round
    /// was not measured again.
    pub ways: Vec<(&'static str, Vec<f64>)>,
}

/// Another way must be so many times as fast as the device's own choice to be taken: less is noise.
const WORTH: f64 = 1.05;

/// What takes so many times as long as the fastest in the first round is given up.
const HOPELESS: f64 = 3.0;

impl Tuned {
    /// The way to take: the fastest, where that is no noise.
    #[must_use]
    pub fn winner(&self) -> &'static str {
        self.best().0
    }

    /// How many times as fast the winner is as the device's own choice.
    #[must_use]
    pub fn gain(&self) -> f64 {
        self.best().1
    }

    /// Every way with the seconds of its fastest round.
    pub fn fastest_rounds(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.ways.iter().map(|(way, seconds)| (*way, fastest(seconds)))
    }

    fn best(&self) -> (&'static str, f64) {
        let [(own_way, own), others @ ..] = &self.ways[..] else { return ("", 1.0) };
        let gains = others.iter().map(|(way, seconds)| (*way, gain(own, seconds)));
        let best = gains.filter(|(_, gain)| *gain > WORTH).max_by(|a, b| a.1.total_cmp(&b.1));
        best.unwrap_or((own_way, 1.0))
    }
}

/// The lesser of two ratios: of the fastest rounds, because whatever else a machine does only ever adds to them, and the middle one
/// of rounds side by side, because a quiet moment may have met one way alone.
fn gain(own: &[f64], other: &[f64]) -> f64 {
    let mut ratios: Vec<f64> = own.iter().zip(other).map(|(own, other)| own / other).collect();
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).copied().unwrap_or(0.0);
    middle.min(fastest(own) / fastest(other))
}

/// Seconds of the fastest round.
fn fastest(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(f64::INFINITY, f64::min)
}

impl Pipeline {
    /// Measures every way that this device has for the operations of a job's steps and of its decoding, each shape once, and
    /// tells of each shape with the number of shapes before it and of all. Ways take turns for so many rounds, so that what else
    /// the machine does meets all of them.
    ///
    /// # Errors
    /// When the device fails.
    pub fn tune(
        &self,
        job: &Job,
        rounds: usize,
        mut on_shape: impl FnMut(usize, usize, &Tuned),
    ) -> Result<Winners, PipelineError> {
        let options = PlanOptions { winners: None, ..self.host().options };
        let singles = PlanOptions { activations: Activations::F32, ..options };
        let mut candidates = Vec::new();
        let mut seen = BTreeSet::new();
        let decoding = match self.autoencoder().filter(|autoencoder| autoencoder.makes_pictures()) {
            Some(autoencoder) => Some(autoencoder.decoding(job.shape)?),
            None => None,
        };
        let steps = (self.graph(job)?, self.weights(), options);
        for (graph, weights, options) in
            std::iter::once(steps).chain(decoding.map(|(graph, weights)| (graph, weights, singles)))
        {
            let graph = passes::optimize(&graph);
            let kept = kept_weights(&graph, weights, options);
            for ((id, node), ways) in graph.iter().zip(self.device().device().ways(&graph, weights, options)) {
                let Some(shape) = shape_key(&graph, node).filter(|_| ways.len() > 1) else { continue };
                if seen.insert(shape.clone()) {
                    let storage = node.inputs.get(1).map_or(Kept::F32, |weight| kept[weight.index()]);
                    let storage = match storage {
                        Kept::F16 => Storage::F16,
                        Kept::Q8_0 => Storage::Q8_0,
                        Kept::F32 | Kept::Bf16 => Storage::F32,
                    };
                    candidates.push((shape, alone(&graph, id)?, PlanOptions { storage, ..options }, ways));
                }
            }
        }
        let mut winners = Winners::default();
        let all = candidates.len();
        for (i, (shape, graph, options, ways)) in candidates.into_iter().enumerate() {
            let ways = self.measure(&passes::optimize(&graph), options, &shape, &ways, rounds)?;
            let tuned = Tuned { shape, ways };
            on_shape(i, all, &tuned);
            winners.insert(tuned.shape.clone(), tuned.winner().to_owned());
        }
        Ok(winners)
    }

    /// Seconds of a graph's one operation in each way and round.
    fn measure(
        &self,
        graph: &Graph,
        options: PlanOptions,
        shape: &str,
        ways: &[&'static str],
        rounds: usize,
    ) -> Result<Vec<(&'static str, Vec<f64>)>, PipelineError> {
        let weights = noise(graph);
        let mut plans = Vec::with_capacity(ways.len());
        for way in ways {
            // Plans' options last as long as the program, and these are a few names.
            let forced: &'static Winners =
                Box::leak(Box::new([(shape.to_owned(), (*way).to_owned())].into_iter().collect()));
            let options = PlanOptions { winners: Some(forced), ..options };
            let mut plan = self.device().device().plan(graph, &weights, options)?;
            for node in graph.nodes() {
                if let Op::Input(input) = &node.op {
                    plan.write(&input.name, &waves(numel(&input.shape)))?;
                }
            }
            // Warms up.
            seconds(plan.as_mut())?;
            plans.push((*way, plan, Vec::with_capacity(rounds)));
        }
        for round in 0..rounds.max(1) {
            for (_, plan, times) in &mut plans {
                times.push(seconds(plan.as_mut())?);
            }
            if round == 0 {
                let fastest = plans.iter().map(|(_, _, times)| times[0]).fold(f64::INFINITY, f64::min);
                let mut first = true;
                plans.retain(|(_, _, times)| std::mem::take(&mut first) || times[0] <= fastest * HOPELESS);
            }
        }
        Ok(plans.into_iter().map(|(way, _, times)| (way, times)).collect())
    }
}

/// Of all operations but leaves, by the device's own clock.
fn seconds(plan: &mut dyn Plan) -> Result<f64, DeviceError> {
    Ok(plan.profile()?.iter().map(|node| node.seconds).sum())
}

/// Weights of a graph that are neither all alike nor zeros, which some machines are quicker with.
fn noise(graph: &Graph) -> MemoryWeights {
    let mut weights = MemoryWeights::default();
    for spec in graph.weights() {
        let data = waves(numel(&spec.shape));
        weights.insert(spec.name, spec.shape, &data);
    }
    weights
}

#[allow(clippy::cast_precision_loss, reason = "which values they are means nothing")]
fn waves(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37).sin()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hardly_faster_is_no_winner() {
        let tuned = |ways: &[(&'static str, &[f64])]| Tuned {
            shape: String::new(),
            ways: ways.iter().map(|(way, seconds)| (*way, seconds.to_vec())).collect(),
        };
        assert_eq!(tuned(&[("own", &[1.0]), ("other", &[0.97])]).winner(), "own");
        let faster = tuned(&[("own", &[1.0, 1.5]), ("other", &[0.5, 0.5]), ("third", &[0.6, 0.6])]);
        assert_eq!((faster.winner(), faster.gain()), ("other", 2.0));
        let slower = tuned(&[("own", &[1.0]), ("slower", &[2.0])]);
        assert_eq!((slower.winner(), slower.gain()), ("own", 1.0));
        // One quiet round that met one way alone.
        let quiet = tuned(&[("own", &[9.0, 9.0, 9.0]), ("other", &[9.1, 9.0, 0.5])]);
        assert_eq!(quiet.winner(), "own");
        // One busy round that met one way alone.
        let busy = tuned(&[("own", &[1.0, 9.0, 1.0]), ("other", &[0.99, 1.0, 1.0])]);
        assert_eq!(busy.winner(), "own");
    }
}
