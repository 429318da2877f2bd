//! Merges the cells of a family's memstores and store files into one order.
//!
//! A cursor sees the state at its creation: store files and the cells in memstores do not change,
//! and edits above its read point are skipped.

use std::cmp::Ordering;
use std::sync::Arc;
use std::vec;

use basalt_model::{Cell, CellKey, SequenceId};
use bytes::Bytes;

use crate::memstore::{Memstore, MemstoreRead};
use crate::store_file::{self, ScanStep, StoreFileScanner};

/// How many cells are first copied from a memstore at a time, which suffices for most rows. The
/// number then doubles.
const MEMORY_CHUNK_FIRST: usize = 16;
/// The maximum number of cells that are copied from a memstore at a time.
const MEMORY_CHUNK_MAX: usize = 128;
/// Like [`MEMORY_CHUNK_FIRST`], but after a seek past a column with many versions. The next column
/// often has as many versions, so only few cells are copied.
const MEMORY_CHUNK_COLUMN: usize = 4;
/// How many cells are stepped over one by one before a seek is used instead.
const STEPS_BEFORE_SEEK: usize = 4;

/// A position in the merged cells of a family. Before the first [`MergeCursor::seek`] it is not at
/// any cell.
pub struct MergeCursor {
    sources: Vec<Source>,
    /// The sources that have a current cell; the one with the smallest cell is last.
    order: Vec<usize>,
}

enum Source {
    Memory(MemoryCursor),
    File(Box<FileCursor>),
}

struct MemoryCursor {
    memstore: Arc<Memstore>,
    read_point: SequenceId,
    before_row: Option<Bytes>,
    /// The next cells, already copied from the memstore.
    cells: vec::IntoIter<Cell>,
    at_end: bool,
    chunk: usize,
    /// How many more cells of the memstore are likely to be needed.
    expected: usize,
}

struct FileCursor {
    scanner: StoreFileScanner,
    read_point: SequenceId,
    /// Whether the file may have edits above the read point.
    has_invisible: bool,
}

// === impl MergeCursor ===

impl MergeCursor {
    /// A cursor over `memstores` and `files` that sees edits up to `read_point`. The caller does
    /// not need the cells of `before_row` and later rows, though the cursor may return some.
    pub fn new(
        memstores: impl IntoIterator<Item = Arc<Memstore>>,
        files: impl IntoIterator<Item = StoreFileScanner>,
        read_point: SequenceId,
        before_row: Option<Bytes>,
    ) -> Self {
        let memory =
            memstores.into_iter().filter(|memstore| !memstore.is_empty()).map(|memstore| {
                Source::Memory(MemoryCursor {
                    memstore,
                    read_point,
                    before_row: before_row.clone(),
                    cells: Vec::new().into_iter(),
                    at_end: true,
                    chunk: MEMORY_CHUNK_FIRST,
                    expected: usize::MAX,
                })
            });
        let files = files.into_iter().map(|scanner| {
            let has_invisible = scanner.file().max_cell_sequence_id() > read_point;
            Source::File(Box::new(FileCursor { scanner, read_point, has_invisible }))
        });
        let sources: Vec<Source> = memory.chain(files).collect();
        Self { order: Vec::with_capacity(sources.len()), sources }
    }

    /// Moves to the first cell at or after `key`.
    ///
    /// # Errors
    /// If a store file cannot be read.
    pub async fn seek(&mut self, key: &CellKey<'_>) -> Result<(), store_file::Error> {
        self.order.clear();
        for index in 0..self.sources.len() {
            if let Some(source) = self.sources.get_mut(index) {
                source.seek(key).await?;
            }
            self.put_in_order(index);
        }
        Ok(())
    }

    /// The current cell; `None` past the last.
    pub fn peek(&self) -> Option<&Cell> {
        self.sources.get(*self.order.last()?)?.peek()
    }

    /// Hints that about `cells` more cells are likely to be needed, so the cursor need not read
    /// ahead further than that.
    pub fn expect(&mut self, cells: usize) {
        for source in &mut self.sources {
            if let Source::Memory(cursor) = source {
                cursor.expected = cells;
            }
        }
    }

