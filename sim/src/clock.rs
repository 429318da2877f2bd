//! The clock seam: simulated time, on a calendar that begins at the same moment for all, read by
//! clocks that may run too fast or too slow and may be set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use basalt_runtime::ClockSource;

/// The moment that the simulation begins: 2026-01-01T00:00:00Z.
pub(crate) const EPOCH_MS: u64 = 1_767_225_600_000;
/// For how long the machines have been up by then.
const BOOTED_BEFORE: Duration = Duration::from_secs(3_600);

/// How far a machine's clocks are off; a cheap handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockError(Arc<Off>);

#[derive(Debug, Default)]
struct Off {
    /// By how much its clocks run too fast, in millionths.
    rate_ppm: i64,
    /// By how much its calendar is ahead.
    wall_ms: AtomicI64,
}

/// The clock of one simulated process.
#[derive(Debug, Default)]
pub(crate) struct SimulatedClock {
    error: ClockError,
    /// The last reading, for where there is no simulation: while a process is being taken down.
    last_ns: AtomicU64,
}

// === impl ClockError ===

impl ClockError {
    /// Clocks that run too fast by `rate_ppm` millionths, and a calendar that is right so far.
    pub(crate) fn of_rate(rate_ppm: i64) -> Self {
        Self(Arc::new(Off { rate_ppm, wall_ms: AtomicI64::new(0) }))
    }

    /// Sets the calendar ahead of the right time.
    pub(crate) fn set_wall_ms(&self, ahead_ms: i64) {
        self.0.wall_ms.store(ahead_ms, Ordering::Relaxed);
    }

    fn elapsed(&self, true_ns: u64) -> Duration {
        let off_ns = i128::from(true_ns) * i128::from(self.0.rate_ppm) / 1_000_000;
        let read_ns = i128::from(true_ns) + off_ns;
        Duration::from_nanos(u64::try_from(read_ns).unwrap_or(0))
    }
}

// === impl SimulatedClock ===

impl SimulatedClock {
    pub(crate) fn new(error: ClockError) -> Self {
        Self { error, last_ns: AtomicU64::new(0) }
    }

    fn elapsed(&self) -> Duration {
        let true_ns = match turmoil::sim_elapsed() {
            Some(elapsed) => {
                let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
                self.last_ns.store(ns, Ordering::Relaxed);
                ns
            }
            None => self.last_ns.load(Ordering::Relaxed),
        };
        self.error.elapsed(true_ns)
    }
}

impl ClockSource for SimulatedClock {
    fn boot_time(&self) -> Duration {
        BOOTED_BEFORE + self.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        (EPOCH_MS + elapsed_ms).saturating_add_signed(self.error.0.wall_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_gains_and_a_slow_one_loses() {
        let second_ns = 1_000_000_000;
        let read = |ppm| ClockError::of_rate(ppm).elapsed(second_ns);
        assert_eq!(read(0), Duration::from_secs(1));
        assert_eq!(read(30_000), Duration::from_millis(1_030));
        assert_eq!(read(-30_000), Duration::from_millis(970));
    }
}
