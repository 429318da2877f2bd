//! Splitting a dead server's log without rewriting it: an index beside each file says where the
//! edits of each region lie.
//!
//! [`index_parts`] reads a sealed file once and checks every byte. The opener of a region then
//! reads its own part and nothing else: [`read_part`], [`PartReader`].
//! Invariant: an index depends on nothing but the file and its cut, so that whoever makes it, and
//! however often, the same bytes result.

mod directory;
mod index;
mod ranges;
mod reader;

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use basalt_model::{EncodedRegionName, RegionEpoch, SequenceId};

pub use index::index_parts;
pub use reader::{Part, PartReader, read_part};

/// What a file of a log holds, by region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartsSummary {
    /// Where the file was sealed.
    pub cut: u64,
    /// All edits lie before this offset; what is between it and the cut is a torn tail.
    pub end: u64,
    /// The regions, sorted by name.
    pub parts: Vec<PartSummary>,
}

/// What a file of a log holds of one region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartSummary {
    /// The region.
    pub region: EncodedRegionName,
    /// The ownerships under which its edits were written, from the lowest to the highest.
    pub epochs: RangeInclusive<RegionEpoch>,
    /// Its edits, from the lowest to the highest.
    pub sequence_ids: RangeInclusive<SequenceId>,
    /// The number of its edits.
    pub edits: u64,
    /// Their length in the file in bytes.
    pub bytes: u64,
}

/// Where the index of a file lies.
pub fn index_path(log: &Path) -> PathBuf {
    let mut path = OsString::from(log);
    path.push(".parts");
    path.into()
}
