//! The cells of one family that are not yet in a store file, in order.
//!
//! A region inserts its edits one after the other, so a tree behind a lock serves writers as well
//! as anything could. Readers copy some cells at a time and hold nothing in between. A memstore
//! only grows: to flush it, its store swaps in an empty one, and drops the old one once the new
//! store file is on record.
//!
//! The bytes of the cells are copied into chunks that hold nothing else. Many cells share a chunk
//! and its reference count, which a reader must change for each cell that it copies.

mod ordered_set;

use std::cmp;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use basalt_model::{Cell, CellKey, SequenceId};
use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;

use ordered_set::OrderedSet;

/// The memory of a cell besides its own bytes: its entry in the tree, whose nodes are two thirds
/// full.
const CELL_OVERHEAD_BYTES: u64 = 96;
/// Chunks grow with the memstore between these bounds, in bytes: most memstores stay small.
const CHUNK_BYTES_MIN: usize = 1 << 10;
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// The maximum length in bytes of a cell in a chunk; a longer cell has memory of its own.
const CHUNK_CELL_BYTES_MAX: usize = 8 << 10;
/// How many bytes the processor fetches at a time; most keys span two such lines.
const CACHE_LINE_BYTES: usize = 64;

/// An ordered set of cells.
#[derive(Debug, Default)]
pub struct Memstore {
    cells: RwLock<Cells>,
    bytes: AtomicU64,
    count: AtomicU64,
    highest_timestamp: AtomicI64,
}

#[derive(Debug, Default)]
struct Cells {
    entries: OrderedSet<Entry>,
    /// The rest of the newest chunk.
    chunk: BytesMut,
}

/// A cell, in the order of cells. Entries are equal if their keys and sequence ids are: if an edit
/// writes one version of a column twice, the last write remains.
#[derive(Clone, Debug)]
struct Entry {
    /// Distinguishes most rows without access to their bytes, which are elsewhere in memory.
    prefix: RowPrefix,
    cell: Cell,
}

/// The first bytes of a row, padded with zeros. Of two prefixes that differ, the lower one belongs
/// to the lower row.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct RowPrefix(u64, u64);

/// The rows before a given row.
struct RowBound<'a> {
    prefix: RowPrefix,
    row: &'a [u8],
}

/// The limits of a read of a memstore.
#[derive(Clone, Copy, Debug)]
pub struct MemstoreRead<'a> {
    /// Edits with a higher sequence id are skipped.
    pub read_point: SequenceId,
    /// Cells of this row and later rows are not read; `None` means no bound.
    pub before_row: Option<&'a [u8]>,
    /// The maximum number of cells to read.
    pub count: usize,
}

// === impl Memstore ===

impl Memstore {
    /// An empty memstore.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a copy of a cell that carries its sequence id. It replaces a cell with the same key and
    /// sequence id; the cells of an edit arrive in the order in which it wrote them.
    pub fn insert(&self, cell: &Cell) {
        self.highest_timestamp.fetch_max(cell.timestamp(), Ordering::Relaxed);
        let bytes = cell.bytes().len() as u64 + CELL_OVERHEAD_BYTES;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.cells.write().insert(cell, before);
    }

    /// The memory in use, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many cells were inserted.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The highest timestamp of its cells; 0 if it is empty.
    pub fn highest_timestamp(&self) -> i64 {
        self.highest_timestamp.load(Ordering::Relaxed)
    }

    /// Whether nothing was inserted.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Appends to `cells` the first visible cells at or after `key`, within the limits of `read`.
    /// Returns whether there are no more.
    pub fn read_from(
        &self,
        key: &CellKey<'_>,
        read: MemstoreRead<'_>,
        cells: &mut Vec<Cell>,
    ) -> bool {
        match search_entry(key) {
            Some(search) => self.read(&search, true, read, cells),
            None => true,
        }
    }

    /// As [`Memstore::read_from`], but begins after `last`.
    pub fn read_after(&self, last: &Cell, read: MemstoreRead<'_>, cells: &mut Vec<Cell>) -> bool {
        self.read(&Entry::new(last.clone()), false, read, cells)
    }

    /// The last row before `row` that has a cell visible at `read_point`.
    pub fn row_before(&self, row: &[u8], read_point: SequenceId) -> Option<Bytes> {
        let search = search_entry(&CellKey::before_row(row))?;
        self.last_visible(Some(&search), read_point)
    }

    /// The last row that has a cell visible at `read_point`.
    pub fn last_row(&self, read_point: SequenceId) -> Option<Bytes> {
        self.last_visible(None, read_point)
    }

