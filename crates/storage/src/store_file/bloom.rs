//! The compound bloom filter: chunks of bits between the data blocks, and an index of these chunks.
//!
//! A chunk covers the keys from its first one up to the first one of the next chunk. A key is a
//! row, or a row with a column, encoded as a cell key without family. The meta block is loaded when
//! a file is opened:
//!
//! ```text
//! i32 version 3 | i64 bytes of all chunks | i32 hash count | i32 hash type | i64 keys
//! i64 keys, at most | i32 chunks | comparator's class | root index entries of the chunks
//! ```
//! All arithmetic on hashes follows Java's `int`.

use std::cmp::Ordering;
use std::collections::VecDeque;

use basalt_model::{BloomType, Cell, CellKey, CellType, LATEST_TIMESTAMP};
use bytes::{BufMut, Bytes};

use super::block::{BlockPointer, BlockSink, BlockType};
use super::error::Damage;
use super::fields::{Fields, put_byte_array};
use super::index::{self, IndexBlock, IndexEntries};

const VERSION: i32 = 3;
/// HBase's default hash, the only one that Basalt computes.
const HASH_MURMUR: i32 = 1;
const HASHES_MAX: i64 = 64;
/// HBase's default false-positive rate.
const ERROR_RATE: f32 = 0.01;
/// How often a chunk that is not full may be folded in half.
const FOLDS_MAX: u32 = 7;
/// The comparator of ROWCOL chunks, by the class name that HBase looks up.
const COMPARATOR: &[u8] = b"org.apache.hadoop.hbase.CellComparatorImpl";

/// Collects the keys of a file while it is written.
pub(super) struct BloomWriter {
    shape: ChunkShape,
    by_column: bool,
    chunk: Option<Chunk>,
    full: VecDeque<Chunk>,
    /// The key added last. A key that repeats it is not added again.
    last_key: Vec<u8>,
    key: Vec<u8>,
    index: IndexEntries,
    key_count: u64,
    key_count_max: u64,
    chunk_bytes: u64,
}

/// The parameters of an empty chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct ChunkShape {
    bytes: usize,
    keys_max: u64,
    hash_count: u32,
}

struct Chunk {
    first_key: Bytes,
    bits: Vec<u8>,
    keys: u64,
    keys_max: u64,
}

/// The parsed filter of a file, with the index of its chunks.
#[derive(Debug)]
pub(super) struct BloomFilter {
    by_column: bool,
    hash_count: u32,
    index: IndexBlock,
}

/// The two hashes of a key, from which all its bits are derived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Hashes(u32, u32);

// === impl BloomWriter ===

impl BloomWriter {
    /// A writer for this type of filter; `None` if the type is `None`.
    pub(super) fn new(bloom_type: BloomType, chunk_bytes: usize) -> Option<Self> {
        let by_column = match bloom_type {
            BloomType::None => return None,
            BloomType::Row => false,
            BloomType::RowCol => true,
        };
        // A read by column queries the filter twice: for the column and for deletes of the whole
        // row.
        let error_rate = if by_column {
            (1.0 - (1.0 - f64::from(ERROR_RATE)).sqrt()) as f32
        } else {
            ERROR_RATE
        };
        Some(Self {
            shape: ChunkShape::new(chunk_bytes, error_rate.into()),
            by_column,
            chunk: None,
            full: VecDeque::new(),
            last_key: Vec::new(),
            key: Vec::new(),
            index: IndexEntries::default(),
            key_count: 0,
            key_count_max: 0,
            chunk_bytes: 0,
        })
    }

    /// Adds the key of a cell. Cells must arrive in order.
    pub(super) fn add(&mut self, cell: &Cell) {
        self.key.clear();
        if self.by_column {
            let key = cell.key();
            put_column_key(&mut self.key, key.row, key.qualifier);
        } else {
            self.key.put_slice(cell.row());
        }
        if self.key_count > 0 && self.key == self.last_key {
            return;
        }
        std::mem::swap(&mut self.key, &mut self.last_key);
        self.key_count += 1;
        if let Some(chunk) = self.chunk.take_if(|chunk| chunk.keys >= chunk.keys_max) {
            self.full.push_back(chunk);
        }
        let chunk = self.chunk.get_or_insert_with(|| Chunk {
            first_key: Bytes::copy_from_slice(&self.last_key),
            bits: vec![0; self.shape.bytes],
            keys: 0,
            keys_max: self.shape.keys_max,
        });
        chunk.add(Hashes::of(&self.last_key), self.shape.hash_count);
    }

    /// Writes all full chunks.
    pub(super) fn write_full(&mut self, sink: &mut BlockSink) -> Result<(), String> {
        if let Some(chunk) = self.chunk.take_if(|chunk| chunk.keys >= chunk.keys_max) {
            self.full.push_back(chunk);
        }
        while let Some(chunk) = self.full.pop_front() {
            self.write(chunk, sink)?;
        }
        Ok(())
    }

