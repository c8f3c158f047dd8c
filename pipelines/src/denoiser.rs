//! D(x; σ) as one graph: scalings, classifier-free guidance and what a model predicts, around the model.

use crate::conditioning::{Conditioning, Layout};
use crate::devices::residency::{Host, Resident};
use crate::error::PipelineError;
use crate::networks::{Build, Inputs};
use crate::reuse::Part;
use graph::{Graph, MemoryUse, Op, Plan, Rate, Scope, Tensor, WeightSource, passes};
use models::seams;
use scheduler::Prediction;

/// Builds the graph of D for N samples, each with its own noise level.
///
/// Its inputs are `x [N, H, W, C]`, `c_skip`, `c_out`, `c_in` `[N, 1, 1, 1]` and `timestep [N]`, which change at every step; and, for a whole
/// generation, every condition of the layout by its name, `concatenated` and, under guidance, `guidance_scale [N, 1, 1, 1]`. Its output is
/// `denoised`, and under guidance `unguided`: the denoised images of the negative prompts alone.
///
/// A part of it has the values at its seams as further inputs, by the seams' names, or as outputs, `kept 0` and so on, `[batch, …]` each. Inputs that
/// it does not read are left out.
pub(crate) fn denoiser_graph(
    layout: &Layout,
    network: &Build,
    pixels_per_element: usize,
) -> Result<Graph, PipelineError> {
    let s = Scope::cut(layout.part.given().as_slice());
    let (samples, batch, shape) = (layout.samples, layout.batch(), layout.shape);
    let scalar = |name| s.input(name, &[samples, 1, 1, 1], Rate::Step);
    let x = s.input("x", &[samples, shape.height, shape.width, shape.channels], Rate::Step);
    let (c_skip, c_out, c_in) = (scalar("c_skip"), scalar("c_out"), scalar("c_in"));
    let timestep = s.input("timestep", &[samples], Rate::Step);
    let conditions: Vec<(&'static str, Tensor)> = layout
        .conditions
        .iter()
        .map(|(name, extents)| (*name, s.input(name, &[&[batch], &extents[..]].concat(), Rate::Once)))
        .collect();

    let twice = |tensor: &Tensor| if layout.guided { Tensor::concat(&[tensor, tensor], 0) } else { tensor.clone() };
    let scaled = &x * &c_in;
    let seen = if layout.concatenated == 0 {
        scaled
    } else {
        let extents = [samples, shape.height, shape.width, layout.concatenated];
        Tensor::concat(&[&scaled, &s.input("concatenated", &extents, Rate::Once)], 3)
    };
    let (sample, timestep) = (twice(&seen), twice(&timestep));
    let inputs = Inputs { sample: &sample, timestep: &timestep, conditions: &conditions, pixels_per_element };
    let output = network(&s, &inputs);
    let kept = kept(&s, layout.part);
    let names: Vec<String> = (0..kept.len()).map(|i| format!("{KEPT}{i}")).collect();
    let mut outputs: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&kept).collect();
    if !layout.part.denoises() {
        return Ok(s.finish(&outputs)?);
    }
    let denoised = |output: &Tensor| &(&c_skip * &x) + &(&c_out * output);
    if !layout.guided {
        let denoised = denoised(&output);
        outputs.push(("denoised", &denoised));
        return Ok(s.finish(&outputs)?);
    }
    // Ho & Salimans 2022, equation 6, in diffusers' form: uncond + g (cond − uncond).
    let guidance_scale = s.input("guidance_scale", &[samples, 1, 1, 1], Rate::Once);
    let (uncond, cond) = (output.slice(0, 0..samples), output.slice(0, samples..batch));
    let guided = denoised(&(&uncond + &(&guidance_scale * &(&cond - &uncond))));
    let unguided = denoised(&uncond);
    outputs.extend([("denoised", &guided), ("unguided", &unguided)]);
    Ok(s.finish(&outputs)?)
}

/// What names of outputs that are kept begin with.
const KEPT: &str = "kept ";

/// Whether a graph gives values that are kept.
pub(crate) fn has_kept(graph: &Graph) -> bool {
    graph.outputs().iter().any(|(name, _)| name.starts_with(KEPT))
}

