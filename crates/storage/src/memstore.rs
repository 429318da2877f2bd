//! The cells of one family that are not yet in a store file, in order.
//!
//! Writers insert while readers walk; no lock is held across cells. A memstore only grows: to flush
//! it, its store swaps in an empty one and drops the old one when its store file is on record.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use basalt_model::{Cell, CellKey, SequenceId};
use crossbeam_skiplist::SkipSet;

/// What a cell costs besides its own bytes: its entry in the skip list and the two allocations.
const CELL_OVERHEAD_BYTES: u64 = 128;

/// An ordered set of cells.
#[derive(Debug, Default)]
pub struct Memstore {
    cells: SkipSet<Cell>,
    bytes: AtomicU64,
    count: AtomicU64,
}

// === impl Memstore ===

impl Memstore {
    /// An empty memstore.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a cell that carries its sequence id. A cell that is there already (replayed twice)
    /// changes nothing.
    pub fn insert(&self, cell: Cell) {
        let bytes = cell.bytes().len() as u64 + CELL_OVERHEAD_BYTES;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.cells.insert(cell);
    }

    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many cells were inserted.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether nothing was inserted.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Appends to `cells`, up to `count`, the first ones at or after `key` whose sequence id is at
    /// most `read_point`. Returns whether the memstore's end was reached.
    pub fn read_from(
        &self,
        key: &CellKey<'_>,
        read_point: SequenceId,
        count: usize,
        cells: &mut impl Extend<Cell>,
    ) -> bool {
        match search_cell(key) {
            Some(search) => self.read(Bound::Included(&search), read_point, count, cells),
            None => true,
        }
    }

    /// As [`Memstore::read_from`], but begins after `last`.
    pub fn read_after(
        &self,
        last: &Cell,
        read_point: SequenceId,
        count: usize,
        cells: &mut impl Extend<Cell>,
    ) -> bool {
        self.read(Bound::Excluded(last), read_point, count, cells)
    }

    /// The last row before `row` that has a cell visible at `read_point`.
    pub fn row_before(&self, row: &[u8], read_point: SequenceId) -> Option<bytes::Bytes> {
        let search = search_cell(&CellKey::before_row(row))?;
        self.cells
            .range((Bound::Unbounded, Bound::Excluded(&search)))
            .rev()
            .find(|entry| entry.sequence_id() <= read_point)
            .map(|entry| entry.row_bytes())
    }

    /// The last row of all that has a cell visible at `read_point`.
    pub fn last_row(&self, read_point: SequenceId) -> Option<bytes::Bytes> {
        let visible = self.cells.iter().rev().find(|entry| entry.sequence_id() <= read_point);
        visible.map(|entry| entry.row_bytes())
    }

    fn read(
        &self,
        from: Bound<&Cell>,
        read_point: SequenceId,
        count: usize,
        cells: &mut impl Extend<Cell>,
    ) -> bool {
        let mut left = count;
        for entry in self.cells.range::<Cell, _>((from, Bound::Unbounded)) {
            if entry.sequence_id() > read_point {
                continue;
            }
            if left == 0 {
                return false;
            }
            cells.extend(std::iter::once(entry.value().clone()));
            left -= 1;
        }
        true
    }
}

/// The cell that sorts before all others with `key`, whatever their sequence ids.
fn search_cell(key: &CellKey<'_>) -> Option<Cell> {
    let key = key.to_bytes();
    let mut bytes = bytes::BytesMut::with_capacity(8 + key.len());
    bytes.extend_from_slice(&(key.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&key);
    let cell = Cell::from_bytes(bytes.freeze(), SequenceId(u64::MAX));
    debug_assert!(cell.is_ok(), "a search key that is no cell: {cell:?}");
    cell.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(row: &str, timestamp: i64, sequence_id: u64) -> Cell {
        let cell = Cell::put(row.as_bytes(), b"f", b"q", timestamp, b"v").unwrap();
        cell.with_sequence_id(SequenceId(sequence_id))
    }

    #[test]
    fn reads_see_what_is_at_or_below_their_read_point_in_order() {
        let memstore = Memstore::new();
        for cell in [put("b", 1, 2), put("a", 1, 1), put("a", 2, 5), put("c", 1, 3)] {
            memstore.insert(cell);
        }
        let mut cells = Vec::new();
        let key = CellKey::before_row(b"a");
        assert!(memstore.read_from(&key, SequenceId(3), 10, &mut cells));
        assert_eq!(cells, [put("a", 1, 1), put("b", 1, 2), put("c", 1, 3)]);
        let mut rest = Vec::new();
        assert!(!memstore.read_after(&cells[0], SequenceId(9), 1, &mut rest));
        assert_eq!(rest, [put("b", 1, 2)]);
    }

    #[test]
    fn the_row_before_is_found_past_invisible_cells() {
        let memstore = Memstore::new();
        for cell in [put("a", 1, 1), put("b", 1, 9), put("c", 1, 2)] {
            memstore.insert(cell);
        }
        assert_eq!(memstore.row_before(b"c", SequenceId(5)).unwrap(), "a");
        assert_eq!(memstore.row_before(b"a", SequenceId(5)), None);
        assert_eq!(memstore.last_row(SequenceId(5)).unwrap(), "c");
    }

    #[test]
    fn a_cell_replayed_twice_is_there_once() {
        let memstore = Memstore::new();
        memstore.insert(put("a", 1, 1));
        memstore.insert(put("a", 1, 1));
        let mut cells = Vec::new();
        memstore.read_from(&CellKey::before_row(b"a"), SequenceId(9), 10, &mut cells);
        assert_eq!(cells.len(), 1);
    }
}
