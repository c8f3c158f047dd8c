//! Tars as WebDataset reads them: the members of a sample have one name and different endings, and follow each other. Here they are the picture,
//! `txt` with its prompt, and `json` with everything else.
//!
//! A tar grows under a hidden name, and gets its own when it is full. Until then it is its own record of what is done: a process that comes after
//! one that was killed reads it up to the last job that is whole, and goes on from there.

use super::super::super::error::CliError;
use super::book::{Book, Image, Label, Record, Standing};
use super::id::{Id, Key};
use super::shelf::{Product, hex, sync_folder, unwritten};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use tar::{Archive, Builder, EntryType, Header};

/// The tars of a worker.
#[derive(Debug)]
pub(super) struct Tars {
    folder: PathBuf,
    label: Label,
    /// Pictures of a tar; more where a job has more.
    per: usize,
    /// Of the tar that is filled.
    number: u64,
    open: Option<File>,
    /// What is in it.
    records: Vec<Record>,
    ids: HashSet<Key>,
}

impl Tars {
    pub(super) fn open(folder: &Path, label: &Label, per: usize, book: &mut Book) -> Result<Self, CliError> {
        let mut tars = Self {
            folder: folder.to_owned(),
            label: label.clone(),
            per,
            number: 0,
            open: None,
            records: Vec::new(),
            ids: HashSet::new(),
        };
        tars.recover(book).map_err(|error| unwritten(folder, &error))?;
        let records = if tars.is_full() { tars.close()? } else { Vec::new() };
        records.iter().try_for_each(|record| book.add(record))?;
        Ok(tars)
    }

    fn name(&self) -> String {
        format!("pictures-{}-{:06}.tar", self.label.name(), self.number)
    }

    fn beside(&self) -> PathBuf {
        self.folder.join(format!(".{}.part", self.name()))
    }

    /// Finds the tars that are there. One that is full, but of which the book does not tell, was finished by a process that was killed right then.
    fn recover(&mut self, book: &mut Book) -> std::io::Result<()> {
        while self.folder.join(self.name()).exists() {
            let name = self.name();
            if !book.has_tar(&name) {
                for record in whole_jobs(&mut File::open(self.folder.join(&name))?, &name)?.0 {
                    let id = record.id.as_deref().and_then(|text| Id::new(text).ok());
                    if id.is_none_or(|id| book.standing(&id) != Some(Standing::Done)) {
                        book.add(&record).map_err(|error| std::io::Error::other(error.to_string()))?;
                    }
                }
            }
            self.number += 1;
        }
        let beside = self.beside();
        if !beside.exists() {
            return Ok(());
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&beside)?;
        let (records, end) = whole_jobs(&mut file, &self.name())?;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        records.into_iter().for_each(|record| self.remember(record));
        self.open = Some(file);
        Ok(())
    }

    fn remember(&mut self, record: Record) {
        self.ids.extend(record.id.as_deref().and_then(|text| Id::new(text).ok()).map(|id| id.key()));
        self.records.push(record);
    }

    fn is_full(&self) -> bool {
        self.records.iter().map(|record| record.images.len()).sum::<usize>() >= self.per
    }

    pub(super) fn holds(&self, id: &Id) -> bool {
        self.ids.contains(&id.key())
    }

    /// Adds a job's pictures. Gives the results of all in the tar when it is full.
    pub(super) fn put(&mut self, product: &Product) -> Result<Vec<Record>, CliError> {
        let images = product.written(Some(&self.name()));
        self.append(product, &images).map_err(|error| unwritten(&self.folder, &error))?;
        self.remember(product.record(images));
        if self.is_full() { self.close() } else { Ok(Vec::new()) }
    }

