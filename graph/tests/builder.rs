//! What the builder promises: one error with its place, names that mean one tensor.

use graph::ops::Conv2d;
use graph::{Graph, GraphError, Op, Rate, Scope};

fn failure(result: Result<Graph, GraphError>) -> GraphError {
    result.expect_err("the graph is ill-shaped")
}

#[test]
fn the_first_error_is_reported_with_its_path() {
    let s = Scope::root();
    let x = s.input("x", &[2, 3], Rate::Step);
    let block = s.at("blocks").at(7);
    // [2, 3] has no range 1..5; everything after it is ignored.
    let bad = block.at("attn").linear(&x, 4).slice(1, 1..5);
    let worse = block.at("ff").linear(&(&bad + &x), 8).reshape(&[0]);
    let error = failure(s.finish(&[("y", &worse)]));
    assert_eq!(error.path, "blocks.7.attn");
    assert_eq!(error.to_string(), "blocks.7.attn: slice: [2, 4] has no range 1..5 on axis 1");
}

#[test]
fn every_operation_refuses_operands_that_do_not_fit() {
    type Build = fn(&Scope) -> graph::Tensor;
    let cases: [(&str, Build); 17] = [
        ("matmul", |s| s.input("a", &[2, 3], Rate::Step).matmul(&s.input("b", &[4, 5], Rate::Step))),
        ("matmul", |s| s.input("a", &[2, 0], Rate::Step).matmul(&s.input("b", &[0, 5], Rate::Step))),
        ("larger than any memory", |s| {
            s.input("a", &[usize::MAX, 3], Rate::Step).matmul(&s.input("b", &[3, usize::MAX], Rate::Step))
        }),
        ("layer_norm", |s| s.input("a", &[], Rate::Step).layer_norm(1e-5)),
        ("conv2d", |s| s.conv2d(&s.input("a", &[2, 3, 4], Rate::Step), 5, 3, Conv2d::same(3))),
        ("conv2d", |s| {
            let conv = Conv2d { padding: [0; 4], ..Conv2d::same(3) };
            s.conv2d(&s.input("a", &[1, 2, 4, 3], Rate::Step), 5, 3, conv)
        }),
        ("group_norm", |s| s.group_norm(&s.input("a", &[1, 4, 4, 6], Rate::Step), 4, 1e-5)),
        ("weight", |s| s.weight_in_order("w", &[2, 3], &[1, 1])),
        ("attention", |s| {
            let q = s.input("q", &[1, 2, 6], Rate::Step);
            q.attention(&q, &q, 4, false, None)
        }),
        ("attention", |s| {
            let (q, k) = (s.input("q", &[1, 2, 4], Rate::Step), s.input("k", &[1, 3, 4], Rate::Step));
            q.attention(&k, &k, 2, true, None)
        }),
        ("elementwise", |s| &s.input("a", &[2, 3], Rate::Step) + &s.input("b", &[2], Rate::Step)),
        ("gather", |s| s.embedding(&s.input("ids", &[3], Rate::Step), (1 << 24) + 1, 4)),
        ("concat", |s| {
            graph::Tensor::concat(&[&s.input("a", &[2, 3], Rate::Step), &s.input("b", &[3, 3], Rate::Step)], 1)
        }),
        ("reshape", |s| s.input("a", &[2, 3], Rate::Step).reshape(&[7])),
        ("transpose", |s| s.input("a", &[2, 3], Rate::Step).transpose(&[0, 0])),
        ("timestep_embedding", |s| s.input("t", &[2], Rate::Step).timestep_embedding(7, true, 0.0)),
        ("patches", |s| s.input("a", &[1, 6, 8, 3], Rate::Step).patchify(4)),
    ];
    for (what, build) in cases {
        let s = Scope::root();
        let tensor = build(&s);
        let error = failure(s.finish(&[("y", &tensor)]));
        assert!(error.message.contains(what), "{what}: {error}");
    }
}

#[test]
fn a_name_is_one_tensor() {
    let s = Scope::root();
    let (x, again) = (s.input("x", &[2], Rate::Step), s.input("x", &[2], Rate::Step));
    let (w, same) = (s.at("a").weight("w", &[2]), s.at("a").weight("w", &[2]));
    let graph = s.finish(&[("y", &(&(&x + &again) * &(&w + &same)))]).expect("well-shaped");
    assert_eq!(graph.nodes().iter().filter(|node| matches!(node.op, Op::Input(_))).count(), 1);
    assert_eq!(graph.weights().len(), 1);

    let s = Scope::root();
    let mixed = &s.input("x", &[2], Rate::Step) + &s.input("x", &[2], Rate::Once);
    assert!(failure(s.finish(&[("y", &mixed)])).message.contains("input x"));
    let s = Scope::root();
    let mixed = &s.weight("w", &[2]) + &s.weight("w", &[1]);
    assert!(failure(s.finish(&[("y", &mixed)])).message.contains("w is used"));
}

/// Two products with a seam behind the first: whole, the first alone, and the second alone.
#[test]
fn a_graph_is_cut_at_its_seams() {
    let build = |s: &Scope| {
        let x = s.input("x", &[2, 3], Rate::Step);
        let h = s.at("a").seam("middle", s.at("a").linear(&x, 4));
        s.at("b").linear(&h, 5)
    };
    let names = |graph: &Graph| graph.weights().iter().map(|weight| weight.name.clone()).collect::<Vec<_>>();
    let s = Scope::root();
    let y = build(&s);
    let [(name, middle)] = &s.seams("middle")[..] else { panic!("one seam") };
    assert_eq!((name.as_str(), middle.shape(), s.seams("end").len()), ("a.middle", &[2, 4][..], 0));
    let whole = s.finish(&[("y", &y)]).expect("a graph");
    assert_eq!(names(&whole), ["a.weight", "a.bias", "b.weight", "b.bias"]);
    let first = s.finish(&[("kept", middle)]).expect("a graph");
    assert_eq!(names(&first), ["a.weight", "a.bias"]);

    let s = Scope::cut(&[("middle", Rate::Once)]);
    let second = s.finish(&[("y", &build(&s))]).expect("a graph");
    assert_eq!(names(&second), ["b.weight", "b.bias"]);
    let given = second.node(second.input("a.middle").expect("the seam is an input"));
    assert_eq!((&given.shape[..], given.rate, second.input("x")), (&[2, 4][..], Rate::Once, None));
}

#[test]
fn tensors_of_two_graphs_do_not_mix() {
    let (s, other) = (Scope::root(), Scope::root());
    let sum = &s.input("x", &[2], Rate::Step) + &other.input("x", &[2], Rate::Step);
    assert!(failure(s.finish(&[("y", &sum)])).message.contains("another graph"));
    let stranger = other.input("y", &[2], Rate::Step);
    assert!(s.at("a").path() == "a" && Scope::root().finish(&[("y", &stranger)]).is_err());
}
