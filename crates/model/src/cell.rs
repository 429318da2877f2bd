//! Cells, in the serialized form that the wire, the memstore and store files share.
//!
//! ```text
//! i32 key length | i32 value length | key | value | [u16 tags length | tags]
//! key: i16 row length | row | i8 family length | family | qualifier | i64 timestamp | i8 type
//! ```
//! That is HBase's `KeyValue`; all numbers are big endian. Invariant: a [`Cell`] is validated when
//! it is created, so accessing its parts cannot fail.
//!
//! Cells are ordered by row, family and qualifier ascending, then by timestamp and type descending.
//! The newest version therefore comes first, and a delete comes before the puts that it hides.

use std::cmp::Ordering;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Error, SequenceId};

/// "Now", as clients write it; the server replaces it with its own time.
pub const LATEST_TIMESTAMP: i64 = i64::MAX;
/// The lowest timestamp.
pub const OLDEST_TIMESTAMP: i64 = i64::MIN;

/// The bytes before the key: the lengths of key and value.
const LENGTHS_BYTES: usize = 8;
/// The bytes of a key besides row, family and qualifier: two lengths, timestamp, type.
const KEY_FIXED_BYTES: usize = 2 + 1 + 8 + 1;
/// The longest row, as HBase's `i16` length allows.
const ROW_BYTES_MAX: usize = i16::MAX as usize;
/// The longest family name, as HBase's `i8` length allows.
const FAMILY_BYTES_MAX: usize = i8::MAX as usize;

/// The type of a cell: a put, a kind of delete, or a bound of a search.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum CellType {
    /// Sorts after all others; only in search keys.
    Minimum = 0,
    /// Sets a value.
    Put = 4,
    /// Hides one version: the put of the same column and timestamp.
    Delete = 8,
    /// Hides the puts of a whole family with exactly its timestamp.
    DeleteFamilyVersion = 10,
    /// Hides all versions of a column at or below its timestamp.
    DeleteColumn = 12,
    /// Hides all of a family at or below its timestamp.
    DeleteFamily = 14,
    /// Sorts before all others; only in search keys.
    Maximum = 255,
}

/// One version of one column of one row, or a delete marker. Cheap to clone.
#[derive(Clone, Eq, PartialEq)]
pub struct Cell {
    bytes: Bytes,
    sequence_id: SequenceId,
}

/// A borrowed serialized key, parsed into its parts.
#[derive(Clone, Copy, Debug)]
pub struct CellKey<'a> {
    /// The row.
    pub row: &'a [u8],
    /// The column family.
    pub family: &'a [u8],
    /// The column's name within the family.
    pub qualifier: &'a [u8],
    /// Milliseconds since 1970, or whatever number the client uses as a version.
    pub timestamp: i64,
    /// The type's byte; see [`CellType`].
    pub type_byte: u8,
}

/// The parts of a [`Cell`] to be built.
#[derive(Clone, Copy, Debug)]
pub struct CellBuilder<'a> {
    /// The row; 1 to 32,767 bytes.
    pub row: &'a [u8],
    /// The column family; up to 127 bytes.
    pub family: &'a [u8],
    /// The column's name within the family.
    pub qualifier: &'a [u8],
    /// The timestamp.
    pub timestamp: i64,
    /// The type.
    pub cell_type: CellType,
    /// The value.
    pub value: &'a [u8],
    /// Serialized tags, each `u16 length | u8 type | bytes`; empty if there are none.
    pub tags: &'a [u8],
}

// === impl CellType ===

impl CellType {
    /// The type with this byte, or `None` if there is none.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Minimum),
            4 => Some(Self::Put),
            8 => Some(Self::Delete),
            10 => Some(Self::DeleteFamilyVersion),
            12 => Some(Self::DeleteColumn),
            14 => Some(Self::DeleteFamily),
            255 => Some(Self::Maximum),
            _ => None,
        }
    }

    /// Whether cells of this type hide others.
    pub fn is_delete(self) -> bool {
        matches!(
            self,
            Self::Delete | Self::DeleteFamilyVersion | Self::DeleteColumn | Self::DeleteFamily
        )
    }
}

