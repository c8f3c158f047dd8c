//! The models of a server, by ids, and the devices that hold them.

use super::super::devices::device_settings;
use super::super::error::CliError;
use super::super::image_args::DType;
use super::super::model::{self, LoraArg, Wanted};
use super::ticket::lock;
use crate::bundled;
use models::ModelFiles;
use pipelines::{DeviceChoice, Pipeline, SharedDevice};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A model that is served.
#[derive(Debug)]
pub(super) struct Served {
    /// What requests call it; no path.
    pub(super) id: String,
    /// One line for a list.
    pub(super) summary: String,
    files: ModelFiles,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Models(Vec<Served>);

impl Models {
    /// Opens what the command line names; the models inside this program if it names none.
    pub(super) fn open(names: &[PathBuf], quiet: bool) -> Result<Self, CliError> {
        let inside: Vec<PathBuf> = bundled::BUNDLED.iter().map(|model| model.name.into()).collect();
        let names = if names.is_empty() { &inside } else { names };
        if names.is_empty() {
            return Err(CliError::Usage("there is no model inside this program: name one with --model".into()));
        }
        let mut served: Vec<Served> = Vec::with_capacity(names.len());
        for name in names {
            let files = model::open(name, Wanted { quiet, ..Wanted::default() })?;
            let inside = name.to_str().and_then(bundled::find);
            let summary = inside.map_or_else(String::new, |model| model.summary.to_owned());
            let id = id_of(name);
            if served.iter().any(|other| other.id == id) {
                let message = format!("two models would be called {id}: rename the folder or file of one");
                return Err(CliError::Usage(message));
            }
            served.push(Served { id, summary, files });
        }
        Ok(Self(served))
    }

    pub(super) fn all(&self) -> &[Served] {
        &self.0
    }

    /// The model of that id.
    pub(super) fn find(&self, id: &str) -> Option<usize> {
        self.0.iter().position(|model| model.id == id)
    }

    pub(super) fn id(&self, index: usize) -> &str {
        &self.0[index].id
    }
}

/// A bundled name and a hub's id are themselves; of a path it is the last part, without a file's ending.
pub(super) fn id_of(name: &Path) -> String {
    let text = name.to_string_lossy();
    if bundled::find(&text).is_some() || !name.exists() {
        return text.into_owned();
    }
    let whole = name.canonicalize().unwrap_or_else(|_| name.to_owned());
    let last = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
    last.unwrap_or_default().to_string_lossy().into_owned()
}

/// A device with its pipelines. Which of their weights stay on it is its own matter: where memory is short, what was used longest ago goes.
#[derive(Debug)]
pub(super) struct Worksite {
    device: SharedDevice,
    dtype: DType,
    /// The last used last.
    open: Mutex<Vec<(Key, Pipeline)>>,
}

type Key = (usize, Vec<LoraArg>);

/// Plans that are kept besides the one in use: jobs of one image and full batches take turns, and planning takes longer than many an image.
const OTHER_PLANS: usize = 2;

/// Models with adapters that are kept open, besides those without.
const WITH_ADAPTERS: usize = 3;

impl Worksite {
    pub(super) fn open(
        choice: &DeviceChoice,
        dtype: DType,
        threads: Option<usize>,
        max_memory: Option<u64>,
    ) -> Result<Self, CliError> {
        let mut settings = device_settings(false, threads)?;
        settings.max_memory = max_memory;
        let device = pipelines::open_device(choice, &settings)?;
        Ok(Self { device, dtype, open: Mutex::default() })
    }

    pub(super) fn device(&self) -> &SharedDevice {
        &self.device
    }

    /// A model, opened on this device: its files are checked, and weights follow when they are needed.
    pub(super) fn pipeline(&self, models: &Models, model: usize, loras: &[LoraArg]) -> Result<Pipeline, CliError> {
        let mut open = lock(&self.open);
        if let Some(at) = open.iter().position(|((own, adapters), _)| *own == model && adapters == loras) {
            let found = open.remove(at);
            let pipe = found.1.clone();
            open.push(found);
            return Ok(pipe);
        }
        let files = model::with_parts(models.0[model].files.clone(), loras, None)?;
        let pipe = Pipeline::from_pretrained(&self.device, &files, self.dtype.plan_options(self.device.info())?)?;
        pipe.keep_other_plans(OTHER_PLANS);
        let adapted = open.iter().filter(|((_, adapters), _)| !adapters.is_empty()).count();
        if !loras.is_empty()
            && adapted >= WITH_ADAPTERS
            && let Some(oldest) = open.iter().position(|((_, adapters), _)| !adapters.is_empty())
        {
            open.remove(oldest);
        }
        open.push(((model, loras.to_vec()), pipe.clone()));
        Ok(pipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_no_paths() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("a.b.safetensors"), "").expect("writes");
        std::fs::create_dir(folder.path().join("tiny.v1")).expect("creates");
        for (path, id) in [("a.b.safetensors", "a.b"), ("tiny.v1", "tiny.v1"), ("tiny.v1/.", "tiny.v1")] {
            assert_eq!(id_of(&folder.path().join(path)), id);
        }
        assert_eq!(id_of(Path::new("owner/repo")), "owner/repo");
    }
}
