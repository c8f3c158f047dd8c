//! A small hub on this machine: one repository, its storage on another port, and every way to misbehave.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does with a request instead of answering it well.
#[derive(Debug, Clone)]
pub(crate) enum Trick {
    /// Answers with a status, these headers and no body.
    Status(u16, &'static str),
    /// Answers 200 with this body.
    Body(String),
    /// Announces the whole body and closes the connection after this many bytes of it.
    Cut(usize),
    /// Sends the whole file, whatever part is asked for.
    IgnoreRange,
    /// Sends the whole file, whatever part is asked for, and closes the connection after this many bytes.
    IgnoreRangeAndCut(usize),
    /// Changes a byte.
    Corrupt,
    /// Announces a smaller body than the file and sends that.
    Short(usize),
    /// Sends ten bytes more than announced before.
    Long,
    /// Accepts the request and sends nothing.
    Stall,
    /// Sends the body in 16 pieces with this pause before each.
    Slow(Duration),
    /// Redirects requests for `tiny/old` to `tiny/model`.
    Renamed,
    /// Another `ETag` in the answer.
    Etag(&'static str),
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) is_storage: bool,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// How many requests like it arrived before.
    pub(crate) earlier: usize,
    /// Bytes of body that were sent.
    pub(crate) sent: usize,
}

impl Request {
    pub(crate) fn is_api(&self) -> bool {
        self.path.starts_with("/api/")
    }

    pub(crate) fn range_start(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

type Tricks = dyn Fn(&Request) -> Option<Trick> + Send + Sync;

struct State {
    files: BTreeMap<String, Vec<u8>>,
    listing: Mutex<Vec<String>>,
    requests: Mutex<Vec<Request>>,
    /// Number of requests that are being answered.
    open: AtomicUsize,
    tricks: Mutex<Arc<Tricks>>,
    storage: String,
}

/// The hub; its threads end with the test's process.
#[derive(Clone)]
pub(crate) struct Hub {
    pub(crate) endpoint: String,
    state: Arc<State>,
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `ETag` of large files is their SHA-256, and that of other files a hash of 40 digits like git's.
pub(crate) fn etag(name: &str, bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    if is_large(name) { hash } else { hash[..40].to_owned() }
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

impl Hub {
    /// Serves a folder, and more files, as `tiny/model`.
    pub(crate) fn serve(folder: &Path, more: &[(&str, &[u8])]) -> Self {
        let mut files = BTreeMap::new();
        read_folder(folder, "", &mut files);
        files.extend(more.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())));
        let (hub, storage) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            listing: Mutex::new(files.keys().cloned().collect()),
            files,
            requests: Mutex::default(),
            open: AtomicUsize::new(0),
            tricks: Mutex::new(Arc::new(|_| None)),
            storage: address(&storage),
        });
        let endpoint = address(&hub);
        for (listener, is_storage) in [(hub, false), (storage, true)] {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || connection(&state, &stream, is_storage));
                }
            });
        }
        Self { endpoint, state }
    }

    pub(crate) fn file(&self, name: &str) -> &[u8] {
        &self.state.files[name]
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.state.files.iter().map(|(name, bytes)| (&**name, &**bytes))
    }

    /// Replaces the tricks.
    pub(crate) fn trick(&self, tricks: impl Fn(&Request) -> Option<Trick> + Send + Sync + 'static) {
        *self.state.tricks.lock().unwrap() = Arc::new(tricks);
    }

    pub(crate) fn list(&self, names: &[&str]) {
        *self.state.listing.lock().unwrap() = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// Everything asked for since the last call, and what was sent.
    pub(crate) fn requests(&self) -> Vec<Request> {
        while self.state.open.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }
}

