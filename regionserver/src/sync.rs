//! What the view of a region and the end of the lease are made of. Their tests in every
//! interleaving (`interleavings/`) have those of `basalt_loom` in its place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use arc_swap::ArcSwap;
pub(crate) use parking_lot::{Mutex, MutexGuard};
pub(crate) use tokio::sync::Notify;

/// What [`ArcSwap::load`] gives.
pub(crate) type Loaded<S> = arc_swap::Guard<std::sync::Arc<S>>;
