//! Shared decoding of PREFIX, DIFF and FAST_DIFF: each cell consists of its own bytes and of parts
//! of the previous cell.
//!
//! ```text
//! cell: key and value, as encoded | [packed tags length | tags] [vlong sequence id]
//! ```
//! Lengths are packed, seven bits per byte.

use basalt_model::CellKey;
use bytes::{BufMut, Bytes};

use super::super::block::BLOCK_BYTES_MAX;
use super::super::error::Damage;
use super::super::fields::{Fields, put_variable};
use super::tags::TagDictionary;
use super::{DataFormat, Encoding, diff, fast_diff, prefix};

/// The bytes of timestamp and type, which end every key.
pub(super) const TIMESTAMP_TYPE_BYTES: usize = 9;
const ROW_LENGTH_BYTES: usize = 2;
/// The initial capacity for decoded cells, per byte of the encoded block; most blocks need less.
const GROWTH: usize = 8;

/// The cell before the one being decoded.
#[derive(Clone, Copy)]
pub(super) struct LastCell<'k, 'v> {
    /// Its serialized key; empty before the first cell.
    pub(super) key: &'k [u8],
    pub(super) value: &'v [u8],
}

/// Which lengths of a cell equal those of the previous one.
#[derive(Clone, Copy)]
pub(super) struct SameLengths {
    pub(super) key: bool,
    pub(super) value: bool,
}

/// Decodes a block to plain cells. `encoded` begins after the number of the encoding.
pub(super) fn plain_cells(format: &DataFormat, encoded: &[u8]) -> Result<Bytes, Damage> {
    let mut fields = Fields::new(encoded, "part of an encoded block");
    let length = fields.length(BLOCK_BYTES_MAX)?;
    let mut plain = Vec::with_capacity(length.min(encoded.len().saturating_mul(GROWTH)));
    let (mut key, mut last_key, mut value) = (Vec::new(), Vec::new(), &[][..]);
    if format.encoding == Encoding::Diff {
        diff::put_family(&mut fields, &mut last_key)?;
    }
    let mut tags = format.tags_compressed.then(TagDictionary::default);
    while !fields.rest().is_empty() {
        let position = encoded.len() - fields.rest().len();
        let in_cell =
            |damage: Damage| Damage::Cell { position, reason: format!("encoded: {damage}") };
        let last = LastCell { key: &last_key, value };
        key.clear();
        let next = match format.encoding {
            Encoding::Diff => diff::next(last, &mut fields, &mut key),
            Encoding::FastDiff => fast_diff::next(last, &mut fields, &mut key),
            _ => prefix::next(last, &mut fields, &mut key),
        };
        value = next.map_err(in_cell)?;
        plain.put_u32(key.len() as u32);
        plain.put_u32(value.len() as u32);
        plain.put_slice(&key);
        plain.put_slice(value);
        put_rest(format, &mut fields, tags.as_mut(), &mut plain).map_err(in_cell)?;
        Damage::check("length of decoded cells", plain.len() as i64, (0, length as i64))?;
        std::mem::swap(&mut key, &mut last_key);
    }
    let bounds = (length as i64, length as i64);
    Damage::check("length of the decoded cells", plain.len() as i64, bounds)?;
    Ok(plain.into_boxed_slice().into())
}

/// Decodes the fields that follow the value.
fn put_rest<'v>(
    format: &DataFormat,
    fields: &mut Fields<'v>,
    tags: Option<&mut TagDictionary<'v>>,
    plain: &mut Vec<u8>,
) -> Result<(), Damage> {
    if format.layout.tags {
        let length = fields.packed_length()?;
        Damage::check("length of a cell's tags", length as i64, (0, u16::MAX.into()))?;
        plain.put_u16(length as u16);
        match tags {
            Some(tags) => tags.put_tags(fields, length, plain)?,
            None => plain.put_slice(fields.take(length)?),
        }
    }
    if format.layout.sequence_ids {
        put_variable(plain, fields.variable()?);
    }
    Ok(())
}

/// Decodes the part of a DIFF or FAST_DIFF cell between its flags and its timestamp: appends row
/// and column to `key`. Returns the length of the value and the parts of the previous key.
///
/// ```text
/// [packed key length] [packed value length] packed length in common
/// rest of the row | qualifier, or the rest of it
/// ```
/// Lengths that equal those of the previous cell are omitted. If the common part is shorter than
/// the row, the family also equals the previous one, and is omitted between row and qualifier.
pub(super) fn begin<'k>(
    last: LastCell<'k, '_>,
    fields: &mut Fields<'_>,
    same: SameLengths,
    key: &mut Vec<u8>,
) -> Result<(usize, CellKey<'k>), Damage> {
    let key_length = if same.key { last.key.len() } else { fields.packed_length()? };
    let value_length = if same.value { last.value.len() } else { fields.packed_length()? };
    let common = fields.packed_length()?;
    let before = last.parts()?;
    let CellKey { row, family, .. } = before;
    key.put_slice(last.common(common)?);
    if common < ROW_LENGTH_BYTES + row.len() {
        key.put_slice(fields.take(ROW_LENGTH_BYTES.saturating_sub(common))?);
        let row_length = Fields::new(key, "length of a row").u16()?;
        let row_end = ROW_LENGTH_BYTES + usize::from(row_length);
        key.put_slice(fields.take(rest("length of a row", row_end, key.len())?)?);
        key.put_u8(family.len() as u8);
        key.put_slice(family);
    }
    let qualifier_length = rest("length of a key", key_length, key.len() + TIMESTAMP_TYPE_BYTES)?;
    key.put_slice(fields.take(qualifier_length)?);
    Ok((value_length, before))
}

/// The number of bytes missing from `length`, which `present` must not exceed.
fn rest(what: &'static str, length: usize, present: usize) -> Result<usize, Damage> {
    length.checked_sub(present).ok_or(Damage::OutOfBounds {
        what,
        found: length as i64,
        min: present as i64,
        max: i64::MAX,
    })
}

// === impl LastCell ===

impl<'k> LastCell<'k, '_> {
    pub(super) fn is_none(&self) -> bool {
        self.key.is_empty()
    }

    /// The first `length` bytes of the key.
    pub(super) fn common(&self, length: usize) -> Result<&'k [u8], Damage> {
        self.key.get(..length).ok_or(Damage::CutOff { what: "the shared prefix of a key" })
    }

    pub(super) fn parts(&self) -> Result<CellKey<'k>, Damage> {
        CellKey::parse(self.key)
            .map_err(|error| Damage::Message { what: "the last key", reason: error.to_string() })
    }
}
