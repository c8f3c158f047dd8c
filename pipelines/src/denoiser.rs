//! D(x; σ) as one graph: scalings, classifier-free guidance and what a model predicts, around the model.

use crate::conditioning::{Conditioning, Layout};
use crate::devices::residency::{Host, Resident};
use crate::error::PipelineError;
use crate::networks::{Build, Inputs};
use graph::{Graph, MemoryUse, NodeTime, Plan, Rate, Scope, Tensor, WeightSource, passes};
use scheduler::Prediction;

/// Builds the graph of D for N samples, each with its own noise level.
///
/// Its inputs are `x [N, H, W, C]`, `c_skip`, `c_out`, `c_in` `[N, 1, 1, 1]` and `timestep [N]`, which change at every step; and, for a whole
/// generation, every condition of the layout by its name, `concatenated` and, under guidance, `guidance_scale [N, 1, 1, 1]`. Its output is
/// `denoised`, and under guidance `unguided`: the denoised images of the negative prompts alone.
pub(crate) fn denoiser_graph(
    layout: &Layout,
    network: &Build,
    pixels_per_element: usize,
) -> Result<Graph, PipelineError> {
    let s = Scope::root();
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
    let denoised = |output: &Tensor| &(&c_skip * &x) + &(&c_out * output);
    if !layout.guided {
        return Ok(s.finish(&[("denoised", &denoised(&output))])?);
    }
    // Ho & Salimans 2022, equation 6, in diffusers' form: uncond + g (cond − uncond).
    let guidance_scale = s.input("guidance_scale", &[samples, 1, 1, 1], Rate::Once);
    let (uncond, cond) = (output.slice(0, 0..samples), output.slice(0, samples..batch));
    let guided = denoised(&(&uncond + &(&guidance_scale * &(&cond - &uncond))));
    Ok(s.finish(&[("denoised", &guided), ("unguided", &denoised(&uncond))])?)
}

/// D(x; σ) bound to a device, replayed at every step.
pub(crate) struct Denoiser {
    plan: Box<dyn Plan>,
    layout: Layout,
    /// Conditions that the network really reads: the passes drop the others.
    read: Vec<bool>,
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
    /// Whether guidance acts.
    pub(crate) guided: bool,
}

impl Denoiser {
    /// Plans the graph and uploads the weights.
    pub(crate) fn new(
        host: &Host,
        graph: &Graph,
        layout: &Layout,
        weights: &dyn WeightSource,
    ) -> Result<Self, PipelineError> {
        let graph = passes::optimize(graph);
        let read = layout.conditions.iter().map(|(name, _)| graph.input(name).is_some()).collect();
        let plan = host.shared.device().plan(&graph, weights, host.options)?;
        Ok(Self { plan, layout: layout.clone(), read, written: None })
    }

    /// Sets what stays for a whole generation of these samples, unless it was set last for the same `owner`.
    pub(crate) fn condition(&mut self, owner: u64, samples: &[&Conditioning]) -> Result<(), PipelineError> {
        if self.written == Some(owner) {
            return Ok(());
        }
        debug_assert!(samples.iter().all(|sample| self.layout.fits(sample)), "another layout");
        self.written = None;
        for (i, (name, _)) in self.layout.conditions.iter().enumerate().filter(|(i, _)| self.read[*i]) {
            self.plan.write(name, &self.layout.gather(samples, i))?;
        }
        let place = |at: usize| samples.get(at).unwrap_or(&samples[0]);
        if self.layout.concatenated > 0 {
            let all: Vec<f32> = (0..self.layout.samples).flat_map(|i| place(i).concatenated.iter().copied()).collect();
            self.plan.write("concatenated", &all)?;
        }
        if self.layout.guided {
            let scales: Vec<f32> = (0..self.layout.samples).map(|i| narrow(place(i).guidance_scale)).collect();
            self.plan.write("guidance_scale", &scales)?;
        }
        self.written = Some(owner);
        Ok(())
    }

    /// The denoised images of these samples, `[H, W, C]` one after the other, in the places that [`condition`](Self::condition) gave them.
    /// A place without a sample (`None`) is computed as well and means nothing.
    pub(crate) fn denoise(&mut self, samples: &[Option<Evaluation<'_>>]) -> Result<Vec<f32>, PipelineError> {
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
            self.plan.write(name, values)?;
        }
        self.plan.write("x", &x)?;
        self.plan.run()?;
        Ok(self.plan.read("denoised")?)
    }

    /// The denoised images of the last [`denoise`](Self::denoise) without guidance.
    pub(crate) fn unguided(&mut self) -> Result<Vec<f32>, PipelineError> {
        Ok(self.plan.read("unguided")?)
    }

    /// What every operation takes; needs a call of [`denoise`](Self::denoise) before, for its inputs.
    pub(crate) fn profile(&mut self) -> Result<Vec<NodeTime>, PipelineError> {
        Ok(self.plan.profile()?)
    }
}

impl Resident for Denoiser {
    fn memory(&self) -> MemoryUse {
        self.plan.memory()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "devices compute in f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}
