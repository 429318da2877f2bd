//! An open store file: its properties, and its blocks through the cache.
//!
//! Opening a file costs one read of its tail, or two if its index is large. After that, a point
//! read needs a bloom chunk, the index blocks on one path, and a data block. Each is read from disk
//! only if it is not in the cache.

use std::cmp::Ordering as KeyOrder;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use basalt_fs::{ReadFile, SharedFileSystem};
use basalt_model::{BloomType, CellKey, Compression, SequenceId};
use bytes::{Buf, Bytes};

use super::block::{BlockPointer, BlockType, HEADER_BYTES, read_block, stated_length};
use super::bloom::{BloomFilter, put_column_key};
use super::data_block::DataBlock;
use super::encoding::{DataFormat, UnknownEncoding};
use super::error::{Damage, Error, Result};
use super::fields::Fields;
use super::file_info::{self, FileInfo, TimeRange};
use super::index::IndexBlock;
use super::part::FilePart;
use super::scanner::{ScannerOptions, StoreFileScanner};
use super::trailer::{LOAD_ON_OPEN_BYTES_MAX, TRAILER_BYTES, Trailer, TrailerError};
use super::writer::bloom_type_name;
use crate::block_cache::{BlockCache, BlockKey, CachedBlock, FileId};
use crate::named_file::NamedFile;

/// How many bytes at the end of the file are read first.
const TAIL_BYTES: usize = TRAILER_BYTES + (64 << 10);
/// The length of the middle key's position, which follows the root entries of an index with several
/// levels.
const MIDDLE_KEY_BYTES: usize = 16;
/// How many bytes a scan reads at a time if it reads block after block without the cache.
const READAHEAD_BYTES: u64 = 1 << 20;

/// A store file, or a part of one, that is open for reading. Cheap to clone: clones share
/// everything.
#[derive(Clone)]
pub struct StoreFile {
    shared: Arc<StoreFileShared>,
    /// `None`: the whole file, as it is.
    part: Option<Arc<FilePart>>,
}

struct StoreFileShared {
    path: PathBuf,
    named_path: PathBuf,
    file: Arc<dyn ReadFile>,
    cache: Arc<BlockCache>,
    id: FileId,
    trailer: Trailer,
    info: FileInfo,
    format: DataFormat,
    root: Arc<IndexBlock>,
    first_key: Option<Bytes>,
    last_key: Option<Bytes>,
    time_range: Option<TimeRange>,
    bloom_type: BloomType,
    bloom: Option<BloomFilter>,
    /// Whether a chunk of the bloom filter was found damaged. If so, the filter is no longer used.
    bloom_damaged: AtomicBool,
}

/// Bytes that were read beyond the requested block.
#[derive(Debug, Default)]
pub(super) struct Readahead {
    start: u64,
    bytes: Bytes,
}

// === impl StoreFile ===

impl StoreFile {
    /// Opens the file whose path is `named_path` while it is not archived; its blocks are kept in
    /// `cache`.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Unsupported`], or an error of the file system.
    pub async fn open(
        files: &SharedFileSystem,
        named_path: &Path,
        cache: Arc<BlockCache>,
    ) -> Result<Self> {
        let (path, file) = NamedFile::open(files, named_path).await?;
        let (path, file): (&Path, Arc<dyn ReadFile>) = (&path, Arc::new(file));
        let length = file.length();
        let trailer_offset = length.saturating_sub(TRAILER_BYTES as u64);
        let corrupt = |offset, damage| Error::Corrupt { path: path.to_owned(), offset, damage };
        if length < TRAILER_BYTES as u64 {
            let what = "the trailer";
            return Err(corrupt(0, Damage::CutOff { what }));
        }
        let tail_length = length.min(TAIL_BYTES as u64);
        let tail_offset = length - tail_length;
        let tail = file.read_at(tail_offset, tail_length as usize).await?;
        let trailer_bytes = tail.slice(tail.len() - TRAILER_BYTES..);
        let trailer = Trailer::parse(&trailer_bytes, length).map_err(|error| match error {
            TrailerError::Damaged(damage) => corrupt(trailer_offset, damage),
            TrailerError::Unsupported(what, found, supported) => {
                Error::Unsupported { path: path.to_owned(), what, found, supported }
            }
        })?;

        let start = trailer.load_on_open_offset;
        let part_length = trailer_offset - start;
        let bounds = (0, LOAD_ON_OPEN_BYTES_MAX as i64);
        Damage::check("length of the load-on-open part", part_length as i64, bounds)
            .map_err(|damage| corrupt(trailer_offset, damage))?;
        let part = match start.checked_sub(tail_offset) {
            Some(skipped) => tail.slice(skipped as usize..tail.len() - TRAILER_BYTES),
            None => file.read_at(start, part_length as usize).await?,
        };
        let mut blocks =
            LoadOnOpen { path, named_path, offset: start, part, compression: trailer.compression };
        let shared = blocks.read(trailer, file, cache)?;
        Ok(Self { shared: Arc::new(shared), part: None })
    }