// === impl CellBuilder ===

impl CellBuilder<'_> {
    /// Serializes the cell, without a sequence id.
    ///
    /// # Errors
    /// [`Error::BadCell`] if a part is longer than its length field can express.
    pub fn build(&self) -> Result<Cell, Error> {
        check_part(self.row.len(), ROW_BYTES_MAX, "its row is longer than 32767 bytes")?;
        check_part(self.family.len(), FAMILY_BYTES_MAX, "its family is longer than 127 bytes")?;
        check_part(self.tags.len(), u16::MAX.into(), "its tags are longer than 65535 bytes")?;
        let key_length =
            KEY_FIXED_BYTES + self.row.len() + self.family.len() + self.qualifier.len();
        check_part(key_length, i32::MAX as usize, "its key is longer than 2 GiB")?;
        check_part(self.value.len(), i32::MAX as usize, "its value is longer than 2 GiB")?;
        let tags_length = if self.tags.is_empty() { 0 } else { 2 + self.tags.len() };
        let mut bytes =
            BytesMut::with_capacity(LENGTHS_BYTES + key_length + self.value.len() + tags_length);
        bytes.put_u32(key_length as u32);
        bytes.put_u32(self.value.len() as u32);
        bytes.put_u16(self.row.len() as u16);
        bytes.put_slice(self.row);
        bytes.put_u8(self.family.len() as u8);
        bytes.put_slice(self.family);
        bytes.put_slice(self.qualifier);
        bytes.put_i64(self.timestamp);
        bytes.put_u8(self.cell_type as u8);
        bytes.put_slice(self.value);
        if tags_length > 0 {
            bytes.put_u16(self.tags.len() as u16);
            bytes.put_slice(self.tags);
        }
        Ok(Cell { bytes: bytes.freeze(), sequence_id: SequenceId(0) })
    }
}

// === impl Cell ===

impl Cell {
    /// Builds a put without tags.
    ///
    /// # Errors
    /// As [`CellBuilder::build`].
    pub fn put(
        row: &[u8],
        family: &[u8],
        qualifier: &[u8],
        timestamp: i64,
        value: &[u8],
    ) -> Result<Self, Error> {
        let cell_type = CellType::Put;
        CellBuilder { row, family, qualifier, timestamp, cell_type, value, tags: &[] }.build()
    }

    /// Validates serialized bytes (see the module's doc), with or without tags, and wraps them.
    ///
    /// # Errors
    /// [`Error::BadCell`] if a length does not match the bytes or the type is unknown.
    pub fn from_bytes(bytes: Bytes, sequence_id: SequenceId) -> Result<Self, Error> {
        let (key_length, value_length) = read_lengths(&bytes)?;
        let untagged = LENGTHS_BYTES + key_length + value_length;
        let key = bytes
            .get(LENGTHS_BYTES..LENGTHS_BYTES + key_length)
            .ok_or(Error::BadCell { reason: "its key is cut off" })?;
        let key = CellKey::parse(key)?;
        if CellType::from_byte(key.type_byte).is_none() {
            return Err(Error::BadCell { reason: "its type is unknown" });
        }
        match bytes.get(untagged..) {
            None => Err(Error::BadCell { reason: "its value is cut off" }),
            Some([]) => Ok(Self { bytes, sequence_id }),
            Some([high, low, tags @ ..])
                if !tags.is_empty()
                    && usize::from(u16::from_be_bytes([*high, *low])) == tags.len() =>
            {
                Ok(Self { bytes, sequence_id })
            }
            Some(_) => Err(Error::BadCell { reason: "bytes follow it that are not its tags" }),
        }
    }

    /// The serialized cell, with its tags if it has any.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The serialized cell without tags: what HBase's `KeyValueCodec` sends.
    pub fn untagged_bytes(&self) -> &[u8] {
        &self.bytes[..LENGTHS_BYTES + self.key_length() + self.value_length()]
    }

