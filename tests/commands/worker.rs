//! `headwater worker`: jobs as JSON lines, on one machine or many, killed and started again.

use super::common::run as headwater;
use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes as long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(300);

fn worker(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.arg("worker").args(arguments).args(["--device", "cpu"]).current_dir(folder).stdin(Stdio::null());
    for variable in ["HEADWATER_SHARDS", "JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID"] {
        command.env_remove(variable);
    }
    command
}

/// Runs it to its end with this exit code.
fn ends(folder: &Path, arguments: &[&str], code: i32) -> Output {
    let output = worker(folder, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    output
}

fn write_jobs(path: &Path, jobs: &[Value]) {
    let lines: String = jobs.iter().map(|job| format!("{job}\n")).collect();
    fs::write(path, lines).unwrap();
}

/// All results in a folder.
fn results(folder: &Path) -> Vec<Value> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "jsonl") {
            let text = fs::read_to_string(path).unwrap();
            all.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    all
}

/// The picture of every job by its id, each made once, and each the file that its result tells of.
fn pictures(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for result in results(folder).iter().filter(|result| result["status"] == "done") {
        for image in result["images"].as_array().unwrap() {
            let file = image["file"].as_str().unwrap();
            let bytes = match image["tar"].as_str() {
                None => fs::read(folder.join(file)).unwrap(),
                Some(tar) => member(&folder.join(tar), file),
            };
            assert_eq!(image["sha256"], json!(hex(&bytes)), "{result}");
            let name = format!("{} {}", result["id"].as_str().unwrap(), image["seed"]);
            assert!(found.insert(name, bytes).is_none(), "{result} is there twice");
        }
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn member(tar: &Path, name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap() == Path::new(name)).unwrap();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A number of jobs of several kinds, without seeds.
fn some_jobs(count: usize) -> Vec<Value> {
    let things = ["a red heart", "a blue fish", "a yellow star"];
    let job = |at: usize| json!({ "id": format!("job-{at}"), "prompt": things[at % 3], "steps": 1 + at % 2 });
    (0..count).map(job).collect()
}

#[test]
fn lines_become_pictures_and_a_bad_one_is_named_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let command = headwater(at, &["generate", "a red heart", "--seed", "3398926610", "--steps", "2", "-o", "a.png"]);
    assert!(command.status.success());
    let heart = fs::read(at.join("a.png")).unwrap();
    let picture = base64::engine::general_purpose::STANDARD.encode(&heart);
    let lines = [
        // The seed is the first four bytes of the id's SHA-256.
        json!({ "id": "a", "prompt": "a red heart", "steps": 2 }).to_string(),
        "{\"id\": \"half".into(),
        String::new(),
        json!({ "prompt": "no id" }).to_string(),
        json!({ "id": "a", "prompt": "again" }).to_string(),
        json!({ "id": 7, "prompt": "a star", "seed": 5, "count": 2, "format": "jpeg" }).to_string(),
        json!({ "id": "unknown", "prompt": "a star", "stepps": 2 }).to_string(),
        json!({ "id": "wrong", "prompt": "a star", "sampler": "nothing" }).to_string(),
        json!({ "id": "../x", "command": "colorize", "prompt": "a heart", "image_file": "a.png", "steps": 1 })
            .to_string(),
        json!({ "id": "sent", "command": "colorize", "prompt": "a heart", "image": picture, "steps": 1, "seed": 1 })
            .to_string(),
        json!({ "id": "gone", "command": "colorize", "prompt": "a heart", "image_file": "/dev/zero" }).to_string(),
        json!({ "id": "large", "prompt": "a heart", "width": 60000, "height": 60000 }).to_string(),
    ];
    fs::write(at.join("jobs.jsonl"), lines.join("\n")).unwrap();
    let said = ends(at, &["jobs.jsonl", "-o", "out"], 2);
    assert!(String::from_utf8_lossy(&said.stderr).contains("7 jobs cannot be made"), "{said:?}");
    let out = at.join("out");
    assert!(fs::read(out.join("a.png")).unwrap() == heart, "the command's very file");
    let written = results(&out);
    assert_eq!(written.len(), 11);
    let of = |id: &str| written.iter().find(|result| result["id"] == id).unwrap();
    assert_eq!(
        (&of("a")["file"], &of("a")["seed"], &of("a")["line"]),
        (&json!("a.png"), &json!(3_398_926_610_u32), &json!(1))
    );
    let files: Vec<_> =
        of("7")["images"].as_array().unwrap().iter().map(|image| (&image["file"], &image["seed"])).collect();
    assert_eq!(files, [(&json!("7+0.jpg"), &json!(5)), (&json!("7+1.jpg"), &json!(6))]);
    assert!(of("../x")["file"].as_str().unwrap().starts_with("x+"), "{written:?}");
    for (id, part) in [
        ("unknown", "did you mean steps?"),
        ("wrong", "sampler"),
        ("gone", "image_file /dev/zero: is no file"),
        ("large", "at most"),
    ] {
        let error = of(id)["error"].as_str().unwrap();
        assert!(of(id)["status"] == "failed" && of(id)["retry"] == false && error.contains(part), "{error}");
    }
    let bad: Vec<_> = written.iter().filter(|result| result["id"].is_null()).map(|result| &result["line"]).collect();
    assert_eq!(bad, [2, 4, 5]);
    assert_eq!(pictures(&out).len(), 5);

    // Again: nothing is made and nothing written twice; what failed is tried again only when that is asked for.
    ends(at, &["jobs.jsonl", "-o", "out", "-q"], 2);
    assert_eq!(results(&out).len(), 11);
    let mended: Vec<_> =
        lines.iter().filter(|line| line.contains("\"wrong\"")).map(|line| line.replace("nothing", "euler")).collect();
    fs::write(at.join("mended.jsonl"), mended.join("\n")).unwrap();
    ends(at, &["mended.jsonl", "-o", "out"], 2);
    ends(at, &["mended.jsonl", "-o", "out", "--retry-failed"], 0);
    ends(at, &["mended.jsonl", "-o", "out"], 0);
    assert_eq!(results(&out).len(), 12);
}

#[test]
fn any_number_and_order_of_shards_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut jobs = some_jobs(11);
    write_jobs(&at.join("jobs.jsonl"), &jobs);
    // Several together, in one graph.
    ends(at, &["jobs.jsonl", "-o", "whole", "--batch", "4"], 0);
    let whole = pictures(&at.join("whole"));
    assert_eq!(whole.len(), jobs.len());
    jobs.reverse();
    write_jobs(&at.join("other.jsonl"), &jobs);
    for index in ["2/3", "0/3"] {
        ends(at, &["other.jsonl", "-o", "parts", "--batch", "1", "--shard", index], 0);
    }
    // As Slurm says it.
    let mut slurm = worker(at, &["other.jsonl", "-o", "parts", "--tar", "2"]);
    for (name, value) in [("TASK_ID", "11"), ("TASK_MIN", "10"), ("TASK_MAX", "12"), ("TASK_COUNT", "3")] {
        slurm.env(format!("SLURM_ARRAY_{name}"), value);
    }
    assert!(slurm.output().unwrap().status.success());
    assert!(pictures(&at.join("parts")) == whole, "three shards");
    assert_eq!(results(&at.join("parts")).len(), 11);
    // Divided anew, and as Kubernetes says it: all is done.
    for index in ["0", "1"] {
        let mut kubernetes = worker(at, &["jobs.jsonl", "-o", "parts"]);
        kubernetes.envs([("JOB_COMPLETION_INDEX", index), ("HEADWATER_SHARDS", "2")]);
        assert!(kubernetes.output().unwrap().status.success());
    }
    assert_eq!(results(&at.join("parts")).len(), 11);
}

