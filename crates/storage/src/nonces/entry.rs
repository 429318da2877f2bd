//! The record of a finished operation, and where its answer is kept.
//!
//! ```text
//! entry │ u64 group │ u64 nonce │ u64 sequence id │ u64 time ms │ answer │
//! answer│ u16 length │ kept cells…      a small one; at most 256 bytes of cells
//!       │ u16 0xffff │ i64 lowest timestamp │ i64 highest timestamp │     any other
//! cell  │ u16 length │ the cell with its tags │
//! ```
//! All numbers are big endian.

use basalt_model::{Cell, SequenceId};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::ANSWER_BYTES_MAX;
use crate::wal::Nonce;

/// Takes the place of the length of an answer that is in the region.
const IN_REGION: u16 = u16::MAX;
/// The longest kept answer, in bytes: the shortest cell takes 20 bytes, so there are at most 12
/// lengths.
const KEPT_BYTES_MAX: usize = ANSWER_BYTES_MAX + 2 * (ANSWER_BYTES_MAX / 20);
/// The longest entry, in bytes.
pub(super) const ENTRY_BYTES_MAX: usize = 32 + 2 + KEPT_BYTES_MAX;

/// A finished operation and its answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NonceEntry {
    /// The client's nonce for the operation.
    pub nonce: Nonce,
    /// The sequence id of the operation's edit.
    pub sequence_id: SequenceId,
    /// The time of the operation by the server's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// The answer of the operation.
    pub answer: Answer,
}

/// The cells that an operation answered with, or where to find them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The cells, encoded as in an entry of a file.
    Kept(Box<[u8]>),
    /// The cells are in the region: those with the operation's sequence id and timestamps in this
    /// range, while they are there.
    InRegion {
        /// The lowest timestamp.
        lowest: i64,
        /// The highest timestamp.
        highest: i64,
    },
}

/// How an entry is stored in manifests of releases that had no nonce files.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NonceMessage {
    #[prost(fixed64, tag = "1")]
    group: u64,
    #[prost(fixed64, tag = "2")]
    nonce: u64,
    #[prost(uint64, tag = "3")]
    sequence_id: u64,
    #[prost(uint64, tag = "4")]
    at_ms: u64,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    result: Vec<Bytes>,
    /// The timestamps of an answer that is in the region.
    #[prost(message, optional, tag = "6")]
    in_region: Option<TimestampsMessage>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct TimestampsMessage {
    #[prost(sint64, tag = "1")]
    lowest: i64,
    #[prost(sint64, tag = "2")]
    highest: i64,
}

// === impl Answer ===

impl Answer {
    /// Keeps `cells` if they are small; otherwise keeps only where to find them.
    pub fn of(cells: &[Cell]) -> Self {
        let bytes: usize = cells.iter().map(|cell| cell.bytes().len()).sum();
        if bytes > ANSWER_BYTES_MAX {
            let timestamps = || cells.iter().map(Cell::timestamp);
            return Self::InRegion {
                lowest: timestamps().min().unwrap_or_default(),
                highest: timestamps().max().unwrap_or_default(),
            };
        }
        let mut kept = Vec::with_capacity(bytes + 2 * cells.len());
        for cell in cells {
            kept.put_u16(cell.bytes().len() as u16);
            kept.put_slice(cell.bytes());
        }
        Self::Kept(kept.into_boxed_slice())
    }

    /// The cells of a kept answer; `None` if they are in the region.
    ///
    /// # Errors
    /// If the kept bytes are not what was written.
    pub fn cells(&self, sequence_id: SequenceId) -> Result<Option<Vec<Cell>>, String> {
        let Self::Kept(kept) = self else { return Ok(None) };
        let mut rest = Bytes::copy_from_slice(kept);
        let mut cells = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(rest.try_get_u16().map_err(|error| error.to_string())?);
            if length > rest.len() {
                return Err(format!("a cell of {length} bytes, but {} are left", rest.len()));
            }
            let cell = Cell::from_bytes(rest.split_to(length), sequence_id);
            cells.push(cell.map_err(|error| error.to_string())?);
        }
        Ok(Some(cells))
    }

    /// The size of the kept answer in memory, in bytes.
    pub(super) fn kept_bytes(&self) -> usize {
        match self {
            Self::Kept(kept) => kept.len(),
            Self::InRegion { .. } => 0,
        }
    }
}

