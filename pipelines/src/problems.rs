//! All that is wrong with a model, where loading stops at the first.

use crate::error::PipelineError;
use crate::networks::{NETWORKS, Network};
use crate::parts::{Autoencoder, Model, TextEncoders, scheduler_config};
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
