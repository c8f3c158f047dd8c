//! Different ways to one result: latents that are the picture itself, parts that know nothing of each other, as the pixels are replaced and
//! denoised as a whole.

use crate::conditioning::SampleShape;
use crate::networks::{Concatenated, Defaults, Guidance, Network};
use crate::{
    Colorize, DeviceChoice, DeviceSettings, ImageToImage, Inpaint, Method, Pipeline, PipelineError, Request, RgbImage,
    StartingNoise, Task, Upscale, open_device,
};
use graph::ops::Conv2d;
use models::{ModelFiles, ModelIndex};
use scheduler::Steps;

/// One convolution, moved by the time, which predicts noise.
fn read(_: &ModelFiles, index: &ModelIndex) -> Result<Option<Network>, PipelineError> {
    index.require("toy", &["ToyModel"])?;
    Ok(Some(Network {
        folder: "toy",
        channels: 3,
        sample_extents: [4, 6],
        side_multiple: 2,
        patch: 2,
        conditions: Vec::new(),
        text: None,
        classes: None,
        guidance: Guidance::None,
        concatenated: Concatenated::Nothing,
        bins: false,
        several_sizes: false,
        draws_twice: false,
        defaults: Defaults::new(1.0, 3),
        build: Box::new(|s, inputs| {
            let moved = inputs.timestep.scale(1e-4).reshape(&[inputs.batch(), 1, 1, 1]);
            &s.at("conv").conv2d(inputs.sample, 3, 3, Conv2d::same(3)) + &moved
        }),
    }))
}

/// A tensor of a checkpoint.
type Named = (String, Vec<usize>, Vec<f32>);

fn safetensors(tensors: &[Named]) -> Vec<u8> {
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for (name, shape, values) in tensors {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        let begin = data.len();
        values.iter().for_each(|v| data.extend(v.to_le_bytes()));
        header.push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{begin},{}]}}"#, data.len()));
    }
    let header = format!("{{{}}}", header.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data[..]].concat()
}

/// A convolution of 3x3 pixels that looks at the middle one alone: output, input and weight of what it takes, and what it adds.
fn pointwise(name: &str, [outputs, inputs]: [usize; 2], taken: &[(usize, usize, f32)], bias: Vec<f32>) -> [Named; 2] {
    let mut weight = vec![0.0; outputs * inputs * 9];
    taken.iter().for_each(|(output, input, value)| weight[(output * inputs + input) * 9 + 4] = *value);
    [(format!("{name}.weight"), vec![outputs, inputs, 3, 3], weight), (format!("{name}.bias"), vec![outputs], bias)]
}

/// Channels of the autoencoder inside: a picture's, their negatives, and two that are far apart.
const WIDTH: usize = 8;

/// So far. Their norm divides by half of it, whatever the picture: one whose squares have the mean 25 changes that by less than f32 can hold.
const FAR: f32 = 1e4;

/// One half of an autoencoder of published shape that changes nothing. Its blocks add nothing to what comes in, and since
/// silu(z) − silu(−z) = z, what the last norm and activation do is undone by the difference of a value's and its negative's.
fn identity(half: &str, blocks: &[&str], outputs: usize) -> Vec<Named> {
    let both: Vec<_> = (0..3).flat_map(|c| [(c, c, 1.0), (c + 3, c, -1.0)]).collect();
    let apart = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, FAR, -FAR].to_vec();
    let difference: Vec<_> = (0..3).flat_map(|c| [(c, c, FAR / 2.0), (c, c + 3, -FAR / 2.0)]).collect();
    // As far as there is a distribution, it has next to no width.
    let bias = (0..outputs).map(|output| if output < 3 { 0.0 } else { -30.0 }).collect();
    let norm = |name: &str| {
        let one = |what, value: f32| (format!("{name}.{what}"), vec![WIDTH], vec![value; WIDTH]);
        [one("weight", 1.0), one("bias", 0.0)]
    };
    let mut tensors = pointwise(&format!("{half}.conv_in"), [WIDTH, 3], &both, apart).to_vec();
    for block in blocks.iter().chain(&["mid_block.resnets.0", "mid_block.resnets.1"]) {
        for part in ["1", "2"] {
            tensors.extend(norm(&format!("{half}.{block}.norm{part}")));
            tensors.extend(pointwise(&format!("{half}.{block}.conv{part}"), [WIDTH; 2], &[], vec![0.0; WIDTH]));
        }
    }
    tensors.extend(norm(&format!("{half}.conv_norm_out")));
    tensors.extend(pointwise(&format!("{half}.conv_out"), [outputs, WIDTH], &difference, bias));
    tensors
}