    /// Writes all remaining chunks.
    pub(super) fn finish_chunks(&mut self, sink: &mut BlockSink) -> Result<(), String> {
        self.write_full(sink)?;
        match self.chunk.take() {
            Some(chunk) => self.write(chunk, sink),
            None => Ok(()),
        }
    }

    /// The meta block's payload and the last key; `None` if no key was added.
    pub(super) fn finish(self) -> Option<(Vec<u8>, Vec<u8>)> {
        if self.key_count == 0 {
            return None;
        }
        let mut meta = Vec::new();
        meta.put_i32(VERSION);
        meta.put_u64(self.chunk_bytes);
        meta.put_u32(self.shape.hash_count);
        meta.put_i32(HASH_MURMUR);
        meta.put_u64(self.key_count);
        meta.put_u64(self.key_count_max);
        meta.put_u32(self.index.len() as u32);
        put_byte_array(&mut meta, if self.by_column { COMPARATOR } else { &[] });
        self.index.put_root(&mut meta);
        Some((meta, self.last_key))
    }

    fn write(&mut self, mut chunk: Chunk, sink: &mut BlockSink) -> Result<(), String> {
        chunk.fold();
        self.key_count_max += chunk.keys_max;
        self.chunk_bytes += chunk.bits.len() as u64;
        let pointer = sink.put(BlockType::BloomChunk, &chunk.bits)?;
        self.index.push(chunk.first_key, pointer);
        Ok(())
    }
}

// === impl ChunkShape ===

impl ChunkShape {
    fn new(bytes: usize, error_rate: f64) -> Self {
        let bytes = bytes.max(1).next_multiple_of(1 << FOLDS_MAX);
        let bits = (bytes * 8) as f64;
        let ln_2 = 2f64.ln();
        let keys_ideal = (bits * (ln_2 * ln_2 / -error_rate.ln())).floor().max(1.0);
        let hash_count = (ln_2 * (bits / keys_ideal).floor()).ceil().max(1.0);
        // Corrected for the rounded hash count.
        let keys_max =
            (-bits / hash_count * (1.0 - (error_rate.ln() / hash_count).exp()).ln()).floor();
        Self { bytes, keys_max: keys_max as u64, hash_count: hash_count as u32 }
    }
}

// === impl Chunk ===

impl Chunk {
    fn add(&mut self, hashes: Hashes, hash_count: u32) {
        for bit in hashes.bits(hash_count, self.bits.len()) {
            if let Some(byte) = self.bits.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
        self.keys += 1;
    }

    /// Halves the chunk while it stays within its maximum fill. The bit of a key is taken modulo
    /// the length, so after one half is merged into the other, the key is still found.
    fn fold(&mut self) {
        while self.bits.len().is_multiple_of(2) && self.keys_max > self.keys * 2 {
            let half = self.bits.split_off(self.bits.len() / 2);
            for (byte, folded) in self.bits.iter_mut().zip(half) {
                *byte |= folded;
            }
            self.keys_max /= 2;
        }
    }
}

// === impl BloomFilter ===

impl BloomFilter {
    /// Parses the meta block. Returns `None` if Basalt does not support the hash type of the
    /// filter.
    pub(super) fn parse(payload: &[u8], bloom_type: BloomType) -> Result<Option<Self>, Damage> {
        let by_column = bloom_type == BloomType::RowCol;
        let mut fields = Fields::new(payload, "the bloom filter's meta block");
        let version = fields.i32()?.into();
        Damage::check("version of the bloom filter", version, (VERSION.into(), VERSION.into()))?;
        let _chunk_bytes = fields.i64()?;
        let hash_count = fields.i32()?;
        Damage::check("hash count of the bloom filter", hash_count.into(), (1, HASHES_MAX))?;
        let hash_type = fields.i32()?;
        let (_keys, _keys_max) = (fields.i64()?, fields.i64()?);
        let chunks = fields.length(payload.len())?;
        let _comparator = fields.byte_array()?;
        let index = IndexBlock::from_root(&mut fields, chunks)?;
        fields.finish()?;
        Ok((hash_type == HASH_MURMUR).then_some(Self {
            by_column,
            hash_count: hash_count as u32,
            index,
        }))
    }

    /// Whether keys are rows with columns.
    pub(super) fn is_by_column(&self) -> bool {
        self.by_column
    }

    /// The chunk that would hold `key`; `None` if `key` sorts before all chunks.
    pub(super) fn chunk_for(&self, key: &[u8]) -> Option<BlockPointer> {
        let entry = if self.by_column {
            let key = CellKey::parse(key).ok()?;
            self.index.find(|found| index::compare(found, &key))
        } else {
            self.index.find(|found: &[u8]| -> Ordering { found.cmp(key) })
        };
        entry.map(|entry| self.index.pointer(entry))
    }

    /// Whether a chunk may hold `key`.
    pub(super) fn may_contain(&self, chunk: &[u8], key: &[u8]) -> bool {
        Hashes::of(key)
            .bits(self.hash_count, chunk.len())
            .all(|bit| chunk.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0))
    }
}

// === impl Hashes ===

