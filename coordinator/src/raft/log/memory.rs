//! The log's contents, in memory.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use crate::raft::types::{Entry, LogId, Payload, Vote};

/// The combined contents of all records so far.
///
/// Invariant: the entries' indices are consecutive and begin right above `purged`.
#[derive(Debug, Default)]
pub(super) struct Memory {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: VecDeque<Entry>,
    /// The sum of the sizes of the entries.
    bytes: usize,
}

// === impl Memory ===

impl Memory {
    pub(super) fn vote(&self) -> Option<Vote> {
        self.vote
    }

    pub(super) fn set_vote(&mut self, vote: Vote) {
        self.vote = Some(vote);
    }

    pub(super) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last entry's id, or the last purged one's.
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.back().map_or(self.purged, |entry| Some(entry.log_id))
    }

    /// Approximately how many bytes the entries take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The index of the next entry.
    pub(super) fn next_index(&self) -> u64 {
        self.last().map_or(0, |last| last.index.saturating_add(1))
    }

    fn first_index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index.saturating_add(1))
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            assert_eq!(entry.log_id.index, self.next_index(), "entries are appended without a gap");
            self.bytes += size_bytes(&entry);
            self.entries.push_back(entry);
        }
    }

    /// The existing entries of `range`, up to `bytes_max`, but at least one.
    pub(super) fn entries(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Vec<Entry> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let skipped = start.saturating_sub(self.first_index());
        let mut bytes = 0;
        self.entries
            .iter()
            .skip(usize::try_from(skipped).unwrap_or(usize::MAX))
            .take_while(|entry| {
                let is_first = bytes == 0;
                bytes += size_bytes(entry);
                range.contains(&entry.log_id.index) && (is_first || bytes <= bytes_max)
            })
            .cloned()
            .collect()
    }

    pub(super) fn truncate_after(&mut self, last: Option<&LogId>) {
        let next = last.map_or(0, |last| last.index.saturating_add(1));
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.log_id.index >= next) {
            self.bytes -= size_bytes(&entry);
        }
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        if self.purged >= Some(upto) {
            return;
        }
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.log_id.index <= upto.index)
        {
            self.bytes -= size_bytes(&entry);
        }
        self.purged = Some(upto);
        // A snapshot that reaches beyond the log replaces all of it.
        let next = upto.index.saturating_add(1);
        let is_consecutive = |entry: &Entry| entry.log_id.index == next;
        if !self.entries.front().is_none_or(is_consecutive) {
            self.entries.clear();
            self.bytes = 0;
        }
    }
}

fn size_bytes(entry: &Entry) -> usize {
    const FIXED_BYTES: usize = 64;
    match &entry.payload {
        Payload::Normal(command) => command.change.size_bytes(),
        Payload::Blank | Payload::Membership(_) => FIXED_BYTES,
    }
}
