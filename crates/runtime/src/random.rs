//! The randomness seam: one generator for each process, seeded by the system or by a test.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// A source of randomness that may be shared between tasks.
#[derive(Clone)]
pub struct Random(Arc<Mutex<StdRng>>);

// === impl Random ===

impl Random {
    /// A generator seeded by the operating system.
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// A generator that gives the same numbers for the same `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Any 64 bits.
    pub fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// A number in `range`, which must not be empty.
    pub fn in_range(&self, range: Range<u64>) -> u64 {
        self.0.lock().random_range(range)
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Random")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (first, second) = (Random::from_seed(7), Random::from_seed(7));
        for _ in 0..10 {
            assert_eq!(first.next_u64(), second.next_u64());
        }
    }
}
