//! Jobs: the command's very pictures, events, cancelling, the queue, the end.

use super::support::{Response, Server, base64, command, pixels};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

/// A job that goes on until it is stopped.
fn endless() -> Value {
    json!({ "model": "icons-64", "prompt": "a blue fish", "steps": 1000, "seed": 1 })
}

#[test]
fn the_same_seed_gives_the_commands_very_file() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let wanted = |arguments: &[&str], file: &str| command(folder.path(), arguments, file);

    let made = server.make(&json!({ "prompt": "a red heart", "seed": 7, "steps": 2 }));
    let heart = wanted(&["generate", "a red heart", "--seed", "7", "--steps", "2", "-o", "a.png"], "a.png");
    assert!(made[0] == heart, "generate");

    // Made together, and with jobs of others.
    let job = |prompt: &str, seed: u64| json!({ "prompt": prompt, "seed": seed, "count": 3, "model": "icons-64", "steps": 3, "sampler": "dpmpp_2m_sde" });
    let before = server.submit(&json!({ "model": "icons-64", "prompt": "a cat", "steps": 5, "seed": 1 }));
    let ids = [("a blue fish", 40), ("a yellow star", 50)]
        .map(|(prompt, seed)| (prompt, seed, server.submit(&job(prompt, seed))));
    server.wait(&before);
    for (prompt, seed, id) in ids {
        assert_eq!(server.wait(&id)["state"], "done");
        let (text, last) = (seed.to_string(), format!("{}.png", seed + 2));
        let flags = [
            "--seed",
            &text,
            "-n",
            "3",
            "-m",
            "icons-64",
            "--steps",
            "3",
            "--sampler",
            "dpmpp_2m_sde",
            "-o",
            "{seed}.png",
        ];
        assert!(
            server.image(&id, 2) == wanted(&[&["generate", prompt], &flags[..]].concat(), &last),
            "the third {prompt}"
        );
    }

    // From pictures: the file's settings name it otherwise.
    let image = base64(&heart);
    for (mut job, flags) in [
        (
            json!({ "command": "img2img", "prompt": "a blue heart", "strength": 0.6 }),
            &["img2img", "a.png", "a blue heart", "--strength", "0.6"][..],
        ),
        (
            json!({ "command": "inpaint", "prompt": "a star", "mask": "8,8,20,20" }),
            &["inpaint", "a.png", "a star", "--mask", "8,8,20,20"],
        ),
        (
            json!({ "command": "outpaint", "prompt": "a heart", "left": 8 }),
            &["outpaint", "a.png", "a heart", "--left", "8"],
        ),
        (json!({ "command": "colorize", "prompt": "a heart" }), &["colorize", "a.png", "a heart"]),
        (json!({ "command": "upscale", "prompt": "a heart" }), &["upscale", "a.png", "a heart"]),
        (
            json!({ "command": "restore", "prompt": "a heart", "sigma": 0.3 }),
            &["restore", "a.png", "a heart", "--sigma", "0.3"],
        ),
        (json!({ "command": "stroke", "prompt": "a heart" }), &["stroke", "a.png", "a heart"]),
    ] {
        job["image"] = json!(image);
        job["seed"] = json!(3);
        job["steps"] = json!(2);
        let file = wanted(&[flags, &["--seed", "3", "--steps", "2", "-o", "b.png"]].concat(), "b.png");
        assert!(pixels(&server.make(&job)[0]) == pixels(&file), "{flags:?}");
    }
}

