//! The index of data blocks: the first key of each, in one or more levels.
//!
//! A root entry is `i64 offset | i32 length | key`, with the key preceded by its variable-length
//! length. The number of root entries is stored elsewhere. Blocks below the root can be searched
//! without conversion:
//!
//! ```text
//! i32 n | (n + 1) × i32 offset of an entry, from the first one
//!       | n × (i64 offset | i32 length | key)
//! ```
//! The root is converted to that form when it is read, so there is only one kind of index to
//! search. The key of an entry is at most the first key of its block, and is after the last key of
//! the previous block.

use std::cmp::Ordering;

use basalt_model::CellKey;
use bytes::{BufMut, Bytes};

use super::block::{BLOCK_BYTES_MAX, BlockPointer, BlockSink, BlockType};
use super::error::Damage;
use super::fields::{Fields, put_byte_array};

/// The bytes of offset and length in an entry.
const POINTER_BYTES: usize = 12;
/// Levels are not split into blocks of fewer entries; otherwise long keys could require any number
/// of levels.
const ENTRIES_A_BLOCK_MIN: usize = 16;
/// An upper bound: more levels than any file can need.
pub(super) const LEVELS_MAX: u32 = 16;

/// An index block, or the root, ready to be searched.
#[derive(Debug)]
pub(crate) struct IndexBlock {
    bytes: Bytes,
    count: usize,
}

/// Index entries under construction.
#[derive(Debug, Default)]
pub(super) struct IndexEntries {
    entries: Vec<(Bytes, BlockPointer)>,
    keys_length: usize,
}

/// Writes the index of a file while its data blocks are written.
pub(super) struct IndexWriter {
    chunk_bytes: usize,
    /// Data blocks that are not in a leaf block yet.
    leaf: IndexEntries,
    /// Leaf blocks; or data blocks, if there is no leaf.
    root: IndexEntries,
    /// For each leaf, the number of data blocks in all leaves up to it; used to find the middle
    /// key.
    leaf_totals: Vec<u64>,
    /// The length of all index blocks, uncompressed.
    payload_bytes: u64,
}

/// The properties of a finished index that the trailer states.
pub(super) struct WrittenIndex {
    pub(super) root_offset: u64,
    pub(super) root_count: usize,
    pub(super) levels: u32,
    pub(super) payload_bytes: u64,
}

// === impl IndexBlock ===

impl IndexBlock {
    /// Parses and validates the bytes of a leaf or intermediate block.
    pub(super) fn parse(bytes: Bytes) -> Result<Self, Damage> {
        let mut fields = Fields::new(&bytes, "count of index entries");
        let count = fields.length(bytes.len() / (4 + POINTER_BYTES))?;
        let mut offsets = Fields::new(fields.take((count + 1) * 4)?, "offsets of index entries");
        let entries_length = fields.rest().len() as i64;
        let mut last = i64::from(offsets.i32()?);
        Damage::check("offset of the first index entry", last, (0, 0))?;
        for _ in 0..count {
            let next = i64::from(offsets.i32()?);
            let bounds = (last + POINTER_BYTES as i64, entries_length);
            Damage::check("offset of an index entry", next, bounds)?;
            last = next;
        }
        Damage::check("length of the index entries", last, (entries_length, entries_length))?;
        Ok(Self { bytes, count })
    }

