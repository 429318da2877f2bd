//! The outcome of each attempt to write to one region, by number, one bit each.
//!
//! An attempt counts as acknowledged even if the answer came long after it was late: a server that
//! resumes after a pause must not acknowledge a write that it cannot keep. An attempt that was
//! neither acknowledged nor rejected is unknown, never absent.

/// The attempts to write to one region.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    acknowledged: Vec<u64>,
    begun: u32,
    refused: u64,
    acknowledged_count: u64,
    newest: Option<u32>,
}

/// The result of comparing the attempts with the rows that were read back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Audit {
    /// Attempts that were acknowledged.
    pub acked: u64,
    /// Attempts whose outcome is unknown.
    pub unknown: u64,
    /// Acknowledged attempts whose rows are missing or damaged.
    pub lost: u64,
}

// === impl Attempts ===

impl Attempts {
    /// Begins an attempt. Returns `None` if the numbers are exhausted.
    pub fn begin(&mut self) -> Option<u32> {
        let number = self.begun;
        self.begun = self.begun.checked_add(1)?;
        if number.is_multiple_of(u64::BITS) {
            self.acknowledged.push(0);
        }
        Some(number)
    }

    /// Records that attempt `number` was acknowledged.
    pub fn acknowledge(&mut self, number: u32) {
        let Some(word) = self.acknowledged.get_mut((number / u64::BITS) as usize) else {
            return;
        };
        *word |= 1 << (number % u64::BITS);
        self.acknowledged_count += 1;
        self.newest = self.newest.max(Some(number));
    }

    /// Records that an attempt was rejected.
    pub fn refuse(&mut self) {
        self.refused += 1;
    }

    /// Whether attempt `number` was acknowledged.
    pub fn is_acknowledged(&self, number: u32) -> bool {
        let word = self.acknowledged.get((number / u64::BITS) as usize);
        word.is_some_and(|word| word & (1 << (number % u64::BITS)) != 0)
    }

    /// The newest acknowledged attempt.
    pub fn newest(&self) -> Option<u32> {
        self.newest
    }

    /// The number of acknowledged attempts.
    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged_count
    }

    /// Compares the attempts with `present`: those that were read back whole, in any order, each
    /// once.
    pub fn audit(&self, present: impl IntoIterator<Item = u32>) -> Audit {
        let kept =
            present.into_iter().filter(|number| self.is_acknowledged(*number)).count() as u64;
        let acked = self.acknowledged_count;
        Audit {
            acked,
            unknown: u64::from(self.begun) - acked - self.refused,
            lost: acked.saturating_sub(kept),
        }
    }
}

// === impl Audit ===

impl Audit {
    /// The sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            acked: self.acked + other.acked,
            unknown: self.unknown + other.unknown,
            lost: self.lost + other.lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_and_is_missing_is_lost() {
        let mut attempts = Attempts::default();
        for number in 0..200 {
            assert_eq!(attempts.begin(), Some(number));
        }
        (0..150).for_each(|number| attempts.acknowledge(number));
        (150..160).for_each(|_| attempts.refuse());
        let all_but_two = (0..200).filter(|number| ![3, 149].contains(number));
        assert_eq!(attempts.audit(all_but_two), Audit { acked: 150, unknown: 40, lost: 2 });
        assert_eq!(attempts.audit(0..150).lost, 0);
        assert_eq!(attempts.newest(), Some(149));
    }

    #[test]
    fn a_late_acknowledgement_counts() {
        let mut attempts = Attempts::default();
        let late = attempts.begin().unwrap();
        let next = attempts.begin().unwrap();
        attempts.acknowledge(next);
        assert_eq!(attempts.audit([next]).unknown, 1);
        attempts.acknowledge(late);
        assert_eq!(attempts.newest(), Some(next));
        assert_eq!(attempts.audit([next]).lost, 1);
    }
}
