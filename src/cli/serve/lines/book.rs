//! The results of a share, a line each, in a file that is only added to. It is what a restart goes by: a line is written when its pictures are
//! safely on disk, and half a line, which a killed process may leave at the end, is none.

use super::super::super::error::CliError;
use super::id::{Id, Key};
use super::share::Share;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Done,
    Failed,
}

/// What is written of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// `result`, among lines of other kinds on standard output.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// None of a line that makes no job.
    pub(super) id: Option<String>,
    /// Its number in the input, from 1; none where pictures were found whose line was not written.
    pub(super) line: Option<u64>,
    pub(super) status: Status,
    /// Of the first image.
    pub(super) file: Option<String>,
    pub(super) seed: Option<u64>,
    pub(super) seconds: Option<f64>,
    pub(super) error: Option<String>,
    /// Whether it failed by the device's doing: it is tried again when the worker is.
    #[serde(default)]
    pub(super) retry: bool,
    #[serde(default)]
    pub(super) images: Vec<Image>,
}

/// One image of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Image {
    /// Its name in the folder, or in the tar.
    pub(super) file: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tar: Option<String>,
    pub(super) seed: u64,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) bytes: usize,
    /// Of the file, in hexadecimal digits.
    pub(super) sha256: String,
}

impl Record {
    pub(super) fn failed(id: Option<&Id>, line: u64, error: String, retry: bool) -> Self {
        Self {
            kind: "result".into(),
            id: id.map(|id| id.text().to_owned()),
            line: Some(line),
            status: Status::Failed,
            file: None,
            seed: None,
            seconds: None,
            error: Some(error),
            retry,
            images: Vec::new(),
        }
    }

    pub(super) fn done(id: &str, line: Option<u64>, seconds: Option<f64>, images: Vec<Image>) -> Self {
        Self {
            kind: "result".into(),
            id: Some(id.to_owned()),
            line,
            status: Status::Done,
            file: images.first().map(|image| image.file.clone()),
            seed: images.first().map(|image| image.seed),
            seconds: seconds.map(|seconds| (seconds * 1e4).round() / 1e4),
            error: None,
            retry: false,
            images,
        }
    }

    pub(super) fn line(&self) -> String {
        // A structure of texts and numbers can be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What this process's file and tars are called, after its share or by a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    name: String,
    /// How the files of those end whose jobs are others, if there are any.
    others: Option<String>,
}

impl Label {
    pub(super) fn of(share: Share) -> Self {
        Self { name: share.to_string(), others: Some(format!("-of-{:05}{ENDING}", share.count)) }
    }

    /// One among workers that may have any job: what all others did counts.
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), others: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Done,
    Failed,
    /// Failed by the device's doing.
    Retry,
}

/// Where a job stands, and where that is written: in which file, from which byte on.
#[derive(Debug, Clone, Copy)]
struct Written {
    standing: Standing,
    file: usize,
    at: u64,
}

/// The file, and what it says.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) path: PathBuf,
    file: File,
    standing: HashMap<Key, Written>,
    /// The files that were read; one's own is the first.
    files: Vec<PathBuf>,
    /// Numbers of the lines that make no job and are written already.
    bad_lines: HashSet<u64>,
    /// Names of the tars whose pictures are written of.
    tars: HashSet<String>,
}

const PREFIX: &str = "results-";
const ENDING: &str = ".jsonl";

