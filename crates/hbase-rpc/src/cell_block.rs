//! Cells beside a message: the cell block that follows it in a frame.
//!
//! ```text
//! ( i32 length | cell )*      the cell as `basalt_model::Cell` holds it
//! ```
//! `KeyValueCodec`, the default of clients, omits tags; `KeyValueCodecWithTags` keeps them.

use basalt_model::{Cell, SequenceId};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{Error, Result};

/// How the cells of a connection are encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CellBlockCodec {
    /// Without tags.
    KeyValue,
    /// With tags.
    KeyValueWithTags,
}

/// The length field before each cell.
const LENGTH_BYTES: usize = 4;

// === impl CellBlockCodec ===

impl CellBlockCodec {
    /// The codec with this Java class.
    ///
    /// # Errors
    /// [`Error::UnknownCodec`].
    pub fn from_class_name(class_name: &str) -> Result<Self> {
        [Self::KeyValue, Self::KeyValueWithTags]
            .into_iter()
            .find(|codec| codec.class_name() == class_name)
            .ok_or_else(|| Error::UnknownCodec { class_name: class_name.to_owned() })
    }

    /// Its Java class.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::KeyValue => "org.apache.hadoop.hbase.codec.KeyValueCodec",
            Self::KeyValueWithTags => "org.apache.hadoop.hbase.codec.KeyValueCodecWithTags",
        }
    }

    /// How many bytes [`Self::encode`] appends.
    pub fn encoded_length(self, cells: &[Cell]) -> usize {
        cells.iter().map(|cell| LENGTH_BYTES + self.cell_bytes(cell).len()).sum()
    }

    /// Appends `cells` to `block`.
    pub fn encode(self, cells: &[Cell], block: &mut BytesMut) {
        for cell in cells {
            let bytes = self.cell_bytes(cell);
            block.put_u32(bytes.len() as u32);
            block.extend_from_slice(bytes);
        }
    }

    /// Decodes the cells of `block`. They share its memory; see [`Cell::copy_into`].
    ///
    /// # Errors
    /// [`Error::BadCellBlock`] if a length does not fit; [`Error::Model`] for an invalid cell.
    pub fn decode(self, mut block: Bytes) -> Result<Vec<Cell>> {
        let mut cells = Vec::new();
        self.decode_some(&mut block, usize::MAX, &mut cells)?;
        Ok(cells)
    }

    /// Takes cells off `block` until they have at least `bytes_max` bytes, or the block is empty.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub(crate) fn decode_some(
        self,
        block: &mut Bytes,
        bytes_max: usize,
        cells: &mut Vec<Cell>,
    ) -> Result<()> {
        let left_min = block.len().saturating_sub(bytes_max);
        while block.len() > left_min {
            let length = block
                .try_get_u32()
                .map_err(|_| Error::BadCellBlock { reason: "the length of a cell is cut off" })?
                as usize;
            if length > block.len() {
                return Err(Error::BadCellBlock { reason: "a cell is cut off" });
            }
            let cell = block.split_to(length);
            cells.push(Cell::from_bytes(cell, SequenceId(0))?);
        }
        Ok(())
    }

    fn cell_bytes(self, cell: &Cell) -> &[u8] {
        match self {
            Self::KeyValue => cell.untagged_bytes(),
            Self::KeyValueWithTags => cell.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::{CellBuilder, CellType};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_cell() -> impl Strategy<Value = Cell> {
        let bytes = |length| vec(any::<u8>(), 0..length);
        let parts = (bytes(20), bytes(5), bytes(20), bytes(200), bytes(9));
        (parts, any::<i64>(), any::<bool>()).prop_map(|(parts, timestamp, put)| {
            let (row, family, qualifier, value, tags) = parts;
            CellBuilder {
                row: &row,
                family: &family,
                qualifier: &qualifier,
                timestamp,
                cell_type: if put { CellType::Put } else { CellType::DeleteColumn },
                value: &value,
                tags: &tags,
            }
            .build()
            .unwrap()
        })
    }

    #[test]
    fn a_block_is_what_java_writes() {
        let cell = Cell::put(b"r", b"f", b"q", 1, b"v").unwrap();
        let mut block = BytesMut::new();
        CellBlockCodec::KeyValue.encode(&[cell], &mut block);
        // Written by hand from the layout in the module's doc.
        let golden = [
            0, 0, 0, 24, 0, 0, 0, 15, 0, 0, 0, 1, 0, 1, b'r', 1, b'f', b'q', 0, 0, 0, 0, 0, 0, 0,
            1, 4, b'v',
        ];
        assert_eq!(block[..], golden);
    }

    #[test]
    fn a_cut_block_is_refused() {
        let cell = Cell::put(b"row", b"f", b"q", 1, b"value").unwrap();
        let mut block = BytesMut::new();
        CellBlockCodec::KeyValue.encode(&[cell], &mut block);
        let block = block.freeze();
        for end in 1..block.len() {
            assert!(
                CellBlockCodec::KeyValue.decode(block.slice(..end)).is_err(),
                "{end} bytes were taken"
            );
        }
    }

    proptest! {
        #[test]
        fn cells_cross_with_their_tags_or_without(cells in vec(any_cell(), 0..20)) {
            for codec in [CellBlockCodec::KeyValue, CellBlockCodec::KeyValueWithTags] {
                let mut block = BytesMut::new();
                codec.encode(&cells, &mut block);
                prop_assert_eq!(block.len(), codec.encoded_length(&cells));
                let decoded = codec.decode(block.freeze()).unwrap();
                for (cell, decoded) in cells.iter().zip(&decoded) {
                    match codec {
                        CellBlockCodec::KeyValueWithTags => prop_assert_eq!(cell, decoded),
                        CellBlockCodec::KeyValue => {
                            prop_assert_eq!(cell.untagged_bytes(), &decoded.bytes()[..]);
                        }
                    }
                }
                prop_assert_eq!(cells.len(), decoded.len());
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..300)) {
            let _ = CellBlockCodec::KeyValueWithTags.decode(Bytes::from(bytes));
        }
    }
}
