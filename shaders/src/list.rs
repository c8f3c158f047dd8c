//! The list of all kernels.

use crate::kernel::{Kernel, Shader};
use crate::problem::Problem;
use crate::profile::Profile;
use crate::{attention, concat, conv2d, elementwise, gather, group_norm, layer_norm, matmul, timestep_embedding, view};

/// Every kernel.
pub static KERNELS: &[&dyn Kernel] = &[
    &matmul::WORKGROUP_128,
    &matmul::WORKGROUP_64,
    &matmul::WORKGROUP_32,
    &matmul::Cooperative,
    &matmul::EightBits,
    &matmul::Reduce,
    &matmul::REGISTER_8,
    &matmul::REGISTER_4,
    &matmul::Naive,
    &matmul::CONV2D_WORKGROUP_128,
    &matmul::CONV2D_WORKGROUP_64,
    &matmul::CONV2D_WORKGROUP_32,
    &matmul::CONV2D_REGISTER_8,
    &matmul::CONV2D_REGISTER_4,
    &conv2d::Winograd,
    &conv2d::Naive,
    &group_norm::SUBGROUP,
    &group_norm::WORKGROUP,
    &group_norm::Register,
    &group_norm::Naive,
    &layer_norm::SUBGROUP,
    &layer_norm::WORKGROUP,
    &layer_norm::REGISTER,
    &layer_norm::NAIVE,
    &layer_norm::RMS_SUBGROUP,
    &layer_norm::RMS_WORKGROUP,
    &layer_norm::RMS_REGISTER,
    &layer_norm::RMS_NAIVE,
    &attention::Workgroup,
    &attention::Register,
    &attention::Naive,
    &elementwise::VECTOR,
    &elementwise::NAIVE,
    &gather::VECTOR,
    &gather::NAIVE,
    &concat::VECTOR,
    &concat::NAIVE,
    &view::SLICE_VECTOR,
    &view::SLICE_NAIVE,
    &view::TRANSPOSE_VECTOR,
    &view::TRANSPOSE_NAIVE,
    &timestep_embedding::NAIVE,
];

/// All shaders for a problem, the best guess first and the naive one last.
///
/// Empty for values that exist before a graph runs, for reshapes, and when the adapter's limits are too low.
#[must_use]
pub fn candidates(problem: &Problem<'_>, profile: &Profile) -> Vec<Shader> {
    let mut fitting: Vec<&&dyn Kernel> = KERNELS.iter().filter(|kernel| kernel.op() == problem.op.name()).collect();
    fitting.sort_by_key(|kernel| kernel.rank(problem, profile));
    fitting.iter().filter_map(|kernel| kernel.shader(problem, profile)).collect()
}
