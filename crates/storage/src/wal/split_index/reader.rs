//! Reads only the part of one region from a sealed file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_fs::{ReadFile, SharedFileSystem};
use basalt_model::{EncodedRegionName, SequenceId};
use bytes::Bytes;

use super::directory::Directory;
use super::index::{make_index, open_existing};
use super::ranges::Ranges;
use super::{PartSummary, SharedReads, index_path};
use crate::wal::edit::{self, Edit, RECORD_PREFIX_BYTES, RecordIdentity};
use crate::wal::error::{Defect, Error, Result};
use crate::wal::stream::{ReadAhead, WINDOW_BYTES};

/// A sealed file with its index, opened once for all the regions that read their parts.
#[derive(Clone)]
pub struct SplitIndex {
    directory: Arc<Directory>,
    index: Arc<dyn ReadFile>,
    log: Arc<dyn ReadFile>,
    path: PathBuf,
}

/// The edits of one region in a file, and where they are.
#[derive(Clone)]
pub struct Part {
    /// What the index says about these edits.
    pub summary: PartSummary,
    log: Arc<dyn ReadFile>,
    path: PathBuf,
    /// Where the readable part of the log ends.
    end: u64,
    ranges: Bytes,
}

/// Reads the edits of one region, in the order in which they were written. At most two windows of
/// them are in memory at a time.
pub struct PartReader {
    part: Part,
    ranges: Ranges,
    window: Window,
    ahead: Option<ReadAhead<Window>>,
    edits_read: u64,
}

/// The records of some ranges, one after another.
#[derive(Default)]
struct Window {
    ranges: Vec<Range<u64>>,
    bytes: Bytes,
    taken: u64,
}

// === impl SplitIndex ===

impl SplitIndex {
    /// Opens the file `log`, sealed at `sealed_length`. Its reads go through `shared`, to be shared
    /// with other regions. Writes the index if there is none for this length.
    ///
    /// # Errors
    /// As [`super::write_split_index`].
    pub async fn open_sealed(
        files: &SharedFileSystem,
        log: &Path,
        sealed_length: u64,
        shared: &Arc<SharedReads>,
    ) -> Result<Self> {
        // Usually the index exists, and is opened once.
        if let Some(existing) = open_existing(files, log, sealed_length).await? {
            return Ok(Self {
                directory: Arc::new(existing.directory),
                index: existing.index,
                log: shared.share(existing.log),
                path: log.to_owned(),
            });
        }
        make_index(files, log, sealed_length).await?;
        Self::open(files, log, shared).await
    }

    /// Opens the file `log`, which has an index. Its reads go through `shared`, to be shared with
    /// other regions.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the index is damaged: [`super::write_split_index`] writes it again.
    pub async fn open(
        files: &SharedFileSystem,
        log: &Path,
        shared: &Arc<SharedReads>,
    ) -> Result<Self> {
        let path = index_path(log);
        let index = files.open(&path).await?;
        let directory = Directory::read(&*index).await.map_err(|error| error.into_error(&path))?;
        Ok(Self {
            directory: Arc::new(directory),
            index,
            log: shared.share(files.open(log).await?),
            path: log.to_owned(),
        })
    }

    /// Finds the edits of `region`; `None` if the file has none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] as in [`SplitIndex::open`].
    pub async fn part(&self, region: EncodedRegionName) -> Result<Option<Part>> {
        let Some(entry) = self.directory.find(region) else {
            return Ok(None);
        };
        let ranges = entry.read_section(&*self.index).await;
        Ok(Some(Part {
            summary: entry.summary.clone(),
            log: Arc::clone(&self.log),
            path: self.path.clone(),
            end: self.directory.end,
            ranges: ranges.map_err(|error| error.into_error(&index_path(&self.path)))?,
        }))
    }
}

// === impl Part ===

