//! Whole runs of `headwater compare` and `headwater converge`: what they leave on disk, what they go on from, how they end.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// A checkpoint of a few kilobytes.
fn tiny() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pipelines/pixels").display().to_string()
}

fn headwater(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

/// The code, standard output and standard error.
fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = headwater(folder, arguments).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn succeed(folder: &Path, arguments: &[&str]) -> (String, String) {
    let (code, stdout, stderr) = run(folder, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    (stdout, stderr)
}

fn compare<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let arguments = ["compare", "a red square", "-m", model, "--device", "cpu", "--seed", "3", "-o", "out"];
    [&arguments[..], more].concat()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

const SMALL: [&str; 4] = ["--samplers", "euler,heun,euler_ancestral", "--steps", "2,4"];

#[test]
fn a_comparison_is_a_folder_of_tables_sheets_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    let (stdout, stderr) = succeed(folder.path(), &compare(&model, &[&SMALL[..], &["--save-steps"]].concat()));
    let names = ["contact-sheet.png", "grid.png", "error-vs-nfe.svg", "steps.csv", "steps.json", "report.html"];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), names.map(|name| format!("out/{name}")));
    assert!(stderr.contains("nearest with   2 evaluations: ") && stderr.contains("shared between cells"), "{stderr}");
    let out = folder.path().join("out");

    let table = read(&out.join("steps.csv"));
    let mut lines = table.lines();
    assert!(lines.next().unwrap().starts_with("sampler,steps,step,nfe,sigma,seconds,error_x,error_final,"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 3 * (2 + 4), "a row for each step of each cell");
    for row in &rows {
        let number = |i: usize| row[i].parse::<f64>().unwrap();
        assert_eq!(number(2) <= 1.0, number(6) == 0.0, "only the first step stands where the reference does: {row:?}");
        assert!(number(4) > 0.0 && number(5) > 0.0 && number(7) > 0.0, "{row:?}");
    }
    let cells = json(&out.join("steps.json"))["cells"].as_array().unwrap().clone();
    let of = |id: &str| cells.iter().find(|cell| cell["id"] == id).unwrap_or_else(|| panic!("{id}")).clone();
    assert_eq!((&of("heun-4-steps")["nfe"], &of("heun-4-steps")["path"]), (&7.into(), &"ode".into()));
    let noisy = of("euler_ancestral-4-steps");
    assert!(noisy["path"] == "sde" && noisy["spread"].as_f64().unwrap() > 0.0, "{noisy}");
    assert!(of("euler-4-steps")["spread"].is_null() && of("euler-4-steps")["psnr"].as_f64().unwrap() > 5.0);
    assert_eq!(of("heun-4-steps")["taken_over"], 2, "Heun's first step begins with Euler's");

    for name in [
        "contact-sheet.png",
        "grid.png",
        "error-vs-nfe.png",
        "pictures/heun-4-steps.png",
        "steps/euler-2-steps/002-x.png",
    ] {
        assert!(headwater::read_picture(&out.join(name)).is_ok(), "{name}");
    }
    assert!(out.join("steps/euler-2-steps/002-sample.safetensors").is_file());
    assert!(read(&out.join("error-vs-nfe.svg")).starts_with("<svg"));
    assert!(read(&out.join("report.html")).contains("euler_ancestral, 4 steps"));
}

#[test]
fn what_is_there_is_not_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    let arguments = compare(&model, &[&SMALL[..], &["--json"]].concat());
    let computed = |arguments: &[&str]| {
        let summary: Value = serde_json::from_str(&succeed(folder.path(), arguments).0).unwrap();
        summary["evaluations_computed"].as_u64().unwrap()
    };
    assert!(computed(&arguments) > 20);
    assert_eq!(computed(&arguments), 0, "all is there");
    let cell = folder.path().join("out/cells/heun-4-steps.json");
    let before = json(&cell);
    std::fs::remove_file(&cell).unwrap();
    assert_eq!(computed(&arguments), 7, "one cell, and no reference");
    for name in ["error_final", "psnr", "ssim"] {
        assert_eq!(before["record"][name], json(&cell)["record"][name], "{name}");
    }
    // A half-written file is no cell, and another sampler is one more.
    std::fs::write(&cell, "{\"record\":").unwrap();
    let more = compare(&model, &["--samplers", "euler,heun,euler_ancestral,lms", "--steps", "2,4", "--json"]);
    let again = computed(&more);
    assert!((8..=7 + 6).contains(&again), "{again}");
}