    /// Reads `count` root entries and converts them to a block.
    pub(super) fn from_root(fields: &mut Fields<'_>, count: usize) -> Result<Self, Damage> {
        let mut entries = IndexEntries::default();
        for _ in 0..count {
            let offset = fields.i64()?;
            let length = fields.i32()?;
            Damage::check("offset in the index", offset, (0, i64::MAX))?;
            Damage::check("length in the index", length.into(), (0, i32::MAX.into()))?;
            let key = Bytes::copy_from_slice(fields.byte_array()?);
            let pointer = BlockPointer { offset: offset as u64, length: length as u32 };
            entries.push(key, pointer);
        }
        Self::parse(entries.to_block().into())
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The memory of the block, in bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The key of an entry; empty if there is no such entry.
    pub(super) fn key(&self, entry: usize) -> &[u8] {
        self.entry(entry).and_then(|bytes| bytes.get(POINTER_BYTES..)).unwrap_or_default()
    }

    /// The key of an entry as shared bytes.
    pub(super) fn key_bytes(&self, entry: usize) -> Bytes {
        self.bytes.slice_ref(self.key(entry))
    }

    /// The block that an entry refers to. The reader must check that it is within the file.
    pub(super) fn pointer(&self, entry: usize) -> BlockPointer {
        let Some((&[a, b, c, d, e, f, g, h, i, j, k, l], _)) =
            self.entry(entry).and_then(|bytes| bytes.split_first_chunk::<POINTER_BYTES>())
        else {
            return BlockPointer::default();
        };
        BlockPointer {
            offset: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            length: u32::from_be_bytes([i, j, k, l]),
        }
    }

    /// The last entry that does not sort after the search target. `order` compares the key of an
    /// entry with that target.
    pub(super) fn find(&self, order: impl Fn(&[u8]) -> Ordering) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match order(self.key(middle)) {
                Ordering::Greater => high = middle,
                _ => low = middle + 1,
            }
        }
        low.checked_sub(1)
    }

    /// [`Self::find`] for an index of cell keys.
    pub(super) fn find_key(&self, key: &CellKey<'_>) -> Option<usize> {
        self.find(|found| compare(found, key))
    }

    fn entry(&self, entry: usize) -> Option<&[u8]> {
        let entries = (self.count + 2) * 4;
        let start = self.offset_at(entry)?;
        let end = self.offset_at(entry + 1)?;
        self.bytes.get(entries + start..entries + end)
    }

    fn offset_at(&self, entry: usize) -> Option<usize> {
        let bytes = self.bytes.get((entry + 1) * 4..)?.first_chunk::<4>()?;
        (entry <= self.count).then_some(u32::from_be_bytes(*bytes) as usize)
    }
}

/// Compares the key of an entry with `key`. An invalid key sorts before all others.
pub(super) fn compare(found: &[u8], key: &CellKey<'_>) -> Ordering {
    CellKey::parse(found).map_or(Ordering::Less, |found| found.compare(key))
}

// === impl IndexEntries ===

impl IndexEntries {
    pub(super) fn push(&mut self, key: Bytes, pointer: BlockPointer) {
        self.keys_length += key.len();
        self.entries.push((key, pointer));
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn first_key(&self) -> Bytes {
        self.entries.first().map(|(key, _)| key.clone()).unwrap_or_default()
    }

    /// The length of these entries as a block; their length as a root is about the same.
    fn block_length(&self) -> usize {
        4 * (self.entries.len() + 2) + POINTER_BYTES * self.entries.len() + self.keys_length
    }

    fn to_block(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.block_length());
        out.put_u32(self.entries.len() as u32);
        let mut offset = 0;
        for (key, _) in &self.entries {
            out.put_u32(offset);
            offset += (POINTER_BYTES + key.len()) as u32;
        }
        out.put_u32(offset);
        for (key, pointer) in &self.entries {
            out.put_u64(pointer.offset);
            out.put_u32(pointer.length);
            out.put_slice(key);
        }
        out
    }

    pub(super) fn put_root(&self, out: &mut Vec<u8>) {
        for (key, pointer) in &self.entries {
            out.put_u64(pointer.offset);
            out.put_u32(pointer.length);
            put_byte_array(out, key);
        }
    }
}

// === impl IndexWriter ===

impl IndexWriter {
    /// Creates a writer whose index blocks are about `chunk_bytes` long.
    pub(super) fn new(chunk_bytes: usize) -> Self {
        Self {
            chunk_bytes,
            leaf: IndexEntries::default(),
            root: IndexEntries::default(),
            leaf_totals: Vec::new(),
            payload_bytes: 0,
        }
    }

