//! Operations with a nonce: lookups before an edit, and the answers to retries.
//!
//! The lookup takes place before the edit has a sequence id, under the lock of its row and no other
//! lock. Two attempts of one operation are on the same row, so the second attempt finds what the
//! first has put into memory. The flush of the edit moves the operation from memory to a nonce
//! file. At any moment, the operation can be found in at least one of the two.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::{Cell, CellType, SequenceId};
use basalt_planted::{Rule, is_off};
use basalt_storage::nonces::{self, Answer, NonceEntry};
use basalt_storage::read::TimeRange;
use basalt_storage::wal::Nonce;

use super::write::Change;
use super::{Error, Mutation, Region, Result, RowRead, RowUpdate};

// === impl Region ===

impl Region {
    /// The entry of the operation, if it has already been applied.
    pub(super) async fn done_before(&self, nonce: Option<Nonce>) -> Result<Option<NonceEntry>> {
        let Some(nonce) = nonce else { return Ok(None) };
        loop {
            let files = {
                let nonces = self.nonces.lock();
                if let Some(entry) = nonces.recent(nonce) {
                    return Ok(Some(entry));
                }
                nonces.files()
            };
            if is_off(Rule::NonceFiles) {
                return Ok(None);
            }
            match find(nonce, &files).await {
                // The file was merged into another one meanwhile, or was dropped as too old.
                Err(error)
                    if error.is_not_found()
                        && !Arc::ptr_eq(&files, &self.nonces.lock().files()) => {}
                found => return Ok(found?),
            }
        }
    }

    /// Remembers an operation and its answer. Called when the operation is put into the log.
    pub(super) fn remember(
        &self,
        nonce: Option<Nonce>,
        sequence_id: SequenceId,
        at_ms: u64,
        result: &[Cell],
    ) {
        if let Some(nonce) = nonce {
            let answer = Answer::of(result);
            self.nonces.lock().insert(NonceEntry { nonce, sequence_id, at_ms, answer });
        }
    }

    /// Answers the retry of an operation on `row` that has already been applied. The answer is the
    /// new cells of `updates`, exactly as they were returned before. The cells of `mutations`,
    /// which belong to the same operation, are not part of the answer.
    ///
    /// # Errors
    /// [`Error::AnswerGone`] if a later edit has replaced some of the cells.
    pub(super) async fn answer_again(
        &self,
        entry: &NonceEntry,
        row: &[u8],
        mutations: &[&Mutation],
        updates: &[&RowUpdate],
    ) -> Result<Vec<Cell>> {
        // The operation may not be durable yet.
        self.settle().await?;
        let changes: Vec<&Change> =
            updates.iter().flat_map(|update| update.in_answer_order()).collect();
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let cells = match entry.answer {
            Answer::InRegion { lowest, highest } => {
                let time_range = TimeRange { from: lowest, to: highest.saturating_add(1) };
                let read = RowRead {
                    versions: u32::MAX,
                    raw: true,
                    ..RowRead::of_changes(changes.iter().copied(), time_range)
                };
                let mut cells = self.get(row, &read).await?;
                cells.retain(|cell| cell.sequence_id() == entry.sequence_id);
                // A put to one of their columns in the same edit looks the same.
                cells.retain(|cell| !mutations.iter().any(|mutation| mutation.puts(cell)));
                cells
            }
            Answer::Kept(_) => {
                let kept = entry.answer.cells(entry.sequence_id);
                kept.map_err(|reason| Error::BadAnswer { reason })?.unwrap_or_default()
            }
        };
        answer_among(cells, row, &changes).ok_or_else(|| Error::AnswerGone {
            region: self.info.to_string(),
            sequence_id: entry.sequence_id,
        })
    }
}

/// Searches `files`, newest first, once all of them are open.
async fn find(
    nonce: Nonce,
    files: &[Arc<nonces::NonceFile>],
) -> std::result::Result<Option<NonceEntry>, nonces::Error> {
    let unopened = files.iter().filter(|file| !file.is_open()).map(|file| file.open());
    futures::future::try_join_all(unopened).await?;
    for file in files.iter().rev() {
        if let Some(entry) = file.get(nonce).await? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Selects the cells that `changes` of `row` have written from all cells of their edit. `None` if
/// one of them is missing or ambiguous.
fn answer_among(cells: Vec<Cell>, row: &[u8], changes: &[&Change]) -> Option<Vec<Cell>> {
    let is_of = |cell: &Cell, change: &Change| {
        cell.row() == row
            && cell.cell_type() == CellType::Put
            && cell.family() == &change.family[..]
            && cell.qualifier() == &change.qualifier[..]
    };
    let is_answer = cells.len() == changes.len()
        && cells.iter().zip(changes).all(|(cell, change)| is_of(cell, change));
    if is_answer {
        return Some(cells);
    }
    let mut by_column: BTreeMap<(&[u8], &[u8]), Vec<&Cell>> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.cell_type() == CellType::Put) {
        by_column.entry((cell.family(), cell.qualifier())).or_default().push(cell);
    }
    let chosen = changes.iter().map(|change| {
        match by_column.remove(&(&change.family[..], &change.qualifier[..]))?[..] {
            [cell] if is_of(cell, change) => Some(cell.clone()),
            _ => None,
        }
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::testing::cell;
    use bytes::Bytes;

    fn change(column: &str) -> Change {
        let (family, qualifier) = column.split_once(':').unwrap();
        Change {
            family: Bytes::copy_from_slice(family.as_bytes()),
            qualifier: Bytes::copy_from_slice(qualifier.as_bytes()),
            timestamp: basalt_model::LATEST_TIMESTAMP,
            operand: Bytes::new(),
        }
    }

    #[test]
    fn an_answer_is_found_among_all_cells_of_its_edit_or_not_at_all() {
        let put = |column, value| cell("r", column, CellType::Put, 5, value);
        let cells = [put("f:a", "1"), put("f:b", "2"), put("f:b", "3"), put("g:a", "4")];
        let among = |cells: &[Cell], columns: &[&str]| {
            let changes: Vec<Change> = columns.iter().map(|column| change(column)).collect();
            let answer = answer_among(cells.to_vec(), b"r", &changes.iter().collect::<Vec<_>>());
            let values = |cells: Vec<Cell>| cells.iter().map(|c| c.value()[0]).collect::<Vec<_>>();
            answer.map(values)
        };
        assert_eq!(among(&cells, &["g:a", "f:a"]).unwrap(), b"41");
        assert_eq!(among(&cells, &["f:b"]), None, "which one?");
        assert_eq!(among(&cells[1..3], &["f:b", "f:b"]).unwrap(), b"23", "both");
        assert_eq!(among(&cells, &["f:a", "f:a"]), None);
        assert_eq!(among(&cells, &["f:c"]), None);
        assert_eq!(among(&[], &["f:a"]), None);
        let deleted = [cell("r", "f:a", CellType::DeleteColumn, 5, "")];
        assert_eq!(among(&deleted, &["f:a"]), None);
        assert_eq!(among(&[cell("s", "f:a", CellType::Put, 5, "1")], &["f:a"]), None);
    }
}
