//! What a job is called, and what follows from that: its share, its seed where it says none, the names of its files.

use super::super::super::output::slug;
use sha2::{Digest as _, Sha256};

/// Bytes of an id.
const MOST: usize = 512;

/// A job's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    text: String,
    hash: [u8; 32],
}

/// What tells ids apart in memory.
pub(super) type Key = [u8; 16];

impl Id {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MOST {
            return Err(format!("its id must have 1 to {MOST} bytes"));
        }
        Ok(Self { text: text.to_owned(), hash: Sha256::digest(text).into() })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn key(&self) -> Key {
        std::array::from_fn(|at| self.hash[at])
    }

    /// The seed of a job that has none: the first four bytes of the id's SHA-256, which any language computes in a line. Other tools that read
    /// a picture's seed keep 32 bits.
    pub(super) fn seed(&self) -> u64 {
        self.hash[..4].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
    }

    /// Which share it falls to, by eight further bytes.
    pub(super) fn place(&self) -> u64 {
        self.hash[8..16].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
    }

    /// The name of its file without an ending: the id itself where that is a plain name. No two ids have the same: `+` is in no plain name. It has
    /// no dot, at which WebDataset would end it.
    pub(super) fn stem(&self) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.text.len() <= 80 && !self.text.starts_with('-') && self.text.chars().all(is_plain) {
            return self.text.clone();
        }
        let hash: String = self.hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let readable: String = slug(&self.text).chars().filter(char::is_ascii).collect();
        format!("{readable}+{hash}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Python has them: `hashlib.sha256(b"a").digest()`, `int.from_bytes(d[:4], "big")`, `int.from_bytes(d[8:16], "big")`.
    #[test]
    fn seeds_and_shares_follow_from_the_hash() {
        for (text, seed, place) in [
            ("a", 3_398_926_610, 18_069_059_302_418_799_693),
            ("row-17", 3_428_241_434, 1_032_929_569_131_137_141),
            ("红心", 1_004_367_589, 10_427_516_882_873_942_430),
        ] {
            let id = Id::new(text).expect("an id");
            assert_eq!((id.seed(), id.place()), (seed, place), "{text}");
        }
    }

    #[test]
    fn every_id_has_a_name_of_its_own() {
        for (text, name) in [("a-1_B", "a-1_B"), ("0001", "0001")] {
            assert_eq!(Id::new(text).expect("an id").stem(), name);
        }
        let odd = ["../x", "x/y", "x.y", "x+1", "-x", "a b", "红心", &"x".repeat(81)];
        let mut names: Vec<String> = odd.iter().map(|text| Id::new(text).expect("an id").stem()).collect();
        for name in &names {
            assert!(
                name.is_ascii() && name.len() < 90 && name.contains('+') && !name.contains(['.', '/', ' ']),
                "{name}"
            );
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), odd.len());
        assert!(Id::new("").is_err() && Id::new(&"x".repeat(513)).is_err());
    }
}