// === impl NonceEntry ===

impl NonceEntry {
    pub(super) fn put(&self, output: &mut BytesMut) {
        output.put_u64(self.nonce.group);
        output.put_u64(self.nonce.nonce);
        output.put_u64(self.sequence_id.0);
        output.put_u64(self.at_ms);
        match &self.answer {
            Answer::Kept(kept) => {
                output.put_u16(kept.len() as u16);
                output.put_slice(kept);
            }
            Answer::InRegion { lowest, highest } => {
                output.put_u16(IN_REGION);
                output.put_i64(*lowest);
                output.put_i64(*highest);
            }
        }
    }

    /// Removes the first entry from `rest` and returns it.
    pub(super) fn take(rest: &mut Bytes) -> Result<Self, String> {
        let mut read = || {
            let nonce = Nonce { group: rest.try_get_u64()?, nonce: rest.try_get_u64()? };
            let sequence_id = SequenceId(rest.try_get_u64()?);
            let at_ms = rest.try_get_u64()?;
            let answer = match rest.try_get_u16()? {
                IN_REGION => {
                    Answer::InRegion { lowest: rest.try_get_i64()?, highest: rest.try_get_i64()? }
                }
                length => {
                    let mut kept = vec![0; usize::from(length)];
                    rest.try_copy_to_slice(&mut kept)?;
                    Answer::Kept(kept.into_boxed_slice())
                }
            };
            Ok(Self { nonce, sequence_id, at_ms, answer })
        };
        let read: Result<Self, bytes::TryGetError> = read();
        let entry = read.map_err(|error| format!("an entry is cut off: {error}"))?;
        if entry.answer.kept_bytes() > KEPT_BYTES_MAX {
            let found = entry.answer.kept_bytes();
            return Err(format!("an answer of {found} bytes; at most {KEPT_BYTES_MAX} are kept"));
        }
        Ok(entry)
    }
}

// === impl NonceMessage ===

impl From<&NonceEntry> for NonceMessage {
    fn from(entry: &NonceEntry) -> Self {
        // Kept answers were checked when they were read.
        let cells = entry.answer.cells(entry.sequence_id).unwrap_or_default();
        let in_region = match entry.answer {
            Answer::Kept(_) => None,
            Answer::InRegion { lowest, highest } => Some(TimestampsMessage { lowest, highest }),
        };
        Self {
            group: entry.nonce.group,
            nonce: entry.nonce.nonce,
            sequence_id: entry.sequence_id.0,
            at_ms: entry.at_ms,
            result: cells.into_iter().flatten().map(|cell| cell.bytes().clone()).collect(),
            in_region,
        }
    }
}

impl TryFrom<NonceMessage> for NonceEntry {
    type Error = basalt_model::Error;

    fn try_from(message: NonceMessage) -> Result<Self, Self::Error> {
        let sequence_id = SequenceId(message.sequence_id);
        let cells = message.result.into_iter().map(|bytes| Cell::from_bytes(bytes, sequence_id));
        let cells: Vec<Cell> = cells.collect::<Result<_, _>>()?;
        let answer = match message.in_region {
            Some(TimestampsMessage { lowest, highest }) => Answer::InRegion { lowest, highest },
            None => Answer::of(&cells),
        };
        let nonce = Nonce { group: message.group, nonce: message.nonce };
        Ok(Self { nonce, sequence_id, at_ms: message.at_ms, answer })
    }
}
