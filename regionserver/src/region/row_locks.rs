//! Row locks. The task that holds the lock of a row may decide on its next mutation.
//!
//! Rows share a fixed number of locks by their hash, so no state has to be created or kept per row.
//! Each lock also remembers the last timestamp that was assigned under it. Two mutations of a row
//! never get the same millisecond from the server, and time never goes backwards for a row.

use std::hash::Hasher;

use tokio::sync::{Mutex, MutexGuard};

/// How many locks a region has.
const STRIPES: usize = 128;

/// The locks of one region.
#[derive(Debug)]
pub(crate) struct RowLocks {
    stripes: Vec<Mutex<LastTimestamp>>,
}

#[derive(Debug, Default)]
struct LastTimestamp(u64);

/// The held locks of some rows.
#[derive(Debug)]
pub(crate) struct LockedRows<'a> {
    held: Vec<MutexGuard<'a, LastTimestamp>>,
}

// === impl RowLocks ===

impl RowLocks {
    pub(crate) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }

    /// Locks `rows`, and waits for other holders. All callers take the locks in the same order, so
    /// they cannot deadlock.
    pub(crate) async fn lock<'a>(&'a self, rows: impl Iterator<Item = &[u8]>) -> LockedRows<'a> {
        let mut wanted: Vec<usize> = rows.map(stripe_of).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut held = Vec::with_capacity(wanted.len());
        for stripe in wanted.into_iter().filter_map(|index| self.stripes.get(index)) {
            held.push(stripe.lock().await);
        }
        LockedRows { held }
    }
}

// === impl LockedRows ===

impl LockedRows<'_> {
    /// Assigns a timestamp to a mutation of the locked rows: `now_ms`, or a later one if needed to
    /// be above the last one assigned and not below `floor_ms`.
    pub(crate) fn assign_timestamp(&mut self, now_ms: u64, floor_ms: u64) -> u64 {
        let last = self.held.iter().map(|lock| lock.0).max().unwrap_or_default();
        let given = now_ms.max(floor_ms).max(last + 1);
        for lock in &mut self.held {
            lock.0 = given;
        }
        given
    }
}

fn stripe_of(row: &[u8]) -> usize {
    // SipHash with fixed keys: the same in every run, so that a simulation is repeatable.
    #[expect(deprecated, reason = "the only unkeyed hasher of the standard library")]
    let mut hasher = std::hash::SipHasher::new();
    hasher.write(row);
    (hasher.finish() % STRIPES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_row_is_held_by_one_at_a_time() {
        let locks = RowLocks::new();
        let held = locks.lock([b"a".as_slice(), b"b", b"a"].into_iter()).await;
        let second = locks.lock([b"b".as_slice()].into_iter());
        assert!(tokio::time::timeout(Duration::from_secs(1), second).await.is_err());
        drop(held);
        locks.lock([b"b".as_slice()].into_iter()).await;
    }

    #[tokio::test]
    async fn a_row_never_gets_the_same_millisecond_twice() {
        let locks = RowLocks::new();
        let row = || [b"a".as_slice()].into_iter();
        assert_eq!(locks.lock(row()).await.assign_timestamp(100, 0), 100);
        assert_eq!(locks.lock(row()).await.assign_timestamp(100, 0), 101);
        assert_eq!(locks.lock(row()).await.assign_timestamp(90, 0), 102, "the clock went back");
        assert_eq!(
            locks.lock(row()).await.assign_timestamp(90, 500),
            500,
            "a slower server's clock"
        );
    }
}
