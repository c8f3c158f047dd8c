//! Random requests to every address. None may bring a panic, an answer that is a fault, or one that is no answer.

use super::support::{Response, Server, base64};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};

/// As many in every test run; HEADWATER_FUZZ_REQUESTS says how many otherwise.
const REQUESTS: usize = 600;

/// Every address with a method that it takes, and what a sound request would say.
fn addresses() -> Vec<(&'static str, &'static str, Value)> {
    let picture = base64(&include_bytes!("../goldens/edits/small-square.png")[..]);
    vec![
        ("GET", "/", Value::Null),
        ("GET", "/healthz", Value::Null),
        (
            "POST",
            "/api/jobs",
            json!({ "prompt": "a", "steps": 1, "seed": 3, "guidance": 2.0, "sampler": "euler", "previews": true }),
        ),
        (
            "POST",
            "/api/jobs",
            json!({ "command": "inpaint", "image": picture, "mask": "1,1,9,9", "prompt": "a", "steps": 1 }),
        ),
        (
            "POST",
            "/api/jobs",
            json!({ "command": "outpaint", "image": picture, "left": 3, "prompt": "a", "strength": 0.5 }),
        ),
        ("POST", "/api/jobs", json!({ "command": "upscale", "image": picture, "scale": 2 })),
        ("GET", "/api/jobs", Value::Null),
        ("GET", "/api/jobs/0", Value::Null),
        ("DELETE", "/api/jobs/0", Value::Null),
        ("GET", "/api/jobs/0/events", Value::Null),
        ("GET", "/api/jobs/0/images/0", Value::Null),
        ("GET", "/api/models", Value::Null),
        ("GET", "/api/samplers", Value::Null),
        ("GET", "/api/info", Value::Null),
        ("GET", "/api/openapi.json", Value::Null),
        ("GET", "/v1/models", Value::Null),
        ("GET", "/v1/models/a", Value::Null),
        (
            "POST",
            "/v1/images/generations",
            json!({ "prompt": "a", "n": 1, "size": "8x8", "stream": true, "partial_images": 1 }),
        ),
        ("POST", "/v1/images/edits", json!({ "prompt": "a" })),
        ("POST", "/v1/images/variations", json!({})),
        (
            "POST",
            "/sdapi/v1/txt2img",
            json!({ "prompt": "a", "steps": 1, "width": 8, "cfg_scale": 1, "sampler_name": "Euler", "styles": [] }),
        ),
        (
            "POST",
            "/sdapi/v1/img2img",
            json!({ "init_images": [picture], "mask": picture, "denoising_strength": 0.5, "inpainting_fill": 0 }),
        ),
        (
            "POST",
            "/sdapi/v1/extra-single-image",
            json!({ "image": picture, "upscaler_1": "headwater", "resize_mode": 0 }),
        ),
        ("POST", "/sdapi/v1/png-info", json!({ "image": picture })),
        ("GET", "/sdapi/v1/progress?skip_current_image=true", Value::Null),
        ("POST", "/sdapi/v1/interrupt", json!({})),
        ("GET", "/sdapi/v1/options", Value::Null),
        ("POST", "/sdapi/v1/options", json!({ "sd_model_checkpoint": "icons-64" })),
        ("GET", "/sdapi/v1/samplers", Value::Null),
        ("GET", "/sdapi/v1/schedulers", Value::Null),
        ("GET", "/sdapi/v1/sd-models", Value::Null),
        ("POST", "/internal/progress", json!({ "id_task": "a" })),
    ]
}

fn value(rng: &mut SmallRng, depth: usize) -> Value {
    match rng.random_range(0..if depth < 3 { 12 } else { 10 }) {
        0 => Value::Null,
        1 => json!(rng.random::<bool>()),
        2 => json!(rng.random_range(-3..70)),
        3 => json!(rng.random::<i64>()),
        4 => json!(rng.random::<f64>() * 10.0_f64.powi(rng.random_range(-300..300))),
        5 => json!(
            [
                "",
                "NaN",
                "-1",
                "inf",
                "1e999",
                "--help",
                "-",
                "alpha",
                "1,2,3,4",
                "auto",
                "../../etc/passwd",
                "\0",
                "é❤"
            ]
            .choose(rng)
        ),
        6 => json!((0..rng.random_range(0..40)).map(|_| rng.random::<char>()).collect::<String>()),
        7 => json!("a".repeat(rng.random_range(0..20_000))),
        8 => json!(base64(&(0..rng.random_range(0..60)).map(|_| rng.random::<u8>()).collect::<Vec<_>>())),
        9 => json!("data:image/png;base64,iVBORw0KGgo="),
        10 => (0..rng.random_range(0..4)).map(|_| value(rng, depth + 1)).collect(),
        _ => Value::Object(
            (0..rng.random_range(0..4)).map(|at| (format!("k{at}"), value(rng, depth + 1))).collect::<Map<_, _>>(),
        ),
    }
}

