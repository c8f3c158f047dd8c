//! A picture to draw on: other pictures, lines, and text.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places on a picture")]

use super::pictures::buffer;
use ab_glyph::{Font, FontRef, PxScale, PxScaleFont, ScaleFont};
use image::imageops::{self, FilterType};
use pipelines::RgbImage;
use plotters::style::{FontStyle, RGBColor, register_font};
use std::sync::Once;

/// The family that plots are written in.
pub(super) const FONT: &str = "sans-serif";

const REGULAR: &[u8] = include_bytes!("../../../assets/fonts/DejaVuSans.ttf");
const BOLD: &[u8] = include_bytes!("../../../assets/fonts/DejaVuSans-Bold.ttf");

/// Makes the fonts known to the plotting library.
pub(super) fn fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // They are part of this program; a test draws with them.
        drop(register_font(FONT, FontStyle::Normal, REGULAR));
        drop(register_font(FONT, FontStyle::Bold, BOLD));
    });
}

pub(super) const INK: RGBColor = RGBColor(32, 36, 44);
pub(super) const FAINT: RGBColor = RGBColor(110, 116, 128);
const PAPER: u8 = 255;

/// Where text begins, or ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Align {
    Left,
    Centre,
}

/// One line of text.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) color: RGBColor,
    pub(super) align: Align,
    pub(super) text: String,
}

/// A white picture.
pub(super) struct Canvas {
    image: RgbImage,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { image: RgbImage { width, height, pixels: vec![PAPER; 3 * width * height] } }
    }

    /// Draws a picture into a square of this side, whole and in the middle; small ones by whole multiples, so that their pixels stay pixels.
    pub(super) fn picture(&mut self, image: &RgbImage, x: usize, y: usize, side: usize) {
        let Some(own) = buffer(image) else { return };
        let longest = image.width.max(image.height);
        let scaled = |extent: usize| {
            let extent =
                if longest <= side { extent * (side / longest).max(1) } else { (extent * side / longest).max(1) };
            u32::try_from(extent).unwrap_or(1)
        };
        let (width, height) = (scaled(image.width), scaled(image.height));
        let filter = if longest <= side { FilterType::Nearest } else { FilterType::Triangle };
        let fitted = imageops::resize(&own, width, height, filter);
        let (left, top) = (x + (side - width as usize) / 2, y + (side - height as usize) / 2);
        for (row, pixels) in fitted.into_raw().chunks_exact(3 * width as usize).enumerate() {
            self.row(left, top + row, pixels);
        }
    }

    /// A row of pixels, as far as it lies inside.
    fn row(&mut self, x: usize, y: usize, pixels: &[u8]) {
        if y >= self.image.height || x >= self.image.width {
            return;
        }
        let start = 3 * (y * self.image.width + x);
        let length = pixels.len().min(3 * (self.image.width - x));
        self.image.pixels[start..start + length].copy_from_slice(&pixels[..length]);
    }

    pub(super) fn rectangle(&mut self, x: usize, y: usize, width: usize, height: usize, color: RGBColor) {
        let row = [color.0, color.1, color.2].repeat(width);
        (y..y + height).for_each(|y| self.row(x, y, &row));
    }

    /// Writes a line, `y` being the middle of its capitals. What lies outside is cut off.
    pub(super) fn text(&mut self, text: &Text) {
        let Some(font) = font(text.size, text.bold) else { return };
        let line = width(&text.text, text.size, text.bold) as f32;
        let start = text.x as f32 - if matches!(text.align, Align::Centre) { 0.5 * line } else { 0.0 };
        // The height of DejaVu's capitals is 0.73 em.
        let baseline = text.y as f32 + 0.365 * text.size as f32;
        let ink = [text.color.0, text.color.1, text.color.2];
        for (glyph, x) in glyphs(&font, &text.text) {
            let placed = glyph.with_scale_and_position(font.scale(), ab_glyph::point(start + x, baseline));
            let Some(outline) = font.outline_glyph(placed) else { continue };
            let bounds = outline.px_bounds();
            outline.draw(|column, row, share| {
                let (x, y) = (bounds.min.x + column as f32, bounds.min.y + row as f32);
                if x >= 0.0 && y >= 0.0 {
                    self.blend(x as usize, y as usize, ink, share);
                }
            });
        }
    }

    fn blend(&mut self, x: usize, y: usize, ink: [u8; 3], share: f32) {
        if x >= self.image.width || y >= self.image.height {
            return;
        }
        let start = 3 * (y * self.image.width + x);
        for (below, ink) in self.image.pixels[start..start + 3].iter_mut().zip(ink) {
            let mixed = f32::from(*below) + share.clamp(0.0, 1.0) * (f32::from(ink) - f32::from(*below));
            *below = mixed.round() as u8;
        }
    }

    pub(super) fn finish(self) -> RgbImage {
        self.image
    }
}

