//! The synchronization primitives of a region's view and of the end of the lease. The tests of
//! their interleavings (`interleavings/`) use those of `basalt_loom` instead.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use arc_swap::ArcSwap;
pub(crate) use parking_lot::{Mutex, MutexGuard};
pub(crate) use tokio::sync::Notify;

/// The return type of [`ArcSwap::load`].
pub(crate) type Loaded<S> = arc_swap::Guard<std::sync::Arc<S>>;
