//! What is on its way to one client.
//!
//! Replies and events are queued in the order in which they must be seen. The queue is bounded: a
//! client that does not keep up is disconnected, not waited for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use basalt_runtime::Shutdown;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

/// The way to a client.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Tells the connections of this member apart.
    pub(crate) connection: u64,
    /// Where the client is.
    pub(crate) peer: SocketAddr,
    queue: mpsc::Sender<Message>,
    queued_bytes: AtomicUsize,
    drained: Notify,
    stop: Shutdown,
    /// How many requests came.
    pub(crate) received: AtomicU64,
    /// How many replies and events were queued.
    pub(crate) sent: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Frame(Bytes),
    /// Nothing comes after it: the connection is closed once all before it is written.
    Last,
}

/// Takes the messages to the socket.
pub(crate) struct OutgoingQueue {
    messages: mpsc::Receiver<Message>,
    outgoing: Arc<Outgoing>,
}

/// How many messages may be queued.
const MESSAGES_MAX: usize = 8192;
/// How many bytes may be queued before the client is given up.
const QUEUED_BYTES_MAX: usize = 32 << 20;
/// How many bytes may be queued before no more requests are taken.
const QUEUED_BYTES_HIGH: usize = 4 << 20;
/// How many bytes are written at once.
const WRITE_BYTES: usize = 64 << 10;

// === impl Outgoing ===

impl Outgoing {
    /// The way to the client at `peer`; cancelling `stop` closes it at once.
    pub(crate) fn new(
        connection: u64,
        peer: SocketAddr,
        stop: Shutdown,
    ) -> (Arc<Self>, OutgoingQueue) {
        let (queue, messages) = mpsc::channel(MESSAGES_MAX);
        let outgoing = Arc::new(Self {
            connection,
            peer,
            queue,
            queued_bytes: AtomicUsize::new(0),
            drained: Notify::new(),
            stop,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let queue = OutgoingQueue { messages, outgoing: Arc::clone(&outgoing) };
        (outgoing, queue)
    }

    /// Queues a frame; never waits.
    pub(crate) fn send(&self, frame: Bytes) {
        let queued = self.queued_bytes.fetch_add(frame.len(), Ordering::Relaxed) + frame.len();
        self.sent.fetch_add(1, Ordering::Relaxed);
        if queued > QUEUED_BYTES_MAX || self.queue.try_send(Message::Frame(frame)).is_err() {
            tracing::warn!(peer = %self.peer, queued, "gave up a client that does not keep up");
            self.close();
        }
    }

    /// Closes the connection once all that is queued is written.
    pub(crate) fn finish(&self) {
        if self.queue.try_send(Message::Last).is_err() {
            self.close();
        }
    }

    /// Closes the connection now.
    pub(crate) fn close(&self) {
        self.stop.cancel();
    }

    /// Waits until there is room for more replies.
    pub(crate) async fn has_room(&self) {
        while self.queued_bytes.load(Ordering::Relaxed) > QUEUED_BYTES_HIGH {
            // Only the connection's own reader waits here, so the one stored permit is enough.
            self.drained.notified().await;
        }
    }

    /// How many bytes are queued.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }
}

// === impl OutgoingQueue ===

impl OutgoingQueue {
    /// Writes all that is queued, until the last message or until a write takes longer than
    /// `timeout`.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) async fn run(
        mut self,
        mut writer: impl AsyncWrite + Unpin,
        timeout: Duration,
    ) -> std::io::Result<()> {
        let mut buffer = BytesMut::new();
        let mut is_last = false;
        while !is_last {
            match self.messages.recv().await {
                Some(Message::Frame(frame)) => buffer.extend_from_slice(&frame),
                Some(Message::Last) | None => is_last = true,
            }
            while !is_last && buffer.len() < WRITE_BYTES {
                match self.messages.try_recv() {
                    Ok(Message::Frame(frame)) => buffer.extend_from_slice(&frame),
                    Ok(Message::Last) => is_last = true,
                    Err(_) => break,
                }
            }
            let written = tokio::time::timeout(timeout, async {
                writer.write_all(&buffer).await?;
                writer.flush().await
            });
            written.await??;
            self.outgoing.queued_bytes.fetch_sub(buffer.len(), Ordering::Relaxed);
            self.outgoing.drained.notify_one();
            buffer.clear();
        }
        // The other side may be gone already; there is nothing left to tell it.
        let _closed = writer.shutdown().await;
        Ok(())
    }
}
