//! What whoever runs a server asks of it: figures, a check before it starts, bounds on what clients hold.

use super::support::Server;
use serde_json::{Value, json};
use std::io::Read as _;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A series of the metrics, by its name with labels.
fn read(server: &Server, series: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

#[test]
fn metrics_count_what_was_made() {
    let server = Server::start(&["--api-key", "secret"]);
    assert_eq!(server.get("/metrics").status, 401);
    let server = Server::start(&[]);
    let response = server.get("/metrics");
    assert_eq!(response.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(response.text().ends_with("# EOF\n"));
    let of = |series: &str| read(&server, series);
    assert_eq!(of("headwater_jobs_total{state=\"done\"}"), 0.0);

    // The sampler takes a step less than it is told where the last would be none: as many as its job says.
    let mut steps = 0;
    for count in [1, 3] {
        let id = server.submit(&json!({ "prompt": "a red heart", "steps": 4, "count": count }));
        steps += server.wait(&id)["steps_taken"].as_u64().unwrap();
    }
    let endless = json!({ "model": "icons-64", "prompt": "a blue fish", "steps": 1000 });
    let (running, waiting) = (server.submit(&endless), server.submit(&json!({ "prompt": "a star" })));
    server.wait_for_step(&running);
    assert_eq!((of("headwater_jobs_running"), of("headwater_jobs_waiting")), (1.0, 1.0));
    for id in [&waiting, &running] {
        server.request("DELETE", &format!("/api/jobs/{id}"), &Value::Null);
    }
    server.make(&json!({ "prompt": "a star", "steps": 1 }));
    assert_eq!((of("headwater_jobs_running"), of("headwater_jobs_waiting")), (0.0, 0.0));
    assert_eq!(of("headwater_jobs_total{state=\"done\"}"), 3.0);
    assert_eq!(of("headwater_jobs_total{state=\"cancelled\"}"), 2.0);
    assert_eq!(of("headwater_images_total"), 5.0);
    assert!(of("headwater_steps_total") > steps as f64);

    // A histogram's buckets add up.
    assert_eq!(of("headwater_job_seconds_count"), 3.0);
    assert_eq!(of("headwater_job_wait_seconds_count"), 4.0);
    assert_eq!(of("headwater_job_seconds_bucket{le=\"+Inf\"}"), 3.0);
    assert!(of("headwater_job_seconds_sum") > 0.0);
    let text = server.get("/metrics").text();
    let buckets = text.lines().filter(|line| line.starts_with("headwater_job_seconds_bucket"));
    let counts: Vec<f64> = buckets.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(counts.len() > 10 && counts.is_sorted(), "{counts:?}");

    assert!(of("headwater_http_responses_total{code=\"202\"}") >= 5.0);
    #[cfg(target_os = "linux")]
    {
        let (told, known) = (of("process_resident_memory_bytes"), server.resident_kb().unwrap() as f64 * 1024.0);
        assert!((told / known - 1.0).abs() < 0.5, "{told} and {known}");
    }
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let server = Server::start(&["--write-timeout", "1"]);
    let one = server.get("/api/openapi.json").body.len();
    // Far more than the system's buffers hold.
    let requests = (64 << 20) / one;
    let request = format!("GET /api/openapi.json HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let mut idle = server.raw(request.repeat(requests).as_bytes());
    // One that reads what little there is, now and then, is no such client.
    let id = server.submit(&json!({ "model": "icons-64", "prompt": "a blue fish", "steps": 1000 }));
    let mut patient = server.begin("GET", &format!("/api/jobs/{id}/events"), &[], b"");
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        std::thread::sleep(Duration::from_millis(500));
        let mut some = [0; 1 << 16];
        assert!(patient.read(&mut some).unwrap() > 0, "cut off after {:?}", started.elapsed());
    }
    server.request("DELETE", &format!("/api/jobs/{id}"), &Value::Null);
    let mut rest = Vec::new();
    // Reset, or ended early.
    drop(idle.read_to_end(&mut rest));
    assert!(rest.len() < requests * one / 2, "{} of {} bytes", rest.len(), requests * one);
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_job_that_nobody_fetches_is_kept_for_as_long_as_told() {
    let server = Server::start(&["--keep", "2"]);
    let id = server.submit(&json!({ "prompt": "a red heart" }));
    assert_eq!(server.wait(&id)["state"], "done");
    server.image(&id, 0);
    let started = Instant::now();
    while server.get(&format!("/api/jobs/{id}")).status == 200 {
        assert!(started.elapsed() < Duration::from_secs(60), "it is kept for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(started.elapsed() > Duration::from_secs(1));
    assert_eq!(server.get("/api/jobs").json()["jobs"], json!([]));
}

fn check(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(["serve", "--check", "--device", "cpu"]).args(arguments);
    command
        .env_remove("HEADWATER_API_KEY")
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .output()
        .unwrap()
}

#[test]
fn a_check_says_what_would_be_served_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let damaged = folder.path().join("damaged.safetensors");
    std::fs::write(&damaged, "nothing").unwrap();
    let damaged = damaged.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, code, parts) in [
        (
            &["--port", "0"][..],
            0,
            &[
                "http://127.0.0.1:0/",
                "none: every program",
                "(cpu, native)",
                "icons-64: inside",
                "transformer:",
                "64 jobs",
            ][..],
        ),
        (
            &["--port", "0", "--api-key", "secret", "--host", "0.0.0.0", "--lora-dir", home],
            0,
            &["key        set", "1 in "],
        ),
        (&["--port", "0", "-m", "owner/repo"], 0, &["owner/repo: not in the hub's cache, and downloaded at the start"]),
        (&["--port", &port], 2, &["choose another with --port"]),
        (&["--port", "0", "--host", "0.0.0.0"], 2, &["give a key with --api-key"]),
        (&["--port", "0", "-m", damaged], 2, &["damaged: cannot be used", "problem    "]),
        (
            &["--port", "0", "-m", "no-such-model", "-m", "no-such-model"],
            2,
            &["there is no model", "two models", "icons-64"],
        ),
        (&["--port", "0", "--lora-dir", "/no/such/folder"], 2, &["--lora-dir /no/such/folder: "]),
    ] {
        let output = check(arguments);
        let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}{said}");
        for part in parts {
            assert!(told.contains(part), "{arguments:?} has no {part}: {told}");
        }
        assert_eq!(said.starts_with("error: this would not be served: "), code == 2, "{said}");
        assert!(!told.contains("secret"), "{told}");
    }
}