impl Part {
    /// Checks that the part holds all of the region's edits that are not in store files yet. The
    /// store files have all edits up to `flushed`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if an edit is missing: acknowledged edits may be lost.
    pub fn check_whole_after(&self, flushed: SequenceId) -> Result<()> {
        match self.summary.damage {
            Some(damage) if !damage.is_flushed(flushed) => Err(Error::Corrupt {
                path: self.path.clone(),
                offset: damage.offset,
                defect: Defect::LostEdit,
            }),
            _ => Ok(()),
        }
    }
}

// === impl PartReader ===

impl PartReader {
    /// Reads `part` from its beginning.
    pub fn new(part: Part) -> Self {
        Self {
            ranges: Ranges::new(part.ranges.clone(), part.end),
            part,
            window: Window::default(),
            ahead: None,
            edits_read: 0,
        }
    }

    /// The next edit; `None` after the last. The cells share the memory of a window, which holds
    /// only this region's edits.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the log does not match its index. The reader cannot be used after
    /// that.
    pub async fn next(&mut self) -> Result<Option<Edit>> {
        if self.window.bytes.is_empty() {
            self.window = self.next_window().await?;
            if self.window.bytes.is_empty() {
                return self.check_complete().map(|()| None);
            }
        }
        let before = self.window.taken;
        let edit = self
            .window
            .take_edit(self.part.summary.region)
            .map_err(|defect| self.corrupt(self.window.offset(before), defect))?;
        self.edits_read += 1;
        Ok(Some(edit))
    }

    /// Returns the next records, and begins to read those after them.
    async fn next_window(&mut self) -> Result<Window> {
        let ahead = match self.ahead.take() {
            Some(ahead) => Some(ahead),
            None => self.read_ahead()?,
        };
        let Some(ahead) = ahead else {
            return Ok(Window::default());
        };
        let window = ahead.finish().await?;
        self.ahead = self.read_ahead()?;
        Ok(window)
    }

    fn read_ahead(&mut self) -> Result<Option<ReadAhead<Window>>> {
        let mut ranges = Vec::new();
        let mut bytes = 0;
        while bytes < WINDOW_BYTES as u64 {
            let next = self.ranges.next();
            let Some(range) = next.map_err(|defect| self.corrupt(0, defect))? else {
                break;
            };
            bytes += range.end - range.start;
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Ok(None);
        }
        let file = Arc::clone(&self.part.log);
        Ok(Some(ReadAhead::start(async move {
            let bytes = file.read_ranges(&ranges).await?;
            Ok(Window { ranges, bytes, taken: 0 })
        })))
    }

    fn check_complete(&self) -> Result<()> {
        if self.edits_read == self.part.summary.edits {
            return Ok(());
        }
        let defect = Defect::Mismatch {
            what: "the number of edits of a region",
            found: self.edits_read,
            expected: self.part.summary.edits,
        };
        Err(self.corrupt(self.part.end, defect))
    }

    fn corrupt(&self, offset: u64, defect: Defect) -> Error {
        Error::Corrupt { path: self.part.path.clone(), offset, defect }
    }
}

// === impl Window ===

impl Window {
    fn take_edit(&mut self, region: EncodedRegionName) -> Result<Edit, Defect> {
        let left = self.bytes.len();
        let cut_off = |needed: usize| Defect::CutOff {
            part: "record",
            needed: needed as u64,
            left: left as u64,
        };
        let prefix =
            *self.bytes.first_chunk::<RECORD_PREFIX_BYTES>().ok_or(cut_off(RECORD_PREFIX_BYTES))?;
        let length = edit::body_length(&prefix)?;
        let end = RECORD_PREFIX_BYTES + length;
        if end > left {
            return Err(cut_off(end));
        }
        let body = self.bytes.split_to(end).slice(RECORD_PREFIX_BYTES..);
        self.taken += end as u64;
        edit::check_record(&prefix, &body)?;
        let found = RecordIdentity::decode(&body)?.region;
        if found != region {
            return Err(Defect::Region { found });
        }
        Edit::decode(&body)
    }

    /// The offset in the log of the record that follows the first `before` bytes of this window.
    fn offset(&self, mut before: u64) -> u64 {
        for range in &self.ranges {
            let length = range.end - range.start;
            if before < length {
                return range.start + before;
            }
            before -= length;
        }
        0
    }
}
