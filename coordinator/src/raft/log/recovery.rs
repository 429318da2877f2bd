//! Opens the log: reads the segments, decides where the log ends, and begins a new segment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use basalt_fs::SharedFileSystem;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::raft::log::frame::{self, Found};
use crate::raft::log::memory::Memory;
use crate::raft::log::writer::{Closed, Room, Writer};
use crate::raft::log::{Log, LogError};
use crate::wire::v1::log_record::Record;
use crate::wire::{
    entry_from_wire, log_id_from_wire, log_id_to_wire, v1, vote_from_wire, vote_to_wire,
};

/// An open log.
pub(crate) struct Opened {
    /// The log.
    pub(crate) log: Log,
    /// Writes the log. The caller must run it.
    pub(crate) writer: Writer,
    /// The life of this member that begins with this start.
    pub(crate) life: u64,
    /// The ensembles that its segments name.
    pub(crate) ensembles: Vec<Bytes>,
}

/// A segment that was read.
struct Segment {
    number: u64,
    path: PathBuf,
    bytes: Bytes,
    frames: Vec<(u64, Vec<v1::LogRecord>)>,
    /// Where its whole frames end.
    length: u64,
}

/// The combined contents of the segments.
#[derive(Default)]
struct Replayed {
    memory: Memory,
    closed: Vec<Closed>,
    life: u64,
    ensembles: Vec<Bytes>,
}

/// The longest segment that is read: the longest that the writer makes, with room for one more
/// frame.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// How many writes may wait for the disk.
const WRITES_WAITING_MAX: usize = 1024;

/// Opens the log in `folder`. `wall_ms` is the current time, so that even a member that lost its
/// disk begins a later life than any that it had.
///
/// # Errors
/// See [`LogError`]. A write that was cut off at the end is not an error: it is ignored and logged.
pub(crate) async fn open(
    files: SharedFileSystem,
    folder: &Path,
    wall_ms: u64,
) -> Result<Opened, LogError> {
    files.create_directories(folder).await?;
    let segments = read_segments(&files, folder).await?;
    let (last_number, last_length) =
        segments.last().map_or((0, 0), |last| (last.number, last.length));
    let replayed = Replayed::replay_all(&segments)?;
    let life = wall_ms.max(replayed.life.saturating_add(1));
    let header = v1::SegmentHeader {
        number: last_number + 1,
        previous_length: last_length,
        vote: replayed.memory.vote().map(vote_to_wire),
        purged: replayed.memory.purged().map(log_id_to_wire),
        life,
        ensemble: replayed.ensembles.last().cloned().unwrap_or_default(),
    };
    let durable_entries = Arc::new(AtomicU64::new(replayed.memory.next_index()));
    let memory = Arc::new(RwLock::new(replayed.memory));
    let (writes, queue) = mpsc::channel(WRITES_WAITING_MAX);
    let durable = Arc::clone(&durable_entries);
    let room = Arc::<Room>::default();
    let (closed, shared) = (replayed.closed, Arc::clone(&room));
    let writer = Writer::begin(files, folder, header, closed, queue, durable, shared).await?;
    let log = Log { memory, durable_entries, room, writes };
    Ok(Opened { log, writer, life, ensembles: replayed.ensembles })
}

pub(super) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("log-{number:020}"))
}

async fn read_segments(files: &SharedFileSystem, folder: &Path) -> Result<Vec<Segment>, LogError> {
    let mut segments: Vec<Segment> = Vec::new();
    for entry in files.list(folder).await? {
        let Some(number) =
            entry.name.strip_prefix("log-").and_then(|number| number.parse::<u64>().ok())
        else {
            continue;
        };
        if let Some(last) = segments.last()
            && last.number + 1 != number
        {
            let path = segment_path(folder, last.number + 1);
            return Err(LogError::Missing { path });
        }
        let path = segment_path(folder, number);
        let bytes = files.read_whole(&path, SEGMENT_BYTES_MAX).await?;
        segments.push(Segment::read(number, path, bytes)?);
    }
    settle_ends(files, segments).await
}

/// Decides where each segment ends. A segment with a successor ends where the successor's header
/// says. The last segment ends with its whole frames, and is damaged if a frame after them proves
/// that more had been synced.
async fn settle_ends(
    files: &SharedFileSystem,
    mut segments: Vec<Segment>,
) -> Result<Vec<Segment>, LogError> {
    // A segment whose header never reached the disk was never used.
    while let Some(last) = segments.pop_if(|last| last.frames.is_empty()) {
        last.check_nothing_synced_above()?;
        files.delete_file(&last.path).await?;
    }
    for index in 0..segments.len() {
        let following = segments.get(index + 1).map(Segment::header).transpose()?;
        let Some(segment) = segments.get_mut(index) else {
            break;
        };
        match following {
            Some(header) => segment.cut_to(header.previous_length)?,
            None => {
                segment.check_nothing_synced_above()?;
                let torn_bytes = segment.bytes.len() as u64 - segment.length;
                if torn_bytes > 0 {
                    tracing::warn!(
                        segment = %segment.path.display(),
                        torn_bytes,
                        "ignored the end of the log: its last write was cut off"
                    );
                }
            }
        }
    }
    Ok(segments)
}

