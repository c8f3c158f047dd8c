//! A Brownian path in sigma, every point of which is a function of the seed: what drives the reverse SDE.
//!
//! A sampler of the SDE that takes its noise from one path draws the same picture, better and better, as its steps grow in number; with
//! fresh noise in every step, each number of steps draws another one. k-diffusion's BrownianTreeNoiseSampler does the same for a range of
//! sigmas; here the path does not depend on the range.

use super::philox::Philox;

/// Bisections of an octave. Two points of one leaf, less than 1/65536 of their sigma apart, do not see each other: their bridges are drawn
/// apart, and an increment between them has the variance of a leaf, not of its own length.
const DEPTH: u32 = 16;

/// What lies below 2^-60 is part of no step.
const LOWEST: i32 = -60;

/// W(σ) with W' white: increments over disjoint intervals are independent, with the interval's length as variance.
///
/// The positive numbers are cut into octaves, [2^k, 2^(k+1)). In each one, the path from its lower end is built by bisection (Lévy's
/// construction: the middle of an interval is the mean of its ends plus noise of a quarter of its length), and inside a leaf by one
/// Brownian bridge. Every one of these normals has its own counter.
#[derive(Debug, Clone)]
pub struct BrownianPath {
    seed: u64,
    /// The last point asked for, in its octave: mostly the next interval begins there.
    last: Option<(f64, Vec<f64>)>,
}

impl BrownianPath {
    /// The path of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, last: None }
    }

    /// (W(from) - W(to)) / √(from - to) of every element: standard normal, unless both lie in one leaf. `from` is above `to`, which is 0 or more.
    pub fn increment(&mut self, from: f64, to: f64, out: &mut [f32]) {
        let top = self.point(from, out.len());
        let bottom = self.point(to, out.len());
        let (high, low) = (octave(from), octave(to));
        let scale = (from - to).sqrt().recip();
        let rises: Vec<(u64, f64)> = (low..high).map(|k| (node(k, 1), octave_length(k).sqrt())).collect();
        for (block, chunk) in out.chunks_mut(4).enumerate() {
            // Whole octaves in between, the one of `to` among them.
            let mut between = [0.0; 4];
            for &(draw, length) in &rises {
                let normals = Philox::block(self.seed, draw, block as u64);
                between.iter_mut().zip(normals).for_each(|(sum, normal)| *sum += length * f64::from(normal));
            }
            let at = 4 * block;
            for (i, value) in chunk.iter_mut().enumerate() {
                *value = ((top[at + i] - bottom[at + i] + between[i]) * scale) as f32;
            }
        }
        self.last = Some((to, bottom));
    }

    /// W(σ) minus W at the lower end of its octave.
    fn point(&mut self, sigma: f64, len: usize) -> Vec<f64> {
        match self.last.take_if(|(known, values)| *known == sigma && values.len() == len) {
            Some((_, values)) => values,
            None => self.descend(sigma, len),
        }
    }

    fn descend(&self, sigma: f64, len: usize) -> Vec<f64> {
        let mut values = vec![0.0; len];
        if sigma <= 2.0_f64.powi(octave(sigma)) {
            return values;
        }
        // Seventeen normals an element: as much work as a small model's step.
        let threads = if len < 4096 { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
        if threads == 1 {
            bisect(self.seed, sigma, 0, &mut values);
            return values;
        }
        let piece = len.div_ceil(4 * threads) * 4;
        std::thread::scope(|scope| {
            for (i, part) in values.chunks_mut(piece.max(4)).enumerate() {
                scope.spawn(move || bisect(self.seed, sigma, i * piece / 4, part));
            }
        });
        values
    }
}

/// W(σ) minus W at the lower end of its octave, of the elements from 4·`first_block` on.
fn bisect(seed: u64, sigma: f64, first_block: usize, values: &mut [f64]) {
    let k = octave(sigma);
    for (block, chunk) in (first_block..).zip(values.chunks_mut(4)) {
        let normals = |draw: u64| Philox::block(seed, draw, block as u64).map(f64::from);
        let (mut low, mut length) = (2.0_f64.powi(k), octave_length(k));
        let mut index = 1;
        // The path at both ends of the interval.
        let mut ends = [[0.0; 4], normals(node(k, index)).map(|normal| normal * length.sqrt())];
        for _ in 0..DEPTH {
            let (left, right) = (2 * index, 2 * index + 1);
            let noise = normals(node(k, left));
            let middle = std::array::from_fn(|i| 0.5 * (ends[0][i] + ends[1][i]) + 0.5 * length.sqrt() * noise[i]);
            length *= 0.5;
            if sigma < low + length {
                (index, ends[1]) = (left, middle);
            } else {
                (index, ends[0]) = (right, middle);
                low += length;
            }
        }
        let part = (sigma - low) / length;
        let spread = (length * part * (1.0 - part)).sqrt();
        let noise = if spread > 0.0 { normals(point(sigma)) } else { [0.0; 4] };
        for (i, value) in chunk.iter_mut().enumerate() {
            *value = ends[0][i] + part * (ends[1][i] - ends[0][i]) + spread * noise[i];
        }
    }
}

