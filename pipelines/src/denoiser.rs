//! D(x; σ) as one graph: scalings, classifier-free guidance and what a model predicts, around the model.

use crate::error::PipelineError;
use graph::{Device, Graph, NodeTime, Plan, PlanOptions, Rate, Scope, Tensor, WeightSource, passes};
use scheduler::Prediction;

/// Extents of what is denoised, in the model's own space (pixels, or latents).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SampleShape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl SampleShape {
    /// Number of elements.
    #[must_use]
    pub fn numel(&self) -> usize {
        self.height * self.width * self.channels
    }
}

/// What a model function is given: everything for one batch. It answers with a prediction of the sample's own shape.
#[derive(Debug)]
pub struct ModelInputs<'a> {
    /// `[B, H, W, C]`, scaled by `c_in`; behind its own channels, those of what it sees beside it.
    pub sample: &'a Tensor,
    /// `[B]`.
    pub timestep: &'a Tensor,
    /// `[B, S, D]`, where the model reads text.
    pub encoder_hidden_states: Option<&'a Tensor>,
    /// `[B, S]`: 1 for tokens, 0 for padding; with the text.
    pub encoder_attention_mask: Option<&'a Tensor>,
    /// `[B, P]`: an embedding of each whole prompt, as SDXL has it.
    pub text_embeds: Option<&'a Tensor>,
    /// `[1]`: guidance as an input of the network, as latent consistency models have it.
    pub embedded_guidance: Option<&'a Tensor>,
    /// `[B]`: the class of each sample, where the model has classes.
    pub class_labels: Option<&'a Tensor>,
}

/// The prompt, or the class, as the model reads it: with guidance, the negative prompt or no class first.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditioning {
    /// `[B, S, D]`, row-major.
    pub encoder_hidden_states: Vec<f32>,
    /// `[B, S]`: 1 for tokens, 0 for padding.
    pub encoder_attention_mask: Vec<f32>,
    /// `[B, P]`; empty where the model takes none.
    pub text_embeds: Vec<f32>,
    /// S; 0 where the model reads no text.
    pub tokens: usize,
    /// D.
    pub channels: usize,
    /// Weight of the prompt against the negative prompt; absent when only the prompt is given, B being 1.
    pub guidance_scale: Option<f64>,
    /// The same as an input of the network, for one that was distilled with guidance.
    pub embedded_guidance: Option<f64>,
    /// `[B]`; empty where the model has no classes.
    pub class_labels: Vec<f32>,
    /// `[H, W, E]`: further channels that the model sees as they are, behind the sample's, the same for the whole batch; empty of most.
    pub beside: Vec<f32>,
}

impl Conditioning {
    /// B.
    pub(crate) fn batch(&self) -> usize {
        if self.guidance_scale.is_some() { 2 } else { 1 }
    }
}

