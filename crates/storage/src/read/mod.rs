//! Reading a family: merges the cells of its memstores and store files, and selects those that a
//! read sees.
//!
//! [`merge`] brings all cells of a family into one order. [`visibility`] decides, cell by cell and
//! without I/O, which of them a read or a compaction includes, by deletes, versions, time to live,
//! time range and columns.

pub mod merge;
pub mod visibility;

pub use merge::MergeCursor;
pub use visibility::{Columns, Decision, ReadRules, TimeRange, Visibility};
