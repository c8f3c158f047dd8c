//! Philox4x32-10: Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3; and our default noise from it.

use super::{BrownianPath, Noise};

/// Ten rounds over a 128-bit counter with a 64-bit key: a bijection of the counter that passes for random.
pub(super) fn philox4x32_10(mut counter: [u32; 4], seed: u64) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

/// Our default: element e of draw d of a seed is one of the four normals of the counter (e / 4, d).
#[derive(Debug, Clone)]
pub struct Philox {
    seed: u64,
    draw: u64,
    path: BrownianPath,
}

impl Philox {
    /// Starts at draw 0.
    pub fn new(seed: u64) -> Self {
        Self { seed, draw: 0, path: BrownianPath::new(seed) }
    }

    /// Elements 4·`block` to 4·`block` + 3 of a draw.
    ///
    /// Box-Muller on 24-bit uniforms, which an f32 holds exactly: a shader can do the same.
    pub fn block(seed: u64, draw: u64, block: u64) -> [f32; 4] {
        let counter = [block as u32, (block >> 32) as u32, draw as u32, (draw >> 32) as u32];
        let words = philox4x32_10(counter, seed);
        let mut normals = [0.0; 4];
        for pair in 0..2 {
            // In (0, 1]: the logarithm is finite.
            let u1 = f64::from((words[2 * pair] >> 8) + 1) / 16_777_216.0;
            let u2 = f64::from(words[2 * pair + 1] >> 8) / 16_777_216.0;
            let radius = (-2.0 * u1.ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * u2).sin_cos();
            normals[2 * pair] = (radius * cos) as f32;
            normals[2 * pair + 1] = (radius * sin) as f32;
        }
        normals
    }
}

impl Noise for Philox {
    fn fill(&mut self, out: &mut [f32]) {
        for (block, chunk) in out.chunks_mut(4).enumerate() {
            let normals = Self::block(self.seed, self.draw, block as u64);
            chunk.copy_from_slice(&normals[..chunk.len()]);
        }
        self.draw += 1;
    }

    fn fill_between(&mut self, (from, to): (f64, f64), out: &mut [f32]) {
        self.path.increment(from, to, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers published with the paper's library (Random123, kat_vectors).
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], 0, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], u64::MAX, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                0x299f_31d0_a409_3822,
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn an_element_does_not_depend_on_the_size_of_its_draw() {
        let (mut short, mut long) = ([0.0; 7], [0.0; 40]);
        Philox::new(3).fill(&mut short);
        Philox::new(3).fill(&mut long);
        assert_eq!(short, long[..7]);
        assert_eq!(long[8..12], Philox::block(3, 0, 2));
        // Seeds above 2^32 are seeds of their own.
        assert_ne!(Philox::block(3, 0, 0), Philox::block(3 + (1 << 32), 0, 0));
        assert_ne!(Philox::block(3, 0, 0), Philox::block(3, 1, 0));
    }
}