    /// The same file, of which only `part` is read. What the file says about itself, such as its
    /// length, its number of cells, its first and last key and its timestamps, remains that of the
    /// whole file.
    #[must_use]
    pub fn with_part(mut self, part: FilePart) -> Self {
        self.part = (part != FilePart::default()).then(|| Arc::new(part));
        self
    }

    /// The part that is read.
    pub fn part(&self) -> FilePart {
        self.limit().map(|part| part.as_ref().clone()).unwrap_or_default()
    }

    /// The part that is read; `None` if it is the whole file, as it is.
    #[inline]
    pub(super) fn limit(&self) -> Option<&Arc<FilePart>> {
        self.part.as_ref()
    }

    /// A scanner without a position: seek first.
    pub fn scanner(&self, options: ScannerOptions) -> StoreFileScanner {
        StoreFileScanner::new(self.clone(), options)
    }

    /// Whether the file may hold cells of `row`. If false, it certainly holds none.
    ///
    /// # Errors
    /// If the file system returns an error. A damaged bloom filter is not an error; the result is
    /// then true.
    pub async fn may_contain_row(&self, row: &[u8]) -> Result<bool> {
        if !self.is_in_range(row) {
            return Ok(false);
        }
        match self.bloom() {
            Some(bloom) if !bloom.is_by_column() => self.ask_bloom(bloom, row).await,
            _ => Ok(true),
        }
    }

    /// Whether the file may hold cells of this column of `row`, or deletes of the whole row.
    ///
    /// # Errors
    /// As [`StoreFile::may_contain_row`].
    pub async fn may_contain_row_column(&self, row: &[u8], qualifier: &[u8]) -> Result<bool> {
        let Some(bloom) = self.bloom().filter(|bloom| bloom.is_by_column()) else {
            return self.may_contain_row(row).await;
        };
        if !self.is_in_range(row) {
            return Ok(false);
        }
        let mut key = Vec::with_capacity(row.len() + qualifier.len() + 12);
        put_column_key(&mut key, row, qualifier);
        if self.ask_bloom(bloom, &key).await? {
            return Ok(true);
        }
        // Deletes of a whole family are stored under the empty column.
        key.clear();
        put_column_key(&mut key, row, &[]);
        self.ask_bloom(bloom, &key).await
    }

    /// The path at which the file was found when it was opened.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The path of the file while it is not archived.
    pub fn named_path(&self) -> &Path {
        &self.shared.named_path
    }

    /// The length of the file in bytes.
    pub fn length(&self) -> u64 {
        self.shared.file.length()
    }

    /// The length of its blocks after decompression, in bytes.
    pub fn uncompressed_length(&self) -> u64 {
        self.shared.trailer.uncompressed_bytes
    }

    /// The number of cells in the file.
    pub fn cell_count(&self) -> u64 {
        self.shared.trailer.cell_count
    }

    /// The serialized key of the first cell; `None` if the file has no cells.
    pub fn first_key(&self) -> Option<&Bytes> {
        self.shared.first_key.as_ref()
    }

    /// The serialized key of the last cell; `None` if the file has no cells.
    pub fn last_key(&self) -> Option<&Bytes> {
        self.shared.last_key.as_ref()
    }

    /// The timestamps of its cells; `None` if they are unknown or the file has no cells.
    pub fn time_range(&self) -> Option<TimeRange> {
        self.shared.time_range
    }

    /// All edits of the store up to this one are in this file or in older ones; 0 if unknown. If
    /// the part has a sequence id, it is that one.
    pub fn max_sequence_id(&self) -> SequenceId {
        self.sequence_id(file_info::SEQUENCE_ID_MAX)
    }

    /// The highest sequence id of its cells; 0 if they have none. If the part has a sequence id, it
    /// is that one.
    pub fn max_cell_sequence_id(&self) -> SequenceId {
        self.sequence_id(file_info::CELL_SEQUENCE_ID_MAX)
    }