    fn append(&mut self, product: &Product, images: &[Image]) -> std::io::Result<()> {
        let file = match self.open.take() {
            Some(file) => file,
            None => OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.beside())?,
        };
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        for (index, (image, made)) in images.iter().zip(&product.images).enumerate() {
            let stem = product.stem(index);
            members.push((image.file.clone(), made.bytes.to_vec()));
            members.extend(product.prompt.as_ref().map(|prompt| (format!("{stem}.txt"), prompt.as_bytes().to_vec())));
            // Nothing of when and where it was made: the same job is the same sample.
            let told = json!({
                "id": product.id.text(), "index": index, "count": images.len(), "file": image.file, "seed": image.seed,
                "width": image.width, "height": image.height, "sha256": image.sha256, "prompt": product.prompt, "settings": made.settings,
            });
            members.push((format!("{stem}.json"), told.to_string().into_bytes()));
        }
        let mut bytes = Builder::new(Vec::new());
        for (name, contents) in &members {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_size(contents.len() as u64);
            bytes.append_data(&mut header, name, contents.as_slice())?;
        }
        let bytes = bytes.into_inner()?;
        // Without the two empty blocks at its end: more comes.
        let bytes = &bytes[..bytes.len() - 1024];
        std::io::Write::write_all(&mut &file, bytes)?;
        file.sync_data()?;
        self.open = Some(file);
        Ok(())
    }

    /// Gives the tar its name, and the results of all in it.
    pub(super) fn close(&mut self) -> Result<Vec<Record>, CliError> {
        let Some(file) = self.open.take() else { return Ok(Vec::new()) };
        if self.records.is_empty() {
            // Of a process that was killed at its first.
            std::fs::remove_file(self.beside()).map_err(|error| unwritten(&self.folder, &error))?;
            return Ok(Vec::new());
        }
        let name = self.name();
        let closed = std::io::Write::write_all(&mut &file, &[0; 1024])
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(self.beside(), self.folder.join(&name)))
            .and_then(|()| sync_folder(&self.folder));
        closed.map_err(|error| unwritten(&self.folder, &error))?;
        self.number += 1;
        self.ids.clear();
        Ok(std::mem::take(&mut self.records))
    }
}

/// The jobs of which every picture is in a tar, and where the last of them ends; what comes after is half written.
fn whole_jobs(file: &mut File, tar: &str) -> std::io::Result<(Vec<Record>, u64)> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let (mut jobs, mut end) = (Vec::new(), 0);
    let mut hashes: HashMap<String, (String, usize)> = HashMap::new();
    let mut images: Vec<Image> = Vec::new();
    let mut archive = Archive::new(file);
    // Whatever cannot be read any more is the half that was being written.
    for entry in archive.entries()? {
        let Ok(mut entry) = entry else { break };
        let after = (entry.raw_file_position() + entry.size()).next_multiple_of(512);
        let Some(name) = entry.path().ok().and_then(|path| path.to_str().map(str::to_owned)) else { break };
        let mut contents = Vec::new();
        if after > length || entry.read_to_end(&mut contents).is_err() {
            break;
        }
        if !name.ends_with(".json") {
            hashes.insert(name, (hex(&Sha256::digest(&contents)), contents.len()));
            continue;
        }
        let Some((id, index, count, image)) = sample(&contents, tar, &hashes) else { break };
        if index != images.len() {
            break;
        }
        images.push(image);
        if images.len() == count {
            jobs.push(Record::done(&id, None, None, std::mem::take(&mut images)));
            hashes.clear();
            end = after;
        }
    }
    Ok((jobs, end))
}

/// What a sample says of itself: its job, which of how many images it is, and the image, if that is there as it was written.
fn sample(
    contents: &[u8],
    tar: &str,
    hashes: &HashMap<String, (String, usize)>,
) -> Option<(String, usize, usize, Image)> {
    let told: Value = serde_json::from_slice(contents).ok()?;
    let number = |name: &str| told[name].as_u64().and_then(|number| usize::try_from(number).ok());
    let file = told["file"].as_str()?.to_owned();
    let (sha256, bytes) = hashes.get(&file)?.clone();
    if told["sha256"] != json!(sha256) {
        return None;
    }
    let image = Image {
        file,
        tar: Some(tar.to_owned()),
        seed: told["seed"].as_u64()?,
        width: number("width")?,
        height: number("height")?,
        bytes,
        sha256,
    };
    Some((told["id"].as_str()?.to_owned(), number("index")?, number("count")?, image))
}

#[cfg(test)]
mod tests {
    use super::super::super::ticket::Made;
    use super::super::share::Share;
    use super::*;
    use std::sync::Arc;

    fn product(id: &str, images: u64) -> Product {
        let made = |index: u64| {
            let settings = json!({ "seed": index });
            let bytes = format!("picture {index} of {id}").into_bytes();
            Arc::new(Made {
                bytes: bytes.into(),
                seed: index,
                width: 8,
                height: 8,
                settings,
                parameters: String::new(),
                error: None,
            })
        };
        let id = Id::new(id).expect("an id");
        Product {
            id,
            line: 1,
            seconds: 0.5,
            prompt: Some("a heart".into()),
            ending: "png",
            images: (0..images).map(made).collect(),
        }
    }

