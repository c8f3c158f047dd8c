//! All that is wrong with a model, where loading stops at the first.

use crate::autoencoder::Autoencoder;
use crate::error::PipelineError;
use crate::model::TextModel;
use crate::network::Network;
use crate::text_encoder::TextEncoders;
use models::{ModelFiles, ModelIndex};

/// Why a model cannot be used, a sentence for each of its parts; none if it can. The checks are those of
/// [`TextToImage::from_pretrained`](crate::TextToImage::from_pretrained), every weight looked at.
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
    let network = Network::load(files, &index).map_err(&mut note).ok();
    if let Some(network) = network {
        if network.takes_text() {
            drop(TextEncoders::load(files, &index, &network).map_err(&mut note));
        }
        // Without an autoencoder that works there is nothing for the network to fit.
        if let Some(autoencoder) = autoencoder {
            drop(TextModel::load_network(files, &index, network, autoencoder).map_err(&mut note));
        }
    }
    drop(crate::config::scheduler_config(files).map_err(&mut note));
    found
}