    /// Whether the file is the result of a compaction of all older files of its store.
    pub fn is_major_compaction(&self) -> bool {
        self.shared.info.bool(file_info::MAJOR_COMPACTION)
    }

    /// When the file was created, in milliseconds since 1970; 0 if unknown.
    pub fn created_ms(&self) -> u64 {
        let created_ms = self.shared.info.i64(file_info::CREATED_MS).unwrap_or_default();
        u64::try_from(created_ms).unwrap_or_default()
    }

    /// The timestamp of its oldest put; `None` if it has no puts.
    pub fn earliest_put_timestamp(&self) -> Option<i64> {
        let earliest = self.shared.info.i64(file_info::EARLIEST_PUT);
        earliest.filter(|timestamp| *timestamp != i64::MAX)
    }

    /// The number of deletes of whole families in the file; `None` if unknown.
    pub fn delete_family_count(&self) -> Option<u64> {
        let count = self.shared.info.i64(file_info::DELETE_FAMILY_COUNT)?;
        u64::try_from(count).ok()
    }

    /// How its blocks are compressed.
    pub fn compression(&self) -> Compression {
        self.shared.trailer.compression
    }

    /// The keys in its bloom filter.
    pub fn bloom_type(&self) -> BloomType {
        self.shared.bloom_type
    }

    /// Removes its blocks from the cache, for a file that will not be read again.
    pub fn evict(&self) {
        self.shared.cache.evict(self.shared.id);
    }

    pub(super) fn root(&self) -> &Arc<IndexBlock> {
        &self.shared.root
    }

    pub(super) fn index_levels(&self) -> usize {
        self.shared.trailer.levels as usize
    }

    /// Reads a data block through the cache.
    pub(super) async fn data_block(&self, pointer: BlockPointer) -> Result<Arc<DataBlock>> {
        let block_type = self.shared.format.block_type();
        let load = async {
            let payload = self.payload(pointer, block_type, None).await?;
            let block = self.parse_data(pointer, payload)?;
            Ok::<_, Error>(CachedBlock::Data(Arc::new(block)))
        };
        let block = self.shared.cache.get_or_load(self.key(pointer), load).await?;
        match block {
            CachedBlock::Data(block) => Ok(block),
            other => Err(self.not_expected(pointer, block_type, &other)),
        }
    }

    /// Reads a data block from the cache if it is there, otherwise from disk without caching it.
    /// With `readahead`, the bytes that follow the block are read too.
    pub(super) async fn data_block_uncached(
        &self,
        pointer: BlockPointer,
        readahead: Option<&mut Readahead>,
    ) -> Result<Arc<DataBlock>> {
        let block_type = self.shared.format.block_type();
        match self.shared.cache.get(self.key(pointer)) {
            Some(CachedBlock::Data(block)) => Ok(block),
            Some(other) => Err(self.not_expected(pointer, block_type, &other)),
            None => {
                let payload = self.payload(pointer, block_type, readahead).await?;
                self.parse_data(pointer, payload).map(Arc::new)
            }
        }
    }

    /// Reads an index block below the root through the cache.
    pub(super) async fn index_block(
        &self,
        pointer: BlockPointer,
        block_type: BlockType,
    ) -> Result<Arc<IndexBlock>> {
        let load = async {
            let payload = self.payload(pointer, block_type, None).await?;
            let block = IndexBlock::parse(payload).and_then(|block| {
                // A search needs an entry to continue from here.
                let bounds = (1, i64::MAX);
                Damage::check("count of index entries", block.count() as i64, bounds)?;
                Ok(block)
            });
            let block = block.map_err(|damage| self.corrupt(pointer.offset, damage))?;
            Ok::<_, Error>(CachedBlock::Index(Arc::new(block)))
        };
        let block = self.shared.cache.get_or_load(self.key(pointer), load).await?;
        match block {
            CachedBlock::Index(block) => Ok(block),
            other => Err(self.not_expected(pointer, block_type, &other)),
        }
    }

    pub(super) fn corrupt(&self, offset: u64, damage: Damage) -> Error {
        Error::Corrupt { path: self.shared.path.clone(), offset, damage }
    }

    async fn bloom_chunk(&self, pointer: BlockPointer) -> Result<Bytes> {
        let load = async {
            let payload = self.payload(pointer, BlockType::BloomChunk, None).await?;
            Ok::<_, Error>(CachedBlock::Bloom(payload))
        };
        let block = self.shared.cache.get_or_load(self.key(pointer), load).await?;
        match block {
            CachedBlock::Bloom(chunk) => Ok(chunk),
            other => Err(self.not_expected(pointer, BlockType::BloomChunk, &other)),
        }
    }