    fn open(folder: &Path, per: usize) -> (Tars, Book) {
        let label = Label::of(Share::WHOLE);
        let mut book = Book::open(folder, &label, true).expect("opens");
        let tars = Tars::open(folder, &label, per, &mut book).expect("opens");
        (tars, book)
    }

    fn members(path: &Path) -> Vec<String> {
        let mut archive = Archive::new(File::open(path).expect("there"));
        let names = archive
            .entries()
            .expect("a tar")
            .map(|entry| entry.expect("whole").path().expect("a name").display().to_string());
        names.collect()
    }

    #[test]
    fn full_tars_get_their_names_and_then_their_results() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut tars, _book) = open(folder.path(), 3);
        assert!(tars.put(&product("a", 1)).expect("puts").is_empty());
        assert!(tars.holds(&Id::new("a").expect("an id")));
        let path = folder.path().join("pictures-00000-of-00001-000000.tar");
        assert!(!path.exists());
        let records = tars.put(&product("b", 2)).expect("puts");
        assert_eq!(records.len(), 2);
        assert_eq!(records[1].images[1].tar.as_deref(), Some("pictures-00000-of-00001-000000.tar"));
        let names = ["a.png", "a.txt", "a.json", "b+0.png", "b+0.txt", "b+0.json", "b+1.png", "b+1.txt", "b+1.json"];
        assert_eq!(members(&path), names);
        assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 2, "the tar and the results");
        tars.put(&product("c", 1)).expect("puts");
        assert_eq!(tars.close().expect("closes").len(), 1);
        assert!(folder.path().join("pictures-00000-of-00001-000001.tar").exists());
    }

    /// A process may be killed after any byte that it wrote.
    #[test]
    fn a_tar_that_is_cut_anywhere_keeps_its_whole_jobs_and_goes_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let all = [("a", 1), ("b", 2), ("c", 1)];
        let beside = folder.path().join(".pictures-00000-of-00001-000000.tar.part");
        let mut ends = Vec::new();
        {
            let (mut tars, _book) = open(folder.path(), 100);
            for (id, images) in all {
                tars.put(&product(id, images)).expect("puts");
                ends.push(beside.metadata().expect("there").len());
            }
        }
        let whole = std::fs::read(&beside).expect("there");
        let mut finished = None;
        for cut in (0..=whole.len()).step_by(97).chain([whole.len()]) {
            std::fs::write(&beside, &whole[..cut]).expect("writes");
            let (mut tars, _book) = open(folder.path(), 100);
            let left: Vec<_> = all.into_iter().filter(|(id, _)| !tars.holds(&Id::new(id).expect("an id"))).collect();
            let kept = ends.iter().filter(|end| **end <= cut as u64).count();
            assert_eq!(left, all[kept..], "cut to {cut} bytes");
            for (id, images) in left {
                tars.put(&product(id, images)).expect("puts");
            }
            assert_eq!(tars.close().expect("closes").len(), all.len());
            let path = folder.path().join("pictures-00000-of-00001-000000.tar");
            let bytes = std::fs::read(&path).expect("there");
            assert!(*finished.get_or_insert_with(|| bytes.clone()) == bytes, "cut to {cut} bytes");
            std::fs::remove_file(path).expect("removes");
        }
        // One that is damaged in its middle ends there.
        let mut damaged = whole.clone();
        damaged[512 + 3] ^= 1;
        std::fs::write(&beside, damaged).expect("writes");
        assert!(open(folder.path(), 100).0.records.is_empty());
    }

    #[test]
    fn a_tar_that_the_book_does_not_know_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        {
            let (mut tars, _killed_before_it_wrote) = open(folder.path(), 2);
            tars.put(&product("a", 1)).expect("puts");
            assert_eq!(tars.put(&product("b", 1)).expect("puts").len(), 2);
        }
        for _ in 0..2 {
            let (tars, book) = open(folder.path(), 2);
            assert_eq!(tars.number, 1);
            for id in ["a", "b"] {
                assert_eq!(book.standing(&Id::new(id).expect("an id")), Some(Standing::Done));
            }
            assert_eq!(std::fs::read_to_string(&book.path).expect("text").lines().count(), 2);
        }
    }
}
