//! What readers see of a region: a state, and the highest edit that is visible in it.
//!
//! The state is swapped whole, under the lock that orders edits. Invariants, which
//! `interleavings/region.rs` checks in every interleaving:
//! - [`View::snapshot`] gives a state and a read point that belong together: all edits up to the
//!   read point are in the state, so that a reader who passes over those above it sees none by
//!   halves;
//! - an edit that was shown before a snapshot began is in it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use basalt_model::SequenceId;

use super::sync::{ArcSwap, AtomicU64, Loaded, Mutex, MutexGuard, Ordering};
use super::{RegionState, WriteOrder};

/// A state, and what is decided about edits under the lock.
pub(super) struct View {
    state: ArcSwap<RegionState>,
    order: Mutex<WriteOrder>,
    /// All edits up to here are visible.
    read_point: AtomicU64,
}

/// The lock that orders edits, held. It lies around what is decided under it.
pub(super) struct Ordered<'a> {
    order: MutexGuard<'a, WriteOrder>,
    state: &'a ArcSwap<RegionState>,
}

// === impl View ===

impl View {
    /// Shows the edits of `state` up to `read_point`.
    pub(super) fn new(state: RegionState, order: WriteOrder, read_point: SequenceId) -> Self {
        let (state, order) = (ArcSwap::from_pointee(state), Mutex::new(order));
        Self { state, order, read_point: AtomicU64::new(read_point.0) }
    }

    /// The state, which may be replaced at any time.
    pub(super) fn load(&self) -> Loaded<RegionState> {
        self.state.load()
    }

    /// As [`View::load`], to be kept.
    pub(super) fn load_full(&self) -> Arc<RegionState> {
        self.state.load_full()
    }

    /// Waits for the lock.
    pub(super) fn lock(&self) -> Ordered<'_> {
        Ordered { order: self.order.lock(), state: &self.state }
    }

    /// Replaces the state by what `change` makes of it.
    pub(super) fn swap(&self, change: impl FnOnce(&RegionState) -> RegionState) {
        let mut order = self.lock();
        let changed = change(&order.state());
        order.replace(changed);
    }

    /// Makes all edits up to `sequence_id` visible.
    pub(super) fn show(&self, sequence_id: SequenceId) {
        self.read_point.fetch_max(sequence_id.0, Ordering::AcqRel);
    }

    /// The state and the highest edit that is visible in it, as one.
    pub(super) fn snapshot(&self) -> (Arc<RegionState>, SequenceId) {
        loop {
            let state = self.state.load_full();
            let read_point = SequenceId(self.read_point.load(Ordering::Acquire));
            // A flush in between could have moved edits at or below the read point out of `state`.
            if Arc::ptr_eq(&state, &self.state.load()) {
                return (state, read_point);
            }
        }
    }
}

// === impl Ordered ===

impl Ordered<'_> {
    /// The state. Nobody replaces it while the lock is held.
    pub(super) fn state(&self) -> Loaded<RegionState> {
        self.state.load()
    }

    /// Puts `next` in the place of the state.
    pub(super) fn replace(&mut self, next: RegionState) {
        self.state.store(Arc::new(next));
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
