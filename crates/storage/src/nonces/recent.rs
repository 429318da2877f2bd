//! The operations that are in no nonce file yet.

use std::collections::BTreeMap;

use super::NonceEntry;
use crate::wal::Nonce;

/// The memory of an operation besides its answer: its entry in a tree whose nodes are two thirds
/// full, and the allocation of the answer.
const ENTRY_OVERHEAD_BYTES: u64 = 112;

/// Operations in memory, by nonce.
#[derive(Debug, Default)]
pub struct Recent {
    entries: BTreeMap<Nonce, NonceEntry>,
    bytes: u64,
}

// === impl Recent ===

impl Recent {
    /// The outcome of the operation.
    pub fn get(&self, nonce: Nonce) -> Option<&NonceEntry> {
        self.entries.get(&nonce)
    }

    /// The memory in use, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The operations in the order of their nonces.
    pub fn iter(&self) -> impl Iterator<Item = &NonceEntry> {
        self.entries.values()
    }

    pub(super) fn insert(&mut self, entry: NonceEntry) {
        self.bytes += ENTRY_OVERHEAD_BYTES + entry.answer.kept_bytes() as u64;
        if let Some(old) = self.entries.insert(entry.nonce, entry) {
            self.bytes -= ENTRY_OVERHEAD_BYTES + old.answer.kept_bytes() as u64;
        }
    }
}
