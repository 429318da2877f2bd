//! Numbers that must not be mistaken for one another.

use std::fmt;

macro_rules! ascending_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub u64);

        impl $name {
            /// The number that follows this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

ascending_number! {
    /// Orders the edits of one region. Ascends over the region's whole life, whoever serves it, and
    /// is never given to a second edit. HBase's MVCC number as well: a cell is visible to a read
    /// once its sequence id is at most the read point.
    SequenceId
}

ascending_number! {
    /// The term of an active master that an order or a write belongs to. It is raised each time a
    /// master becomes active; an order with an older epoch is rejected everywhere.
    MasterEpoch
}

ascending_number! {
    /// Which ownership of a region a file or a record belongs to. Raised in the same multi that
    /// names the region's next owner.
    RegionEpoch
}

/// How long the header of a log file is, in bytes. It is synced, with the file's name, before the
/// log goes on in the file.
pub const LOG_HEADER_BYTES: u64 = 512;

/// Whether a log file that was sealed at `length` bytes can hold edits. One that cannot is normal
/// after a crash while the log was rolled: it ends within its header, or with it.
pub fn log_holds_edits(length: u64) -> bool {
    length > LOG_HEADER_BYTES
}
