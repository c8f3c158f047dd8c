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
    /// Ways and the seconds of their fastest round, because whatever else a machine does only ever adds to them; the device's own
    /// choice first. What took far longer than the rest in its first round was not measured again.
    pub ways: Vec<(&'static str, f64)>,
}

/// Another way must be so many times as fast as the device's own choice to be taken: less is noise.
const WORTH: f64 = 1.05;

/// What takes so many times as long as the fastest in the first round is given up.
const HOPELESS: f64 = 3.0;

impl Tuned {
    /// The way to take.
    #[must_use]
    pub fn winner(&self) -> &'static str {
        let (own, own_seconds) = self.ways[0];
        let (fastest, seconds) =
            self.ways.iter().fold((own, own_seconds), |best, way| if way.1 < best.1 { *way } else { best });
        if own_seconds > seconds * WORTH { fastest } else { own }
    }

    /// How many times as fast the winner is as the device's own choice.
    #[must_use]
    pub fn gain(&self) -> f64 {
        let winner = self.winner();
        let seconds = self.ways.iter().find(|(way, _)| *way == winner).map_or(f64::NAN, |(_, seconds)| *seconds);
        self.ways[0].1 / seconds
    }
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

    /// Seconds of a graph's one operation in each way.
    fn measure(
        &self,
        graph: &Graph,
        options: PlanOptions,
        shape: &str,
        ways: &[&'static str],
        rounds: usize,
    ) -> Result<Vec<(&'static str, f64)>, PipelineError> {
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
        Ok(plans.into_iter().map(|(way, _, times)| (way, times.into_iter().fold(f64::INFINITY, f64::min))).collect())
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
        let tuned = |ways: &[(&'static str, f64)]| Tuned { shape: String::new(), ways: ways.to_vec() };
        assert_eq!(tuned(&[("own", 1.0), ("other", 0.97)]).winner(), "own");
        let faster = tuned(&[("own", 1.0), ("other", 0.5), ("third", 0.6)]);
        assert_eq!((faster.winner(), faster.gain()), ("other", 2.0));
        assert_eq!(tuned(&[("own", 1.0), ("slower", 2.0)]).gain(), 1.0);
    }
}
