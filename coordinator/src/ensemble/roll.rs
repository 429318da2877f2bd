//! What a member remembers of the others: which start of each it has seen last, and how much was
//! durable there. By that an older copy of a folder is recognised. Pure.

use std::collections::BTreeMap;

use basalt_planted::{Rule, is_off};

use super::{MemberFacts, Start};

/// What is remembered of each other member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roll {
    pub(super) peers: BTreeMap<u64, Remembered>,
}

/// What is remembered of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) start: Start,
    /// How many entries were committed, and durable in its log: those a member keeps for ever.
    pub(super) entries: u64,
}

/// What a member that has greeted is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// It has less than it had: it has to be readmitted before it votes.
    pub(super) is_outdated: bool,
    /// The incarnation that was remembered.
    pub(super) incarnation: u64,
    /// Whether a start was noted that must be written down.
    pub(super) is_new: bool,
}

// === impl Roll ===

impl Roll {
    /// Compares what `peer` says with what is remembered, and remembers it. At least `committed`
    /// entries are committed: of those, a member keeps for ever what it once had.
    pub(super) fn judge(&mut self, peer: u64, facts: &MemberFacts, committed: u64) -> Judgement {
        let remembered = self.peers.get(&peer).copied().unwrap_or_default();
        let mut judgement = Judgement {
            is_outdated: false,
            incarnation: remembered.start.incarnation,
            is_new: false,
        };
        if !facts.is_counted {
            // It knows, and counts again under a later incarnation.
            return judgement;
        }
        let entries = remembered.entries.max(facts.entries.min(committed));
        if facts.start == remembered.start {
            self.peers.insert(peer, Remembered { start: facts.start, entries });
            return judgement;
        }
        let is_later = facts.start.incarnation > remembered.start.incarnation;
        let has_all = facts.began_with >= remembered.entries;
        if (is_later && has_all) || is_off(Rule::Readmission) {
            self.peers.insert(peer, Remembered { start: facts.start, entries });
            judgement.is_new = true;
        } else {
            judgement.is_outdated = true;
        }
        judgement
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(incarnation: u64, began_with: u64, entries: u64) -> MemberFacts {
        MemberFacts {
            ensemble: None,
            has_data: true,
            nonce: [0; 16],
            candidate: None,
            is_counted: true,
            is_authority: false,
            start: Start { incarnation, life: incarnation * 100 },
            began_with,
            entries,
            term: 1,
        }
    }

    /// Whether each of `said` is outdated when it is said after all before it.
    fn outdated(committed: u64, said: &[MemberFacts]) -> Vec<bool> {
        let mut roll = Roll::default();
        said.iter().map(|facts| roll.judge(2, facts, committed).is_outdated).collect()
    }

    #[test]
    fn a_restart_with_all_that_was_committed_is_fine() {
        // The last entries were not committed, and may have been replaced.
        let said = [facts(1, 0, 50), facts(1, 0, 120), facts(2, 100, 100), facts(3, 110, 130)];
        assert_eq!(outdated(100, &said), [false; 4]);
    }

    #[test]
    fn an_older_copy_is_recognised_by_its_log_and_by_its_incarnation() {
        let said = [facts(3, 90, 120), facts(4, 80, 80), facts(4, 80, 95)];
        assert_eq!(outdated(100, &said), [false, true, true]);
        let said = [facts(5, 90, 90), facts(4, 90, 90)];
        assert_eq!(outdated(90, &said), [false, true]);
        // The copy starts under the very incarnation that the folder had.
        let copy = MemberFacts { start: Start { incarnation: 3, life: 999 }, ..facts(3, 120, 120) };
        assert_eq!(outdated(100, &[facts(3, 90, 120), copy]), [false, true]);
    }

    #[test]
    fn an_outdated_member_counts_again_when_it_was_readmitted() {
        let readmitted = |incarnation, counted| MemberFacts {
            is_counted: counted,
            ..facts(incarnation, 130, 130)
        };
        let said = [facts(3, 90, 120), facts(4, 80, 80), readmitted(4, false), readmitted(5, true)];
        assert_eq!(outdated(125, &said), [false, true, false, false]);
    }
}
