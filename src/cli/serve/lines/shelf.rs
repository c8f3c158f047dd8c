//! Where pictures go: files of a folder, or tars of many. Each is whole or not there, and on disk before anything says so.

use super::super::super::error::CliError;
use super::super::ticket::Made;
use super::book::{Book, Image, Label, Record};
use super::id::Id;
use super::tars::Tars;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A job that is done.
#[derive(Debug)]
pub(super) struct Product {
    pub(super) id: Id,
    pub(super) line: u64,
    pub(super) seconds: f64,
    pub(super) prompt: Option<String>,
    pub(super) ending: &'static str,
    pub(super) images: Vec<Arc<Made>>,
}

impl Product {
    /// The name of an image without its ending: the id's, with a number where there are several.
    pub(super) fn stem(&self, index: usize) -> String {
        let stem = self.id.stem();
        if self.images.len() == 1 { stem } else { format!("{stem}+{index}") }
    }

    /// What is written of its images.
    pub(super) fn written(&self, tar: Option<&str>) -> Vec<Image> {
        let one = |(index, made): (usize, &Arc<Made>)| Image {
            file: format!("{}.{}", self.stem(index), self.ending),
            tar: tar.map(str::to_owned),
            seed: made.seed,
            width: made.width,
            height: made.height,
            bytes: made.bytes.len(),
            sha256: hex(&Sha256::digest(&made.bytes)),
        };
        self.images.iter().enumerate().map(one).collect()
    }

    pub(super) fn record(&self, images: Vec<Image>) -> Record {
        Record::done(self.id.text(), Some(self.line), Some(self.seconds), images)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder, or tars in it.
#[derive(Debug)]
pub(super) enum Shelf {
    Folder { folder: PathBuf, label: Label },
    Tars(Tars),
}

impl Shelf {
    /// With what an earlier process left, as far as that is whole; `per` is how many pictures a tar holds.
    pub(super) fn open(folder: &Path, label: &Label, per: Option<u32>, book: &mut Book) -> Result<Self, CliError> {
        Ok(match per {
            None => Self::Folder { folder: folder.to_owned(), label: label.clone() },
            Some(per) => Self::Tars(Tars::open(folder, label, per as usize, book)?),
        })
    }

    /// Keeps a job's pictures. Gives what can be written into the book now: its result, or those of a tar that is full.
    pub(super) fn put(&mut self, product: &Product) -> Result<Vec<Record>, CliError> {
        match self {
            Self::Folder { folder, label } => {
                let images = product.written(None);
                for (image, made) in images.iter().zip(&product.images) {
                    write(folder, &image.file, label, &made.bytes).map_err(|error| unwritten(folder, &error))?;
                }
                Ok(vec![product.record(images)])
            }
            Self::Tars(tars) => tars.put(product),
        }
    }

    /// Whether a picture waits in a tar that is not full.
    pub(super) fn holds(&self, id: &Id) -> bool {
        match self {
            Self::Folder { .. } => false,
            Self::Tars(tars) => tars.holds(id),
        }
    }

    /// No more will come: gives what is not in the book yet.
    pub(super) fn close(&mut self) -> Result<Vec<Record>, CliError> {
        match self {
            Self::Folder { .. } => Ok(Vec::new()),
            Self::Tars(tars) => tars.close(),
        }
    }
}

pub(super) fn unwritten(folder: &Path, error: &std::io::Error) -> CliError {
    CliError::TryAgain(format!("cannot write into {}: {error}; what is written counts", folder.display()))
}

/// Writes beside the file and renames. The name beside it is always the same: whoever was killed leaves one that is written over.
fn write(folder: &Path, name: &str, label: &Label, bytes: &[u8]) -> std::io::Result<()> {
    let beside = folder.join(format!(".{name}.{}.part", label.name()));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, folder.join(name))?;
    sync_folder(folder)
}

/// A new name is on disk when its folder is.
pub(super) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
