//! The Raft log on disk: segments of frames, written by one task, synced in groups.
//!
//! ```text
//! <folder>/log-00000000000000000007
//! frame: | length u32 | crc32c u32 | offset u64 | records … |
//! ```
//!
//! A frame holds the records that were written between two syncs. Each record is a `LogRecord`
//! message, preceded by its length. The length in the frame counts the records, the checksum covers
//! the offset and the records, and the offset is the position in the file where the frame begins.
//! Numbers are big endian.
//!
//! **A valid frame at offset n proves that everything below n was synced**, because a frame is
//! written only after the previous one was synced. Damage with a valid frame after it is therefore
//! corruption, and the log is rejected. Damage at the very end is a write that was cut off, and was
//! never acknowledged. Each start opens a new segment, whose header says how much of the last one
//! counts.
//!
//! All entries that are not in a snapshot, and some that are, stay in memory too: a coordinator's
//! log is small, and its followers read it all the time.

mod frame;
mod memory;
mod recovery;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::ensemble::EnsembleId;
use crate::raft::log::memory::Memory;
use crate::raft::log::writer::{Completion, Room, Write};
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
use crate::wire::{entry_to_wire, log_id_to_wire, v1, vote_to_wire};

pub(crate) use recovery::open;
pub(crate) use writer::Writer;

/// The log, as openraft uses it. Clones share one log.
#[derive(Clone)]
pub(crate) struct Log {
    memory: Arc<RwLock<Memory>>,
    durable_entries: Arc<AtomicU64>,
    room: Arc<Room>,
    writes: mpsc::Sender<Write>,
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system failed.
    #[error(transparent)]
    File(#[from] basalt_fs::Error),
    /// Bytes that had been synced differ from what was written.
    #[error(
        "{}: damaged at byte {offset}, and later data proves that those bytes had been synced: \
         acknowledged changes may be lost. If the other members are healthy, stop this member, \
         move its data folder away and start it with an empty one", .path.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the first bad frame begins.
        offset: u64,
    },
    /// A segment is missing.
    #[error(
        "{}: the log continues after this file, but the file is missing. Restore it, or, if the \
         other members are healthy, move this member's data folder away and start it with an \
         empty one",
        .path.display()
    )]
    Missing {
        /// The segment.
        path: PathBuf,
    },
    /// A frame is whole, but its contents are invalid: another release wrote it, or there is a bug.
    #[error("{}: the frame at byte {offset} holds {problem}", .path.display())]
    Senseless {
        /// The segment.
        path: PathBuf,
        /// Where the frame begins.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// How many bytes of entries one read returns at most. It always returns at least one entry.
const READ_BYTES_MAX: usize = 4 << 20;

// === impl Log ===

impl Log {
    /// Passes a record to the writer, and waits until it is synced.
    async fn write_and_sync(&self, record: v1::log_record::Record) -> io::Result<()> {
        let (sender, synced) = oneshot::channel();
        self.write(vec![record], Completion::Wait(sender)).await?;
        synced.await.unwrap_or_else(|_| Err(writer_gone()))
    }

    /// How many entries the log has, purged ones included, up to the last durable one.
    pub(crate) fn durable_entries(&self) -> u64 {
        self.durable_entries.load(Ordering::Acquire)
    }

    /// The disk space that is left for the log.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// Records that the log belongs to `ensemble` from now on: a new segment begins that names it.
    /// Does not wait for the segment: later writes come after it, and its failure ends the writer.
    pub(crate) async fn begin_ensemble(&self, ensemble: EnsembleId) -> io::Result<()> {
        let write =
            Write { records: Vec::new(), completion: Completion::Nobody, ensemble: Some(ensemble) };
        self.writes.send(write).await.map_err(|_| writer_gone())
    }

    /// The term of the stored vote.
    pub(crate) fn term(&self) -> u64 {
        self.memory.read().vote().map_or(0, |vote| vote.leader_id.term)
    }

    /// Whether nothing was ever appended.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory.read().last().is_none()
    }

    /// About how many bytes of entries are in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.read().bytes()
    }

    async fn write(
        &self,
        records: Vec<v1::log_record::Record>,
        completion: Completion,
    ) -> io::Result<()> {
        let write = Write { records, completion, ensemble: None };
        self.writes.send(write).await.map_err(|_| writer_gone())
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.memory.read().entries(range, usize::MAX))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.memory.read().vote())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        Ok(self.memory.read().entries(start..end, READ_BYTES_MAX))
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let memory = self.memory.read();
        Ok(LogState { last_purged_log_id: memory.purged(), last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.memory.write().set_vote(*vote);
        self.write_and_sync(v1::log_record::Record::Vote(vote_to_wire(*vote))).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let records = entries
            .iter()
            .map(|entry| v1::log_record::Record::Entry(entry_to_wire(entry.clone())))
            .collect();
        // The entries are readable before they are durable: replication to followers does not wait
        // for our disk.
        self.memory.write().append(entries);
        self.write(records, Completion::Raft(callback)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.memory.write().truncate_after(last.as_ref());
        let truncation = v1::Truncation { keep: last.map(log_id_to_wire) };
        self.write_and_sync(v1::log_record::Record::Truncation(truncation)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.memory.write().purge(upto);
        self.write(vec![v1::log_record::Record::Purge(log_id_to_wire(upto))], Completion::Nobody)
            .await
    }
}

fn writer_gone() -> io::Error {
    io::Error::other("the log's writer has stopped")
}
