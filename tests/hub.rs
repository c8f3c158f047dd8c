//! Models from a hub, against a server on this machine that also misbehaves: the requests, the cache and the messages.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod hub_server;

use hub_server::place::{Place, TOKEN, UNWANTED, golden, run};
use hub_server::server::{COMMIT, Request, Trick, etag, sha256};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";
/// Bytes of one file that the server sent.
fn sent(requests: &[Request], name: &str) -> usize {
    requests.iter().filter(|r| r.is_storage && r.path.ends_with(name)).map(|r| r.sent).sum()
}

fn is_weights(request: &Request) -> bool {
    request.is_storage && request.path.ends_with(WEIGHTS)
}

fn pixels(path: &Path) -> Vec<u8> {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

const GENERATE: &[&str] = &["generate", "a red square", "--device", "cpu", "--steps", "1", "--seed", "1", "-q"];

#[test]
fn a_pipeline_is_downloaded_once_and_found_again() {
    let place = Place::new();
    let generate = |model: &str, output: &str| place.command(&[GENERATE, &["--model", model, "-o", output]].concat());
    run(generate("tiny/model", "first.png"));
    run(generate(golden().to_str().unwrap(), "local.png"));
    assert_eq!(pixels(&place.path("first.png")), pixels(&place.path("local.png")));

    // Only files that the pipeline reads are requested, and the contents of each are sent once.
    let requests = place.hub.requests();
    for (name, _) in UNWANTED {
        assert!(requests.iter().all(|r| !r.path.ends_with(name)), "{name}");
    }
    assert!(requests.iter().all(|r| !r.path.contains("/pictures/")));
    assert_eq!(sent(&requests, WEIGHTS), place.hub.file(WEIGHTS).len());
    // The token is sent to the hub, and not to its storage.
    assert!(requests.iter().any(|r| r.is_storage) && requests.iter().any(|r| !r.is_storage));
    for request in &requests {
        let token = request.headers.get("authorization").map(|value| &**value);
        assert_eq!(token, (!request.is_storage).then_some(&*format!("Bearer {TOKEN}")), "{request:?}");
    }

    // The layout is huggingface_hub's.
    assert_eq!(fs::read_to_string(place.repository().join("refs/main")).unwrap(), COMMIT);
    assert!(place.path("hf/hub/CACHEDIR.TAG").is_file());
    let lock = format!("hf/hub/.locks/models--tiny--model/{}.lock", etag(WEIGHTS, place.hub.file(WEIGHTS)));
    assert!(place.path(&lock).is_file());
    let mut files = 0;
    for (name, bytes) in place.hub.files().filter(|(name, _)| place.pointer(name).exists()) {
        let up = "../".repeat(2 + name.matches('/').count());
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(place.pointer(name)).unwrap(),
            Path::new(&format!("{up}blobs/{}", etag(name, bytes))),
            "{name}"
        );
        assert_eq!(fs::read(place.pointer(name)).unwrap(), bytes, "{name} {up}");
        files += 1;
    }
    assert_eq!(files, 10, "model_index.json, two weights and seven small files");
    for entry in fs::read_dir(place.repository().join("blobs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains('.'), "{name} is left");
    }

    // A second run makes one request, to ask which commit main is.
    run(generate("tiny/model", "second.png"));
    let requests = place.hub.requests();
    assert!(requests.len() == 1 && requests[0].is_api(), "{requests:?}");
    // With a commit, or offline, there is no request.
    run(generate(&format!("tiny/model@{COMMIT}"), "third.png"));
    let mut offline = generate("tiny/model", "fourth.png");
    run({
        offline.env("HF_HUB_OFFLINE", "1");
        offline
    });
    assert!(place.hub.requests().is_empty());
    assert_eq!(pixels(&place.path("first.png")), pixels(&place.path("fourth.png")));
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let place = Place::new();
    let size = place.hub.file(WEIGHTS).len();
    place.hub.trick(|r| (is_weights(r) && r.earlier < 2).then_some(Trick::Cut(100_000)));
    place.succeed();
    let requests = place.hub.requests();
    let starts: Vec<_> = requests.iter().filter(|r| is_weights(r)).map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(100_000), Some(200_000)]);
    assert_eq!(sent(&requests, WEIGHTS), size);
}