impl Hashes {
    fn of(key: &[u8]) -> Self {
        let first = murmur(key, 0);
        Self(first, murmur(key, first))
    }

    /// The bits of the key in a chunk of `chunk_bytes` bytes.
    fn bits(self, hash_count: u32, chunk_bytes: usize) -> impl Iterator<Item = usize> {
        // Blocks are bounded well below the number of bits that Java's `int` can count. An empty
        // chunk has no bits.
        let bit_count = i32::try_from(chunk_bytes * 8).unwrap_or(i32::MAX).max(1);
        (0..hash_count).map(move |number| {
            let hash = self.0.wrapping_add(number.wrapping_mul(self.1)) as i32;
            (hash % bit_count).unsigned_abs() as usize
        })
    }
}

/// Writes the key of a column: a cell key without family that sorts before all cells of the column.
pub(super) fn put_column_key(out: &mut Vec<u8>, row: &[u8], qualifier: &[u8]) {
    out.put_u16(row.len() as u16);
    out.put_slice(row);
    out.put_u8(0);
    out.put_slice(qualifier);
    out.put_i64(LATEST_TIMESTAMP);
    out.put_u8(CellType::Maximum as u8);
}

/// 32-bit MurmurHash2 as HBase computes it: the trailing bytes are sign-extended.
fn murmur(key: &[u8], seed: u32) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    let mut hash = seed ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        let word = word.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let mut mixed = word.wrapping_mul(MIX);
        mixed = (mixed ^ mixed >> 24).wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ mixed;
    }
    let odd = words.remainder();
    if !odd.is_empty() {
        for (number, byte) in odd.iter().enumerate() {
            hash ^= (i32::from(*byte as i8) << (8 * number)) as u32;
        }
        hash = hash.wrapping_mul(MIX);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(MIX);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::Compression;

    fn row(number: u32) -> Vec<u8> {
        format!("row{number:07}").into_bytes()
    }

    fn cell(row: &[u8]) -> Cell {
        Cell::put(row, b"f", b"q", 1, b"v").unwrap()
    }

    /// The filter of `rows` rows, and the bytes of its chunks.
    fn filter(rows: u32, chunk_bytes: usize) -> (BloomFilter, Bytes) {
        let mut sink = BlockSink::new(Compression::None);
        let mut writer = BloomWriter::new(BloomType::Row, chunk_bytes).unwrap();
        (0..rows).for_each(|number| writer.add(&cell(&row(number))));
        writer.finish_chunks(&mut sink).unwrap();
        let (meta, last_key) = writer.finish().unwrap();
        assert_eq!(last_key, row(rows - 1));
        let filter = BloomFilter::parse(&meta, BloomType::Row).unwrap().unwrap();
        (filter, sink.take())
    }

    fn asks((filter, chunks): &(BloomFilter, Bytes), key: &[u8]) -> bool {
        let Some(pointer) = filter.chunk_for(key) else {
            return false;
        };
        let (start, length) = (pointer.offset as usize, pointer.length as usize);
        let block = chunks.slice(start..start + length);
        let chunk =
            super::super::block::read_block(block, BlockType::BloomChunk, Compression::None);
        filter.may_contain(&chunk.unwrap(), key)
    }

    #[test]
    fn no_key_is_missed_and_few_others_are_taken() {
        for (rows, chunk_bytes) in [(5000, 1024), (5000, 128 << 10), (40, 128 << 10)] {
            let filter = filter(rows, chunk_bytes);
            assert!((0..rows).all(|number| asks(&filter, &row(number))));
            let mistaken = (0..rows).filter(|number| {
                let mut key = row(*number);
                key.push(b'x');
                asks(&filter, &key)
            });
            let mistaken = mistaken.count() as f64 / f64::from(rows);
            assert!(mistaken < 0.03, "{mistaken} of {rows} in chunks of {chunk_bytes}");
        }
    }

    #[test]
    fn chunks_have_hbases_measures() {
        let shape = ChunkShape::new(128 << 10, ERROR_RATE.into());
        assert_eq!(shape.bytes, 131_072);
        assert_eq!(shape.hash_count, 7);
        assert_eq!(shape.keys_max, 109_306);
    }

    #[test]
    fn a_chunk_with_few_keys_is_folded() {
        let (_, chunks) = filter(40, 128 << 10);
        assert!(chunks.len() < 300, "{}", chunks.len());
    }

    #[test]
    fn a_damaged_meta_block_is_refused_or_answers() {
        let mut writer = BloomWriter::new(BloomType::RowCol, 1024).unwrap();
        writer.add(&cell(b"row"));
        let mut sink = BlockSink::new(Compression::None);
        writer.finish_chunks(&mut sink).unwrap();
        let (meta, _) = writer.finish().unwrap();
        for bit in 0..meta.len() * 8 {
            let mut flipped = meta.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Some(filter)) = BloomFilter::parse(&flipped, BloomType::RowCol) {
                let _anything = filter.chunk_for(b"\0\x03row");
                let _anything = filter.may_contain(&[], b"row");
            }
        }
    }
}
