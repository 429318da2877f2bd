//! Frames on their way out of a connection: many tasks append, one writes.
//!
//! While a write is under way the next frames gather in one buffer, and leave together: the
//! busier the connection, the fewer the writes. Each side bounds what gathers here by bounding the
//! calls in flight.

use std::mem;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;

/// A buffer that grew above this is not kept, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// More than this does not wait for other frames that are about to be ready, in bytes.
const GATHERED_BYTES_MAX: usize = 16 << 10;

/// What is to be written next. `T` goes with the frames and is dropped once they are written.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    pending: Mutex<Pending<T>>,
    changed: Notify,
    taken: Notify,
}

#[derive(Debug)]
struct Pending<T> {
    bytes: BytesMut,
    attached: Vec<T>,
    closed: bool,
}

/// A batch to write; given back so that its memory is used again.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    pub(crate) bytes: BytesMut,
    attached: Vec<T>,
}

// === impl Outbox ===

impl<T> Outbox<T> {
    pub(crate) fn new() -> Self {
        Self {
            pending: Mutex::new(Pending {
                bytes: BytesMut::new(),
                attached: Vec::new(),
                closed: false,
            }),
            changed: Notify::new(),
            taken: Notify::new(),
        }
    }

    /// Appends what `append` writes. False, and nothing done, once closed.
    pub(crate) fn push(&self, attached: T, append: impl FnOnce(&mut BytesMut)) -> bool {
        let mut pending = self.pending.lock();
        if pending.closed {
            return false;
        }
        append(&mut pending.bytes);
        pending.attached.push(attached);
        drop(pending);
        self.changed.notify_one();
        true
    }

    /// Waits until at most `frames_max` frames wait to be written. For one task only.
    pub(crate) async fn drained(&self, frames_max: usize) {
        while self.waiting() > frames_max {
            self.taken.notified().await;
        }
    }

    /// Takes no more frames; what is there is still written.
    pub(crate) fn close(&self) {
        self.pending.lock().closed = true;
        self.changed.notify_one();
        self.taken.notify_one();
    }

    /// Swaps the written `batch` for the next one, waiting until there is one. False if there is
    /// none and there will be none.
    pub(crate) async fn next(&self, batch: &mut Batch<T>) -> bool {
        batch.clear();
        loop {
            {
                let mut pending = self.pending.lock();
                if !pending.attached.is_empty() {
                    mem::swap(&mut pending.bytes, &mut batch.bytes);
                    mem::swap(&mut pending.attached, &mut batch.attached);
                    self.taken.notify_one();
                    return true;
                }
                if pending.closed {
                    return false;
                }
            }
            self.changed.notified().await;
            // Those who are about to append as well go first: one write for all of them. But a long
            // frame is still in the processor's cache now.
            if self.pending.lock().bytes.len() < GATHERED_BYTES_MAX {
                yield_now().await;
            }
        }
    }

    fn waiting(&self) -> usize {
        let pending = self.pending.lock();
        if pending.closed { 0 } else { pending.attached.len() }
    }
}

// === impl Batch ===

impl<T> Batch<T> {
    pub(crate) fn new() -> Self {
        Self { bytes: BytesMut::new(), attached: Vec::new() }
    }

    fn clear(&mut self) {
        self.attached.clear();
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = BytesMut::new();
        }
        self.bytes.clear();
    }
}