/// The values that this part keeps, in the order of the network; of the first part, the block's result and what it added to what it was given.
fn kept(s: &Scope, part: Part) -> Vec<Tensor> {
    let at = |role| s.seams(role).into_iter().map(|(_, value)| value);
    let own = part.kept().into_iter().flat_map(at);
    if part != Part::First {
        return own.collect();
    }
    own.zip(at(seams::BEFORE_BLOCKS)).flat_map(|(after, before)| [after.clone(), &after - &before]).collect()
}

/// D(x; σ) bound to a device, replayed at every step.
pub(crate) struct Denoiser {
    plan: Box<dyn Plan>,
    layout: Layout,
    /// Inputs that the graph really reads: the passes drop the others.
    inputs: Vec<String>,
    /// Those of them that another part has computed, in the order of the network.
    given: Vec<String>,
    /// Outputs that are kept for another part.
    kept: Vec<String>,
    /// Whose conditions are written now.
    written: Option<u64>,
}

/// One sample to be denoised.
#[derive(Clone, Copy)]
pub(crate) struct Evaluation<'a> {
    /// `[H, W, C]`.
    pub(crate) x: &'a [f32],
    pub(crate) sigma: f64,
    pub(crate) timestep: f64,
    /// What the model's output means.
    pub(crate) prediction: Prediction,
    /// What of it is to be computed, and how.
    pub(crate) mode: Mode,
    /// What other parts have computed: a value for every seam, of `[rows, …]` for the rows of the mode.
    pub(crate) given: &'a [Vec<f32>],
}

/// How an evaluation is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Mode {
    /// Whether guidance acts.
    pub(crate) guided: bool,
    /// The part of D(x; σ).
    pub(crate) part: Part,
}

impl Mode {
    /// How often the network predicts.
    pub(crate) fn predictions(self) -> usize {
        1 + usize::from(self.guided)
    }
}

impl Denoiser {
    /// Plans the graph and uploads the weights.
    pub(crate) async fn new(
        host: &Host,
        graph: &Graph,
        layout: &Layout,
        weights: &dyn WeightSource,
    ) -> Result<Self, PipelineError> {
        let optimized = passes::optimize(graph);
        let inputs: Vec<String> = inputs(graph).filter(|name| optimized.input(name).is_some()).cloned().collect();
        let role = layout.part.given().map_or("", |(role, _)| role);
        let given = if role.is_empty() { Vec::new() } else { inputs.clone() };
        let given = given.into_iter().filter(|name| name.ends_with(role)).collect();
        let outputs = graph.outputs().iter().map(|(name, _)| name.clone());
        let kept = outputs.filter(|name| name.starts_with(KEPT)).collect();
        let plan = host.shared.device().plan_async(&optimized, weights, host.options).await?;
        let layout = layout.clone();
        Ok(Self { plan, layout, inputs, given, kept, written: None })
    }

    /// Sets an input, if the graph reads it.
    fn write(&mut self, name: &str, data: &[f32]) -> Result<(), PipelineError> {
        if self.inputs.iter().any(|own| own == name) {
            self.plan.write(name, data)?;
        }
        Ok(())
    }

    /// Sets what stays for a whole generation of these samples, unless it was set last for the same `owner`; beside their conditions what they have
    /// kept of other parts for good, if they have.
    pub(crate) fn condition(
        &mut self,
        owner: u64,
        samples: &[&Conditioning],
        kept: &[&[Vec<f32>]],
    ) -> Result<(), PipelineError> {
        if self.written == Some(owner) {
            return Ok(());
        }
        debug_assert!(samples.iter().all(|sample| self.layout.fits(sample)), "another layout");
        self.written = None;
        if self.layout.part.given().is_some_and(|(_, rate)| rate == Rate::Once) {
            self.give(kept)?;
        }
        for i in 0..self.layout.conditions.len() {
            let data = self.layout.gather(samples, i);
            self.write(self.layout.conditions[i].0, &data)?;
        }
        let place = |at: usize| samples.get(at).unwrap_or(&samples[0]);
        if self.layout.concatenated > 0 {
            let all: Vec<f32> = (0..self.layout.samples).flat_map(|i| place(i).concatenated.iter().copied()).collect();
            self.write("concatenated", &all)?;
        }
        if self.layout.guided {
            let scales: Vec<f32> = (0..self.layout.samples).map(|i| narrow(place(i).guidance_scale)).collect();
            self.write("guidance_scale", &scales)?;
        }
        self.written = Some(owner);
        Ok(())
    }