const AUTOENCODER: &str = r#"{"_class_name": "AutoencoderKL", "block_out_channels": [8], "norm_num_groups": 1, "latent_channels": 3,
    "layers_per_block": 1, "scaling_factor": 1.0, "use_quant_conv": false, "use_post_quant_conv": false, "mid_block_add_attention": false}"#;

/// The toy on pixels, or on latents that are pixels; its convolution sees a neighbourhood, or single pixels.
fn open(latents: bool, single: bool) -> Pipeline {
    let vae = if latents { r#", "vae": ["diffusers", "AutoencoderKL"]"# } else { "" };
    let index = format!(
        r#"{{"_class_name": "ToyPipeline", "toy": ["toys", "ToyModel"], "scheduler": ["diffusers", "DDIMScheduler"]{vae}}}"#
    );
    let conv = if single {
        let taken = [(0, 0, 0.9), (1, 1, 0.8), (2, 2, 0.7), (0, 2, -0.2), (2, 1, 0.3)];
        pointwise("conv", [3, 3], &taken, vec![0.1, -0.05, 0.02]).to_vec()
    } else {
        let weight = (0..81).map(|i| (i * 37 % 17) as f32 * 0.02 - 0.12).collect();
        vec![("conv.weight".into(), vec![3, 3, 3, 3], weight), ("conv.bias".into(), vec![3], vec![0.1, -0.05, 0.02])]
    };
    let both = [
        identity("encoder", &["down_blocks.0.resnets.0"], 6),
        identity("decoder", &["up_blocks.0.resnets.0", "up_blocks.0.resnets.1"], 3),
    ];
    let mut files: Vec<(&'static str, &'static [u8])> = vec![
        ("model_index.json", index.leak().as_bytes()),
        ("scheduler/scheduler_config.json", br#"{"_class_name": "DDIMScheduler", "clip_sample": true}"#),
        ("toy/diffusion_pytorch_model.safetensors", safetensors(&conv).leak()),
    ];
    if latents {
        files.push(("vae/config.json", AUTOENCODER.as_bytes()));
        files.push(("vae/diffusion_pytorch_model.safetensors", safetensors(&both.concat()).leak()));
    }
    let device = open_device(&DeviceChoice::Cpu, &DeviceSettings::default()).expect("always there");
    let files = ModelFiles::embedded("toy", files.leak());
    Pipeline::with_networks(&device, &files, Default::default(), &[read]).expect("a whole checkpoint")
}

fn picture(width: usize, height: usize, seed: usize) -> RgbImage {
    let pixels = (0..width * height * 3).map(|i| ((i * 89 + i * i * 7 + seed * 53) % 256) as u8).collect();
    RgbImage { width, height, pixels }
}

/// The caller's own noise, so that no other draw moves it.
fn noise(elements: usize) -> Vec<f32> {
    let mut noise = vec![0.0; elements];
    crate::Rng::TorchCpu.stream(5).fill(&mut noise);
    noise
}

fn request(task: Task, noise: Vec<f32>) -> Request {
    let steps = Some(Steps::Sigmas(vec![6.0, 2.5, 1.0, 0.4, 0.1, 0.0]));
    Request { steps, task, noise: StartingNoise::Given(noise.into()), ..Request::default() }
}

/// x and the denoised image of every step, and what is made.
fn walk(pipe: &Pipeline, request: &Request) -> (Vec<Vec<f32>>, RgbImage) {
    let job = pipe.job(request).expect("it makes sense");
    let mut run = pipe.start(&job).expect("it starts");
    let mut all = Vec::new();
    while let Some(step) = run.next().expect("it goes on") {
        all.extend([step.x.to_vec(), step.denoised.to_vec()]);
    }
    let generated = run.finish().expect("a picture");
    all.push(generated.sample);
    (all, generated.image.expect("three channels"))
}

fn difference(one: &[Vec<f32>], other: &[Vec<f32>]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().flatten().zip(other.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// What replaces a part of a decoded picture replaces it in the sample, where the autoencoder changes nothing.
#[test]
fn latents_of_an_exact_autoencoder_are_edited_as_pixels_are() {
    let (pixels, latents) = (open(false, false), open(true, false));
    let image = picture(6, 4, 0);
    let holes = (0..24).flat_map(|i| [if i % 5 < 2 { 255 } else { 0 }; 3]).collect();
    let mask = RgbImage { width: 6, height: 4, pixels: holes };
    let method = Some(Method::Replace);
    let tasks: [(&str, Task); 5] = [
        ("inpaint", Inpaint { method, strength: Some(1.0), ..Inpaint::new(image.clone(), mask.clone()) }.into()),
        ("part", Inpaint { method, strength: Some(0.7), ..Inpaint::new(image.clone(), mask.clone()) }.into()),
        ("colorize", Colorize { method, ..Colorize::new(image.clone()) }.into()),
        ("colorize part", Colorize { method, mask: Some(mask), ..Colorize::new(image) }.into()),
        ("upscale", Upscale { method, ..Upscale::new(picture(3, 2, 1)) }.into()),
    ];
    for (name, task) in tasks {
        let request = request(task, noise(72));
        let ((ours, image), (theirs, other)) = (walk(&latents, &request), walk(&pixels, &request));
        let worst = difference(&ours, &theirs);
        println!("{name}: {worst:.1e}");
        let largest = theirs.iter().flatten().fold(0.0_f32, |largest, v| largest.max(v.abs()));
        assert!(worst <= 4.0 * f32::EPSILON * largest, "{name}: {worst:e} of {largest}");
        let levels = image.pixels.iter().zip(&other.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(levels <= Some(1), "{name}: {levels:?} of 255");
    }
}

/// A network that sees single pixels makes of parts what it makes of the whole, whatever they share.
#[test]
fn parts_are_the_whole_where_nothing_depends_on_neighbours() {
    let pipe = open(false, true);
    let (whole, size) = (picture(12, 10, 3), SampleShape { height: 10, width: 12, channels: 3 });
    let noise = noise(size.numel());
    let image_to_image = |image| Task::from(ImageToImage { image, strength: Some(1.0) });
    let wanted = request(image_to_image(whole.clone()), noise.clone());
    assert_eq!(pipe.job(&wanted).expect("it makes sense").parts(), 16);
    let (steps, made) = walk(&pipe, &wanted);
    for (left, top) in [(0, 0), (6, 0), (0, 4), (6, 6), (2, 2)] {
        let part = |values: &[f32]| -> Vec<f32> {
            let row = |y: usize| ((top + y) * 12 + left) * 3..((top + y) * 12 + left + 6) * 3;
            (0..4).flat_map(|y| values[row(y)].to_vec()).collect()
        };
        let cut = |image: &RgbImage| image.cut(left, top, crate::parts::Size { height: 4, width: 6 });
        let own = request(image_to_image(cut(&whole)), part(&noise));
        assert_eq!(pipe.job(&own).expect("it makes sense").parts(), 1);
        let (own_steps, own_made) = walk(&pipe, &own);
        let of_whole: Vec<Vec<f32>> = steps.iter().map(|values| part(values)).collect();
        let worst = difference(&own_steps, &of_whole);
        assert!(worst < 1e-5, "{left}, {top}: {worst:e}");
        let levels = own_made.pixels.iter().zip(&cut(&made).pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(levels <= Some(1), "{left}, {top}: {levels:?} of 255");
    }
}
