//! Properties that every graph keeps, checked on random ones.

use graph::random::random_graph;
use graph::{Array, Graph, NodeId, Op, Rate, Slots, evaluate, passes};
use std::collections::BTreeSet;

const GRAPHS: u64 = 1500;
const OPS: usize = 14;

/// Evaluation order of the same sums may change under fusion, so outputs agree to f64 rounding, not to the bit.
fn assert_close(got: &[Array<f64>], want: &[Array<f64>], what: &str) {
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.shape, want.shape, "{what}");
        let largest = want.data.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.data.iter().zip(&want.data).enumerate() {
            assert!((g - w).abs() <= 1e-12 * largest, "{what}: element {i} is {g}, not {w}");
        }
    }
}

/// As many graphs as the quickest of the executors' tests run.
#[test]
fn every_operation_occurs() {
    let mut seen = BTreeSet::new();
    let mut biased = BTreeSet::new();
    for seed in 0..40 {
        for node in random_graph(seed, 12).graph.nodes() {
            seen.insert(node.op.name());
            if let Op::Attention(op) = &node.op {
                biased.insert((op.key_bias, op.score_bias));
            }
        }
    }
    assert_eq!(seen, Op::NAMES.iter().copied().collect());
    assert_eq!(biased.len(), 4, "attention with and without each bias");
}

#[test]
fn passes_keep_outputs() {
    for seed in 0..GRAPHS {
        let case = random_graph(seed, OPS);
        let want = evaluate(&case.graph, &case.inputs, &case.weights).expect("bound");
        let mut graph = case.graph.clone();
        for pass in passes::PASSES {
            graph = (pass.run)(&graph);
            let got = evaluate(&graph, &case.inputs, &case.weights).expect("bound");
            assert_close(&got, &want, &format!("seed {seed} after {}:\n{graph}", pass.name));
        }
        assert!(graph.nodes().len() <= case.graph.nodes().len(), "seed {seed}: passes only remove nodes");
    }
}

#[test]
fn operands_come_first_and_bindings_stay_within_the_web_limit() {
    for seed in 0..GRAPHS {
        let graph = passes::optimize(&random_graph(seed, OPS).graph);
        let mut step_seen = false;
        for (id, node) in graph.iter() {
            assert!(node.reads().all(|read| read < id), "seed {seed}: {} reads a later node", node.path);
            if !matches!(node.op, Op::Concat(_)) {
                assert!(node.reads().count() < 8, "seed {seed}: {} binds too much", node.path);
            }
            assert!(node.rate == Rate::Step || !step_seen, "seed {seed}: a once node follows a step node");
            step_seen |= node.rate == Rate::Step;
        }
    }
}

/// Walks a graph with its memory plan and remembers which value each slot holds. If a value is overwritten too early,
/// its reader finds another value there. The second round skips the nodes of rate `Once`, as replaying does.
fn check_slots(graph: &Graph, what: &str) {
    let slots = Slots::assign(graph);
    let mut memory: Vec<Option<NodeId>> = vec![None; slots.sizes().len()];
    let holds =
        |memory: &[Option<NodeId>], id: NodeId| slots.of(id).is_none_or(|slot| memory[slot.0] == Some(slots.root(id)));
    for round in 0..2 {
        for (id, node) in graph.iter().filter(|(_, node)| round == 0 || node.rate == Rate::Step) {
            for read in node.reads() {
                assert!(holds(&memory, read), "{what}: {} reads %{} too late\n{graph}", node.path, read.index());
            }
            let Some(slot) = slots.of(id).filter(|_| slots.root(id) == id) else {
                continue;
            };
            assert!(slots.sizes()[slot.0] >= graph::shape::numel(&node.shape), "{what}: a slot is too small");
            assert!(
                node.reads().all(|read| slots.of(read) != Some(slot)),
                "{what}: {} writes what it reads",
                node.path
            );
            memory[slot.0] = Some(id);
        }
    }
    for (name, id) in graph.outputs() {
        assert!(holds(&memory, *id), "{what}: output {name} was overwritten");
    }
}

#[test]
fn no_two_live_values_share_a_slot() {
    for seed in 0..GRAPHS {
        check_slots(&passes::optimize(&random_graph(seed, OPS).graph), &format!("seed {seed}"));
    }
}

#[test]
fn slots_reuse_memory() {
    let graph = passes::optimize(&random_graph(3, 60).graph);
    let slots = Slots::assign(&graph);
    let computed = graph.iter().filter(|(id, _)| slots.of(*id).is_some() && slots.root(*id) == *id).count();
    assert!(slots.sizes().len() < computed, "{} slots for {computed} values", slots.sizes().len());
}
