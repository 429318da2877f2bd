//! Compressed tags: a tag that occurred earlier in the block is stored as its number.
//!
//! ```text
//! tag: 0xff | packed length | type and value      a new one
//!      i16 number                                 one of the dictionary
//! ```
//! The dictionary keeps 127 tags. A new tag gets the next number or, once the dictionary is full,
//! the number of the least recently used tag.

use bytes::BufMut;

use super::super::error::Damage;
use super::super::fields::Fields;

const TAGS_MAX: usize = 127;
/// The first byte of a new tag. No number begins with it.
const NEW: u8 = 0xff;

/// The tags of a block that can be referred to by number.
#[derive(Default)]
pub(super) struct TagDictionary<'v> {
    known: Vec<KnownTag<'v>>,
    /// How many tags have been read; serves as the clock for `last_use`.
    uses: u64,
}

struct KnownTag<'v> {
    tag: &'v [u8],
    last_use: u64,
}

// === impl TagDictionary ===

impl<'v> TagDictionary<'v> {
    /// Appends the tags of a cell to `plain`. They are `length` bytes long when serialized.
    pub(super) fn put_tags(
        &mut self,
        fields: &mut Fields<'v>,
        length: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), Damage> {
        let end = plain.len() + length;
        while plain.len() < end {
            let tag = self.next(fields)?;
            plain.put_u16(tag.len() as u16);
            plain.put_slice(tag);
        }
        let past = (plain.len() - end) as i64;
        Damage::check("excess length of a cell's tags", past, (0, 0))
    }

    fn next(&mut self, fields: &mut Fields<'v>) -> Result<&'v [u8], Damage> {
        self.uses += 1;
        let first = fields.u8()?;
        if first == NEW {
            let length = fields.packed_length()?;
            Damage::check("length of a tag", length as i64, (0, u16::MAX.into()))?;
            let tag = fields.take(length)?;
            self.add(tag);
            return Ok(tag);
        }
        let number = u16::from_be_bytes([first, fields.u8()?]);
        let count = self.known.len() as i64;
        let Some(known) = self.known.get_mut(usize::from(number)) else {
            let (found, max) = (number.into(), count - 1);
            return Err(Damage::OutOfBounds { what: "number of a tag", found, min: 0, max });
        };
        known.last_use = self.uses;
        Ok(known.tag)
    }

    fn add(&mut self, tag: &'v [u8]) {
        // HBase keeps no empty tags.
        if tag.is_empty() {
            return;
        }
        let new = KnownTag { tag, last_use: self.uses };
        if self.known.len() < TAGS_MAX {
            self.known.push(new);
        } else if let Some(oldest) = self.known.iter_mut().min_by_key(|known| known.last_use) {
            *oldest = new;
        }
    }
}
