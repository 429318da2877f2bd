//! When a lease ends: read by requests, put off by renewals.
//!
//! Invariant, which `interleavings/lease.rs` checks in every interleaving: the end is that of the
//! latest renewal, whatever the order in which their answers came, and whoever waits for it learns
//! of each.

use super::sync::{AtomicU64, Notify, Ordering};

/// The end, in nanoseconds of the boot clock.
#[derive(Debug)]
pub(crate) struct LeaseEnd {
    at_ns: AtomicU64,
    put_off: Notify,
}

// === impl LeaseEnd ===

impl LeaseEnd {
    /// The lease has not begun.
    pub(crate) fn new() -> Self {
        Self { at_ns: AtomicU64::new(0), put_off: Notify::new() }
    }

    /// The lease lasts up to `at_ns`, if not longer.
    pub(crate) fn put_off(&self, at_ns: u64) {
        self.at_ns.fetch_max(at_ns, Ordering::Release);
        self.put_off.notify_waiters();
    }

    /// Whether the lease runs at `now_ns`.
    pub(crate) fn is_after(&self, now_ns: u64) -> bool {
        now_ns < self.at_ns.load(Ordering::Acquire)
    }

    /// Waits until `runs`, which is asked again whenever the end is put off.
    pub(crate) async fn until(&self, runs: impl Fn() -> bool) {
        loop {
            // Made before the look: what puts the end off after it wakes this.
            let put_off = self.put_off.notified();
            if runs() {
                return;
            }
            put_off.await;
        }
    }
}
