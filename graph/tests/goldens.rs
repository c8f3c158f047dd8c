//! Every operation's reference against PyTorch in f64 (`tests/goldens/make_ops.py`).

use graph::expr::{Binary, Unary};
use graph::ops::{
    Attention, Concat, Conv2d, Elementwise, Gather, GroupNorm, LayerNorm, MatMul, Reshape, RmsNorm, Slice,
    TimestepEmbedding, Transpose,
};
use graph::{Array, Expr, MemoryWeights, Op, Rate, Real, Scope, evaluate};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// Half a unit in the last place of f32, relative to the largest value: an exact reference allows us one rounding.
const ROUNDING: f64 = 1.0 / (1u32 << 24) as f64;

/// Operations that PyTorch has nothing to say about, and why.
const WITHOUT_GOLDEN: &[(&str, &str)] = &[
    ("input", "a leaf: its value is the caller's"),
    ("weight", "a leaf: its value is the checkpoint's"),
    ("constant", "a leaf: its value is part of the graph"),
];

struct Case(Value);

impl Case {
    fn name(&self) -> String {
        format!("{} ({})", self.text("op"), self.text("name"))
    }
    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().expect("a text")
    }
    fn attribute(&self, name: &str) -> &Value {
        let value = &self.0["attributes"][name];
        assert!(!value.is_null(), "{} has no {name}", self.name());
        value
    }
    fn flag(&self, name: &str) -> bool {
        self.attribute(name).as_bool().expect("a flag")
    }
    fn number(&self, name: &str) -> f64 {
        self.attribute(name).as_f64().expect("a number")
    }
    fn size(&self, name: &str) -> usize {
        self.number(name) as usize
    }
    fn sizes(&self, name: &str) -> Vec<usize> {
        extents(self.attribute(name))
    }
    fn inputs<T: Real>(&self) -> Vec<Array<T>> {
        self.0["inputs"].as_array().expect("inputs").iter().map(array).collect()
    }
}

fn extents(value: &Value) -> Vec<usize> {
    value.as_array().expect("a list").iter().map(|n| n.as_u64().expect("a whole number") as usize).collect()
}

fn array<T: Real>(value: &Value) -> Array<T> {
    let data = value["data"].as_array().expect("a list").iter();
    Array::new(extents(&value["shape"]), data.map(|n| T::from_f64(n.as_f64().expect("a number"))).collect())
}

/// The operation of a case, for those that are one node.
fn operation(case: &Case) -> Option<Op> {
    let op = match case.text("op") {
        "matmul" => MatMul { transpose_b: case.flag("transpose_b"), bias: case.flag("bias") }.into(),
        "conv2d" => Conv2d {
            stride: case.size("stride"),
            padding: case.sizes("padding").try_into().expect("four sides"),
            upsample: case.size("upsample"),
            bias: case.flag("bias"),
        }
        .into(),
        "group_norm" => GroupNorm { groups: case.size("groups"), eps: case.number("eps") }.into(),
        "layer_norm" => LayerNorm { eps: case.number("eps"), affine: case.flag("affine") }.into(),
        "rms_norm" => RmsNorm { eps: case.number("eps") }.into(),
        "attention" => Attention {
            heads: case.size("heads"),
            scale: case.number("scale"),
            causal: case.flag("causal"),
            key_bias: case.flag("key_bias"),
            // Older cases were written before there was one.
            score_bias: case.0["attributes"]["score_bias"].as_bool().unwrap_or(false),
        }
        .into(),
        "unary" => {
            let op = Unary::ALL.into_iter().find(|op| op.name() == case.text("name")).expect("a function of that name");
            Elementwise { expr: Expr::unary(op, Expr::Input(0)) }.into()
        }
        "binary" => {
            let op =
                Binary::ALL.into_iter().find(|op| op.name() == case.text("name")).expect("a function of that name");
            Elementwise { expr: Expr::binary(op, Expr::Input(0), Expr::Input(1)) }.into()
        }
        "gather" => Gather.into(),
        "concat" => Concat { axis: case.size("axis") }.into(),
        "slice" => Slice { axis: case.size("axis"), start: case.size("start"), len: case.size("len") }.into(),
        "reshape" => Reshape { shape: case.sizes("shape") }.into(),
        "transpose" => Transpose { axes: case.sizes("axes") }.into(),
        "timestep_embedding" => TimestepEmbedding {
            dim: case.size("dim"),
            flip_sin_to_cos: case.flag("flip_sin_to_cos"),
            downscale_freq_shift: case.number("downscale_freq_shift"),
            max_period: 10_000.0,
        }
        .into(),
        _ => return None,
    };
    Some(op)
}

