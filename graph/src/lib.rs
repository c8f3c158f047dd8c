//! The language Headwater's models are written in: shapes, operations, passes and memory planning.
//!
//! **Invariant: this crate knows no device.** A [`Graph`] is a plain immutable value; anything that can run one
//! implements [`Device`] elsewhere. Every operation carries its own slow, clear reference implementation, and these
//! alone define what a graph means.
//!
//! Activations have one layout, NHWC for images and `[batch, tokens, channels]` for sequences, and one element type.
//! Whole numbers (token ids) travel as activations too: `f32` holds them exactly below 2²⁴, which `gather` checks.

mod array;
pub mod cases;
mod convolution;
mod device;
mod error;
pub mod expr;
mod graph;
mod op;

pub mod ops;
pub mod passes;
pub mod q8_0;
pub mod random;
mod reference;
mod scope;
pub mod shape;
mod slots;
mod storage;
mod tensor;
mod weights;
mod winners;
mod work;

pub use array::{Array, Real};
pub use convolution::{Convolution, Tile, convolution_ways, winograd};
pub use device::{
    Activations, Device, DeviceError, DeviceInfo, DeviceKind, MemoryUse, NodeTime, Plan, PlanOptions, Storage,
};
pub use error::GraphError;
pub use expr::Expr;
pub use graph::{Epilogue, Graph, Node, NodeId, Rate, WeightSpec};
pub use op::{Cost, Op, Operation};
pub use reference::{ReferenceError, evaluate};
pub use scope::Scope;
pub use shape::Shape;
pub use slots::{Slot, Slots};
pub use storage::{Kept, estimate_memory, half_values, kept_weights};
pub use tensor::Tensor;
pub use weights::{MemoryWeights, StorageType, WeightSource, WeightView};
pub use winners::{Winners, alone, shape_key};
pub use work::Work;
#[cfg(not(target_family = "wasm"))]
pub use work::block_on;
