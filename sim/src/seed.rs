//! One seed for everything: each user of randomness gets its own seed, derived from it.

use basalt_runtime::Random;

/// The seed that determines a whole simulation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seed(pub u64);

// === impl Seed ===

impl Seed {
    /// The randomness of `part` in its `life`th life. It is independent of all other parts and
    /// lives.
    pub fn random_for(self, part: &str, life: u64) -> Random {
        let mut digest = Digest::default();
        digest.add(&self.0.to_le_bytes());
        digest.add(part.as_bytes());
        digest.add(&life.to_le_bytes());
        Random::from_seed(digest.0)
    }
}

/// A running digest (FNV-1a). Equal bytes have equal digests; other bytes have them only by chance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest(pub u64);

// === impl Digest ===

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Adds `bytes` to the digest.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_and_each_life_draws_its_own_numbers() {
        let draw = |seed, part, life| Seed(seed).random_for(part, life).next_u64();
        let first = draw(1, "master-0", 1);
        assert_eq!(first, draw(1, "master-0", 1));
        for other in [draw(2, "master-0", 1), draw(1, "master-1", 1), draw(1, "master-0", 2)] {
            assert_ne!(first, other);
        }
    }
}
