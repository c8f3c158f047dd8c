//! A whole network, as small as one can be: what it takes to add one.
//!
//! In `models` a real one has a file with its configuration and its graph; here is both. Besides this file it takes an entry in
//! [`NETWORKS`](super::NETWORKS), for which the test's own list stands.

use super::{Classes, Concatenated, Defaults, Guidance, Network, Source};
use crate::error::PipelineError;
use crate::{DeviceChoice, DeviceSettings, Pipeline, PipelineError as Error, Request, open_device};
use graph::ops::Conv2d;
use models::{ModelFiles, ModelIndex};

/// Describes the network of a `ToyPipeline`: a convolution, moved by the class and the time.
fn read(_: &ModelFiles, index: &ModelIndex) -> Result<Option<Network>, PipelineError> {
    if index.class_name != "ToyPipeline" {
        return Ok(None);
    }
    index.require("toy", &["ToyModel"])?;
    Ok(Some(Network {
        folder: "toy",
        channels: 3,
        sample_extents: [4, 6],
        side_multiple: 2,
        patch: 2,
        conditions: vec![Source::Class.named("kind")],
        text: None,
        classes: Some(Classes { count: 5, null: None }),
        guidance: Guidance::None,
        concatenated: Concatenated::Nothing,
        bins: false,
        several_sizes: false,
        draws_twice: false,
        defaults: Defaults::new(1.0, 3),
        build: Box::new(|s, inputs| {
            let Some(kind) = inputs.get("kind") else { return s.poison("this network draws kinds") };
            let moved = &kind.scale(0.01) + &inputs.timestep.scale(0.001);
            let h = s.at("conv").conv2d(inputs.sample, 3, 3, Conv2d::same(3));
            &h + &moved.reshape(&[inputs.batch(), 1, 1, 1])
        }),
    }))
}

/// A checkpoint of it, in memory.
fn files() -> ModelFiles {
    let index = r#"{"_class_name": "ToyPipeline", "toy": ["toys", "ToyModel"], "scheduler": ["diffusers", "EulerDiscreteScheduler"]}"#;
    let header = r#"{"conv.weight":{"dtype":"F32","shape":[3,3,3,3],"data_offsets":[0,324]},"conv.bias":{"dtype":"F32","shape":[3],"data_offsets":[324,336]}}"#;
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend_from_slice(header.as_bytes());
    (0..84_u8).for_each(|i| weights.extend((f32::from(i % 7) * 0.01 - 0.03).to_le_bytes()));
    let files: &'static [(&'static str, &'static [u8])] = Box::leak(Box::new([
        ("model_index.json", index.as_bytes()),
        ("scheduler/scheduler_config.json", br#"{"_class_name": "EulerDiscreteScheduler"}"#.as_slice()),
        ("toy/diffusion_pytorch_model.safetensors", weights.leak()),
    ]));
    ModelFiles::embedded("toy", files)
}

#[test]
fn a_network_is_one_description() -> Result<(), Error> {
    let device = open_device(&DeviceChoice::Cpu, &DeviceSettings::default())?;
    let unknown = Pipeline::from_pretrained(&device, &files(), Default::default());
    assert!(unknown.is_err(), "it is in no list but this test's");
    let pipe = Pipeline::with_networks(&device, &files(), Default::default(), &[read])?;
    assert_eq!((pipe.classes(), pipe.takes_prompt(), pipe.makes_pictures()), (Some(5), false, true));
    let make = |class| pipe.generate(&Request { seed: 1, class_label: Some(class), ..Request::default() });
    let (one, other) = (make(1)?, make(4)?);
    let image = one.image.as_ref().expect("three channels are a picture");
    assert_eq!((image.width, image.height, one.steps), (6, 4, 3));
    assert_ne!(one.sample, other.sample, "the class has reached the network");
    let error = pipe.job(&Request { width: Some(5), ..Request::default() }).expect_err("5 is odd");
    assert_eq!(error.to_string(), "width 5 is not possible: this model makes multiples of 2 pixels");
    Ok(())
}