/// A font whose em is this many pixels.
fn font(size: f64, bold: bool) -> Option<PxScaleFont<FontRef<'static>>> {
    // They are part of this program; a test draws with both.
    let font = FontRef::try_from_slice(if bold { BOLD } else { REGULAR }).ok()?;
    let em = font.units_per_em()?;
    let scale = PxScale::from(size as f32 * font.height_unscaled() / em);
    Some(font.into_scaled(scale))
}

/// Glyphs with their places along a line.
fn glyphs(font: &PxScaleFont<FontRef<'static>>, text: &str) -> Vec<(ab_glyph::GlyphId, f32)> {
    let (mut x, mut before) = (0.0, None);
    let place = |c: char| {
        let glyph = font.glyph_id(c);
        if let Some(before) = before {
            x += font.kern(before, glyph);
        }
        let place = (glyph, x);
        x += font.h_advance(glyph);
        before = Some(glyph);
        place
    };
    text.chars().map(place).collect()
}

/// How wide a line is.
pub(super) fn width(text: &str, size: f64, bold: bool) -> usize {
    let Some(font) = font(size, bold) else { return 0 };
    glyphs(&font, text).last().map_or(0, |(glyph, x)| (x + font.h_advance(*glyph)).ceil() as usize)
}

/// The text, cut with an ellipsis where it is wider than this.
pub(super) fn fitted(text: &str, size: f64, bold: bool, most: usize) -> String {
    if width(text, size, bold) <= most {
        return text.to_owned();
    }
    let mut kept: Vec<char> = text.chars().collect();
    while kept.pop().is_some() {
        let shorter: String = kept.iter().collect::<String>().trim_end().to_owned() + "\u{2026}";
        if width(&shorter, size, bold) <= most {
            return shorter;
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fonts_have_what_sheets_say() {
        for bold in [false, true] {
            let font = font(12.0, bold).expect("a font");
            for c in "Aa09\u{3c3}\u{b7}\u{2026}\u{201c}\u{201d}\u{444}\u{e9}".chars() {
                assert_ne!(font.glyph_id(c).0, 0, "{c}");
            }
        }
    }

    #[test]
    fn text_is_drawn_and_cut_to_fit() {
        let mut canvas = Canvas::new(120, 40);
        let text = Text {
            x: 4,
            y: 20,
            size: 16.0,
            bold: true,
            color: INK,
            align: Align::Left,
            text: "heun \u{3c3} 14".into(),
        };
        canvas.text(&text);
        let drawn = canvas.finish();
        assert!(drawn.pixels.iter().filter(|v| **v < 100).count() > 100, "there is ink");
        let long = fitted("a prompt that is much too long", 16.0, false, 100);
        assert!(long.ends_with('\u{2026}') && width(&long, 16.0, false) <= 100, "{long}");
        assert_eq!(fitted("short", 16.0, false, 100), "short");
    }
}