#[test]
fn every_step_is_told_to_whoever_watches_and_comes_back() {
    let server = Server::start(&[]);
    let id = server.submit(&json!({ "prompt": "a red heart", "seed": 7, "steps": 3, "count": 2, "previews": "both" }));
    let path = format!("/api/jobs/{id}/events");
    let events = server.get(&path).events();
    let named =
        |name: &str| events.iter().filter(|(own, ..)| own == name).map(|(_, _, data)| data.clone()).collect::<Vec<_>>();
    let steps = named("step");
    assert_eq!(steps.len(), 6, "{events:?}");
    for step in &steps {
        for picture in ["preview", "noisy"] {
            let file = step[picture].as_str().unwrap().strip_prefix("data:image/jpeg;base64,").unwrap();
            let picture = pixels(&super::support::from_base64(file));
            assert_eq!((picture.width, picture.height), (64, 64));
        }
        assert_eq!(step["steps"], 3);
    }
    let images = named("image");
    assert_eq!(images.iter().map(|image| image["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(images[0]["settings"]["prompt"], "a red heart");
    assert_eq!(events.last().unwrap().0, "done");
    let numbers: Vec<usize> = events.iter().filter_map(|(_, id, _)| *id).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());

    // A browser whose connection broke says what it had, and at the end comes no more.
    let from = |last: usize| server.send("GET", &path, &[("Last-Event-ID", &last.to_string())], b"");
    assert_eq!(from(3).events(), events[events.len() - (numbers.len() - 4)..]);
    assert_eq!(from(numbers.len() - 1).status, 204);
}

#[test]
fn what_nobody_wants_any_more_ends_at_its_next_step() {
    let server = Server::start(&[]);
    // Cancelled by its owner.
    let id = server.submit(&endless());
    server.wait_for_step(&id);
    assert_eq!(server.request("DELETE", &format!("/api/jobs/{id}"), &Value::Null).status, 200);
    assert_eq!(server.wait(&id)["state"], "cancelled");

    // Its client went away: of OpenAI's API and of AUTOMATIC1111's, as an answer and as a stream.
    for (path, mut body) in [
        ("/v1/images/generations", endless()),
        ("/v1/images/generations", json!({ "stream": true })),
        (
            "/sdapi/v1/txt2img",
            json!({ "prompt": "a fish", "steps": 1000, "override_settings": { "sd_model_checkpoint": "icons-64" } }),
        ),
    ] {
        if body["stream"] == true {
            body = endless();
            body["stream"] = json!(true);
        }
        let text = body.to_string();
        let mut stream = server.begin("POST", path, &[("Content-Type", "application/json")], text.as_bytes());
        let started = Instant::now();
        while server.get("/api/info").json()["live"] != 1 {
            assert!(started.elapsed() < Duration::from_secs(60), "{path}: it never began");
            std::thread::sleep(Duration::from_millis(10));
        }
        stream.flush().unwrap();
        drop(stream);
        // What comes next does not wait for a thousand steps.
        server.make(&json!({ "prompt": "a red heart", "steps": 1 }));
        assert_eq!(server.get("/api/info").json()["live"], 0, "{path}");
    }
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = Server::start(&["--max-queue", "2"]);
    let (first, second) = (server.submit(&endless()), server.submit(&endless()));
    server.wait_for_step(&first);
    for (path, body) in [
        ("/api/jobs", endless()),
        ("/v1/images/generations", endless()),
        ("/sdapi/v1/txt2img", json!({ "prompt": "a" })),
    ] {
        let response = server.post(path, &body);
        assert_eq!(response.status, 429, "{}", response.text());
        let seconds: u64 = response.headers["retry-after"].parse().unwrap();
        assert!((1..=60).contains(&seconds));
    }
    let told = server.get(&format!("/api/jobs/{second}")).json();
    assert_eq!((&told["position"], &told["state"]), (&json!(0), &json!("queued")));
    for id in [first, second] {
        server.request("DELETE", &format!("/api/jobs/{id}"), &Value::Null);
    }
    server.make(&json!({ "prompt": "a red heart" }));
}

#[test]
#[cfg(unix)]
fn it_ends_when_told_to_and_answers_what_waits() {
    for (signal, code) in [("-TERM", 0), ("-INT", 130)] {
        let mut server = Server::start(&[]);
        let id = server.submit(&endless());
        server.wait_for_step(&id);
        let watching = server.begin("GET", &format!("/api/jobs/{id}/events"), &[], b"");
        let text = json!({ "prompt": "a red heart", "model": "icons-64" }).to_string();
        let waiting =
            server.begin("POST", "/v1/images/generations", &[("Content-Type", "application/json")], text.as_bytes());
        let half = server.raw(b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
        while server.get("/api/info").json()["live"] != 2 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let started = Instant::now();
        server.signal(signal);
        let (status, said) = server.end();
        let took = started.elapsed();
        assert_eq!(status.code(), Some(code), "{signal}: {said}");
        assert!(took < Duration::from_secs(5), "{signal}: {took:?}");
        assert!(!said.contains("panicked"), "{said}");
        let answer = Response::read(waiting);
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.headers.contains_key("retry-after"));
        let events = Response::read(watching).events();
        let (name, _, data) = events.last().unwrap();
        assert_eq!(name, "failed", "{data}");
        drop(half);
    }
}

#[test]
#[cfg(unix)]
fn one_that_was_killed_leaves_nothing_behind() {
    let cache = tempfile::tempdir().unwrap();
    let start = || Server::start_with(Server::command(&[]).env("XDG_CACHE_HOME", cache.path()));
    let mut first = start();
    // Two on one cache.
    let second = start();
    let waiting = first.begin(
        "POST",
        "/v1/images/generations",
        &[("Content-Type", "application/json")],
        endless().to_string().as_bytes(),
    );
    while first.get("/api/info").json()["live"] != 1 {
        std::thread::sleep(Duration::from_millis(10));
    }
    first.signal("-KILL");
    first.end();
    // Whoever waited is told that the connection broke.
    let mut answer = Vec::new();
    let mut waiting = waiting;
    assert!(waiting.read_to_end(&mut answer).is_err() || answer.is_empty());
    let third = start();
    for server in [second, third] {
        server.make(&json!({ "prompt": "a red heart" }));
    }
}

#[test]
fn what_cannot_be_served_is_said_in_a_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, code, part) in [
        (&["--port", &port][..], 1, "choose another with --port"),
        (&["--host", "0.0.0.0"], 2, "--api-key"),
        (&["--host", "nowhere"], 2, "--host"),
        (&["--api-key", ""], 2, "empty"),
        (&["--allowed-origin", "example.com"], 2, "https://example.com"),
        (&["--model", "no-such-model"], 1, "there is no model"),
        (&["--model", "icons-64", "--model", "icons-64"], 2, "two models"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["serve", "--device", "cpu"])
            .args(arguments)
            .env_remove("HEADWATER_API_KEY")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_document_of_the_api_is_the_one_beside_the_docs() {
    let server = Server::start(&[]);
    let told = server.get("/api/openapi.json").json();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        serde::Serialize::serialize(&told, &mut serializer).unwrap();
        text.push(b'\n');
        std::fs::write(&path, text).unwrap();
    }
    let written: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(told == written, "docs/openapi.json is old: run this test with UPDATE_OPENAPI=1");
}

/// A model that maps noise to pictures at once has no ODE of its own; its pictures are made all the same.
#[test]
fn what_has_no_ode_has_no_error() {
    let server = Server::start(&[]);
    let id = server.submit(&json!({ "prompt": "a red heart", "steps": 1, "seed": 3, "reference": true }));
    let job = server.wait(&id);
    assert_eq!((&job["state"], &job["images"][0]["error"]), (&json!("done"), &json!(null)), "{job}");
    assert!(job["images"][0].as_object().unwrap().contains_key("error"));
    let events = server.get(&format!("/api/jobs/{id}/events")).events();
    let names: Vec<&str> = events.iter().map(|(name, ..)| name.as_str()).filter(|name| *name != "queued").collect();
    assert_eq!(names, ["started", "reference", "step", "image", "done"]);
    let of = |name: &str| &events.iter().find(|(own, ..)| own == name).unwrap().2;
    assert_eq!((&of("reference")["path"], &of("reference")["reference"]), (&json!("other"), &json!(null)));
    assert_eq!(of("step")["error"], json!(null));
}

/// Two devices take jobs from one queue, and a picture is the same whichever made it, with adapters too.
#[test]
fn devices_share_a_queue() {
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens");
    let (model, loras) = (format!("{goldens}/pipelines/stable_diffusion"), format!("{goldens}/loras"));
    let server = Server::start(&["--device", "cpu", "-m", &model, "--lora-dir", &loras, "--batch", "1"]);
    assert_eq!(server.get("/api/info").json()["devices"].as_array().unwrap().len(), 2);
    let long = json!({ "prompt": "a red square", "steps": 900, "width": 128, "height": 128 });
    let endless = server.submit(&long);
    server.wait_for_step(&endless);
    // The second device makes these while the first is busy.
    let prompts = ["a red square", "a red square <lora:peft:0.8>"];
    let made = prompts.map(|prompt| server.make(&json!({ "prompt": prompt, "steps": 3, "seed": 5 })));
    let state = server.get(&format!("/api/jobs/{endless}")).json()["state"].clone();
    assert_eq!(state, "running");
    server.request("DELETE", &format!("/api/jobs/{endless}"), &Value::Null);
    assert!(made[0] != made[1], "an adapter changes the picture");
    for (prompt, made) in prompts.iter().zip(&made) {
        let jobs = [(); 4].map(|()| server.submit(&json!({ "prompt": prompt, "steps": 3, "seed": 5 })));
        for id in jobs {
            assert_eq!(server.wait(&id)["state"], "done");
            assert!(server.image(&id, 0) == made[0], "the same picture");
        }
    }
}
