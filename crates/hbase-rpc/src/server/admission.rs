//! The limits on work in progress. Calls are counted, with the bytes that their requests and
//! answers occupy, from when they are read until their answers are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The calls in progress in one place: in the whole server, or on one connection.
#[derive(Debug)]
pub(crate) struct Admission {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    calls_max: usize,
    bytes_max: usize,
    /// Notified when the last call is over.
    pub(crate) idle: Notify,
}

/// One admitted call. Dropped once its answer is written, or if there is none.
#[derive(Debug)]
pub(crate) struct Admitted {
    server: Arc<Admission>,
    connection: Arc<Admission>,
    bytes: usize,
}

// === impl Admission ===

impl Admission {
    pub(crate) fn new(calls_max: usize, bytes_max: usize) -> Self {
        Self {
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            calls_max,
            bytes_max,
            idle: Notify::new(),
        }
    }

    /// How many bytes the calls in progress occupy.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Whether no call is in progress.
    pub(crate) fn is_idle(&self) -> bool {
        self.calls.load(Ordering::Acquire) == 0
    }

    fn enter(&self, bytes: usize) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::AcqRel);
        let held = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        // A call that is alone is admitted whatever its size, because its own limit was already
        // checked.
        if calls < self.calls_max && (held == 0 || held + bytes <= self.bytes_max) {
            return true;
        }
        self.leave(bytes);
        false
    }

    fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if self.calls.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_one();
        }
    }
}

// === impl Admitted ===

impl Admitted {
    /// Admits a request of `bytes`, if both places have capacity.
    pub(crate) fn enter(
        server: &Arc<Admission>,
        connection: &Arc<Admission>,
        bytes: usize,
    ) -> Option<Self> {
        if !connection.enter(bytes) {
            return None;
        }
        if !server.enter(bytes) {
            connection.leave(bytes);
            return None;
        }
        Some(Self { server: server.clone(), connection: connection.clone(), bytes })
    }

    /// Counts the size of the answer instead of that of the request.
    pub(crate) fn hold(&mut self, bytes: usize) {
        for place in [&self.server, &self.connection] {
            place.bytes.fetch_add(bytes, Ordering::AcqRel);
            place.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        }
        self.bytes = bytes;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.server.leave(self.bytes);
        self.connection.leave(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_bytes_are_bounded_and_given_back() {
        let server = Arc::new(Admission::new(3, 100));
        let connection = Arc::new(Admission::new(2, 100));
        let enter = |bytes| Admitted::enter(&server, &connection, bytes);
        let first = enter(40).unwrap();
        assert!(enter(61).is_none(), "too many bytes");
        let second = enter(60).unwrap();
        assert!(enter(0).is_none(), "too many calls");
        drop((first, second));
        assert!(server.is_idle() && connection.is_idle());
        let mut large = enter(1000).expect("alone, it is admitted");
        large.hold(5);
        assert!(enter(95).is_some());
    }
}