#[test]
fn one_that_is_killed_at_any_time_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_jobs(&at.join("jobs.jsonl"), &some_jobs(14));
    ends(at, &["jobs.jsonl", "-o", "whole"], 0);
    let whole = pictures(&at.join("whole"));
    for (out, flags) in [("files", &["--batch", "1"][..]), ("tars", &["--batch", "1", "--tar", "4"])] {
        let arguments = [&["jobs.jsonl", "-o", out, "-q"], flags].concat();
        let started = Instant::now();
        let mut kills = 0;
        for pause in (0..).map(|n| Duration::from_millis(250 + 70 * n)) {
            let mut child = worker(at, &arguments).spawn().unwrap();
            std::thread::sleep(pause);
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            assert!(started.elapsed() < PATIENCE);
        }
        assert!(kills > 0, "{out}: it was never killed");
        ends(at, &arguments, 0);
        assert!(pictures(&at.join(out)) == whole, "{out}");
        let names = fs::read_dir(at.join(out)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let hidden: Vec<String> = names.filter(|name| name.starts_with('.')).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    }
}

/// Waits for a line of a kind on its standard output.
fn told(lines: &mut impl Iterator<Item = std::io::Result<String>>, kind: &str) -> Value {
    loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if line["type"] == kind {
            return line;
        }
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn one_that_is_told_to_stop_finishes_what_it_can_and_says_that_there_is_more() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let endless = json!({ "id": "endless", "model": "icons-64", "prompt": "a blue fish", "steps": 9000 });
    for (grace, tar) in [("0", &[][..]), ("1", &["--tar", "100"])] {
        let out = format!("out-{grace}");
        let arguments = [&["-", "-o", &out, "--json", "--heartbeat", "1", "--grace", grace], tar].concat();
        let mut child =
            worker(at, &arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        writeln!(input, "{}", json!({ "id": "first", "prompt": "a red heart" })).unwrap();
        if tar.is_empty() {
            // Each line is answered while the input is open.
            let result = told(&mut lines, "result");
            assert_eq!((&result["id"], &result["status"]), (&json!("first"), &json!("done")));
            // Nobody else may write here meanwhile.
            let other = ends(at, &["-", "-o", &out], 75);
            assert!(String::from_utf8_lossy(&other.stderr).contains("another worker"), "{other:?}");
        }
        writeln!(input, "{endless}").unwrap();
        while told(&mut lines, "heartbeat")["running"] != 1 {}
        let started = Instant::now();
        signal(&child, "-TERM");
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(75), "{grace}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let end = told(&mut lines, "end");
        assert_eq!((&end["done"], &end["code"]), (&json!(1), &json!(75)));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("run it again to go on") && !said.contains("panicked"), "{said}");

        // It goes on where it was.
        write_jobs(
            &at.join("jobs.jsonl"),
            &[json!({ "id": "first", "prompt": "a red heart" }), json!({ "id": "last", "prompt": "a star" })],
        );
        ends(at, &[&["jobs.jsonl", "-o", &out], tar].concat(), 0);
        assert_eq!(pictures(&at.join(&out)).len(), 2);
        assert_eq!(results(&at.join(&out)).len(), 2);
    }
}