// === impl Segment ===

impl Segment {
    fn read(number: u64, path: PathBuf, bytes: Bytes) -> Result<Self, LogError> {
        let mut frames = Vec::new();
        let mut length = 0;
        while let Found::Frame(found) = frame::read(&bytes, length) {
            let records = frame::records(&found)
                .map_err(|error| senseless(&path, length, error.to_string()))?;
            frames.push((length, records));
            length = found.end;
        }
        Ok(Self { number, path, bytes, frames, length })
    }

    fn header(&self) -> Result<v1::SegmentHeader, LogError> {
        let first = self.frames.first().and_then(|(_, records)| records.first());
        match first.and_then(|record| record.record.as_ref()) {
            Some(Record::Header(header)) if header.number == self.number => Ok(header.clone()),
            Some(_) => Err(senseless(&self.path, 0, "no header of this segment")),
            // There are segments after it, so it cannot be one that was never used.
            None => Err(LogError::Damaged { path: self.path.clone(), offset: 0 }),
        }
    }

    fn cut_to(&mut self, length: u64) -> Result<(), LogError> {
        if self.length < length {
            return Err(LogError::Damaged { path: self.path.clone(), offset: self.length });
        }
        self.frames.retain(|(offset, _)| *offset < length);
        self.length = length;
        Ok(())
    }

    fn check_nothing_synced_above(&self) -> Result<(), LogError> {
        if frame::any_above(&self.bytes, self.length) {
            return Err(LogError::Damaged { path: self.path.clone(), offset: self.length });
        }
        Ok(())
    }
}

// === impl Replayed ===

impl Replayed {
    fn replay_all(segments: &[Segment]) -> Result<Self, LogError> {
        let mut replayed = Self::default();
        // Learn what was purged before anything is replayed. The segments that held it may be gone,
        // and then the remaining entries do not begin where an older header says.
        for segment in segments {
            for record in segment.frames.iter().flat_map(|(_, records)| records) {
                let purged = match &record.record {
                    Some(Record::Header(header)) => header.purged,
                    Some(Record::Purge(upto)) => Some(*upto),
                    _ => None,
                };
                if let Some(purged) = purged {
                    replayed.memory.purge(log_id_from_wire(purged));
                }
            }
        }
        for segment in segments {
            replayed.replay(segment)?;
        }
        Ok(replayed)
    }

    fn replay(&mut self, segment: &Segment) -> Result<(), LogError> {
        let header = segment.header()?;
        self.life = self.life.max(header.life);
        if !header.ensemble.is_empty() && self.ensembles.last() != Some(&header.ensemble) {
            self.ensembles.push(header.ensemble);
        }
        let mut last_index = None;
        for (offset, records) in &segment.frames {
            for record in records {
                let index = self
                    .replay_record(record.record.clone())
                    .map_err(|problem| senseless(&segment.path, *offset, problem))?;
                last_index = last_index.max(index);
            }
        }
        self.closed.push(Closed { path: segment.path.clone(), last_index });
        Ok(())
    }

    /// Replays one record. Returns the index if it is an entry.
    fn replay_record(&mut self, record: Option<Record>) -> Result<Option<u64>, String> {
        match record {
            Some(Record::Header(header)) => {
                // The values that the header repeats matter if the segments before it are gone.
                if let Some(vote) = header.vote {
                    self.memory.set_vote(vote_from_wire(vote));
                }
            }
            Some(Record::Entry(entry)) => {
                let entry = entry_from_wire(entry).map_err(|malformed| malformed.to_string())?;
                let (index, next) = (entry.log_id.index, self.memory.next_index());
                if self.memory.purged().is_some_and(|purged| index <= purged.index) {
                    return Ok(Some(index));
                }
                if index != next {
                    return Err(format!("entry {index} where entry {next} is expected"));
                }
                self.memory.append(vec![entry]);
                return Ok(Some(index));
            }
            Some(Record::Vote(vote)) => self.memory.set_vote(vote_from_wire(vote)),
            Some(Record::Truncation(truncation)) => {
                let keep = truncation.keep.map(log_id_from_wire);
                self.memory.truncate_after(keep.as_ref());
            }
            // Already known from `replay_all`.
            Some(Record::Purge(_)) => {}
            None => return Err("a record that this release does not know".to_owned()),
        }
        Ok(None)
    }
}

fn senseless(path: &Path, offset: u64, problem: impl Into<String>) -> LogError {
    LogError::Senseless { path: path.to_owned(), offset, problem: problem.into() }
}