#[test]
fn the_next_run_resumes_and_uses_no_part() {
    let place = Place::new();
    let size = place.hub.file(WEIGHTS).len();
    place.hub.trick(|r| is_weights(r).then_some(if r.earlier == 0 { Trick::Cut(100_000) } else { Trick::Cut(0) }));
    let size_text = size.to_string();
    place.fail(place.info(), &[WEIGHTS, "ended the connection too early", "100000", &size_text, "again"]);
    assert_eq!(fs::metadata(place.partial(WEIGHTS)).unwrap().len(), 100_000);
    assert!(!place.pointer(WEIGHTS).exists() && !place.blob(WEIGHTS).exists());
    let mut offline = place.info();
    offline.env("HF_HUB_OFFLINE", "1");
    place.fail(offline, &["no copy", "HF_HUB_OFFLINE"]);

    place.hub.requests();
    place.hub.trick(|_| None);
    place.succeed();
    assert_eq!(sent(&place.hub.requests(), WEIGHTS), size - 100_000);
    assert_eq!(fs::read(place.pointer(WEIGHTS)).unwrap(), place.hub.file(WEIGHTS));
    assert!(!place.partial(WEIGHTS).exists());
}

#[test]
fn a_server_without_ranges_starts_again() {
    let place = Place::new();
    let size = place.hub.file(WEIGHTS).len();
    place.hub.trick(|r| is_weights(r).then_some(if r.earlier == 0 { Trick::Cut(100_000) } else { Trick::IgnoreRange }));
    place.succeed();
    assert_eq!(sent(&place.hub.requests(), WEIGHTS), size + 100_000);
    assert_eq!(fs::read(place.pointer(WEIGHTS)).unwrap(), place.hub.file(WEIGHTS));
}

#[test]
fn a_server_without_ranges_that_always_cuts_is_given_up() {
    let place = Place::new();
    place.hub.trick(|r| is_weights(r).then_some(Trick::IgnoreRangeAndCut(100_000)));
    place.fail(place.info(), &[WEIGHTS, "ended the connection too early"]);
    assert_eq!(place.hub.requests().iter().filter(|r| is_weights(r)).count(), 4);
}

#[test]
fn contents_must_have_their_hash() {
    let place = Place::new();
    place.hub.trick(|r| is_weights(r).then_some(Trick::Corrupt));
    place.fail(place.info(), &[WEIGHTS, "SHA-256", &sha256(place.hub.file(WEIGHTS)), "deleted", "again"]);
    assert!(!place.partial(WEIGHTS).exists() && !place.blob(WEIGHTS).exists() && !place.pointer(WEIGHTS).exists());

    // A partial download with wrong contents is also noticed.
    place.hub.trick(|_| None);
    fs::write(place.partial(WEIGHTS), vec![7; 1000]).unwrap();
    place.fail(place.info(), &["SHA-256"]);
    place.succeed();

    // A partial download that is already complete is only checked.
    let other = Place::new();
    fs::create_dir_all(other.partial(WEIGHTS).parent().unwrap()).unwrap();
    fs::write(other.partial(WEIGHTS), other.hub.file(WEIGHTS)).unwrap();
    other.succeed();
    assert_eq!(sent(&other.hub.requests(), WEIGHTS), 0);
}

#[test]
fn sizes_must_be_those_announced() {
    let place = Place::new();
    place.hub.trick(|r| is_weights(r).then_some(Trick::Long));
    place.fail(place.info(), &[WEIGHTS, "sends more than", "announced"]);
    place.hub.trick(|r| is_weights(r).then_some(Trick::Short(1000)));
    place.fail(place.info(), &[WEIGHTS, "with 1000 of"]);
    assert!(!place.pointer(WEIGHTS).exists());
    place.hub.trick(|_| None);
    place.succeed();
}

/// A refusal of the listing, or of a file.
fn refused(trick: fn(&Request) -> Option<Trick>, parts: &[&str]) {
    let place = Place::new();
    place.hub.trick(trick);
    place.fail(place.info(), parts);
    assert!(!place.pointer(WEIGHTS).exists());
}