    /// Reads and verifies a block that is before the load-on-open part.
    async fn payload(
        &self,
        pointer: BlockPointer,
        block_type: BlockType,
        readahead: Option<&mut Readahead>,
    ) -> Result<Bytes> {
        let end = self.shared.trailer.load_on_open_offset;
        let corrupt = |damage| self.corrupt(pointer.offset, damage);
        let offset_max = end as i64 - HEADER_BYTES as i64;
        Damage::check("offset of a block", pointer.offset as i64, (0, offset_max))
            .map_err(corrupt)?;
        let length_bounds = (HEADER_BYTES as i64, (end - pointer.offset) as i64);
        Damage::check("length of a block", pointer.length.into(), length_bounds)
            .map_err(corrupt)?;
        let bytes = match readahead {
            Some(readahead) => readahead.read(&*self.shared.file, pointer, end).await?,
            None => {
                let length = pointer.length as usize;
                self.shared.file.read_at(pointer.offset, length).await?
            }
        };
        read_block(bytes, block_type, self.compression()).map_err(corrupt)
    }

    fn parse_data(&self, pointer: BlockPointer, payload: Bytes) -> Result<DataBlock> {
        self.shared.format.parse(payload).map_err(|damage| self.corrupt(pointer.offset, damage))
    }

    /// The bloom filter, if there is one and it is not damaged.
    fn bloom(&self) -> Option<&BloomFilter> {
        let damaged = self.shared.bloom_damaged.load(Ordering::Relaxed);
        self.shared.bloom.as_ref().filter(|_| !damaged)
    }

    async fn ask_bloom(&self, bloom: &BloomFilter, key: &[u8]) -> Result<bool> {
        let Some(pointer) = bloom.chunk_for(key) else {
            return Ok(false);
        };
        match self.bloom_chunk(pointer).await {
            Ok(chunk) => Ok(bloom.may_contain(&chunk, key)),
            // The cells can be read without the filter.
            Err(error @ Error::Corrupt { .. }) => {
                if !self.shared.bloom_damaged.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the bloom filter is damaged: reading without it");
                }
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn is_in_range(&self, row: &[u8]) -> bool {
        if self.limit().is_some_and(|part| !part.contains(row)) {
            return false;
        }
        let (Some(first), Some(last)) = (self.first_key(), self.last_key()) else {
            return false;
        };
        let compare = |key: &[u8]| CellKey::parse(key).map(|key| row.cmp(key.row));
        compare(first) != Ok(KeyOrder::Less) && compare(last) != Ok(KeyOrder::Greater)
    }

    fn sequence_id(&self, name: &str) -> SequenceId {
        if let Some(sequence_id) = self.limit().and_then(|part| part.sequence_id) {
            return sequence_id;
        }
        let number = self.shared.info.i64(name).unwrap_or_default();
        SequenceId(u64::try_from(number).unwrap_or_default())
    }

    fn key(&self, pointer: BlockPointer) -> BlockKey {
        BlockKey { file: self.shared.id, offset: pointer.offset }
    }

    /// The error for an index entry that refers to a block of a kind other than expected.
    fn not_expected(
        &self,
        pointer: BlockPointer,
        expected: BlockType,
        found: &CachedBlock,
    ) -> Error {
        let found = match found {
            CachedBlock::Data(_) => "a data block",
            CachedBlock::Index(_) => "an index block",
            CachedBlock::Bloom(_) => "a bloom chunk",
        };
        let damage = Damage::Magic {
            found: format!("those of {found}"),
            expected: expected.magic().escape_ascii().to_string(),
        };
        self.corrupt(pointer.offset, damage)
    }
}

impl fmt::Debug for StoreFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StoreFile")
            .field("path", &self.shared.path)
            .field("part", &self.part)
            .field("trailer", &self.shared.trailer)
            .finish_non_exhaustive()
    }
}

// === impl Readahead ===

impl Readahead {
    async fn read(
        &mut self,
        file: &dyn ReadFile,
        pointer: BlockPointer,
        end: u64,
    ) -> Result<Bytes> {
        let length = pointer.length as usize;
        let skipped = pointer.offset.checked_sub(self.start);
        let skipped = skipped.and_then(|skipped| usize::try_from(skipped).ok());
        if let Some(skipped) = skipped
            && let Some(stop) = skipped.checked_add(length)
            && stop <= self.bytes.len()
        {
            return Ok(self.bytes.slice(skipped..stop));
        }
        let wanted = READAHEAD_BYTES.min(end - pointer.offset) as usize;
        self.bytes = file.read_at(pointer.offset, wanted.max(length)).await?;
        self.start = pointer.offset;
        Ok(self.bytes.slice(..length))
    }
}

