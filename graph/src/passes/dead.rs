use super::rewrite::Rewriter;
use crate::graph::Graph;

/// Leaves out every node that no output needs.
#[must_use]
pub fn dead_code(graph: &Graph) -> Graph {
    let mut live = vec![false; graph.nodes.len()];
    for (_, id) in &graph.outputs {
        live[id.index()] = true;
    }
    for i in (0..graph.nodes.len()).rev() {
        if live[i] {
            for id in graph.nodes[i].reads() {
                live[id.index()] = true;
            }
        }
    }
    let mut rewriter = Rewriter::new(graph);
    for (id, node) in graph.iter().filter(|(id, _)| live[id.index()]) {
        let node = rewriter.rename(node);
        rewriter.emit(id, node);
    }
    rewriter.finish(graph)
}
