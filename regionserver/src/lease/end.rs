//! The end of a lease: read by requests, extended by renewals.
//!
//! Invariant, which `interleavings/lease.rs` checks in every interleaving: the end is that of the
//! latest renewal, in whatever order the answers to renewals arrive, and every waiter is woken by
//! each renewal.

use super::sync::{AtomicU64, Notify, Ordering};

/// The end of the lease, in nanoseconds of the boot clock.
#[derive(Debug)]
pub(crate) struct LeaseEnd {
    at_ns: AtomicU64,
    put_off: Notify,
}

// === impl LeaseEnd ===

impl LeaseEnd {
    /// A lease that has not started.
    pub(crate) fn new() -> Self {
        Self { at_ns: AtomicU64::new(0), put_off: Notify::new() }
    }

    /// Extends the lease to `at_ns`, unless it already runs longer.
    pub(crate) fn put_off(&self, at_ns: u64) {
        self.at_ns.fetch_max(at_ns, Ordering::Release);
        self.put_off.notify_waiters();
    }

    /// Whether the lease runs at `now_ns`.
    pub(crate) fn is_after(&self, now_ns: u64) -> bool {
        now_ns < self.at_ns.load(Ordering::Acquire)
    }

    /// Waits until `runs` returns true. It is called again after each extension.
    pub(crate) async fn until(&self, runs: impl Fn() -> bool) {
        loop {
            // Registered before `runs` is called, so that a later extension wakes this.
            let put_off = self.put_off.notified();
            if runs() {
                return;
            }
            put_off.await;
        }
    }
}