    /// The serialized key; compare it with [`compare_keys`].
    pub fn key_bytes(&self) -> &[u8] {
        &self.bytes[LENGTHS_BYTES..LENGTHS_BYTES + self.key_length()]
    }

    /// The parts of the key.
    pub fn key(&self) -> CellKey<'_> {
        let key = self.key_bytes();
        let row_end = 2 + usize::from(u16::from_be_bytes([key[0], key[1]]));
        let family_end = row_end + 1 + usize::from(key[row_end]);
        let qualifier_end = key.len() - 9;
        let mut timestamp = [0; 8];
        timestamp.copy_from_slice(&key[qualifier_end..qualifier_end + 8]);
        CellKey {
            row: &key[2..row_end],
            family: &key[row_end + 1..family_end],
            qualifier: &key[family_end..qualifier_end],
            timestamp: i64::from_be_bytes(timestamp),
            type_byte: key[qualifier_end + 8],
        }
    }

    /// The row.
    pub fn row(&self) -> &[u8] {
        let key = self.key_bytes();
        &key[2..2 + usize::from(u16::from_be_bytes([key[0], key[1]]))]
    }

    /// The row as shared bytes, without a copy.
    pub fn row_bytes(&self) -> Bytes {
        self.bytes.slice_ref(self.row())
    }

    /// The column family.
    pub fn family(&self) -> &[u8] {
        self.key().family
    }

    /// The column's name within the family.
    pub fn qualifier(&self) -> &[u8] {
        self.key().qualifier
    }

    /// The timestamp.
    pub fn timestamp(&self) -> i64 {
        self.key().timestamp
    }

    /// The type.
    pub fn cell_type(&self) -> CellType {
        self.key().cell_type()
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        let start = LENGTHS_BYTES + self.key_length();
        &self.bytes[start..start + self.value_length()]
    }

    /// The value as shared bytes, without a copy.
    pub fn value_bytes(&self) -> Bytes {
        self.bytes.slice_ref(self.value())
    }

    /// The serialized tags, without their length; empty if there are none.
    pub fn tags(&self) -> &[u8] {
        self.bytes.get(self.untagged_bytes().len() + 2..).unwrap_or_default()
    }

    /// The sequence id; 0 before the region assigns one.
    pub fn sequence_id(&self) -> SequenceId {
        self.sequence_id
    }

    /// The same cell with the sequence id that its region assigned.
    #[must_use]
    pub fn with_sequence_id(mut self, sequence_id: SequenceId) -> Self {
        self.sequence_id = sequence_id;
        self
    }

    /// A copy with this timestamp, at the end of `memory`. Cells that are created and freed
    /// together are then adjacent in memory, and a small cell does not keep alive the large buffer
    /// that it arrived in.
    #[must_use]
    pub fn copy_into(&self, memory: &mut BytesMut, timestamp: i64) -> Self {
        memory.extend_from_slice(&self.bytes);
        let mut bytes = memory.split();
        let at = LENGTHS_BYTES + self.key_length() - 9;
        bytes[at..at + 8].copy_from_slice(&timestamp.to_be_bytes());
        Self { bytes: bytes.freeze(), sequence_id: self.sequence_id }
    }

    /// Orders by key, then the later edit first. Ignores values.
    pub fn compare_version(&self, other: &Self) -> Ordering {
        // The rows alone decide most comparisons.
        self.row()
            .cmp(other.row())
            .then_with(|| self.key().compare(&other.key()))
            .then_with(|| other.sequence_id.cmp(&self.sequence_id))
    }

    fn key_length(&self) -> usize {
        u32::from_be_bytes([self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]]) as usize
    }

    fn value_length(&self) -> usize {
        u32::from_be_bytes([self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]]) as usize
    }
}

