//! The page's sheet of samplers, in the same browser.

use super::common::{model, succeed};
use super::page::{RESULT, blob, open, open_with};
use super::support::command;
use serde_json::json;

#[test]
fn samplers_are_compared_from_the_same_noise() {
    let Some((_server, mut browser)) = open() else { return };
    browser.click("#tab-compare");
    browser.fill("c-prompt", "a rocket");
    browser.fill("c-steps", "2, 3");
    browser.fill("c-seed", "5");
    browser.eval(
        "for (const box of document.querySelectorAll('#c-samplers input')) box.checked = ['euler', 'euler_ancestral'].includes(box.value)",
    );
    browser.eval("document.getElementById('c-errors').checked = false");
    browser.click("#c-run");
    browser.until("document.getElementById('c-status').textContent.startsWith('Done')");
    assert_eq!(browser.shown("c-problem"), "");
    let headings = browser.eval("[...document.querySelectorAll('#sheet th')].map((cell) => cell.textContent)");
    let mut headings: Vec<&str> = headings.as_array().unwrap().iter().map(|cell| cell.as_str().unwrap()).collect();
    headings[2..].sort_unstable();
    assert_eq!(headings, ["2 steps", "3 steps", "euler", "euler_ancestral"]);
    let sources = "[...document.querySelectorAll('#sheet img')].map((picture) => picture.src)";
    let ends = browser.eval(sources);
    assert!(ends.as_array().unwrap().iter().all(|source| source.as_str().unwrap().starts_with("blob:")), "{ends}");
    // At the first noise level all of them ask the model the same question.
    browser.fill("c-level", "0");
    let firsts = browser.eval(sources);
    let firsts: Vec<&str> = firsts.as_array().unwrap().iter().map(|source| source.as_str().unwrap()).collect();
    assert!(firsts.iter().all(|source| source.starts_with("data:image/jpeg;base64,")), "{firsts:?}");
    assert!(firsts.len() == 4 && firsts.iter().all(|source| *source == firsts[0]), "the same noise");

    // A cell is the command's picture, and opens as one that was made.
    let folder = tempfile::tempdir().unwrap();
    browser.click("#sheet tbody tr:first-child td:last-child .cell");
    browser.until("!document.getElementById('create').hidden && image().url");
    let sampler = browser.text("document.getElementById('sampler').value");
    let arguments = [
        "generate",
        "a rocket",
        "-m",
        "icons-64",
        "--sampler",
        &sampler,
        "--steps",
        "3",
        "-s",
        "5",
        "-o",
        "a.png",
        "-q",
    ];
    assert!(blob(&mut browser, RESULT) == command(folder.path(), &arguments, "a.png"));
    assert_eq!(browser.eval("document.querySelectorAll('#strip img').length"), 4);
    assert_eq!(browser.wrong, Vec::<String>::new());
}

/// The page's errors, at the end and at every level, are those that the command writes into its table.
#[test]
fn errors_against_the_ode_are_the_commands() {
    let model = model("pixels");
    let Some((_server, mut browser)) = open_with(&["-m", &model]) else { return };
    browser.click("#tab-compare");
    browser.fill("c-prompt", "a red square");
    browser.fill("c-steps", "4, 6");
    browser.fill("c-guidance", "1");
    browser.fill("c-seed", "7");
    let samplers = ["euler", "heun", "dpmpp_2m", "euler_ancestral"];
    browser.click("#c-run");
    browser.until("document.getElementById('c-status').textContent.startsWith('Done')");
    assert_eq!(browser.shown("c-problem"), "");

    let folder = tempfile::tempdir().unwrap();
    let list = samplers.join(",");
    let arguments = [
        "compare",
        "a red square",
        "--models",
        &model,
        "--samplers",
        &list,
        "--steps",
        "4,6",
        "--guidance",
        "1",
        "--seeds",
        "7",
        "--draws",
        "1",
        "-o",
        "out",
        "-q",
    ];
    succeed(folder.path(), &arguments);
    let table = std::fs::read_to_string(folder.path().join("out/steps.csv")).unwrap();
    let mut rows = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = rows.next().unwrap();
    let column = |row: &[&str], name: &str| row[head.iter().position(|own| *own == name).unwrap()].to_owned();
    let rows: Vec<Vec<&str>> = rows.collect();
    assert_eq!(rows.iter().filter(|row| column(row, "step") == "1").count(), 8);
    let cell =
        |sampler: &str, steps: usize| format!("#c-rows tr[data-sampler={sampler}] td:nth-of-type({})", steps / 2 - 1);
    for row in &rows {
        let (sampler, steps) = (column(row, "sampler"), column(row, "steps").parse::<usize>().unwrap());
        let error: f64 = column(row, "error_final").parse().unwrap();
        let error = browser.text(&format!("decimal({error})"));
        let shown = browser.text(&format!("document.querySelector('{} b').textContent", cell(&sampler, steps)));
        let said = if sampler == "euler_ancestral" { format!("{error} away") } else { format!("error {error}") };
        assert!(shown.starts_with(&said), "{sampler}, {steps} steps: {shown}, not {said}");
    }
    // The nearest of each column is marked, and columns sort by error; what draws noise has none, and comes last.
    for steps in [4, 6] {
        let of = |row: &&Vec<&str>| column(row, "steps") == steps.to_string() && column(row, "path") == "ode";
        let mut errors: Vec<(f64, String)> = rows
            .iter()
            .filter(of)
            .filter(|row| column(row, "step") == "1")
            .map(|row| (column(row, "error_final").parse().unwrap(), column(row, "sampler")))
            .collect();
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(
            browser.eval(&format!("document.querySelector('{}').className", cell(&errors[0].1, steps))) == "nearest"
        );
        browser.click(&format!("#sheet th[data-count='{steps}'] button"));
        let order = browser.eval("[...document.querySelectorAll('#c-rows th')].map((head) => head.textContent)");
        let mut want: Vec<&str> = errors.iter().map(|(_, sampler)| sampler.as_str()).collect();
        want.push("euler_ancestral");
        assert_eq!(order, json!(want));
    }
    // The solution stands below, and at the second level of Euler's method its error there is shown.
    assert_eq!(browser.eval("document.querySelectorAll('#c-solution img:not([hidden])').length"), 2);
    let second = rows
        .iter()
        .find(|row| column(row, "sampler") == "euler" && column(row, "steps") == "6" && column(row, "step") == "2");
    let (sigma, error) = (column(second.unwrap(), "sigma"), column(second.unwrap(), "error_x"));
    let at = browser.eval(&format!("sheet.levels().findIndex((level) => Math.abs(level / {sigma} - 1) < 1e-6)"));
    browser.fill("c-level", &at.to_string());
    let error = browser.text(&format!("decimal({error})"));
    let shown = browser.text(&format!("document.querySelector('{} b').textContent", cell("euler", 6)));
    assert!(shown == format!("error {error}") || shown == format!("error {error}, nearest"), "{shown}, not {error}");
    assert_eq!(browser.wrong, Vec::<String>::new());
}
