//! Bytes that wait for clients: incomplete requests and unread answers. They are limited over all
//! connections. Above the limit, the connection that has made no progress for the longest time is
//! closed, so that clients that send and read are still served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use basalt_runtime::Shutdown;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The bytes that all connections of a server hold.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    state: Mutex<State>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    next: u64,
    holders: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    bytes: usize,
    progress_at: Instant,
    dropped: Shutdown,
}

/// The bytes that one side of a connection holds. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct Share {
    held: Arc<HeldBytes>,
    id: u64,
    /// The number as it was last counted.
    bytes: AtomicUsize,
}

/// This much on each side of a connection does not count. Nearly all connections always stay below
/// it, and need not access the shared state.
const UNCOUNTED_BYTES_MAX: usize = 64 << 10;

// === impl HeldBytes ===

impl HeldBytes {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), bytes_max }
    }

    /// A share for one side of a connection. `dropped` is cancelled if the connection must be
    /// closed.
    pub(crate) fn share(self: &Arc<Self>, dropped: Shutdown) -> Share {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        let holder = Holder { bytes: 0, progress_at: Instant::now(), dropped };
        state.holders.insert(id, holder);
        Share { held: Arc::clone(self), id, bytes: AtomicUsize::new(0) }
    }

    fn set(&self, id: u64, bytes: usize, has_progressed: bool) {
        let mut state = self.state.lock();
        let Some(holder) = state.holders.get_mut(&id) else { return };
        let before = std::mem::replace(&mut holder.bytes, bytes);
        if has_progressed {
            holder.progress_at = Instant::now();
        }
        state.total = state.total + bytes - before;
        while state.total > self.bytes_max && state.drop_stalest() {}
    }
}

// === impl State ===

impl State {
    /// Drops the holder that has made no progress for the longest time. Returns false if there is
    /// none.
    fn drop_stalest(&mut self) -> bool {
        let holders = self.holders.iter().filter(|(_, holder)| holder.bytes > 0);
        let stalest = holders.min_by_key(|(id, holder)| (holder.progress_at, **id));
        let Some(holder) = stalest.map(|(id, _)| *id).and_then(|id| self.holders.remove(&id))
        else {
            return false;
        };
        self.total -= holder.bytes;
        holder.dropped.cancel();
        true
    }
}

// === impl Share ===

impl Share {
    /// The client has sent or read bytes, and this much is now held.
    pub(crate) fn progressed(&self, bytes: usize) {
        self.set(bytes, true);
    }

    /// This much is now held.
    pub(crate) fn holds(&self, bytes: usize) {
        self.set(bytes, false);
    }

    fn set(&self, bytes: usize, has_progressed: bool) {
        let counted = if bytes > UNCOUNTED_BYTES_MAX { bytes } else { 0 };
        if self.bytes.swap(counted, Ordering::Relaxed) > 0 || counted > 0 {
            self.held.set(self.id, counted, has_progressed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.held.state.lock();
        if let Some(holder) = state.holders.remove(&self.id) {
            state.total -= holder.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_the_stalest_goes_and_those_with_progress_stay() {
        let held = Arc::new(HeldBytes::new(100 << 20));
        let tokens: Vec<_> = (0..3).map(|_| Shutdown::new()).collect();
        let shares: Vec<_> = tokens.iter().map(|token| held.share(token.clone())).collect();
        let dropped = || tokens.iter().map(Shutdown::is_cancelled).collect::<Vec<_>>();
        shares[0].progressed(40 << 20);
        tokio::time::advance(Duration::from_secs(1)).await;
        shares[1].progressed(40 << 20);
        tokio::time::advance(Duration::from_secs(1)).await;
        // It holds more, but without progress.
        shares[0].holds(45 << 20);
        shares[2].progressed(15 << 20);
        assert_eq!(dropped(), [false; 3], "it fits");
        shares[2].progressed(20 << 20);
        assert_eq!(dropped(), [true, false, false]);
        // A dropped connection no longer counts, whatever it reports.
        shares[0].holds(1_000 << 20);
        shares[2].progressed(60 << 20);
        assert_eq!(dropped(), [true, false, false]);
        drop(shares);
        assert_eq!(held.state.lock().total, 0);
    }
}