    /// The denoised images of these samples, `[H, W, C]` one after the other, in the places that [`condition`](Self::condition) gave them.
    /// A place without a sample (`None`) is computed as well and means nothing. A part that does not denoise gives nothing.
    pub(crate) async fn denoise(&mut self, samples: &[Option<Evaluation<'_>>]) -> Result<Vec<f32>, PipelineError> {
        if self.layout.part.given().is_some_and(|(_, rate)| rate == Rate::Step) {
            let given: Vec<&[Vec<f32>]> =
                samples.iter().map(|sample| sample.map_or(&[][..], |own| own.given)).collect();
            self.give(&given)?;
        }
        let size = self.layout.shape.numel();
        let mut x = vec![0.0; self.layout.samples * size];
        let mut scalars = [(); 4].map(|()| vec![1.0; self.layout.samples]);
        for (at, sample) in samples.iter().enumerate() {
            let Some(sample) = sample else { continue };
            x[at * size..(at + 1) * size].copy_from_slice(sample.x);
            let scalings = sample.prediction.scalings(sample.sigma, sample.timestep);
            let values = [scalings.c_skip, scalings.c_out, scalings.c_in, scalings.c_noise];
            scalars.iter_mut().zip(values).for_each(|(scalar, value)| scalar[at] = narrow(value));
        }
        for (name, values) in ["c_skip", "c_out", "c_in", "timestep"].iter().zip(&scalars) {
            self.write(name, values)?;
        }
        self.write("x", &x)?;
        self.plan.run_async().await?;
        if !self.layout.part.denoises() {
            return Ok(Vec::new());
        }
        Ok(self.plan.read_async("denoised").await?)
    }

    /// Writes what other parts have computed, for every place a value for every seam; a place that has none gets zeros.
    fn give(&mut self, places: &[&[Vec<f32>]]) -> Result<(), PipelineError> {
        let (rows, count) = (self.layout.rows(), self.layout.samples);
        for (seam, name) in self.given.iter().enumerate() {
            let values = |place: usize| places.get(place).and_then(|own| own.get(seam));
            let size = (0..count).find_map(values).map_or(0, Vec::len) / rows;
            let mut data = vec![0.0; rows * count * size];
            for (row, place) in (0..rows).flat_map(|row| (0..count).map(move |place| (row, place))) {
                let Some(own) = values(place) else { continue };
                data[(row * count + place) * size..][..size].copy_from_slice(&own[row * size..][..size]);
            }
            self.plan.write(name, &data)?;
        }
        Ok(())
    }

    /// What the last [`denoise`](Self::denoise) gave at its seams: for every place a value for every seam, the place's rows one after the other.
    pub(crate) async fn kept(&mut self) -> Result<Vec<Vec<Vec<f32>>>, PipelineError> {
        let (rows, places) = (self.layout.rows(), self.layout.samples);
        let mut all = vec![Vec::with_capacity(self.kept.len()); places];
        for name in &self.kept {
            let values = self.plan.read_async(name).await?;
            let size = values.len() / (rows * places);
            for (place, own) in all.iter_mut().enumerate() {
                let of = |row| &values[(row * places + place) * size..][..size];
                own.push((0..rows).flat_map(of).copied().collect());
            }
        }
        Ok(all)
    }

    /// The denoised images of the last [`denoise`](Self::denoise) without guidance.
    pub(crate) async fn unguided(&mut self) -> Result<Vec<f32>, PipelineError> {
        Ok(self.plan.read_async("unguided").await?)
    }

    /// What every operation takes; needs a call of [`denoise`](Self::denoise) before, for its inputs.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn profile(&mut self) -> Result<Vec<graph::NodeTime>, PipelineError> {
        Ok(self.plan.profile()?)
    }
}

impl Resident for Denoiser {
    fn memory(&self) -> MemoryUse {
        self.plan.memory()
    }
}

/// Names of a graph's inputs, in the order in which it was built.
fn inputs(graph: &Graph) -> impl Iterator<Item = &String> {
    graph.nodes().iter().filter_map(|node| if let Op::Input(input) = &node.op { Some(&input.name) } else { None })
}

#[allow(clippy::cast_possible_truncation, reason = "devices compute in f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}
