//! What kernels of matrix products and of convolutions share.

use crate::prelude::Prelude;
use graph::ops::MatMulDims;

/// What all variants of a kernel share: extents, flags and bindings.
pub(crate) struct Setup {
    pub(crate) prelude: Prelude,
    pub(crate) dims: MatMulDims,
    /// The text that reads rows of the left factor.
    pub(crate) rows: &'static str,
}
