use crate::problem::Problem;
use crate::profile::Profile;

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

    /// [`Operation::NAME`](graph::Operation::NAME) of what it computes.
    fn op(&self) -> &'static str;

    /// Position among the kernels that apply, smallest first. It is an estimate, not measured on the device.
    fn rank(&self, problem: &Problem<'_>, profile: &Profile) -> u32;

    /// The composed shader; none when it does not apply to the problem or exceeds a limit of the profile.
    fn shader(&self, problem: &Problem<'_>, profile: &Profile) -> Option<Shader>;
}

/// The rank of naive kernels, which come last.
pub(crate) const LAST: u32 = u32::MAX;

/// The one kernel that rounds its left factor to blocks of eight bits ([`graph::q8_0`]), where
/// [`Profile::integer_products`] asks for it. Its result is that of the rounded factor.
pub const EIGHT_BITS: &str = "matmul_workgroup_eight_bits";
