//! What a region remembers of operations with a nonce.

use basalt_model::{Cell, SequenceId};
use basalt_storage::nonces::NonceEntry;
use basalt_storage::wal::Nonce;
use bytes::BytesMut;

use super::Region;

// === impl Region ===

impl Region {
    /// What the operation answered when it was done before.
    pub(super) fn done_before(&self, nonce: Option<Nonce>) -> Option<Vec<Cell>> {
        self.nonces.lock().get(nonce?).map(|entry| entry.result.clone())
    }

    /// Remembers what an operation answers, from the moment that it is in the log.
    pub(super) fn remember(
        &self,
        nonce: Option<Nonce>,
        sequence_id: SequenceId,
        at_ms: u64,
        result: &[Cell],
    ) {
        if let Some(nonce) = nonce {
            // Cells of a log share large buffers, which what is kept of them must not keep.
            let bytes = result.iter().map(|cell| cell.bytes().len()).sum();
            let mut memory = BytesMut::with_capacity(bytes);
            let copy = |cell: &Cell| cell.copy_into(&mut memory, cell.timestamp());
            let result = result.iter().map(copy).collect();
            self.nonces.lock().insert(NonceEntry { nonce, sequence_id, at_ms, result });
        }
    }
}
