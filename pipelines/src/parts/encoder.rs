//! From pictures to latents.

use super::autoencoder::Decoder;
use crate::conditioning::SampleShape;
use crate::devices::residency::{Host, Places, lock};
use crate::error::PipelineError;
use crate::picture::tiles::{Blend, Grid};
use graph::{Graph, Plan, Rate, Scope};
use models::{Checkpoint, ModelFiles, autoencoder_kl_encode, autoencoder_tiny_encode};
use std::sync::{Arc, Mutex};

/// The half of an autoencoder that makes latents of pictures. Its weights are opened only when the first picture comes.
pub(crate) struct Encoder {
    files: ModelFiles,
    weights: Mutex<Option<Arc<Checkpoint>>>,
    /// By the extents of a tile.
    plans: Places<SampleShape, Box<dyn Plan>>,
    /// What was encoded last: several images are often made from one picture.
    known: Mutex<Vec<(SampleShape, Vec<f32>, Latents)>>,
}

/// An image is made from two pictures at most: the one given, and what a mask leaves of it.
const KNOWN: usize = 2;

/// The half that makes pictures of latents.
const DECODER: &[&str] = &["decoder.", "post_quant_conv."];

/// Latents of a picture, or the normal distribution that they are drawn from, `[H, W, C]`.
#[derive(Debug, Clone)]
pub(crate) struct Latents {
    mean: Vec<f32>,
    /// None where there is nothing to draw.
    deviation: Option<Vec<f32>>,
    /// What is subtracted from each channel once they are drawn, and what it is multiplied by after that.
    normalization: Vec<(f32, f32)>,
}

impl Latents {
    /// The latents themselves. `draw` is asked for standard normal noise, where there is a distribution.
    pub(crate) fn sample(self, draw: impl FnOnce() -> Vec<f32>) -> Vec<f32> {
        let drawn = match &self.deviation {
            Some(deviation) => {
                let noise = draw();
                self.mean.iter().zip(deviation).zip(&noise).map(|((mean, std), noise)| mean + std * noise).collect()
            }
            None => return self.mean(),
        };
        Self { mean: drawn, ..self }.mean()
    }

    /// The latents that are likeliest.
    pub(crate) fn mean(self) -> Vec<f32> {
        let channels = self.normalization.iter().cycle();
        self.mean.into_iter().zip(channels).map(|(value, (shift, scale))| (value - shift) * scale).collect()
    }
}

impl Encoder {
    pub(crate) fn new(files: &ModelFiles) -> Self {
        Self { files: files.clone(), weights: Mutex::default(), plans: Places::default(), known: Mutex::default() }
    }

    /// The latents of a picture `[H, W, C]` of −1..1, in tiles of at most `tile` latents a side. The last few are remembered.
    pub(crate) async fn encode(
        &self,
        kind: &Decoder,
        host: &Host,
        picture: &[f32],
        shape: SampleShape,
        tile: usize,
    ) -> Result<Latents, PipelineError> {
        // Pictures of one colour differ in nothing but their extents.
        let is_known = |(extents, known, _): &&(SampleShape, Vec<f32>, Latents)| *extents == shape && known == picture;
        if let Some((.., latents)) = lock(&self.known).iter().find(is_known) {
            return Ok(latents.clone());
        }
        let latents = self.encode_anew(kind, host, picture, shape, tile).await?;
        let mut known = lock(&self.known);
        known.truncate(KNOWN - 1);
        known.insert(0, (shape, picture.to_vec(), latents.clone()));
        Ok(latents)
    }

    /// The same, and nothing is remembered.
    pub(crate) async fn encode_anew(
        &self,
        kind: &Decoder,
        host: &Host,
        picture: &[f32],
        shape: SampleShape,
        tile: usize,
    ) -> Result<Latents, PipelineError> {
        let factor = kind.factor();
        let (height, width) = (shape.height / factor, shape.width / factor);
        let grid = Grid::over(height, width, tile);
        let [part_height, part_width] = grid.extents().map(|extent| extent * factor);
        let part = SampleShape { height: part_height, width: part_width, ..shape };
        let graph = graph(kind, part)?;
        let weights = self.weights(&graph)?;
        let extents = SampleShape { height, width, channels: kind.latent_channels() };
        let place = self.plans.at(&host.shared, &part);
        let encode_tile = async |tile: &[f32]| {
            let make = async || host.plan(&graph, weights.as_ref()).await;
            let work = async |plan: &mut Box<dyn Plan>| {
                plan.write("image", tile)?;
                plan.run_async().await?;
                let logvar = if matches!(kind, Decoder::Kl(_)) { Some(plan.read_async("logvar").await?) } else { None };
                Ok((plan.read_async("mean").await?, logvar))
            };
            place.with(make, work).await
        };
        let (mut mean, mut deviation) = (Blend::new(extents), Blend::new(extents));
        for tile in grid.tiles() {
            let (tile_mean, logvar) = encode_tile(&grid.cut(tile, picture, shape, factor)).await?;
            mean.add(&tile_mean, &grid, tile, 1);
            if let Some(logvar) = logvar {
                let std: Vec<f32> = logvar.into_iter().map(|logvar| (0.5 * logvar).exp()).collect();
                deviation.add(&std, &grid, tile, 1);
            }
        }
        let mean = mean.finish();
        let latents = match kind {
            Decoder::Kl(config) => {
                #[allow(clippy::cast_possible_truncation, reason = "latents are f32")]
                let normalization = config.normalization().iter().map(|(a, b)| (*a as f32, *b as f32)).collect();
                Latents { mean, deviation: Some(deviation.finish()), normalization }
            }
            // Its graph scales them.
            Decoder::Tiny(_) => Latents { mean, deviation: None, normalization: vec![(0.0, 1.0)] },
        };
        let mut values = latents.mean.iter().chain(latents.deviation.iter().flatten());
        if !values.all(|v| v.is_finite()) {
            return Err(PipelineError::NotEncoded);
        }
        Ok(latents)
    }

    /// What every operation takes, if a picture of this shape was the last, and encoded as a whole.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn profile(&self, shape: SampleShape) -> Result<Vec<graph::NodeTime>, PipelineError> {
        self.plans.profile(&shape)
    }

    /// Lets the plans go.
    pub(crate) async fn let_go(&self) {
        self.plans.let_go().await;
    }

    /// The encoder's weights, opened and checked when the first picture comes.
    fn weights(&self, graph: &Graph) -> Result<Arc<Checkpoint>, PipelineError> {
        let mut weights = lock(&self.weights);
        if let Some(weights) = weights.as_ref() {
            return Ok(Arc::clone(weights));
        }
        let opened = Checkpoint::open(&self.files, "vae", None)?.without(DECODER);
        opened.check(&graph.weights())?;
        Ok(Arc::clone(weights.insert(Arc::new(opened))))
    }
}

/// Of a picture.
pub(crate) fn graph(kind: &Decoder, shape: SampleShape) -> Result<Graph, PipelineError> {
    let s = Scope::root();
    let image = s.input("image", &[1, shape.height, shape.width, shape.channels], Rate::Step);
    Ok(match kind {
        Decoder::Kl(config) => {
            let (mean, logvar) = autoencoder_kl_encode(&s, config, &image);
            s.finish(&[("mean", &mean), ("logvar", &logvar)])?
        }
        Decoder::Tiny(config) => {
            let latents = autoencoder_tiny_encode(&s, config, &image);
            s.finish(&[("mean", &latents)])?
        }
    })
}