/// k of the octave [2^k, 2^(k+1)) that holds this number.
fn octave(sigma: f64) -> i32 {
    // An f64's exponent, exactly.
    let exponent = (sigma.to_bits() >> 52) as i32 - 1023;
    exponent.max(LOWEST)
}

fn octave_length(k: i32) -> f64 {
    2.0_f64.powi(k)
}

/// The draw of a node of an octave's tree: node 1 is the whole octave, 2n and 2n+1 the halves of node n. (The middle of n is drawn as its
/// left half, which no other node shares.) Draws that are counted from 0 do not reach up here.
fn node(k: i32, index: u64) -> u64 {
    (1 << 62) | (((k - LOWEST) as u64) << 32) | index
}

/// The draw of a point inside a leaf.
fn point(sigma: f64) -> u64 {
    (1 << 63) | sigma.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn increment(seed: u64, from: f64, to: f64, len: usize) -> Vec<f64> {
        let mut out = vec![0.0; len];
        BrownianPath::new(seed).increment(from, to, &mut out);
        out.into_iter().map(f64::from).collect()
    }

    fn mean(values: impl Iterator<Item = f64>, n: usize) -> f64 {
        values.sum::<f64>() / n as f64
    }

    #[test]
    fn increments_are_standard_normal_and_independent() {
        let n = 40_000;
        // Within a leaf's neighbourhood, within an octave, across one, across many, and to 0.
        let intervals = [(3.0, 2.999), (2.999, 2.2), (2.2, 1.7), (1.7, 1.0), (1.0, 0.0)];
        let draws: Vec<Vec<f64>> = intervals.iter().map(|&(from, to)| increment(5, from, to, n)).collect();
        for (i, a) in draws.iter().enumerate() {
            // Five standard errors of the mean, the variance and the fourth moment.
            for (power, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (4, 3.0, 96.0)] {
                let found = mean(a.iter().map(|v| v.powi(power)), n);
                assert!((found - expected).abs() < 5.0 * f64::sqrt(variance / n as f64), "{i}: moment {power} {found}");
            }
            for (j, b) in draws[..i].iter().enumerate() {
                let covariance = mean(a.iter().zip(b).map(|(a, b)| a * b), n);
                assert!(covariance.abs() < 5.0 / f64::sqrt(n as f64), "{j} {i}: {covariance}");
            }
        }
    }

    #[test]
    fn increments_add_up_whatever_the_steps() {
        let points = [80.0, 40.0, 13.7, 1.0, 0.9999, 0.3, 0.002];
        let whole = increment(9, points[0], points[6], 33);
        let mut path = BrownianPath::new(9);
        let mut sum = vec![0.0; 33];
        for pair in points.windows(2) {
            let mut part = [0.0_f32; 33];
            path.increment(pair[0], pair[1], &mut part);
            sum.iter_mut().zip(part).for_each(|(sum, v)| *sum += (pair[0] - pair[1]).sqrt() * f64::from(v));
        }
        let scale = (points[0] - points[6]).sqrt();
        for (a, b) in whole.iter().zip(&sum) {
            assert!((a - b / scale).abs() < 1e-6, "{a} {b}");
        }
        assert_ne!(whole, increment(10, points[0], points[6], 33));
    }

    #[test]
    fn an_element_does_not_depend_on_the_size_of_its_draw() {
        assert_eq!(increment(1, 7.0, 0.9, 11), increment(1, 7.0, 0.9, 9001)[..11]);
    }

    #[test]
    fn octaves_are_exact() {
        for (sigma, k) in [(1.0, 0), (1.999, 0), (2.0, 1), (0.5, -1), (0.49, -2), (80.0, 6), (0.0, LOWEST), (1e10, 33)]
        {
            assert_eq!(octave(sigma), k, "{sigma}");
        }
    }
}
