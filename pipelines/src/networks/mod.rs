//! Networks as values: what each takes and makes, and its graph.
//!
//! A new one is a file here, with a function that recognises its configuration and describes it, and an entry in [`NETWORKS`].
//! `toy.rs` shows one of them whole.

mod dit;
mod pixart;
mod stable_diffusion;
#[cfg(test)]
mod toy;
mod unconditional;

use crate::error::PipelineError;
use graph::{Scope, Tensor};
use models::{ModelFiles, ModelIndex};
use std::fmt;

/// Describes a checkpoint's network, if it is of the kind that this function knows.
pub(crate) type ReadNetwork = fn(&ModelFiles, &ModelIndex) -> Result<Option<Network>, PipelineError>;

/// Every kind of network. The first that knows a checkpoint's is asked; the last one explains why nobody does.
pub(crate) const NETWORKS: &[ReadNetwork] = &[unconditional::read, dit::read, pixart::read, stable_diffusion::read];

/// Something that a network is conditioned on besides its sample and the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    /// As the network asks for it.
    pub(crate) name: &'static str,
    /// Where its numbers come from.
    pub(crate) source: Source,
}

/// Where a condition's numbers come from; extents are of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `[S, D]`: the prompt, token by token.
    Text,
    /// `[S]`: 1 for tokens, 0 for padding.
    TextMask,
    /// `[P]`: an embedding of the whole prompt, as SDXL has it.
    TextEmbeds,
    /// A number: the class, or the level of noise over a picture that the network sees.
    Class,
    /// A number: guidance as an input of the network, as latent consistency models have it.
    Guidance,
    /// A number: how beautiful people found the picture, as a refiner of SDXL has it.
    AestheticScore,
}

impl Source {
    /// As a condition of this name.
    pub(crate) fn named(self, name: &'static str) -> Condition {
        Condition { name, source: self }
    }
}

/// A network, as pipelines use it.
pub(crate) struct Network {
    /// The folder of its weights.
    pub(crate) folder: &'static str,
    /// Channels of the sample.
    pub(crate) channels: usize,
    /// Height and width of the sample that it was trained on.
    pub(crate) sample_extents: [usize; 2],
    /// What the sample's sides are multiples of.
    pub(crate) side_multiple: usize,
    /// Elements of the sample along a side of what the network counts its work by: a patch, or an element where a UNet is narrowest.
    pub(crate) patch: usize,
    /// What it is conditioned on.
    pub(crate) conditions: Vec<Condition>,
    /// What it reads of a prompt, if it reads one.
    pub(crate) text: Option<TextInput>,
    /// Its classes, if it was trained with some.
    pub(crate) classes: Option<Classes>,
    /// How it can be guided.
    pub(crate) guidance: Guidance,
    /// What it sees in further channels behind the sample's own.
    pub(crate) concatenated: Concatenated,
    /// Whether sizes are rounded to those that it was trained on, and the picture fitted to the size asked for afterwards.
    pub(crate) bins: bool,
    /// Whether it was trained on pictures of several sizes, and makes good ones somewhat beyond them, too.
    pub(crate) several_sizes: bool,
    /// Whether its pipeline steps a sample and its copy under guidance, so that each step's draw is of both.
    pub(crate) draws_twice: bool,
    /// What diffusers takes where neither checkpoint nor user says.
    pub(crate) defaults: Defaults,
    /// Its graph.
    pub(crate) build: Build,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("folder", &self.folder)
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

/// Builds a network around its inputs. The result is a prediction of the sample's own extents.
pub(crate) type Build = Box<dyn Fn(&Scope, &Inputs<'_>) -> Tensor + Send + Sync>;

/// What a network reads of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextInput {
    /// Channels of every token.
    pub(crate) channels: usize,
    /// Channels of the embedding of a whole prompt, if it takes one.
    pub(crate) pooled: Option<usize>,
    /// Whether padding is hidden from the text encoder and the network. Stable Diffusion was trained to see it.
    pub(crate) masks_padding: bool,
}

/// Classes that a network draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Classes {
    /// How many there are, counted from 0.
    pub(crate) count: usize,
    /// The class that stands for none of them under guidance, if it was trained with one.
    pub(crate) null: Option<usize>,
}

/// How a network is guided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guidance {
    /// Not at all.
    None,
    /// It predicts twice, and the difference is enlarged (Ho & Salimans 2022).
    ClassifierFree,
    /// It takes guidance as an input, and predicts once.
    Embedded,
}

/// What a network sees in further channels behind the sample's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concatenated {
    /// Nothing.
    Nothing,
    /// A mask, and the latents of a picture without what is white there: this many channels together.
    Mask(usize),
    /// A picture of the sample's size with three channels, under noise of a level that is its class. `levels` says how many levels it
    /// knows, counted from 0; none if it takes any.
    Picture {
        /// How many levels of noise it knows.
        levels: Option<usize>,
    },
}

impl Concatenated {
    /// Channels of it.
    pub(crate) fn channels(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Mask(channels) => channels,
            Self::Picture { .. } => 3,
        }
    }
}

/// What diffusers takes where neither checkpoint nor user says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Defaults {
    pub(crate) guidance_scale: f64,
    pub(crate) steps: usize,
    /// Share of the schedule that image to image runs.
    pub(crate) image_strength: f64,
    /// The same of inpainting.
    pub(crate) inpaint_strength: f64,
    /// Guidance of inpainting.
    pub(crate) inpaint_guidance_scale: f64,
}

impl Defaults {
    /// Those of a network that no pipeline of diffusers edits pictures with.
    pub(crate) fn new(guidance_scale: f64, steps: usize) -> Self {
        let (image_strength, inpaint_strength) = (0.8, 1.0);
        Self { guidance_scale, steps, image_strength, inpaint_strength, inpaint_guidance_scale: guidance_scale }
    }
}

/// What a network's graph is built around: everything for one batch of B.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    /// `[B, H, W, C]`, scaled by `c_in`; behind its own channels, those that the network sees besides.
    pub(crate) sample: &'a Tensor,
    /// `[B]`.
    pub(crate) timestep: &'a Tensor,
    /// `[B, …]` each, by name.
    pub(crate) conditions: &'a [(&'static str, Tensor)],
    /// Pixels of the picture along a side of an element of the sample.
    pub(crate) pixels_per_element: usize,
}

impl Inputs<'_> {
    /// A condition, where there is one.
    pub(crate) fn get(&self, name: &str) -> Option<&Tensor> {
        self.conditions.iter().find(|(own, _)| *own == name).map(|(_, tensor)| tensor)
    }

    /// B.
    pub(crate) fn batch(&self) -> usize {
        self.sample.extent(0)
    }

    /// Height and width of the picture in pixels.
    pub(crate) fn picture_extents(&self) -> [f32; 2] {
        [1, 2].map(|axis| (self.sample.extent(axis) * self.pixels_per_element) as f32)
    }
}

impl Network {
    /// Describes a checkpoint's network by the first of these kinds that knows it.
    pub(crate) fn read(files: &ModelFiles, index: &ModelIndex, kinds: &[ReadNetwork]) -> Result<Self, PipelineError> {
        for read in kinds {
            if let Some(network) = read(files, index)? {
                return Ok(network);
            }
        }
        let (path, class) = (&index.path, &index.class_name);
        Err(PipelineError::Checkpoint(format!("{path}: the pipeline {class} is not supported")))
    }
}
