//! ROW_INDEX_V1: plain cells with an index of their rows. The index is checked but not used,
//! because [`DataBlock`](super::DataBlock) finds cells without it.
//!
//! ```text
//! cells | i32 rows | i32 offset of its first cell, for each row | i32 length of the cells
//! ```

use bytes::Bytes;

use super::super::error::Damage;
use super::super::fields::Fields;

const OFFSET_BYTES: usize = 4;

/// Returns the plain cells of a block. `encoded` begins after the number of the encoding.
pub(super) fn plain_cells(encoded: &Bytes) -> Result<Bytes, Damage> {
    const WHAT: &str = "the index of rows";
    let (_, length) = encoded.split_last_chunk::<4>().ok_or(Damage::CutOff { what: WHAT })?;
    let length_max = encoded.len() - length.len();
    let length = Fields::new(length, "length of the cells").length(length_max)?;
    let mut index = Fields::new(encoded.get(length..length_max).unwrap_or_default(), WHAT);
    let rows = index.length(length_max / OFFSET_BYTES)?;
    index.take(rows * OFFSET_BYTES)?;
    index.finish()?;
    Ok(encoded.slice(..length))
}
