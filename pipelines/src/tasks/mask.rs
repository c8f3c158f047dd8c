//! Which pixels are made anew: masks as people paint them.

use super::Canvas;
use crate::error::PipelineError;
use crate::operators::{Mask, distances};
use crate::parts::Size;
use crate::picture::{Filter, RgbImage};

/// The part of a picture that is made anew.
#[derive(Debug, Clone)]
pub(super) struct Area {
    /// White where it is made anew, from half brightness on.
    mask: RgbImage,
}

impl Area {
    /// A mask of a picture; of another size it is resized to the picture's, as in diffusers.
    pub(super) fn new(mask: &RgbImage) -> Result<Self, PipelineError> {
        let refuse = |message: String| Err(PipelineError::Request(message));
        if let Some(fault) = mask.fault() {
            return refuse(format!("the mask {fault}"));
        }
        let area = Self { mask: mask.clone() };
        if !mask.luma().iter().any(|luma| *luma >= 128) {
            let message = "the mask is black everywhere, so nothing would change: paint white what is to be made anew";
            return refuse(message.into());
        }
        Ok(area)
    }

    /// Of every pixel of a picture of this size, whether it is made anew: resized as diffusers does it, then white from half brightness on.
    pub(super) fn at(&self, size: Size) -> Vec<bool> {
        white(&self.mask.resized(size.width, size.height, Filter::Lanczos))
    }

    /// With as many pixels more all around, at a picture's size.
    pub(super) fn grown(self, pixels: usize, size: Size) -> Self {
        if pixels == 0 {
            return self;
        }
        let near = distances(&self.at(size), size.width).into_iter().map(|distance| distance as usize <= pixels);
        let pixels = near.flat_map(|anew| [if anew { 255 } else { 0 }; 3]).collect();
        Self { mask: RgbImage { width: size.width, height: size.height, pixels } }
    }

    /// Where the canvas has it.
    pub(super) fn placed(&self, canvas: &Canvas) -> Mask {
        Mask { anew: white(&canvas.place(&self.mask)) }
    }

    /// What of a part of a picture is made anew, as a mask of that part.
    pub(super) fn cut(&self, part: Part, size: Size) -> Self {
        let mask = self.mask.resized(size.width, size.height, Filter::Lanczos);
        Self { mask: mask.cut(part.left, part.top, part.size) }
    }

    /// The smallest part of a picture of this size that holds all of it, and as many pixels more on each side; then widened to the shape of `like`,
    /// as far as the picture goes.
    pub(super) fn part(&self, size: Size, padding: usize, like: Size) -> Part {
        let anew = self.at(size);
        let (mut left, mut right, mut top, mut bottom) = (size.width, 0, size.height, 0);
        for (at, _) in anew.iter().enumerate().filter(|(_, anew)| **anew) {
            let (x, y) = (at % size.width, at / size.width);
            (left, right, top, bottom) = (left.min(x), right.max(x + 1), top.min(y), bottom.max(y + 1));
        }
        if right == 0 {
            // A speck of a larger mask may be lost at this size.
            return Part { left: 0, top: 0, size };
        }
        let (left, top) = (left.min(right).saturating_sub(padding), top.min(bottom).saturating_sub(padding));
        let (right, bottom) =
            (right.saturating_add(padding).min(size.width), bottom.saturating_add(padding).min(size.height));
        let (width, height) = (right - left, bottom - top);
        let wider = width.max(height * like.width / like.height.max(1)).min(size.width);
        let higher = height.max(wider * like.height / like.width.max(1)).min(size.height);
        // Around the same middle, and inside the picture.
        let begin = |low: usize, own: usize, new: usize, end: usize| low.saturating_sub((new - own) / 2).min(end - new);
        Part {
            left: begin(left, width, wider, size.width),
            top: begin(top, height, higher, size.height),
            size: Size { height: higher, width: wider },
        }
    }
}

