//! What the queue and its latches are made of. Their tests in every interleaving
//! (`interleavings/`) have those of `basalt_loom` in its place.

pub(super) use std::sync::OnceLock;

pub(super) use parking_lot::Mutex;
pub(super) use tokio::sync::{Notify, Semaphore, SemaphorePermit};
pub(super) use tokio::task::yield_now;
