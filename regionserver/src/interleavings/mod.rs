//! Tests a region's view and the end of the lease in every interleaving of the threads that share
//! them.
//!
//! The files under test are those of the region server, with the primitives of `basalt_loom`
//! instead of the real ones.

#![allow(dead_code, reason = "the files are here for a part of what they hold")]

mod sync {
    pub(crate) use basalt_loom::{ArcSwap, AtomicU64, Mutex, MutexGuard, Notify, Ordering};

    pub(crate) type Loaded<S> = std::sync::Arc<S>;
}

#[allow(clippy::duplicate_mod, reason = "with other primitives")]
#[path = "../lease/end.rs"]
mod end;
mod lease;
mod region;
#[allow(clippy::duplicate_mod, reason = "with other primitives")]
#[path = "../region/view.rs"]
mod view;

use region::{RegionSnapshot, WriteOrder};
