//! The part of a store file that belongs to a region.

use basalt_model::SequenceId;
use bytes::Bytes;

/// The part of a store file that belongs to a region, and the sequence id of its cells there.
///
/// After a split, both daughters name the files of their parent, and each reads only its own rows.
/// An imported file was written outside the region, so its cells have sequence ids of another
/// region or none.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct FilePart {
    /// The first row. Empty: no row is before the part.
    pub start: Bytes,
    /// The end of the part: this row and later ones do not belong to it. Empty: there is no end.
    pub end: Bytes,
    /// The sequence id that replaces those of the cells.
    pub sequence_id: Option<SequenceId>,
}

// === impl FilePart ===

impl FilePart {
    /// Whether `row` belongs to the part.
    pub fn contains(&self, row: &[u8]) -> bool {
        row >= &self.start[..] && !self.is_past(row)
    }

    /// Whether `row` is at or after the end of the part.
    #[inline]
    pub(super) fn is_past(&self, row: &[u8]) -> bool {
        !self.end.is_empty() && row >= &self.end[..]
    }
}
