//! Files of one repository into the cache: resumed, checked, and only then named.

use super::cache::{RepoCache, cannot_write};
use super::error::{Fault, HubError};
use super::http::{Answer, Client, Method, TRIES, backoff, body, header, host, pause};
use super::repository::{Remote, Repository};
use super::{Progress, Watch};
use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// The downloads of one run.
pub(super) struct Downloads<'a, 'w> {
    client: &'a Client,
    cache: &'a RepoCache,
    repository: &'a Repository<'a>,
    watch: &'a mut Watch<'w>,
    /// Bytes of finished files.
    done: u64,
    total: u64,
}

impl<'a, 'w> Downloads<'a, 'w> {
    pub(super) fn new(
        client: &'a Client,
        cache: &'a RepoCache,
        repository: &'a Repository<'a>,
        watch: &'a mut Watch<'w>,
    ) -> Self {
        Self { client, cache, repository, watch, done: 0, total: 0 }
    }

    /// A small file's contents.
    pub(super) fn read(&mut self, file: &str) -> Result<Vec<u8>, HubError> {
        self.get(&[file])?;
        let path = self.cache.pointer(&self.repository.commit, file);
        fs::read(&path).map_err(|error| HubError::Failed(format!("cannot read {}: {error}", path.display())))
    }

    /// Downloads those of these files that the snapshot does not have yet, in this order.
    pub(super) fn get(&mut self, files: &[impl AsRef<str>]) -> Result<(), HubError> {
        let pointer = |file: &str| self.cache.pointer(&self.repository.commit, file);
        let wanted = files.iter().map(AsRef::as_ref).map(|file| (file, pointer(file)));
        let wanted: Vec<_> = wanted.filter(|(_, pointer)| !pointer.exists()).collect();
        let mut announced = Vec::new();
        for (file, pointer) in wanted {
            let remote = self.repository.remote(self.client, file, self.watch)?;
            self.total += remote.size.unwrap_or(0);
            announced.push((file, pointer, remote));
        }
        for (file, pointer, remote) in announced {
            self.get_one(file, &pointer, &remote)?;
        }
        Ok(())
    }

    fn get_one(&mut self, file: &str, pointer: &Path, remote: &Remote) -> Result<(), HubError> {
        self.cache.prepare(pointer)?;
        let lock = self.cache.lock_file(&remote.etag)?;
        let is_locked = self.lock(&lock, file)?;
        // The process that held the lock may have downloaded it.
        if let Ok(metadata) = fs::metadata(pointer) {
            self.done += metadata.len();
            return Ok(());
        }
        let blob = self.cache.blob(&remote.etag);
        let length = fs::metadata(&blob).map(|metadata| metadata.len()).ok();
        let is_here = length.is_some_and(|length| remote.size.is_none_or(|size| size == length));
        let size = if is_here {
            length.unwrap_or(0)
        } else {
            // Without locks another process may be writing this partial file: leave it alone.
            let own = if is_locked { String::new() } else { format!(".{}", std::process::id()) };
            self.receive(file, remote, &blob, &self.cache.blob(&format!("{}{own}.incomplete", remote.etag)))?
        };
        self.done += size;
        self.total = self.total.max(self.done);
        self.cache.point(&remote.etag, pointer, file, !is_here)
    }

    /// Waits for another process that downloads the same; false where the file system knows no locks.
    fn lock(&mut self, lock: &File, file: &str) -> Result<bool, HubError> {
        let note = format!("another program downloads {file}; waiting for it");
        let mut note = Some(&*note);
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(true),
                Err(TryLockError::Error(_)) => return Ok(false),
                Err(TryLockError::WouldBlock) => {}
            }
            self.tell(file, 0, note.take())?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn tell(&mut self, file: &str, received: u64, note: Option<&str>) -> Result<(), HubError> {
        let progress = Progress { file, done: self.done + received, total: self.total, note, warning: None };
        if (self.watch)(progress).is_break() { Err(HubError::Stopped) } else { Ok(()) }
    }

    /// Downloads one file's contents, going on where an earlier run stopped; returns their size.
    fn receive(&mut self, file: &str, remote: &Remote, blob: &Path, partial: &Path) -> Result<u64, HubError> {
        let mut partial = Partial::open(partial, remote)?;
        let (mut furthest, mut tried) = (partial.length, 1);
        while !partial.is_whole() {
            match self.attempt(file, remote, &mut partial) {
                Ok(()) => {}
                Err(Fault::Fatal(error)) => return Err(error),
                Err(Fault::Transient(why) | Fault::Unreachable(why)) => {
                    if partial.length > furthest {
                        (furthest, tried) = (partial.length, 1);
                    }
                    if tried == TRIES {
                        let of = remote.size.map_or(String::new(), |size| format!(" of {size}"));
                        return Err(HubError::Failed(format!(
                            "{file}: {why}, with {}{of} bytes received; run the command again to go on from there",
                            partial.length
                        )));
                    }
                    pause(backoff(tried), &format!("{file}: {why}"), self.watch)?;
                    tried += 1;
                }
            }
        }
        partial.finish(file, remote, blob)
    }

