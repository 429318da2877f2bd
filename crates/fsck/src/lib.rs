//! Compares the storage root with the records in the coordinator. Read-only.
//!
//! ```text
//! list the root → read the records → read the newest manifest of each region → list again
//!               → what is missing or wrong ([`Problem`]) · what nothing names ([`Unreferenced`])
//! ```
//! Files are listed before anything is read that may name them. So a file that is listed and that
//! no manifest names has either been replaced, or never reached a manifest, or belongs to a flush
//! or a compaction that has not finished.
//!
//! The cluster may be running. A region can move, and files can be replaced, between two reads. So
//! a problem is reported only if two passes find it, and an unreferenced file only if it still
//! exists at the end.

mod check;
mod records;
mod run;
mod tree;

pub use check::{Problem, Unreferenced, UnreferencedKind};
pub use records::Records;
pub use run::{Report, Summary, fsck};
pub use tree::Tree;

/// Why the check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator does not answer, or holds a record that cannot be decoded.
    #[error(transparent)]
    Records(#[from] basalt_cluster::Error),
    /// The coordinator does not answer.
    #[error("the coordinator: {0}")]
    Coordinator(#[from] basalt_zk::Error),
    /// The file system rejected an operation.
    #[error(transparent)]
    Files(#[from] basalt_fs::Error),
    /// The storage root has more entries than this check keeps in memory.
    #[error("the storage root has more than {limit} files and directories")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

/// The result of a check.
pub type Result<T> = std::result::Result<T, Error>;
