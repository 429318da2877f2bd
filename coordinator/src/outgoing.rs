//! The frames that wait to be written to one client.
//!
//! Replies and events are queued in the order in which the client must see them. The queue is
//! bounded in bytes, never in messages: a client that reads gets everything, however much happens
//! at once. A client that does not read is disconnected once too much is queued for it. It is also
//! disconnected once too much is queued for all clients together and it has more than its share.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use basalt_runtime::Shutdown;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// The bytes that all clients of a member may have queued together.
#[derive(Debug)]
pub(crate) struct QueueBudget {
    queued_bytes: AtomicUsize,
    bytes_max: usize,
    /// The bytes that each connection may have queued, whatever the others have.
    share_bytes: usize,
}

/// The frames that wait to be written to one client.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Identifies the connection within this member.
    pub(crate) connection: u64,
    /// The address of the client.
    pub(crate) peer: SocketAddr,
    queue: Mutex<Queue>,
    added: Notify,
    queued_bytes: AtomicUsize,
    budget: Arc<QueueBudget>,
    drained: Notify,
    stop: Shutdown,
    /// How many requests were received.
    pub(crate) received: AtomicU64,
    /// How many replies and events were queued.
    pub(crate) sent: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    end: End,
}

/// Whether more frames are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// The connection is closed once everything queued is written.
    Finishing,
    /// Queued frames are no longer written.
    Closed,
}

/// Writes the queued frames to the socket.
pub(crate) struct OutgoingQueue {
    outgoing: Arc<Outgoing>,
}

/// How many bytes may be queued before the client is disconnected. The events of all watches that
/// one client may have fit into it (see `watch`).
pub(crate) const QUEUED_BYTES_MAX: usize = 64 << 20;
/// How many bytes are counted for each queued frame in addition to its own bytes.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 64;
/// How many bytes may be queued before no more requests are read.
const QUEUED_BYTES_HIGH: usize = 4 << 20;
/// How many bytes are written at once.
const WRITE_BYTES: usize = 64 << 10;

// === impl QueueBudget ===

impl QueueBudget {
    /// A budget of `bytes_max` bytes, shared by at most `connections_max` connections.
    pub(crate) fn new(bytes_max: usize, connections_max: usize) -> Self {
        let share_bytes = bytes_max / connections_max.max(1);
        Self { queued_bytes: AtomicUsize::new(0), bytes_max, share_bytes }
    }

