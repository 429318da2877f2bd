//! The queue between the regions and the writer: edits gather in a batch while the previous batch
//! is synced.
//!
//! It is bounded by bytes. A [`Permit`] must be obtained before an edit may be added, and its bytes
//! are free again once the edit's batch is durable. The writer reserves room on the disk for all
//! bytes that permits cover. If it cannot, no more permits are issued until it can.

use std::sync::Arc;

use basalt_fs::Durability;
use basalt_model::SequenceId;
use bytes::BytesMut;

use super::edit::EncodedEdit;
use super::error::{Error, Result};
use super::header::BATCH_HEADER_BYTES;
use super::latch::Latch;
use super::sequence_id_accounting::Touched;
use super::sync::{Mutex, Notify, Semaphore, SemaphorePermit, yield_now};

/// The queue that regions add to and the writer takes from.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Notified when there is work for the writer.
    work: Notify,
    /// Free bytes.
    room: Semaphore,
    room_bytes_max: u32,
    /// The error that ended the log, if it failed.
    pub(super) failure: Latch<Error>,
    /// Set when the writer has ended.
    pub(super) ended: Latch<()>,
}

/// The tasks of the writer, in this order.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) batch: Option<Batch>,
    pub(super) roll: Option<SyncOutcome>,
    pub(super) close: bool,
}

/// The edits of one group commit, preceded by room for their header.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: BytesMut,
    pub(super) touched: Vec<Touched>,
    pub(super) outcome: SyncOutcome,
    /// The highest durability that any of the edits requires.
    pub(super) durability: Durability,
    room_bytes: usize,
}

/// The outcome of a write or a roll, for which several tasks may wait.
pub(super) type SyncOutcome = Arc<Latch<Result<()>>>;

/// The right to add an edit to the log. Dropping it unused returns its bytes to the queue.
#[must_use = "nothing has been added to the log yet"]
#[derive(Debug)]
pub struct Permit<'a> {
    queue: &'a Queue,
    room: SemaphorePermit<'a>,
}

/// An edit that has been added and may not be durable yet.
#[must_use = "the edit is not durable before `synced` says so"]
#[derive(Clone, Debug)]
pub struct Ticket {
    outcome: SyncOutcome,
}

#[derive(Debug, Default)]
struct State {
    pending: Batch,
    roll: Option<SyncOutcome>,
    close: bool,
    /// Why no more edits are accepted.
    refused: Option<Error>,
    /// Why no permits are issued for now.
    disk_full: Option<Arc<basalt_fs::Error>>,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(room_bytes_max: u32) -> Self {
        Self {
            state: Mutex::default(),
            work: Notify::new(),
            room: Semaphore::new(room_bytes_max as usize),
            room_bytes_max,
            failure: Latch::default(),
            ended: Latch::default(),
        }
    }