#[test]
fn what_a_device_has_no_room_for_is_tried_again_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_jobs(&at.join("jobs.jsonl"), &some_jobs(2));
    for tries in 1..3 {
        let said = ends(at, &["jobs.jsonl", "-o", "out", "--max-memory", "0.001"], 75);
        assert!(String::from_utf8_lossy(&said.stderr).contains("run it again"), "{said:?}");
        let written = results(&at.join("out"));
        assert_eq!(written.len(), 2 * tries);
        assert!(written.iter().all(|result| result["retry"] == true && result["status"] == "failed"), "{written:?}");
    }
    ends(at, &["jobs.jsonl", "-o", "out"], 0);
    assert_eq!(pictures(&at.join("out")).len(), 2);
}

#[test]
fn workers_that_are_dealt_jobs_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let jobs = some_jobs(3);
    write_jobs(&at.join("two.jsonl"), &jobs[..2]);
    write_jobs(&at.join("three.jsonl"), &jobs);
    ends(at, &["two.jsonl", "-o", "out", "--name", "one"], 0);
    let output = ends(at, &["three.jsonl", "-o", "out", "--name", "other", "--json"], 0);
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // An answer to each line, and the end.
    assert_eq!(lines.len(), 4);
    assert!(lines[..3].iter().all(|line| line["type"] == "result" && line["status"] == "done"), "{lines:?}");
    assert_eq!((&lines[3]["done"], &lines[3]["done_before"]), (&json!(3), &json!(2)));
    assert_eq!(results(&at.join("out")).len(), 3);
    assert_eq!(pictures(&at.join("out")).len(), 3);
}

#[test]
fn what_cannot_be_worked_on_is_said_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_jobs(&at.join("jobs.jsonl"), &some_jobs(1));
    fs::write(at.join("file"), "").unwrap();
    for (arguments, code, part) in [
        (&["none.jsonl", "-o", "out"][..], 2, "none.jsonl"),
        (&[".", "-o", "out"], 2, "folder"),
        (&["jobs.jsonl"], 2, "--output"),
        (&["jobs.jsonl", "-o", "file"], 1, "cannot make the folder"),
        (&["jobs.jsonl", "-o", "out", "--shard", "3/3"], 2, "I/N"),
        (&["jobs.jsonl", "-o", "out", "--name", "../x"], 2, "letters"),
        (&["jobs.jsonl", "-o", "out", "-m", "no-such-model"], 1, "there is no model"),
    ] {
        let output = ends(at, arguments, code);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("error: ") && said.contains(part), "{arguments:?}: {said}");
    }
    let mut lost = worker(at, &["jobs.jsonl", "-o", "out"]);
    let output = lost.env("JOB_COMPLETION_INDEX", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("HEADWATER_SHARDS"));
}