    /// One request for what is missing.
    fn attempt(&mut self, file: &str, remote: &Remote, partial: &mut Partial) -> Result<(), Fault> {
        let url = self.repository.url(self.client, file);
        let asked = partial.length;
        // It has tried again by itself before it reports an error.
        let sent = self.client.send(Method::Get(asked), &url, self.watch);
        let answer = sent.map_err(|fault| match HubError::from(fault) {
            HubError::Failed(why) => Fault::fatal(format!("{file}: {why}")),
            error => error.into(),
        })?;
        let from = host(&url).to_owned();
        match answer.response.status().as_u16() {
            200 => partial.restart()?,
            206 if range_start(&answer) == Some(asked) => {}
            206 | 416 => {
                // This server does not go on from what we have: begin anew.
                partial.restart()?;
                return Err(Fault::Transient(format!("{from} sends another part than was asked for")));
            }
            _ => return Err(self.repository.refusal(self.client, file, &answer)),
        }
        let announced = header(answer.response.headers(), "content-length").and_then(|text| text.parse::<u64>().ok());
        if let (Some(size), Some(more)) = (remote.size, announced)
            && partial.length + more > size
        {
            return Err(too_long(file, &from, size));
        }
        let mut reader = answer.response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            self.tell(file, partial.length, None)?;
            let read = reader.read(&mut chunk).map_err(|error| body(&url, &error))?;
            if read == 0 {
                break;
            }
            if remote.size.is_some_and(|size| partial.length + read as u64 > size) {
                partial.restart()?;
                return Err(too_long(file, &from, remote.size.unwrap_or(0)));
            }
            partial.append(&chunk[..read])?;
        }
        if remote.size.is_none() {
            partial.size = Some(partial.length);
        } else if !partial.is_whole() {
            return Err(Fault::Transient(format!("{from} sends less than it announced")));
        }
        Ok(())
    }
}

fn too_long(file: &str, from: &str, size: u64) -> Fault {
    Fault::fatal(format!("{file}: {from} sends more than the {size} bytes that it announced; nothing of it is used"))
}

/// Where a partial answer begins: `Content-Range: bytes 7-9/10`.
fn range_start(answer: &Answer) -> Option<u64> {
    header(answer.response.headers(), "content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// The start of a file, and the hash of what is there.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    size: Option<u64>,
    hash: Option<Sha256>,
}

impl Partial {
    fn open(path: &Path, remote: &Remote) -> Result<Self, HubError> {
        let options = || File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = options().map_err(|error| cannot_write(path, &error))?;
        let length = file.metadata().map_err(|error| cannot_write(path, &error))?.len();
        let hash = remote.sha256().map(|_| Sha256::new());
        let mut partial = Self { path: path.to_owned(), file, length, size: remote.size, hash };
        // Without a size nobody can tell whether it is whole already.
        if remote.size.is_none_or(|size| length > size) {
            partial.restart()?;
        } else {
            partial.rehash()?;
        }
        Ok(partial)
    }

    /// Reads what is there, so that the next byte follows it.
    fn rehash(&mut self) -> Result<(), HubError> {
        let fault = |error| HubError::Failed(format!("cannot read {}: {error}", self.path.display()));
        let Some(hash) = &mut self.hash else {
            return self.file.seek(SeekFrom::End(0)).map(|_| ()).map_err(fault);
        };
        let mut chunk = vec![0; CHUNK];
        let mut left = self.length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let read = self.file.read(&mut chunk[..want]);
            let read =
                read.map_err(|error| HubError::Failed(format!("cannot read {}: {error}", self.path.display())))?;
            if read == 0 {
                self.length -= left;
                break;
            }
            hash.update(&chunk[..read]);
            left -= read as u64;
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        if self.length > 0 {
            let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
            emptied.map_err(|error| cannot_write(&self.path, &error))?;
            self.length = 0;
            self.hash = self.hash.take().map(|_| Sha256::new());
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(|error| cannot_write(&self.path, &error))?;
        self.length += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.size == Some(self.length)
    }

    /// Checks the contents and gives them their name.
    fn finish(self, file: &str, remote: &Remote, blob: &Path) -> Result<u64, HubError> {
        if let (Some(hash), Some(want)) = (self.hash, remote.sha256()) {
            let have: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            if !have.eq_ignore_ascii_case(want) {
                let removed = fs::remove_file(&self.path);
                removed.map_err(|error| cannot_write(&self.path, &error))?;
                return Err(HubError::Failed(format!(
                    "{file} does not have the SHA-256 that the hub announced ({want}, and it is {have}): it was deleted; \
                     run the command again to download it anew"
                )));
            }
        }
        let named = self.file.sync_all().and_then(|()| {
            drop(self.file);
            fs::rename(&self.path, blob)
        });
        named.map_err(|error| cannot_write(blob, &error))?;
        Ok(self.length)
    }
}
