//! From latents to pictures, and back.

use super::encoder::{self, Encoder, Latents};
use crate::conditioning::SampleShape;
use crate::devices::residency::{Host, Places};
use crate::error::PipelineError;
use crate::picture::tiles::{Blend, Grid};
use graph::{DeviceError, Graph, MemoryUse, Plan, Rate, Scope, Tensor, WeightSource};
use models::{
    AutoencoderKlConfig, AutoencoderTinyConfig, Checkpoint, ModelFiles, ModelIndex, autoencoder_kl_decode,
    autoencoder_tiny_decode,
};

/// The decoder of a latent diffusion model, and its encoder where a picture comes.
pub(crate) struct Autoencoder {
    decoder: Decoder,
    encoder: Encoder,
    weights: Checkpoint,
    left_over: Vec<String>,
    /// By the latents' extents.
    plans: Places<SampleShape, Box<dyn Plan>>,
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

    pub(crate) fn factor(&self) -> usize {
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

/// The smallest side of a tile, in latents: a decoder that sees fewer at once knows too little of the surroundings.
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
        let (encoder, left_over) = (Encoder::new(files), Vec::new());
        let mut model = Self { decoder, encoder, weights, left_over, plans: Places::default() };
        let smallest = SampleShape { height: 1, width: 1, channels: model.latent_channels() };
        model.left_over = model.weights.check(&model.graph(smallest)?.weights())?;
        Ok(Some(model))
    }

    /// Tensors that the decoder does not read.
    pub(crate) fn left_over(&self) -> &[String] {
        &self.left_over
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

    /// What its plans hold.
    pub(crate) fn memory(&self) -> MemoryUse {
        self.plans.memory()
    }

    /// What the plan for latents of this shape will hold.
    pub(crate) fn estimate(&self, host: &Host, shape: SampleShape) -> Result<MemoryUse, PipelineError> {
        Ok(host.estimate(&self.graph(shape)?, &self.weights))
    }

    /// Floating-point operations of decoding latents of this shape and encoding their picture again.
    pub(crate) fn flops(&self, shape: SampleShape) -> Result<f64, PipelineError> {
        let factor = self.factor();
        let (channels, _) = self.decoder.taken();
        let extents = SampleShape { height: shape.height * factor, width: shape.width * factor, channels };
        let both = [self.graph(shape)?, encoder::graph(&self.decoder, extents)?];
        Ok(both.iter().map(|graph| graph.cost(Rate::Step).flops as f64).sum())
    }

    /// Operations that decoding takes alone.
    pub(crate) fn decoding_flops(&self, shape: SampleShape) -> Result<u64, PipelineError> {
        Ok(self.graph(shape)?.cost(Rate::Step).flops)
    }

    /// The graph that decodes latents of this shape, with its weights.
    pub(crate) fn decoding(&self, shape: SampleShape) -> Result<(Graph, &dyn WeightSource), PipelineError> {
        Ok((self.graph(shape)?, &self.weights))
    }

    fn graph(&self, shape: SampleShape) -> Result<Graph, PipelineError> {
        let s = Scope::root();
        let latents = s.input("latents", &[1, shape.height, shape.width, shape.channels], Rate::Step);
        let image = self.decoder.build(&s, &latents);
        Ok(s.finish(&[("image", &image)])?)
    }

    /// The picture of latents `[H, W, C]`, about −1..1, with its extents. Where the device has no room for all of it, it is decoded in tiles.
    pub(crate) async fn decode(
        &self,
        host: &Host,
        latents: &[f32],
        shape: SampleShape,
    ) -> Result<(Vec<f32>, SampleShape), PipelineError> {
        let decode = async |tile| self.decode_in_tiles(host, latents, shape, tile).await;
        in_smaller_tiles(shape.height.max(shape.width), decode).await
    }

    async fn decode_in_tiles(
        &self,
        host: &Host,
        latents: &[f32],
        shape: SampleShape,
        tile: usize,
    ) -> Result<(Vec<f32>, SampleShape), PipelineError> {
        let grid = Grid::over(shape.height, shape.width, tile);
        let [height, width] = grid.extents();
        let part = SampleShape { height, width, ..shape };
        if part == shape {
            return self.decode_whole(host, latents, shape).await;
        }
        let factor = self.factor();
        let (height, width) = (shape.height * factor, shape.width * factor);
        let extents = SampleShape { height, width, channels: self.decoder.out_channels() };
        let mut blend = Blend::new(extents);
        for tile in grid.tiles() {
            let (decoded, _) = self.decode_whole(host, &grid.cut(tile, latents, shape, 1), part).await?;
            blend.add(&decoded, &grid, tile, factor);
        }
        Ok((blend.finish(), extents))
    }

    async fn decode_whole(
        &self,
        host: &Host,
        latents: &[f32],
        shape: SampleShape,
    ) -> Result<(Vec<f32>, SampleShape), PipelineError> {
        let factor = self.factor();
        let extents = SampleShape {
            height: shape.height * factor,
            width: shape.width * factor,
            channels: self.decoder.out_channels(),
        };
        let place = self.plans.at(&host.shared, &shape);
        let make = async || host.plan(&self.graph(shape)?, &self.weights).await;
        let work = async |plan: &mut Box<dyn Plan>| {
            plan.write("latents", latents)?;
            plan.run_async().await?;
            Ok(plan.read_async("image").await?)
        };
        let decoded = place.with(make, work).await;
        if decoded.is_err() {
            // Its memory is free when smaller tiles are tried.
            place.let_go().await;
        }
        Ok((decoded?, extents))
    }

    /// What every operation of the last decoding took, if latents of this shape were decoded as a whole.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn profile_decoding(&self, shape: SampleShape) -> Result<Vec<graph::NodeTime>, PipelineError> {
        self.plans.profile(&shape)
    }

