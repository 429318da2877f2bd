//! A position in a store file, or in a part of one, that moves over its cells.
//!
//! A scanner is at a cell or at the end. Within a block it moves without waiting
//! ([`StoreFileScanner::try_next`]). Only at the end of a block may it have to load the next one.
//! An error leaves it where it was.

use std::cmp::Ordering;
use std::sync::Arc;

use basalt_model::{Cell, CellKey};

use super::data_block::DataBlock;
use super::error::{Damage, Result};
use super::index_path::{Goal, IndexPath};
use super::part::FilePart;
use super::reader::{Readahead, StoreFile};

/// Options of a scan.
#[derive(Clone, Copy, Debug)]
pub struct ScannerOptions {
    /// Whether data blocks that are read stay in the cache. If false, consecutive blocks are read a
    /// mebibyte at a time, as for compactions. Default: true.
    pub cache_blocks: bool,
}

/// The result of [`StoreFileScanner::try_next`].
#[derive(Debug)]
pub enum ScanStep {
    /// The cell at which the scanner was. The scanner is now at the next one.
    Cell(Cell),
    /// The scanner has not moved: it is at the last cell of a block. Await
    /// [`StoreFileScanner::next`].
    NeedBlock,
    /// The scanner is at the end.
    End,
}

/// A position in a [`StoreFile`]. A new scanner is at the end until its first seek.
#[derive(Debug)]
pub struct StoreFileScanner {
    file: StoreFile,
    options: ScannerOptions,
    /// `None` at the end.
    place: Option<Place>,
    readahead: Readahead,
}

#[derive(Debug)]
struct Place {
    path: IndexPath,
    block: Arc<DataBlock>,
    /// The positions in the block of `cell` and of the next cell.
    position: usize,
    next: usize,
    cell: Cell,
}

// === impl ScannerOptions ===

impl Default for ScannerOptions {
    fn default() -> Self {
        Self { cache_blocks: true }
    }
}

// === impl StoreFileScanner ===

impl StoreFileScanner {
    pub(super) fn new(file: StoreFile, options: ScannerOptions) -> Self {
        Self { file, options, place: None, readahead: Readahead::default() }
    }

    /// Moves to the first cell at or after `key`, or to the end. Cheap if that cell is in the same
    /// block.
    ///
    /// # Errors
    /// If a block on the way is corrupt, or the file system returns an error.
    pub async fn seek(&mut self, key: &CellKey<'_>) -> Result<()> {
        let part = self.file.limit().cloned();
        let start = part.as_ref().map(|part| CellKey::before_row(&part.start));
        let key = start.as_ref().filter(|start| start.compare(key).is_gt()).unwrap_or(key);
        if part.as_ref().is_some_and(|part| part.is_past(key.row)) {
            self.place = None;
            return Ok(());
        }
        if let Some(place) = &self.place
            && place.path.covers(key)
        {
            let is_ahead = place.cell.key().compare(key) == Ordering::Less;
            let from = if is_ahead { place.position } else { 0 };
            let position = place.block.seek(key, from);
            if position == place.position {
                return Ok(());
            }
            let (path, block) = (place.path.clone(), Arc::clone(&place.block));
            self.place = self.place_at(path, block, position).await?;
            return Ok(());
        }
        self.place = match IndexPath::find(&self.file, Goal::Key(key)).await? {
            Some(path) => {
                let block = self.load(&path).await?;
                let position = block.seek(key, 0);
                self.place_at(path, block, position).await?
            }
            None => None,
        };
        Ok(())
    }

    /// Moves to the first cell.
    ///
    /// # Errors
    /// As [`StoreFileScanner::seek`].
    pub async fn seek_to_first(&mut self) -> Result<()> {
        if self.file.limit().is_some() {
            return self.seek(&CellKey::before_row(&[])).await;
        }
        self.place = match IndexPath::find(&self.file, Goal::First).await? {
            Some(path) => {
                let block = self.load(&path).await?;
                self.place_at(path, block, 0).await?
            }
            None => None,
        };
        Ok(())
    }

    /// Moves to the last cell before `key`, or to the end if there is none. Returns whether there
    /// is one.
    ///
    /// # Errors
    /// As [`StoreFileScanner::seek`].
    pub async fn seek_before(&mut self, key: &CellKey<'_>) -> Result<bool> {
        let part = self.file.limit().filter(|part| part.is_past(key.row)).cloned();
        let end = part.as_ref().map(|part| CellKey::before_row(&part.end));
        let key = end.as_ref().unwrap_or(key);
        let mut path = IndexPath::find(&self.file, Goal::Key(key)).await?;
        while let Some(here) = path {
            let block = self.load(&here).await?;
            if let Some(position) = block.seek_before(key) {
                self.place = self.place_at(here, block, position).await?;
                self.leave_if_before_start();
                return Ok(self.place.is_some());
            }
            path = self.previous(&here).await?;
        }
        self.place = None;
        Ok(false)
    }

    /// Moves to the first cell of the last row before `row`, or to the end if there is none.
    /// Returns whether there is one.
    ///
    /// # Errors
    /// As [`StoreFileScanner::seek`].
    pub async fn seek_to_row_before(&mut self, row: &[u8]) -> Result<bool> {
        if !self.seek_before(&CellKey::before_row(row)).await? {
            return Ok(false);
        }
        self.seek_to_row_start().await
    }

    /// Moves to the first cell of the last row, or to the end if there is none. Returns whether
    /// there is one.
    ///
    /// # Errors
    /// As [`StoreFileScanner::seek`].
    pub async fn seek_to_last_row(&mut self) -> Result<bool> {
        let end = self.file.limit().map(|part| part.end.clone()).unwrap_or_default();
        if !end.is_empty() {
            return self.seek_to_row_before(&end).await;
        }
        self.place = match IndexPath::find(&self.file, Goal::Last).await? {
            Some(path) => {
                let block = self.load(&path).await?;
                let last = block.last();
                self.place_at(path, block, last).await?
            }
            None => None,
        };
        self.leave_if_before_start();
        self.seek_to_row_start().await
    }

