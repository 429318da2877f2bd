//! What readers see of a region: a snapshot, and the highest edit that is visible in it.
//!
//! The snapshot is replaced as a whole, under the lock that orders edits. Invariants, which
//! `interleavings/region.rs` checks in every interleaving:
//! - [`View::load_with_read_point`] returns a snapshot and a read point that belong together. All
//!   edits up to the read point are in the snapshot, so a reader that skips later edits sees no
//!   edit partially.
//! - An edit that became visible before a snapshot was loaded is in the snapshot.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use basalt_model::SequenceId;

use super::sync::{ArcSwap, AtomicU64, Loaded, Mutex, MutexGuard, Ordering};
use super::{RegionSnapshot, WriteOrder};

/// A snapshot, the state of the edits, and the read point.
pub(super) struct View {
    snapshot: ArcSwap<RegionSnapshot>,
    order: Mutex<WriteOrder>,
    /// All edits up to here are visible.
    read_point: AtomicU64,
}

/// A guard of the lock that orders edits. It dereferences to the state that the lock protects.
pub(super) struct Ordered<'a> {
    order: MutexGuard<'a, WriteOrder>,
    snapshot: &'a ArcSwap<RegionSnapshot>,
}

// === impl View ===

impl View {
    /// A view of `snapshot` in which edits up to `read_point` are visible.
    pub(super) fn new(snapshot: RegionSnapshot, order: WriteOrder, read_point: SequenceId) -> Self {
        let (snapshot, order) = (ArcSwap::from_pointee(snapshot), Mutex::new(order));
        Self { snapshot, order, read_point: AtomicU64::new(read_point.0) }
    }

    /// The snapshot, which may be replaced at any time.
    pub(super) fn load(&self) -> Loaded<RegionSnapshot> {
        self.snapshot.load()
    }

    /// Like [`View::load`], for keeping.
    pub(super) fn load_full(&self) -> Arc<RegionSnapshot> {
        self.snapshot.load_full()
    }

    /// Waits for the lock.
    pub(super) fn lock(&self) -> Ordered<'_> {
        Ordered { order: self.order.lock(), snapshot: &self.snapshot }
    }

    /// Replaces the snapshot with the result of `change`.
    pub(super) fn swap(&self, change: impl FnOnce(&RegionSnapshot) -> RegionSnapshot) {
        let mut order = self.lock();
        let changed = change(&order.snapshot());
        order.replace(changed);
    }

    /// Makes all edits up to `sequence_id` visible.
    pub(super) fn show(&self, sequence_id: SequenceId) {
        self.read_point.fetch_max(sequence_id.0, Ordering::AcqRel);
    }

    /// The snapshot and the highest edit that is visible in it, taken together.
    pub(super) fn load_with_read_point(&self) -> (Arc<RegionSnapshot>, SequenceId) {
        loop {
            let snapshot = self.snapshot.load_full();
            let read_point = SequenceId(self.read_point.load(Ordering::Acquire));
            // A flush in between could have moved edits at or below the read point out of
            // `snapshot`.
            if Arc::ptr_eq(&snapshot, &self.snapshot.load()) {
                return (snapshot, read_point);
            }
        }
    }
}

// === impl Ordered ===

impl Ordered<'_> {
    /// The snapshot. It is not replaced while the lock is held.
    pub(super) fn snapshot(&self) -> Loaded<RegionSnapshot> {
        self.snapshot.load()
    }

    /// Replaces the snapshot with `next`.
    pub(super) fn replace(&mut self, next: RegionSnapshot) {
        self.snapshot.store(Arc::new(next));
    }
}

impl Deref for Ordered<'_> {
    type Target = WriteOrder;

    fn deref(&self) -> &WriteOrder {
        &self.order
    }
}

impl DerefMut for Ordered<'_> {
    fn deref_mut(&mut self) -> &mut WriteOrder {
        &mut self.order
    }
}
