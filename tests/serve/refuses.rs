//! What a server does not let in, and what it says to bad input.

use super::support::{Response, Server, base64};
use serde_json::{Value, json};
use std::io::Write as _;
use std::time::{Duration, Instant};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn other_sites_and_names_are_kept_out() {
    let server = Server::start(&["--allowed-origin", "https://site.example", "--allowed-host", "box.example"]);
    let own = format!("http://{}", server.address);
    for (method, path, headers, status) in [
        ("GET", "/", &[("Host", "evil.example")][..], 421),
        ("GET", "/api/jobs", &[("Host", "evil.example:80")], 421),
        ("GET", "/", &[("Host", "box.example")], 200),
        ("GET", "/healthz", &[("Host", "evil.example")], 421),
        ("POST", "/api/jobs", &[("Origin", "http://evil.example"), JSON], 403),
        ("POST", "/v1/images/generations", &[("Origin", "null"), JSON], 403),
        ("POST", "/sdapi/v1/txt2img", &[("Sec-Fetch-Site", "cross-site"), JSON], 403),
        ("GET", "/api/jobs", &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")], 403),
        (
            "GET",
            "/",
            &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")],
            200,
        ),
        ("OPTIONS", "/api/jobs", &[("Origin", "http://evil.example"), ("Access-Control-Request-Method", "POST")], 403),
        ("OPTIONS", "/api/jobs", &[("Origin", "https://site.example"), ("Access-Control-Request-Method", "POST")], 204),
        ("GET", "/api/models", &[("Origin", "https://site.example")], 200),
        ("GET", "/api/models", &[("Origin", &own)], 200),
    ] {
        let response = server.send(method, path, headers, b"{}");
        assert_eq!(response.status, status, "{method} {path} {headers:?}: {}", response.text());
        let allows = response.headers.get("access-control-allow-origin");
        let is_listed = headers.contains(&("Origin", "https://site.example"));
        assert_eq!(allows.is_some(), is_listed, "{headers:?}");
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(response.headers[name], value);
        }
        assert!(response.headers["content-security-policy"].starts_with("default-src 'none'"));
    }
}

#[test]
fn keys_are_needed_and_jobs_are_their_owners() {
    let server = Server::start_with(Server::command(&["--api-key", "first"]).env("HEADWATER_API_KEY", "second"));
    let bearer = |key: &str| format!("Bearer {key}");
    let basic = format!("Basic {}", base64(b"anybody:second"));
    for (authorization, status) in [
        ("", 401),
        ("Bearer ", 401),
        ("Bearer wrong", 401),
        (&bearer("first"), 200),
        (&bearer("second"), 200),
        (&basic, 200),
    ] {
        for path in ["/", "/api/models", "/v1/models", "/sdapi/v1/options"] {
            let response = server.send("GET", path, &[("Authorization", authorization)], b"");
            assert_eq!(response.status, status, "{authorization} {path}");
            assert_eq!(response.headers.contains_key("www-authenticate"), status == 401);
        }
    }
    assert_eq!(server.get("/healthz").status, 200);

    let job = json!({ "prompt": "a red heart" }).to_string();
    let made = server.send("POST", "/api/jobs", &[("Authorization", &bearer("first")), JSON], job.as_bytes());
    assert_eq!(made.status, 202);
    let path = made.headers["location"].clone();
    let ask = |key: &str, client: &str, method: &str, path: &str| {
        server.send(method, path, &[("Authorization", &bearer(key)), ("X-Headwater-Client", client)], b"").status
    };
    for (key, client, status) in [("first", "", 200), ("second", "", 404), ("first", "other", 404)] {
        for path in [path.clone(), format!("{path}/events")] {
            assert_eq!(ask(key, client, "GET", &path), status, "{key} {client} {path}");
        }
    }
    assert_eq!(ask("second", "", "DELETE", &path), 404);
    let listed = server.send("GET", "/api/jobs", &[("Authorization", &bearer("second"))], b"").json();
    assert_eq!(listed["jobs"], json!([]));
}

/// A PNG file whose header gives a size, but which holds almost no data.
fn claims(width: u32, height: u32) -> String {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
    base64(&bytes)
}

