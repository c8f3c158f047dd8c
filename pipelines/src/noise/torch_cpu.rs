//! `torch.randn` of f32 on PyTorch's CPU generator.
//!
//! Equal to PyTorch to a few units in the last place: PyTorch's own logarithm, sine and cosine differ that much between its builds
//! for different processors.

use super::Noise;
use super::mt19937::Mt19937;

/// MT19937 seeded with the low 32 bits; Box-Muller in two ways, depending on the size of the tensor.
#[derive(Debug, Clone)]
pub struct TorchCpu {
    engine: Mt19937,
    /// Second half of a pair of a small tensor, which PyTorch's generator keeps for the next small tensor.
    spare: Option<f64>,
}

impl TorchCpu {
    /// What `torch.Generator().manual_seed(seed)` gives.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed as u32), spare: None }
    }

    /// 24 random bits in 0..1, the f32 uniform of PyTorch.
    fn uniform_f32(&mut self) -> f32 {
        (self.engine.word() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// 53 random bits in 0..1; the first word is the high one.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.engine.word());
        let low = u64::from(self.engine.word());
        (((high << 32) | low) & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }

    fn small(&mut self, out: &mut [f32]) {
        for value in out {
            *value = match self.spare.take() {
                Some(spare) => spare,
                None => {
                    let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
                    let radius = (-2.0 * (-u2).ln_1p()).sqrt();
                    let (sin, cos) = (std::f64::consts::TAU * u1).sin_cos();
                    self.spare = Some(radius * sin);
                    radius * cos
                }
            } as f32;
        }
    }

    fn sixteen(block: &mut [f32]) {
        for j in 0..8 {
            let u1 = 1.0 - block[j];
            let u2 = block[j + 8];
            let radius = (-2.0 * (f64::from(u1).ln() as f32)).sqrt();
            // The angle is rounded to f32 before its sine is taken.
            let theta = f64::from(std::f32::consts::TAU * u2);
            block[j] = radius * theta.cos() as f32;
            block[j + 8] = radius * theta.sin() as f32;
        }
    }
}

impl Noise for TorchCpu {
    fn fill(&mut self, out: &mut [f32]) {
        let n = out.len();
        if n < 16 {
            return self.small(out);
        }
        for value in &mut *out {
            *value = self.uniform_f32();
        }
        let (blocks, rest) = out.as_chunks_mut::<16>();
        let ragged = !rest.is_empty();
        blocks.iter_mut().for_each(|block| Self::sixteen(block));
        if ragged {
            // The last 16 numbers are drawn anew, whatever they were.
            let tail = &mut out[n - 16..];
            for value in &mut *tail {
                *value = self.uniform_f32();
            }
            Self::sixteen(tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `noise/goldens.json`, made by `noise/make_goldens.py` from PyTorch.
    #[test]
    fn equals_pytorch() {
        let goldens: serde_json::Value = serde_json::from_str(include_str!("goldens.json")).unwrap();
        let cases = goldens.as_array().unwrap();
        assert!(cases.len() >= 20);
        let mut worst = 0.0_f64;
        for case in cases {
            let seed = case["seed"].as_u64().unwrap();
            let mut stream = TorchCpu::new(seed);
            for (i, draw) in case["draws"].as_array().unwrap().iter().enumerate() {
                let n = draw["n"].as_u64().unwrap() as usize;
                let mut out = vec![0.0_f32; n];
                stream.fill(&mut out);
                let first = draw["first"].as_array().unwrap();
                let last = draw["last"].as_array().unwrap();
                let ours = out[..first.len()].iter().chain(&out[n - last.len()..]);
                for (j, (ours, theirs)) in ours.zip(first.iter().chain(last)).enumerate() {
                    let theirs = theirs.as_f64().unwrap();
                    let error = (f64::from(*ours) - theirs).abs();
                    worst = worst.max(error);
                    // Radius up to 5.8 times the f32 error of PyTorch's sine (2 units in the last place of 1).
                    assert!(error < 1.5e-6, "seed {seed} draw {i} (n = {n}) value {j}: {ours} is not {theirs}");
                }
            }
        }
        println!("largest difference {worst:e}");
    }
}