    /// Adds a data block, and writes a leaf block once it is full.
    pub(super) fn add(
        &mut self,
        key: Bytes,
        block: BlockPointer,
        sink: &mut BlockSink,
    ) -> Result<(), String> {
        self.leaf.push(key, block);
        if self.leaf.block_length() >= self.chunk_bytes {
            self.write_leaf(sink)?;
        }
        Ok(())
    }

    /// Writes the last leaf block. Call it before writing any block that is not data, index or
    /// bloom.
    pub(super) fn finish_leaves(&mut self, sink: &mut BlockSink) -> Result<(), String> {
        if self.leaf_totals.is_empty() {
            self.root = std::mem::take(&mut self.leaf);
        } else if self.leaf.len() > 0 {
            self.write_leaf(sink)?;
        }
        Ok(())
    }

    /// Writes the levels between leaves and root, and the root.
    pub(super) fn finish(mut self, sink: &mut BlockSink) -> Result<WrittenIndex, String> {
        let middle = self.middle_leaf();
        let mut levels = if self.leaf_totals.is_empty() { 1 } else { 2 };
        while levels > 1
            && levels < LEVELS_MAX
            && self.root.len() > ENTRIES_A_BLOCK_MIN
            && self.root.block_length() > self.chunk_bytes
        {
            self.write_level(sink)?;
            levels += 1;
        }
        let mut payload = Vec::new();
        self.root.put_root(&mut payload);
        if let Some((pointer, entry)) = middle {
            payload.put_u64(pointer.offset);
            payload.put_u32(pointer.length);
            payload.put_u32(entry);
        }
        self.payload_bytes += payload.len() as u64;
        let root = sink.put(BlockType::RootIndex, &payload)?;
        Ok(WrittenIndex {
            root_offset: root.offset,
            root_count: self.root.len(),
            levels,
            payload_bytes: self.payload_bytes,
        })
    }

    fn write_leaf(&mut self, sink: &mut BlockSink) -> Result<(), String> {
        let leaf = std::mem::take(&mut self.leaf);
        let pointer = self.write_block(BlockType::LeafIndex, &leaf, sink)?;
        self.root.push(leaf.first_key(), pointer);
        let before = self.leaf_totals.last().copied().unwrap_or_default();
        self.leaf_totals.push(before + leaf.len() as u64);
        Ok(())
    }

    /// Inserts a level of blocks between the root and its current entries.
    fn write_level(&mut self, sink: &mut BlockSink) -> Result<(), String> {
        let below = std::mem::take(&mut self.root);
        let mut block = IndexEntries::default();
        let count = below.len();
        for (number, (key, pointer)) in below.entries.into_iter().enumerate() {
            block.push(key, pointer);
            let full =
                block.len() >= ENTRIES_A_BLOCK_MIN && block.block_length() >= self.chunk_bytes;
            if full || number + 1 == count {
                let full_block = std::mem::take(&mut block);
                let kind = BlockType::IntermediateIndex;
                let pointer = self.write_block(kind, &full_block, sink)?;
                self.root.push(full_block.first_key(), pointer);
            }
        }
        Ok(())
    }

    fn write_block(
        &mut self,
        block_type: BlockType,
        entries: &IndexEntries,
        sink: &mut BlockSink,
    ) -> Result<BlockPointer, String> {
        let payload = entries.to_block();
        if payload.len() > BLOCK_BYTES_MAX {
            return Err(format!("an index block grew to {} bytes", payload.len()));
        }
        self.payload_bytes += payload.len() as u64;
        sink.put(block_type, &payload)
    }

    /// The leaf that contains the middle data block, and the number of its entry there. HBase
    /// splits a region at that block.
    fn middle_leaf(&self) -> Option<(BlockPointer, u32)> {
        let middle = self.leaf_totals.last()?.checked_sub(1)? / 2;
        let leaf = self.leaf_totals.partition_point(|total| *total <= middle);
        let before = leaf
            .checked_sub(1)
            .and_then(|previous| self.leaf_totals.get(previous))
            .copied()
            .unwrap_or_default();
        let (_, pointer) = self.root.entries.get(leaf)?;
        Some((*pointer, (middle - before) as u32))
    }
}

