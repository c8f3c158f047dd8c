//! Resolution binning: PixArt was trained on pictures of some sizes, and diffusers makes the nearest of them, then fits it to what was asked.

use crate::conditioning::SampleShape;

/// (height over width, height, width), in pixels.
type Bin = (f64, usize, usize);

/// The bins of a model that was trained on samples of this side; `None` for other sides, which diffusers refuses to bin.
fn bins(sample_size: usize) -> Option<&'static [Bin]> {
    match sample_size {
        32 => Some(BINS_256),
        64 => Some(BINS_512),
        128 => Some(BINS_1024),
        256 => Some(BINS_2048),
        _ => None,
    }
}

/// (height, width) of the bin whose ratio is nearest, diffusers' `classify_height_width_bin`.
pub(crate) fn nearest(sample_size: usize, height: usize, width: usize) -> Option<(usize, usize)> {
    let ratio = height as f64 / width.max(1) as f64;
    let distance = |bin: &Bin| (bin.0 - ratio).abs();
    bins(sample_size)?.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).map(|bin| (bin.1, bin.2))
}

/// A picture `[H, W, C]` enlarged or reduced until it covers the size, and cut at its centre: diffusers' `resize_and_crop_tensor`, which
/// interpolates linearly between pixel centres, without a filter where it reduces.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positions inside the picture")]
pub(crate) fn cover(picture: &[f32], shape: SampleShape, height: usize, width: usize) -> (Vec<f32>, SampleShape) {
    if (shape.height, shape.width) == (height, width) {
        return (picture.to_vec(), shape);
    }
    let ratio = (height as f64 / shape.height as f64).max(width as f64 / shape.width as f64);
    // diffusers rounds down, and a ratio that is not exact may then lose a row that the cut needs.
    let resized = |extent: usize, wanted: usize| ((extent as f64 * ratio) as usize).max(wanted);
    let axis = |extent: usize, wanted: usize| -> Vec<(usize, usize, f32)> {
        let resized = resized(extent, wanted);
        let (scale, start) = (extent as f32 / resized as f32, (resized - wanted) / 2);
        let place = |i: usize| (scale * ((start + i) as f32 + 0.5) - 0.5).max(0.0);
        let at = |place: f32| (place as usize, (place as usize + 1).min(extent - 1), place - place.floor());
        (0..wanted).map(|i| at(place(i))).collect()
    };
    let (rows, columns) = (axis(shape.height, height), axis(shape.width, width));
    let pixel = |row: usize, column: usize, c: usize| picture[(row * shape.width + column) * shape.channels + c];
    let mut out = Vec::with_capacity(height * width * shape.channels);
    for (top, bottom, down) in rows {
        for (left, right, across) in &columns {
            for c in 0..shape.channels {
                let between = |row: usize| (1.0 - across) * pixel(row, *left, c) + across * pixel(row, *right, c);
                out.push((1.0 - down) * between(top) + down * between(bottom));
            }
        }
    }
    (out, SampleShape { height, width, ..shape })
}

#[rustfmt::skip]
const BINS_256: &[Bin] = &[
    (0.25, 128, 512), (0.28, 128, 464), (0.32, 144, 448), (0.33, 144, 432), (0.35, 144, 416), (0.4, 160, 400),
    (0.42, 160, 384), (0.48, 176, 368), (0.5, 176, 352), (0.52, 176, 336), (0.57, 192, 336), (0.6, 192, 320),
    (0.68, 208, 304), (0.72, 208, 288), (0.78, 224, 288), (0.82, 224, 272), (0.88, 240, 272), (0.94, 240, 256),
    (1.0, 256, 256), (1.07, 256, 240), (1.13, 272, 240), (1.21, 272, 224), (1.29, 288, 224), (1.38, 288, 208),
    (1.46, 304, 208), (1.67, 320, 192), (1.75, 336, 192), (2.0, 352, 176), (2.09, 368, 176), (2.4, 384, 160),
    (2.5, 400, 160), (3.0, 432, 144), (4.0, 512, 128),
];

