//! The task that writes the log: takes all waiting records, writes them as one frame, and syncs
//! once.
//!
//! Disk space for future records is always reserved in the segment, so that a full disk ends
//! neither the leases nor the sessions whose renewals the log records. While no more space can be
//! reserved, the reserved space is used up. The last part of it is for the sessions that hold
//! leases. After that, writes wait until there is space.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use basalt_fs::{AppendFile, SharedFileSystem};
use basalt_planted::{Rule, is_off};
use basalt_runtime::Shutdown;
use openraft::storage::IOFlushed;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::ensemble::EnsembleId;
use crate::raft::log::frame;
use crate::raft::log::recovery::segment_path;
use crate::raft::types::TypeConfig;
use crate::room::{ROOM_PAUSE, RoomWait};
use crate::wire::v1::{self, log_record::Record};

/// Records to be written together.
pub(super) struct Write {
    pub(super) records: Vec<Record>,
    pub(super) completion: Completion,
    /// If set, a new segment begins after the records and names this ensemble.
    pub(super) ensemble: Option<EnsembleId>,
}

/// Who is notified that records are synced.
pub(super) enum Completion {
    Raft(IOFlushed<TypeConfig>),
    Wait(oneshot::Sender<io::Result<()>>),
    Nobody,
}

/// A segment that is no longer written.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) path: PathBuf,
    /// The highest index of its entries.
    pub(super) last_index: Option<u64>,
}

/// Writes the log. Ends when the log has been dropped, or at the first error of the disk. After an
/// error, the contents of the disk are unknown, and only a restart can determine them.
pub(crate) struct Writer {
    files: SharedFileSystem,
    folder: PathBuf,
    queue: mpsc::Receiver<Write>,
    file: Box<dyn AppendFile>,
    /// The values that the next segment's header must repeat.
    header: v1::SegmentHeader,
    last_index: Option<u64>,
    closed: VecDeque<Closed>,
    /// How many entries the log has, purged ones included, once everything taken from the queue is
    /// durable. `durable_entries` counts those that are durable now.
    entries: u64,
    durable_entries: Arc<AtomicU64>,
    /// Disk space is reserved for the segment up to this offset.
    reserved: u64,
    /// When the disk was last checked, while it is full.
    full_since_look: Option<Instant>,
    wait: RoomWait,
    room: Arc<Room>,
}

/// How much of the reserved space is left for the log, once the disk is full.
#[derive(Debug)]
pub(crate) struct Room {
    /// `u64::MAX` while the disk has room.
    left_bytes: AtomicU64,
    /// Whether a write waits for space.
    is_used_up: AtomicBool,
    /// Cancelled when the member stops: writes then wait no longer.
    stopping: Shutdown,
}

/// How many bytes are reserved in a segment for future records: enough for thousands of renewals,
/// and negligible on a disk.
const RESERVE_BYTES: u64 = 8 << 20;
/// How much of it is for sessions that hold ephemeral nodes, as the holders of leases do.
const LEASES_BYTES: u64 = 6 << 20;
/// How much is reserved at once, beyond the required amount.
const RESERVE_STEP_BYTES: u64 = 1 << 20;
/// A segment is closed when it is longer than this.
const SEGMENT_BYTES: u64 = 32 << 20;
/// No more writes are added to a frame that is longer than this.
const FRAME_BYTES: usize = 4 << 20;

// === impl Room ===

impl Default for Room {
    fn default() -> Self {
        Self {
            left_bytes: AtomicU64::new(u64::MAX),
            is_used_up: AtomicBool::new(false),
            stopping: Shutdown::new(),
        }
    }
}

impl Room {
    /// Whether the disk is full, and the remaining space, if any, is for the sessions that hold
    /// leases.
    pub(crate) fn is_for_leases(&self) -> bool {
        let is_short = self.left_bytes.load(Ordering::Relaxed) < LEASES_BYTES || self.is_used_up();
        is_short && !is_off(Rule::RoomForLeases)
    }

    /// Whether no space is left, so that the log accepts nothing for now.
    pub(crate) fn is_used_up(&self) -> bool {
        self.is_used_up.load(Ordering::Relaxed)
    }

    /// Makes writes that wait for space fail, now and from now on.
    pub(crate) fn stop_waiting(&self) {
        self.stopping.cancel();
    }
}

// === impl Writer ===

