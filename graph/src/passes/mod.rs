//! Rewrites of a graph that keep its outputs. Each is a function `Graph → Graph`, printable before and after.

mod bands;
mod dead;
mod fold;
mod fuse;
mod hoist;
mod part;
mod rewrite;
mod split;

pub use bands::split_images;
pub use dead::dead_code;
pub use fold::fold;
pub use fuse::fuse;
pub use hoist::hoist;
pub use part::part_products;
pub use split::split_weights;

use crate::graph::Graph;

/// A named rewrite.
#[derive(Clone, Copy)]
pub struct Pass {
    /// Its name, for printing.
    pub name: &'static str,
    /// The rewrite.
    pub run: fn(&Graph) -> Graph,
}

/// The passes in the order in which [`optimize`] runs them.
pub const PASSES: &[Pass] = &[
    Pass { name: "fold", run: fold },
    Pass { name: "part-products", run: part_products },
    Pass { name: "fuse", run: fuse },
    Pass { name: "dead-code", run: dead_code },
    Pass { name: "hoist", run: hoist },
];

/// Runs every pass; devices take graphs in this form.
#[must_use]
pub fn optimize(graph: &Graph) -> Graph {
    PASSES.iter().fold(graph.clone(), |graph, pass| (pass.run)(&graph))
}
