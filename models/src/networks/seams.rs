//! Roles of the places where networks may be cut ([`graph::Scope::seam`]), for whoever keeps values from one denoising step to the next.

/// What the first of a transformer's blocks is given, `[B, S, C]`.
pub const BEFORE_BLOCKS: &str = "before_blocks";
/// What the first of a transformer's blocks makes of that, `[B, S, C]`.
pub const FIRST_BLOCK: &str = "first_block";
/// What the last of a transformer's blocks makes, `[B, S, C]`.
pub const LAST_BLOCK: &str = "last_block";
/// What a block's attention to the text makes, before it is added to the block's own values: `[B, S, C]`.
pub const CROSS_ATTENTION: &str = "cross_attention";
/// What the finest layer of a UNet's way up is given from the coarser ones, before the skip connection joins it: `[B, H, W, C]`.
pub const DEEP: &str = "deep";
