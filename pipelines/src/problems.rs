//! What a model is good for, told without loading it: all that is wrong with it, where loading stops at the first, and how it edits.

use crate::edit::Method;
use crate::error::PipelineError;
use crate::networks::{NETWORKS, Network};
use crate::parts::{Autoencoder, Model, TextEncoders, scheduler_config};
use crate::tasks::{self, Stepping};
use models::{ModelFiles, ModelIndex};

/// Why a model cannot be used, a sentence for each of its parts; none if it can. The checks are those of
/// [`Pipeline::from_pretrained`](crate::Pipeline::from_pretrained), every weight looked at.
#[must_use]
pub fn problems(files: &ModelFiles) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |error: PipelineError| {
        let sentence = error.to_string();
        if !found.contains(&sentence) {
            found.push(sentence);
        }
    };
    let index = match ModelIndex::read(files) {
        Ok(index) => index,
        Err(error) => return vec![error.to_string()],
    };
    let autoencoder = Autoencoder::load(files, &index).map_err(&mut note).ok();
    let network = Network::read(files, &index, NETWORKS).map_err(&mut note).ok();
    if let Some(network) = network {
        if let Some(wanted) = network.text {
            drop(TextEncoders::load(files, &index, &network, wanted).map_err(&mut note));
        }
        // Without an autoencoder that works there is nothing for the network to fit.
        if let Some(autoencoder) = autoencoder {
            drop(Model::load_network(files, &index, network, autoencoder).map_err(&mut note));
        }
    }
    drop(scheduler_config::own(files).map_err(&mut note));
    found
}

/// How a model edits pictures where nobody says how, task by task; none for what it was trained to do. Nothing for a model that cannot be used.
#[must_use]
pub fn methods(files: &ModelFiles) -> Vec<(&'static str, Option<Method>)> {
    let stepping = || {
        let index = ModelIndex::read(files)?;
        let network = Network::read(files, &index, NETWORKS)?;
        let latents = index.component("vae").is_some();
        let colours = latents || network.channels == 3;
        let pictures = latents || matches!(network.channels, 1 | 3);
        Stepping::of(&scheduler_config::own(files)?, None, &network, latents, &index.defaults)
            .map(|stepping| (stepping, colours, pictures))
    };
    match stepping() {
        Ok((stepping, colours, true)) => {
            let mut methods = tasks::methods(&stepping);
            methods.retain(|(task, _)| colours || *task != "colorize");
            methods
        }
        _ => Vec::new(),
    }
}