#[test]
fn refusals_say_what_to_do() {
    let place = Place::new();
    place.hub.trick(|r| r.is_api().then_some(Trick::Status(401, "")));
    place.fail(place.command(&[GENERATE, &["--model", "tiny/model"]].concat()), &["token", "HF_TOKEN"]);
    refused(|r| r.is_api().then_some(Trick::Status(404, "")), &["no repository tiny/model", "HF_TOKEN"]);
    refused(
        |r| (r.method == "HEAD").then_some(Trick::Status(403, "X-Error-Code: GatedRepo\r\n")),
        &["gated", "accept its conditions at http://127.0.0.1:", "/tiny/model", "HF_TOKEN"],
    );
    refused(|r| r.is_api().then_some(Trick::Status(403, "X-Error-Code: Other\r\n")), &["forbids tiny/model"]);
    refused(|r| r.is_api().then_some(Trick::Status(418, "")), &["answers 418"]);
    refused(|r| is_weights(r).then_some(Trick::Status(404, "")), &[WEIGHTS, "no file"]);
    refused(|r| is_weights(r).then_some(Trick::Status(403, "")), &["gated"]);

    let place = Place::new();
    place.hub.trick(|r| r.is_api().then_some(Trick::Status(401, "X-Error-Code: RepoNotFound\r\n")));
    let mut stranger = place.info();
    stranger.env_remove("HF_TOKEN");
    place.fail(stranger, &["no repository tiny/model to strangers", "HF_TOKEN"]);
    let requests = place.hub.requests();
    assert!(requests.iter().all(|r| !r.headers.contains_key("authorization")));
    place.hub.trick(|r| (r.method == "HEAD").then_some(Trick::Status(401, "X-Error-Code: GatedRepo\r\n")));
    let mut stranger = place.info();
    stranger.env_remove("HF_TOKEN");
    place.fail(stranger, &["gated", "accept its conditions at", "and let HF_TOKEN hold a token of your account"]);
    place.hub.trick(|r| r.is_api().then_some(Trick::Status(401, "X-Error-Code: RepoNotFound\r\n")));
    place.hub.requests();
    // The file in which Python keeps the token.
    fs::create_dir_all(place.path("hf")).unwrap();
    fs::write(place.path("hf/token"), "hf_secret\n").unwrap();
    let mut known = place.info();
    known.env_remove("HF_TOKEN");
    place.fail(known, &["does not accept the token"]);
    assert_eq!(place.hub.requests()[0].headers["authorization"], "Bearer hf_secret");

    place.hub.trick(|_| None);
    for (id, part) in [
        ("tiny/model@nowhere", "no revision nowhere"),
        ("tiny/other", "no repository tiny/other"),
        ("tiny/model/none.safetensors", "no file none.safetensors"),
    ] {
        place.fail(place.command(&["info", id, "--json"]), &[part]);
    }
    assert!(!place.repository().exists(), "nothing was downloaded");
}

#[test]
fn a_repository_that_moved_is_followed() {
    let place = Place::new();
    place.hub.trick(|r| r.path.contains("/tiny/old/").then_some(Trick::Renamed));
    run(place.command(&["info", "tiny/old", "--json"]));
    let requests = place.hub.requests();
    assert!(requests.iter().any(|r| r.path.starts_with("/tiny/model/")));
    assert!(requests.iter().all(|r| r.headers.contains_key("authorization") != r.is_storage));
    assert!(place.path("hf/hub/models--tiny--old/refs/main").is_file() && !place.repository().exists());
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let place = Place::new();
    place.hub.trick(|r| match r.earlier {
        0 if r.is_api() => Some(Trick::Status(429, "Retry-After: 1\r\n")),
        0 if r.method == "HEAD" && r.path.ends_with("vocab.json") => Some(Trick::Status(503, "")),
        0 if is_weights(r) => Some(Trick::Status(500, "")),
        _ => None,
    });
    let started = std::time::Instant::now();
    place.succeed();
    assert!(started.elapsed() >= Duration::from_secs(1));
    place.hub.requests();

    let place = Place::new();
    place.hub.trick(|r| r.is_api().then_some(Trick::Status(429, "Retry-After: 0\r\n")));
    place.fail(place.info(), &["429", "too many requests", "later"]);
    assert_eq!(place.hub.requests().len(), 4);
    for header in ["Retry-After: 86400\r\n", "RateLimit: \"api\";r=0;t=86400\r\n"] {
        place.hub.trick(move |r| r.is_api().then_some(Trick::Status(429, header)));
        place.fail(place.info(), &["429", "asks to wait 86400 s"]);
        assert_eq!(place.hub.requests().len(), 1, "nobody waits for a day");
    }
}

#[test]
fn a_server_in_trouble_is_given_up() {
    // All at the same time, because each waits between its attempts.
    std::thread::scope(|scope| {
        scope.spawn(|| refused(|r| r.is_api().then_some(Trick::Status(500, "")), &["500", "in trouble", "later"]));
        scope.spawn(|| refused(|r| (r.method == "HEAD").then_some(Trick::Status(502, "")), &["502", "later"]));
        scope.spawn(|| refused(|r| is_weights(r).then_some(Trick::Status(503, "")), &[WEIGHTS, "503", "later"]));
    });
}

