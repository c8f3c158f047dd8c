//! Golden models: cases from JSON, weights and inputs drawn from names, tolerances from the reference's own error.

#![allow(dead_code, reason = "every test file uses a part of this")]

use graph::{Array, Graph, Real, evaluate, passes::optimize};
use models::synthetic::{SyntheticWeights, signed};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// `models.json`, and the files of later families beside it.
fn files() -> Vec<PathBuf> {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
    let entries = std::fs::read_dir(goldens.join("models")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.push(goldens.join("models.json"));
    files.sort();
    files
}

/// Inputs by name.
pub(crate) type Inputs = HashMap<&'static str, Array<f64>>;

/// Every case of a model, of which there must be a few.
pub(crate) fn cases(model: &str) -> Vec<Value> {
    let all = files().into_iter().flat_map(|path| {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str::<Vec<Value>>(&text).expect("the golden is JSON")
    });
    let cases: Vec<Value> = all.filter(|case| case["model"] == model).collect();
    assert!(cases.len() >= 3, "{} cases of {model}", cases.len());
    cases
}

/// Nested lists of numbers as an array.
pub(crate) fn array(value: &Value) -> Array<f64> {
    fn flatten(value: &Value, depth: usize, shape: &mut Vec<usize>, data: &mut Vec<f64>) {
        match value {
            Value::Array(items) => {
                if shape.len() == depth {
                    shape.push(items.len());
                }
                items.iter().for_each(|item| flatten(item, depth + 1, shape, data));
            }
            number => data.push(number.as_f64().expect("a number")),
        }
    }
    let (mut shape, mut data) = (Vec::new(), Vec::new());
    flatten(value, 0, &mut shape, &mut data);
    Array::new(shape, data)
}

/// A list of extents.
pub(crate) fn shape(value: &Value) -> Vec<usize> {
    array(value).data.iter().map(|extent| *extent as usize).collect()
}

/// A golden stores f64 results; how far ours may be off follows from the reference's own f32 error.
fn check<T: Real>(what: &str, golden: &Value, ours: &Array<T>, tolerance: f64) {
    assert_eq!(ours.shape, shape(&golden["shape"]), "{what}");
    let wanted = array(&golden["data"]).data;
    let largest = wanted.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let worst = wanted.iter().zip(&ours.data).map(|(a, b)| (a - b.to_f64()).abs()).fold(0.0, f64::max) / largest;
    assert!(worst <= tolerance, "{what}: {worst:e} off, {tolerance:e} allowed");
}

/// Compares the first output of a graph, as built and optimised, in f64 and f32.
pub(crate) fn check_graph(name: &str, golden: &Value, graph: &Graph, inputs: &Inputs) {
    let weights = SyntheticWeights::new(&graph.weights());
    let f32_inputs: HashMap<&str, Array<f32>> = inputs.iter().map(|(name, array)| (*name, array.cast())).collect();
    let error = golden["f32_error"].as_f64().expect("a number");
    for (form, graph) in [("as built", graph.clone()), ("optimised", optimize(graph))] {
        let ours = &evaluate(&graph, inputs, &weights).expect("every input is bound")[0];
        check(&format!("{name}, f64, {form}"), golden, ours, 1e-12);
        let ours = &evaluate(&graph, &f32_inputs, &weights).expect("every input is bound")[0];
        check(&format!("{name}, f32, {form}"), golden, ours, 4.0 * error);
    }
}

/// Inputs of these names, drawn from the case's name where the golden gives a shape, else as the golden lists them.
pub(crate) fn inputs(case: &Value, drawn: &[&'static str], listed: &[&'static str]) -> Inputs {
    let name = case["name"].as_str().expect("a name");
    let present = |input: &&&'static str| !case[**input].is_null();
    let draw = |input: &&'static str| {
        let shape = shape(&case[*input]);
        let data = signed(&format!("{name}:{input}"), shape.iter().product()).collect();
        (*input, Array::new(shape, data))
    };
    let drawn = drawn.iter().filter(present).map(draw);
    drawn.chain(listed.iter().filter(present).map(|input| (*input, array(&case[*input])))).collect()
}