    fn last_visible(&self, before: Option<&Entry>, read_point: SequenceId) -> Option<Bytes> {
        let locked = self.cells.read();
        let mut descending = locked.entries.descending(before);
        let last = descending.find(|entry| entry.cell.sequence_id() <= read_point)?;
        Some(last.cell.row_bytes())
    }

    fn read(
        &self,
        from: &Entry,
        included: bool,
        read: MemstoreRead<'_>,
        cells: &mut Vec<Cell>,
    ) -> bool {
        let bound = read.before_row.map(RowBound::new);
        let is_inside = |entry: &&Entry| bound.as_ref().is_none_or(|bound| bound.contains(entry));
        let locked = self.cells.read();
        let entries = locked.entries.ascending(from, included).take_while(is_inside);
        touch(entries.clone().take(read.count));
        let mut visible = entries.filter(|entry| entry.cell.sequence_id() <= read.read_point);
        cells.extend(visible.by_ref().take(read.count).map(|entry| entry.cell.clone()));
        visible.next().is_none()
    }
}

// === impl Cells ===

impl Cells {
    /// Adds a copy of a cell to a memstore with `memstore_bytes` in use.
    fn insert(&mut self, cell: &Cell, memstore_bytes: u64) {
        let length = cell.bytes().len();
        let copy = if length > CHUNK_CELL_BYTES_MAX {
            cell.copy_into(&mut BytesMut::with_capacity(length), cell.timestamp())
        } else {
            if self.chunk.capacity() < length {
                let grown = usize::try_from(memstore_bytes).unwrap_or(usize::MAX);
                let bytes = grown.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(length);
                self.chunk = BytesMut::with_capacity(bytes);
            }
            cell.copy_into(&mut self.chunk, cell.timestamp())
        };
        self.entries.insert(Entry::new(copy));
    }
}

// === impl Entry ===

