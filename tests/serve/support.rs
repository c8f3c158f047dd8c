//! A server, and a client that may say anything.

use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes as long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running server, which ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(&mut Self::command(arguments))
    }

    pub(crate) fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.args(["serve", "--port", "0", "--device", "cpu", "--quiet"]).args(arguments);
        command.env_remove("HEADWATER_API_KEY").stdin(Stdio::null());
        command
    }

    pub(crate) fn start_with(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
        let Some(address) = address.map(str::to_owned) else {
            let mut said = String::new();
            child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
            panic!("the server did not start: {line}{said}");
        };
        Self { child, address }
    }

    /// A request with nothing unusual about it.
    pub(crate) fn request(&self, method: &str, path: &str, body: &Value) -> Response {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &[("Content-Type", "application/json")], body.as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, &Value::Null)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, body)
    }

    /// A request with these headers, one of which may be another host.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        Response::read(self.begin(method, path, headers, body))
    }

    /// The same, whose answer is not read yet.
    pub(crate) fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        self.raw(&[head.as_bytes(), b"\r\n", body].concat())
    }

    /// Any bytes at all.
    pub(crate) fn raw(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A server may answer, and hang up, before it has read all.
        drop(stream.write_all(bytes));
        stream
    }

    /// Submits a job of the own API, and gives its id.
    pub(crate) fn submit(&self, job: &Value) -> String {
        let response = self.post("/api/jobs", job);
        assert_eq!(response.status, 202, "{}", response.text());
        response.json()["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a job is over, and gives it.
    pub(crate) fn wait(&self, id: &str) -> Value {
        let started = Instant::now();
        loop {
            let job = self.get(&format!("/api/jobs/{id}")).json();
            if !["queued", "running"].contains(&job["state"].as_str().unwrap()) {
                return job;
            }
            assert!(started.elapsed() < PATIENCE, "{job}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a job has begun.
    pub(crate) fn wait_for_step(&self, id: &str) {
        let started = Instant::now();
        while self.get(&format!("/api/jobs/{id}")).json()["steps_taken"] == 0 {
            assert!(started.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The image of a finished job.
    pub(crate) fn image(&self, id: &str, index: usize) -> Vec<u8> {
        let response = self.get(&format!("/api/jobs/{id}/images/{index}"));
        assert_eq!(response.status, 200, "{}", response.text());
        response.body
    }

    /// Makes images by the own API.
    pub(crate) fn make(&self, job: &Value) -> Vec<Vec<u8>> {
        let id = self.submit(job);
        let done = self.wait(&id);
        assert_eq!(done["state"], "done", "{done}");
        (0..done["images"].as_array().unwrap().len()).map(|index| self.image(&id, index)).collect()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end; tells how it ended, and what it said on standard error.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
        (status, said)
    }

    /// Kilobytes that it holds in memory.
    pub(crate) fn resident_kb(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().split(' ').next()?.parse().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Reads to the end of the connection.
    pub(crate) fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A server that hangs up on more than it reads resets the connection, after its answer.
        drop(stream.read_to_end(&mut bytes));
        drop(stream.shutdown(Shutdown::Both));
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer but {:?}", String::from_utf8_lossy(&bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pairs = lines.filter_map(|line| line.split_once(": "));
        let headers: HashMap<_, _> = pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let rest = &bytes[end + 4..];
        let is_chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let body = if is_chunked { unchunked(rest) } else { rest.to_vec() };
        Self { status, headers, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Server-sent events: name, id, data.
    pub(crate) fn events(&self) -> Vec<(String, Option<usize>, Value)> {
        let text = self.text();
        let events = text.split("\n\n").filter(|event| event.contains("data: "));
        let field = |event: &str, name: &str| {
            event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
        };
        let read = |event| {
            let data = field(event, "data").unwrap();
            let data = serde_json::from_str(&data).unwrap();
            (field(event, "event").unwrap_or_default(), field(event, "id").map(|id| id.parse().unwrap()), data)
        };
        events.map(read).collect()
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let chunk = &rest[end + 2..];
        if length == 0 || chunk.len() < length + 2 {
            break;
        }
        body.extend_from_slice(&chunk[..length]);
        rest = &chunk[length + 2..];
    }
    body
}

/// Runs a command as people do, and gives the file that it wrote.
pub(crate) fn command(folder: &Path, arguments: &[&str], file: &str) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(arguments)
        .args(["--device", "cpu", "--force"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(folder.join(file)).unwrap()
}

/// The pixels of a picture file.
pub(crate) fn pixels(bytes: &[u8]) -> headwater::RgbImage {
    headwater::PictureBytes { name: "the picture", bytes, most_pixels: 1 << 24 }.picture().unwrap()
}

/// A picture file in base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The reverse.
pub(crate) fn from_base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