    /// The same of encoding a picture of this shape.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn profile_encoding(&self, shape: SampleShape) -> Result<Vec<graph::NodeTime>, PipelineError> {
        self.encoder.profile(shape)
    }

    /// Channels of the pictures that [`encode`](Self::encode) takes; none if their latents are not what the decoder reads.
    pub(crate) fn picture_channels(&self) -> Option<usize> {
        let (channels, factor) = self.decoder.taken();
        (matches!(channels, 1 | 3) && factor == self.factor()).then_some(channels)
    }

    /// The latents of a picture `[H, W, C]` of −1..1. Where the device has no room for all of it, it is encoded in tiles.
    pub(crate) async fn encode(
        &self,
        host: &Host,
        picture: &[f32],
        shape: SampleShape,
    ) -> Result<Latents, PipelineError> {
        let encode = async |tile| self.encoder.encode(&self.decoder, host, picture, shape, tile).await;
        in_smaller_tiles(shape.height.max(shape.width) / self.factor(), encode).await
    }

    /// The same where one picture follows another: the means of their distributions, and nothing is remembered.
    pub(crate) async fn encode_mean(
        &self,
        host: &Host,
        picture: &[f32],
        shape: SampleShape,
    ) -> Result<Vec<f32>, PipelineError> {
        let encode = async |tile| self.encoder.encode_anew(&self.decoder, host, picture, shape, tile).await;
        Ok(in_smaller_tiles(shape.height.max(shape.width) / self.factor(), encode).await?.mean())
    }

    /// Lets the encoder's plans go, whose memory the network needs.
    pub(crate) async fn finish_encoding(&self) {
        self.encoder.let_go().await;
    }

    /// Whether latents of a picture are drawn from a distribution.
    pub(crate) fn draws(&self) -> bool {
        matches!(self.decoder, Decoder::Kl(_))
    }
}

