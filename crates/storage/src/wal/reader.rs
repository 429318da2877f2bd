//! Reads one file of a log up to its sealed length.
//!
//! If bytes are damaged, later headers decide what that means. If one states that the damaged bytes
//! had been durable, this is corruption and reported as such. If none does, the bytes are the torn
//! tail of a write that was never acknowledged, and the file ends before them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_fs::{ReadFile, SharedFileSystem};
use basalt_model::log_holds_edits;
use basalt_planted::{Rule, is_off};
use bytes::Bytes;

use super::edit::{self, Edit, RECORD_PREFIX_BYTES};
use super::error::{Defect, Error, Result};
use super::header::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, FILE_HEADER_BYTES, FileChecksum, FileHeader,
};
use super::stream::{Stream, WINDOW_BYTES};

/// Reads the edits of one file, in the order in which they were written.
pub struct WalReader {
    records: RecordReader,
}

/// Where the readable part of a file ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tail {
    /// All edits are before this offset.
    pub end: u64,
    /// How many bytes from `end` to the sealed length cannot be read.
    pub torn_bytes: u64,
    /// The defect in these bytes, if there are any.
    pub defect: Option<Defect>,
}

/// Reads records without decoding their bodies.
pub(super) struct RecordReader {
    path: PathBuf,
    file: Arc<dyn ReadFile>,
    stream: Stream,
    sealed_length: u64,
    header: Option<FileHeader>,
    checksum: FileChecksum,
    /// Where the current batch ends, and how many records it should still contain.
    batch_end: u64,
    batch_records: u32,
    finished: Option<Result<Tail>>,
}

/// A record, delimited by its length field.
pub(super) struct Record {
    /// Its offset, which is that of its prefix.
    pub(super) offset: u64,
    pub(super) body: Bytes,
}

/// A record as found in the file.
pub(super) enum Found {
    /// A record with a correct checksum.
    Record(Record),
    /// A record that had been durable and whose checksum is wrong, with the error that reports it.
    /// Its length, and thus everything after it, is right only if the batch ends where it should.
    Damaged(Record, Error),
}

/// Why a record could not be read.
enum Stop {
    /// The bytes from an offset on are damaged.
    Damaged(u64, Defect),
    /// The checksum of a record does not match its bytes.
    BadRecord(Record, Defect),
    Failed(Error),
}

// === impl WalReader ===

impl WalReader {
    /// Opens a file of a log. Bytes at or beyond `sealed_length` are never read.
    ///
    /// # Errors
    /// [`Error::Shorter`] if the file is shorter than its sealed length and edits may be missing;
    /// [`Error::Corrupt`] if its header is damaged and edits follow.
    pub async fn open(files: &SharedFileSystem, path: &Path, sealed_length: u64) -> Result<Self> {
        let records = RecordReader::open(files, path, sealed_length).await?;
        Ok(Self { records })
    }

    /// The header of the file; `None` if the file is torn within it.
    pub fn header(&self) -> Option<&FileHeader> {
        self.records.header.as_ref()
    }

    /// The next edit; `None` at the end, see [`WalReader::tail`]. The cells share the memory of a
    /// window of the file, so copy those that you keep for long.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if bytes that had been durable are damaged. The reader cannot be used
    /// after that.
    pub async fn next(&mut self) -> Result<Option<Edit>> {
        let Some(record) = self.records.next().await? else {
            return Ok(None);
        };
        let edit = Edit::decode(&record.body);
        Ok(Some(edit.map_err(|defect| self.records.corrupt(record.offset, defect))?))
    }

    /// Where the file ended; `None` until the end is reached.
    pub fn tail(&self) -> Option<&Tail> {
        self.records.tail()
    }
}

// === impl RecordReader ===

impl RecordReader {
    pub(super) async fn open(
        files: &SharedFileSystem,
        path: &Path,
        sealed_length: u64,
    ) -> Result<Self> {
        let file = files.open(path).await?;
        let end = file.length().min(sealed_length);
        if end < sealed_length && log_holds_edits(sealed_length) && !is_off(Rule::SealedLength) {
            return Err(Error::Shorter { path: path.to_owned(), length: end, sealed_length });
        }
        let mut reader = Self {
            path: path.to_owned(),
            stream: Stream::new(Arc::clone(&file), end),
            file,
            sealed_length,
            header: None,
            checksum: FileChecksum::default(),
            batch_end: FILE_HEADER_BYTES as u64,
            batch_records: 0,
            finished: None,
        };
        let bytes = reader.stream.take(FILE_HEADER_BYTES.min(end as usize));
        match FileHeader::decode(&bytes.await?.unwrap_or_default()) {
            Ok((header, checksum)) => {
                reader.header = Some(header);
                reader.checksum = checksum;
            }
            // The first batch is written only once the header is durable.
            Err(defect) if end > FILE_HEADER_BYTES as u64 => {
                return Err(reader.corrupt(0, defect));
            }
            Err(defect) => reader.finished = Some(Ok(reader.torn(0, defect))),
        }
        Ok(reader)
    }

    /// The checksum of the file header; 0 if it is torn.
    pub(super) fn file_checksum(&self) -> FileChecksum {
        self.checksum
    }