#[rustfmt::skip]
const BINS_512: &[Bin] = &[
    (0.25, 256, 1024), (0.28, 256, 928), (0.32, 288, 896), (0.33, 288, 864), (0.35, 288, 832), (0.4, 320, 800),
    (0.42, 320, 768), (0.48, 352, 736), (0.5, 352, 704), (0.52, 352, 672), (0.57, 384, 672), (0.6, 384, 640),
    (0.68, 416, 608), (0.72, 416, 576), (0.78, 448, 576), (0.82, 448, 544), (0.88, 480, 544), (0.94, 480, 512),
    (1.0, 512, 512), (1.07, 512, 480), (1.13, 544, 480), (1.21, 544, 448), (1.29, 576, 448), (1.38, 576, 416),
    (1.46, 608, 416), (1.67, 640, 384), (1.75, 672, 384), (2.0, 704, 352), (2.09, 736, 352), (2.4, 768, 320),
    (2.5, 800, 320), (3.0, 864, 288), (4.0, 1024, 256),
];

#[rustfmt::skip]
const BINS_1024: &[Bin] = &[
    (0.25, 512, 2048), (0.28, 512, 1856), (0.32, 576, 1792), (0.33, 576, 1728), (0.35, 576, 1664), (0.4, 640, 1600),
    (0.42, 640, 1536), (0.48, 704, 1472), (0.5, 704, 1408), (0.52, 704, 1344), (0.57, 768, 1344), (0.6, 768, 1280),
    (0.68, 832, 1216), (0.72, 832, 1152), (0.78, 896, 1152), (0.82, 896, 1088), (0.88, 960, 1088), (0.94, 960, 1024),
    (1.0, 1024, 1024), (1.07, 1024, 960), (1.13, 1088, 960), (1.21, 1088, 896), (1.29, 1152, 896), (1.38, 1152, 832),
    (1.46, 1216, 832), (1.67, 1280, 768), (1.75, 1344, 768), (2.0, 1408, 704), (2.09, 1472, 704), (2.4, 1536, 640),
    (2.5, 1600, 640), (3.0, 1728, 576), (4.0, 2048, 512),
];

#[rustfmt::skip]
const BINS_2048: &[Bin] = &[
    (0.25, 1024, 4096), (0.26, 1024, 3968), (0.27, 1024, 3840), (0.28, 1024, 3712), (0.32, 1152, 3584),
    (0.33, 1152, 3456), (0.35, 1152, 3328), (0.4, 1280, 3200), (0.42, 1280, 3072), (0.48, 1408, 2944),
    (0.5, 1408, 2816), (0.52, 1408, 2688), (0.57, 1536, 2688), (0.6, 1536, 2560), (0.68, 1664, 2432),
    (0.72, 1664, 2304), (0.78, 1792, 2304), (0.82, 1792, 2176), (0.88, 1920, 2176), (0.94, 1920, 2048),
    (1.0, 2048, 2048), (1.07, 2048, 1920), (1.13, 2176, 1920), (1.21, 2176, 1792), (1.29, 2304, 1792),
    (1.38, 2304, 1664), (1.46, 2432, 1664), (1.67, 2560, 1536), (1.75, 2688, 1536), (2.0, 2816, 1408),
    (2.09, 2944, 1408), (2.4, 3072, 1280), (2.5, 3200, 1280), (2.89, 3328, 1152), (3.0, 3456, 1152),
    (3.11, 3584, 1152), (3.62, 3712, 1024), (3.75, 3840, 1024), (3.88, 3968, 1024), (4.0, 4096, 1024),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_ratio_is_taken() {
        assert_eq!(nearest(32, 64, 64), Some((256, 256)));
        assert_eq!(nearest(64, 512, 768), Some((416, 608)));
        assert_eq!(nearest(128, 1, 1000), Some((512, 2048)));
        assert_eq!(nearest(128, 1080, 1920), Some((768, 1344)));
        assert_eq!(nearest(16, 64, 64), None);
    }

    #[test]
    fn a_ramp_stays_a_ramp() {
        let shape = SampleShape { height: 4, width: 8, channels: 1 };
        let ramp: Vec<f32> = (0..32).map(|i| (i % 8) as f32).collect();
        let (same, _) = cover(&ramp, shape, 4, 8);
        assert_eq!(same, ramp);
        // Twice as high, so twice as wide and cut to the middle half.
        let (larger, shape) = cover(&ramp, shape, 8, 8);
        assert_eq!((shape.height, shape.width), (8, 8));
        assert_eq!(larger[..8], [1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5.25]);
    }
}
