//! The clock seam: two clocks, and what each is good for.
//!
//! Leases run on [`Clock::boot_time`], which keeps counting while the machine is suspended: a
//! server that was frozen must see, when it wakes, that its lease is over. Cell timestamps come
//! from [`Clock::wall_ms`]. Neither is used to sleep.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A clock that may be read from any task.
#[derive(Clone)]
pub struct Clock(Arc<dyn ClockSource>);

/// Where a [`Clock`] gets its readings.
pub trait ClockSource: Send + Sync + 'static {
    /// Time since some fixed moment at or before this process started. Never goes back, and counts
    /// the time that the machine was suspended (`CLOCK_BOOTTIME`).
    fn boot_time(&self) -> Duration;

    /// Milliseconds since 1970-01-01T00:00:00Z as the machine believes. May jump either way.
    fn wall_ms(&self) -> u64;
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

// === impl Clock ===

impl Clock {
    /// A clock that reads `source`.
    pub fn new(source: impl ClockSource) -> Self {
        Self(Arc::new(source))
    }

    /// See [`ClockSource::boot_time`].
    pub fn boot_time(&self) -> Duration {
        self.0.boot_time()
    }

    /// [`Self::boot_time`] in milliseconds.
    pub fn boot_ms(&self) -> i64 {
        i64::try_from(self.boot_time().as_millis()).unwrap_or(i64::MAX)
    }

    /// See [`ClockSource::wall_ms`].
    pub fn wall_ms(&self) -> u64 {
        self.0.wall_ms()
    }

    /// The wall clock minus the boot clock in milliseconds. It changes when the wall clock is set.
    pub fn wall_minus_boot_ms(&self) -> i64 {
        let wall_ms = i64::try_from(self.wall_ms()).unwrap_or(i64::MAX);
        wall_ms.saturating_sub(self.boot_ms())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clock")
    }
}

// === impl SystemClock ===

impl ClockSource for SystemClock {
    fn boot_time(&self) -> Duration {
        since_origin(ClockId::Boottime)
    }

    fn wall_ms(&self) -> u64 {
        u64::try_from(since_origin(ClockId::Realtime).as_millis()).unwrap_or(u64::MAX)
    }
}

fn since_origin(clock: ClockId) -> Duration {
    let reading = clock_gettime(clock);
    let seconds = u64::try_from(reading.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(reading.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_goes_back() {
        let clock = Clock::new(SystemClock);
        let first = clock.boot_time();
        assert!(clock.boot_time() >= first);
    }
}
