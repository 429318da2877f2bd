//! Blocks: a header, a payload that may be compressed, and checksums of both.
//!
//! ```text
//! [u8; 8] magic | i32 on-disk length after the header | i32 payload length, uncompressed
//! i64 offset of the previous block of its kind, or -1
//! u8 checksum type | i32 bytes a checksum covers | i32 on-disk length without the checksums
//! payload | u32 checksums
//! ```
//! Nothing in a block is trusted before its checksums have been verified.

use basalt_model::Compression;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::compression::{Compressor, decompress};
use super::error::Damage;
use super::fields::Fields;

/// The length of a block's header in bytes.
pub(super) const HEADER_BYTES: usize = 33;
/// The maximum length of a block in bytes, compressed or not.
pub(super) const BLOCK_BYTES_MAX: usize = 512 << 20;

const CHECKSUM_CHUNK_BYTES: usize = 16 << 10;
const CHECKSUM_BYTES: usize = 4;
const CHECKSUM_NONE: i8 = 0;
const CHECKSUM_CRC32: i8 = 1;
const CHECKSUM_CRC32C: i8 = 2;

/// The kind of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BlockType {
    Data,
    EncodedData,
    LeafIndex,
    BloomChunk,
    IntermediateIndex,
    RootIndex,
    FileInfo,
    GeneralBloomMeta,
}

/// The position of a block in its file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct BlockPointer {
    pub(super) offset: u64,
    /// The whole length on disk in bytes, with header and checksums.
    pub(super) length: u32,
}

/// Turns payloads into blocks, one after the other, and collects the blocks until the caller takes
/// them.
pub(super) struct BlockSink {
    compressor: Compressor,
    pending: BytesMut,
    /// How many bytes have been taken from `pending` so far.
    taken: u64,
    last_offsets: [i64; BlockType::COUNT],
    uncompressed_bytes: u64,
}

// === impl BlockType ===

impl BlockType {
    const COUNT: usize = 8;

    pub(super) fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Data => b"DATABLK*",
            Self::EncodedData => b"DATABLKE",
            Self::LeafIndex => b"IDXLEAF2",
            Self::BloomChunk => b"BLMFBLK2",
            Self::IntermediateIndex => b"IDXINTE2",
            Self::RootIndex => b"IDXROOT2",
            Self::FileInfo => b"FILEINF2",
            Self::GeneralBloomMeta => b"BLMFMET2",
        }
    }
}

// === impl BlockSink ===

impl BlockSink {
    pub(super) fn new(compression: Compression) -> Self {
        Self {
            compressor: Compressor::new(compression),
            pending: BytesMut::new(),
            taken: 0,
            last_offsets: [-1; BlockType::COUNT],
            uncompressed_bytes: 0,
        }
    }

    pub(super) fn compression(&self) -> Compression {
        self.compressor.compression()
    }

    /// The offset at which the next block will begin.
    pub(super) fn offset(&self) -> u64 {
        self.taken + self.pending.len() as u64
    }

    /// The uncompressed length of all blocks so far, in bytes.
    pub(super) fn uncompressed_bytes(&self) -> u64 {
        self.uncompressed_bytes
    }

    /// How many bytes have been collected and not taken.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Takes the collected bytes.
    pub(super) fn take(&mut self) -> Bytes {
        self.taken += self.pending.len() as u64;
        self.pending.split().freeze()
    }

    /// Appends bytes that are not a block: the trailer.
    pub(super) fn put_raw(&mut self, bytes: &[u8]) {
        self.pending.put_slice(bytes);
    }

    /// Appends a block. The error is the codec's message.
    pub(super) fn put(
        &mut self,
        block_type: BlockType,
        payload: &[u8],
    ) -> Result<BlockPointer, String> {
        let offset = self.offset();
        let start = self.pending.len();
        self.pending.put_bytes(0, HEADER_BYTES);
        self.compressor.compress(payload, &mut self.pending)?;
        let data_length = self.pending.len() - start;
        let checksums_length = data_length.div_ceil(CHECKSUM_CHUNK_BYTES) * CHECKSUM_BYTES;
        let length = data_length + checksums_length;
        if length > BLOCK_BYTES_MAX {
            return Err(format!("the block grew to {length} bytes"));
        }
        let last_offset = &mut self.last_offsets[block_type as usize];
        let mut header = &mut self.pending[start..start + HEADER_BYTES];
        header.put_slice(block_type.magic());
        header.put_u32((length - HEADER_BYTES) as u32);
        header.put_u32(payload.len() as u32);
        header.put_i64(*last_offset);
        header.put_i8(CHECKSUM_CRC32C);
        header.put_u32(CHECKSUM_CHUNK_BYTES as u32);
        header.put_u32(data_length as u32);
        *last_offset = offset as i64;

        let mut checksums = Vec::with_capacity(checksums_length);
        for chunk in self.pending[start..].chunks(CHECKSUM_CHUNK_BYTES) {
            checksums.put_u32(crc32c::crc32c(chunk));
        }
        self.pending.put_slice(&checksums);
        self.uncompressed_bytes += (HEADER_BYTES + payload.len()) as u64;
        Ok(BlockPointer { offset, length: length as u32 })
    }
}