/// Our result, from one operation's reference or from a builder method that combines several operations.
fn ours<T: Real>(case: &Case) -> Array<T> {
    let inputs = case.inputs::<T>();
    if let Some(op) = operation(case) {
        let operands: Vec<&Array<T>> = inputs.iter().collect();
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| &*input.shape).collect();
        let out = op.infer(&shapes).unwrap_or_else(|message| panic!("{}: {message}", case.name()));
        return op.reference(&operands, &out);
    }
    const NAMES: [&str; 3] = ["x0", "x1", "x2"];
    let scope = Scope::root();
    let x: Vec<_> = inputs.iter().zip(NAMES).map(|(x, name)| scope.input(name, &x.shape, Rate::Step)).collect();
    let result = match case.text("op") {
        "modulate" => x[0].modulate(&x[1], &x[2]),
        "patchify" => {
            let [out, channels, patch, _] = inputs[1].shape[..] else { panic!("a convolution's weight has four axes") };
            let weight = x[1].reshape(&[out, channels * patch * patch]);
            scope.push(MatMul { transpose_b: true, bias: true }, &[&x[0].patchify(case.size("patch")), &weight, &x[2]])
        }
        "unpatchify" => x[0].unpatchify(case.size("patch"), case.size("rows"), case.size("columns")),
        other => panic!("no test for {other}"),
    };
    let graph = scope.finish(&[("y", &result)]).unwrap_or_else(|error| panic!("{}: {error}", case.name()));
    let bound: HashMap<&str, Array<T>> = NAMES.into_iter().zip(inputs).collect();
    evaluate(&graph, &bound, &MemoryWeights::default()).expect("every input is bound").remove(0)
}

fn check<T: Real>(case: &Case, precision: &str, tolerance: f64) {
    let (wanted, ours) = (array::<f64>(&case.0["output"]), ours::<T>(case));
    assert_eq!(ours.shape, wanted.shape, "{}, {precision}", case.name());
    let largest = wanted.data.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    for (i, (want, have)) in wanted.data.iter().zip(&ours.data).enumerate() {
        let error = (want - have.to_f64()).abs() / largest;
        // Written as `<=`, so that a NaN fails.
        assert!(error <= tolerance, "{}, {precision}, element {i}: {have:?} instead of {want}", case.name());
    }
}

fn cases() -> Vec<Case> {
    let text = include_str!("../../tests/goldens/ops.json");
    serde_json::from_str::<Vec<Value>>(text).expect("the golden is JSON").into_iter().map(Case).collect()
}

#[test]
fn every_reference_is_pytorch() {
    for case in cases() {
        check::<f64>(&case, "f64", 1e-12);
        let error = case.0["f32_error"].as_f64().expect("a number");
        check::<f32>(&case, "f32", 4.0 * error.max(ROUNDING));
    }
}

#[test]
fn every_operation_has_a_golden() {
    let cases = cases();
    let have: BTreeSet<&str> = cases.iter().filter_map(operation).map(|op| op.name()).collect();
    for name in Op::NAMES {
        let exempt = WITHOUT_GOLDEN.iter().any(|(exempt, _)| exempt == name);
        assert_ne!(have.contains(name), exempt, "{name} needs either a case in make_ops.py or a reason to have none");
    }
    for (name, reason) in WITHOUT_GOLDEN {
        assert!(Op::NAMES.contains(name), "{name} is no operation ({reason})");
    }
    let named =
        |kind: &str| cases.iter().filter(|case| case.text("op") == kind).map(|case| case.text("name")).collect();
    let unary: BTreeSet<&str> = named("unary");
    assert_eq!(unary, Unary::ALL.into_iter().map(Unary::name).collect());
    let binary: BTreeSet<&str> = named("binary");
    assert_eq!(binary, Binary::ALL.into_iter().map(Binary::name).collect());
}