impl Writer {
    /// Begins the segment of `header`, once the disk has room for it.
    pub(super) async fn begin(
        files: SharedFileSystem,
        folder: &Path,
        header: v1::SegmentHeader,
        closed: Vec<Closed>,
        queue: mpsc::Receiver<Write>,
        durable_entries: Arc<AtomicU64>,
        room: Arc<Room>,
    ) -> basalt_fs::Result<Self> {
        let mut wait = RoomWait::new("a segment of the log");
        let file = loop {
            match begin_segment(&files, folder, &header).await {
                Ok(file) => break file,
                Err(error) => wait.after(error).await?,
            }
        };
        Ok(Self {
            files,
            folder: folder.to_owned(),
            queue,
            file,
            header,
            last_index: None,
            closed: closed.into(),
            entries: durable_entries.load(Ordering::Acquire),
            durable_entries,
            reserved: RESERVE_BYTES,
            full_since_look: None,
            wait: RoomWait::new("the log. This member does not participate until there is some"),
            room,
        })
    }

    /// Writes until the log is dropped.
    ///
    /// # Errors
    /// The disk failed, or was full when the member stopped. Waiting callers get the error as well.
    pub(crate) async fn run(mut self) -> basalt_fs::Result<()> {
        let mut completions = Vec::new();
        loop {
            let first = match self.full_since_look {
                None => self.queue.recv().await,
                // Check for space even if nobody writes anything in the meantime.
                Some(_) => match timeout(ROOM_PAUSE, self.queue.recv()).await {
                    Ok(first) => first,
                    Err(_) => {
                        self.look_for_room().await?;
                        continue;
                    }
                },
            };
            let Some(first) = first else { return Ok(()) };
            let (records, ensemble) = self.take_waiting(first, &mut completions);
            let written = self.write(records, ensemble).await;
            let failure = written.as_ref().err().map(ToString::to_string);
            for completion in completions.drain(..) {
                completion.complete(failure.clone());
            }
            written?;
            self.delete_purged().await?;
        }
    }

    fn take_waiting(
        &mut self,
        first: Write,
        completions: &mut Vec<Completion>,
    ) -> (Vec<v1::LogRecord>, Option<EnsembleId>) {
        let mut records = Vec::new();
        let mut ensemble = None;
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(write) = next {
            for record in write.records {
                self.note(&record);
                let record = v1::LogRecord { record: Some(record) };
                bytes += record.encoded_len();
                records.push(record);
            }
            completions.push(write.completion);
            ensemble = write.ensemble;
            next = match bytes < FRAME_BYTES && ensemble.is_none() {
                true => self.queue.try_recv().ok(),
                false => None,
            };
        }
        (records, ensemble)
    }

    /// Remembers what a later header must repeat.
    fn note(&mut self, record: &Record) {
        match record {
            Record::Vote(vote) => self.header.vote = Some(*vote),
            Record::Purge(upto) => {
                self.header.purged = Some(*upto);
                self.entries = self.entries.max(upto.index.saturating_add(1));
            }
            Record::Entry(entry) => {
                let index = entry.id.as_ref().map(|id| id.index);
                self.last_index = self.last_index.max(index);
                self.entries = index.map_or(self.entries, |index| index.saturating_add(1));
            }
            Record::Truncation(truncation) => {
                let keep = truncation.keep.as_ref();
                self.entries = keep.map_or(0, |keep| keep.index.saturating_add(1));
            }
            Record::Header(_) => {}
        }
    }

    async fn write(
        &mut self,
        records: Vec<v1::LogRecord>,
        ensemble: Option<EnsembleId>,
    ) -> basalt_fs::Result<()> {
        for records in frame::split(&records) {
            let frame = frame::encode(self.file.length(), records);
            self.have_room(frame.len() as u64).await?;
            self.file.append_and_sync(frame).await?;
        }
        self.durable_entries.store(self.entries, Ordering::Release);
        if let Some(ensemble) = ensemble {
            self.header.ensemble = ensemble.to_bytes();
            // The new segment must be durable before anything is written after it.
            while let Err(error) = self.roll().await {
                self.wait_for_room(error).await?;
            }
        }
        self.room.is_used_up.store(false, Ordering::Relaxed);
        if let Some(look) = self.full_since_look {
            self.note_room_left();
            if look.elapsed() < ROOM_PAUSE {
                return Ok(());
            }
        }
        self.look_for_room().await
    }