    /// The current cell; `None` at the end.
    #[inline]
    pub fn peek(&self) -> Option<&Cell> {
        self.place.as_ref().map(|place| &place.cell)
    }

    /// Takes the current cell and moves to the next, if that is possible without waiting.
    ///
    /// # Errors
    /// If the block is corrupt.
    #[inline]
    pub fn try_next(&mut self) -> Result<ScanStep> {
        let Some(place) = &mut self.place else {
            return Ok(ScanStep::End);
        };
        if place.next >= place.block.end() {
            return Ok(ScanStep::NeedBlock);
        }
        match place.block.cell_at(place.next) {
            Ok((cell, next)) => {
                place.position = place.next;
                place.next = next;
                let (cell, is_past) = show(self.file.limit(), cell);
                let left = std::mem::replace(&mut place.cell, cell);
                if is_past {
                    self.place = None;
                }
                Ok(ScanStep::Cell(left))
            }
            Err(damage) => Err(self.file.corrupt(place.path.pointer().offset, damage)),
        }
    }

    /// Takes the current cell and moves to the next; loads a block if necessary. `None` at the end.
    ///
    /// # Errors
    /// If the next block is corrupt, or the file system returns an error. The scanner then stays
    /// where it is.
    pub async fn next(&mut self) -> Result<Option<Cell>> {
        match self.try_next()? {
            ScanStep::Cell(cell) => return Ok(Some(cell)),
            ScanStep::End => return Ok(None),
            ScanStep::NeedBlock => {}
        }
        let following = match &self.place {
            Some(place) => self.following(&place.path).await?,
            None => None,
        };
        let following = match following {
            Some(path) => {
                let block = self.load_next(&path).await?;
                self.place_at(path, block, 0).await?
            }
            None => None,
        };
        let left = std::mem::replace(&mut self.place, following);
        Ok(left.map(|place| place.cell))
    }

    /// The file being scanned.
    pub fn file(&self) -> &StoreFile {
        &self.file
    }

    async fn seek_to_row_start(&mut self) -> Result<bool> {
        let Some(row) = self.peek().map(Cell::row_bytes) else {
            return Ok(false);
        };
        self.seek(&CellKey::before_row(&row)).await?;
        Ok(true)
    }

    /// Moves to the end if the current cell is before the part that is read.
    fn leave_if_before_start(&mut self) {
        let is_before = |row: &[u8]| self.file.limit().is_some_and(|part| row < &part.start[..]);
        if self.peek().is_some_and(|cell| is_before(cell.row())) {
            self.place = None;
        }
    }

    /// The place at a position of a block, or in a block after it if the position is at the block's
    /// end. `None` if that is past the part that is read.
    async fn place_at(
        &mut self,
        path: IndexPath,
        block: Arc<DataBlock>,
        position: usize,
    ) -> Result<Option<Place>> {
        let (mut path, mut block, mut position) = (path, block, position);
        while position >= block.end() {
            let Some(next) = self.following(&path).await? else {
                return Ok(None);
            };
            block = self.load(&next).await?;
            (path, position) = (next, 0);
        }
        match block.cell_at(position) {
            Ok((cell, next)) => {
                let (cell, is_past) = show(self.file.limit(), cell);
                Ok((!is_past).then_some(Place { path, block, position, next, cell }))
            }
            Err(damage) => Err(self.file.corrupt(path.pointer().offset, damage)),
        }
    }

    /// The path to the next block. It must come later in the file: an index that leads back would
    /// make a scan endless.
    async fn following(&self, path: &IndexPath) -> Result<Option<IndexPath>> {
        let behind = path.pointer().offset as i64 + 1;
        self.checked(path.next(&self.file).await?, (behind, i64::MAX))
    }

    /// The path to the previous block. It must come earlier in the file.
    async fn previous(&self, path: &IndexPath) -> Result<Option<IndexPath>> {
        let before = path.pointer().offset as i64 - 1;
        self.checked(path.previous(&self.file).await?, (0, before))
    }

    fn checked(&self, path: Option<IndexPath>, bounds: (i64, i64)) -> Result<Option<IndexPath>> {
        if let Some(path) = &path {
            let offset = path.pointer().offset;
            Damage::check("offset of the next data block", offset as i64, bounds)
                .map_err(|damage| self.file.corrupt(offset, damage))?;
        }
        Ok(path)
    }

    async fn load(&self, path: &IndexPath) -> Result<Arc<DataBlock>> {
        let pointer = path.pointer();
        if self.options.cache_blocks {
            self.file.data_block(pointer).await
        } else {
            self.file.data_block_uncached(pointer, None).await
        }
    }

    async fn load_next(&mut self, path: &IndexPath) -> Result<Arc<DataBlock>> {
        let pointer = path.pointer();
        if self.options.cache_blocks {
            return self.file.data_block(pointer).await;
        }
        let readahead = Some(&mut self.readahead);
        self.file.data_block_uncached(pointer, readahead).await
    }
}

/// A cell of the file as the region sees it, and whether it is past the part that is read.
#[inline]
fn show(part: Option<&Arc<FilePart>>, cell: Cell) -> (Cell, bool) {
    let Some(part) = part else { return (cell, false) };
    let is_past = part.is_past(cell.row());
    match part.sequence_id {
        Some(sequence_id) => (cell.with_sequence_id(sequence_id), is_past),
        None => (cell, is_past),
    }
}
