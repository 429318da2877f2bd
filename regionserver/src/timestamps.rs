//! The clock from which cells get their timestamps.
//!
//! A timestamp cannot be taken back: a region never assigns one below the highest that it has
//! recorded. A wall clock that is a day ahead for a moment would therefore put the region a day
//! ahead for good. There are two signs that the wall clock of this machine is wrong, and then no
//! timestamps are assigned:
//! - It was set: it has moved relative to the boot clock since it was last found to be right. This
//!   server notices that at once and without help.
//! - The master has compared it with its own clock, and reports that it is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use basalt_planted::{Rule, is_off};
use basalt_runtime::Clock;
use metrics::gauge;
use parking_lot::Mutex;
use tracing::{error, info};

/// The clock for timestamps; see the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct TimestampClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    bound_ms: u64,
    /// The right time minus the boot clock, according to the last comparison whose result is known.
    /// Before the first comparison, according to the wall clock when the server started.
    right_offset_ms: AtomicI64,
    /// The last answer to the master.
    answered: Mutex<Answered>,
    /// By how much the wall clock is ahead according to the master; [`RIGHT`] if it is not off.
    reported_ahead_ms: AtomicI64,
    /// Whether the log says that the clock is off.
    is_reported: AtomicBool,
}

/// An answer to the master. The result of the comparison is not known yet.
#[derive(Clone, Copy, Debug, Default)]
struct Answered {
    wall_ms: u64,
    /// The wall clock minus the boot clock at that time.
    offset_ms: i64,
}

/// The value of `reported_ahead_ms` if the clock is right according to the master, or if the master
/// has not compared it yet.
const RIGHT: i64 = i64::MAX;

/// This server assigns no timestamps.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the clock of this server is off by {ahead_ms} ms, but at most {bound_ms} ms are allowed. It \
     assigns no timestamps until the clock is right, and its regions move to other servers"
)]
pub(crate) struct ClockOff {
    ahead_ms: i64,
    bound_ms: u64,
}

// === impl TimestampClock ===

impl TimestampClock {
    /// Timestamps from the wall clock of `clock`, while it is off by no more than `bound`.
    pub(crate) fn new(clock: Clock, bound: Duration) -> Self {
        Self(Arc::new(Inner {
            right_offset_ms: AtomicI64::new(clock.wall_minus_boot_ms()),
            answered: Mutex::default(),
            clock,
            bound_ms: u64::try_from(bound.as_millis()).unwrap_or(u64::MAX),
            reported_ahead_ms: AtomicI64::new(RIGHT),
            is_reported: AtomicBool::new(false),
        }))
    }

    /// The current time, for a timestamp.
    ///
    /// # Errors
    /// The wall clock is off.
    pub(crate) fn now_ms(&self) -> Result<u64, ClockOff> {
        let wall_ms = self.0.clock.wall_ms();
        match self.ahead_ms() {
            Some(ahead_ms) if !is_off(Rule::ClockBound) => {
                if !self.0.is_reported.swap(true, Ordering::Relaxed) {
                    let bound_ms = self.0.bound_ms;
                    error!(
                        ahead_ms,
                        bound_ms, wall_ms, "the clock is off: no timestamps are assigned"
                    );
                    gauge!("basalt_clock_off").set(1.0);
                }
                Err(ClockOff { ahead_ms, bound_ms: self.0.bound_ms })
            }
            _ => {
                if self.0.is_reported.swap(false, Ordering::Relaxed) {
                    info!(wall_ms, "the clock is right again");
                    gauge!("basalt_clock_off").set(0.0);
                }
                Ok(wall_ms)
            }
        }
    }

    /// The current time for decisions that are not recorded, such as whether a cell has expired.
    /// This is the wall clock. While that is known to be off, it is the boot clock plus the offset
    /// of the last comparison.
    pub(crate) fn best_now_ms(&self) -> u64 {
        if self.ahead_ms().is_none() || is_off(Rule::ClockBound) {
            return self.0.clock.wall_ms();
        }
        let right_offset_ms = self.0.right_offset_ms.load(Ordering::Relaxed);
        u64::try_from(self.0.clock.boot_ms().saturating_add(right_offset_ms)).unwrap_or(0)
    }

    /// The current time for dropping expired cells permanently. If the wall clock and the last
    /// comparison disagree, this is the earlier of the two: a master that reports a clock as off
    /// may be wrong itself.
    pub(crate) fn least_now_ms(&self) -> u64 {
        self.best_now_ms().min(self.0.clock.wall_ms())
    }

    /// Answers the master's question for the time, and records the result for an earlier answer: by
    /// how much it was ahead, if that was too much. Returns the new answer.
    pub(crate) fn compare(&self, compared_wall_ms: u64, ahead_ms: Option<i64>) -> u64 {
        let mut answered = self.0.answered.lock();
        match ahead_ms {
            Some(ahead_ms) => {
                // Not from the current wall clock, which may have been corrected since.
                if compared_wall_ms == answered.wall_ms {
                    let right_ms = answered.offset_ms.saturating_sub(ahead_ms);
                    self.0.right_offset_ms.store(right_ms, Ordering::Relaxed);
                }
                self.0.reported_ahead_ms.store(ahead_ms, Ordering::Relaxed);
            }
            // From the wall clock at that time: it may have been set since.
            None if compared_wall_ms == answered.wall_ms && compared_wall_ms != 0 => {
                self.0.right_offset_ms.store(answered.offset_ms, Ordering::Relaxed);
                self.0.reported_ahead_ms.store(RIGHT, Ordering::Relaxed);
            }
            // Nothing has been compared yet, or it was not the last answer, because that one was
            // lost.
            None => {}
        }
        let (wall_ms, offset_ms) = (self.0.clock.wall_ms(), self.0.clock.wall_minus_boot_ms());
        *answered = Answered { wall_ms, offset_ms };
        wall_ms
    }