    pub(super) fn tail(&self) -> Option<&Tail> {
        self.finished.as_ref()?.as_ref().ok()
    }

    pub(super) fn corrupt(&self, offset: u64, defect: Defect) -> Error {
        Error::Corrupt { path: self.path.clone(), offset, defect }
    }

    /// The next record; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Record>> {
        match self.next_found().await? {
            None => Ok(None),
            Some(Found::Record(record)) => Ok(Some(record)),
            Some(Found::Damaged(_, error)) => {
                self.finished = Some(Err(error.clone()));
                Err(error)
            }
        }
    }

    /// The next record, even if it is damaged; `None` at the end.
    pub(super) async fn next_found(&mut self) -> Result<Option<Found>> {
        loop {
            if let Some(finished) = &self.finished {
                return finished.clone().map(|_| None);
            }
            match self.read_on().await {
                Ok(Some(record)) => return Ok(Some(Found::Record(record))),
                Ok(None) => {}
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::BadRecord(record, defect)) => {
                    match self.judge(record.offset, defect).await {
                        Err(error) if error.is_corrupt() => {
                            return Ok(Some(Found::Damaged(record, error)));
                        }
                        tail => self.finished = Some(tail),
                    }
                }
                Err(Stop::Damaged(offset, defect)) => {
                    self.finished = Some(self.judge(offset, defect).await);
                }
            }
        }
    }

    /// Reads a record, or the header of the next batch, or detects the end; returns only records.
    async fn read_on(&mut self) -> Result<Option<Record>, Stop> {
        let offset = self.stream.position();
        if self.batch_records > 0 {
            return Ok(Some(self.read_record(offset).await?));
        }
        if offset != self.batch_end {
            let defect = Defect::Mismatch {
                what: "the end of a batch, by its records",
                found: offset,
                expected: self.batch_end,
            };
            return Err(Stop::Damaged(offset, defect));
        }
        if offset == self.sealed_length {
            self.finished = Some(Ok(Tail { end: offset, torn_bytes: 0, defect: None }));
            return Ok(None);
        }
        let bytes = self.take("batch header", offset, BATCH_HEADER_BYTES).await?;
        let header = BatchHeader::decode(&bytes, self.checksum, offset)
            .map_err(|defect| Stop::Damaged(offset, defect))?;
        self.batch_end = self.stream.position().saturating_add(header.records_bytes);
        self.batch_records = header.records;
        Ok(None)
    }

    async fn read_record(&mut self, offset: u64) -> Result<Record, Stop> {
        let damaged = |defect| Stop::Damaged(offset, defect);
        let left = self.stream.left();
        let prefix = self.stream.take_array::<RECORD_PREFIX_BYTES>().await;
        let prefix = prefix
            .map_err(Stop::Failed)?
            .ok_or_else(|| damaged(cut_off("record", RECORD_PREFIX_BYTES, left)))?;
        let length = edit::body_length(&prefix).map_err(damaged)?;
        let body = self.take("record", offset, length).await?;
        self.batch_records -= 1;
        let record = Record { offset, body };
        match edit::check_record(&prefix, &record.body) {
            Ok(()) => Ok(record),
            Err(defect) => Err(Stop::BadRecord(record, defect)),
        }
    }

    async fn take(&mut self, part: &'static str, from: u64, length: usize) -> Result<Bytes, Stop> {
        let left = self.stream.left();
        match self.stream.take(length).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Stop::Damaged(from, cut_off(part, length, left))),
            Err(error) => Err(Stop::Failed(error)),
        }
    }

    /// Decides whether damage at `offset` is corruption or a torn tail.
    async fn judge(&self, offset: u64, defect: Defect) -> Result<Tail> {
        let end = self.file.length().min(self.sealed_length);
        let mut from = offset;
        while end.saturating_sub(from) >= BATCH_HEADER_BYTES as u64 {
            let length = (end - from).min(WINDOW_BYTES as u64) as usize;
            let window = self.file.read_at(from, length).await?;
            if self.says_synced_beyond(offset, from, &window) {
                return Err(self.corrupt(offset, defect));
            }
            from += (length - BATCH_HEADER_BYTES + 1) as u64;
        }
        Ok(self.torn(offset, defect))
    }

    /// Whether a header in `window`, which begins at offset `from`, states that bytes beyond
    /// `offset` had been durable.
    fn says_synced_beyond(&self, offset: u64, from: u64, window: &[u8]) -> bool {
        let places = (from..).zip(window.windows(BATCH_HEADER_BYTES));
        places
            .filter(|(_, bytes)| bytes.starts_with(&BATCH_MAGIC))
            .filter_map(|(at, bytes)| BatchHeader::decode(bytes, self.checksum, at).ok())
            .any(|header| header.synced > offset)
    }

    fn torn(&self, end: u64, defect: Defect) -> Tail {
        Tail { end, torn_bytes: self.sealed_length - end, defect: Some(defect) }
    }
}

fn cut_off(part: &'static str, needed: usize, left: u64) -> Defect {
    Defect::CutOff { part, needed: needed as u64, left }
}
