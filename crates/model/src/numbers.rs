//! Numbers that must not be confused with each other, each with its own type.

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
    /// Orders the edits of one region.
    ///
    /// It ascends over the region's whole life, across owners, and is never assigned to a second
    /// edit. It also serves as HBase's MVCC number: a cell is visible to a read once its sequence
    /// id is at most the read point.
    SequenceId
}

ascending_number! {
    /// The term of the active master that issued an order or a write.
    ///
    /// It is raised each time a master becomes active; an order with an older epoch is rejected
    /// everywhere.
    MasterEpoch
}

ascending_number! {
    /// The ownership of a region under which a file or a record was written.
    ///
    /// It is raised in the same multi that names the region's next owner.
    RegionEpoch
}

/// The length of a log file's header, in bytes. The header is synced, together with the file's
/// name, before the log continues in the file.
pub const LOG_HEADER_BYTES: u64 = 512;

/// Whether a log file that was sealed at `length` bytes can hold edits.
///
/// A file that cannot is normal after a crash during a log roll: it ends within its header, or
/// right after it.
pub fn log_holds_edits(length: u64) -> bool {
    length > LOG_HEADER_BYTES
}
