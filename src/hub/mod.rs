//! Models from a Hugging Face hub: `OWNER/REPO`, downloaded once into the cache that Python's `huggingface_hub` uses, too.
//!
//! ```no_run
//! use headwater::hub::{Hub, HubId};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::from_env()?;
//! let folder = hub.fetch(&"OWNER/REPO@main".parse::<HubId>()?, None, &mut |_progress| ControlFlow::Continue(()))?;
//! let files = headwater::ModelFiles::folder(folder)?;
//! # Ok(())
//! # }
//! ```

mod cache;
mod download;
mod error;
mod http;
mod id;
mod plan;
mod repository;
mod settings;

pub use error::HubError;
pub use id::HubId;
pub use settings::Settings;

use cache::RepoCache;
use download::Downloads;
use error::Fault;
use http::Client;
use repository::Repository;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// How far a download is. Every few hundred kilobytes, and while waiting about ten times a second.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file that is being downloaded, empty between files.
    pub file: &'a str,
    /// Bytes of all files so far, those of earlier runs included.
    pub done: u64,
    /// Bytes of all files that are known to be needed; grows when an index names shards.
    pub total: u64,
    /// Why nothing seems to happen.
    pub note: Option<&'a str>,
    /// That the hub could not be asked, and a copy in the cache is used that may be out of date.
    pub warning: Option<&'a str>,
}

impl Progress<'_> {
    const NONE: Progress<'static> = Progress { file: "", done: 0, total: 0, note: None, warning: None };
}

/// Told of progress; `Break` stops the download and keeps what there is for the next run.
pub type Watch<'a> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a;

/// A hub, and the cache of what came from it.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    client: Client,
}

impl Hub {
    /// The hub and cache that the environment names: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_HUB_OFFLINE`
    /// and the others of `huggingface_hub`, with its defaults.
    ///
    /// # Errors
    /// When a variable makes no sense, or the token's file cannot be read.
    pub fn from_env() -> Result<Self, HubError> {
        Self::new(Settings::from_env()?)
    }

    /// A hub with these settings.
    ///
    /// # Errors
    /// When the file of certificates cannot be read.
    pub fn new(settings: Settings) -> Result<Self, HubError> {
        let client = Client::new(&settings)?;
        Ok(Self { settings, client })
    }

    /// Downloads what a pipeline needs (or the one file that the id names) and is not yet in the cache.
    ///
    /// Of weights only safetensors are taken, in one variant for each part: of `variant` (`fp16`, say) where there is one,
    /// else plain, else the only one there is. Returns the folder of the pipeline, or the file.
    ///
    /// # Errors
    /// When the hub cannot be reached, refuses, or sends something else than it announced; when the repository holds no
    /// pipeline or no weights of the variant; when the cache cannot be written. What was received is kept and resumed.
    pub fn fetch(&self, id: &HubId, variant: Option<&str>, watch: &mut Watch<'_>) -> Result<PathBuf, HubError> {
        if let (Some(_), Some(variant)) = (&id.file, variant) {
            return Err(HubError::Failed(format!(
                "{id} is one file, so there are no weights of the variant {variant}"
            )));
        }
        let cache = RepoCache::new(&self.settings, id);
        if self.settings.offline {
            return cache.find(id, variant).map_err(|why| {
                let folder = self.settings.cache.display();
                HubError::Failed(format!("{id}: {why} in {folder}, and HF_HUB_OFFLINE forbids to download; unset it"))
            });
        }
        // A commit never changes: nothing to ask for when it is here.
        if id.names_a_commit()
            && let Ok(found) = cache.find(id, variant)
        {
            return Ok(found);
        }
        let repository = match Repository::open(&self.client, id, watch) {
            Ok(repository) => repository,
            Err(Fault::Transient(why) | Fault::Unreachable(why)) => {
                let found = cache.find(id, variant).map_err(|_| HubError::Failed(why.clone()))?;
                let warning = format!("{why}; the copy in the cache is used");
                return match watch(Progress { warning: Some(&warning), ..Progress::NONE }) {
                    ControlFlow::Continue(()) => Ok(found),
                    ControlFlow::Break(()) => Err(HubError::Stopped),
                };
            }
            Err(fault) => return Err(fault.into()),
        };
        let mut downloads = Downloads::new(&self.client, &cache, &repository, watch);
        if let Some(file) = &id.file {
            repository.require(file)?;
            downloads.get(&[file])?;
        } else {
            repository.require_pipeline()?;
            let parts = repository.parts(variant, &downloads.read(plan::INDEX)?)?;
            downloads.get(&parts.small())?;
            let weights = parts.weights(|index| downloads.read(index), |shard| repository.require(shard))?;
            downloads.get(&weights)?;
        }
        // Last: a reference never names a snapshot that is not whole.
        cache.refer(&id.revision, &repository.commit)?;
        Ok(cache.path_of(&repository.commit, id))
    }
}
