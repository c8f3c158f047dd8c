//! `torch.randn` of f32 on PyTorch's CUDA generator.
//!
//! One thread per element, so element e uses the subsequence e of cuRAND's Philox and every call moves the offset on by one. Tensors with
//! more elements than a card has resident threads (43,008 on the smallest of the RTX 30 series, 221,184 on an A100) are
//! filled with a stride that depends on the card; here they are filled as if the card were large enough.

use super::Noise;
use super::philox::philox4x32_10;

/// cuRAND's Philox4x32-10 and Box-Muller as PyTorch's kernel calls them.
#[derive(Debug, Clone)]
pub struct TorchCuda {
    seed: u64,
    offset: u64,
}

impl TorchCuda {
    /// What `torch.Generator("cuda").manual_seed(seed)` gives.
    pub fn new(seed: u64) -> Self {
        Self { seed, offset: 0 }
    }
}

impl Noise for TorchCuda {
    fn fill(&mut self, out: &mut [f32]) {
        // cuRAND's constant 2^-32 times an f32 2π, as f32.
        const STEP: f32 = 1.0 / 4_294_967_296.0;
        const ANGLE: f32 = STEP * std::f32::consts::TAU;
        for (element, value) in out.iter_mut().enumerate() {
            let element = element as u64;
            let counter = [self.offset as u32, (self.offset >> 32) as u32, element as u32, (element >> 32) as u32];
            let words = philox4x32_10(counter, self.seed);
            // Words become f32 first; half a step keeps the logarithm finite.
            let u = (words[0] as f32).mul_add(STEP, STEP / 2.0);
            let angle = (words[1] as f32).mul_add(ANGLE, ANGLE / 2.0);
            let radius = (-2.0 * (f64::from(u).ln() as f32)).sqrt();
            // Of the pair, PyTorch keeps the sine's half.
            *value = radius * f64::from(angle).sin() as f32;
        }
        self.offset += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first values of `torch.randn(..., device="cuda")` after `manual_seed(0)`, as they are widely published.
    #[test]
    fn equals_published_values() {
        let mut out = [0.0; 8];
        TorchCuda::new(0).fill(&mut out);
        for (ours, theirs) in out.iter().zip([-0.92466, -0.42534, -2.64384, 0.14518]) {
            assert!((ours - theirs).abs() < 6e-6, "{ours} is not {theirs}");
        }
    }
}
