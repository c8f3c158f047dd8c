//! `headwater bench`: what it measures, and what it says of two measurements.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{fail, succeed};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn bench(folder: &Path, arguments: &[&str]) -> Value {
    let printed = succeed(folder, &[&["bench", "--json"], arguments].concat());
    serde_json::from_str(&printed).unwrap()
}

fn row<'a>(object: &'a Value, part: &str, group: Option<&str>) -> &'a Value {
    let rows = object["rows"].as_array().unwrap();
    let own = |row: &&Value| row["part"] == part && row["group"].as_str() == group;
    rows.iter().find(own).unwrap_or_else(|| panic!("no {part} {group:?} in {object}"))
}

/// Every row of a run, with other times: as a file that an earlier run wrote.
fn write_earlier(path: &Path, object: &Value, seconds: impl Fn(&Value) -> Value) {
    let mut earlier = object.clone();
    for row in earlier["rows"].as_array_mut().unwrap() {
        row["seconds"] = seconds(&row["seconds"]);
    }
    fs::write(path, earlier.to_string()).unwrap();
}

#[test]
fn parts_of_the_bundled_model_are_measured_beside_a_ceiling() {
    let folder = tempfile::tempdir().unwrap();
    let object = bench(folder.path(), &["--repeats", "2"]);
    let positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0 && value.is_finite());
    assert!(positive(&object["ceiling"]["gflops"]) && positive(&object["ceiling"]["gbytes_per_second"]), "{object}");
    for (part, group) in [("prompt encode", None), ("step", None), ("step", Some("matmul"))] {
        let row = row(&object, part, group);
        assert_eq!(row["seconds"].as_array().unwrap().len(), 2, "{row}");
        let [fastest, median, slowest] = ["fastest", "median", "slowest"].map(|key| row[key].as_f64().unwrap());
        assert!(0.0 < fastest && fastest <= median && median <= slowest, "{row}");
        let share = row["gflops"].as_f64().unwrap() / object["ceiling"]["gflops"].as_f64().unwrap();
        assert!((row["share_of_flops"].as_f64().unwrap() / share - 1.0).abs() < 1e-9, "{row}");
    }
    if cfg!(target_os = "linux") {
        assert!(object["peak_memory"].as_u64().unwrap() > 1 << 20, "{object}");
    }
}

#[test]
fn latent_models_have_four_parts_and_paths_are_grouped() {
    let folder = tempfile::tempdir().unwrap();
    let object =
        bench(folder.path(), &["-m", "model:stable_diffusion", "--repeats", "1", "--by", "path", "--depth", "1"]);
    for part in ["prompt encode", "picture encode", "step", "latent decode"] {
        assert!(row(&object, part, None)["flops"].as_u64().unwrap() > 0, "{object}");
    }
    let (all, blocks) = (row(&object, "step", None), row(&object, "step", Some("mid_block")));
    assert!(blocks["flops"].as_u64() < all["flops"].as_u64(), "{object}");
    let rows = object["rows"].as_array().unwrap();
    let step = rows.iter().filter(|row| row["part"] == "step" && row["group"].is_string());
    let sum: u64 = step.map(|row| row["flops"].as_u64().unwrap()).sum();
    assert_eq!(Some(sum), all["flops"].as_u64());
}

#[test]
fn whole_pictures_and_single_operations_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let object = bench(folder.path(), &["-m", "model:pixels", "--suite", "all", "--only", "icons", "--repeats", "1"]);
    for part in ["first picture, plans made", "whole picture", "step", "icons query: matmul 128x256x256"] {
        assert!(row(&object, part, None)["median"].as_f64().unwrap() > 0.0, "{object}");
    }
    assert!(object["rows"].as_array().unwrap().iter().all(|row| !row["part"].as_str().unwrap().contains("sdxl")));
    // No model is opened for single operations.
    let object =
        bench(folder.path(), &["-m", "nowhere", "--suite", "micro", "--only", "icons layer", "--repeats", "1"]);
    assert!(object["model"].is_null() && object["rows"].as_array().unwrap().len() == 1, "{object}");
    fail(folder.path(), &["bench", "--suite", "micro", "--only", "nothing"], 2, "no shape of the micro suite");
    fail(folder.path(), &["bench", "--only", "icons"], 2, "--suite micro");
}

#[test]
fn only_differences_beyond_the_spread_are_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let (place, file) = (folder.path(), folder.path().join("earlier.json"));
    let arguments = ["-m", "model:stable_diffusion", "--repeats", "5"];
    let object = bench(place, &arguments);
    let verdicts = |seconds: &dyn Fn(&Value) -> Value| {
        write_earlier(&file, &object, seconds);
        let compared = bench(place, &[&arguments[..], &["--vs", file.to_str().unwrap()]].concat());
        let rows = compared["vs"]["rows"].as_array().unwrap().clone();
        assert!(!rows.is_empty());
        let told = |row: &Value| row["verdict"].as_str().unwrap().to_owned();
        rows.iter().map(told).filter(|verdict| verdict != "too short to tell").collect::<Vec<_>>()
    };
    // An earlier spread that holds everything: whatever is measured now lies within it.
    let all = verdicts(&|_| json!([1e-9, 1e-3, 1e-2, 1e-1, 1e6]));
    assert!(all.iter().all(|verdict| verdict == "same within spread"), "{all:?}");
    let all = verdicts(&|_| json!([1e6, 1e6, 1e6, 1e6, 1e6]));
    assert!(all.iter().all(|verdict| verdict == "faster"), "{all:?}");
    let all = verdicts(&|_| json!([1e-9, 1e-9, 1e-9, 1e-9, 1e-9]));
    assert!(all.iter().all(|verdict| verdict == "slower"), "{all:?}");
    let all = verdicts(&|_| json!([1e6, 1e6]));
    assert!(all.iter().all(|verdict| verdict == "too few repeats to tell"), "{all:?}");
}

#[test]
fn files_that_cannot_be_compared_with_are_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let refuse = |content: &str, part: &str| {
        fs::write(place.join("earlier.json"), content).unwrap();
        fail(place, &["bench", "--repeats", "1", "--vs", "earlier.json"], 1, part);
    };
    fail(place, &["bench", "--vs", "missing.json"], 1, "cannot compare with missing.json");
    refuse("{\"rows\": [", "it is no JSON");
    refuse("{}", "not what headwater bench --json writes");
    refuse("[1]", "not what headwater bench --json writes");
    refuse("{\"rows\": [{\"suite\": \"meso\", \"part\": \"step\", \"seconds\": [\"a\"]}]}", "not what headwater bench");
    refuse("{\"model\": \"other\", \"rows\": []}", "its model is other, and here it is icons-64");
    refuse("{\"model\": \"icons-64\", \"width\": 32, \"rows\": []}", "its width is 32, and here it is 64");
    refuse("{\"model\": \"icons-64\", \"rows\": []}", "nothing that was measured now is in it");
}
