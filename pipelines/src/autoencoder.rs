//! From latents to pictures, and back.

use crate::denoiser::SampleShape;
use crate::encoder::{Encoder, Latents};
use crate::error::PipelineError;
use crate::tiles::{self, Blend, Tiles};
use graph::{Device, DeviceError, Graph, MemoryUse, Plan, PlanOptions, Rate, Scope, Tensor, passes};
use models::{
    AutoencoderKlConfig, AutoencoderTinyConfig, Checkpoint, ModelFiles, ModelIndex, autoencoder_kl_decode,
    autoencoder_tiny_decode,
};

/// The decoder of a latent diffusion model, and its encoder where a picture comes.
pub(crate) struct Autoencoder {
    decoder: Decoder,
    encoder: Encoder,
    weights: Checkpoint,
    /// Planned for latents of this shape.
    plan: Option<(SampleShape, Box<dyn Plan>)>,
}

pub(crate) enum Decoder {
    Kl(AutoencoderKlConfig),
    Tiny(AutoencoderTinyConfig),
}

impl Decoder {
    pub(crate) fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(config) => config.latent_channels,
            Self::Tiny(config) => config.latent_channels,
        }
    }

    /// Channels of a picture, and pixels along a side of one latent, of what the encoder takes and makes.
    fn taken(&self) -> (usize, usize) {
        match self {
            Self::Kl(config) => (config.in_channels, config.factor()),
            Self::Tiny(config) => (config.in_channels, config.encoder_factor()),
        }
    }

    fn out_channels(&self) -> usize {
        match self {
            Self::Kl(config) => config.out_channels,
            Self::Tiny(config) => config.out_channels,
        }
    }

    fn factor(&self) -> usize {
        match self {
            Self::Kl(config) => config.factor(),
            Self::Tiny(config) => config.factor(),
        }
    }

    fn build(&self, s: &Scope, latents: &Tensor) -> Tensor {
        match self {
            Self::Kl(config) => autoencoder_kl_decode(s, config, latents),
            Self::Tiny(config) => autoencoder_tiny_decode(s, config, latents),
        }
    }
}

/// Side in latents below which no tile goes: what a decoder makes of so few says little about the picture.
const SMALLEST_TILE: usize = 8;

/// The half that makes latents of pictures.
const ENCODER: &[&str] = &["encoder.", "quant_conv."];

impl Autoencoder {
    /// Reads and checks the pipeline's autoencoder; none if it has none.
    pub(crate) fn load(files: &ModelFiles, index: &ModelIndex) -> Result<Option<Self>, PipelineError> {
        if index.component("vae").is_none() {
            return Ok(None);
        }
        let class = &index.require("vae", &["AutoencoderKL", "AutoencoderTiny"])?.class_name;
        let (path, text) = (files.describe("vae/config.json"), files.read("vae/config.json")?);
        let decoder = if class == "AutoencoderTiny" {
            Decoder::Tiny(AutoencoderTinyConfig::from_json(&path, &text)?)
        } else {
            Decoder::Kl(AutoencoderKlConfig::from_json(&path, &text)?)
        };
        let weights = Checkpoint::open(files, "vae", None)?.without(ENCODER);
        let model = Self { decoder, encoder: Encoder::new(files), weights, plan: None };
        let smallest = SampleShape { height: 1, width: 1, channels: model.latent_channels() };
        model.weights.check(&model.graph(smallest)?.weights())?;
        Ok(Some(model))
    }

    /// Pixels along a side of one latent.
    pub(crate) fn factor(&self) -> usize {
        self.decoder.factor()
    }

    /// Channels of the latents.
    pub(crate) fn latent_channels(&self) -> usize {
        self.decoder.latent_channels()
    }

    /// Whether what it decodes is a picture.
    pub(crate) fn makes_pictures(&self) -> bool {
        matches!(self.decoder.out_channels(), 1 | 3)
    }

    /// What its plan holds, once there is one.
    pub(crate) fn memory(&self) -> Option<MemoryUse> {
        self.plan.as_ref().map(|(_, plan)| plan.memory())
    }

    fn graph(&self, shape: SampleShape) -> Result<Graph, PipelineError> {
        let s = Scope::root();
        let latents = s.input("latents", &[1, shape.height, shape.width, shape.channels], Rate::Step);
        let image = self.decoder.build(&s, &latents);
        Ok(s.finish(&[("image", &image)])?)
    }