    /// By how much the wall clock is ahead, if it is off.
    fn ahead_ms(&self) -> Option<i64> {
        let reported_ms = self.0.reported_ahead_ms.load(Ordering::Relaxed);
        if reported_ms != RIGHT {
            return Some(reported_ms);
        }
        let right_ms = self.0.right_offset_ms.load(Ordering::Relaxed);
        let moved_ms = self.0.clock.wall_minus_boot_ms().saturating_sub(right_ms);
        (moved_ms.unsigned_abs() > self.0.bound_ms).then_some(moved_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_runtime::ClockSource;
    use std::sync::atomic::AtomicU64;

    /// Clocks that are moved by hand: the wall clock and the boot clock.
    #[derive(Clone)]
    struct Hands(Arc<(AtomicU64, AtomicU64)>);

    impl Hands {
        fn pass(&self, ms: u64) {
            self.0.0.fetch_add(ms, Ordering::Relaxed);
            self.0.1.fetch_add(ms, Ordering::Relaxed);
        }

        fn set(&self, wall_ms: u64) {
            self.0.0.store(wall_ms, Ordering::Relaxed);
        }
    }

    impl ClockSource for Hands {
        fn boot_time(&self) -> Duration {
            Duration::from_millis(self.0.1.load(Ordering::Relaxed))
        }

        fn wall_ms(&self) -> u64 {
            self.0.0.load(Ordering::Relaxed)
        }
    }

    const DAY_MS: u64 = 86_400_000;

    fn clocks() -> (Hands, TimestampClock) {
        let hands = Hands(Arc::new((AtomicU64::new(10 * DAY_MS), AtomicU64::new(5_000))));
        let clock = TimestampClock::new(Clock::new(hands.clone()), Duration::from_secs(1));
        (hands, clock)
    }

    #[test]
    fn a_wall_clock_that_is_set_gives_no_timestamps_until_it_is_right() {
        let (hands, clock) = clocks();
        hands.pass(DAY_MS);
        assert_eq!(clock.now_ms(), Ok(11 * DAY_MS));
        hands.set(11 * DAY_MS + 900);
        assert_eq!(clock.now_ms(), Ok(11 * DAY_MS + 900), "within the bound");
        for off in [12 * DAY_MS, 10 * DAY_MS] {
            hands.set(off);
            let error = clock.now_ms().unwrap_err();
            assert_eq!(error.ahead_ms, off as i64 - 11 * DAY_MS as i64);
            assert_eq!(clock.best_now_ms(), 11 * DAY_MS);
        }
        hands.set(11 * DAY_MS);
        assert_eq!(clock.now_ms(), Ok(11 * DAY_MS));
    }

    #[test]
    fn what_the_master_found_counts_for_the_answer_that_it_compared() {
        let (hands, clock) = clocks();
        let first = clock.compare(0, None);
        hands.set(11 * DAY_MS);
        // That the first answer was right says nothing about the wall clock, which was set since.
        let second = clock.compare(first, None);
        assert!(clock.now_ms().is_err());
        // The second answer was lost.
        let third = clock.compare(first, None);
        assert!(clock.now_ms().is_err());
        assert_eq!(second, third);
        let fourth = clock.compare(third, Some(DAY_MS as i64));
        assert!(clock.now_ms().is_err());
        // The master has corrected itself: its own clock had been wrong.
        clock.compare(fourth, None);
        assert_eq!(clock.now_ms(), Ok(11 * DAY_MS));
    }

    #[test]
    fn a_wall_clock_that_was_wrong_from_the_start_is_known_by_the_master_alone() {
        let (hands, clock) = clocks();
        assert!(clock.now_ms().is_ok());
        let first = clock.compare(0, None);
        let second = clock.compare(first, Some(DAY_MS as i64));
        assert_eq!(clock.now_ms().unwrap_err().ahead_ms, DAY_MS as i64);
        assert_eq!(clock.best_now_ms(), 9 * DAY_MS);
        hands.set(9 * DAY_MS);
        let third = clock.compare(second, Some(DAY_MS as i64));
        clock.compare(third, None);
        assert_eq!(clock.now_ms(), Ok(9 * DAY_MS));
    }

    #[test]
    fn a_wall_clock_that_is_put_right_expires_nothing_before_the_master_knows() {
        for off in [11 * DAY_MS, 9 * DAY_MS] {
            let (hands, clock) = clocks();
            let first = clock.compare(0, None);
            hands.set(off);
            let second = clock.compare(first, None);
            clock.compare(second, Some(off as i64 - 10 * DAY_MS as i64));
            assert_eq!(clock.best_now_ms(), 10 * DAY_MS);
            assert_eq!(clock.least_now_ms(), off.min(10 * DAY_MS), "the master may be wrong");
            hands.set(10 * DAY_MS);
            assert!(clock.now_ms().is_err(), "until the master says so");
            assert_eq!(clock.best_now_ms(), 10 * DAY_MS);
        }
    }
}
