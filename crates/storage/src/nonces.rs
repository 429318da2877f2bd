//! What each client operation with a nonce did, so that its retry does not do it again.
//!
//! An increment or an append carries a nonce. Its result is kept with the nonce, in memory, in the
//! WAL record and, once that is flushed, in the manifest, for longer than a client retries.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use basalt_model::{Cell, SequenceId};

use crate::wal::Nonce;

/// How long a nonce is kept: the stock client's longest operation (20 minutes) and some more.
const KEPT_MS: u64 = 30 * 60 * 1000;
/// How many nonces a region keeps; beyond, the oldest go first.
const COUNT_MAX: usize = 100_000;

/// A finished operation and what it answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NonceEntry {
    /// The client's mark.
    pub nonce: Nonce,
    /// The edit that it became.
    pub sequence_id: SequenceId,
    /// When, by the region's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// The cells that it wrote, which are also its answer.
    pub result: Vec<Cell>,
}

/// The operations that a region has finished lately.
#[derive(Debug, Default)]
pub struct Nonces {
    entries: BTreeMap<(u64, u64), NonceEntry>,
    by_age: VecDeque<(u64, u64)>,
}

/// How an entry lies in a manifest.
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
    result: Vec<bytes::Bytes>,
}

// === impl Nonces ===

impl Nonces {
    /// What the operation did, if it was done.
    pub fn get(&self, nonce: Nonce) -> Option<&NonceEntry> {
        self.entries.get(&(nonce.group, nonce.nonce))
    }

    /// Remembers a finished operation and forgets those that are too old.
    pub fn insert(&mut self, entry: NonceEntry) {
        let now_ms = entry.at_ms;
        let key = (entry.nonce.group, entry.nonce.nonce);
        if self.entries.insert(key, entry).is_none() {
            self.by_age.push_back(key);
        }
        while let Some(oldest) = self.by_age.front() {
            let old = self
                .entries
                .get(oldest)
                .is_none_or(|entry| entry.at_ms.saturating_add(KEPT_MS) < now_ms);
            if !old && self.by_age.len() <= COUNT_MAX {
                break;
            }
            self.entries.remove(oldest);
            self.by_age.pop_front();
        }
    }

    /// Those whose edits are at or below `sequence_id`, oldest first.
    pub fn up_to(&self, sequence_id: SequenceId) -> Vec<NonceEntry> {
        let entries = self.by_age.iter().filter_map(|key| self.entries.get(key));
        entries.filter(|entry| entry.sequence_id <= sequence_id).cloned().collect()
    }
}

// === impl NonceMessage ===

impl From<&NonceEntry> for NonceMessage {
    fn from(entry: &NonceEntry) -> Self {
        Self {
            group: entry.nonce.group,
            nonce: entry.nonce.nonce,
            sequence_id: entry.sequence_id.0,
            at_ms: entry.at_ms,
            result: entry.result.iter().map(|cell| cell.bytes().clone()).collect(),
        }
    }
}

impl TryFrom<NonceMessage> for NonceEntry {
    type Error = basalt_model::Error;

    fn try_from(message: NonceMessage) -> Result<Self, Self::Error> {
        let sequence_id = SequenceId(message.sequence_id);
        let cells = message.result.into_iter().map(|bytes| Cell::from_bytes(bytes, sequence_id));
        Ok(Self {
            nonce: Nonce { group: message.group, nonce: message.nonce },
            sequence_id,
            at_ms: message.at_ms,
            result: cells.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(nonce: u64, at_ms: u64) -> NonceEntry {
        NonceEntry {
            nonce: Nonce { group: 1, nonce },
            sequence_id: SequenceId(nonce),
            at_ms,
            result: vec![Cell::put(b"r", b"f", b"q", 1, b"v").unwrap()],
        }
    }

    #[test]
    fn an_operation_is_remembered_until_no_client_retries_it() {
        let mut nonces = Nonces::default();
        nonces.insert(entry(1, 0));
        nonces.insert(entry(2, KEPT_MS));
        assert!(nonces.get(Nonce { group: 1, nonce: 1 }).is_some());
        nonces.insert(entry(3, KEPT_MS + 1));
        assert!(nonces.get(Nonce { group: 1, nonce: 1 }).is_none());
        assert_eq!(nonces.up_to(SequenceId(2)), [entry(2, KEPT_MS)]);
    }

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let written = NonceMessage::from(&entry(5, 9));
        let read = NonceEntry::try_from(written).unwrap();
        assert_eq!(read.nonce, Nonce { group: 1, nonce: 5 });
        assert_eq!(read.result[0].value(), b"v");
    }
}
