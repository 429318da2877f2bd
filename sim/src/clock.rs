//! The clock seam: simulated time, on a calendar that always begins at the same moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_runtime::ClockSource;

/// The moment that the simulation begins: 2026-01-01T00:00:00Z.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// For how long the machines have been up by then.
const BOOTED_BEFORE: Duration = Duration::from_secs(3_600);

/// The clock of one simulated process.
#[derive(Debug, Default)]
pub struct SimulatedClock {
    /// The last reading, for where there is no simulation: while a process is being taken down.
    last_ns: AtomicU64,
}

// === impl SimulatedClock ===

impl SimulatedClock {
    fn elapsed(&self) -> Duration {
        match turmoil::sim_elapsed() {
            Some(elapsed) => {
                let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
                self.last_ns.store(ns, Ordering::Relaxed);
                elapsed
            }
            None => Duration::from_nanos(self.last_ns.load(Ordering::Relaxed)),
        }
    }
}

impl ClockSource for SimulatedClock {
    fn boot_time(&self) -> Duration {
        BOOTED_BEFORE + self.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        EPOCH_MS + u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