fn read_folder(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            read_folder(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

/// Answers the requests of one connection in turn, until it is closed.
fn connection(state: &State, stream: &TcpStream, is_storage: bool) {
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut reader, is_storage) {
        let trick = {
            let mut requests = state.requests.lock().unwrap();
            let same =
                |r: &&Request| (r.is_storage, &r.method, &r.path) == (is_storage, &request.method, &request.path);
            request.earlier = requests.iter().filter(same).count();
            requests.push(request.clone());
            state.open.fetch_add(1, Ordering::SeqCst);
            let tricks = Arc::clone(&state.tricks.lock().unwrap());
            tricks(&request)
        };
        if matches!(trick, Some(Trick::Stall)) {
            state.open.fetch_sub(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(30));
            return;
        }
        let (sent, is_open) = answer(state, stream, &request, trick.as_ref());
        let mut requests = state.requests.lock().unwrap();
        let own =
            |r: &&mut Request| (&r.method, &r.path, r.earlier) == (&request.method, &request.path, request.earlier);
        if let Some(own) = requests.iter_mut().find(own) {
            own.sent = sent;
        }
        state.open.fetch_sub(1, Ordering::SeqCst);
        if !is_open {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead, is_storage: bool) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some(Request { is_storage, method, path, headers, earlier: 0, sent: 0 })
}

/// Bytes of body sent, and whether the connection stays open.
fn answer(state: &State, mut stream: &TcpStream, request: &Request, trick: Option<&Trick>) -> (usize, bool) {
    let mut say = |status: u16, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        let body = if request.method == "HEAD" { &[] } else { body };
        let is_open = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_ok();
        (body.len(), is_open)
    };
    match trick {
        Some(Trick::Status(code, headers)) => return say(*code, headers, b""),
        Some(Trick::Body(text)) => return say(200, "Content-Type: text/html\r\n", text.as_bytes()),
        Some(Trick::Renamed) => {
            let location = request.path.replace("/tiny/old/", "/tiny/model/");
            return say(307, &format!("Location: {location}\r\n"), b"moved");
        }
        _ => {}
    }
    let path = &*request.path;
    if let Some(rest) = path.strip_prefix("/api/models/tiny/model/revision/") {
        if rest != "main" && rest != COMMIT && rest != "refs%2Fpr%2F1" {
            return say(404, "X-Error-Code: RevisionNotFound\r\n", b"{}");
        }
        let listing = state.listing.lock().unwrap().clone();
        let siblings: Vec<_> = listing.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let json = serde_json::json!({ "id": "tiny/model", "sha": COMMIT, "siblings": siblings });
        return say(200, "Content-Type: application/json\r\n", json.to_string().as_bytes());
    }
    let name = path.strip_prefix(&format!("/tiny/model/resolve/{COMMIT}/")).or_else(|| path.strip_prefix("/stored/"));
    let Some((name, bytes)) = name.and_then(|name| state.files.get_key_value(name)) else {
        let code = if path.starts_with("/tiny/model/") { "EntryNotFound" } else { "RepoNotFound" };
        return say(404, &format!("X-Error-Code: {code}\r\n"), b"{}");
    };
    let etag = match trick {
        Some(Trick::Etag(etag)) => (*etag).to_owned(),
        _ => format!("\"{}\"", etag(name, bytes)),
    };
    if is_large(name) && !request.is_storage {
        let headers = format!(
            "Location: {}/stored/{name}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: {etag}\r\nX-Linked-Size: {}\r\n",
            state.storage,
            bytes.len()
        );
        return say(302, &headers, b"Found. Redirecting");
    }
    let start =
        request.range_start().filter(|_| !matches!(trick, Some(Trick::IgnoreRange | Trick::IgnoreRangeAndCut(_))));
    let headers = format!("ETag: {etag}\r\nX-Repo-Commit: {COMMIT}\r\nAccept-Ranges: bytes\r\n");
    let mut body = bytes.clone();
    match trick {
        Some(Trick::Corrupt) => body[bytes.len() / 2] ^= 1,
        Some(Trick::Short(length)) => body.truncate(*length),
        Some(Trick::Long) => body.extend([0; 10]),
        _ => {}
    }
    let from = start.unwrap_or(0).min(body.len());
    let end = format!("bytes {from}-{}/{}", body.len().saturating_sub(1), body.len());
    let (status, headers) =
        if start.is_some() { (206, format!("{headers}Content-Range: {end}\r\n")) } else { (200, headers) };
    let body = &body[from..];
    match trick {
        Some(Trick::Cut(length) | Trick::IgnoreRangeAndCut(length)) if request.method == "GET" => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
            let part = &body[..(*length).min(body.len())];
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(part));
            (part.len(), false)
        }
        Some(Trick::Slow(pause)) if request.method == "GET" => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
            let mut is_open = stream.write_all(head.as_bytes()).is_ok();
            let mut sent = 0;
            for piece in body.chunks(body.len().div_ceil(16).max(1)) {
                std::thread::sleep(*pause);
                is_open = is_open && stream.write_all(piece).is_ok();
                if !is_open {
                    break;
                }
                sent += piece.len();
            }
            (sent, is_open)
        }
        _ => say(status, &headers, body),
    }
}