/// Works in tiles of this many latents a side, and in ever smaller ones where one needs more memory than there is or a value of the graph is
/// larger than the device allows.
async fn in_smaller_tiles<T>(
    mut tile: usize,
    work: impl AsyncFn(usize) -> Result<T, PipelineError>,
) -> Result<T, PipelineError> {
    loop {
        match work(tile).await {
            Err(PipelineError::Device(DeviceError::Unsupported { .. } | DeviceError::OutOfMemory { .. }))
                if tile > SMALLEST_TILE =>
            {
                tile = tile.div_ceil(2);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::{Limited, SharedDevice};
    use crate::{Pipeline, Request};
    use graph::{Device, PlanOptions, block_on};
    use std::path::Path;

    fn cpu() -> Box<dyn Device> {
        Box::new(cpu::CpuDevice::new(None).expect("the CPU is always there"))
    }

    fn host(device: Box<dyn Device>) -> Host {
        Host { shared: SharedDevice::new(device), options: PlanOptions::default() }
    }

    fn golden(name: &str) -> ModelFiles {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pipelines").join(name);
        ModelFiles::folder(folder).expect("a golden")
    }

    fn autoencoder(files: &ModelFiles) -> Autoencoder {
        let index = ModelIndex::read(files).expect("an index");
        Autoencoder::load(files, &index).expect("it loads").expect("it has one")
    }

    /// Tiles end in zeros where the picture goes on, so they differ; but they fade into each other without a seam.
    #[test]
    fn tiles_join_without_seams() {
        let files = golden("latent_consistency");
        let pipe = Pipeline::from_pretrained(&SharedDevice::new(cpu()), &files, PlanOptions::default())
            .expect("a whole checkpoint");
        let request = Request {
            prompt: "a red square".into(),
            width: Some(96),
            height: Some(128),
            seed: 3,
            ..Request::default()
        };
        let generated = pipe.generate(&request).expect("a picture");
        let (latents, shape) = (&generated.sample, generated.shape);
        let whole_autoencoder = autoencoder(&files);
        let (whole, extents) = block_on(whole_autoencoder.decode(&host(cpu()), latents, shape)).expect("there is room");
        let memory = whole_autoencoder.memory();
        let limited = host(Box::new(Limited::new(cpu(), memory.weights + memory.activations / 2)));
        let autoencoder = autoencoder(&files);
        let (tiled, _) = block_on(autoencoder.decode(&limited, latents, shape)).expect("tiles fit");
        let held = autoencoder.memory().activations;
        assert!(held > 0 && held <= memory.activations / 2);
        let differences: Vec<f32> = tiled.iter().zip(&whole).map(|(a, b)| a - b).collect();
        let row = extents.width * extents.channels;
        let step = |image: &[f32]| image[row..].iter().zip(image).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let (seam, edge) = (step(&differences), step(&whole));
        assert!(seam > 0.0 && seam < 0.03 * edge, "from row to row tiles add {seam} to steps of {edge}");
    }

    /// Latents of tiles differ from those of the whole only where a tile ends and the picture goes on.
    #[test]
    fn pictures_are_encoded_in_tiles_where_there_is_little_room() {
        let files = golden("stable_diffusion");
        let shape = SampleShape { height: 96, width: 128, channels: 3 };
        let wave = |i: usize| ((i / 3 % 128) as f32 * 0.11).sin() * ((i / 384) as f32 * 0.07 + (i % 3) as f32).cos();
        let picture: Vec<f32> = (0..shape.numel()).map(wave).collect();
        let encode = |device: Box<dyn Device>| block_on(autoencoder(&files).encode(&host(device), &picture, shape));
        let mean = |latents: Latents| latents.sample(|| vec![0.0; 48 * 64 * 4]);
        let whole = mean(encode(cpu()).expect("there is room"));
        let tiled = mean(encode(Box::new(Limited::new(cpu(), 1 << 20))).expect("tiles fit"));
        let largest = whole.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
        let differences: Vec<f32> = tiled.iter().zip(&whole).map(|(a, b)| (a - b).abs()).collect();
        let (worst, sum) = differences.iter().fold((0.0_f32, 0.0), |(worst, sum), d| (worst.max(*d), sum + d));
        let typical = sum / differences.len() as f32;
        assert!(worst > 0.0 && worst < 0.2 * largest && typical < 0.02 * largest, "{worst}, {typical} of {largest}");
        assert!(encode(Box::new(Limited::new(cpu(), 1 << 10))).is_err(), "a kilobyte is too little");
    }
}
