//! The synchronization primitives of the queue and its latches. The tests in `interleavings/`
//! replace this module with the primitives of `basalt_loom`, to run every interleaving.

pub(super) use std::sync::OnceLock;

pub(super) use parking_lot::Mutex;
pub(super) use tokio::sync::{Notify, Semaphore, SemaphorePermit};
pub(super) use tokio::task::yield_now;
