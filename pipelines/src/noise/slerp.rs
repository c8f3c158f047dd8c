//! Noise between two seeds.

use super::Noise;

/// Every draw lies on the great circle from one stream's to another's (Shoemake 1985, *Animating Rotation with Quaternion Curves*).
///
/// A weighted mean of two draws would be shorter than a draw is, and a denoiser would take it for less noise.
pub(crate) struct Slerp {
    from: Box<dyn Noise>,
    to: Box<dyn Noise>,
    share: f64,
}

impl Slerp {
    /// At `share` 0 the draws are `from`'s, at 1 `to`'s.
    pub(crate) fn new(from: Box<dyn Noise>, to: Box<dyn Noise>, share: f64) -> Self {
        Self { from, to, share }
    }

    fn mix(&mut self, out: &mut [f32], mut fill: impl FnMut(&mut dyn Noise, &mut [f32])) {
        let mut other = vec![0.0; out.len()];
        fill(self.from.as_mut(), out);
        fill(self.to.as_mut(), &mut other);
        mix(out, &other, self.share);
    }
}

impl Noise for Slerp {
    fn fill(&mut self, out: &mut [f32]) {
        self.mix(out, |noise, out| noise.fill(out));
    }

    fn fill_between(&mut self, interval: (f64, f64), out: &mut [f32]) {
        self.mix(out, |noise, out| noise.fill_between(interval, out));
    }
}

/// The point at `share` of the way from one noise to another along the great circle through both (Shoemake 1985), in place of the first.
/// Of what one has more numbers than the other, the rest stays as it is.
pub fn mix(from: &mut [f32], to: &[f32], share: f64) {
    let [a, b] = weights(from, to, share);
    for (from, to) in from.iter_mut().zip(to) {
        #[allow(clippy::cast_possible_truncation, reason = "samples are f32")]
        let mixed = (a * f64::from(*from) + b * f64::from(*to)) as f32;
        *from = mixed;
    }
}

/// sin((1 − t)θ)/sin θ and sin(tθ)/sin θ for the angle θ between the two.
fn weights(from: &[f32], to: &[f32], share: f64) -> [f64; 2] {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(from, from) * dot(to, to)).sqrt();
    let angle = if lengths > 0.0 { (dot(from, to) / lengths).clamp(-1.0, 1.0).acos() } else { 0.0 };
    // Draws in one direction, or in opposite ones, have no great circle of their own: a straight line will do.
    if angle.sin() < 1e-6 {
        return [1.0 - share, share];
    }
    [((1.0 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Rng;

    fn draw(share: f64) -> Vec<f32> {
        let mut out = vec![0.0; 4096];
        Slerp::new(Rng::Philox.stream(1), Rng::Philox.stream(2), share).fill(&mut out);
        out
    }

    #[test]
    fn the_ends_are_the_seeds_and_the_way_is_as_long_as_noise() {
        let (mut one, mut two) = (vec![0.0; 4096], vec![0.0; 4096]);
        Rng::Philox.stream(1).fill(&mut one);
        Rng::Philox.stream(2).fill(&mut two);
        assert_eq!(draw(0.0), one);
        assert_eq!(draw(1.0), two);
        for share in [0.25, 0.5, 0.75] {
            let mean_square = draw(share).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 4096.0;
            assert!((mean_square - 1.0).abs() < 0.1, "{share}: {mean_square}");
        }
    }
}