#[test]
fn nonsense_is_recognized() {
    refused(|r| r.is_api().then_some(Trick::Body("<html>Log in</html>".into())), &["no JSON", "HF_ENDPOINT"]);
    refused(|r| r.is_api().then_some(Trick::Body("[]".into())), &["without a commit"]);
    refused(
        |r| r.is_api().then_some(Trick::Body(r#"{"sha": "../../x", "siblings": []}"#.into())),
        &["without a commit"],
    );
    refused(|r| r.is_api().then_some(Trick::Body(r#"{"sha": "0a"}"#.into())), &["without a list of files"]);
    refused(|r| r.is_api().then_some(Trick::Body(r#"{"sha": "0a", "siblings": [1]}"#.into())), &["no name"]);
    refused(|r| (r.method == "HEAD").then_some(Trick::Status(200, "")), &["which contents"]);
    refused(|r| (!r.is_api()).then_some(Trick::Etag("\"../../evil\"")), &["which contents"]);
    refused(|r| (!r.is_api()).then_some(Trick::Status(302, "Location: /again\r\n")), &["without end"]);
    refused(
        |r| (r.method == "GET" && r.path.ends_with("model_index.json")).then_some(Trick::Body("x".repeat(324))),
        &["model_index.json"],
    );
}

#[test]
fn listings_that_lead_out_of_the_repository_are_refused() {
    for name in ["../evil.json", "/etc/evil", "unet/../../evil", "a\\..\\evil", "C:evil", "unet//evil", "./evil", ""] {
        let place = Place::new();
        place.hub.list(&["model_index.json", name]);
        place.fail(place.info(), &["leads out of its folder"]);
        assert!(!place.path("hf").exists(), "{name}");
    }
}

#[test]
fn repositories_of_other_kinds_are_named() {
    let place = Place::new();
    place.hub.list(&["README.md", "all-in-one.safetensors"]);
    place.fail(place.info(), &["tiny/model has no model_index.json", "tiny/model/all-in-one.safetensors"]);
    let pickled = ["model_index.json", "text_encoder/config.json", "text_encoder/pytorch_model.bin"];
    place.hub.list(&pickled);
    place.fail(place.info(), &["tiny/model has the weights of text_encoder only as a pickle", "safetensors"]);
}

#[test]
fn shards_come_by_their_index() {
    let epsilon = golden().with_file_name("epsilon");
    let place = Place::of(&epsilon, &[("transformer/diffusion_pytorch_model-00004-of-00003.safetensors", b"no")]);
    let all: Vec<String> = place.hub.files().map(|(name, _)| name.to_owned()).collect();
    let shard = "transformer/diffusion_pytorch_model-00003-of-00003.safetensors";
    let without: Vec<&str> = all.iter().map(|name| &**name).filter(|name| *name != shard).collect();
    place.hub.list(&without);
    place.fail(place.info(), &["tiny/model has no file", shard]);
    let storage = place.hub.requests().iter().filter(|r| r.is_storage).count();
    assert_eq!(storage, 0, "no weights are downloaded when some are missing");

    place.hub.list(&all.iter().map(|name| &**name).collect::<Vec<_>>());
    run(place.command(&[GENERATE, &["--model", "tiny/model", "-o", "x.png", "--force"]].concat()));
    let requests = place.hub.requests();
    let storage: Vec<_> = requests.iter().filter(|r| r.is_storage && r.path.contains("-of-")).collect();
    assert_eq!(storage.len(), 3, "{storage:?}");
}

#[test]
fn a_pipeline_without_folders_is_downloaded_whole() {
    let ddpm = golden().with_file_name("ddpm");
    let place = Place::of(
        &ddpm,
        &[("other.safetensors", b"no"), ("diffusion_pytorch_model.bin", b"no"), ("sample.json", b"{}")],
    );
    let generate = |output: &str| {
        place.command(&["generate", "--steps", "1", "--device", "cpu", "-q", "--model", "tiny/model", "-o", output])
    };
    run(generate("x.png"));
    let requests = place.hub.requests();
    let asked = |name: &str| requests.iter().any(|r| r.path.ends_with(name));
    assert!(!asked("other.safetensors") && !asked(".bin") && !asked("sample.json"));
    for name in ["config.json", "scheduler_config.json", "model_index.json", "diffusion_pytorch_model.safetensors"] {
        assert!(place.pointer(name).exists(), "{name}");
    }
    let mut offline = generate("y.png");
    offline.env("HF_HUB_OFFLINE", "1");
    run(offline);
}

/// Each part uses weights of the variant if there are any, else its other weights. A cached copy without the variant
/// does not count as a copy with it.
#[test]
fn variants_are_downloaded_where_there_are_such() {
    let half = "transformer/diffusion_pytorch_model.fp16.safetensors";
    let weights = fs::read(golden().join(WEIGHTS)).unwrap();
    let place = Place::of(&golden(), &[(half, &weights)]);
    let model = format!("tiny/model@{COMMIT}");
    let generate =
        |more: &[&str]| place.command(&[GENERATE, &["--model", &model, "-o", "x.png", "--force"], more].concat());
    place.fail(generate(&["--variant", "bf16"]), &["tiny/model has no weights of the variant bf16"]);
    assert!(place.hub.requests().iter().all(|r| !r.is_storage), "no weights are downloaded for nothing");
    run(generate(&[]));
    assert!(place.pointer(WEIGHTS).exists() && !place.pointer(half).exists());
    run(generate(&["--variant", "fp16"]));
    assert!(place.pointer(half).exists());
    place.hub.requests();
    run(generate(&["--variant", "fp16"]));
    let one = place.command(&["generate", "x", "--model", &format!("tiny/model/{WEIGHTS}"), "--variant", "fp16"]);
    place.fail(one, &["is one file, so there are no weights of the variant fp16"]);
    assert!(place.hub.requests().is_empty(), "all of it is here");
}

#[cfg(unix)]
#[test]
fn variables_that_are_no_text_are_not_passed_over() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let output = place.info().env("HF_HOME", std::ffi::OsStr::from_bytes(b"\xff")).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), &*message), (Some(2), "error: the variable HF_HOME is not valid text\n"));
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let place = Place::new();
    let quick = || {
        let mut command = place.info();
        command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
        command
    };
    place.hub.trick(|r| r.is_api().then_some(Trick::Stall));
    place.fail(quick(), &["127.0.0.1", "does not answer in time"]);
    place.hub.trick(|r| (is_weights(r) && r.earlier == 0).then_some(Trick::Stall));
    run(quick());
}

#[test]
fn without_a_network_the_cache_must_do() {
    let place = Place::new();
    let unreachable = |id: &str| {
        let mut command = place.command(&["info", id, "--json"]);
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        command.env("HF_ENDPOINT", format!("http://127.0.0.1:{port}"));
        command
    };
    place.fail(unreachable("tiny/model"), &["cannot reach 127.0.0.1", "HF_ENDPOINT"]);
    let mut offline = place.info();
    offline.env("HF_HUB_OFFLINE", "1");
    place.fail(offline, &["tiny/model", "no copy", "HF_HUB_OFFLINE"]);
    assert!(place.hub.requests().is_empty());

    place.succeed();
    let (text, warning) = run(unreachable("tiny/model"));
    assert!(text.contains("PixArt") && warning.starts_with("warning: ") && warning.contains("the cache"), "{warning}");
    place.fail(unreachable("tiny/model@other"), &["cannot reach"]);

    // An incomplete copy is not used, and is completed.
    fs::remove_file(place.pointer(WEIGHTS)).unwrap();
    place.fail(unreachable("tiny/model"), &["cannot reach"]);
    let mut offline = place.info();
    offline.env("HF_HUB_OFFLINE", "1");
    place.fail(offline, &["only a part of a copy", "the weights of transformer"]);
    place.hub.requests();
    place.succeed();
    assert_eq!(sent(&place.hub.requests(), WEIGHTS), 0, "its contents are still there");
}

#[test]
fn three_at_once_download_once() {
    for no_symlinks in ["0", "1"] {
        let place = Place::new();
        place.hub.trick(|r| is_weights(r).then_some(Trick::Slow(Duration::from_millis(50))));
        let start = || {
            let mut command = place.info();
            command.env("HF_HUB_DISABLE_SYMLINKS", no_symlinks).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let children = [start(), start(), start()];
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(sent(&place.hub.requests(), WEIGHTS), place.hub.file(WEIGHTS).len());
        assert_eq!(fs::read(place.pointer(WEIGHTS)).unwrap(), place.hub.file(WEIGHTS));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_and_keeps_the_part() {
    for trick in [Trick::Slow(Duration::from_millis(200)), Trick::Stall] {
        let place = Place::new();
        let stalls = matches!(trick, Trick::Stall);
        place.hub.trick(move |r| is_weights(r).then_some(trick.clone()));
        let mut child =
            place.command(&[GENERATE, &["--model", "tiny/model"]].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let has_begun = || fs::metadata(place.partial(WEIGHTS)).is_ok_and(|file| stalls || file.len() > 0);
        while !has_begun() {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(20));
        }
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130));
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), "stopped");
        let part = fs::metadata(place.partial(WEIGHTS)).unwrap().len();
        assert!(!place.pointer(WEIGHTS).exists() && (stalls || part > 0));

        place.hub.requests();
        place.hub.trick(|_| None);
        place.succeed();
        assert_eq!(sent(&place.hub.requests(), WEIGHTS) as u64 + part, place.hub.file(WEIGHTS).len() as u64);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_sentence() {
    let place = Place::new();
    fs::create_dir_all(place.partial(WEIGHTS).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", place.partial(WEIGHTS)).unwrap();
    place.fail(place.info(), &["the disk is full", "HF_HOME", ".incomplete"]);
    // There is a file where a folder should be.
    let place = Place::new();
    fs::create_dir_all(place.path("hf")).unwrap();
    fs::write(place.path("hf/hub"), "").unwrap();
    place.fail(place.info(), &["cannot write", "hub"]);
}

#[test]
fn names_mean_what_they_did() {
    // A local folder takes precedence over the hub.
    let place = Place::new();
    fs::create_dir_all(place.path("tiny/model")).unwrap();
    place.fail(place.info(), &["tiny/model", "model_index.json"]);
    fs::remove_dir_all(place.path("tiny")).unwrap();
    let model = |name: &str| place.command(&[GENERATE, &["--model", name]].concat());
    for name in ["foo", "./tiny/model", "no/such/folder", "../tiny", "out/model.safetensors"] {
        place.fail(model(name), &["there is no model", name, "icons-64", "OWNER/REPO"]);
    }
    assert!(place.hub.requests().is_empty());
    for (variable, value) in
        [("HF_ENDPOINT", "hub.example"), ("HF_TOKEN", "two words"), ("HF_HUB_DOWNLOAD_TIMEOUT", "x")]
    {
        let mut command = place.info();
        let output = command.env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(variable));
    }
}

#[test]
fn caches_without_links_and_single_files() {
    let place = Place::new();
    let unlinked = || {
        let mut command = place.info();
        command.env("HF_HUB_DISABLE_SYMLINKS", "1").env_remove("HF_HOME").env("HF_HUB_CACHE", place.path("hf/hub"));
        command
    };
    run(unlinked());
    assert!(fs::symlink_metadata(place.pointer(WEIGHTS)).unwrap().is_file() && !place.blob(WEIGHTS).exists());
    place.hub.requests();
    run(unlinked());
    assert_eq!(place.hub.requests().len(), 1);

    let place = Place::new();
    let file = format!("tiny/model/{WEIGHTS}@refs/pr/1");
    let (text, _) = run(place.command(&["info", &file, "--json"]));
    assert!(text.contains("transformer_blocks.0"), "{text}");
    let requests = place.hub.requests();
    assert!(requests.iter().all(|r| r.is_api() || r.path.ends_with(WEIGHTS)), "nothing else is downloaded");
    assert_eq!(fs::read_to_string(place.repository().join("refs/refs/pr/1")).unwrap(), COMMIT);
    let mut offline = place.command(&["info", &file, "--json"]);
    run({
        offline.env("HF_HUB_OFFLINE", "1");
        offline
    });
    assert!(place.hub.requests().is_empty());
}

#[test]
fn progress_is_told_in_lines() {
    let place = Place::new();
    place.hub.trick(|r| is_weights(r).then_some(Trick::Slow(Duration::from_millis(160))));
    let (_, lines) = run(place.command(&["info", "tiny/model"]));
    assert!(lines.lines().any(|l| l.contains(" of 0.5 MB, transformer/") && l.starts_with("tiny/model")), "{lines}");
    assert!(lines.lines().last().unwrap().contains("tiny/model: downloaded 0.5 MB in"), "{lines}");
    let (_, lines) = run(place.command(&["info", "tiny/model"]));
    assert_eq!(lines, "", "nothing was downloaded");
    let other = Place::new();
    let mut command = other.command(&["info", "tiny/model"]);
    command.env("HF_HUB_DISABLE_PROGRESS_BARS", "1");
    assert_eq!(run(command).1, "");
}
