//! Transitions of regions (open, close, check): at most one per region at a time.
//!
//! Suppose that a close did not wait for an opening in progress. It would answer that there is
//! nothing to close, and the opening would then serve the region. And two concurrent closes would
//! each undo what the other did. Therefore a task that opens, closes or checks a region holds the
//! region's [`Transition`] until it is done.
//!
//! A server also remembers which ownerships it holds *without edits*: an opening that may be on
//! record as OPEN but was never served, or a region that was flushed and closed. The server's log
//! holds no edit of such an ownership, so the region may be opened again under a higher epoch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_model::{EncodedRegionName, RegionEpoch};
use basalt_planted::{Rule, is_off};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many ownerships without edits are remembered. For one that has been forgotten, the log is
/// assumed to hold edits.
const WITHOUT_EDITS_MAX: usize = 4_096;

/// What a transition does to a region.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// It is opened.
    Open,
    /// It is closed.
    Close,
    /// It is compared with its record.
    Check,
}

/// The transitions of a server.
#[derive(Debug, Default)]
pub(crate) struct Transitions {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: BTreeMap<EncodedRegionName, Purpose>,
    without_edits: BTreeMap<EncodedRegionName, WithoutEdits>,
}

/// An ownership without edits in the log, of a region that is not served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct WithoutEdits {
    epoch: RegionEpoch,
    /// The master has been notified and assigns the region under another epoch: this ownership must
    /// never be served.
    is_given_up: bool,
}

/// The right to open, close or check a region; one task holds it at a time.
#[derive(Debug)]
pub(crate) struct Transition {
    transitions: Arc<Transitions>,
    name: EncodedRegionName,
}

// === impl Transitions ===

impl Transitions {
    /// Begins a transition of a region once the one in progress has ended. `None` if that takes
    /// longer than `patience`.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        name: EncodedRegionName,
        purpose: Purpose,
        patience: Duration,
    ) -> Option<Transition> {
        let begun = async {
            loop {
                let mut ended = std::pin::pin!(self.ended.notified());
                // From here on, no end of a transition is missed.
                ended.as_mut().enable();
                if let Some(transition) = self.try_begin(name, purpose) {
                    return transition;
                }
                ended.await;
            }
        };
        tokio::time::timeout(patience, begun).await.ok()
    }

    /// Begins a transition of a region unless one is in progress.
    pub(crate) fn try_begin(
        self: &Arc<Self>,
        name: EncodedRegionName,
        purpose: Purpose,
    ) -> Option<Transition> {
        let mut state = self.state.lock();
        if state.under_way.get(&name).is_some_and(|other| purpose.waits_for(*other)) {
            return None;
        }
        state.under_way.insert(name, purpose);
        Some(Transition { transitions: Arc::clone(self), name })
    }

    /// Whether regions are being opened.
    pub(crate) fn are_opening(&self) -> bool {
        self.state.lock().under_way.values().any(|purpose| *purpose == Purpose::Open)
    }

    /// Whether the log holds no edit of this ownership and the region is not served.
    pub(crate) fn is_without_edits(&self, name: EncodedRegionName, epoch: RegionEpoch) -> bool {
        let state = self.state.lock();
        state.without_edits.get(&name).is_some_and(|known| known.epoch == epoch)
    }

    /// Whether this ownership or a later one was given up.
    pub(crate) fn is_given_up(&self, name: EncodedRegionName, epoch: RegionEpoch) -> bool {
        let state = self.state.lock();
        let known = state.without_edits.get(&name);
        known.is_some_and(|known| known.is_given_up && known.epoch >= epoch)
    }
}

// === impl Purpose ===

impl Purpose {
    fn waits_for(self, under_way: Self) -> bool {
        match (self, under_way) {
            (Self::Close, Self::Open) => !is_off(Rule::CloseWaitsForOpening),
            (Self::Close, Self::Close) => !is_off(Rule::OneCloseAtATime),
            _ => true,
        }
    }
}

// === impl Transition ===

impl Transition {
    /// Remembers that the log holds no edit of this ownership.
    pub(crate) fn holds_no_edits(&self, epoch: RegionEpoch) {
        self.remember(WithoutEdits { epoch, is_given_up: false });
    }

    /// Gives up an ownership of which the log holds no edit.
    pub(crate) fn give_up(&self, epoch: RegionEpoch) {
        self.remember(WithoutEdits { epoch, is_given_up: true });
    }

    fn remember(&self, ownership: WithoutEdits) {
        let mut state = self.transitions.state.lock();
        state.without_edits.insert(self.name, ownership);
        if state.without_edits.len() > WITHOUT_EDITS_MAX {
            let other = state.without_edits.keys().find(|name| **name != self.name).copied();
            if let Some(other) = other {
                state.without_edits.remove(&other);
            }
        }
    }

    /// From now on, the log may hold edits of the region.
    pub(crate) fn takes_edits(&self) {
        self.transitions.state.lock().without_edits.remove(&self.name);
    }
}

impl Drop for Transition {
    fn drop(&mut self) {
        self.transitions.state.lock().under_way.remove(&self.name);
        self.transitions.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn region(number: u16) -> EncodedRegionName {
        let mut digest = [0; 16];
        digest[..2].copy_from_slice(&number.to_be_bytes());
        EncodedRegionName::from_digest(digest)
    }

    #[tokio::test(start_paused = true)]
    async fn one_transition_of_a_region_at_a_time() {
        let transitions = Arc::new(Transitions::default());
        let opening = transitions.try_begin(region(1), Purpose::Open).unwrap();
        assert!(transitions.are_opening());
        assert!(transitions.begin(region(1), Purpose::Close, PATIENCE).await.is_none());
        assert!(transitions.try_begin(region(2), Purpose::Close).is_some(), "of another region");
        let waiting = tokio::spawn({
            let transitions = Arc::clone(&transitions);
            async move { transitions.begin(region(1), Purpose::Close, PATIENCE).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(opening);
        assert!(waiting.await.unwrap());
        assert!(!transitions.are_opening());
    }

    #[test]
    fn ownerships_without_edits_are_bounded_and_forgotten_when_edits_come() {
        let transitions = Arc::new(Transitions::default());
        let count = u16::try_from(WITHOUT_EDITS_MAX).unwrap() + 1;
        for number in 0..count {
            let transition = transitions.try_begin(region(number), Purpose::Open).unwrap();
            transition.holds_no_edits(RegionEpoch(7));
        }
        assert_eq!(transitions.state.lock().without_edits.len(), WITHOUT_EDITS_MAX);
        let last = region(count - 1);
        assert!(transitions.is_without_edits(last, RegionEpoch(7)));
        assert!(!transitions.is_without_edits(last, RegionEpoch(8)), "another ownership");
        transitions.try_begin(last, Purpose::Check).unwrap().give_up(RegionEpoch(7));
        assert!(transitions.is_without_edits(last, RegionEpoch(7)));
        assert!(transitions.is_given_up(last, RegionEpoch(6)));
        assert!(!transitions.is_given_up(last, RegionEpoch(8)));
        transitions.try_begin(last, Purpose::Open).unwrap().takes_edits();
        assert!(!transitions.is_without_edits(last, RegionEpoch(7)));
    }
}