    /// Reserves space for future records, and begins the next segment when that is due. Records
    /// whether the disk is full.
    async fn look_for_room(&mut self) -> basalt_fs::Result<()> {
        let mut kept = self.keep_room().await;
        if kept.is_ok() && self.file.length() > SEGMENT_BYTES {
            kept = match self.roll().await {
                Ok(()) => self.keep_room().await,
                full => full,
            };
        }
        match kept {
            Ok(()) => {
                if self.full_since_look.take().is_some() {
                    self.room.left_bytes.store(u64::MAX, Ordering::Relaxed);
                    tracing::info!(folder = %self.folder.display(), "the disk has space again");
                }
            }
            Err(error) if error.is_storage_full() => {
                let left_bytes = self.note_room_left();
                let is_for_leases = self.room.is_for_leases();
                tracing::warn!(
                    %error,
                    left_bytes,
                    is_for_leases,
                    "the disk is full: the reserved space is used up, its end by the sessions that \
                     hold leases"
                );
                self.full_since_look = Some(Instant::now());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits until the segment has space for `bytes` more. Without space, a write would leave a
    /// part of itself on the disk, and end the member.
    async fn have_room(&mut self, bytes: u64) -> basalt_fs::Result<()> {
        while self.file.length() + bytes > self.reserved && !is_off(Rule::LogWaitsForRoom) {
            match self.file.reserve(bytes).await {
                Ok(()) => self.reserved = self.file.length() + bytes,
                Err(error) => self.wait_for_room(error).await?,
            }
        }
        Ok(())
    }

    /// Waits a while for space, if `error` says that there is none. Others can see that the log
    /// waits.
    async fn wait_for_room(&mut self, error: basalt_fs::Error) -> basalt_fs::Result<()> {
        if !error.is_storage_full() || self.room.stopping.is_cancelled() {
            return Err(error);
        }
        self.note_room_left();
        self.full_since_look = Some(Instant::now());
        self.room.is_used_up.store(true, Ordering::Relaxed);
        let room = Arc::clone(&self.room);
        // If the member stops, the next attempt fails.
        let waited = room.stopping.run_until_cancelled(self.wait.after(error)).await;
        waited.unwrap_or(Ok(()))
    }

    /// Publishes how much of the reserved space is left, and returns it.
    fn note_room_left(&self) -> u64 {
        let left_bytes = self.reserved.saturating_sub(self.file.length());
        self.room.left_bytes.store(left_bytes, Ordering::Relaxed);
        left_bytes
    }

    async fn keep_room(&mut self) -> basalt_fs::Result<()> {
        let needed = self.file.length() + RESERVE_BYTES;
        if needed > self.reserved {
            self.file.reserve(RESERVE_BYTES + RESERVE_STEP_BYTES).await?;
            self.reserved = needed + RESERVE_STEP_BYTES;
        }
        Ok(())
    }

    /// Begins the next segment. If the disk has no room for it, this one stays in use.
    async fn roll(&mut self) -> basalt_fs::Result<()> {
        let header = v1::SegmentHeader {
            number: self.header.number + 1,
            previous_length: self.file.length(),
            ..self.header.clone()
        };
        let next = begin_segment(&self.files, &self.folder, &header).await?;
        self.closed.push_back(Closed {
            path: segment_path(&self.folder, self.header.number),
            last_index: self.last_index.take(),
        });
        (self.file, self.header, self.reserved) = (next, header, RESERVE_BYTES);
        Ok(())
    }

    /// Deletes the oldest segments whose entries are all in a snapshot. Their votes and purges are
    /// repeated in the header of a later segment, which is durable.
    async fn delete_purged(&mut self) -> basalt_fs::Result<()> {
        let Some(purged) = self.header.purged else {
            return Ok(());
        };
        while let Some(oldest) = self
            .closed
            .pop_front_if(|oldest| oldest.last_index.is_none_or(|last| last <= purged.index))
        {
            self.files.delete_file(&oldest.path).await?;
        }
        Ok(())
    }
}

async fn begin_segment(
    files: &SharedFileSystem,
    folder: &Path,
    header: &v1::SegmentHeader,
) -> basalt_fs::Result<Box<dyn AppendFile>> {
    let path = segment_path(folder, header.number);
    let mut file = files.create(&path).await?;
    if let Err(error) = file.reserve(RESERVE_BYTES).await {
        drop(file);
        files.delete_file(&path).await?;
        return Err(error);
    }
    let record = v1::LogRecord { record: Some(Record::Header(header.clone())) };
    let begun = async {
        file.append_and_sync(frame::encode(0, &[record])).await?;
        files.sync_directory(folder).await
    };
    // From here on the segment may count, and it says where the one before ends. So that one cannot
    // be continued, and even a full disk must end the writer.
    begun.await.map_err(|error| basalt_fs::Error::Io {
        path,
        operation: "begin the segment",
        source: io::Error::other(error.to_string()),
    })?;
    Ok(file)
}

// === impl Completion ===

impl Completion {
    fn complete(self, failure: Option<String>) {
        let outcome = failure.map_or(Ok(()), |failure| Err(io::Error::other(failure)));
        match self {
            Self::Raft(callback) => callback.io_completed(outcome),
            Self::Wait(waiter) => {
                // The waiting caller may have given up.
                let _given_up = waiter.send(outcome);
            }
            Self::Nobody => {}
        }
    }
}
