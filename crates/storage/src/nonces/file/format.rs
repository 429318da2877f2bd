//! The frames, the footer and the limits of a nonce file, shared by its writer and its reader.

use basalt_fs::ReadFile;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc32c::{crc32c, crc32c_append};

use super::super::entry::ENTRY_BYTES_MAX;

/// The first and the last bytes of a file; the digit is the format's version.
pub(super) const MAGIC: &[u8; 8] = b"BASALTN1";
/// A block ends with the entry that brings it to at least this length, in bytes.
pub(super) const BLOCK_BYTES: usize = 16 << 10;
/// The maximum length of a block, in bytes.
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + ENTRY_BYTES_MAX;
/// The maximum number of entries in a file; the filter of that many takes 32 MiB.
pub(super) const ENTRIES_MAX: u64 = 1 << 24;
/// The maximum length of index and filter together, in bytes. Of these, 8 MiB are for the index of
/// entries of maximum length.
const TABLES_BYTES_MAX: u64 = (ENTRIES_MAX * 2) + (8 << 20);
/// The maximum length of a file, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = ENTRIES_MAX * ENTRY_BYTES_MAX as u64 + TABLES_BYTES_MAX;
/// The bytes before a payload: its length and the checksum.
pub(super) const FRAME_BYTES: usize = 8;
/// The length of an entry of the index, in bytes.
pub(super) const INDEX_ENTRY_BYTES: usize = 24;
/// The length of the footer, in bytes.
pub(super) const FOOTER_BYTES: usize = 5 * 8 + 4 + 8;

/// The end of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Footer {
    pub(super) index_offset: u64,
    pub(super) filter_offset: u64,
    pub(super) entries: u64,
    pub(super) oldest_ms: u64,
    pub(super) newest_ms: u64,
}

/// Why bytes of a file could not be read.
pub(super) enum Unreadable {
    Files(basalt_fs::Error),
    Damaged(String),
}

// === impl Footer ===

impl Footer {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(FOOTER_BYTES);
        let numbers =
            [self.index_offset, self.filter_offset, self.entries, self.oldest_ms, self.newest_ms];
        numbers.into_iter().for_each(|number| bytes.put_u64(number));
        bytes.put_u32(crc32c(&bytes));
        bytes.put_slice(MAGIC);
        bytes.freeze()
    }

    /// Parses the footer of a file of `length` bytes.
    pub(super) fn decode(footer: &[u8], length: u64) -> Result<Self, String> {
        let (mut footer, magic) = footer.split_last_chunk::<8>().ok_or("it is cut off")?;
        if magic != MAGIC {
            return Err("it does not end with BASALTN1".to_owned());
        }
        let (numbers, crc) = footer.split_last_chunk::<4>().ok_or("it is cut off")?;
        let (stored, computed) = (u32::from_be_bytes(*crc), crc32c(numbers));
        if stored != computed {
            return Err(format!("its footer's checksum is {computed:08x}, not {stored:08x}"));
        }
        let mut number = || footer.try_get_u64().map_err(|error| error.to_string());
        let footer = Self {
            index_offset: number()?,
            filter_offset: number()?,
            entries: number()?,
            oldest_ms: number()?,
            newest_ms: number()?,
        };
        let tables_end = length.saturating_sub(FOOTER_BYTES as u64);
        let is_ordered = MAGIC.len() as u64 <= footer.index_offset
            && footer.index_offset <= footer.filter_offset
            && footer.filter_offset <= tables_end;
        if !is_ordered || tables_end - footer.index_offset > TABLES_BYTES_MAX {
            let Self { index_offset, filter_offset, .. } = footer;
            return Err(format!(
                "its index is at {index_offset} and its filter at {filter_offset} of {length} bytes"
            ));
        }
        if footer.entries > ENTRIES_MAX {
            return Err(format!("{} entries; at most {ENTRIES_MAX} are read", footer.entries));
        }
        Ok(footer)
    }
}

/// Appends `payload` with its length and checksum.
pub(super) fn put_frame(payload: &[u8], output: &mut BytesMut) {
    let length = (payload.len() as u32).to_be_bytes();
    output.reserve(FRAME_BYTES + payload.len());
    output.put_slice(&length);
    output.put_u32(crc32c_append(crc32c(&length), payload));
    output.put_slice(payload);
}

/// The payload of a frame that fills all of `bytes`.
pub(super) fn payload(mut bytes: Bytes, what: &str) -> Result<Bytes, String> {
    if bytes.len() < FRAME_BYTES {
        return Err(format!("its {what} is cut off"));
    }
    let length = bytes.split_to(4);
    let stored = bytes.get_u32();
    if u32::try_from(bytes.len()).ok() != Some((&length[..]).get_u32()) {
        return Err(format!("its {what} is {} bytes long, unlike its stated length", bytes.len()));
    }
    let computed = crc32c_append(crc32c(&length), &bytes);
    if stored != computed {
        return Err(format!("the checksum of its {what} is {computed:08x}, not {stored:08x}"));
    }
    Ok(bytes)
}

/// The payload of the block from `offset` to `end`.
pub(super) async fn read_block(
    file: &dyn ReadFile,
    offset: u64,
    end: u64,
) -> Result<Bytes, Unreadable> {
    let length = end.saturating_sub(offset) as usize;
    if length > FRAME_BYTES + BLOCK_BYTES_MAX {
        return Err(Unreadable::Damaged(format!("a block of {length} bytes at {offset}")));
    }
    let bytes = file.read_at(offset, length).await.map_err(Unreadable::Files)?;
    payload(bytes, "block").map_err(|reason| Unreadable::Damaged(format!("at {offset}, {reason}")))
}
