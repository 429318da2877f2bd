//! PREFIX: for each key, the length of its common prefix with the previous key, and the rest of it.
//!
//! ```text
//! packed length of the rest of the key | packed value length | packed length in common
//! rest of the key | value
//! ```

use bytes::BufMut;

use super::super::error::Damage;
use super::super::fields::Fields;
use super::delta::LastCell;

/// Appends the next cell's key to `key`, and returns its value.
pub(super) fn next<'v>(
    last: LastCell<'_, 'v>,
    fields: &mut Fields<'v>,
    key: &mut Vec<u8>,
) -> Result<&'v [u8], Damage> {
    let rest_length = fields.packed_length()?;
    let value_length = fields.packed_length()?;
    let common = fields.packed_length()?;
    key.put_slice(last.common(common)?);
    key.put_slice(fields.take(rest_length)?);
    fields.take(value_length)
}