#[test]
fn every_axis_makes_a_grid_and_what_cannot_run_is_a_row() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("prompts.txt"), "a red square\n\na \"blue\" disc, large\n").unwrap();
    let model = tiny();
    let consistency = Path::new(&model).with_file_name("latent_consistency").display().to_string();
    for (more, cells, refused) in [
        (&["--samplers", "euler", "--steps", "2", "--guidance", "1,3", "--seeds", "1,2,5"][..], 6, 0),
        (&["--samplers", "ddim,euler", "--steps", "2", "--eta", "0,1"], 4, 2),
        (&["--samplers", "euler,heun", "--nfe", "1,3,8"], 6, 0),
        (
            &["--samplers", "euler", "--steps", "3", "--guidance-interval", "0,inf", "--guidance-interval", "0.5,3"],
            2,
            0,
        ),
        (&["--samplers", "euler,heun", "--steps", "3", "--step-cache", "off,deep:2,t-gate:2,first-block:0.1"], 8, 2),
        (&["--samplers", "euler", "--steps", "3", "--schedules", "karras,normal"], 2, 0),
        (&["--samplers", "rk45,euler", "--steps", "2", "--draws", "1"], 2, 0),
    ] {
        let arguments = ["compare", "a red square", "-m", &model, "--device", "cpu", "--no-reference", "-o", "axes"];
        let seed: &[&str] = if more.contains(&"--seeds") { &[] } else { &["--seed", "1"] };
        succeed(folder.path(), &[&arguments[..], more, seed].concat());
        let all = json(&folder.path().join("axes/steps.json"))["cells"].as_array().unwrap().clone();
        assert_eq!(all.len(), cells, "{more:?}");
        assert_eq!(all.iter().filter(|cell| !cell["refused"].is_null()).count(), refused, "{more:?}");
        std::fs::remove_dir_all(folder.path().join("axes")).unwrap();
    }
    let prompts =
        ["compare", "--prompts", "prompts.txt", "-m", &model, "--samplers", "euler", "--steps", "2", "--seed", "1"];
    succeed(folder.path(), &[&prompts[..], &["--device", "cpu", "--no-reference", "-o", "prompts"]].concat());
    assert!(read(&folder.path().join("prompts/steps.csv")).contains("\"a \"\"blue\"\" disc, large\""));

    // A model that maps noise to pictures at once has no errors of its own.
    let arguments =
        ["compare", "a red square", "-m", &consistency, "--device", "cpu", "--steps", "1,50", "--seed", "1"];
    let (_, stderr) = succeed(folder.path(), &[&arguments[..], &["-o", "direct"]].concat());
    assert!(stderr.contains("was made for a few steps: 50") && stderr.contains("--reference"), "{stderr}");
}

#[test]
fn what_makes_no_sense_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    std::fs::write(folder.path().join("taken/notes.txt"), "mine").unwrap();
    std::fs::write(folder.path().join("empty.txt"), "\n\n").unwrap();
    let own = [&SMALL[..], &["--no-reference", "-q"]].concat();
    succeed(folder.path(), &compare(&model, &own));
    for (more, code, part) in [
        (&["--samplers", "euler,k_euler"][..], 2, "the sampler euler is there twice"),
        (&["--samplers", "eular"], 2, "did you mean euler"),
        (&["--schedules", "karas"], 2, "did you mean karras"),
        (&["--steps", "4,4"], 2, "there twice"),
        (&["--steps", "0"], 2, "from 1 to 10000"),
        (&["--steps", "4", "--nfe", "4"], 2, "cannot be used with"),
        (&["--samplers", "ddim_inverse"], 2, "nothing here can run"),
        (&["--guidance", "x"], 2, "give a number"),
        (&["--within", "-1"], 2, "above 0"),
        (&["-o", "taken"], 2, "holds other files"),
        (
            &["-o", "out", "--no-reference", "--negative-prompt", "blue"],
            2,
            "another comparison, whose negative prompt differs",
        ),
        (&["-o", "empty.txt"], 1, "cannot write empty.txt"),
        (&["-m", "analytic:mixture"], 2, "headwater converge"),
        (&["-m", "no/such/folder/here"], 1, "no model"),
    ] {
        let start = ["compare", "a red square", "--device", "cpu", "--seed", "3"];
        let model: &[&str] = if more.contains(&"-m") { &[] } else { &["-m", &model] };
        let (code_found, stdout, stderr) = run(folder.path(), &[&start[..], model, more].concat());
        assert_eq!(code_found, Some(code), "{more:?}: {stderr}");
        assert!(stderr.contains(part) && !stderr.contains("panicked"), "{more:?}: {stderr}");
        assert_eq!(stdout, "", "{more:?}");
    }
    for (arguments, part) in [
        (&["compare", "--prompts", "empty.txt"][..], "has no prompts"),
        (&["compare", "--prompts", "none.txt"], "cannot read none.txt"),
        (&["compare", "--samplers", "euler"], "needs a PROMPT"),
        (&["converge", "-m", "analytic:none"], "analytic:mixture and analytic:gaussian"),
        (&["converge", "a red heart"], "reads no text"),
        (&["converge", "--samplers", "euler,euler"], "there twice"),
        (&["converge", "--samplers", "euler karras"], "write euler alone"),
        (&["converge", "a red heart", "-m", "icons-64-consistency"], "no ODE"),
    ] {
        let (code, _, stderr) = run(folder.path(), arguments);
        assert!(code == Some(2) || code == Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part) && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
    }
}

