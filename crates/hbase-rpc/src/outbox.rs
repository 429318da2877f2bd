//! Outgoing frames of a connection: many tasks append, one writes.
//!
//! While a write is in progress, the next frames are collected in one buffer and sent together: the
//! busier the connection, the fewer the writes. Each side limits the size of this buffer by
//! limiting the calls in progress.

use std::mem;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;

/// A buffer that has grown above this size is not kept, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// If more than this is pending, the writer does not wait for further frames, in bytes.
const GATHERED_BYTES_MAX: usize = 16 << 10;

/// The pending frames. A `T` is attached to each of them and dropped once it is written.
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

/// A batch to write. It is passed back so that its memory is reused.
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

    /// Appends what `append` writes. Once closed, it does nothing and returns false.
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

    /// Waits until at most `frames_max` frames are pending. For use by one task only.
    pub(crate) async fn drained(&self, frames_max: usize) {
        while self.waiting() > frames_max {
            self.taken.notified().await;
        }
    }

    /// Accepts no further frames. Pending ones are still written.
    pub(crate) fn close(&self) {
        self.pending.lock().closed = true;
        self.changed.notify_one();
        self.taken.notify_one();
    }

    /// Swaps the written `batch` for the next one, waiting until there is one. Returns false once
    /// closed and empty.
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
            // Tasks that are about to append run first, so that one write is enough for all of
            // them. But a long frame is written immediately, while it is still in the processor's
            // cache.
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
