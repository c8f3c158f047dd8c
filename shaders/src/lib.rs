//! WGSL kernels for Headwater's graph operations.
//!
//! **Invariant: this crate knows no GPU interface.** It turns a [`Problem`] and an adapter's [`Profile`] into text, a
//! number of workgroups and the words of a uniform buffer ([`Shader`]); nothing else is needed to run it.
//!
//! A kernel is a plain `.wgsl` body beside a small Rust spec. In front of the body goes a generated prelude: constants
//! for tile sizes and flags, the bindings, a `load` function for each operand's storage format, and the epilogue. So no
//! kernel is copied for another storage format, activation or residual. The text is WGSL 1.0, at most `enable f16`, and
//! operations of subgroups where an adapter has them.

mod attention;
mod concat;
mod conv2d;
mod elementwise;
mod expression;
mod gather;
mod group_norm;
mod kernel;
mod layer_norm;
mod list;
mod map;
mod matmul;
mod prelude;
mod problem;
mod product;
mod profile;
mod strided;
mod timestep_embedding;
mod total;
mod view;

pub use kernel::{EIGHT_BITS, Kernel, Shader};
pub use list::{KERNELS, candidates};
pub use problem::{Format, Operand, Problem};
pub use profile::Profile;
