//! Writes a store file from cells in order, block by block.
//!
//! Memory is bounded: it holds a data block, a bloom chunk, an index block, and about a mebibyte
//! that has not been appended to the file yet. Properties of the file such as statistics and ranges
//! are collected on the way and written at the end, so nothing is read back.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use basalt_fs::{AppendFile, Durability, SharedFileSystem};
use basalt_model::{BloomType, Cell, CellKey, CellType, Compression, SequenceId, compare_keys};
use bytes::Bytes;

use super::block::{BLOCK_BYTES_MAX, BlockSink, BlockType};
use super::bloom::BloomWriter;
use super::compression::codec_name;
use super::data_block::put_cell;
use super::error::{Error, Result};
use super::file_info::{self, FileInfo, TimeRange};
use super::index::{IndexWriter, separator};
use super::trailer::{LOAD_ON_OPEN_BYTES_MAX, TRAILER_BYTES, Trailer};

/// How many bytes are appended to the file at a time.
const APPEND_BYTES: usize = 1 << 20;

/// Options for writing a store file.
#[derive(Clone, Copy, Debug)]
pub struct StoreFileOptions {
    /// The compression of blocks. Default: none.
    pub compression: Compression,
    /// The keys in the bloom filter. Default: rows.
    pub bloom_type: BloomType,
    /// The length in bytes at which a data block ends, with the cell that reaches it. Default: 64
    /// KiB.
    pub block_bytes: usize,
    /// The length in bytes at which an index block ends, with the entry that reaches it. Default:
    /// 128 KiB.
    pub index_chunk_bytes: usize,
    /// The length of a chunk of the bloom filter, in bytes. Default: 128 KiB.
    pub bloom_chunk_bytes: usize,
    /// When the file is created, in milliseconds since 1970. Default: 0, which means unknown.
    pub created_ms: u64,
    /// The durability of the file once it is finished.
    pub durability: Durability,
}

/// Properties of a file that the caller states when it finishes the file.
#[derive(Clone, Copy, Debug)]
pub struct StoreFileMeta {
    /// All edits of the store up to this one are in this file or in older ones.
    pub max_sequence_id: SequenceId,
    /// Whether the file is the result of a compaction of all other files of its store, so that its
    /// deletes hide nothing more.
    pub is_major_compaction: bool,
}

/// A file that has been written.
#[derive(Clone, Debug)]
pub struct StoreFileSummary {
    /// The path to which it was written.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// The length of its blocks before compression, in bytes.
    pub uncompressed_length: u64,
    /// The number of cells in the file.
    pub cell_count: u64,
    /// The serialized key of the first cell; `None` if the file has no cells.
    pub first_key: Option<Bytes>,
    /// The serialized key of the last cell; `None` if the file has no cells.
    pub last_key: Option<Bytes>,
    /// The timestamps of its cells; `None` if the file has no cells.
    pub time_range: Option<TimeRange>,
    /// The value from [`StoreFileMeta`].
    pub max_sequence_id: SequenceId,
    /// The value from [`StoreFileMeta`].
    pub is_major_compaction: bool,
}

/// A store file being written. If it is dropped before [`StoreFileWriter::finish`], it leaves a
/// partial file behind, which no reader accepts as complete.
pub struct StoreFileWriter {
    path: PathBuf,
    /// `None` after an error, because the contents of the file are then unknown.
    file: Option<Box<dyn AppendFile>>,
    block_bytes: usize,
    sink: BlockSink,
    index: IndexWriter,
    bloom: Option<BloomWriter>,
    bloom_type: BloomType,
    created_ms: u64,
    block: Vec<u8>,
    first_key_of_block: Vec<u8>,
    last_key_of_previous_block: Vec<u8>,
    last_key: Vec<u8>,
    last_sequence_id: SequenceId,
    first_data_offset: Option<u64>,
    last_data_offset: Option<u64>,
    statistics: Statistics,
}

/// Statistics of the cells.
#[derive(Debug, Default)]
struct Statistics {
    cell_count: u64,
    keys_length: u64,
    values_length: u64,
    biggest_length: usize,
    biggest_key: Bytes,
    first_key: Bytes,
    tags_length_max: usize,
    sequence_id_max: SequenceId,
    time_range: Option<TimeRange>,
    earliest_put: Option<i64>,
    delete_family_count: u64,
}

// === impl StoreFileOptions ===