/// A comparison that is stopped leaves a report of what is done, and the same command goes on.
#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_whole_report() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    let arguments = compare(&model, &["--samplers", "euler,heun,ddim", "--steps", "2,900", "--no-reference"]);
    let mut child = headwater(folder.path(), &arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let cell = folder.path().join("out/cells/euler-2-steps.json");
    while !cell.is_file() {
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "the program ended before its first cell");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let page = read(&folder.path().join("out/report.html"));
    assert!(page.contains("cells are not done") && page.trim_end().ends_with("</html>"));
    let cells = json(&folder.path().join("out/steps.json"));
    assert!(cells["summary"]["cells_missing"].as_u64().unwrap() >= 1);
}

/// A disk that is full in the middle: one sentence, and the same command goes on where there is room again. (A limit on the size of files stands for it.)
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing_that_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny();
    let arguments = compare(&model, &[&SMALL[..], &["--no-reference"]].concat());
    let mut limited = Command::new("sh");
    // Eight blocks of 512 or 1024 bytes: cells' files are larger.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_headwater")]);
    let output = limited.args(&arguments).current_dir(folder.path()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let last = message.lines().last().unwrap();
    assert!(last.starts_with("error: cannot write out/") && last.contains("the same command goes on"), "{message}");
    let left = std::fs::read_dir(folder.path().join("out/cells")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().all(|name| !name.starts_with('.')), "no temporary file is left: {names:?}");
    succeed(folder.path(), &arguments);
    assert!(folder.path().join("out/report.html").is_file());
}

#[test]
fn convergence_on_analytic_data_needs_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let some = ["converge", "--samplers", "euler,heun,lms,dpm_fast,euler_ancestral", "-n", "3"];
    let (stdout, _) = succeed(folder.path(), &some);
    assert!(stdout.contains("stated  measured") && stdout.contains("draws noise"), "{stdout}");
    let out = folder.path().join("converge-analytic-mixture");
    let methods = json(&out.join("converge.json")).as_array().unwrap().clone();
    for method in methods.iter().filter(|method| method["note"].is_null()) {
        let (stated, measured) = (method["order_stated"].as_f64().unwrap(), method["order_measured"].as_f64().unwrap());
        assert!((stated - measured).abs() < 0.25, "{method}");
    }
    assert!(read(&out.join("converge.csv")).lines().count() > 20 && out.join("error-vs-nfe.png").is_file());

    let of_a_model =
        ["converge", "a red square", "-m", &tiny(), "--device", "cpu", "--samplers", "euler,heun", "--steps", "4,8"];
    let (stdout, _) = succeed(folder.path(), &[&of_a_model[..], &["-n", "2", "--json", "-o", "model"]].concat());
    let found: Value = serde_json::from_str(&stdout).unwrap();
    let points = found["methods"][1]["points"].as_array().unwrap().clone();
    assert_eq!((points.len(), &points[1]["nfe"]), (2, &15.into()));
    assert!(points.iter().all(|point| point["lower"].as_f64() <= point["upper"].as_f64()), "{points:?}");
}
