//! A picture to draw on: other pictures, lines, and text by the plotting library.

use super::ReportError;
use image::imageops::{self, FilterType};
use pipelines::RgbImage;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use std::sync::Once;

/// The family that plots and sheets are written in.
pub(super) const FONT: &str = "sans-serif";

/// Makes the fonts known to the plotting library.
pub(super) fn fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // They are part of this program; a test draws with them.
        drop(register_font(FONT, FontStyle::Normal, include_bytes!("../../../assets/fonts/DejaVuSans.ttf")));
        drop(register_font(FONT, FontStyle::Bold, include_bytes!("../../../assets/fonts/DejaVuSans-Bold.ttf")));
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
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) color: RGBColor,
    pub(super) align: Align,
    pub(super) text: String,
}

/// A white picture; texts are drawn last.
pub(super) struct Canvas {
    image: RgbImage,
    texts: Vec<Text>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        fonts();
        let image = RgbImage { width, height, pixels: vec![PAPER; 3 * width * height] };
        Self { image, texts: Vec::new() }
    }

    /// Draws a picture into a square of this side, whole and in the middle; small ones by whole multiples, so that their pixels stay pixels.
    pub(super) fn picture(&mut self, image: &RgbImage, x: usize, y: usize, side: usize) {
        let Some(own) = super::pictures::buffer(image) else { return };
        let longest = image.width.max(image.height);
        let scaled = |extent: usize| {
            let extent = if longest <= side { extent * (side / longest).max(1) } else { (extent * side / longest).max(1) };
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

    pub(super) fn text(&mut self, text: Text) {
        self.texts.push(text);
    }

    /// The picture with its texts.
    pub(super) fn finish(mut self) -> Result<RgbImage, ReportError> {
        let failed = |error: &dyn std::fmt::Display| ReportError::Picture(error.to_string());
        let side = |extent: usize| u32::try_from(extent).map_err(|error| failed(&error));
        let size = (side(self.image.width)?, side(self.image.height)?);
        {
            let area = BitMapBackend::with_buffer(&mut self.image.pixels, size).into_drawing_area();
            for text in &self.texts {
                let h = if matches!(text.align, Align::Left) { HPos::Left } else { HPos::Center };
                let font = font(text.size, text.bold).color(&text.color).pos(Pos::new(h, VPos::Center));
                let at = (i32::try_from(text.x).unwrap_or(0), i32::try_from(text.y).unwrap_or(0));
                area.draw_text(&text.text, &font, at).map_err(|error| failed(&error))?;
            }
            area.present().map_err(|error| failed(&error))?;
        }
        Ok(self.image)
    }
}

fn font(size: f64, bold: bool) -> FontDesc<'static> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::Name(FONT), size, style)
}

/// How wide a line is.
pub(super) fn width(text: &str, size: f64, bold: bool) -> usize {
    fonts();
    font(size, bold).box_size(text).map_or(0, |(width, _)| width as usize)
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
    fn text_is_drawn_and_cut_to_fit() {
        let mut canvas = Canvas::new(120, 40);
        let text = Text { x: 4, y: 20, size: 16.0, bold: true, color: INK, align: Align::Left, text: "heun \u{3c3} 14".into() };
        canvas.text(text);
        let drawn = canvas.finish().expect("draws");
        assert!(drawn.pixels.iter().filter(|v| **v < 100).count() > 100, "there is ink");
        let long = fitted("a prompt that is much too long", 16.0, false, 100);
        assert!(long.ends_with('\u{2026}') && width(&long, 16.0, false) <= 100, "{long}");
        assert_eq!(fitted("short", 16.0, false, 100), "short");
    }
}
