use super::rewrite::Rewriter;
use crate::graph::{Graph, Rate};

/// Moves everything that depends only on weights and `Once` inputs, such as the prompt's keys and values, to the front,
/// where a plan runs it once for a whole generation.
#[must_use]
pub fn hoist(graph: &Graph) -> Graph {
    let mut rewriter = Rewriter::new(graph);
    for rate in [Rate::Once, Rate::Step] {
        for (id, node) in graph.iter().filter(|(_, node)| node.rate == rate) {
            let node = rewriter.rename(node);
            rewriter.emit(id, node);
        }
    }
    rewriter.finish(graph)
}