/// The blocks of the load-on-open part, one after the other.
struct LoadOnOpen<'a> {
    path: &'a Path,
    named_path: &'a Path,
    offset: u64,
    part: Bytes,
    compression: Compression,
}

// === impl LoadOnOpen ===

impl LoadOnOpen<'_> {
    fn read(
        &mut self,
        trailer: Trailer,
        file: Arc<dyn ReadFile>,
        cache: Arc<BlockCache>,
    ) -> Result<StoreFileShared> {
        let root_offset = self.offset;
        let root = self.next(BlockType::RootIndex)?;
        let root =
            read_root(&root, &trailer).map_err(|damage| self.corrupt(root_offset, damage))?;
        let _meta_index = self.next(BlockType::RootIndex)?;
        let info_offset = self.offset;
        let info = self.next(BlockType::FileInfo)?;
        let info = FileInfo::parse(&info).map_err(|damage| self.corrupt(info_offset, damage))?;
        let format = DataFormat::from_info(&info).map_err(|encoding| {
            let UnknownEncoding { what, found, supported } = encoding;
            Error::Unsupported { path: self.path.to_owned(), what, found, supported }
        })?;

        let first_key = (root.count() > 0).then(|| root.key_bytes(0));
        let last_key = info.get(file_info::LAST_KEY).cloned();
        for key in [&first_key, &last_key].into_iter().flatten() {
            CellKey::parse(key).map_err(|error| {
                let reason = error.to_string();
                let what = "the first or the last key";
                self.corrupt(info_offset, Damage::Message { what, reason })
            })?;
        }
        let (bloom_type, bloom) = self.read_bloom(&info)?;
        Ok(StoreFileShared {
            path: self.path.to_owned(),
            named_path: self.named_path.to_owned(),
            file,
            id: cache.next_file_id(),
            cache,
            trailer,
            format,
            time_range: info.time_range(),
            info,
            root: Arc::new(root),
            first_key,
            last_key,
            bloom_type,
            bloom,
            bloom_damaged: AtomicBool::new(false),
        })
    }

    /// Searches the remaining blocks for the bloom filter that the file info names.
    fn read_bloom(&mut self, info: &FileInfo) -> Result<(BloomType, Option<BloomFilter>)> {
        let name = info.get(file_info::BLOOM_TYPE);
        let bloom_type = [BloomType::Row, BloomType::RowCol]
            .into_iter()
            .find(|known| name.is_some_and(|name| name == bloom_type_name(*known)))
            .unwrap_or(BloomType::None);
        while bloom_type != BloomType::None && !self.part.is_empty() {
            let offset = self.offset;
            if !self.part.starts_with(BlockType::GeneralBloomMeta.magic()) {
                self.skip()?;
                continue;
            }
            let payload = self.next(BlockType::GeneralBloomMeta)?;
            let bloom = BloomFilter::parse(&payload, bloom_type);
            let bloom = bloom.map_err(|damage| self.corrupt(offset, damage))?;
            return Ok((bloom_type, bloom));
        }
        Ok((bloom_type, None))
    }

    fn next(&mut self, block_type: BlockType) -> Result<Bytes> {
        let offset = self.offset;
        let block = self.skip()?;
        read_block(block, block_type, self.compression)
            .map_err(|damage| self.corrupt(offset, damage))
    }

    fn skip(&mut self) -> Result<Bytes> {
        let length = stated_length(&self.part);
        let length = length.map_err(|damage| self.corrupt(self.offset, damage))?;
        let block = self.part.slice(..length);
        self.part.advance(length);
        self.offset += length as u64;
        Ok(block)
    }

    fn corrupt(&self, offset: u64, damage: Damage) -> Error {
        Error::Corrupt { path: self.path.to_owned(), offset, damage }
    }
}

fn read_root(payload: &[u8], trailer: &Trailer) -> std::result::Result<IndexBlock, Damage> {
    let mut fields = Fields::new(payload, "the root index");
    let root = IndexBlock::from_root(&mut fields, trailer.root_count)?;
    if trailer.levels > 1 && fields.rest().len() == MIDDLE_KEY_BYTES {
        fields.take(MIDDLE_KEY_BYTES)?;
    }
    fields.finish()?;
    Ok(root)
}
