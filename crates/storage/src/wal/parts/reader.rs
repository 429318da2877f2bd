//! Reads the part of one region out of a sealed file, and nothing else.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_fs::{ReadFile, SharedFileSystem};
use basalt_model::{EncodedRegionName, SequenceId};
use bytes::Bytes;

use super::directory::{Directory, Unreadable};
use super::ranges::Ranges;
use super::{PartSummary, index_path};
use crate::wal::edit::{self, Edit, RECORD_PREFIX_BYTES, RecordIdentity};
use crate::wal::error::{Defect, Error, Result};
use crate::wal::stream::{ReadAhead, WINDOW_BYTES};

/// Where the edits of one region lie in a file.
#[derive(Clone, Debug)]
pub struct Part {
    /// What they are.
    pub summary: PartSummary,
    log: PathBuf,
    /// Where the readable part of the log ends.
    end: u64,
    ranges: Bytes,
}

/// Reads the edits of one region, in the order in which they were written. Two windows of them are
/// in memory at a time.
pub struct PartReader {
    part: Part,
    file: Arc<dyn ReadFile>,
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

/// Finds the edits of `region` in the file `log`, which has been indexed; `None` if it has none.
///
/// # Errors
/// [`Error::Corrupt`] if the index is damaged: [`super::index_parts`] makes it again.
pub async fn read_part(
    files: &SharedFileSystem,
    log: &Path,
    region: EncodedRegionName,
) -> Result<Option<Part>> {
    let path = index_path(log);
    let file = files.open(&path).await?;
    let read = async {
        let directory = Directory::read(&*file).await?;
        let Some(entry) = directory.find(region) else {
            return Ok(None);
        };
        let part = Part {
            summary: entry.summary.clone(),
            log: log.to_owned(),
            end: directory.end,
            ranges: entry.read_section(&*file).await?,
        };
        Ok(Some(part))
    };
    read.await.map_err(|unreadable| match unreadable {
        Unreadable::Files(error) => error.into(),
        Unreadable::Damaged(defect) => Error::Corrupt { path, offset: 0, defect },
    })
}

// === impl Part ===

impl Part {
    /// Checks that it holds all that is not in the store files yet, which have everything up to
    /// `flushed`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it had more: acknowledged edits may be lost.
    pub fn check_whole_after(&self, flushed: SequenceId) -> Result<()> {
        match self.summary.damage {
            Some(damage) if !damage.is_flushed(flushed) => Err(Error::Corrupt {
                path: self.log.clone(),
                offset: damage.offset,
                defect: Defect::LostEdit,
            }),
            _ => Ok(()),
        }
    }
}

// === impl PartReader ===

impl PartReader {
    /// Opens the log that `part` was found in. Whether the part is all that there was of its region
    /// is for [`Part::check_whole_after`] to say.
    ///
    /// # Errors
    /// The log is gone.
    pub async fn open(files: &SharedFileSystem, part: Part) -> Result<Self> {
        let file = files.open(&part.log).await?;
        Ok(Self {
            ranges: Ranges::new(part.ranges.clone(), part.end),
            part,
            file,
            window: Window::default(),
            ahead: None,
            edits_read: 0,
        })
    }

    /// The next edit; `None` behind the last. The cells share the memory of a window, which holds
    /// this region's edits only.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the log is not what was indexed. The reader is spent then.
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

    /// The next records; those after them are under way then.
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
        let file = Arc::clone(&self.file);
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
        Error::Corrupt { path: self.part.log.clone(), offset, defect }
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

    /// Where in the log the record lies that `before` bytes of this window precede.
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