impl Ord for Cell {
    /// Orders by [`Cell::compare_version`]. The bytes decide between cells of one edit that have
    /// the same key; of these, a memstore keeps the one that was written last.
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare_version(other).then_with(|| self.bytes.cmp(&other.bytes))
    }
}

impl PartialOrd for Cell {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key();
        write!(
            formatter,
            "{}/{}:{}/{}/{:?}/vlen={}/seqid={}",
            key.row.escape_ascii(),
            key.family.escape_ascii(),
            key.qualifier.escape_ascii(),
            key.timestamp,
            self.cell_type(),
            self.value_length(),
            self.sequence_id,
        )
    }
}

// === impl CellKey ===

impl<'a> CellKey<'a> {
    /// Parses a serialized key.
    ///
    /// # Errors
    /// [`Error::BadCell`] if a length does not match the bytes.
    pub fn parse(key: &'a [u8]) -> Result<Self, Error> {
        const CUT_OFF: Error = Error::BadCell { reason: "its key is cut off" };
        let (row_length, rest) = key.split_first_chunk::<2>().ok_or(CUT_OFF)?;
        let row_length = usize::from(u16::from_be_bytes(*row_length));
        if row_length > ROW_BYTES_MAX {
            return Err(Error::BadCell { reason: "its row is longer than 32767 bytes" });
        }
        let (row, rest) = rest.split_at_checked(row_length).ok_or(CUT_OFF)?;
        let (family_length, rest) = rest.split_first().ok_or(CUT_OFF)?;
        let (family, rest) = rest.split_at_checked((*family_length).into()).ok_or(CUT_OFF)?;
        let (rest, type_byte) = rest.split_last_chunk::<1>().ok_or(CUT_OFF)?;
        let (qualifier, timestamp) = rest.split_last_chunk::<8>().ok_or(CUT_OFF)?;
        let timestamp = i64::from_be_bytes(*timestamp);
        Ok(Self { row, family, qualifier, timestamp, type_byte: type_byte[0] })
    }

    /// The type, or [`CellType::Maximum`] if the byte is unknown, which never happens in a
    /// [`Cell`].
    pub fn cell_type(&self) -> CellType {
        CellType::from_byte(self.type_byte).unwrap_or(CellType::Maximum)
    }

    /// Serializes the key.
    pub fn to_bytes(&self) -> Bytes {
        let length = KEY_FIXED_BYTES + self.row.len() + self.family.len() + self.qualifier.len();
        let mut bytes = BytesMut::with_capacity(length);
        bytes.put_u16(self.row.len() as u16);
        bytes.put_slice(self.row);
        bytes.put_u8(self.family.len() as u8);
        bytes.put_slice(self.family);
        bytes.put_slice(self.qualifier);
        bytes.put_i64(self.timestamp);
        bytes.put_u8(self.type_byte);
        bytes.freeze()
    }

    /// The search key before every cell of `row`.
    pub fn before_row(row: &'a [u8]) -> Self {
        let type_byte = CellType::Maximum as u8;
        Self { row, family: &[], qualifier: &[], timestamp: LATEST_TIMESTAMP, type_byte }
    }

    /// The order of cells; see the module's doc.
    pub fn compare(&self, other: &CellKey<'_>) -> Ordering {
        self.row
            .cmp(other.row)
            .then_with(|| self.family.cmp(other.family))
            .then_with(|| self.qualifier.cmp(other.qualifier))
            .then_with(|| other.timestamp.cmp(&self.timestamp))
            .then_with(|| other.type_byte.cmp(&self.type_byte))
    }
}

/// Compares two serialized keys. Bytes that are not a key sort before all keys, by their bytes.
pub fn compare_keys(left: &[u8], right: &[u8]) -> Ordering {
    match (CellKey::parse(left), CellKey::parse(right)) {
        (Ok(left), Ok(right)) => left.compare(&right),
        (Err(_), Ok(_)) => Ordering::Less,
        (Ok(_), Err(_)) => Ordering::Greater,
        (Err(_), Err(_)) => left.cmp(right),
    }
}