/// Names of fields of all APIs.
const FIELDS: &[&str] = &[
    "prompt",
    "negative_prompt",
    "model",
    "command",
    "image",
    "mask",
    "steps",
    "seed",
    "count",
    "n",
    "size",
    "width",
    "height",
    "guidance",
    "cfg_scale",
    "sampler",
    "sampler_name",
    "schedule",
    "scheduler",
    "sigmas",
    "timesteps",
    "eta",
    "rng",
    "strength",
    "denoising_strength",
    "scale",
    "padding",
    "invert",
    "mask_blur",
    "mask_grow",
    "method",
    "replace_every",
    "left",
    "right",
    "top",
    "bottom",
    "sigma",
    "noise_level",
    "clip_skip",
    "class_label",
    "prompt_syntax",
    "guidance_interval",
    "previews",
    "format",
    "quality",
    "stream",
    "partial_images",
    "output_format",
    "output_compression",
    "response_format",
    "init_images",
    "batch_size",
    "n_iter",
    "override_settings",
    "alwayson_scripts",
    "inpainting_fill",
    "inpaint_full_res",
    "upscaling_resize",
    "output",
    "lora",
    "help",
    "version",
];

/// A sound request with something done to it.
fn request(rng: &mut SmallRng, path: &mut String, sound: &Value) -> Vec<u8> {
    let mut body = sound.clone();
    if let Value::Object(object) = &mut body {
        for _ in 0..rng.random_range(0..4) {
            let own: Vec<String> = object.keys().cloned().collect();
            let name = match own.choose(rng) {
                Some(name) if rng.random_bool(0.5) => name.clone(),
                _ => (*FIELDS.choose(rng).unwrap()).to_owned(),
            };
            if rng.random_bool(0.1) {
                object.remove(&name);
            } else {
                object.insert(name, value(rng, 0));
            }
        }
    }
    let mut bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    match rng.random_range(0..12) {
        0 => bytes.truncate(rng.random_range(0..=bytes.len())),
        1 if !bytes.is_empty() => {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        2 => bytes = (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
        3 => *path += ["/", "?a=b", "/../..", "%00", "%2e%2e%2f", "//", "#x", "%"].choose(rng).unwrap(),
        _ => {}
    }
    bytes
}

/// A form with random parts.
fn form(rng: &mut SmallRng) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..rng.random_range(0..5) {
        let name = ["image", "image[]", "mask", "prompt", "n", "size", "steps", "\"", "é"].choose(rng).unwrap();
        body.extend_from_slice(
            format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a\"\r\n\r\n").as_bytes(),
        );
        body.extend((0..rng.random_range(0..50)).map(|_| rng.random::<u8>()));
        body.extend_from_slice(b"\r\n");
    }
    if rng.random_bool(0.8) {
        body.extend_from_slice(b"--edge--\r\n");
    }
    body
}

#[test]
fn no_request_is_too_much() {
    let requests = std::env::var("HEADWATER_FUZZ_REQUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(REQUESTS);
    let seed = std::env::var("HEADWATER_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut server =
        Server::start(&["--max-steps", "2", "--max-pixels", "9000", "--max-count", "2", "--max-queue", "8"]);
    let mut rng = SmallRng::seed_from_u64(seed);
    let addresses = addresses();
    let (mut statuses, mut first) = (std::collections::BTreeMap::<u16, usize>::new(), None);
    for number in 0..requests {
        let (method, path, sound) = addresses.choose(&mut rng).unwrap();
        let (mut path, mut method) = ((*path).to_owned(), *method);
        let body = if path.ends_with("edits") && rng.random_bool(0.7) {
            form(&mut rng)
        } else {
            request(&mut rng, &mut path, sound)
        };
        if rng.random_bool(0.03) {
            method =
                ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "X"].choose(&mut rng).unwrap();
        }
        let kinds = [
            "application/json",
            "application/json",
            "application/json; charset=utf-8",
            "text/plain",
            "multipart/form-data; boundary=edge",
        ];
        let kind = if path.ends_with("edits") {
            kinds[4]
        } else {
            kinds[if rng.random_bool(0.9) { 0 } else { rng.random_range(0..5) }]
        };
        let last: &str = ["0", "-1", "x", "99999999999999999999"].choose(&mut rng).unwrap();
        let headers = [("Content-Type", kind), ("Last-Event-ID", last)];
        let stream = server.begin(method, &path, &headers, &body);
        if rng.random_bool(0.02) {
            // A client that goes away.
            continue;
        }
        let response = Response::read(stream);
        *statuses.entry(response.status).or_default() += 1;
        // A job that failed because of what was asked is no fault.
        let is_fault = response.status >= 500 && response.status != 503 && !response.text().contains("\"failed\"");
        assert!(!is_fault, "request {number}: {method} {path} {}\n{}", String::from_utf8_lossy(&body), response.text());
        // What is no HTTP at all is refused before it comes to any route.
        if response.status != 400 || !response.body.is_empty() {
            assert_eq!(response.headers["x-content-type-options"], "nosniff", "{method} {path}");
        }
        if number == requests / 10 {
            first = server.resident_kb();
        }
    }
    let last = server.resident_kb();
    eprintln!(
        "{requests} requests, by status: {statuses:?}; resident kB: {first:?} after a tenth of them, {last:?} at the end"
    );
    assert_eq!(server.get("/healthz").status, 200);
    server.signal("-TERM");
    let (status, said) = server.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
