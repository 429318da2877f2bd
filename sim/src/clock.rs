//! The clock seam: simulated time. The wall clocks of all processes start at the same moment. A
//! clock may run too fast or too slow, and its wall-clock time may be changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use basalt_runtime::ClockSource;

use crate::invariants::ClockSpan;

/// The start of the simulation: 2026-01-01T00:00:00Z.
pub(crate) const EPOCH_MS: u64 = 1_767_225_600_000;
/// How long the machines have been up at that moment.
const BOOTED_BEFORE: Duration = Duration::from_secs(3_600);

/// How wrong the wall clock of a server may be while the server still believes it.
#[derive(Clone, Copy, Debug)]
pub struct WallClockError {
    /// The maximum by which a wall clock is set wrong.
    pub set_by: Duration,
    /// The maximum drift of a clock in parts per million, in either direction.
    pub drift_ppm: u64,
}

/// The error of a machine's clocks; a cheap handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockError(Arc<Off>);

#[derive(Debug, Default)]
struct Off {
    /// How much too fast its clocks run, in parts per million.
    rate_ppm: i64,
    /// How far its wall clock is ahead.
    wall_ms: AtomicI64,
}

/// The clock of one simulated process.
#[derive(Debug, Default)]
pub(crate) struct SimulatedClock {
    error: ClockError,
    /// The last reading. It is used where there is no simulation: while a process is being torn
    /// down.
    last_ns: AtomicU64,
}

// === impl WallClockError ===

impl WallClockError {
    /// The range that servers' wall clocks may have shown between two moments of true time.
    pub(crate) fn span(self, from_ms: u64, to_ms: u64) -> ClockSpan {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let off_ms = |at_ms: u64| {
            let drift_ms = at_ms.saturating_sub(EPOCH_MS) * self.drift_ppm / 1_000_000;
            // Readings are whole milliseconds.
            let rounding_ms = u64::from(self.drift_ppm > 0);
            let set_ms = u64::try_from(self.set_by.as_millis()).unwrap_or(u64::MAX);
            set_ms + drift_ms + rounding_ms
        };
        let earliest_ms = signed(from_ms.saturating_sub(off_ms(from_ms)));
        ClockSpan { earliest_ms, latest_ms: signed(to_ms + off_ms(to_ms)) }
    }
}

// === impl ClockError ===

impl ClockError {
    /// Clocks that run too fast by `rate_ppm` parts per million, with a wall clock that is correct
    /// so far.
    pub(crate) fn of_rate(rate_ppm: i64) -> Self {
        Self(Arc::new(Off { rate_ppm, wall_ms: AtomicI64::new(0) }))
    }

    /// Sets the wall clock ahead of true time.
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
    fn wall_clocks_that_are_exact_show_the_time_of_a_read() {
        let span = |set_by, drift_ppm| {
            let error = WallClockError { set_by, drift_ppm };
            let span = error.span(EPOCH_MS + 10_000, EPOCH_MS + 10_005);
            let since = |ms: i64| ms - EPOCH_MS as i64;
            (since(span.earliest_ms), since(span.latest_ms))
        };
        assert_eq!(span(Duration::ZERO, 0), (10_000, 10_005));
        assert_eq!(span(Duration::from_millis(200), 10_000), (9_699, 10_306));
    }

    #[test]
    fn a_fast_clock_gains_and_a_slow_one_loses() {
        let second_ns = 1_000_000_000;
        let read = |ppm| ClockError::of_rate(ppm).elapsed(second_ns);
        assert_eq!(read(0), Duration::from_secs(1));
        assert_eq!(read(30_000), Duration::from_millis(1_030));
        assert_eq!(read(-30_000), Duration::from_millis(970));
    }
}
