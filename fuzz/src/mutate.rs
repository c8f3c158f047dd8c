//! Damage to a file: bytes, numbers, and pieces.

use graph::random::SplitMix;

/// Numbers at which readers break: ends of ranges, and what overflows when it is multiplied.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "2",
    "3",
    "255",
    "256",
    "65536",
    "16777217",
    "2147483648",
    "4294967295",
    "4611686018427387904",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "1e-320",
    "0.5",
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
];

/// Changes files by numbers that a seed draws.
pub(crate) struct Mutator(SplitMix);

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix(seed))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound.max(1))
    }

    /// A file with one to four changes; `other` gives pieces.
    pub(crate) fn change(&mut self, file: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = file.to_vec();
        for _ in 0..=self.below(4) {
            self.change_once(&mut bytes, other);
        }
        // Behind a wrong checksum nobody reads on.
        if self.below(4) != 0 {
            mend_checksums(&mut bytes);
        }
        bytes
    }

    fn change_once(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        // Beginnings hold what describes the rest.
        let near = bytes.len().min(if self.below(2) == 0 { 256 } else { bytes.len() });
        let at = self.below(near);
        match self.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'}'][self.below(8)],
            2 => bytes.truncate(at),
            3 => {
                let end = (at + 1 + self.below(64)).min(bytes.len());
                bytes.drain(at..end.max(at));
            }
            4 => {
                let from = self.below(other.len());
                let piece = &other[from..(from + 1 + self.below(64)).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            5 => {
                let piece = bytes[at..(at + 1 + self.below(64)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            6 if bytes.len() >= at + 8 => {
                let number = [0, 1, u64::MAX, 1 << 31, 1 << 32, 1 << 40, 1 << 62, 100_000_000][self.below(8)];
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            _ => self.change_number(bytes),
        }
    }

    /// Puts another number, or what is none, in the place of one that is written in digits.
    fn change_number(&mut self, bytes: &mut Vec<u8>) {
        let start = self.below(bytes.len());
        let Some(first) = bytes[start..].iter().take(4096).position(u8::is_ascii_digit).map(|at| start + at) else {
            return;
        };
        let digits = bytes[first..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        let number = NUMBERS[self.below(NUMBERS.len())];
        bytes.splice(first..first + digits, number.bytes());
    }
}

/// Gives the chunks of a PNG file the checksums that they should have; leaves other files alone.
fn mend_checksums(bytes: &mut [u8]) {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return;
    }
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        // The checksum is of the chunk's name and content.
        let end = at + 8 + length;
        let Some(sum) = bytes.get(at + 4..end).map(crc32fast::hash).filter(|_| end + 4 <= bytes.len()) else { return };
        bytes[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}