fn read_lengths(bytes: &[u8]) -> Result<(usize, usize), Error> {
    let Some((&[a, b, c, d, e, f, g, h], _)) = bytes.split_first_chunk::<LENGTHS_BYTES>() else {
        return Err(Error::BadCell { reason: "its lengths are cut off" });
    };
    let key_length = i32::from_be_bytes([a, b, c, d]);
    let value_length = i32::from_be_bytes([e, f, g, h]);
    match (usize::try_from(key_length), usize::try_from(value_length)) {
        (Ok(key_length), Ok(value_length)) => Ok((key_length, value_length)),
        _ => Err(Error::BadCell { reason: "a length is negative" }),
    }
}

fn check_part(length: usize, length_max: usize, reason: &'static str) -> Result<(), Error> {
    if length > length_max { Err(Error::BadCell { reason }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(qualifier: &str, timestamp: i64, cell_type: CellType) -> Cell {
        CellBuilder {
            row: b"row",
            family: b"f",
            qualifier: qualifier.as_bytes(),
            timestamp,
            cell_type,
            value: b"value",
            tags: &[0, 2, 7, 9],
        }
        .build()
        .unwrap()
    }

    #[test]
    fn a_cell_is_taken_apart_as_it_was_put_together() {
        let built = cell("q", 12, CellType::Put);
        let read = Cell::from_bytes(built.bytes().clone(), SequenceId(5)).unwrap();
        assert_eq!(read.row(), b"row");
        assert_eq!(read.family(), b"f");
        assert_eq!(read.qualifier(), b"q");
        assert_eq!(read.timestamp(), 12);
        assert_eq!(read.cell_type(), CellType::Put);
        assert_eq!(read.value(), b"value");
        assert_eq!(read.tags(), [0, 2, 7, 9]);
        assert_eq!(read.sequence_id(), SequenceId(5));
        let untagged =
            Cell::from_bytes(Bytes::copy_from_slice(read.untagged_bytes()), SequenceId(5)).unwrap();
        assert!(untagged.tags().is_empty());
        assert_eq!(untagged.value(), b"value");
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = cell("q", 12, CellType::Put).bytes().clone();
        let untagged = cell("q", 12, CellType::Put).untagged_bytes().len();
        for length in (0..bytes.len()).filter(|length| *length != untagged) {
            let cut = Cell::from_bytes(bytes.slice(..length), SequenceId(0));
            assert!(cut.is_err(), "{length} bytes were taken for a cell");
        }
    }

    #[test]
    fn newer_versions_and_deletes_come_first() {
        let ordered = [
            cell("", 1, CellType::DeleteFamily),
            cell("a", 9, CellType::Put),
            cell("a", 5, CellType::DeleteColumn),
            cell("a", 5, CellType::Delete),
            cell("a", 5, CellType::Put).with_sequence_id(SequenceId(8)),
            cell("a", 5, CellType::Put).with_sequence_id(SequenceId(7)),
            cell("b", 99, CellType::Put),
        ];
        assert!(ordered.is_sorted());
        assert!(
            ordered
                .iter()
                .all(|c| { CellKey::before_row(b"row").compare(&c.key()) == Ordering::Less })
        );
    }

    #[test]
    fn copies_lie_side_by_side_with_their_timestamps() {
        let original = cell("q", LATEST_TIMESTAMP, CellType::Put);
        let length = original.bytes().len();
        let mut memory = BytesMut::with_capacity(2 * length);
        let copies = [77, 78].map(|timestamp| original.copy_into(&mut memory, timestamp));
        assert_eq!(copies.each_ref().map(Cell::timestamp), [77, 78]);
        assert_eq!(copies[0].tags(), original.tags());
        let [first, second] = copies.each_ref().map(|copy| copy.bytes().as_ptr().addr());
        assert_eq!(first + length, second);
        assert_eq!(original.timestamp(), LATEST_TIMESTAMP);
    }
}
