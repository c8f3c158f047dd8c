//! Pictures of another size, as Pillow's `Image.resize` makes them: what diffusers' image processors use.

use crate::picture::RgbImage;

/// A kernel of resampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Cubic convolution with a = −½ (Keys 1981).
    Bicubic,
    /// A sinc windowed by the middle of another, three lobes on each side.
    Lanczos,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Bicubic => {
                let x = x.abs();
                if x < 1.0 {
                    (1.5 * x - 2.5) * x * x + 1.0
                } else if x < 2.0 {
                    ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
                } else {
                    0.0
                }
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// Weights are whole numbers of so many binary places, and every pass ends in bytes: so it is in Pillow, whose bytes these are.
const PLACES: u32 = 32 - 8 - 2;

/// For each pixel of a row of the result: the first pixel it is made of, and the weights from there on.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positions inside a picture, clamped")]
fn weights(from: usize, to: usize, filter: Filter) -> Vec<(usize, Vec<i64>)> {
    let scale = from as f64 / to as f64;
    // Enlarging interpolates; reducing widens the kernel to what a pixel covers.
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let window = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let raw: Vec<f64> = (first..end).map(|x| filter.at((x as f64 - center + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = raw.iter().sum();
        let whole = |w: &f64| {
            let w = (if sum == 0.0 { *w } else { w / sum }) * f64::from(1_u32 << PLACES);
            (w + 0.5_f64.copysign(w)) as i64
        };
        (first, raw.iter().map(whole).collect())
    };
    (0..to).map(window).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
fn byte(sum: i64) -> u8 {
    (sum >> PLACES).clamp(0, 255) as u8
}

impl RgbImage {
    /// The picture at another size, its sides stretched each for itself, equal to Pillow's to the byte. Both sides must be above 0.
    #[must_use]
    pub fn resized(&self, width: usize, height: usize, filter: Filter) -> Self {
        let half = 1_i64 << (PLACES - 1);
        // A picture may be large: it is copied only where nothing changes.
        let mut image = if width == self.width {
            self.clone()
        } else {
            let windows = weights(self.width, width, filter);
            let rows = self.pixels.chunks_exact(self.width * 3);
            let pixel = |row: &[u8], (first, weights): &(usize, Vec<i64>)| {
                [0, 1, 2].map(|c| {
                    let taps = weights.iter().zip(row[first * 3 + c..].iter().step_by(3));
                    byte(taps.fold(half, |sum, (w, v)| sum + w * i64::from(*v)))
                })
            };
            let pixels = rows.flat_map(|row| windows.iter().flat_map(move |window| pixel(row, window))).collect();
            Self { width, height: self.height, pixels }
        };
        if height != self.height {
            let stride = width * 3;
            let rows: Vec<&[u8]> = image.pixels.chunks_exact(stride).collect();
            let mut pixels = Vec::with_capacity(stride * height);
            for (first, weights) in weights(self.height, height, filter) {
                let value = |at: usize| {
                    let taps = weights.iter().zip(&rows[first..]);
                    byte(taps.fold(half, |sum, (w, row)| sum + w * i64::from(row[at])))
                };
                pixels.extend((0..stride).map(value));
            }
            image.pixels = pixels;
            image.height = height;
        }
        image
    }

    /// How bright every pixel is, as Pillow's conversion to `L` has it (ITU-R 601).
    #[must_use]
    pub fn luma(&self) -> Vec<u8> {
        let luma = |p: &[u8]| {
            let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
            #[allow(clippy::cast_possible_truncation, reason = "the weights' sum is 2¹⁶")]
            let luma = ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8;
            luma
        };
        self.pixels.chunks_exact(3).map(luma).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/goldens/make_resized.py`: a picture of these bytes, resized by Pillow.
    #[test]
    fn pillow_resizes_so() {
        let golden = include_str!("../../tests/resized.json");
        let golden: serde_json::Value = serde_json::from_str(golden).expect("the golden is JSON");
        let bytes = |value: &serde_json::Value| -> Vec<u8> {
            value
                .as_array()
                .expect("a list")
                .iter()
                .map(|v| u8::try_from(v.as_u64().expect("a byte")).expect("a byte"))
                .collect()
        };
        let count = |value: &serde_json::Value| usize::try_from(value.as_u64().expect("a size")).expect("a size");
        let image = RgbImage {
            width: count(&golden["width"]),
            height: count(&golden["height"]),
            pixels: bytes(&golden["pixels"]),
        };
        assert_eq!(image.luma(), bytes(&golden["luma"]));
        for case in golden["cases"].as_array().expect("cases") {
            let filter = if case["filter"] == "bicubic" { Filter::Bicubic } else { Filter::Lanczos };
            let ours = image.resized(count(&case["width"]), count(&case["height"]), filter);
            assert_eq!(ours.pixels, bytes(&case["pixels"]), "{} {} {}", case["filter"], case["width"], case["height"]);
        }
    }
}