/// Builds the graph of D. Its inputs are `x`, `c_skip`, `c_out`, `c_in`, `timestep`, and `encoder_hidden_states`,
/// `encoder_attention_mask`, `text_embeds`, `embedded_guidance`, `class_labels`, `beside`, `guidance_scale` (each where the model and the conditioning have it) that
/// stay for a whole generation; its output is `denoised`, and with guidance, where it is asked for, `unguided`: the denoised image of the
/// negative prompt alone.
pub fn denoiser_graph(
    shape: SampleShape,
    conditioning: &Conditioning,
    unguided: bool,
    model: impl FnOnce(&Scope, &ModelInputs<'_>) -> Tensor,
) -> Result<Graph, PipelineError> {
    let s = Scope::root();
    let SampleShape { height, width, channels } = shape;
    let (batch, tokens) = (conditioning.batch(), conditioning.tokens);
    let scalar = |name| s.input(name, &[1], Rate::Step);
    let x = s.input("x", &[1, height, width, channels], Rate::Step);
    let (c_skip, c_out, c_in, timestep) = (scalar("c_skip"), scalar("c_out"), scalar("c_in"), scalar("timestep"));
    let text = (tokens > 0).then(|| {
        let hidden = s.input("encoder_hidden_states", &[batch, tokens, conditioning.channels], Rate::Once);
        (hidden, s.input("encoder_attention_mask", &[batch, tokens], Rate::Once))
    });
    let text_embeds = &conditioning.text_embeds;
    let text_embeds =
        (!text_embeds.is_empty()).then(|| s.input("text_embeds", &[batch, text_embeds.len() / batch], Rate::Once));
    let embedded_guidance = conditioning.embedded_guidance.map(|_| s.input("embedded_guidance", &[1], Rate::Once));
    let class_labels = (!conditioning.class_labels.is_empty()).then(|| s.input("class_labels", &[batch], Rate::Once));

    let beside = conditioning.beside.len() / (height * width);
    let beside = (beside > 0).then(|| s.input("beside", &[1, height, width, beside], Rate::Once));

    let repeat = |tensor: &Tensor| if batch == 1 { tensor.clone() } else { Tensor::concat(&[tensor, tensor], 0) };
    let scaled = &x * &c_in;
    let seen = beside.map_or_else(|| scaled.clone(), |beside| Tensor::concat(&[&scaled, &beside], 3));
    let (sample, timestep) = (repeat(&seen), repeat(&timestep));
    let inputs = ModelInputs {
        sample: &sample,
        timestep: &timestep,
        encoder_hidden_states: text.as_ref().map(|(hidden, _)| hidden),
        encoder_attention_mask: text.as_ref().map(|(_, mask)| mask),
        text_embeds: text_embeds.as_ref(),
        embedded_guidance: embedded_guidance.as_ref(),
        class_labels: class_labels.as_ref(),
    };
    let output = model(&s, &inputs);
    let denoised = |output: &Tensor| &(&c_skip * &x) + &(&c_out * output);
    if batch == 1 {
        return Ok(s.finish(&[("denoised", &denoised(&output))])?);
    }
    // Ho & Salimans 2022, equation 6, in diffusers' form: uncond + g (cond − uncond).
    let guidance_scale = s.input("guidance_scale", &[1], Rate::Once);
    let (uncond, cond) = (output.slice(0, 0..1), output.slice(0, 1..2));
    let guided = denoised(&(&uncond + &(&guidance_scale * &(&cond - &uncond))));
    if unguided {
        return Ok(s.finish(&[("denoised", &guided), ("unguided", &denoised(&uncond))])?);
    }
    Ok(s.finish(&[("denoised", &guided)])?)
}

/// D(x; σ) bound to a device, replayed at every step.
pub struct Denoiser {
    plan: Box<dyn Plan>,
    prediction: Prediction,
    masked: bool,
}

impl Denoiser {
    /// Plans the graph and uploads the weights.
    ///
    /// # Errors
    /// As [`Device::plan`].
    pub fn new(
        device: &dyn Device,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: PlanOptions,
        prediction: Prediction,
    ) -> Result<Self, PipelineError> {
        let graph = passes::optimize(graph);
        let masked = graph.input("encoder_attention_mask").is_some();
        Ok(Self { plan: device.plan(&graph, weights, options)?, prediction, masked })
    }

    /// Sets what stays for a whole generation.
    ///
    /// # Errors
    /// When the conditioning has other extents than the graph, or the device fails.
    pub fn condition(&mut self, conditioning: &Conditioning) -> Result<(), PipelineError> {
        if conditioning.tokens > 0 {
            self.plan.write("encoder_hidden_states", &conditioning.encoder_hidden_states)?;
        }
        // Networks that see padding have no such input.
        if self.masked {
            self.plan.write("encoder_attention_mask", &conditioning.encoder_attention_mask)?;
        }
        if !conditioning.text_embeds.is_empty() {
            self.plan.write("text_embeds", &conditioning.text_embeds)?;
        }
        if !conditioning.class_labels.is_empty() {
            self.plan.write("class_labels", &conditioning.class_labels)?;
        }
        if !conditioning.beside.is_empty() {
            self.plan.write("beside", &conditioning.beside)?;
        }
        if let Some(guidance) = conditioning.embedded_guidance {
            self.plan.write("embedded_guidance", &[narrow(guidance)])?;
        }
        if let Some(scale) = conditioning.guidance_scale {
            self.plan.write("guidance_scale", &[narrow(scale)])?;
        }
        Ok(())
    }

    /// What the model predicts.
    pub fn set_prediction(&mut self, prediction: Prediction) {
        self.prediction = prediction;
    }

    /// The denoised image of `x`, both `[H, W, C]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn denoise(&mut self, x: &[f32], sigma: f64, timestep: f64) -> Result<Vec<f32>, PipelineError> {
        let scalings = self.prediction.scalings(sigma, timestep);
        let scalars = [
            ("c_skip", scalings.c_skip),
            ("c_out", scalings.c_out),
            ("c_in", scalings.c_in),
            ("timestep", scalings.c_noise),
        ];
        for (name, value) in scalars {
            self.plan.write(name, &[narrow(value)])?;
        }
        self.plan.write("x", x)?;
        self.plan.run()?;
        Ok(self.plan.read("denoised")?)
    }

    /// The denoised image of the last [`denoise`](Self::denoise) without guidance, of a graph that was built to give it.
    ///
    /// # Errors
    /// When the graph was not, or the device fails.
    pub fn unguided(&mut self) -> Result<Vec<f32>, PipelineError> {
        Ok(self.plan.read("unguided")?)
    }

    /// What every operation takes; needs a call of [`denoise`](Self::denoise) before, for its inputs.
    ///
    /// # Errors
    /// When the device fails.
    pub fn profile(&mut self) -> Result<Vec<NodeTime>, PipelineError> {
        Ok(self.plan.profile()?)
    }

    /// Memory the plan holds.
    #[must_use]
    pub fn memory(&self) -> graph::MemoryUse {
        self.plan.memory()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "devices compute in f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}