    /// Appends the current cell to `cells` and moves to the next, if that is possible without
    /// waiting. Returns whether it was; if not, nothing changed.
    ///
    /// # Errors
    /// If a store file is corrupt.
    pub fn try_take_into(&mut self, cells: &mut Vec<Cell>) -> Result<bool, store_file::Error> {
        let Some(index) = self.order.last().copied() else { return Ok(false) };
        let Some(source) = self.sources.get_mut(index) else { return Ok(false) };
        match source {
            Source::Memory(cursor) => cells.extend(cursor.take()),
            // It is not yet known whether the next cell is visible.
            Source::File(cursor) if cursor.has_invisible => return Ok(false),
            Source::File(cursor) => match cursor.scanner.try_next()? {
                ScanStep::Cell(cell) => cells.push(cell),
                ScanStep::NeedBlock | ScanStep::End => return Ok(false),
            },
        }
        let is_in_order = self.order.len() == 1 && source.peek().is_some();
        if !is_in_order {
            self.order.pop();
            self.put_in_order(index);
        }
        Ok(true)
    }

    /// Takes the current cell and moves to the next; `None` past the last.
    ///
    /// # Errors
    /// If a store file cannot be read.
    pub async fn take(&mut self) -> Result<Option<Cell>, store_file::Error> {
        let Some(index) = self.order.pop() else { return Ok(None) };
        let taken = match self.sources.get_mut(index) {
            Some(source) => source.take().await?,
            None => None,
        };
        self.put_in_order(index);
        Ok(taken)
    }

    /// Moves to the first cell of a column other than the current cell's.
    ///
    /// # Errors
    /// If a store file cannot be read.
    pub async fn skip_column(&mut self) -> Result<(), store_file::Error> {
        let Some(left) = self.take().await? else { return Ok(()) };
        let left = left.key();
        for _ in 0..STEPS_BEFORE_SEEK {
            let key = self.peek().map(Cell::key);
            if key.is_none_or(|key| key.qualifier != left.qualifier || key.row != left.row) {
                return Ok(());
            }
            self.take().await?;
        }
        let last = CellKey {
            timestamp: basalt_model::OLDEST_TIMESTAMP,
            type_byte: basalt_model::CellType::Minimum as u8,
            ..left
        };
        self.seek_forward(&last).await
    }

    /// Moves to the first cell of a row other than the current cell's.
    ///
    /// # Errors
    /// If a store file cannot be read.
    pub async fn skip_row(&mut self) -> Result<(), store_file::Error> {
        let Some(left) = self.take().await? else { return Ok(()) };
        for _ in 0..STEPS_BEFORE_SEEK {
            if self.peek().is_none_or(|cell| cell.row() != left.row()) {
                return Ok(());
            }
            self.take().await?;
        }
        self.seek_forward(&CellKey::before_row(&row_after(left.row()))).await
    }

    /// The last row before `row` that has a cell, or the last row of all if `row` is `None`. Call
    /// [`MergeCursor::seek`] before using the cursor again.
    ///
    /// # Errors
    /// If a store file cannot be read.
    pub async fn row_before(
        &mut self,
        row: Option<&[u8]>,
    ) -> Result<Option<Bytes>, store_file::Error> {
        let mut last = None;
        for source in &mut self.sources {
            last = last.max(source.row_before(row).await?);
        }
        Ok(last)
    }

    /// Like [`MergeCursor::seek`], but sources that are at or beyond `key` do not move.
    async fn seek_forward(&mut self, key: &CellKey<'_>) -> Result<(), store_file::Error> {
        while self.peek().is_some_and(|cell| cell.key().compare(key) == Ordering::Less) {
            let Some(index) = self.order.pop() else { return Ok(()) };
            match self.sources.get_mut(index) {
                Some(Source::Memory(cursor)) => cursor.seek_forward(key),
                Some(Source::File(cursor)) => cursor.seek(key).await?,
                None => {}
            }
            self.put_in_order(index);
        }
        Ok(())
    }

    fn put_in_order(&mut self, index: usize) {
        let Some(cell) = self.sources.get(index).and_then(Source::peek) else { return };
        let smaller = |other: &usize| {
            let other = self.sources.get(*other).and_then(Source::peek);
            other.is_some_and(|other| cell.cmp(other) == Ordering::Less)
        };
        // Usually the source that advanced still has the smallest cell, so search from the end.
        let at = self.order.iter().rposition(smaller).map_or(0, |position| position + 1);
        self.order.insert(at, index);
    }
}

