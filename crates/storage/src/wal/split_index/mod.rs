//! Splitting a dead server's log without rewriting it: an index beside each file says where the
//! edits of each region lie.
//!
//! [`write_split_index`] reads a sealed file once and checks every byte. The opener of a region
//! then reads its own part and nothing else: [`SplitIndex`], [`PartReader`]. Invariant: an index
//! depends on nothing but the file and its sealed length, so that whoever makes it, and however often, the
//! same bytes result.
//!
//! A damaged record that had been durable costs its own region alone, if it can be told whose it
//! is: everything around it is whole, and the region that it names has other records in the file. A
//! name of 16 bytes does not become another region's by accident. Any other damage is nobody's, and
//! there is no index.

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

/// What a file of a log holds, by region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SplitIndexSummary {
    /// Where the file was sealed.
    pub sealed_length: u64,
    /// All edits lie before this offset; what is between it and the sealed length is a torn tail.
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
    /// The damage to edits of this region, if there is any: then these are not all of them.
    pub damage: Option<PartDamage>,
}

/// Edits of a region that had been durable and cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PartDamage {
    /// Where the first of them lies.
    pub offset: u64,
    /// The first edit behind the last of them, before which they were; `None` if there is none.
    pub before: Option<SequenceId>,
}

// === impl PartDamage ===

impl PartDamage {
    /// Whether everything that was damaged is in the store files, as all edits up to `flushed` are.
    pub fn is_flushed(&self, flushed: SequenceId) -> bool {
        self.before.is_some_and(|before| before <= flushed.next())
    }
}

/// Where the index of a file lies.
pub fn index_path(log: &Path) -> PathBuf {
    let mut path = OsString::from(log);
    path.push(".parts");
    path.into()
}
