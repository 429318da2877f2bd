//! All cells of a family in one order, from its memstores and store files.
//!
//! A cursor sees what was there when it was made: memstores and files stay as they are, and edits
//! above its read point are passed over.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use basalt_model::{Cell, CellKey, SequenceId};
use bytes::Bytes;

use crate::memstore::Memstore;
use crate::store_file::{self, StoreFileScanner};

/// How many cells are first taken from a memstore at a time; then more and more.
const MEMORY_CHUNK_FIRST: usize = 4;
/// How many cells are taken from a memstore at a time at most.
const MEMORY_CHUNK_MAX: usize = 128;
/// How many cells are stepped over one by one before a seek is made instead.
const STEPS_BEFORE_SEEK: usize = 16;

/// A place in the merged cells of a family. Before the first [`MergeCursor::seek`] it is at no cell.
pub struct MergeCursor {
    sources: Vec<Source>,
    /// The sources that are at a cell, the one with the smallest cell last.
    order: Vec<usize>,
}

enum Source {
    Memory(MemoryCursor),
    File(Box<FileCursor>),
}

struct MemoryCursor {
    memstore: Arc<Memstore>,
    read_point: SequenceId,
    cells: VecDeque<Cell>,
    at_end: bool,
    chunk: usize,
}

struct FileCursor {
    scanner: StoreFileScanner,
    read_point: SequenceId,
}

// === impl MergeCursor ===

impl MergeCursor {
    /// A cursor over `memstores` and `files` that sees edits up to `read_point`.
    pub fn new(
        memstores: impl IntoIterator<Item = Arc<Memstore>>,
        files: impl IntoIterator<Item = StoreFileScanner>,
        read_point: SequenceId,
    ) -> Self {
        let memory = memstores
            .into_iter()
            .filter(|memstore| !memstore.is_empty())
            .map(|memstore| Source::Memory(MemoryCursor::new(memstore, read_point)));
        let files = files
            .into_iter()
            .map(|scanner| Source::File(Box::new(FileCursor { scanner, read_point })));
        let sources: Vec<Source> = memory.chain(files).collect();
        Self { order: Vec::with_capacity(sources.len()), sources }
    }

    /// Goes to the first cell at or after `key`.
    ///
    /// # Errors
    /// A store file cannot be read.
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

    /// The cell that the cursor is at; `None` past the last.
    pub fn peek(&self) -> Option<&Cell> {
        self.sources.get(*self.order.last()?)?.peek()
    }

    /// Goes to the next cell.
    ///
    /// # Errors
    /// A store file cannot be read.
    pub async fn advance(&mut self) -> Result<(), store_file::Error> {
        let Some(index) = self.order.pop() else { return Ok(()) };
        if let Some(source) = self.sources.get_mut(index) {
            source.advance().await?;
        }
        self.put_in_order(index);
        Ok(())
    }

    /// Goes to the first cell of another column, at or after the present cell.
    ///
    /// # Errors
    /// A store file cannot be read.
    pub async fn skip_column(&mut self) -> Result<(), store_file::Error> {
        let Some(present) = self.peek().cloned() else { return Ok(()) };
        for _ in 0..STEPS_BEFORE_SEEK {
            self.advance().await?;
            let same = self.peek().is_some_and(|cell| {
                cell.qualifier() == present.qualifier() && cell.row() == present.row()
            });
            if !same {
                return Ok(());
            }
        }
        let last = CellKey {
            timestamp: basalt_model::OLDEST_TIMESTAMP,
            type_byte: basalt_model::CellType::Minimum as u8,
            ..present.key()
        };
        self.seek(&last).await
    }

    /// Goes to the first cell of another row than the present cell's.
    ///
    /// # Errors
    /// A store file cannot be read.
    pub async fn skip_row(&mut self) -> Result<(), store_file::Error> {
        let Some(present) = self.peek().cloned() else { return Ok(()) };
        for _ in 0..STEPS_BEFORE_SEEK {
            self.advance().await?;
            if self.peek().is_none_or(|cell| cell.row() != present.row()) {
                return Ok(());
            }
        }
        self.seek(&CellKey::before_row(&row_after(present.row()))).await
    }

    /// The last row before `row` that has a cell; of all rows if `row` is `None`. The cursor must be
    /// sought afterwards.
    ///
    /// # Errors
    /// A store file cannot be read.
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

