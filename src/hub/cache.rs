//! The cache's layout, which is `huggingface_hub`'s, so that each finds what the other has downloaded:
//!
//! ```text
//! models--OWNER--REPO/blobs/ETAG                  contents, by SHA-256 (or by git's hash for small files)
//! models--OWNER--REPO/blobs/ETAG.incomplete       the start of one
//! models--OWNER--REPO/snapshots/COMMIT/PATH       -> ../../blobs/ETAG
//! models--OWNER--REPO/refs/main                   a commit
//! .locks/models--OWNER--REPO/ETAG.lock            held while a blob is written
//! ```

use super::error::HubError;
use super::id::HubId;
use super::plan;
use super::settings::Settings;
use models::ModelFiles;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Tells programs that make backups what not to keep: <https://bford.info/cachedir/>.
const CACHEDIR_TAG: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of models from a hub.\n";

/// One repository's part of the cache.
#[derive(Debug)]
pub(super) struct RepoCache {
    root: PathBuf,
    folder: PathBuf,
    locks: PathBuf,
    no_symlinks: bool,
}

impl RepoCache {
    pub(super) fn new(settings: &Settings, id: &HubId) -> Self {
        let name = format!("models--{}--{}", id.owner, id.name);
        Self {
            root: settings.cache.clone(),
            folder: settings.cache.join(&name),
            locks: settings.cache.join(".locks").join(name),
            no_symlinks: settings.no_symlinks,
        }
    }

    /// Where a file's contents lie.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where a file of a commit is found by its name.
    pub(super) fn pointer(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit).join(file)
    }

    /// The folder or the single file that an id means.
    pub(super) fn path_of(&self, commit: &str, id: &HubId) -> PathBuf {
        self.pointer(commit, id.file.as_deref().unwrap_or_default())
    }

    /// The whole copy that is here, or why there is none.
    pub(super) fn find(&self, id: &HubId, variant: Option<&str>) -> Result<PathBuf, String> {
        let none = || "there is no copy".to_owned();
        let commit = if id.names_a_commit() {
            id.revision.clone()
        } else {
            fs::read_to_string(self.folder.join("refs").join(&id.revision)).map_err(|_| none())?.trim().to_owned()
        };
        if !is_plain(&commit) {
            return Err(none());
        }
        let path = self.path_of(&commit, id);
        if id.file.is_some() {
            return if path.is_file() { Ok(path) } else { Err(none()) };
        }
        let files = ModelFiles::folder(&path).map_err(|_| none())?;
        match plan::absent(&files, variant) {
            None => Ok(path),
            Some(what) => Err(format!("there is only a part of a copy ({what} is missing)")),
        }
    }

    /// Makes the folders that a blob, its lock and its pointer need.
    pub(super) fn prepare(&self, pointer: &Path) -> Result<(), HubError> {
        let make = |folder: &Path| fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error));
        make(&self.folder.join("blobs"))?;
        make(&self.locks)?;
        make(pointer.parent().unwrap_or(&self.folder))?;
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            // Without this file the cache works all the same.
            let _ = fs::write(tag, CACHEDIR_TAG);
        }
        Ok(())
    }

    /// The file whose lock is held while a blob is written; Python's `filelock` locks the same.
    pub(super) fn lock_file(&self, etag: &str) -> Result<File, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        File::options().create(true).append(true).open(&path).map_err(|error| cannot_write(&path, &error))
    }

    /// Gives a commit's file its contents: a relative link, or, where there are none, the contents themselves. A blob that
    /// was only just made is nobody else's and is moved.
    pub(super) fn point(&self, etag: &str, pointer: &Path, file: &str, is_new: bool) -> Result<(), HubError> {
        let fault = |error: io::Error| cannot_write(pointer, &error);
        if pointer.exists() {
            return Ok(());
        }
        match fs::remove_file(pointer) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(fault(error)),
            _ => {}
        }
        // snapshots/COMMIT, then the file's own folders.
        let up = "../".repeat(2 + file.matches('/').count());
        if !self.no_symlinks {
            match symlink(&format!("{up}blobs/{etag}"), pointer) {
                Ok(()) => return Ok(()),
                // Another process has made it in the meantime.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && pointer.exists() => return Ok(()),
                Err(_) => {}
            }
        }
        let blob = self.blob(etag);
        if is_new { fs::rename(&blob, pointer) } else { fs::copy(&blob, pointer).map(|_| ()) }.map_err(fault)
    }

    /// Remembers which commit a branch or tag is.
    pub(super) fn refer(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.folder.join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.folder);
        let written = fs::create_dir_all(folder).and_then(|()| {
            let mut file = tempfile::Builder::new().prefix(".ref-").tempfile_in(folder)?;
            file.write_all(commit.as_bytes())?;
            file.persist(&path).map_err(|error| error.error)
        });
        written.map(|_| ()).map_err(|error| cannot_write(&path, &error))
    }
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &str, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Whether a hash from a server can be a file's name.
pub(super) fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits)
}

/// The sentence for a file of the cache that cannot be written.
pub(super) fn cannot_write(path: &Path, error: &io::Error) -> HubError {
    let path = path.display();
    HubError::Failed(match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("cannot write {path}: the disk is full; make room, or let HF_HOME name a folder on another disk")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("cannot write {path}: it is not allowed; let HF_HOME name a folder that is yours")
        }
        _ => format!("cannot write {path}: {error}"),
    })
}
