//! Checks whether the members hold the same state.
//!
//! In its greetings, each member reports the digest of its state as of an entry of the log. Equal
//! logs produce equal states. If they do not, something is broken that nothing else would show, and
//! clients of different members would act on different states. A member whose state differs from
//! others' and does not agree with a majority stops serving. A member that has just started serves
//! only once its state has been compared.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use basalt_planted::{Rule, is_off};
use tokio::time::Instant;

use crate::ensemble::{Heard, majority};
use crate::member::Member;
use crate::tree::DIGEST_VERSION;
use crate::wire::v1;

/// The results of comparing this member's state with the others' states.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    /// Whether each other member's state was equal at the last comparison.
    equal: BTreeMap<u64, bool>,
    differs: bool,
    last_logged: Option<Instant>,
}

/// A difference is logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

// === impl Agreement ===

impl Agreement {
    /// Compares this member's state with the last checkpoints of the `others`. Stops it from
    /// serving or lets it serve.
    pub(crate) fn check(&mut self, member: &Member, others: &BTreeMap<u64, Heard>) {
        let checkpoints = member.checkpoints.lock().clone();
        let has_another_digest = |checkpoint: &v1::Checkpoint| checkpoint.version != DIGEST_VERSION;
        for (other, checkpoint) in &checkpoints {
            let own = member.replica.digest_at(checkpoint.index);
            if let Some(own) = own
                && !has_another_digest(checkpoint)
            {
                self.equal.insert(*other, own == checkpoint.digest);
            }
        }
        let members = others.len() + 1;
        self.differs = !is_off(Rule::StateChecksum) && must_stop(members, &self.equal);
        member.state_differs.store(self.differs, Ordering::Relaxed);
        let is_incomparable = |(other, heard): &(&u64, &Heard)| {
            **heard == Heard::EarlierRelease
                || checkpoints.get(other).is_some_and(has_another_digest)
        };
        let incomparable = others.iter().filter(is_incomparable).count();
        if is_compared(members, self.equal.len() + incomparable) {
            member.state_is_compared.store(true, Ordering::Relaxed);
        }
        if self.equal.values().any(|equal| !equal) {
            self.log_difference(member);
        }
    }

    /// Whether this member must neither serve nor lead.
    pub(crate) fn differs(&self) -> bool {
        self.differs
    }

    fn log_difference(&mut self, member: &Member) {
        if self.last_logged.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        self.last_logged = Some(Instant::now());
        let unequal = self.equal.iter().filter(|(_, equal)| !**equal);
        let unequal: Vec<u64> = unequal.map(|(other, _)| *other).collect();
        if self.differs {
            tracing::error!(
                member = member.id(),
                ?unequal,
                "not serving: this member's state differs from the other members' although their \
                 logs are the same, and it does not agree with a majority. If the others serve, \
                 stop this member, move its data folder away and start it with an empty one. If \
                 none serves, see \"Members differ\" in docs/operations.md"
            );
        } else {
            tracing::error!(
                member = member.id(),
                ?unequal,
                "the state of these members differs from this member's and its majority's, so they \
                 stop serving. Stop them, move their data folders away and start them with empty \
                 ones"
            );
        }
    }
}

/// Whether one of `members` must stop serving. `equal` says whether the state of each other member
/// was equal at the last comparison.
fn must_stop(members: usize, equal: &BTreeMap<u64, bool>) -> bool {
    let agree = 1 + equal.values().filter(|equal| **equal).count();
    let differ = equal.values().any(|equal| !equal);
    differ && agree < majority(members)
}

/// Whether one of `members` has been compared with enough others. `done` is the number of others
/// that have been compared or cannot be compared.
fn is_compared(members: usize, done: usize) -> bool {
    done + 1 >= majority(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minority_that_differs_stops_and_without_a_majority_all_do() {
        let stops = |members, equal: &[bool]| {
            must_stop(members, &(2..).zip(equal.iter().copied()).collect())
        };
        assert!(!stops(1, &[]));
        assert!(!stops(3, &[]) && !stops(3, &[true]) && !stops(3, &[true, true]));
        assert!(!stops(3, &[true, false]), "two agree: the third is wrong");
        assert!(stops(3, &[false, false]) && stops(3, &[false]), "nobody knows who is right");
        assert!(!stops(5, &[true, true, false, false]));
        assert!(stops(5, &[true, false, false]) && stops(5, &[true, false, false, false]));
    }

    #[test]
    fn a_state_is_compared_once_a_majority_has_shown_theirs() {
        assert!(is_compared(1, 0), "it has nobody else");
        assert!(!is_compared(3, 0) && is_compared(3, 1));
        assert!(!is_compared(5, 1) && is_compared(5, 2));
    }
}
