//! The randomness seam: one generator per process, seeded by the operating system or by a test.

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

    /// A generator that returns the same numbers for the same `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A random 64-bit number.
    pub fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// A random number in `range`, which must not be empty.
    pub fn in_range(&self, range: Range<u64>) -> u64 {
        self.0.lock().random_range(range)
    }

    /// A random one of `choices`; `None` if there are none.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> Option<&'a T> {
        let place = self.in_range(0..(choices.len() as u64).max(1));
        choices.get(usize::try_from(place).ok()?)
    }

    /// Shuffles `items`.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let place = self.in_range(0..last as u64 + 1);
            items.swap(last, usize::try_from(place).unwrap_or(last));
        }
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

    #[test]
    fn every_choice_has_its_turn_and_a_shuffle_keeps_all_items() {
        let random = Random::from_seed(7);
        assert_eq!(random.pick::<u8>(&[]), None);
        let mut items = [0, 1, 2, 3];
        for wanted in 0..4 {
            assert!((0..100).any(|_| random.pick(&[0, 1, 2, 3]) == Some(&wanted)));
            let comes_first = (0..100).any(|_| {
                random.shuffle(&mut items);
                items[0] == wanted
            });
            assert!(comes_first, "{wanted}");
        }
        items.sort_unstable();
        assert_eq!(items, [0, 1, 2, 3]);
        random.shuffle::<u8>(&mut []);
    }
}
