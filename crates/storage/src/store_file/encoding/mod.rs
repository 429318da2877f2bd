//! Encoded data blocks, as Apache HBase writes them for a family with `DATA_BLOCK_ENCODING`.
//!
//! They are read but never written. A block is decoded to the plain cells of a [`DataBlock`] once,
//! when it is loaded, and is cached in that form.
//!
//! ```text
//! block: i16 number of the encoding | encoded
//! encoded, PREFIX, DIFF, FAST_DIFF: i32 length of the plain cells | cells, each without the parts
//!     that it shares with the one before; DIFF has the family before the cells
//! encoded, ROW_INDEX_V1: plain cells | index of their rows
//! ```
//! Invariant: decoding produces no more bytes than the block states, so that a few bytes which
//! repeat a long value cannot exhaust memory.

mod delta;
mod diff;
mod fast_diff;
mod prefix;
mod row_index;
mod tags;
#[cfg(test)]
mod tests;

use bytes::{Buf, Bytes};

use super::block::BlockType;
use super::data_block::{CellLayout, DataBlock};
use super::error::Damage;
use super::file_info::{self, FileInfo};

/// The name for no encoding.
const NOT_ENCODED: &[u8] = b"NONE";

/// The encoding of the cells of a data block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    None,
    Prefix,
    Diff,
    FastDiff,
    RowIndex,
}

/// The format of the data blocks of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataFormat {
    pub(super) encoding: Encoding,
    /// The fields that follow key and value in each cell.
    pub(super) layout: CellLayout,
    /// Whether tags are compressed with a dictionary, which each block starts empty. Only PREFIX,
    /// DIFF and FAST_DIFF support that.
    pub(super) tags_compressed: bool,
}

/// An encoding that Basalt cannot read.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct UnknownEncoding {
    /// The kind of blocks.
    pub(super) what: &'static str,
    /// The name of the encoding.
    pub(super) found: String,
    /// The names of the encodings that Basalt can read.
    pub(super) supported: &'static str,
}

// === impl Encoding ===

impl Encoding {
    /// The names of all encodings that Basalt can read.
    const NAMES: &str = "NONE, PREFIX, DIFF, FAST_DIFF, ROW_INDEX_V1";

    /// The encoding with this name, if Basalt can read it.
    fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            NOT_ENCODED => Some(Self::None),
            b"PREFIX" => Some(Self::Prefix),
            b"DIFF" => Some(Self::Diff),
            b"FAST_DIFF" => Some(Self::FastDiff),
            b"ROW_INDEX_V1" => Some(Self::RowIndex),
            _ => None,
        }
    }

    /// The encoding's number in HBase's `DataBlockEncoding`.
    pub(super) fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Prefix => 2,
            Self::Diff => 3,
            Self::FastDiff => 4,
            Self::RowIndex => 7,
        }
    }
}

// === impl DataFormat ===

impl DataFormat {
    /// The format of the data blocks according to the file info, which must also state that the
    /// index is not encoded.
    pub(super) fn from_info(info: &FileInfo) -> Result<Self, UnknownEncoding> {
        let name = |key| info.get(key).map_or(NOT_ENCODED, AsRef::as_ref);
        let unknown = |what, name: &[u8], supported| {
            let found = name.escape_ascii().to_string();
            UnknownEncoding { what, found, supported }
        };
        let index = name(file_info::INDEX_BLOCK_ENCODING);
        if index != NOT_ENCODED {
            return Err(unknown("index block encoding", index, "NONE"));
        }
        let data = name(file_info::DATA_BLOCK_ENCODING);
        let encoding = Encoding::from_name(data)
            .ok_or_else(|| unknown("data block encoding", data, Encoding::NAMES))?;
        let version = info.i32(file_info::CELL_VERSION);
        Ok(Self {
            encoding,
            layout: CellLayout {
                tags: info.get(file_info::TAGS_LENGTH_MAX).is_some(),
                sequence_ids: version == Some(file_info::CELL_VERSION_WITH_SEQUENCE_ID),
            },
            tags_compressed: info.bool(file_info::TAGS_COMPRESSED),
        })
    }

    /// The block type that the data blocks state.
    pub(super) fn block_type(&self) -> BlockType {
        match self.encoding {
            Encoding::None => BlockType::Data,
            _ => BlockType::EncodedData,
        }
    }

    /// Decodes the payload of a block, and parses its cells.
    pub(super) fn parse(&self, payload: Bytes) -> Result<DataBlock, Damage> {
        let plain = match self.encoding {
            Encoding::None => payload,
            _ => self.decode(payload)?,
        };
        DataBlock::parse(plain, self.layout)
    }

    fn decode(&self, mut payload: Bytes) -> Result<Bytes, Damage> {
        let cut_off = |_| Damage::CutOff { what: "the number of the block's encoding" };
        let found = payload.try_get_i16().map_err(cut_off)?;
        let expected = self.encoding.number();
        let bounds = (expected.into(), expected.into());
        Damage::check("number of the block's encoding", found.into(), bounds)?;
        match self.encoding {
            Encoding::RowIndex => row_index::plain_cells(&payload),
            _ => delta::plain_cells(self, &payload),
        }
    }
}
