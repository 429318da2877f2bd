//! Decoders of the parts of a store file, for the fuzz targets. Compiled only with `--cfg fuzzing`.

use basalt_model::{BloomType, CellKey, Compression};
use bytes::{BufMut, Bytes};

use super::block::{BlockType, read_block, stated_length};
use super::bloom::BloomFilter;
use super::compression::decompress;
use super::data_block::CellLayout;
use super::encoding::{DataFormat, Encoding};
use super::fields::Fields;
use super::file_info::FileInfo;
use super::index::IndexBlock;
use super::trailer::{TRAILER_BYTES, Trailer};

/// The maximum decompressed length that a block of the target states.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Passes `bytes` to the decoder of one part, chosen by `kind`, and uses the result.
pub fn decode_part(kind: u8, bytes: Bytes) {
    match kind % 8 {
        0 => data_block(&bytes, kind),
        1 => drop(IndexBlock::parse(bytes).map(|block| walk_index(&block))),
        2 => {
            let count = usize::from(kind) >> 3;
            let mut fields = Fields::new(&bytes, "root");
            drop(IndexBlock::from_root(&mut fields, count).map(|block| walk_index(&block)));
        }
        3 => bloom_filter(&bytes, kind),
        4 => drop(FileInfo::parse(&bytes).map(|info| info.time_range())),
        5 => drop(Trailer::parse(&bytes, (bytes.len() + TRAILER_BYTES) as u64)),
        6 => {
            let length = PAYLOAD_BYTES_MAX.min(bytes.len() * (usize::from(kind >> 3) + 1));
            drop(decompress(compression(kind), &bytes, length));
        }
        _ => {
            drop(stated_length(&bytes));
            drop(read_block(bytes, BlockType::Data, compression(kind)));
        }
    }
}

fn compression(kind: u8) -> Compression {
    match (kind >> 3) % 5 {
        0 => Compression::None,
        1 => Compression::Gz,
        2 => Compression::Snappy,
        3 => Compression::Lz4,
        _ => Compression::Zstd,
    }
}

/// Parses a data block; `bytes` are what follows the number of the encoding.
fn data_block(bytes: &[u8], kind: u8) {
    let (encoding, tags_compressed) = match kind >> 5 {
        0 => (Encoding::None, false),
        1 => (Encoding::Prefix, false),
        2 => (Encoding::Diff, false),
        3 => (Encoding::FastDiff, false),
        4 => (Encoding::RowIndex, false),
        5 => (Encoding::Prefix, true),
        6 => (Encoding::Diff, true),
        _ => (Encoding::FastDiff, true),
    };
    let layout = CellLayout { tags: kind & 8 != 0, sequence_ids: kind & 16 != 0 };
    let format = DataFormat { encoding, layout, tags_compressed };
    let mut payload = Vec::new();
    if encoding != Encoding::None {
        payload.put_i16(encoding.number());
    }
    payload.put_slice(bytes);
    let Ok(block) = format.parse(payload.into()) else {
        return;
    };
    let mut position = 0;
    while position < block.end() {
        let Ok((cell, next)) = block.cell_at(position) else {
            panic!("a block that was walked has a cell at {position}");
        };
        assert!(next > position);
        assert!(block.seek(&cell.key(), 0) <= block.end());
        assert!(block.seek_before(&cell.key()).is_none_or(|before| before < block.end()));
        position = next;
    }
    assert!(block.last() < block.end());
}

fn walk_index(block: &IndexBlock) {
    for entry in 0..block.count() {
        let _ = block.pointer(entry);
        if let Ok(key) = CellKey::parse(block.key(entry)) {
            assert!(block.find_key(&key).is_none_or(|found| found < block.count()));
        }
    }
}

fn bloom_filter(bytes: &[u8], kind: u8) {
    let bloom_type = if kind & 8 == 0 { BloomType::Row } else { BloomType::RowCol };
    if let Ok(Some(filter)) = BloomFilter::parse(bytes, bloom_type) {
        let _ = filter.chunk_for(bytes);
        let _ = filter.may_contain(&bytes[..bytes.len().min(100)], bytes);
        let _ = filter.may_contain(&[], bytes);
    }
}
