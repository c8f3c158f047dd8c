//! A folder beside what is written: results are made there and then moved into place, so that nobody finds half of one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What all such folders' names begin with.
const PREFIX: &str = ".headwater-";

/// Held by the program that works in a folder. The system gives it back whenever that program ends, killed or not, and so tells which
/// folders are left over.
const LOCK: &str = "headwater.lock";

/// Where what is replaced waits until its successor is in place.
const REPLACED: &str = "replaced";

/// Such a folder; it is gone when this is dropped.
pub(super) struct Beside {
    folder: tempfile::TempDir,
    _lock: File,
}

impl Beside {
    /// Makes one in `parent`, and removes those that programs left behind which were killed there.
    pub(super) fn new(parent: &Path) -> std::io::Result<Self> {
        sweep(parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = File::create(folder.path().join(LOCK))?;
        lock.lock()?;
        Ok(Self { folder, _lock: lock })
    }

    /// A path in it.
    pub(super) fn path(&self, name: &Path) -> PathBuf {
        self.folder.path().join("new").join(name)
    }

    /// Moves what was made at [`path`](Self::path) to its place. A folder that is there moves away first, and back if that fails; at every
    /// moment there is one whole copy, and the next run puts it back where a program was killed in between.
    pub(super) fn put(&self, name: &Path, to: &Path) -> std::io::Result<()> {
        let from = self.path(name);
        if !to.is_dir() {
            return fs::rename(from, to);
        }
        let away = self.folder.path().join(REPLACED);
        fs::create_dir_all(&away)?;
        let away = away.join(name);
        fs::rename(to, &away)?;
        fs::rename(from, to).inspect_err(|_| drop(fs::rename(away, to)))
    }
}

/// Removes folders whose program is gone, and puts back what such a program had moved away from its place. A folder without our lock file is
/// not ours, and stays.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for folder in entries.flatten().map(|entry| entry.path()) {
        let is_named = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        let lock = folder.join(LOCK);
        if !is_named || !lock.is_file() || !File::open(&lock).is_ok_and(|lock| lock.try_lock().is_ok()) {
            continue;
        }
        let replaced = fs::read_dir(folder.join(REPLACED)).into_iter().flatten().flatten();
        let is_whole = replaced.map(|entry| entry.path()).all(|old| {
            let place = parent.join(old.file_name().unwrap_or_default());
            place.exists() || fs::rename(old, place).is_ok()
        });
        if is_whole {
            drop(fs::remove_dir_all(folder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_replaced_whole() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let (to, name) = (place.path().join("model"), Path::new("model"));
        for text in ["old", "new"] {
            let beside = Beside::new(place.path()).expect("makes one");
            fs::create_dir_all(beside.path(name)).expect("makes a folder");
            fs::write(beside.path(name).join("file"), text).expect("writes");
            beside.put(name, &to).expect("moves");
        }
        assert_eq!(fs::read_to_string(to.join("file")).expect("reads"), "new");
        assert_eq!(names(place.path()), ["model"], "nothing hidden is left");
    }

    #[test]
    fn what_killed_programs_left_is_put_back_and_removed() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let dead = place.path().join(".headwater-dead");
        fs::create_dir_all(dead.join("replaced/model")).expect("makes folders");
        fs::write(dead.join("replaced/model/file"), "old").expect("writes");
        fs::write(dead.join(LOCK), "").expect("writes");
        // Not ours: it holds no lock.
        fs::create_dir(place.path().join(".headwater-notes")).expect("makes a folder");
        let alive = Beside::new(place.path()).expect("makes one");
        assert_eq!(fs::read_to_string(place.path().join("model/file")).expect("reads"), "old");
        let second = Beside::new(place.path()).expect("makes another");
        assert!(alive.folder.path().is_dir(), "one that is in use stays");
        drop((alive, second));
        assert_eq!(names(place.path()), [".headwater-notes", "model"]);
    }
}