/// The whole length of the block at the start of `bytes`, by its header, which is not verified yet.
pub(super) fn stated_length(bytes: &[u8]) -> Result<usize, Damage> {
    let mut header = Fields::new(bytes, "the block's header");
    header.take(8)?;
    let length = i64::from(header.i32()?) + HEADER_BYTES as i64;
    let bounds = (HEADER_BYTES as i64, bytes.len() as i64);
    Damage::check("length of the block", length, bounds)?;
    Ok(length as usize)
}

/// Verifies the block in `bytes` and returns its payload, decompressed.
pub(super) fn read_block(
    mut bytes: Bytes,
    expected: BlockType,
    compression: Compression,
) -> Result<Bytes, Damage> {
    let whole = bytes.len() as i64;
    let mut header = Fields::new(&bytes, "the block's header");
    let magic = header.take(8)?;
    let length = i64::from(header.i32()?) + HEADER_BYTES as i64;
    let payload_length = i64::from(header.i32()?);
    let _previous = header.i64()?;
    let checksum_type = header.i8()?;
    let checksum_chunk = header.i32()?;
    let data_length = header.i32()?;

    Damage::check("length of the block", length, (whole, whole))?;
    let data_bounds = (HEADER_BYTES as i64, whole);
    Damage::check("length without checksums", data_length.into(), data_bounds)?;
    let chunk_bounds = (1, i32::MAX.into());
    Damage::check("bytes a checksum", checksum_chunk.into(), chunk_bounds)?;
    let (data, checksums) = bytes.split_at(data_length as usize);
    verify_checksums(data, checksums, checksum_type, checksum_chunk as usize)?;

    if magic != expected.magic() {
        return Err(Damage::Magic {
            found: magic.escape_ascii().to_string(),
            expected: expected.magic().escape_ascii().to_string(),
        });
    }
    let payload_bounds = (0, BLOCK_BYTES_MAX as i64);
    Damage::check("length of the payload", payload_length, payload_bounds)?;
    bytes.truncate(data_length as usize);
    bytes.advance(HEADER_BYTES);
    decompress(compression, &bytes, payload_length as usize)
}

fn verify_checksums(
    data: &[u8],
    checksums: &[u8],
    checksum_type: i8,
    chunk_bytes: usize,
) -> Result<(), Damage> {
    let expected = (data.len().div_ceil(chunk_bytes) * CHECKSUM_BYTES) as i64;
    let found = checksums.len() as i64;
    Damage::check("length of the checksums", found, (expected, expected))?;
    let mut checksums = Fields::new(checksums, "checksums");
    for (number, chunk) in data.chunks(chunk_bytes).enumerate() {
        let computed = match checksum_type {
            // HBase leaves the space for checksums zeroed.
            CHECKSUM_NONE => 0,
            CHECKSUM_CRC32 => {
                let mut crc = flate2::Crc::new();
                crc.update(chunk);
                crc.sum()
            }
            CHECKSUM_CRC32C => crc32c::crc32c(chunk),
            unknown => {
                let bounds = (CHECKSUM_NONE.into(), CHECKSUM_CRC32C.into());
                return Damage::check("checksum type", unknown.into(), bounds);
            }
        };
        let stored = checksums.u32()?;
        if stored != computed {
            let start = number * chunk_bytes;
            return Err(Damage::Checksum { start, stored, computed });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(payload: &[u8], compression: Compression) -> Bytes {
        let mut sink = BlockSink::new(compression);
        let pointer = sink.put(BlockType::LeafIndex, payload).unwrap();
        let bytes = sink.take();
        assert_eq!(pointer.length as usize, bytes.len());
        bytes
    }

    #[test]
    fn a_block_gives_back_its_payload() {
        let payload: Vec<u8> = (0..100_000u32).map(|i| (i / 7) as u8).collect();
        for compression in [Compression::None, Compression::Zstd] {
            let bytes = block(&payload, compression);
            assert_eq!(stated_length(&bytes).unwrap(), bytes.len());
            let read = read_block(bytes, BlockType::LeafIndex, compression).unwrap();
            assert_eq!(read, payload);
        }
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let bytes = block(b"some payload", Compression::None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = read_block(flipped.into(), BlockType::LeafIndex, Compression::None);
            // The checksum covers everything, including the offset of the previous block.
            assert!(read.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn no_truncation_goes_unnoticed() {
        let bytes = block(b"some payload", Compression::None);
        for length in 0..bytes.len() {
            let cut = bytes.slice(..length);
            assert!(read_block(cut, BlockType::LeafIndex, Compression::None).is_err());
        }
    }

    #[test]
    fn a_checksum_error_names_both_sums() {
        let mut bytes = block(b"some payload", Compression::None).to_vec();
        bytes[HEADER_BYTES] ^= 1;
        let read = read_block(bytes.into(), BlockType::LeafIndex, Compression::None);
        let Err(Damage::Checksum { stored, computed, .. }) = read else {
            panic!("{read:?}");
        };
        assert_ne!(stored, computed);
    }

    #[test]
    fn the_block_of_another_kind_is_refused() {
        let bytes = block(b"some payload", Compression::None);
        let read = read_block(bytes, BlockType::Data, Compression::None);
        assert!(matches!(read, Err(Damage::Magic { .. })), "{read:?}");
    }
}