// === impl Source ===

impl Source {
    async fn seek(&mut self, key: &CellKey<'_>) -> Result<(), store_file::Error> {
        match self {
            Self::Memory(cursor) => {
                cursor.seek(key, MEMORY_CHUNK_FIRST);
                Ok(())
            }
            Self::File(cursor) => cursor.seek(key).await,
        }
    }

    fn peek(&self) -> Option<&Cell> {
        match self {
            Self::Memory(cursor) => cursor.cells.as_slice().first(),
            Self::File(cursor) => cursor.scanner.peek(),
        }
    }

    async fn take(&mut self) -> Result<Option<Cell>, store_file::Error> {
        match self {
            Self::Memory(cursor) => Ok(cursor.take()),
            Self::File(cursor) => cursor.take().await,
        }
    }

    async fn row_before(&mut self, row: Option<&[u8]>) -> Result<Option<Bytes>, store_file::Error> {
        match self {
            Self::Memory(cursor) => Ok(match row {
                Some(row) => cursor.memstore.row_before(row, cursor.read_point),
                None => cursor.memstore.last_row(cursor.read_point),
            }),
            Self::File(cursor) => cursor.row_before(row).await,
        }
    }
}

// === impl MemoryCursor ===

impl MemoryCursor {
    fn seek(&mut self, key: &CellKey<'_>, chunk: usize) {
        self.chunk = chunk;
        self.read(|memstore, read, cells| memstore.read_from(key, read, cells));
    }

    /// Like [`MemoryCursor::seek`], from a cell before `key`.
    fn seek_forward(&mut self, key: &CellKey<'_>) {
        let is_before = |cell: &Cell| cell.key().compare(key) == Ordering::Less;
        if self.cells.as_slice().last().is_none_or(is_before) && !self.at_end {
            return self.seek(key, MEMORY_CHUNK_COLUMN);
        }
        let before = self.cells.as_slice().partition_point(is_before);
        self.cells.by_ref().take(before).for_each(drop);
    }

    fn take(&mut self) -> Option<Cell> {
        let cell = self.cells.next()?;
        if self.cells.as_slice().is_empty() && !self.at_end {
            self.chunk = (self.chunk * 2).min(MEMORY_CHUNK_MAX);
            self.read(|memstore, read, cells| memstore.read_after(&cell, read, cells));
        }
        Some(cell)
    }

    /// Reads the next chunk, and replaces the rest of the current one.
    fn read(&mut self, read: impl FnOnce(&Memstore, MemstoreRead<'_>, &mut Vec<Cell>) -> bool) {
        let count = self.chunk.min(self.expected.max(MEMORY_CHUNK_FIRST));
        let limits = MemstoreRead {
            read_point: self.read_point,
            before_row: self.before_row.as_deref(),
            count,
        };
        let mut cells = Vec::with_capacity(count);
        self.at_end = read(&self.memstore, limits, &mut cells);
        self.cells = cells.into_iter();
    }
}

// === impl FileCursor ===

impl FileCursor {
    async fn seek(&mut self, key: &CellKey<'_>) -> Result<(), store_file::Error> {
        self.scanner.seek(key).await?;
        self.pass_invisible().await
    }

    async fn take(&mut self) -> Result<Option<Cell>, store_file::Error> {
        let taken = self.scanner.next().await?;
        self.pass_invisible().await?;
        Ok(taken)
    }

    async fn row_before(&mut self, row: Option<&[u8]>) -> Result<Option<Bytes>, store_file::Error> {
        let found = match row {
            Some(row) => self.scanner.seek_to_row_before(row).await?,
            None => self.scanner.seek_to_last_row().await?,
        };
        Ok(self.scanner.peek().filter(|_| found).map(Cell::row_bytes))
    }

