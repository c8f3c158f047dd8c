//! How far apart two samples or two pictures are.

use pipelines::RgbImage;

/// Root mean square of the differences, in the sample's own units: of pictures, the range of a channel is 2.
#[must_use]
pub fn rms(a: &[f32], b: &[f32]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (squares / a.len().max(1) as f64).sqrt()
}

/// Peak signal-to-noise ratio in decibels: 10 log₁₀(255² / mean square error); none of two equal pictures (it is infinite), or of two sizes.
#[must_use]
pub fn psnr(a: &RgbImage, b: &RgbImage) -> Option<f64> {
    if (a.width, a.height) != (b.width, b.height) {
        return None;
    }
    let squares: f64 = a.pixels.iter().zip(&b.pixels).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    let mean = squares / a.pixels.len().max(1) as f64;
    (mean > 0.0).then(|| 10.0 * (255.0 * 255.0 / mean).log10())
}

/// Side of the window of SSIM, and its standard deviation: Wang et al. 2004, section III-B.
const WINDOW: usize = 11;
const DEVIATION: f64 = 1.5;

/// Structural similarity (Wang et al. 2004, equation 13, averaged over all places where the window fits): 1 of equal pictures. Of luma, by a Gaussian
/// window of 11x11; none of pictures of two sizes, or smaller than the window.
#[must_use]
pub fn ssim(a: &RgbImage, b: &RgbImage) -> Option<f64> {
    if (a.width, a.height) != (b.width, b.height) || a.width.min(a.height) < WINDOW {
        return None;
    }
    let (width, height) = (a.width, a.height);
    let (a, b) = (luma(a), luma(b));
    let blurred = |value: &dyn Fn(usize) -> f64| blur(&(0..width * height).map(value).collect::<Vec<_>>(), width);
    let (mean_a, mean_b) = (blurred(&|i| a[i]), blurred(&|i| b[i]));
    let (square_a, square_b) = (blurred(&|i| a[i] * a[i]), blurred(&|i| b[i] * b[i]));
    let product = blurred(&|i| a[i] * b[i]);
    let (c_1, c_2) = ((0.01_f64 * 255.0).powi(2), (0.03_f64 * 255.0).powi(2));
    let one = |i: usize| {
        let (m_a, m_b) = (mean_a[i], mean_b[i]);
        let (v_a, v_b, covariance) = (square_a[i] - m_a * m_a, square_b[i] - m_b * m_b, product[i] - m_a * m_b);
        (2.0 * m_a * m_b + c_1) * (2.0 * covariance + c_2) / ((m_a * m_a + m_b * m_b + c_1) * (v_a + v_b + c_2))
    };
    Some((0..mean_a.len()).map(one).sum::<f64>() / mean_a.len() as f64)
}

/// ITU-R BT.601.
fn luma(image: &RgbImage) -> Vec<f64> {
    let grey = |p: &[u8]| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]);
    image.pixels.chunks_exact(3).map(grey).collect()
}

/// The Gaussian mean around every place where the window fits.
fn blur(values: &[f64], width: usize) -> Vec<f64> {
    let weight = |i: usize| (-0.5 * ((i as f64 - (WINDOW / 2) as f64) / DEVIATION).powi(2)).exp();
    let total: f64 = (0..WINDOW).map(weight).sum();
    let weights: Vec<f64> = (0..WINDOW).map(|i| weight(i) / total).collect();
    let inner = width + 1 - WINDOW;
    let along = |row: &[f64]| -> Vec<f64> {
        (0..inner).map(|x| weights.iter().zip(&row[x..]).map(|(w, v)| w * v).sum()).collect()
    };
    let rows: Vec<Vec<f64>> = values.chunks_exact(width).map(along).collect();
    let down = |y: usize, x: usize| -> f64 { weights.iter().zip(&rows[y..]).map(|(w, row)| w * row[x]).sum() };
    (0..rows.len() + 1 - WINDOW).flat_map(|y| (0..inner).map(move |x| (y, x))).map(|(y, x)| down(y, x)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(value: impl Fn(usize, usize) -> u8) -> RgbImage {
        let pixels = (0..16 * 16).flat_map(|i| [value(i % 16, i / 16); 3]).collect();
        RgbImage { width: 16, height: 16, pixels }
    }

    #[test]
    fn equal_pictures_are_alike_and_small_differences_count_little() {
        let wave = picture(|x, y| (128.0 + 60.0 * (x as f64 / 2.0).sin() + 40.0 * (y as f64 / 3.0).cos()) as u8);
        assert!(psnr(&wave, &wave).is_none());
        assert!((ssim(&wave, &wave).expect("one size") - 1.0).abs() < 1e-12);
        let brighter = RgbImage { pixels: wave.pixels.iter().map(|v| v + 10).collect(), ..wave.clone() };
        // 10 log10(255² / 10²).
        assert!((psnr(&wave, &brighter).expect("different") - 28.1308).abs() < 1e-3);
        let flat = picture(|_, _| 128);
        let (near, far) = (ssim(&wave, &brighter).expect("one size"), ssim(&wave, &flat).expect("one size"));
        assert!(near > 0.95 && far < 0.2, "{near} {far}");
        let other = RgbImage { width: 8, height: 32, ..wave.clone() };
        assert!(ssim(&wave, &other).is_none() && psnr(&wave, &other).is_none());
    }

    /// The formula, of two constant pictures: only the means count.
    #[test]
    fn ssim_of_constants() {
        let (a, b): (f64, f64) = (100.0, 150.0);
        let c_1 = (0.01_f64 * 255.0).powi(2);
        let exact = (2.0 * a * b + c_1) / (a * a + b * b + c_1);
        let found = ssim(&picture(|_, _| 100), &picture(|_, _| 150)).expect("one size");
        assert!((found - exact).abs() < 1e-9, "{found} {exact}");
    }
}
