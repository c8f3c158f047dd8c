//! Many requests from many clients at once: none is lost, and none gets another's picture.

use super::support::{Server, from_base64};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// As many in every test run; HEADWATER_LOAD says REQUESTS,CLIENTS otherwise.
const SMALL: (usize, usize) = (40, 8);

#[test]
fn none_are_lost_and_none_mixed_up() {
    let told = std::env::var("HEADWATER_LOAD").ok().and_then(|text| {
        let (requests, clients) = text.split_once(',')?;
        Some((requests.parse().ok()?, clients.parse().ok()?))
    });
    let (requests, clients): (usize, usize) = told.unwrap_or(SMALL);
    // Fewer places than clients, so that some are told to come again.
    let queue = (clients * 3 / 4).max(2).to_string();
    let arguments = std::env::var("HEADWATER_LOAD_FLAGS").unwrap_or_default();
    let flags: Vec<&str> = ["--max-queue", &queue].into_iter().chain(arguments.split_whitespace()).collect();
    let server = Server::start(&flags);
    server.make(&json!({ "prompt": "a red heart" }));
    let things = ["a red heart", "a blue fish", "a yellow star", "a green tree", "a cat"];
    let (next, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let before = server.resident_kb();
    let started = Instant::now();
    let mut seconds: Vec<f64> = std::thread::scope(|scope| {
        let client = || {
            let mut seconds = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return seconds;
                }
                let (prompt, seed) = (format!("{} {number}", things[number % things.len()]), 1000 + number);
                let asked = Instant::now();
                let answer = loop {
                    let response = server
                        .post("/v1/images/generations", &json!({ "prompt": prompt, "seed": seed, "size": "64x64" }));
                    if response.status != 429 {
                        break response;
                    }
                    refused.fetch_add(1, Ordering::Relaxed);
                    assert!(response.headers.contains_key("retry-after"));
                    std::thread::sleep(std::time::Duration::from_millis(200));
                };
                assert_eq!(answer.status, 200, "{}", answer.text());
                seconds.push(asked.elapsed().as_secs_f64());
                let file = from_base64(answer.json()["data"][0]["b64_json"].as_str().unwrap());
                let settings = settings_in(&file);
                assert_eq!((&settings["seed"], &settings["prompt"]), (&json!(seed), &json!(prompt)));
            }
        };
        let all: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        all.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    let took = started.elapsed().as_secs_f64();
    seconds.sort_by(f64::total_cmp);
    assert_eq!(seconds.len(), requests);
    eprintln!(
        "{requests} requests of {clients} clients in {took:.1} s: {:.1} ms each; waited {:.2} s at the median, {:.2} s at most; {} times told to come again; \
         resident {before:?} kB before, {:?} kB after",
        1000.0 * took / requests as f64,
        seconds[requests / 2],
        seconds[requests - 1],
        refused.load(Ordering::Relaxed),
        server.resident_kb(),
    );
}

/// What a PNG file says of itself.
fn settings_in(file: &[u8]) -> Value {
    let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    let texts = &reader.info().uncompressed_latin1_text;
    serde_json::from_str(&texts.iter().find(|text| text.keyword == "headwater").unwrap().text).unwrap()
}