    /// How many bytes are queued for all clients.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> usize {
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn give_back(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// The queue for the client at `peer`. Cancelling `stop` closes the connection at once.
    pub(crate) fn new(
        connection: u64,
        peer: SocketAddr,
        stop: Shutdown,
        budget: Arc<QueueBudget>,
    ) -> (Arc<Self>, OutgoingQueue) {
        let outgoing = Arc::new(Self {
            connection,
            peer,
            queue: Mutex::default(),
            added: Notify::new(),
            queued_bytes: AtomicUsize::new(0),
            budget,
            drained: Notify::new(),
            stop,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let queue = OutgoingQueue { outgoing: Arc::clone(&outgoing) };
        (outgoing, queue)
    }

    /// Queues a frame without waiting. Ignored if the connection is closing.
    pub(crate) fn send(&self, frame: Bytes) {
        let mut queue = self.queue.lock();
        if queue.end != End::Open {
            return;
        }
        let bytes = frame.len() + FRAME_OVERHEAD_BYTES;
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let of_all = self.budget.take(bytes);
        self.sent.fetch_add(1, Ordering::Relaxed);
        queue.frames.push_back(frame);
        let has_room = before + bytes <= QUEUED_BYTES_MAX && of_all <= self.budget.bytes_max;
        // Whatever the others have queued, each client has its share, and one frame of any length.
        if before > self.budget.share_bytes && !has_room {
            let queued = before + bytes;
            let peer = &self.peer;
            tracing::warn!(%peer, queued, of_all, "disconnected a client that does not read");
            self.end(&mut queue, End::Closed);
        }
        drop(queue);
        self.added.notify_one();
    }

    /// Closes the connection once everything queued is written.
    pub(crate) fn finish(&self) {
        let mut queue = self.queue.lock();
        if queue.end == End::Open {
            queue.end = End::Finishing;
        }
        drop(queue);
        self.added.notify_one();
    }

    /// Closes the connection now.
    pub(crate) fn close(&self) {
        self.end(&mut self.queue.lock(), End::Closed);
    }

    fn end(&self, queue: &mut Queue, end: End) {
        queue.end = end;
        queue.frames = VecDeque::new();
        self.budget.give_back(self.queued_bytes.swap(0, Ordering::Relaxed));
        self.stop.cancel();
    }

    /// Waits until there is room for more replies.
    pub(crate) async fn has_room(&self) {
        while self.is_full() {
            // Only the connection's own reader waits here, so the one stored permit is enough.
            self.drained.notified().await;
        }
    }

    /// Whether no more requests are read: this client has much queued, or all clients have and this
    /// one has more than its share.
    fn is_full(&self) -> bool {
        let queued = self.queued_bytes();
        queued > QUEUED_BYTES_HIGH
            || (queued > self.budget.share_bytes
                && self.budget.queued_bytes() > self.budget.bytes_max / 2)
    }

    /// How many bytes are queued.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Moves the next frames into `buffer`. Returns how many bytes they were counted as, and
    /// whether they are the last.
    fn take(&self, buffer: &mut BytesMut) -> (usize, bool) {
        let mut queue = self.queue.lock();
        let mut counted = 0;
        while buffer.len() < WRITE_BYTES
            && let Some(frame) = queue.frames.pop_front()
        {
            counted += frame.len() + FRAME_OVERHEAD_BYTES;
            buffer.extend_from_slice(&frame);
        }
        (counted, queue.end != End::Open && queue.frames.is_empty())
    }

    /// Releases bytes that were written.
    fn written(&self, counted: usize) {
        // Closing has already released all bytes.
        let queue = self.queue.lock();
        if queue.end != End::Closed {
            self.queued_bytes.fetch_sub(counted, Ordering::Relaxed);
            self.budget.give_back(counted);
        }
        drop(queue);
        self.drained.notify_one();
    }
}

// === impl OutgoingQueue ===

impl OutgoingQueue {
    /// Writes everything queued, until the last frame is written or a write takes longer than
    /// `timeout`.
    ///
    /// # Errors
    /// The connection failed, or a write took too long.
    pub(crate) async fn run(
        self,
        mut writer: impl AsyncWrite + Unpin,
        timeout: Duration,
    ) -> std::io::Result<()> {
        let mut buffer = BytesMut::new();
        loop {
            let (counted, is_last) = self.outgoing.take(&mut buffer);
            if !buffer.is_empty() {
                let written = tokio::time::timeout(timeout, async {
                    writer.write_all(&buffer).await?;
                    writer.flush().await
                });
                written.await??;
                self.outgoing.written(counted);
                buffer.clear();
            } else if is_last {
                break;
            } else {
                self.outgoing.added.notified().await;
            }
        }
        // The client may already be gone. There is nothing left to send to it.
        let _closed = writer.shutdown().await;
        Ok(())
    }
}

impl Drop for OutgoingQueue {
    /// Discards the queue, because nothing is written any more.
    fn drop(&mut self) {
        self.outgoing.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENTS: [u8; 1_000] = [0; 1_000];
    const FRAME_BYTES: usize = CONTENTS.len() + FRAME_OVERHEAD_BYTES;

    fn client(budget: &Arc<QueueBudget>) -> (Arc<Outgoing>, OutgoingQueue, Shutdown) {
        let stop = Shutdown::new();
        let peer = "127.0.0.1:1".parse().unwrap();
        let (outgoing, queue) = Outgoing::new(1, peer, stop.clone(), Arc::clone(budget));
        (outgoing, queue, stop)
    }

    #[tokio::test]
    async fn many_small_frames_at_once_are_written_in_order() {
        let budget = Arc::new(QueueBudget::new(256 << 20, 1));
        let (outgoing, queue, stop) = client(&budget);
        const FRAMES: u32 = 100_000;
        for number in 0..FRAMES {
            outgoing.send(Bytes::copy_from_slice(&number.to_be_bytes()));
        }
        assert!(!stop.is_cancelled(), "the client had no chance to read");
        outgoing.finish();
        let mut written = Vec::new();
        queue.run(&mut written, Duration::from_secs(1)).await.unwrap();
        let expected: Vec<u8> = (0..FRAMES).flat_map(u32::to_be_bytes).collect();
        assert!(written == expected);
        assert_eq!(budget.queued_bytes(), 0);
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up_once_and_its_bytes_are_given_back() {
        let budget = Arc::new(QueueBudget::new(1 << 30, 1_000_000));
        let (outgoing, _queue, stop) = client(&budget);
        let fitting = QUEUED_BYTES_MAX / FRAME_BYTES;
        for _ in 0..fitting {
            outgoing.send(Bytes::from_static(&CONTENTS));
        }
        assert!(!stop.is_cancelled());
        outgoing.send(Bytes::from_static(&CONTENTS));
        assert!(stop.is_cancelled());
        let sent = outgoing.sent.load(Ordering::Relaxed);
        outgoing.send(Bytes::from_static(&CONTENTS));
        assert_eq!(outgoing.sent.load(Ordering::Relaxed), sent, "nothing more is taken");
        assert_eq!(budget.queued_bytes(), 0);
    }

    #[test]
    fn slow_clients_together_have_a_bound_and_a_reader_keeps_its_share() {
        const CLIENTS: usize = 10;
        let budget = Arc::new(QueueBudget::new(100 * FRAME_BYTES, CLIENTS));
        let slow: Vec<_> = (1..CLIENTS).map(|_| client(&budget)).collect();
        for _ in 0..40 {
            for (outgoing, _, _) in &slow {
                outgoing.send(Bytes::from_static(&CONTENTS));
            }
        }
        assert!(budget.queued_bytes() <= 101 * FRAME_BYTES, "{}", budget.queued_bytes());
        assert!(slow.iter().any(|(_, _, stop)| stop.is_cancelled()));
        let (reader, _queue, stop) = client(&budget);
        for _ in 0..10 {
            reader.send(Bytes::from_static(&CONTENTS));
        }
        assert!(!stop.is_cancelled(), "a client within its share is not given up for others");
    }

    #[tokio::test]
    async fn a_connection_that_is_gone_has_nothing_queued() {
        let budget = Arc::new(QueueBudget::new(1 << 20, 1));
        let (outgoing, queue, _) = client(&budget);
        outgoing.send(Bytes::from_static(&CONTENTS));
        drop(queue);
        outgoing.send(Bytes::from_static(&CONTENTS));
        assert_eq!((budget.queued_bytes(), outgoing.queued_bytes()), (0, 0));
    }
}
