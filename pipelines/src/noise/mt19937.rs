//! The Mersenne Twister MT19937: Matsumoto & Nishimura 1998, with the 2002 initialisation.

const N: usize = 624;
const M: usize = 397;

/// 32-bit words with period 2^19937 - 1.
#[derive(Debug, Clone)]
pub(super) struct Mt19937 {
    state: [u32; N],
    next: usize,
}

impl Mt19937 {
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let previous = state[i - 1];
            state[i] = (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    pub(super) fn word(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C++ standard fixes the 10,000th word of the default seed ([rand.predef]).
    #[test]
    fn ten_thousandth_word() {
        let mut engine = Mt19937::new(5489);
        let word = (0..10_000).map(|_| engine.word()).last();
        assert_eq!(word, Some(4_123_659_995));
    }
}