    /// Forgets its plan.
    pub(crate) fn let_go(&mut self) -> bool {
        self.plan.take().is_some()
    }

    /// The picture of latents `[H, W, C]`, about −1..1, with its extents. Where the device has no room for all of it, `make_room` may let
    /// something else go, and tells whether it did; in the end the picture is decoded in tiles.
    pub(crate) fn decode(
        &mut self,
        device: &dyn Device,
        options: PlanOptions,
        latents: &[f32],
        shape: SampleShape,
        mut make_room: impl FnMut() -> bool,
    ) -> Result<(Vec<f32>, SampleShape), PipelineError> {
        let mut tile = shape.height.max(shape.width);
        loop {
            let error = match self.decode_in_tiles(device, options, latents, shape, tile) {
                // More than one value of the graph may hold, or than there is.
                Err(PipelineError::Device(error @ DeviceError::Unsupported { .. })) => error,
                Err(PipelineError::Device(DeviceError::OutOfMemory { .. })) if make_room() => continue,
                Err(PipelineError::Device(error @ DeviceError::OutOfMemory { .. })) => error,
                result => return result,
            };
            self.let_go();
            if tile <= SMALLEST_TILE {
                return Err(error.into());
            }
            tile = tile.div_ceil(2);
        }
    }

    fn decode_in_tiles(
        &mut self,
        device: &dyn Device,
        options: PlanOptions,
        latents: &[f32],
        shape: SampleShape,
        tile: usize,
    ) -> Result<(Vec<f32>, SampleShape), PipelineError> {
        let (rows, columns) = (Tiles::over(shape.height, tile), Tiles::over(shape.width, tile));
        let part = SampleShape { height: rows.extent, width: columns.extent, channels: shape.channels };
        if part == shape {
            return self.decode_whole(device, options, latents, shape);
        }
        let factor = self.factor();
        let (height, width) = (shape.height * factor, shape.width * factor);
        let extents = SampleShape { height, width, channels: self.decoder.out_channels() };
        let mut blend = Blend::new(extents);
        for (y, top) in rows.starts.iter().enumerate() {
            for (x, left) in columns.starts.iter().enumerate() {
                let latents = tiles::cut(latents, shape, (*top, *left), part);
                let (decoded, _) = self.decode_whole(device, options, &latents, part)?;
                blend.add(&decoded, (&rows, y), (&columns, x), factor);
            }
        }
        Ok((blend.finish(), extents))
    }

    fn decode_whole(
        &mut self,
        device: &dyn Device,
        options: PlanOptions,
        latents: &[f32],
        shape: SampleShape,
    ) -> Result<(Vec<f32>, SampleShape), PipelineError> {
        let plan = match self.plan.take() {
            Some((known, plan)) if known == shape => plan,
            // The old plan's memory is free before the new one asks for more.
            old => {
                drop(old);
                device.plan(&passes::optimize(&self.graph(shape)?), &self.weights, options)?
            }
        };
        let factor = self.factor();
        let extents = SampleShape {
            height: shape.height * factor,
            width: shape.width * factor,
            channels: self.decoder.out_channels(),
        };
        let (_, plan) = self.plan.insert((shape, plan));
        plan.write("latents", latents)?;
        plan.run()?;
        Ok((plan.read("image")?, extents))
    }

    /// Channels of the pictures that [`encode`](Self::encode) takes; none if their latents are not what the decoder reads.
    pub(crate) fn picture_channels(&self) -> Option<usize> {
        let (channels, factor) = self.decoder.taken();
        (matches!(channels, 1 | 3) && factor == self.factor()).then_some(channels)
    }

    /// The latents of a picture `[H, W, C]` of −1..1. Where the device has no room for all of it, as [`decode`](Self::decode).
    pub(crate) fn encode(
        &mut self,
        device: (&dyn Device, PlanOptions),
        picture: &[f32],
        shape: SampleShape,
        make_room: &mut dyn FnMut() -> bool,
    ) -> Result<Latents, PipelineError> {
        let factor = self.factor();
        let mut tile = shape.height.max(shape.width) / factor;
        loop {
            let error = match self.encoder.encode(&self.decoder, device, (picture, shape), (tile, factor)) {
                Err(PipelineError::Device(error @ DeviceError::Unsupported { .. })) => error,
                Err(PipelineError::Device(DeviceError::OutOfMemory { .. })) if self.let_go() || make_room() => continue,
                Err(PipelineError::Device(error @ DeviceError::OutOfMemory { .. })) => error,
                result => return result,
            };
            if tile <= SMALLEST_TILE {
                return Err(error.into());
            }
            tile = tile.div_ceil(2);
        }
    }