impl Default for StoreFileOptions {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            bloom_type: BloomType::Row,
            block_bytes: 64 << 10,
            index_chunk_bytes: 128 << 10,
            bloom_chunk_bytes: 128 << 10,
            created_ms: 0,
            durability: Durability::default(),
        }
    }
}

// === impl StoreFileWriter ===

impl StoreFileWriter {
    /// Creates the file at `path`. The caller should use a temporary path, and rename the file once
    /// it is finished.
    ///
    /// # Errors
    /// If the file exists, or the file system returns an error.
    pub async fn create(
        files: &SharedFileSystem,
        path: &Path,
        options: StoreFileOptions,
    ) -> Result<Self> {
        let mut file = files.create(path).await?;
        file.set_durability(options.durability);
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            block_bytes: options.block_bytes,
            sink: BlockSink::new(options.compression),
            index: IndexWriter::new(options.index_chunk_bytes),
            bloom: BloomWriter::new(options.bloom_type, options.bloom_chunk_bytes),
            bloom_type: options.bloom_type,
            created_ms: options.created_ms,
            block: Vec::with_capacity(options.block_bytes.min(BLOCK_BYTES_MAX)),
            first_key_of_block: Vec::new(),
            last_key_of_previous_block: Vec::new(),
            last_key: Vec::new(),
            last_sequence_id: SequenceId(0),
            first_data_offset: None,
            last_data_offset: None,
            statistics: Statistics::default(),
        })
    }

    /// Adds a cell. It must not sort before the last one.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] and [`Error::BlockTooLong`] if the cell is rejected. After any other
    /// error the file must be abandoned.
    pub async fn append(&mut self, cell: &Cell) -> Result<()> {
        let order = self.order_after_last(cell)?;
        if order == Ordering::Less && self.block.len() >= self.block_bytes {
            self.finish_block().inspect_err(|_| self.file = None)?;
            if self.sink.pending_bytes() >= APPEND_BYTES {
                self.flush().await?;
            }
            // Compression takes time: lets other tasks of this thread run between blocks.
            tokio::task::yield_now().await;
        }
        self.check_fits(cell)?;
        if let Some(bloom) = &mut self.bloom {
            bloom.add(cell);
        }
        if self.block.is_empty() {
            self.first_key_of_block.clear();
            self.first_key_of_block.extend_from_slice(cell.key_bytes());
        }
        put_cell(&mut self.block, cell);
        self.last_key.clear();
        self.last_key.extend_from_slice(cell.key_bytes());
        self.last_sequence_id = cell.sequence_id();
        self.statistics.add(cell);
        Ok(())
    }

    /// The approximate length of the file so far, in bytes.
    pub fn length(&self) -> u64 {
        self.sink.offset() + self.block.len() as u64
    }

    /// The number of cells appended so far.
    pub fn cell_count(&self) -> u64 {
        self.statistics.cell_count
    }

    /// The path to which the file is being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the remaining data and syncs the file. The caller must make its name durable.
    ///
    /// # Errors
    /// [`Error::LoadOnOpenTooLong`], or an error of a codec or the file system. The file must be
    /// abandoned.
    pub async fn finish(mut self, meta: StoreFileMeta) -> Result<StoreFileSummary> {
        self.finish_block()?;
        let path = self.path.clone();
        let codec = codec_name(self.sink.compression());
        let packed = |result| compress_error(&path, codec, result);
        packed(self.index.finish_leaves(&mut self.sink))?;
        if let Some(bloom) = &mut self.bloom {
            packed(bloom.finish_chunks(&mut self.sink))?;
        }
        let index = std::mem::replace(&mut self.index, IndexWriter::new(0));
        let index = compress_error(&path, codec, index.finish(&mut self.sink))?;
        let bloom = self.bloom.take().and_then(BloomWriter::finish);
        let last_bloom_key = bloom.as_ref().map(|(_, last_key)| last_key.as_slice());
        let info = self.file_info(&meta, last_bloom_key).to_payload();

        // The index of meta blocks, which is empty.
        self.put(BlockType::RootIndex, &[])?;
        let file_info_offset = self.sink.offset();
        self.put(BlockType::FileInfo, &info)?;
        if let Some((bloom_meta, _)) = bloom {
            self.put(BlockType::GeneralBloomMeta, &bloom_meta)?;
        }
        let length = self.sink.offset().saturating_sub(index.root_offset);
        if length > LOAD_ON_OPEN_BYTES_MAX {
            let length_max = LOAD_ON_OPEN_BYTES_MAX;
            return Err(Error::LoadOnOpenTooLong { path, length, length_max });
        }
        let uncompressed_bytes = self.sink.uncompressed_bytes() + TRAILER_BYTES as u64;
        let trailer = Trailer {
            file_info_offset,
            load_on_open_offset: index.root_offset,
            index_payload_bytes: index.payload_bytes,
            uncompressed_bytes,
            root_count: index.root_count,
            levels: index.levels,
            cell_count: self.statistics.cell_count,
            first_data_offset: self.first_data_offset,
            last_data_offset: self.last_data_offset,
            compression: self.sink.compression(),
        };
        self.sink.put_raw(&trailer.to_bytes());
        let mut file = self.take_file()?;
        file.append_and_sync(self.sink.take()).await?;
        file.close().await?;
        let length = file.length();

        let statistics = self.statistics;
        let has_cells = statistics.cell_count > 0;
        Ok(StoreFileSummary {
            path: self.path,
            length,
            uncompressed_length: uncompressed_bytes,
            cell_count: statistics.cell_count,
            first_key: has_cells.then_some(statistics.first_key),
            last_key: has_cells.then_some(self.last_key.into()),
            time_range: statistics.time_range,
            max_sequence_id: meta.max_sequence_id,
            is_major_compaction: meta.is_major_compaction,
        })
    }

    /// Compares the last cell's key with this cell's. An error if this cell does not belong after
    /// the last.
    fn order_after_last(&self, cell: &Cell) -> Result<Ordering> {
        if self.statistics.cell_count == 0 {
            return Ok(Ordering::Less);
        }
        let order = compare_keys(&self.last_key, cell.key_bytes());
        // Among cells with the same key, the later edit comes first.
        let too_late = match order {
            Ordering::Less => false,
            Ordering::Equal => self.last_sequence_id < cell.sequence_id(),
            Ordering::Greater => true,
        };
        if !too_late {
            return Ok(order);
        }
        let last = CellKey::parse(&self.last_key);
        let last = last.map(|key| {
            let (row, qualifier) = (key.row.escape_ascii(), key.qualifier.escape_ascii());
            format!("row {row}, column {qualifier}, timestamp {}", key.timestamp)
        });
        Err(Error::OutOfOrder {
            path: self.path.clone(),
            cell: format!("{cell:?}"),
            last: last.unwrap_or_default(),
        })
    }

    fn check_fits(&self, cell: &Cell) -> Result<()> {
        // Room besides the cell: the length of its tags, its sequence id, header and checksums.
        let length = self.block.len() + cell.bytes().len() + 64;
        let length_max = BLOCK_BYTES_MAX / 2;
        if length > length_max {
            return Err(Error::BlockTooLong { path: self.path.clone(), length, length_max });
        }
        Ok(())
    }

    /// Writes the current data block, if it is not empty, and the index and bloom blocks that are
    /// now full.
    fn finish_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let pointer = self.put(BlockType::Data, &block)?;
        self.block = block;
        self.block.clear();
        self.first_data_offset.get_or_insert(pointer.offset);
        self.last_data_offset = Some(pointer.offset);

        let last = CellKey::parse(&self.last_key_of_previous_block);
        let first = CellKey::parse(&self.first_key_of_block);
        let key = match (last, first) {
            (Ok(last), Ok(first)) => separator(&last, &first),
            _ => Bytes::copy_from_slice(&self.first_key_of_block),
        };
        self.last_key_of_previous_block.clone_from(&self.last_key);
        let mut result = self.index.add(key, pointer, &mut self.sink);
        if let (Ok(()), Some(bloom)) = (&result, &mut self.bloom) {
            result = bloom.write_full(&mut self.sink);
        }
        compress_error(&self.path, codec_name(self.sink.compression()), result)
    }

    fn put(&mut self, block_type: BlockType, payload: &[u8]) -> Result<super::block::BlockPointer> {
        let result = self.sink.put(block_type, payload);
        compress_error(&self.path, codec_name(self.sink.compression()), result)
    }

    /// Appends the collected blocks to the file.
    async fn flush(&mut self) -> Result<()> {
        let mut file = self.take_file()?;
        file.append(self.sink.take()).await?;
        self.file = Some(file);
        Ok(())
    }

    /// The caller puts the file back only if its operation succeeded.
    fn take_file(&mut self) -> Result<Box<dyn AppendFile>> {
        self.file.take().ok_or_else(|| Error::Abandoned { path: self.path.clone() })
    }

    fn file_info(&self, meta: &StoreFileMeta, last_bloom_key: Option<&[u8]>) -> FileInfo {
        let mut info = FileInfo::default();
        self.statistics.describe(&mut info);
        if self.statistics.cell_count > 0 {
            info.put(file_info::LAST_KEY, self.last_key.clone());
        }
        info.put_i64(file_info::CREATED_MS, self.created_ms as i64);
        info.put_i64(file_info::SEQUENCE_ID_MAX, meta.max_sequence_id.0 as i64);
        info.put_bool(file_info::MAJOR_COMPACTION, meta.is_major_compaction);
        if let Some(last_bloom_key) = last_bloom_key {
            info.put(file_info::BLOOM_TYPE, bloom_type_name(self.bloom_type));
            info.put(file_info::LAST_BLOOM_KEY, last_bloom_key.to_vec());
        }
        info
    }
}

