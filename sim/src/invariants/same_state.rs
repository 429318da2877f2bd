//! Members of the coordinator that have applied the same entries have the same state. A member
//! whose log was falsified while it was down serves no clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Violation;
use crate::witness::WitnessEvent;

/// Checks the invariant; see the module.
#[derive(Debug, Default)]
pub(crate) struct SameState {
    /// By the index of the last entry applied: the digest of the state, and the first member that
    /// had it.
    digests: BTreeMap<u64, (u64, Arc<str>)>,
    /// The members whose logs were falsified.
    falsified: BTreeSet<String>,
    /// The falsified members whose state differs from that of the others.
    different: BTreeSet<Arc<str>>,
}

// === impl SameState ===

impl SameState {
    /// Records that the log of `process` is falsified from now on.
    pub(crate) fn falsify(&mut self, process: &str) {
        self.falsified.insert(process.to_owned());
    }

    pub(crate) fn check(&mut self, event: &WitnessEvent) -> Option<Violation> {
        match event.what.as_str() {
            "applied" => self.applied(event),
            "serves clients" => self.serves(event),
            _ => None,
        }
    }

    fn applied(&mut self, event: &WitnessEvent) -> Option<Violation> {
        let WitnessEvent { process, index, digest, .. } = event;
        if self.falsified.contains(&**process) {
            match self.digests.get(index) {
                Some((right, _)) if right != digest => {
                    self.different.insert(Arc::clone(process));
                }
                Some(_) => {
                    self.different.remove(process);
                }
                None => {}
            }
            return None;
        }
        let (right, first) = self.digests.entry(*index).or_insert((*digest, Arc::clone(process)));
        let seen = || format!("{process} differs from {first} as of entry {index}");
        (right != digest)
            .then(|| Violation::new("members that applied the same are the same", seen()))
    }

    fn serves(&self, event: &WitnessEvent) -> Option<Violation> {
        let seen = || format!("{} serves at {:?}", event.process, event.at);
        self.different
            .contains(&event.process)
            .then(|| Violation::new("a member that differs serves nobody", seen()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(process: &str, what: &str, index: u64, digest: u64) -> WitnessEvent {
        WitnessEvent {
            process: process.into(),
            what: what.to_owned(),
            index,
            digest,
            ..WitnessEvent::default()
        }
    }

    #[test]
    fn states_as_of_one_entry_are_equal() {
        let mut invariant = SameState::default();
        assert_eq!(invariant.check(&event("a", "applied", 7, 70)), None);
        assert_eq!(invariant.check(&event("b", "applied", 7, 70)), None);
        assert_eq!(invariant.check(&event("b", "applied", 8, 80)), None);
        assert!(invariant.check(&event("a", "applied", 8, 81)).is_some());
    }

    #[test]
    fn a_falsified_state_is_not_served() {
        let mut invariant = SameState::default();
        invariant.falsify("b");
        for (process, digest) in [("a", 70), ("b", 71)] {
            assert_eq!(invariant.check(&event(process, "applied", 7, digest)), None);
        }
        assert_eq!(invariant.check(&event("a", "serves clients", 0, 0)), None);
        assert!(invariant.check(&event("b", "serves clients", 0, 0)).is_some());
        // It receives the whole state again.
        assert_eq!(invariant.check(&event("b", "applied", 7, 70)), None);
        assert_eq!(invariant.check(&event("b", "serves clients", 0, 0)), None);
    }
}