impl Entry {
    fn new(cell: Cell) -> Self {
        Self { prefix: RowPrefix::of(cell.row()), cell }
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.prefix.cmp(&other.prefix).then_with(|| self.cell.compare_version(&other.cell))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

// === impl RowPrefix ===

impl RowPrefix {
    fn of(row: &[u8]) -> Self {
        let mut bytes = [0; 16];
        let length = row.len().min(bytes.len());
        bytes[..length].copy_from_slice(&row[..length]);
        let bytes = u128::from_be_bytes(bytes);
        Self((bytes >> 64) as u64, bytes as u64)
    }
}

// === impl RowBound ===

impl<'a> RowBound<'a> {
    fn new(row: &'a [u8]) -> Self {
        Self { prefix: RowPrefix::of(row), row }
    }

    fn contains(&self, entry: &Entry) -> bool {
        entry.prefix < self.prefix || (entry.prefix == self.prefix && entry.cell.row() < self.row)
    }
}

/// Makes the processor fetch `entries` and the keys of their cells, as many as it can in parallel.
/// Otherwise the reader would wait for each in turn: processing a cell depends on its bytes, and
/// changing the reference count of its chunk waits for all earlier loads.
fn touch<'a>(entries: impl Iterator<Item = &'a Entry>) {
    let lines = |entry: &Entry| {
        let bytes = entry.cell.bytes();
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        byte(0) | byte(CACHE_LINE_BYTES)
    };
    std::hint::black_box(entries.fold(0, |all, entry| all | lines(entry)));
}

/// A search entry that sorts before all others with `key`, regardless of their sequence ids.
fn search_entry(key: &CellKey<'_>) -> Option<Entry> {
    let key = key.to_bytes();
    let mut bytes = BytesMut::with_capacity(8 + key.len());
    bytes.extend_from_slice(&(key.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&key);
    let cell = Cell::from_bytes(bytes.freeze(), SequenceId(u64::MAX));
    debug_assert!(cell.is_ok(), "a search key that is no cell: {cell:?}");
    cell.ok().map(Entry::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn put(row: &str, timestamp: i64, sequence_id: u64) -> Cell {
        let cell = Cell::put(row.as_bytes(), b"f", b"q", timestamp, b"v").unwrap();
        cell.with_sequence_id(SequenceId(sequence_id))
    }

    #[test]
    fn reads_see_what_is_at_or_below_their_read_point_in_order() {
        let memstore = Memstore::new();
        for cell in [put("b", 1, 2), put("a", 1, 1), put("a", 2, 5), put("c", 1, 3)] {
            memstore.insert(&cell);
        }
        let read = |from: &str, read_point, before_row, count| {
            let (read_point, key) = (SequenceId(read_point), CellKey::before_row(from.as_bytes()));
            let mut cells = Vec::new();
            let read = MemstoreRead { read_point, before_row, count };
            let at_end = memstore.read_from(&key, read, &mut cells);
            (cells, at_end)
        };
        let all = vec![put("a", 1, 1), put("b", 1, 2), put("c", 1, 3)];
        assert_eq!(read("a", 3, None, 10), (all.clone(), true));
        assert_eq!(read("a", 3, Some(b"c"), 10), (all[..2].to_vec(), true));
        assert_eq!(read("a", 3, Some(b"c"), 2), (all[..2].to_vec(), true));
        assert_eq!(read("a", 3, None, 2), (all[..2].to_vec(), false));
        let mut rest = Vec::new();
        let read = MemstoreRead { read_point: SequenceId(9), before_row: None, count: 1 };
        assert!(!memstore.read_after(&all[0], read, &mut rest));
        assert_eq!(rest, [put("b", 1, 2)]);
    }

    #[test]
    fn the_row_before_is_found_past_invisible_cells() {
        let memstore = Memstore::new();
        for cell in [put("a", 1, 1), put("b", 1, 9), put("c", 1, 2)] {
            memstore.insert(&cell);
        }
        assert_eq!(memstore.row_before(b"c", SequenceId(5)).unwrap(), "a");
        assert_eq!(memstore.row_before(b"a", SequenceId(5)), None);
        assert_eq!(memstore.last_row(SequenceId(5)).unwrap(), "c");
    }

    #[test]
    fn a_cell_replayed_twice_is_there_once() {
        let memstore = Memstore::new();
        memstore.insert(&put("a", 1, 1));
        memstore.insert(&put("a", 1, 1));
        let mut cells = Vec::new();
        let read = MemstoreRead { read_point: SequenceId(9), before_row: None, count: 10 };
        memstore.read_from(&CellKey::before_row(b"a"), read, &mut cells);
        assert_eq!(cells.len(), 1);
    }

    #[test]
    fn the_later_of_two_cells_of_one_edit_stays() {
        for (first, last) in [("a", "b"), ("b", "a")] {
            let memstore = Memstore::new();
            let cell = |value: &str| {
                let cell = Cell::put(b"r", b"f", b"q", 7, value.as_bytes()).unwrap();
                cell.with_sequence_id(SequenceId(1))
            };
            memstore.insert(&cell(first));
            memstore.insert(&cell(last));
            let mut cells = Vec::new();
            let read = MemstoreRead { read_point: SequenceId(9), before_row: None, count: 10 };
            memstore.read_from(&CellKey::before_row(b"r"), read, &mut cells);
            assert_eq!(cells, [cell(last)]);
        }
    }

    #[test]
    fn cells_of_all_lengths_keep_their_bytes() {
        let memstore = Memstore::new();
        let lengths = [0, 1, 700, CHUNK_CELL_BYTES_MAX, CHUNK_BYTES_MAX, 3 * CHUNK_BYTES_MAX];
        let value = |number: usize| vec![number as u8; lengths[number % lengths.len()]];
        let cell = |number: usize| {
            let row = format!("{number:03}");
            Cell::put(row.as_bytes(), b"f", b"q", 1, &value(number)).unwrap()
        };
        let expected: Vec<Cell> =
            (0..60).map(|number| cell(number).with_sequence_id(SequenceId(1))).collect();
        expected.iter().for_each(|cell| memstore.insert(cell));
        let mut cells = Vec::new();
        let read = MemstoreRead { read_point: SequenceId(1), before_row: None, count: 100 };
        assert!(memstore.read_from(&CellKey::before_row(b""), read, &mut cells));
        assert_eq!(cells, expected);
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_cells(
            rows in vec(vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 1..20), 1..40),
            before in vec(any::<u8>(), 0..20),
        ) {
            let memstore = Memstore::new();
            let mut expected: Vec<Cell> = rows
                .iter()
                .map(|row| Cell::put(row, b"f", b"q", 1, b"").unwrap())
                .map(|cell| cell.with_sequence_id(SequenceId(1)))
                .collect();
            expected.iter().for_each(|cell| memstore.insert(cell));
            expected.sort();
            expected.dedup();
            expected.retain(|cell| cell.row() < &before[..]);
            let mut cells = Vec::new();
            let read =
                MemstoreRead { read_point: SequenceId(1), before_row: Some(&before), count: 100 };
            prop_assert!(memstore.read_from(&CellKey::before_row(b""), read, &mut cells));
            prop_assert_eq!(cells, expected);
        }
    }
}
