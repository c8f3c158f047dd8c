//! Weights in eight bits: ggml's `q8_0`, of which llama.cpp's and stable-diffusion.cpp's files are made too.
//!
//! 32 neighbours of a row are a block: whole numbers from −127 to 127 and one scale in half precision, 34 bytes for what takes
//! 64 in half precision. A value is its whole number times the scale, so it is off by half of the scale at most, and the
//! scale is the block's largest magnitude divided by 127.

use half::f16;

/// Values of one block.
pub const BLOCK: usize = 32;

/// Bytes of one block: the scale, little-endian, then the whole numbers.
pub const BLOCK_BYTES: usize = 2 + BLOCK;

/// One block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// What a whole number is multiplied by.
    pub scale: f16,
    /// From −127 to 127.
    pub quants: [i8; BLOCK],
}

impl Block {
    /// Rounds 32 finite values to a block, as `quantize_row_q8_0_ref` in ggml-quants.c does: halves away from zero, by the
    /// scale before it is itself rounded to half precision. None when the scale is beyond half precision, which is where
    /// a magnitude is above eight million.
    #[must_use]
    pub fn quantize(values: &[f32; BLOCK]) -> Option<Block> {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let rounded = f16::from_f32(scale);
        let quants = values.map(|value| nearest(value * inverse));
        rounded.is_finite().then_some(Block { scale: rounded, quants })
    }

    /// The 32 values that it stands for.
    #[must_use]
    pub fn values(&self) -> [f32; BLOCK] {
        let scale = self.scale.to_f32();
        self.quants.map(|quant| f32::from(quant) * scale)
    }

    /// As files of ggml have it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        let (scale, quants) = bytes.split_at_mut(2);
        scale.copy_from_slice(&self.scale.to_le_bytes());
        for (byte, quant) in quants.iter_mut().zip(self.quants) {
            *byte = quant.to_le_bytes()[0];
        }
        bytes
    }

    /// The inverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: &[u8; BLOCK_BYTES]) -> Block {
        let scale = f16::from_le_bytes([bytes[0], bytes[1]]);
        Block { scale, quants: std::array::from_fn(|i| i8::from_le_bytes([bytes[2 + i]])) }
    }
}

/// The whole number next to one between −127 and 127, halves away from zero. `f32::round` is a call for each number on processors that
/// have no instruction for it; here the cast cuts off what is behind the point, and what is added is the largest single below a half, so
/// that nothing below a half is rounded up.
#[allow(clippy::cast_possible_truncation, reason = "it is between −127 and 127")]
fn nearest(value: f32) -> i8 {
    (value + 0.5f32.next_down().copysign(value)) as i8
}

/// Whether rows of so many values are whole blocks. Weights with other rows stay in half precision, as in llama.cpp.
#[must_use]
pub fn fits(row: usize) -> bool {
    row > 0 && row.is_multiple_of(BLOCK)
}

/// Whole rows of finite values as blocks; none when a value is too large ([`Block::quantize`]).
///
/// # Panics
/// When there is another number of values than of whole blocks.
#[must_use]
pub fn quantize(values: &[f32]) -> Option<Vec<Block>> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(rest.is_empty(), "{} values are not whole blocks of {BLOCK}", values.len());
    blocks.iter().map(Block::quantize).collect()
}

/// The values that blocks stand for.
#[must_use]
pub fn values(blocks: &[Block]) -> Vec<f32> {
    blocks.iter().flat_map(Block::values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that Python computes alike: exact in single precision.
    fn sample(block: usize) -> [f32; BLOCK] {
        let exact = |i: usize| f32::from(u16::try_from((i * 37 + block * 101) % 257).expect("small")) - 128.0;
        std::array::from_fn(|i| exact(i) * [0.25, 3.0, 1024.0, 0.000_976_562_5][block])
    }

    /// FNV-1a of each block's bytes, by `gguf.quants.quantize(values, GGMLQuantizationType.Q8_0)` of PyPI's gguf 0.19.
    const GGUF: [u64; 4] = [0x2b4a_58ee_ba4c_5fed, 0xdf4a_e7e3_52ea_23bf, 0x6024_f1dd_d327_80ff, 0xaf11_591e_a848_2e17];

    #[test]
    fn blocks_are_ggml_s_byte_for_byte() {
        let fnv = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
        };
        for (i, wanted) in GGUF.into_iter().enumerate() {
            let bytes = Block::quantize(&sample(i)).expect("it is small").to_bytes();
            assert_eq!(fnv(&bytes), wanted, "block {i}: {bytes:?}");
            assert_eq!(Block::from_bytes(&bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn a_value_is_off_by_half_of_the_scale_at_most() {
        for i in 0..4 {
            let (sample, block) = (sample(i), Block::quantize(&sample(i)).expect("it is small"));
            // The scale is itself rounded, by 2⁻¹¹ of it, and is multiplied by up to 127.
            let most = block.scale.to_f32() * (0.5 + 127.0 / 2048.0);
            for (value, back) in sample.iter().zip(block.values()) {
                assert!((value - back).abs() <= most, "block {i}: {value} became {back}");
            }
        }
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        // A scale of one, so that values are what is rounded.
        let mut values = [0.0; BLOCK];
        values[..5].copy_from_slice(&[127.0, 0.5, -0.5, 2.5, -2.5]);
        let block = Block::quantize(&values).expect("it is small");
        assert_eq!(block.quants[..5], [127, 1, -1, 3, -3]);
    }

    #[test]
    fn nearest_is_what_the_standard_library_rounds_to() {
        for half in -254i16..=254 {
            let half = f32::from(half) / 2.0;
            for value in [half.next_down().next_down(), half.next_down(), half, half.next_up(), half + 0.25, half + 0.1]
            {
                assert_eq!(f32::from(nearest(value)), value.round().clamp(-127.0, 127.0), "{value}");
            }
        }
    }

    #[test]
    fn nothing_and_too_much() {
        assert_eq!(Block::quantize(&[0.0; BLOCK]).expect("zeros are small").values(), [0.0; BLOCK]);
        assert_eq!(quantize(&[0.0; 64]).map(|blocks| values(&blocks)), Some(vec![0.0; 64]));
        let mut large = [0.0; BLOCK];
        large[7] = 8.4e6;
        assert_eq!(Block::quantize(&large), None);
        assert!(fits(64) && !fits(36) && !fits(0));
    }
}