#[test]
fn bad_input_is_one_sentence() {
    let mut server = Server::start(&[]);
    let long = "word ".repeat(10_000);
    let many: Vec<f64> = (0..2000).map(f64::from).rev().collect();
    for (job, status, field, part) in [
        (json!({ "prompt": "a", "model": "../../etc/passwd" }), 404, "model", "not served"),
        (json!({ "prompt": "a", "model": 3 }), 422, "model", "text"),
        (json!({ "prompt": "a", "steps": 10_000 }), 422, "steps", "1000"),
        (json!({ "prompt": "a", "steps": 0 }), 422, "steps", "whole number"),
        (json!({ "prompt": "a", "steps": 1.5 }), 422, "steps", "whole number"),
        (json!({ "prompt": "a", "steps": {} }), 422, "steps", "another kind"),
        (json!({ "prompt": "a", "guidance": "NaN" }), 422, "", "guidance"),
        (json!({ "prompt": "a", "guidance": "1e999" }), 422, "", "guidance"),
        (json!({ "prompt": "a", "width": 1_000_000, "height": 8 }), 422, "width", "16384"),
        (json!({ "prompt": "a", "width": 16_384, "height": 16_384 }), 422, "width", "pixels"),
        (json!({ "prompt": "a", "width": -8 }), 422, "width", "whole number"),
        (json!({ "prompt": "a", "count": 1000 }), 422, "count", "16"),
        (json!({ "prompt": "a", "sigmas": many }), 422, "sigmas", "1000"),
        (json!({ "prompt": "a", "sigmas": [1, 0], "steps": 3 }), 422, "sigmas", "together"),
        (json!({ "prompt": "a", "sampler": "no such" }), 422, "", "no sampler"),
        (json!({ "prompt": "a", "seed": "x" }), 422, "seed", "whole number"),
        (json!({ "prompt": "a", "seed": 1e30 }), 422, "seed", "whole number"),
        (json!({ "prompt": long }), 422, "prompt", "8000"),
        (json!({ "prompt": "a", "negative_prompt": long }), 422, "negative_prompt", "8000"),
        (json!({}), 422, "", "PROMPT"),
        (json!({ "prompt": "a", "command": "serve" }), 422, "command", "generate"),
        (json!({ "prompt": "a", "command": "bench" }), 422, "command", "generate"),
        (json!({ "prompt": "a", "output": "/tmp/x.png" }), 422, "output", "command line"),
        (json!({ "prompt": "a", "lora": "/etc/passwd" }), 422, "lora", "command line"),
        (json!({ "prompt": "a", "save_steps": "/tmp" }), 422, "save_steps", "command line"),
        (json!({ "prompt": "a <lora:../x:1>" }), 422, "prompt", "adapter"),
        (json!({ "prompt": "a <lora:x:1>" }), 422, "prompt", "adapter"),
        (json!({ "prompt": "a", "stepz": 1 }), 422, "stepz", "did you mean steps"),
        (json!({ "prompt": "a", "image": base64(b"x") }), 422, "image", "not for generate"),
        (json!({ "prompt": "a", "command": "img2img" }), 422, "image", "missing"),
        (json!({ "prompt": "a", "command": "img2img", "image": "no base64!" }), 422, "image", "base64"),
        (json!({ "prompt": "a", "command": "img2img", "image": "/etc/passwd" }), 422, "image", "base64"),
        (
            json!({ "prompt": "a", "command": "img2img", "image": "http://127.0.0.1/x.png" }),
            422,
            "image",
            "fetches none",
        ),
        (json!({ "prompt": "a", "command": "img2img", "image": base64(b"no picture") }), 422, "", "picture"),
        (
            json!({ "prompt": "a", "command": "img2img", "image": base64(b"<svg xmlns='http://www.w3.org/2000/svg'/>") }),
            422,
            "",
            "picture",
        ),
        (json!({ "prompt": "a", "command": "img2img", "image": claims(30_000, 30_000) }), 413, "", "too large"),
        (json!({ "prompt": "a", "command": "img2img", "image": claims(5000, 5000) }), 413, "", "too large"),
        (json!({ "prompt": "a", "command": "img2img", "image": claims(64, 64) }), 422, "", "picture"),
        (
            json!({ "prompt": "a", "command": "inpaint", "image": claims(64, 64), "mask": "0,0,0,0" }),
            422,
            "mask",
            "box",
        ),
        (json!({ "prompt": "a", "previews": "all" }), 422, "previews", "true"),
        (json!({ "prompt": "a", "reference": "yes" }), 422, "reference", "true or false"),
        (
            json!({ "prompt": "a", "command": "img2img", "image": claims(64, 64), "reference": true }),
            422,
            "reference",
            "generate alone",
        ),
        (json!({ "prompt": "a", "format": "gif" }), 422, "format", "png"),
        (json!({ "prompt": "a", "quality": 101 }), 422, "quality", "100"),
    ] {
        let shown: String = job.to_string().chars().take(200).collect();
        let response = server.post("/api/jobs", &job);
        let text = response.text();
        assert_eq!(response.status, status, "{shown}: {text}");
        let error = &response.json()["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part) && message.lines().count() == 1, "{shown}: {text}");
        assert_eq!(error["param"].as_str().unwrap_or_default(), field, "{shown}: {text}");
        assert!(!text.contains("/work") && !text.contains("src/"), "{text}");
    }
    for (headers, body, status) in [
        (&[JSON][..], &b"{"[..], 400),
        (&[JSON], b"[]", 400),
        (&[JSON], b"\xff\xfe", 400),
        (&[JSON], b"", 400),
        (&[("Content-Type", "text/plain")], b"{}", 415),
        (&[("Content-Type", "application/x-www-form-urlencoded")], b"prompt=a", 415),
        (&[], b"{}", 415),
    ] {
        assert_eq!(server.send("POST", "/api/jobs", headers, body).status, status, "{headers:?} {body:?}");
    }
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    assert_eq!(server.send("POST", "/api/jobs", &[JSON], &deep).status, 400);
    for path in [
        "/nothing",
        "/api/jobs/none",
        "/api/jobs/none/images/0",
        "/..%2f..%2fetc/passwd",
        "/v1/models/..%2f..%2fetc",
        "/api/jobs/%00",
    ] {
        let response = server.get(path);
        assert_eq!(response.status, 404, "{path}: {}", response.text());
    }
    assert_eq!(server.request("PUT", "/api/jobs", &json!({})).status, 405);
    assert_eq!(server.make(&json!({ "prompt": "a red heart" })).len(), 1);
    drop(server.request("GET", "/healthz", &Value::Null));
    server.signal("-KILL");
    assert_eq!(server.end().1, "", "nothing was said on standard error");
}

#[test]
fn requests_that_are_too_large_or_never_end_hold_nothing_up() {
    let server = Server::start(&[]);
    let before = server.resident_kb();
    // A hundred megabytes, announced, and not.
    let whole = vec![b' '; 100 << 20];
    let announced = server.send("POST", "/api/jobs", &[JSON], &whole);
    assert_eq!(announced.status, 413, "{}", announced.text());
    let mut stream = server.raw(
        format!("POST /api/jobs HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", server.address).as_bytes(),
    );
    let chunk = [format!("{:x}\r\n", 1 << 20).as_bytes(), &whole[..1 << 20], b"\r\n"].concat();
    for _ in 0..100 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    drop(stream.write_all(b"0\r\n\r\n"));
    assert_eq!(Response::read(stream).status, 413);
    if let (Some(before), Some(after)) = (before, server.resident_kb()) {
        assert!(after < before + (120 << 10), "{before} kB grew to {after} kB");
    }
    // A head without an end, and half a body, on many connections: others are answered meanwhile.
    let half: Vec<_> = (0..40)
        .map(|at| {
            let bytes: &[u8] = if at % 2 == 0 { b"POST /api/jobs HTTP/1.1\r\nHost: local" } else { b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{" };
            server.raw(bytes)
        })
        .collect();
    let started = Instant::now();
    server.make(&json!({ "prompt": "a red heart" }));
    assert!(started.elapsed() < Duration::from_secs(60));
    drop(half);
    for line in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\0\0\0\0",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        drop(server.raw(line.as_bytes()));
    }
    assert_eq!(server.get("/healthz").status, 200);
}

/// Adapters are known by their names: neither refusals nor files say where they or models lie.
#[test]
fn adapters_are_names_without_folders() {
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens");
    let (model, loras) = (format!("{goldens}/pipelines/stable_diffusion"), format!("{goldens}/loras"));
    let server = Server::start(&["-m", &model, "--lora-dir", &loras]);
    let listed = server.get("/api/info").json()["loras"].clone();
    assert_eq!(listed, json!(["locon", "peft", "processor", "xl-diffusers", "xl-kohya"]));
    let theirs = server.get("/sdapi/v1/loras").json();
    assert_eq!(theirs[1]["name"], "peft");
    // Of another model, and one that is not there.
    for (name, part) in [("xl-kohya", "xl-kohya.safetensors: is a LoRA for another model"), ("none", "does not have")] {
        let response = server.post("/api/jobs", &json!({ "prompt": format!("a <lora:{name}:1>") }));
        let text = response.text();
        assert_eq!((response.status, &response.json()["error"]["param"]), (422, &json!("prompt")), "{text}");
        assert!(text.contains(part) && !text.contains("goldens"), "{text}");
    }
    let id = server.submit(&json!({ "prompt": "a red square <lora:peft:0.5>", "steps": 1 }));
    let job = server.wait(&id);
    assert_eq!(job["images"][0]["settings"]["loras"], json!([{ "file": "peft.safetensors", "weight": 0.5 }]), "{job}");
    assert!(
        !job.to_string().contains("goldens") && !String::from_utf8_lossy(&server.image(&id, 0)).contains("goldens")
    );
    assert!(!theirs.to_string().contains("goldens"));
}
