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
    /// Which reign of a master an order or a write belongs to. Raised each time that a master
    /// becomes active; an order with an older one is refused everywhere.
    MasterEpoch
}

ascending_number! {
    /// Which ownership of a region a file or a record belongs to. Raised in the same multi that
    /// names the region's next owner.
    RegionEpoch
}