    async fn pass_invisible(&mut self) -> Result<(), store_file::Error> {
        while self.scanner.peek().is_some_and(|cell| cell.sequence_id() > self.read_point) {
            self.scanner.next().await?;
        }
        Ok(())
    }
}

/// The smallest row greater than `row`.
pub fn row_after(row: &[u8]) -> Vec<u8> {
    let mut after = Vec::with_capacity(row.len() + 1);
    after.extend_from_slice(row);
    after.push(0);
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn put(row: &str, qualifier: &str, timestamp: i64) -> Cell {
        let cell = Cell::put(row.as_bytes(), b"f", qualifier.as_bytes(), timestamp, b"v").unwrap();
        cell.with_sequence_id(SequenceId(timestamp.unsigned_abs()))
    }

    fn memstore(cells: impl IntoIterator<Item = Cell>) -> Arc<Memstore> {
        let memstore = Memstore::new();
        cells.into_iter().for_each(|cell| memstore.insert(&cell));
        Arc::new(memstore)
    }

    async fn rest(cursor: &mut MergeCursor) -> Vec<Cell> {
        let mut cells = Vec::new();
        while let Some(cell) = cursor.take().await.unwrap() {
            cells.push(cell);
        }
        cells
    }

    #[tokio::test]
    async fn several_memstores_read_as_one() {
        let all: Vec<Cell> = (0..300).map(|i| put(&format!("r{:03}", i / 3), "q", 1 + i)).collect();
        let parts = (0..3).map(|part| {
            memstore(all.iter().enumerate().filter(|(i, _)| i % 3 == part).map(|(_, c)| c.clone()))
        });
        let mut cursor = MergeCursor::new(parts.collect::<Vec<_>>(), [], SequenceId(1000), None);
        cursor.seek(&CellKey::before_row(b"")).await.unwrap();
        let mut expected = all;
        expected.sort();
        assert_eq!(rest(&mut cursor).await, expected);
    }

    #[tokio::test]
    async fn columns_and_rows_are_skipped_near_and_far() {
        for versions in [2, 100] {
            let mut cells: Vec<Cell> = (1..=versions).map(|v| put("a", "p", v)).collect();
            cells.extend((1..=versions).map(|v| put("a", "q", v)));
            cells.push(put("b", "p", 1));
            let mut cursor = MergeCursor::new([memstore(cells)], [], SequenceId(1000), None);
            cursor.seek(&CellKey::before_row(b"a")).await.unwrap();
            cursor.skip_column().await.unwrap();
            assert_eq!(cursor.peek().unwrap().qualifier(), b"q");
            cursor.skip_row().await.unwrap();
            assert_eq!(cursor.peek().unwrap().row(), b"b");
            assert_eq!(cursor.row_before(Some(b"b")).await.unwrap().unwrap(), "a");
            assert_eq!(cursor.row_before(None).await.unwrap().unwrap(), "b");
        }
    }

    proptest! {
        #[test]
        fn skipping_finds_the_first_cell_of_each_column_and_row(
            parts in vec(vec((0..3_u8, 0..3_u8, 1..60_i64), 0..150), 1..4),
            read_point in 1..60_u64,
        ) {
            let cell = |&(row, column, timestamp)| {
                put(&format!("r{row}"), &format!("q{column}"), timestamp)
            };
            let parts: Vec<Vec<Cell>> =
                parts.iter().map(|part| part.iter().map(cell).collect()).collect();
            let mut sorted: Vec<Cell> = parts.concat();
            sorted.retain(|cell| cell.sequence_id() <= SequenceId(read_point));
            sorted.sort();
            let cursor = || {
                let memstores: Vec<_> = parts.iter().cloned().map(memstore).collect();
                MergeCursor::new(memstores, [], SequenceId(read_point), None)
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (columns, rows) = runtime.block_on(async {
                let (mut by_column, mut columns) = (cursor(), Vec::new());
                by_column.seek(&CellKey::before_row(b"")).await.unwrap();
                while let Some(cell) = by_column.peek().cloned() {
                    columns.push(cell);
                    by_column.skip_column().await.unwrap();
                }
                let (mut by_row, mut rows) = (cursor(), Vec::new());
                by_row.seek(&CellKey::before_row(b"")).await.unwrap();
                while let Some(cell) = by_row.peek().cloned() {
                    rows.push(cell);
                    by_row.skip_row().await.unwrap();
                }
                (columns, rows)
            });
            sorted.dedup_by_key(|cell| (cell.row_bytes(), cell.qualifier().to_vec()));
            prop_assert_eq!(columns, sorted.clone());
            sorted.dedup_by_key(|cell| cell.row_bytes());
            prop_assert_eq!(rows, sorted);
        }
    }
}
