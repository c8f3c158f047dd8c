//! A server of files as small as one can be, for the folder that `cargo xtask web` builds.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A page without anything on it, from which scripts are called.
const BLANK: &[u8] = b"<!doctype html><meta charset=utf-8><title>test</title><link rel=icon href=data:,>";

/// The list of a model that no page's processor holds.
const HUGE: &[u8] = br#"[{ "path": "unet/x.safetensors", "bytes": 5000000000, "sha256": "0000000000000000000000000000000000000000000000000000000000000000" }]"#;

/// What lets pages share memory between threads.
pub const ISOLATED: &str = "Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Embedder-Policy: require-corp\r\n";

/// The folder; none where it was not built, which is said.
pub fn folder() -> Option<PathBuf> {
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/web/site");
    if site.join("headwater_web_bg.wasm").is_file() {
        return Some(site);
    }
    println!("skipped: {} was not built (cargo xtask web)", site.display());
    None
}

/// A server that hands out the folder for as long as the test runs.
pub struct Site {
    pub address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Site {
    /// Answers nobody from now on.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Hands out the folder, with these header lines more. Paths that begin with `damaged/` lead to the same files, one byte of each changed, and
/// `huge/` is a model that only its list tells of.
pub fn serve(folder: &Path, headers: &'static str) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = folder.to_owned();
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if ends.load(Ordering::Relaxed) {
                continue;
            }
            let folder = folder.clone();
            // A browser that has enough of an answer closes it.
            std::thread::spawn(move || answer(&stream, &folder, headers).ok());
        }
    });
    Site { address, is_over }
}

fn answer(mut stream: &TcpStream, folder: &Path, headers: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or_default().trim_start_matches('/');
    let (path, damages) = match path.strip_prefix("damaged/") {
        Some(path) => (path, !path.ends_with(".json")),
        None => (path, false),
    };
    let path = if path.is_empty() { "index.html" } else { path };
    let found = match path {
        "blank.html" => Ok(BLANK.to_vec()),
        "huge/files.json" => Ok(HUGE.to_vec()),
        _ => std::fs::read(folder.join(path)),
    };
    let media = match path.rsplit_once('.').map_or("", |(_, end)| end) {
        "html" => "text/html",
        "js" => "text/javascript",
        "wasm" => "application/wasm",
        "json" => "application/json",
        _ => "application/octet-stream",
    };
    let Ok(mut bytes) = found else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    if let Some(last) = bytes.last_mut().filter(|_| damages) {
        *last ^= 1;
    }
    let length = bytes.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\n{headers}Content-Type: {media}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&bytes)
}
