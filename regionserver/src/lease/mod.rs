//! The serving lease: how long this server may act as the owner of its regions.
//!
//! The lease runs for a fixed time from the *sending* of the last renewal that the coordinator's
//! quorum committed, measured by a clock that counts suspended time. It is checked after a value is
//! read and before it is returned, and after an edit is synced and before it becomes visible. A
//! server that was frozen in between therefore finds out when it resumes that it must not answer.

mod end;

use std::sync::Arc;
use std::time::Duration;

use basalt_planted::{Rule, is_off};
use basalt_runtime::Clock;

use crate::sync;
use end::LeaseEnd;

/// The lease, shared by everything that answers clients.
#[derive(Clone, Debug)]
pub(crate) struct ServingLease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    duration: Duration,
    end: LeaseEnd,
}

/// The lease has ended: another server may own the regions by now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the serving lease has expired")]
pub(crate) struct LeaseOver;

// === impl ServingLease ===

impl ServingLease {
    /// A lease that runs for `duration` from each renewal, and does not run before the first one.
    pub(crate) fn new(clock: Clock, duration: Duration) -> Self {
        Self(Arc::new(Inner { clock, duration, end: LeaseEnd::new() }))
    }

    /// Records that a renewal sent at `sent_at` (boot time) was committed.
    pub(crate) fn renewed(&self, sent_at: Duration) {
        let ends_at = sent_at.saturating_add(self.0.duration);
        self.0.end.put_off(nanoseconds(ends_at));
    }

    /// Checks that the lease runs now.
    ///
    /// # Errors
    /// The lease does not run.
    pub(crate) fn check(&self) -> Result<(), LeaseOver> {
        let runs = self.0.end.is_after(nanoseconds(self.0.clock.boot_time()));
        if runs || is_off(Rule::ServingLease) { Ok(()) } else { Err(LeaseOver) }
    }

    /// Waits for at most `patience` until the lease runs: a renewal may only be late.
    ///
    /// # Errors
    /// The lease does not run by then.
    pub(crate) async fn check_patiently(&self, patience: Duration) -> Result<(), LeaseOver> {
        if self.check().is_ok() {
            return Ok(());
        }
        let wait = self.0.end.until(|| self.check().is_ok());
        tokio::time::timeout(patience, wait).await.map_err(|_| LeaseOver)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_runtime::ClockSource;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone, Default)]
    struct Hand(Arc<AtomicU64>);

    impl ClockSource for Hand {
        fn boot_time(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn wall_ms(&self) -> u64 {
            0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_runs_from_the_sending_of_its_renewal() {
        let hand = Hand::default();
        let lease = ServingLease::new(Clock::new(hand.clone()), Duration::from_millis(500));
        assert_eq!(lease.check(), Err(LeaseOver));
        hand.0.store(1_300, Ordering::Relaxed);
        lease.renewed(Duration::from_millis(1_000));
        assert_eq!(lease.check(), Ok(()));
        hand.0.store(1_500, Ordering::Relaxed);
        assert_eq!(lease.check(), Err(LeaseOver));
        lease.renewed(Duration::from_millis(900));
        assert_eq!(lease.check(), Err(LeaseOver), "an older renewal gives nothing");
        let waiting = tokio::spawn({
            let lease = lease.clone();
            async move { lease.check_patiently(Duration::from_secs(1)).await }
        });
        tokio::task::yield_now().await;
        lease.renewed(Duration::from_millis(1_400));
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }
}
