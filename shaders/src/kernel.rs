use crate::problem::Problem;
use crate::profile::Profile;
use crate::{attention, concat, conv2d, elementwise, gather, group_norm, layer_norm, matmul, timestep_embedding, view};
use graph::Operation;

/// A complete WGSL module and how to dispatch it.
///
/// All bindings are in group 0 and the entry point is `main`: first the operands, then the epilogue's, both
/// `var<storage, read>`; then the result, `var<storage, read_write>`; last one uniform buffer that holds
/// [`params`](Self::params). A binding must span exactly its value's memory, rounded up to whole 32-bit words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shader {
    /// Name of the kernel that made it.
    pub kernel: &'static str,
    /// The module's text. Shapes are not in it, so layers of different sizes often share one module.
    pub source: String,
    /// Workgroups to dispatch in each dimension.
    pub groups: [u32; 3],
    /// Words of the uniform buffer. It spans them, rounded up to a multiple of 16 bytes.
    pub params: Vec<u32>,
}

/// One way to compute an operation: a WGSL body and the rules for putting a prelude before it.
pub trait Kernel: Sync {
    /// Unique name: the operation's, then the variant's.
    fn name(&self) -> &'static str;

    /// [`Operation::name`] of what it computes.
    fn op(&self) -> &'static str;

    /// Position among the kernels that apply, smallest first: a guess without measuring.
    fn rank(&self, problem: &Problem<'_>, profile: &Profile) -> u32;

    /// The composed shader; none when it does not apply to the problem or exceeds a limit of the profile.
    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader>;
}

/// The rank of naive kernels, which come last.
pub(crate) const LAST: u32 = u32::MAX;

/// Every kernel.
pub static KERNELS: &[&dyn Kernel] = &[
    &matmul::WORKGROUP_128,
    &matmul::WORKGROUP_64,
    &matmul::WORKGROUP_32,
    &matmul::Reduce,
    &matmul::REGISTER_8,
    &matmul::REGISTER_4,
    &matmul::Naive,
    &matmul::CONV2D_WORKGROUP_128,
    &matmul::CONV2D_WORKGROUP_64,
    &matmul::CONV2D_WORKGROUP_32,
    &matmul::CONV2D_REGISTER_8,
    &matmul::CONV2D_REGISTER_4,
    &conv2d::Naive,
    &group_norm::Workgroup,
    &group_norm::Register,
    &group_norm::Naive,
    &layer_norm::Workgroup,
    &layer_norm::Register,
    &layer_norm::Naive,
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