impl Book {
    /// Opens the file of this process, which no other may have, and reads it, and those of others who may have had the same jobs.
    pub(super) fn open(folder: &Path, label: &Label, quiet: bool) -> Result<Self, CliError> {
        let path = folder.join(format!("{PREFIX}{}{ENDING}", label.name));
        let shown = path.display();
        let failed = |error: std::io::Error| CliError::Failed(format!("cannot open {shown}: {error}"));
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("another worker writes to {shown}: each needs a --shard or --name of its own");
                return Err(CliError::TryAgain(message));
            }
            Err(TryLockError::Error(error)) => {
                note!("warning: {shown} cannot be locked ({error}): see that no other worker has this shard or name");
            }
        }
        let mut book = Self {
            path: path.clone(),
            file,
            standing: HashMap::new(),
            files: vec![path.clone()],
            bad_lines: HashSet::new(),
            tars: HashSet::new(),
        };
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let has_others = label.others.as_ref().is_some_and(|others| name.ends_with(others));
            if name.starts_with(PREFIX) && name.ends_with(ENDING) && !has_others && entry.path() != path {
                book.files.push(entry.path());
                book.read(book.files.len() - 1, quiet).map_err(failed)?;
            }
        }
        let whole = book.read(0, quiet).map_err(failed)?;
        if whole < book.file.metadata().map_err(failed)?.len() {
            if !quiet {
                note!("note: {shown} ends in half a line, which is taken off: its job is made again");
            }
            book.file.set_len(whole).map_err(failed)?;
        }
        Ok(book)
    }

    /// Reads a file's whole lines, and tells where the last of them ends.
    fn read(&mut self, file: usize, quiet: bool) -> std::io::Result<u64> {
        let path = self.files[file].clone();
        let mut reader = BufReader::new(File::open(&path)?);
        let (mut whole, mut text) = (0, Vec::new());
        for number in 1_u64.. {
            text.clear();
            let length = reader.read_until(b'\n', &mut text)?;
            if length == 0 || text.last() != Some(&b'\n') {
                break;
            }
            let at = whole;
            whole += length as u64;
            match serde_json::from_slice::<Record>(&text) {
                Ok(record) => self.remember(&record, file, at),
                // A disk that lost its power, or an editor.
                Err(_) if !quiet => {
                    note!("warning: line {number} of {} is no result: what it said is made again", path.display());
                }
                Err(_) => {}
            }
        }
        Ok(whole)
    }

    fn remember(&mut self, record: &Record, file: usize, at: u64) {
        self.tars.extend(record.images.iter().filter_map(|image| image.tar.clone()));
        let Some(id) = record.id.as_deref().and_then(|text| Id::new(text).ok()) else {
            // Lines are counted in one's own input.
            self.bad_lines.extend(record.line.filter(|_| file == 0));
            return;
        };
        let standing = match record.status {
            Status::Done => Standing::Done,
            Status::Failed if record.retry => Standing::Retry,
            Status::Failed => Standing::Failed,
        };
        // What is done stays so, whichever file is read first.
        let written = Written { standing, file, at };
        let known = self.standing.entry(id.key()).or_insert(written);
        if known.standing != Standing::Done {
            *known = written;
        }
    }

    pub(super) fn standing(&self, id: &Id) -> Option<Standing> {
        self.standing.get(&id.key()).map(|written| written.standing)
    }

    /// What is written of a job, as it is.
    pub(super) fn line(&self, id: &Id) -> Option<String> {
        let written = self.standing.get(&id.key())?;
        let mut file = BufReader::new(File::open(&self.files[written.file]).ok()?);
        file.seek(SeekFrom::Start(written.at)).ok()?;
        let mut line = String::new();
        file.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    }

    pub(super) fn has_line(&self, number: u64) -> bool {
        self.bad_lines.contains(&number)
    }

    pub(super) fn has_tar(&self, name: &str) -> bool {
        self.tars.contains(name)
    }

    /// Adds a line, by one write.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), CliError> {
        let at = self.file.metadata().map(|about| about.len());
        let written = at.and_then(|at| self.file.write_all((record.line() + "\n").as_bytes()).map(|()| at));
        let at = written.map_err(|error| {
            CliError::TryAgain(format!("cannot write {}: {error}; what is written counts", self.path.display()))
        })?;
        self.remember(record, 0, at);
        Ok(())
    }

    /// Waits until it is on disk.
    pub(super) fn finish(&self) -> Result<(), CliError> {
        let synced = self.file.sync_all();
        synced.map_err(|error| CliError::TryAgain(format!("cannot write {}: {error}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(id: &str) -> Record {
        let image = Image {
            file: format!("{id}.png"),
            tar: None,
            seed: 7,
            width: 8,
            height: 8,
            bytes: 3,
            sha256: String::new(),
        };
        Record::done(id, Some(1), Some(0.5), vec![image])
    }

    /// A process may be killed after any byte that it wrote.
    #[test]
    fn a_file_that_is_cut_anywhere_says_what_its_whole_lines_say() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let label = Label::of(Share { index: 1, count: 3 });
        let path = folder.path().join("results-00001-of-00003.jsonl");
        let ids = ["a", "b", "c"].map(|text| Id::new(text).expect("an id"));
        let mut book = Book::open(folder.path(), &label, true).expect("opens");
        for id in &ids {
            book.add(&done(id.text())).expect("adds");
        }
        drop(book);
        let whole = std::fs::read(&path).expect("there");
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("writes");
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            let mut book = Book::open(folder.path(), &label, true).expect("opens");
            let known = ids.iter().filter(|id| book.standing(id) == Some(Standing::Done)).count();
            assert_eq!(known, lines, "cut to {cut} bytes");
            for id in ids.iter().filter(|id| book.standing(id).is_some()) {
                assert_eq!(book.line(id), Some(done(id.text()).line()));
            }
            book.add(&done("d")).expect("adds");
            let text = std::fs::read_to_string(&path).expect("text");
            assert!(text.lines().all(|line| serde_json::from_str::<Record>(line).is_ok()), "{text}");
            assert_eq!(text.lines().count(), lines + 1);
        }
    }

    #[test]
    fn a_share_is_one_processs_and_other_divisions_count() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = |index, count| Book::open(folder.path(), &Label::of(Share { index, count }), true);
        let mut whole = open(0, 1).expect("opens");
        let refused = open(0, 1).expect_err("taken");
        assert!(refused.exit_code() == 75 && refused.to_string().contains("--shard"), "{refused}");
        let id = Id::new("a").expect("an id");
        whole.add(&Record::failed(Some(&id), 1, "no".into(), true)).expect("adds");
        assert_eq!(open(1, 2).expect("opens").standing(&id), Some(Standing::Retry));
        whole.add(&done("a")).expect("adds");
        assert_eq!(open(1, 2).expect("opens").standing(&id), Some(Standing::Done));
        open(0, 2).expect("opens").add(&done("b")).expect("adds");
        let other = Id::new("b").expect("an id");
        assert_eq!(open(1, 2).expect("opens").standing(&other), None, "its own share's");
        let named = Book::open(folder.path(), &Label::named("x"), true).expect("opens");
        assert_eq!((named.standing(&other), named.standing(&id)), (Some(Standing::Done), Some(Standing::Done)));
        assert_eq!(named.line(&other), Some(done("b").line()));
    }
}
