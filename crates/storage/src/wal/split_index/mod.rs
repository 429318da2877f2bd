//! Splitting a dead server's log without rewriting it: an index beside each file says where the
//! edits of each region are.
//!
//! [`write_split_index`] reads a sealed file once and checks every byte. The opener of a region
//! then reads only its own part: [`SplitIndex`], [`PartReader`]. Invariant: an index depends only
//! on the file and its sealed length, so the same bytes result no matter which process writes it,
//! and how often.
//!
//! If a record that had been durable is damaged, and it is certain which region it belongs to, only
//! that region is affected. This is certain if everything around the record is intact and the
//! region that it names has other records in the file: a name of 16 bytes does not turn into
//! another region's by accident. Any other damage cannot be attributed to a region, and no index is
//! written.

mod directory;
mod index;
mod ranges;
mod reader;
mod shared_reads;

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use basalt_model::{EncodedRegionName, RegionEpoch, SequenceId};

pub use index::write_split_index;
pub use reader::{Part, PartReader, SplitIndex};
pub use shared_reads::SharedReads;

/// The contents of a log file, by region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SplitIndexSummary {
    /// The sealed length of the file.
    pub sealed_length: u64,
    /// All edits are before this offset; the bytes from there to the sealed length are a torn tail.
    pub end: u64,
    /// The regions, sorted by name.
    pub parts: Vec<PartSummary>,
}

/// The contents of a log file that belong to one region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartSummary {
    /// The region.
    pub region: EncodedRegionName,
    /// The region epochs under which its edits were written, from the lowest to the highest.
    pub epochs: RangeInclusive<RegionEpoch>,
    /// The sequence ids of its edits, from the lowest to the highest.
    pub sequence_ids: RangeInclusive<SequenceId>,
    /// The number of its edits.
    pub edits: u64,
    /// Their length in the file in bytes.
    pub bytes: u64,
    /// The damage to edits of this region, if any. The edits above are then not all that were
    /// written.
    pub damage: Option<PartDamage>,
}

/// Edits of a region that had been durable and cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PartDamage {
    /// The offset of the first damaged edit.
    pub offset: u64,
    /// The first edit after the last damaged one, which bounds their sequence ids from above;
    /// `None` if there is none.
    pub before: Option<SequenceId>,
}

// === impl PartDamage ===

impl PartDamage {
    /// Whether all damaged edits are in store files, given that all edits up to `flushed` are.
    pub fn is_flushed(&self, flushed: SequenceId) -> bool {
        self.before.is_some_and(|before| before <= flushed.next())
    }
}

/// The path of the index of a log file.
pub fn index_path(log: &Path) -> PathBuf {
    let mut path = OsString::from(log);
    path.push(".parts");
    path.into()
}