/// A short key after the last key of one block, and at most the first key of the next.
pub(super) fn separator(left: &CellKey<'_>, right: &CellKey<'_>) -> Bytes {
    if left.row != right.row {
        let row = shortest_after(left.row, right.row);
        return CellKey::before_row(&row).to_bytes();
    }
    if left.family == right.family && left.qualifier != right.qualifier {
        let qualifier = shortest_after(left.qualifier, right.qualifier);
        let first = CellKey::before_row(right.row);
        return CellKey { family: right.family, qualifier: &qualifier, ..first }.to_bytes();
    }
    right.to_bytes()
}

/// The shortest bytes that are after `left` and not after `right`. `right` must be after `left`.
fn shortest_after(left: &[u8], right: &[u8]) -> Vec<u8> {
    let same = left.iter().zip(right).take_while(|(l, r)| l == r).count();
    let mut bytes = right.get(..same).unwrap_or_default().to_vec();
    match left.get(same) {
        // `right` continues where `left` ends.
        None => bytes.push(0),
        Some(byte) => bytes.push(byte.saturating_add(1)),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::Compression;

    fn pointer(number: usize) -> BlockPointer {
        BlockPointer { offset: number as u64 * 100, length: 100 }
    }

    fn entries(count: usize) -> IndexEntries {
        let mut entries = IndexEntries::default();
        for number in 0..count {
            entries.push(format!("key{:02}", number * 2).into(), pointer(number));
        }
        entries
    }

    #[test]
    fn the_last_entry_not_after_the_key_is_found() {
        let block = IndexBlock::parse(entries(20).to_block().into()).unwrap();
        for number in 0..40usize {
            let key = format!("key{number:02}");
            let found = block.find(|entry| entry.cmp(key.as_bytes()));
            assert_eq!(found, Some(number / 2));
            assert_eq!(block.pointer(number / 2), pointer(number / 2));
        }
        assert_eq!(block.find(|entry| entry.cmp(b"a")), None);
    }

    #[test]
    fn a_root_reads_like_a_block() {
        let mut bytes = Vec::new();
        entries(20).put_root(&mut bytes);
        let mut fields = Fields::new(&bytes, "root");
        let root = IndexBlock::from_root(&mut fields, 20).unwrap();
        fields.finish().unwrap();
        assert_eq!(root.count(), 20);
        assert_eq!(root.key(7), b"key14");
        assert_eq!(root.pointer(7), pointer(7));
    }

    #[test]
    fn damaged_index_blocks_are_refused_or_stay_in_bounds() {
        let bytes = entries(5).to_block();
        for length in 0..bytes.len() {
            assert!(IndexBlock::parse(bytes[..length].to_vec().into()).is_err(), "{length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(block) = IndexBlock::parse(flipped.into()) {
                (0..block.count()).for_each(|entry| drop(block.key_bytes(entry)));
            }
        }
    }

    #[test]
    fn a_small_index_has_one_level_and_a_large_one_several() {
        for (blocks, levels) in [(0, 1), (3, 1), (40, 2), (2000, 4)] {
            let mut sink = BlockSink::new(Compression::None);
            let mut writer = IndexWriter::new(100);
            for number in 0..blocks {
                let key = format!("key{number:05}").into();
                writer.add(key, pointer(number), &mut sink).unwrap();
            }
            writer.finish_leaves(&mut sink).unwrap();
            assert_eq!(writer.finish(&mut sink).unwrap().levels, levels, "{blocks}");
        }
    }

    #[test]
    fn a_separator_lies_between() {
        let rows: [&[u8]; 8] = [b"a", b"a\0", b"aa", b"ab", b"abc", b"b", b"b\xff", b"c"];
        for (number, left) in rows.iter().enumerate() {
            for right in &rows[number + 1..] {
                let between = shortest_after(left, right);
                assert!(*left < &between[..] && &between[..] <= *right, "{left:?} {right:?}");
                assert!(between.len() <= right.len());
            }
        }
    }
}