// === impl Statistics ===

impl Statistics {
    fn add(&mut self, cell: &Cell) {
        let key = cell.key();
        if self.cell_count == 0 {
            self.first_key = Bytes::copy_from_slice(cell.key_bytes());
        }
        self.cell_count += 1;
        self.keys_length += cell.key_bytes().len() as u64;
        self.values_length += cell.value().len() as u64;
        if cell.bytes().len() > self.biggest_length {
            self.biggest_length = cell.bytes().len();
            self.biggest_key = Bytes::copy_from_slice(cell.key_bytes());
        }
        self.tags_length_max = self.tags_length_max.max(cell.tags().len());
        self.sequence_id_max = self.sequence_id_max.max(cell.sequence_id());
        self.time_range = TimeRange::including(self.time_range, key.timestamp);
        match cell.cell_type() {
            CellType::Put => {
                let earliest = self.earliest_put.unwrap_or(i64::MAX);
                self.earliest_put = Some(earliest.min(key.timestamp));
            }
            // It hides everything down to timestamp 0.
            CellType::DeleteColumn => {
                self.time_range = TimeRange::including(self.time_range, 0);
            }
            CellType::DeleteFamily => {
                self.time_range = TimeRange::including(self.time_range, 0);
                self.delete_family_count += 1;
            }
            CellType::DeleteFamilyVersion => self.delete_family_count += 1,
            _ => {}
        }
    }

