//! The operations, one file each: what shapes they take, what they mean, what they cost.

mod attention;
mod concat;
mod conv2d;
mod elementwise;
mod gather;
mod group_norm;
mod layer_norm;
mod leaf;
mod matmul;
mod reshape;
mod rms_norm;
mod slice;
mod timestep_embedding;
mod transpose;

pub use attention::Attention;
pub use concat::Concat;
pub use conv2d::{Conv2d, Conv2dDims};
pub use elementwise::Elementwise;
pub(crate) use elementwise::apply as apply_expr;
pub use gather::Gather;
pub use group_norm::{GroupNorm, GroupNormDims};
pub use layer_norm::LayerNorm;
pub use leaf::{Constant, Input, Weight};
pub use matmul::{MatMul, MatMulDims};
pub use reshape::Reshape;
pub use rms_norm::RmsNorm;
pub use slice::Slice;
pub use timestep_embedding::TimestepEmbedding;
pub use transpose::Transpose;
