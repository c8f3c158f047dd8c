//! How a picture of any size meets the sizes that a model makes.

use super::Wanted;
use crate::parts::Size;
use crate::picture::{Filter, RgbImage};

/// Where a picture lies in what is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Canvas {
    /// Of what the model makes.
    size: Size,
    /// Of what is handed over: the size that was asked for, or the picture's own.
    kept: Size,
}

impl Canvas {
    /// Where a size was asked for, the picture is resized to it, each side for itself, as diffusers does it. Otherwise it keeps its size: the
    /// model makes the next larger one that it can, and what is too much is cut off in the end.
    pub(crate) fn new(picture: Size, wanted: &Wanted<'_>) -> Self {
        let kept = if wanted.size_was_asked { wanted.size } else { picture };
        Self { size: wanted.size, kept }
    }

    /// What is handed over, and what the model makes.
    pub(crate) fn of(kept: Size, size: Size) -> Self {
        Self { size, kept }
    }

    /// The picture as the model takes it: at its own size, with its last rows and columns repeated up to the model's.
    pub(crate) fn place(&self, image: &RgbImage) -> RgbImage {
        let Size { height, width } = self.kept;
        image
            .resized(width, height, Filter::Lanczos)
            .extended([0, self.size.height - height], [0, self.size.width - width])
    }

    /// The part of what the model made that is handed over.
    pub(crate) fn cut(&self, made: RgbImage) -> RgbImage {
        if self.kept == self.size { made } else { made.cut(0, 0, self.kept) }
    }

    /// A value of every pixel of what is handed over, from one of every pixel that the model makes.
    pub(crate) fn cut_mask(&self, of: &[bool]) -> Vec<bool> {
        let rows = of.chunks_exact(self.size.width).take(self.kept.height);
        rows.flat_map(|row| row[..self.kept.width].iter().copied()).collect()
    }
}

impl RgbImage {
    /// With rows and columns before and behind it that repeat its outermost ones.
    pub(crate) fn extended(&self, rows: [usize; 2], columns: [usize; 2]) -> Self {
        if rows == [0, 0] && columns == [0, 0] {
            return self.clone();
        }
        let (width, height) = (self.width + columns[0] + columns[1], self.height + rows[0] + rows[1]);
        let mut pixels = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            let row = y.saturating_sub(rows[0]).min(self.height - 1) * self.width;
            for x in 0..width {
                let at = (row + x.saturating_sub(columns[0]).min(self.width - 1)) * 3;
                pixels.extend_from_slice(&self.pixels[at..at + 3]);
            }
        }
        Self { width, height, pixels }
    }

    /// With every pixel `factor` times in both directions.
    pub(crate) fn repeated(&self, factor: usize) -> Self {
        let row = |row: &[u8]| -> Vec<u8> {
            row.chunks_exact(3).flat_map(|pixel| std::iter::repeat_n(pixel, factor).flatten().copied()).collect()
        };
        let rows = self.pixels.chunks_exact(self.width * 3).map(row);
        let pixels = rows.flat_map(|row| std::iter::repeat_n(row, factor).flatten()).collect();
        Self { width: self.width * factor, height: self.height * factor, pixels }
    }

    /// A part of it, which must lie inside.
    pub(crate) fn cut(&self, left: usize, top: usize, size: Size) -> Self {
        let rows = self.pixels.chunks_exact(self.width * 3).skip(top).take(size.height);
        let pixels = rows.flat_map(|row| row[left * 3..(left + size.width) * 3].iter().copied()).collect();
        Self { width: size.width, height: size.height, pixels }
    }
}
