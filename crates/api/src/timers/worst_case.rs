//! The maximum duration of each phase after a server is lost silently.
//!
//! Detection is determined by the session. The phases from fencing to replay get the time for a
//! recovery of 64 MB of WAL, in proportion to the target. The lease phase is the rest of the wait
//! for the dead server's lease after that work: the work and the wait begin together.

use std::time::Duration;

use super::{Timers, whole_ms};

/// The maximum durations of the phases, from the server's last sign of life to a client's success.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WorstCase {
    /// Until the death is committed: the session timeout, and the interval of the check for expired
    /// sessions.
    pub detect: Duration,
    /// Until no append of the dead server can be acknowledged any more.
    pub fence: Duration,
    /// Until the WAL is split by region.
    pub split: Duration,
    /// Until each region has a new owner.
    pub assign: Duration,
    /// Until the new owner has replayed its part.
    pub replay: Duration,
    /// Until the dead server's lease has certainly ended, as far as that takes longer than the
    /// work.
    pub lease: Duration,
    /// Until a client has found the new owner.
    pub client: Duration,
}

// === impl WorstCase ===

impl WorstCase {
    pub(super) fn of(timers: &Timers) -> Self {
        let fence = whole_ms(timers.target / 30);
        let split = whole_ms(timers.target * 2 / 15);
        let assign = whole_ms(timers.target / 30);
        let replay = whole_ms(timers.target * 2 / 15);
        let lease_wait = timers.serving_lease + timers.drift_margin;
        Self {
            detect: timers.session_timeout + timers.session_sweep,
            fence,
            split,
            assign,
            replay,
            lease: lease_wait.saturating_sub(fence + split + assign + replay),
            client: timers.client_pause + timers.rpc_connect_timeout,
        }
    }

    /// The phases with their names, in order.
    pub fn phases(&self) -> [(&'static str, Duration); 7] {
        [
            ("detect", self.detect),
            ("fence", self.fence),
            ("split", self.split),
            ("assign", self.assign),
            ("replay", self.replay),
            ("lease", self.lease),
            ("client", self.client),
        ]
    }

    /// The sum of the phases.
    pub fn total(&self) -> Duration {
        self.phases().into_iter().map(|(_, length)| length).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timers::{TARGET_DEFAULT, TimerOverrides};

    #[test]
    fn a_lease_longer_than_the_work_adds_what_is_left_of_it() {
        let mut timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default()).unwrap();
        assert_eq!(timers.worst_case().lease, Duration::ZERO);
        timers.serving_lease = Duration::from_millis(1_300);
        assert_eq!(timers.worst_case().lease, Duration::from_millis(350));
    }
}
