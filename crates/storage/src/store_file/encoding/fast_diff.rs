//! FAST_DIFF: like DIFF, except that it stores only the bytes of the timestamp that differ from the
//! previous one, and omits a value that equals the previous one.
//!
//! ```text
//! first cell: u8 flags, none of them set | as in PREFIX
//! cell: u8 flags | [packed key length] [packed value length] packed length in common
//!       rest of the row | qualifier, or the rest of it | rest of the timestamp | [u8 type] [value]
//! ```

use bytes::BufMut;

use super::super::error::Damage;
use super::super::fields::Fields;
use super::delta::{LastCell, SameLengths, begin};
use super::prefix;

/// The number of leading bytes of the timestamp that equal those of the previous one.
const TIMESTAMP_COMMON_MASK: u8 = 7;
const SAME_KEY_LENGTH: u8 = 1 << 3;
const SAME_VALUE_LENGTH: u8 = 1 << 4;
const SAME_TYPE: u8 = 1 << 5;
const SAME_VALUE: u8 = 1 << 6;

/// Appends the next cell's key to `key`, and returns its value.
pub(super) fn next<'v>(
    last: LastCell<'_, 'v>,
    fields: &mut Fields<'v>,
    key: &mut Vec<u8>,
) -> Result<&'v [u8], Damage> {
    let flags = fields.u8()?;
    if last.is_none() {
        Damage::check("flags of the first cell", flags.into(), (0, 0))?;
        return prefix::next(last, fields, key);
    }
    let same =
        SameLengths { key: flags & SAME_KEY_LENGTH != 0, value: flags & SAME_VALUE_LENGTH != 0 };
    let (value_length, before) = begin(last, fields, same, key)?;
    let common = usize::from(flags & TIMESTAMP_COMMON_MASK);
    let timestamp = before.timestamp.to_be_bytes();
    let (same, other) = timestamp.split_at(common);
    key.put_slice(same);
    key.put_slice(fields.take(other.len())?);
    key.put_u8(match flags & SAME_TYPE {
        0 => fields.u8()?,
        _ => before.type_byte,
    });
    if flags & SAME_VALUE == 0 {
        return fields.take(value_length);
    }
    let length = last.value.len() as i64;
    Damage::check("length of a repeated value", value_length as i64, (length, length))?;
    Ok(last.value)
}