    fn describe(&self, info: &mut FileInfo) {
        let average = |sum: u64| i32::try_from(sum.checked_div(self.cell_count).unwrap_or(0));
        let key_average = average(self.keys_length).unwrap_or(i32::MAX);
        let value_average = average(self.values_length).unwrap_or(i32::MAX);
        info.put_i32(file_info::AVERAGE_KEY_LENGTH, key_average);
        info.put_i32(file_info::AVERAGE_VALUE_LENGTH, value_average);
        if self.cell_count > 0 {
            info.put(file_info::BIGGEST_CELL_KEY, self.biggest_key.clone());
            info.put_i64(file_info::BIGGEST_CELL_LENGTH, self.biggest_length as i64);
        }
        // The presence of this property means that every cell has a tags length, even if it is 0.
        info.put_i32(file_info::TAGS_LENGTH_MAX, self.tags_length_max as i32);
        info.put_bool(file_info::TAGS_COMPRESSED, false);
        info.put_i64(file_info::CELL_SEQUENCE_ID_MAX, self.sequence_id_max.0 as i64);
        let version = file_info::CELL_VERSION_WITH_SEQUENCE_ID;
        info.put_i32(file_info::CELL_VERSION, version);
        info.put_time_range(self.time_range);
        info.put_i64(file_info::EARLIEST_PUT, self.earliest_put.unwrap_or(i64::MAX));
        info.put_i64(file_info::DELETE_FAMILY_COUNT, self.delete_family_count as i64);
    }
}

/// The name of a bloom filter type in the file info.
pub(super) fn bloom_type_name(bloom_type: BloomType) -> &'static str {
    match bloom_type {
        BloomType::None => "NONE",
        BloomType::Row => "ROW",
        BloomType::RowCol => "ROWCOL",
    }
}

fn compress_error<T>(
    path: &Path,
    codec: &'static str,
    result: std::result::Result<T, String>,
) -> Result<T> {
    result.map_err(|reason| Error::Compress { path: path.to_owned(), codec, reason })
}