/// A part of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) size: Size,
}

impl RgbImage {
    /// The same with what was made of a part of it, wherever that is anew. The new part sets in over `blur` pixels from its edge inwards: what is
    /// kept stays to the bit.
    pub(super) fn with(&self, made: &Self, anew: &[bool], part: Part, blur: usize) -> Self {
        let mut whole = self.clone();
        let width = part.size.width;
        let opacities = opacities(anew, width, blur);
        for (at, opacity) in opacities.iter().enumerate().filter(|(_, opacity)| **opacity > 0.0) {
            let to = ((part.top + at / width) * self.width + part.left + at % width) * 3;
            for c in 0..3 {
                let (old, new) = (f32::from(self.pixels[to + c]), f32::from(made.pixels[at * 3 + c]));
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two bytes")]
                let byte = (old + opacity * (new - old)).round() as u8;
                whole.pixels[to + c] = byte;
            }
        }
        whole
    }
}

/// White from half brightness on.
fn white(mask: &RgbImage) -> Vec<bool> {
    mask.luma().iter().map(|luma| *luma >= 128).collect()
}

/// How much of the new picture every pixel takes: none outside, and inside more with every pixel from the edge, up to all of it.
fn opacities(anew: &[bool], width: usize, blur: usize) -> Vec<f32> {
    let kept: Vec<bool> = anew.iter().map(|anew| !anew).collect();
    let whole = blur.saturating_add(1) as f32;
    distances(&kept, width).into_iter().map(|distance| (distance as f32 / whole).min(1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> RgbImage {
        let pixels = rows.concat().bytes().flat_map(|c| [if c == b'#' { 255 } else { 0 }; 3]).collect();
        RgbImage { width: rows[0].len(), height: rows.len(), pixels }
    }

    fn area(rows: &[&str]) -> (Area, Size) {
        let mask = mask(rows);
        let size = Size { height: mask.height, width: mask.width };
        (Area::new(&mask).expect("a mask"), size)
    }

    #[test]
    fn masks_grow_and_set_in_from_their_edges() {
        let (own, size) = area(&["......", "......", "...#..", "......", "......"]);
        let (grown, _) = area(&["......", "..###.", "..###.", "..###.", "......"]);
        assert_eq!(own.clone().grown(1, size).at(size), grown.at(size));
        assert_eq!(own.clone().grown(0, size).at(size), own.at(size));
        let row = &opacities(&grown.at(size), size.width, 1)[2 * 6..3 * 6];
        assert_eq!(row, [0.0, 0.0, 0.5, 1.0, 0.5, 0.0]);
        // The picture's own edge is none of the mask's.
        let (all, size) = area(&["####"]);
        assert_eq!(opacities(&all.at(size), size.width, 3), [1.0; 4]);
    }

    #[test]
    fn the_part_around_a_mask_has_the_models_shape_where_there_is_room() {
        let (own, size) = area(&["..........", "..........", "......##..", "..........", ".........."]);
        let part = |padding, like: (usize, usize)| {
            let Part { left, top, size: Size { height, width } } =
                own.part(size, padding, Size { height: like.0, width: like.1 });
            (left, top, width, height)
        };
        assert_eq!(part(0, (1, 1)), (6, 2, 2, 2));
        assert_eq!(part(1, (1, 1)), (5, 1, 4, 4));
        // Twice as high as wide.
        assert_eq!(part(1, (2, 1)), (5, 0, 4, 5));
        assert_eq!(part(9, (1, 1)), (0, 0, 10, 5));
    }

    #[test]
    fn masks_of_nothing_are_refused() {
        for (mask, part) in [
            (RgbImage { width: 0, height: 1, pixels: Vec::new() }, "the mask has no pixels"),
            (RgbImage { width: 2, height: 1, pixels: vec![127; 6] }, "black everywhere"),
        ] {
            let error = Area::new(&mask).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
