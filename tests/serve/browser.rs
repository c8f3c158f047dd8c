//! Headless Chromium, driven by the DevTools protocol over a pair of pipes: messages in JSON, each ended by a zero byte.

use super::common::chromium;
use super::support::base64;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing on a page takes as long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(240);

/// A browser with one page, which ends with the test.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    sent: u64,
    /// What went wrong on the page: exceptions, and what was written to its console as an error.
    pub wrong: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// None where no browser is installed; it says so.
    pub fn start() -> Option<Self> {
        Self::with(&["--disable-gpu"])
    }

    /// The same with flags of its own.
    pub fn with(flags: &[&str]) -> Option<Self> {
        let name = chromium()?;
        let profile = tempfile::tempdir().unwrap();
        // The browser reads from descriptor 3 and writes to 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", name])
            .args(["--headless", "--no-sandbox", "--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser = Self { child, to, from, session: None, sent: 0, wrong: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    /// Sends a command, and waits for its result.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert!(!bytes.is_empty(), "the browser ended at {method}");
            let told: Value = serde_json::from_slice(&bytes[..bytes.len() - 1]).unwrap();
            if told["id"] == self.sent {
                assert!(told["error"].is_null(), "{method}: {}", told["error"]);
                return told["result"].clone();
            }
            self.note(&told);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.wrong.push(params["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if params["type"] == "error" => self.wrong.push(params["args"].to_string()),
            // What the policy of the page forbids, say.
            "Log.entryAdded" if params["entry"]["level"] == "error" => self.wrong.push(params["entry"].to_string()),
            _ => {}
        }
    }

    /// Opens a page, and waits until it is there.
    pub fn open(&mut self, url: &str) {
        let told = self.call("Page.navigate", &json!({ "url": url }));
        assert!(told["errorText"].is_null(), "{told}");
        self.until("document.readyState === 'complete' && location.protocol === 'http:'");
    }

    /// The value of an expression; a promise's, when it is there.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let told = self.call("Runtime.evaluate", &params);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {}", told["exceptionDetails"]);
        told["result"]["value"].clone()
    }

    /// The same of one that is a text.
    pub fn text(&mut self, expression: &str) -> String {
        let value = self.eval(expression);
        value.as_str().unwrap_or_else(|| panic!("{expression}: {value}")).to_owned()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        let started = Instant::now();
        while self.eval(&format!("Boolean({expression})")) != true {
            assert!(started.elapsed() < PATIENCE, "{expression}; {:?}", self.wrong);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fills in a field by its id, as typing does.
    pub fn fill(&mut self, id: &str, value: &str) {
        let (id, value) = (json!(id), json!(value));
        self.eval(&format!(
            "{{ const field = document.getElementById({id}); field.value = {value};
               for (const name of ['input', 'change']) field.dispatchEvent(new Event(name, {{ bubbles: true }})); }}"
        ));
    }

    /// Clicks on what a selector finds first.
    pub fn click(&mut self, selector: &str) {
        self.eval(&format!("document.querySelector({}).click()", json!(selector)));
    }

    /// The text of an element.
    pub fn shown(&mut self, id: &str) -> String {
        self.text(&format!("document.getElementById({}).textContent", json!(id)))
    }

    /// Moves the mouse with its button held from one point of an element to another, in shares of its sides.
    pub fn drag(&mut self, id: &str, from: [f64; 2], to: [f64; 2]) {
        let id = json!(id);
        let place = self.eval(&format!(
            "(() => {{ const box = document.getElementById({id}).getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; }})()"
        ));
        let number = |at: usize| place[at].as_f64().unwrap();
        let mut mouse = |kind: &str, [x, y]: [f64; 2]| {
            let (x, y) = (number(0) + x * number(2), number(1) + y * number(3));
            let params = json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &params);
        };
        mouse("mousePressed", from);
        for step in 1..=10 {
            let share = f64::from(step) / 10.0;
            mouse("mouseMoved", [0, 1].map(|axis| from[axis] + share * (to[axis] - from[axis])));
        }
        mouse("mouseReleased", to);
    }

    /// Drops a file on the page.
    pub fn drop_file(&mut self, name: &str, media: &str, bytes: &[u8]) {
        let (name, media, data) = (json!(name), json!(media), json!(base64(bytes)));
        self.eval(&format!(
            "{{ const bytes = Uint8Array.from(atob({data}), (letter) => letter.charCodeAt(0));
               const dataTransfer = new DataTransfer();
               dataTransfer.items.add(new File([bytes], {name}, {{ type: {media} }}));
               for (const event of ['dragenter', 'dragover', 'drop']) {{
                 dispatchEvent(new DragEvent(event, {{ dataTransfer, bubbles: true, cancelable: true }}));
               }} }}"
        ));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