    fn put_in_order(&mut self, index: usize) {
        let Some(cell) = self.sources.get(index).and_then(Source::peek) else { return };
        let smaller = |other: &usize| {
            let other = self.sources.get(*other).and_then(Source::peek);
            other.is_some_and(|other| cell.cmp(other) == Ordering::Less)
        };
        // Most often the source that was advanced is still the smallest: look from the end.
        let at = self.order.iter().rposition(smaller).map_or(0, |position| position + 1);
        self.order.insert(at, index);
    }
}

// === impl Source ===

impl Source {
    async fn seek(&mut self, key: &CellKey<'_>) -> Result<(), store_file::Error> {
        match self {
            Self::Memory(cursor) => {
                cursor.seek(key);
                Ok(())
            }
            Self::File(cursor) => cursor.seek(key).await,
        }
    }

    fn peek(&self) -> Option<&Cell> {
        match self {
            Self::Memory(cursor) => cursor.cells.front(),
            Self::File(cursor) => cursor.scanner.peek(),
        }
    }

    async fn advance(&mut self) -> Result<(), store_file::Error> {
        match self {
            Self::Memory(cursor) => {
                cursor.advance();
                Ok(())
            }
            Self::File(cursor) => cursor.advance().await,
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
    fn new(memstore: Arc<Memstore>, read_point: SequenceId) -> Self {
        Self {
            memstore,
            read_point,
            cells: VecDeque::new(),
            at_end: true,
            chunk: MEMORY_CHUNK_FIRST,
        }
    }

    fn seek(&mut self, key: &CellKey<'_>) {
        self.cells.clear();
        self.chunk = MEMORY_CHUNK_FIRST;
        self.at_end = self.memstore.read_from(key, self.read_point, self.chunk, &mut self.cells);
    }

    fn advance(&mut self) {
        let Some(last) = self.cells.pop_front() else { return };
        if self.cells.is_empty() && !self.at_end {
            self.chunk = (self.chunk * 2).min(MEMORY_CHUNK_MAX);
            self.at_end =
                self.memstore.read_after(&last, self.read_point, self.chunk, &mut self.cells);
        }
    }
}

// === impl FileCursor ===

impl FileCursor {
    async fn seek(&mut self, key: &CellKey<'_>) -> Result<(), store_file::Error> {
        self.scanner.seek(key).await?;
        self.pass_invisible().await
    }

    async fn advance(&mut self) -> Result<(), store_file::Error> {
        self.scanner.next().await?;
        self.pass_invisible().await
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

    fn put(row: &str, qualifier: &str, timestamp: i64) -> Cell {
        let cell = Cell::put(row.as_bytes(), b"f", qualifier.as_bytes(), timestamp, b"v").unwrap();
        cell.with_sequence_id(SequenceId(timestamp.unsigned_abs()))
    }

    fn memstore(cells: impl IntoIterator<Item = Cell>) -> Arc<Memstore> {
        let memstore = Memstore::new();
        cells.into_iter().for_each(|cell| memstore.insert(cell));
        Arc::new(memstore)
    }

    async fn rest(cursor: &mut MergeCursor) -> Vec<Cell> {
        let mut cells = Vec::new();
        while let Some(cell) = cursor.peek().cloned() {
            cells.push(cell);
            cursor.advance().await.unwrap();
        }
        cells
    }

    #[tokio::test]
    async fn several_memstores_read_as_one() {
        let all: Vec<Cell> = (0..300).map(|i| put(&format!("r{:03}", i / 3), "q", 1 + i)).collect();
        let parts = (0..3).map(|part| {
            memstore(all.iter().enumerate().filter(|(i, _)| i % 3 == part).map(|(_, c)| c.clone()))
        });
        let mut cursor = MergeCursor::new(parts.collect::<Vec<_>>(), [], SequenceId(1000));
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
            let mut cursor = MergeCursor::new([memstore(cells)], [], SequenceId(1000));
            cursor.seek(&CellKey::before_row(b"a")).await.unwrap();
            cursor.skip_column().await.unwrap();
            assert_eq!(cursor.peek().unwrap().qualifier(), b"q");
            cursor.skip_row().await.unwrap();
            assert_eq!(cursor.peek().unwrap().row(), b"b");
            assert_eq!(cursor.row_before(Some(b"b")).await.unwrap().unwrap(), "a");
            assert_eq!(cursor.row_before(None).await.unwrap().unwrap(), "b");
        }
    }
}