    /// Whether latents of a picture are drawn from a distribution.
    pub(crate) fn draws(&self) -> bool {
        matches!(self.decoder, Decoder::Kl(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Limited;
    use crate::{DeviceChoice, DeviceSettings, Outcomes, Request, TextToImage, open_device};
    use std::ops::ControlFlow;
    use std::path::Path;

    fn cpu() -> Box<dyn Device> {
        open_device(&DeviceChoice::Cpu, &DeviceSettings::default()).expect("the CPU is always there")
    }

    /// Tiles end in zeros where the picture goes on, so they differ; but they fade into each other without a seam.
    #[test]
    fn tiles_join_without_seams() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines/latent_consistency");
        let files = ModelFiles::folder(folder).expect("a golden");
        let (device, options) = (cpu(), PlanOptions::default());
        let mut pipe = TextToImage::from_pretrained(device.as_ref(), &files, options).expect("a whole checkpoint");
        let request = Request { prompt: "a red square".into(), width: 96, height: 128, seed: 3, ..pipe.defaults() };
        let Ok(Outcomes::Finished(generated)) = pipe.run(&request, |_| ControlFlow::Continue(())) else {
            panic!("no picture")
        };
        let (latents, shape) = (&generated.sample, generated.shape);
        let mut autoencoder = Autoencoder::load(&files, &ModelIndex::read(&files).expect("read before"))
            .expect("loaded before")
            .expect("it has one");
        let (whole, extents) =
            autoencoder.decode(device.as_ref(), options, latents, shape, || false).expect("there is room");
        let memory = autoencoder.memory().expect("planned");
        let limited = Limited::new(cpu(), memory.weights + memory.activations / 2);
        autoencoder.let_go();
        let mut asked = 0;
        let (tiled, _) = autoencoder
            .decode(&limited, options, latents, shape, || {
                asked += 1;
                false
            })
            .expect("tiles fit");
        assert!(asked > 0 && autoencoder.memory().is_some_and(|m| m.activations <= memory.activations / 2));
        let differences: Vec<f32> = tiled.iter().zip(&whole).map(|(a, b)| a - b).collect();
        let row = extents.width * extents.channels;
        let step = |image: &[f32]| image[row..].iter().zip(image).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let (seam, edge) = (step(&differences), step(&whole));
        assert!(seam > 0.0 && seam < 0.03 * edge, "from row to row tiles add {seam} to steps of {edge}");
    }

    /// Latents of tiles differ from those of the whole only where a tile ends and the picture goes on.
    #[test]
    fn pictures_are_encoded_in_tiles_where_there_is_little_room() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines/stable_diffusion");
        let files = ModelFiles::folder(folder).expect("a golden");
        let index = ModelIndex::read(&files).expect("an index");
        let shape = SampleShape { height: 96, width: 128, channels: 3 };
        let wave = |i: usize| ((i / 3 % 128) as f32 * 0.11).sin() * ((i / 384) as f32 * 0.07 + (i % 3) as f32).cos();
        let picture: Vec<f32> = (0..shape.numel()).map(wave).collect();
        let mut rooms = 0;
        let mut encode = |device: &dyn Device| {
            let mut autoencoder = Autoencoder::load(&files, &index).expect("loads").expect("it has one");
            autoencoder.encode((device, PlanOptions::default()), &picture, shape, &mut || {
                rooms += 1;
                false
            })
        };
        let mean = |latents: Latents| latents.sample(|| vec![0.0; 48 * 64 * 4]);
        let whole = mean(encode(cpu().as_ref()).expect("there is room"));
        let tiled = mean(encode(&Limited::new(cpu(), 1 << 20)).expect("tiles fit"));
        let largest = whole.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
        let differences: Vec<f32> = tiled.iter().zip(&whole).map(|(a, b)| (a - b).abs()).collect();
        let (worst, sum) = differences.iter().fold((0.0_f32, 0.0), |(worst, sum), d| (worst.max(*d), sum + d));
        let typical = sum / differences.len() as f32;
        assert!(worst > 0.0 && worst < 0.2 * largest && typical < 0.02 * largest, "{worst}, {typical} of {largest}");
        assert!(encode(&Limited::new(cpu(), 1 << 10)).is_err(), "a kilobyte is too little");
        assert!(rooms >= 2);
    }
}
