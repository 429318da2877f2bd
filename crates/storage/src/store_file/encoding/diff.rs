//! DIFF: besides the common part of keys, it omits lengths and a type that equal those of the
//! previous cell. The timestamp is stored as the difference from the previous one if that is
//! shorter.
//!
//! ```text
//! block: u8 family length | family | cells
//! cell: u8 flags | [packed key length] [packed value length] packed length in common
//!       rest of the row | qualifier, or the rest of it
//!       1 to 8 bytes of timestamp, the lowest first | [u8 type] | value
//! ```

use basalt_model::CellKey;
use bytes::BufMut;

use super::super::error::Damage;
use super::super::fields::Fields;
use super::delta::{LastCell, SameLengths, begin};

const SAME_KEY_LENGTH: u8 = 1;
const SAME_VALUE_LENGTH: u8 = 1 << 1;
const SAME_TYPE: u8 = 1 << 2;
/// The timestamp is the previous one minus the stored number.
const TIMESTAMP_IS_DIFFERENCE: u8 = 1 << 3;
/// The length of the stored number minus 1.
const TIMESTAMP_LENGTH_SHIFT: u8 = 4;
const TIMESTAMP_LENGTH_MASK: u8 = 7;
/// The stored number is negative.
const TIMESTAMP_SIGN: u8 = 1 << 7;

/// Reads the family from the start of a block, and stores it in the key of an imaginary cell before
/// the first one. The first cell then takes its family from there, as the others do from their
/// predecessors.
pub(super) fn put_family(fields: &mut Fields<'_>, key: &mut Vec<u8>) -> Result<(), Damage> {
    let length = fields.u8()?;
    let family = fields.take(length.into())?;
    let before =
        CellKey { row: &[], family, qualifier: &[], timestamp: 0, type_byte: 0 }.to_bytes();
    key.put_slice(&before);
    Ok(())
}

/// Appends the next cell's key to `key`, and returns its value.
pub(super) fn next<'v>(
    last: LastCell<'_, 'v>,
    fields: &mut Fields<'v>,
    key: &mut Vec<u8>,
) -> Result<&'v [u8], Damage> {
    let flags = fields.u8()?;
    let same =
        SameLengths { key: flags & SAME_KEY_LENGTH != 0, value: flags & SAME_VALUE_LENGTH != 0 };
    let (value_length, before) = begin(last, fields, same, key)?;
    key.put_i64(timestamp(flags, before.timestamp, fields)?);
    key.put_u8(match flags & SAME_TYPE {
        0 => fields.u8()?,
        _ => before.type_byte,
    });
    fields.take(value_length)
}

fn timestamp(flags: u8, before: i64, fields: &mut Fields<'_>) -> Result<i64, Damage> {
    let length = (flags >> TIMESTAMP_LENGTH_SHIFT & TIMESTAMP_LENGTH_MASK) + 1;
    let bytes = fields.take(length.into())?;
    let number = bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let number = match flags & TIMESTAMP_SIGN {
        0 => number as i64,
        _ => (number as i64).wrapping_neg(),
    };
    Ok(match flags & TIMESTAMP_IS_DIFFERENCE {
        0 => number,
        _ => before.wrapping_sub(number),
    })
}
