//! Pictures: between a model's numbers and bytes, in other sizes, in tiles.

pub(crate) mod binning;
mod image;
mod resize;
pub(crate) mod tiles;

pub use image::{RgbImage, nchw_from_nhwc, nhwc_from_nchw};
pub use resize::Filter;
