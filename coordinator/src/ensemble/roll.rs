//! What a member remembers about each of the others: the last start that it has seen, and how much
//! was durable there. This identifies an older copy of a folder. Pure functions.

use std::collections::BTreeMap;

use basalt_planted::{Rule, is_off};

use super::{MemberFacts, Start};

/// What is remembered about each other member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roll {
    pub(super) peers: BTreeMap<u64, Remembered>,
}

/// What is remembered about one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) start: Start,
    /// How many entries were both committed and durable in its log. A member keeps these for ever.
    pub(super) entries: u64,
}

/// The answer to a member's greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// The member has less data than it had, and must be readmitted before it votes.
    pub(super) is_outdated: bool,
    /// The incarnation that is remembered.
    pub(super) incarnation: u64,
    /// Whether a new start was recorded, which must be written to disk.
    pub(super) is_new: bool,
}

// === impl Roll ===

impl Roll {
    /// Compares the facts of `peer` with what is remembered. Remembers them if the member counts
    /// and is not outdated. At least `committed` entries are committed. A member must keep every
    /// committed entry that it once had.
    pub(super) fn judge(&mut self, peer: u64, facts: &MemberFacts, committed: u64) -> Judgement {
        let remembered = self.peers.get(&peer).copied().unwrap_or_default();
        let mut judgement = Judgement {
            is_outdated: false,
            incarnation: remembered.start.incarnation,
            is_new: false,
        };
        if !facts.is_counted {
            // The member knows that it does not count. It counts again under a later incarnation.
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

    /// Whether each of the facts in `said` is outdated when they are reported in this order.
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
        // The copy starts under the same incarnation that the folder had.
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
