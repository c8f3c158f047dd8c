//! Sums over a workgroup, for kernels that share a row or a group among its invocations.

use crate::profile::Profile;

/// How the invocations of a workgroup add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Total {
    /// By halving, in workgroup memory.
    Tree,
    /// Within subgroups first, where the adapter has them.
    Subgroup,
}

impl Total {
    /// The text that defines `Invocation` and `total`; none when the adapter cannot run it.
    pub(crate) fn text(self, profile: &Profile) -> Option<&'static str> {
        match self {
            Self::Tree => Some(include_str!("tree.wgsl")),
            Self::Subgroup => profile.subgroups.then_some(include_str!("subgroup.wgsl")),
        }
    }
}