    /// Waits for room. An edit larger than the whole queue waits until the queue is empty.
    ///
    /// # Errors
    /// [`Error::NoRoom`] while the disk is full; otherwise the error that ended the log.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Permit<'_>> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(room) = self.room.acquire_many(bytes.min(self.room_bytes_max)).await else {
            return Err(self.refusal());
        };
        // Checked last: the bytes that just became free may be all the room that is reserved on the
        // disk.
        match &self.state.lock().disk_full {
            Some(error) => Err(Error::NoRoom(Arc::clone(error))),
            None => Ok(Permit { queue: self, room }),
        }
    }

    /// Records that the disk has no room for further permits, or with `None` that it has room
    /// again.
    pub(super) fn set_disk_full(&self, full: Option<Arc<basalt_fs::Error>>) {
        self.state.lock().disk_full = full;
    }

    fn push(
        &self,
        edit: &EncodedEdit,
        sequence_id: SequenceId,
        durability: Durability,
        room: SemaphorePermit<'_>,
    ) -> Ticket {
        let mut state = self.state.lock();
        if let Some(error) = &state.refused {
            let outcome = SyncOutcome::default();
            outcome.set(Err(error.clone()));
            return Ticket { outcome };
        }
        let batch = &mut state.pending;
        let bytes = edit.record_bytes();
        let reserved = room.num_permits();
        room.forget();
        batch.room_bytes += reserved + self.room.forget_permits(bytes.saturating_sub(reserved));
        edit.put(sequence_id, &mut batch.bytes);
        batch.touched.push(Touched { region: edit.region(), sequence_id, bytes: bytes as u64 });
        batch.durability = batch.durability.max(durability);
        let first = batch.touched.len() == 1;
        let outcome = Arc::clone(&batch.outcome);
        drop(state);
        if first {
            self.work.notify_one();
        }
        Ticket { outcome }
    }

    /// Asks the writer to begin a new file.
    pub(super) fn ask_roll(&self) -> SyncOutcome {
        let mut state = self.state.lock();
        if let Some(error) = &state.refused {
            let outcome = SyncOutcome::default();
            outcome.set(Err(error.clone()));
            return outcome;
        }
        let outcome = Arc::clone(state.roll.get_or_insert_default());
        drop(state);
        self.work.notify_one();
        outcome
    }

    /// Asks the writer to write what was added and end. No more edits are accepted.
    pub(super) fn ask_close(&self) {
        {
            let mut state = self.state.lock();
            state.close = true;
            state.refused.get_or_insert(Error::Closed);
        }
        self.room.close();
        self.work.notify_one();
    }

    /// Waits for work for the writer. Cancel-safe: no work is lost.
    pub(super) async fn next_work(&self) -> Work {
        loop {
            if let Some(work) = self.take_work() {
                return work;
            }
            self.work.notified().await;
            // Lets tasks that are about to add an edit run first: one batch for all of them.
            yield_now().await;
        }
    }

    fn take_work(&self) -> Option<Work> {
        let mut state = self.state.lock();
        if state.pending.touched.is_empty() && state.roll.is_none() && !state.close {
            return None;
        }
        let batch = (!state.pending.touched.is_empty()).then(|| {
            let next = Batch::with_capacity(state.pending.bytes.len());
            std::mem::replace(&mut state.pending, next)
        });
        Some(Work { batch, roll: state.roll.take(), close: state.close })
    }

    /// Reports to all waiters of `batch` that it is durable.
    pub(super) fn settle(&self, batch: &Batch) {
        batch.outcome.set(Ok(()));
        self.room.add_permits(batch.room_bytes);
    }

    /// The writer cannot continue: fails the edits and rolls that it has taken, and all others.
    pub(super) fn fail<'a>(&self, taken: impl Iterator<Item = &'a SyncOutcome>, error: &Error) {
        for outcome in taken {
            outcome.set(Err(error.clone()));
        }
        self.refuse(error);
        self.failure.set(error.clone());
    }

    /// The writer has ended. `clean`: everything that was added is durable.
    pub(super) fn end(&self, clean: bool) {
        self.refuse(&self.refusal());
        if !clean {
            self.failure.set(self.refusal());
        }
        self.ended.set(());
    }

    /// Accepts no more edits, and fails all waiters.
    fn refuse(&self, error: &Error) {
        let (batch, roll) = {
            let mut state = self.state.lock();
            state.refused = Some(error.clone());
            (std::mem::take(&mut state.pending), state.roll.take())
        };
        self.room.close();
        batch.outcome.set(Err(error.clone()));
        if let Some(roll) = roll {
            roll.set(Err(error.clone()));
        }
    }

    /// Why no more edits are accepted.
    pub(super) fn refusal(&self) -> Error {
        self.state.lock().refused.clone().unwrap_or(Error::Closed)
    }

    /// How many bytes are reserved or being written.
    pub(super) fn queued_bytes(&self) -> usize {
        (self.room_bytes_max as usize).saturating_sub(self.room.available_permits())
    }
}

// === impl Batch ===

impl Batch {
    fn with_capacity(bytes: usize) -> Self {
        /// Batches are rarely larger; a larger one grows.
        const CAPACITY_BYTES_MAX: usize = 1 << 20;
        let capacity = bytes.clamp(BATCH_HEADER_BYTES, CAPACITY_BYTES_MAX);
        let mut bytes = BytesMut::with_capacity(capacity);
        bytes.resize(BATCH_HEADER_BYTES, 0);
        Self {
            bytes,
            touched: Vec::new(),
            outcome: SyncOutcome::default(),
            durability: Durability::default(),
            room_bytes: 0,
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Drop for Batch {
    /// Fails a batch whose writer is gone. A batch that has an outcome already keeps it.
    fn drop(&mut self) {
        self.outcome.set(Err(Error::Closed));
    }
}

// === impl Permit ===

impl Permit<'_> {
    /// Adds the edit to the log, after all edits added before. Never blocks.
    ///
    /// The edit should not be longer than the reserved bytes. If it is, the queue may exceed its
    /// bound by the difference.
    pub fn append(
        self,
        edit: &EncodedEdit,
        sequence_id: SequenceId,
        durability: Durability,
    ) -> Ticket {
        self.queue.push(edit, sequence_id, durability, self.room)
    }
}

// === impl Ticket ===

impl Ticket {
    /// Waits until the edit is durable. After an error it may or may not be durable: the server
    /// must end.
    ///
    /// # Errors
    /// The error that ended the log; [`Error::Closed`] if it was closed before the edit was added.
    pub async fn synced(&self) -> Result<()> {
        self.outcome.wait().await
    }

    /// Whether the edit is already known to be durable.
    pub fn is_synced(&self) -> bool {
        matches!(self.outcome.get(), Some(Ok(())))
    }
}
