//! Reading a family: cells of its memstores and store files, merged, and what of them a read sees.
//!
//! [`merge`] brings all cells of a family into one order; [`visibility`] decides, cell by cell and
//! without I/O, which of them a read (or a compaction) takes: deletes, versions, time to live, time
//! range and columns.

pub mod merge;
pub mod visibility;

pub use merge::MergeCursor;
pub use visibility::{Columns, Decision, ReadRules, TimeRange, Visibility};
