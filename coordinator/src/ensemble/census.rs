//! Decides what a member does, from what it knows about itself and has heard from the others. Pure
//! functions.

use std::collections::BTreeMap;
use std::fmt;

use basalt_planted::{Rule, is_off};

use super::{EnsembleId, MemberFacts, majority};

/// What is known about another member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It does not answer, or has not sent a greeting lately.
    #[default]
    Nothing,
    /// It runs a release that does not know ensembles.
    EarlierRelease,
    /// The facts in its last greeting.
    Facts(MemberFacts),
}

/// The next step of a member that does not take part yet, or not fully.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing: it takes part.
    Stay,
    /// Forms a new ensemble with all the others, which do the same.
    Form(EnsembleId),
    /// Joins an ensemble as a learner. `floor` is the highest term that its majority knows.
    /// `authority` is the member that counts in place of a majority, if there is one.
    Join { ensemble: EnsembleId, floor: u64, authority: Option<u64> },
    /// Joins, as a learner, members that run an earlier release.
    JoinEarlierRelease,
    /// Waits.
    Wait(Obstacle),
}

/// Why an empty or outdated member does not take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Some members are missing, and none has data.
    Absent { missing: Vec<u64> },
    /// All members are present and about to form the ensemble.
    Forming,
    /// Some members have data, but they are not a majority.
    NoMajority { with_data: Vec<u64>, empty: Vec<u64>, missing: Vec<u64>, members: usize },
}

/// The ensemble that this member would form with the others, if all of them are present and empty.
pub(super) fn candidate(
    member: u64,
    own: &MemberFacts,
    peers: &BTreeMap<u64, Heard>,
) -> Option<EnsembleId> {
    let is_empty = |facts: &MemberFacts| facts.ensemble.is_none() && !facts.has_data;
    if !is_empty(own) {
        return None;
    }
    if is_off(Rule::WholeEnsembleForms) {
        let empty = |heard: &Heard| matches!(heard, Heard::Facts(facts) if is_empty(facts));
        let empties: BTreeMap<u64, Heard> = peers
            .iter()
            .filter(|(_, heard)| empty(heard))
            .map(|(peer, heard)| (*peer, heard.clone()))
            .collect();
        let enough = empties.len() + 1 >= majority(peers.len() + 1);
        return enough.then(|| founded(member, own, &empties)).flatten();
    }
    let all_empty = peers.values().all(|heard| match heard {
        Heard::Facts(facts) => is_empty(facts),
        Heard::Nothing | Heard::EarlierRelease => false,
    });
    all_empty.then(|| founded(member, own, peers)).flatten()
}

/// The ensemble that all members would found, or have founded, with these folders.
fn founded(member: u64, own: &MemberFacts, peers: &BTreeMap<u64, Heard>) -> Option<EnsembleId> {
    let mut nonces = BTreeMap::from([(member, &own.nonce)]);
    for (peer, heard) in peers {
        let Heard::Facts(facts) = heard else {
            return None;
        };
        nonces.insert(*peer, &facts.nonce);
    }
    Some(EnsembleId::founded_by(nonces.into_iter()))
}

/// Decides what `member` does next.
pub(super) fn decide(member: u64, own: &MemberFacts, peers: &BTreeMap<u64, Heard>) -> Decision {
    let takes_part = own.ensemble.is_some() || own.has_data;
    if takes_part && own.is_counted {
        return Decision::Stay;
    }
    if !takes_part && let Some(ensemble) = forms(member, own, peers) {
        return Decision::Form(ensemble);
    }
    if let Some(join) = joins(own, peers) {
        return join;
    }
    Decision::Wait(obstacle(own, peers))
}

/// The ensemble that this member forms now, because all the others would form it or some have.
fn forms(member: u64, own: &MemberFacts, peers: &BTreeMap<u64, Heard>) -> Option<EnsembleId> {
    if let Some(candidate) = candidate(member, own, peers) {
        let agreed = peers.values().all(|heard| match heard {
            Heard::Facts(facts) => {
                let has_formed = facts.ensemble.is_some() || facts.has_data;
                facts.candidate == Some(candidate)
                    || (is_off(Rule::WholeEnsembleForms) && has_formed)
            }
            _ => is_off(Rule::WholeEnsembleForms),
        });
        return agreed.then_some(candidate);
    }
    // This member's own folder is one of those that founded the ensemble, so it has promised
    // nothing yet.
    let founded = founded(member, own, peers)?;
    let is_formed =
        |heard: &Heard| matches!(heard, Heard::Facts(facts) if facts.ensemble == Some(founded));
    peers.values().any(is_formed).then_some(founded)
}

/// The ensemble that this member joins, or in which it takes part again.
fn joins(own: &MemberFacts, peers: &BTreeMap<u64, Heard>) -> Option<Decision> {
    let mut counted: BTreeMap<EnsembleId, Vec<&MemberFacts>> = BTreeMap::new();
    for (peer, heard) in peers {
        let Heard::Facts(facts) = heard else { continue };
        let Some(ensemble) = facts.ensemble else { continue };
        if own.ensemble.is_some_and(|own| own != ensemble) || !facts.is_counted {
            continue;
        }
        if facts.is_authority {
            let authority = Some(*peer);
            return Some(Decision::Join { ensemble, floor: facts.term, authority });
        }
        counted.entry(ensemble).or_default().push(facts);
    }
    let enough = majority(peers.len() + 1);
    for (ensemble, members) in counted {
        if members.len() >= enough {
            let floor = members.iter().map(|facts| facts.term).max().unwrap_or_default();
            return Some(Decision::Join { ensemble, floor, authority: None });
        }
    }
    let earlier = peers.values().filter(|heard| **heard == Heard::EarlierRelease).count();
    (own.ensemble.is_none() && earlier >= enough).then_some(Decision::JoinEarlierRelease)
}

fn obstacle(own: &MemberFacts, peers: &BTreeMap<u64, Heard>) -> Obstacle {
    let (mut with_data, mut empty, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (peer, heard) in peers {
        match heard {
            Heard::Nothing => missing.push(*peer),
            Heard::Facts(facts) if facts.ensemble.is_none() && !facts.has_data => empty.push(*peer),
            Heard::Facts(_) | Heard::EarlierRelease => with_data.push(*peer),
        }
    }
    if with_data.is_empty() && own.ensemble.is_none() && !own.has_data {
        return match missing.is_empty() {
            true => Obstacle::Forming,
            false => Obstacle::Absent { missing },
        };
    }
    Obstacle::NoMajority { with_data, empty, missing, members: peers.len() + 1 }
}

// === impl Obstacle ===

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { missing } => write!(
                formatter,
                "this member's folder is empty, and an ensemble forms only when all of its members \
                 are present: start the members {missing:?}, or check their peer addresses"
            ),
            Self::Forming => formatter.write_str("the members are forming an ensemble"),
            Self::NoMajority { with_data, empty, missing, members } => write!(
                formatter,
                "this member's folder is empty or an old copy, and it can rejoin only through a \
                 majority of {members} members that have their data: {with_data:?} have data, \
                 {empty:?} are empty, {missing:?} do not answer. Start those that do not answer, \
                 or restore lost folders. If a majority is lost for good, see \"The coordinator \
                 has lost its majority\" in docs/operations.md"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ensemble::Start;

    const MEMBERS: u64 = 3;

    fn empty(member: u64) -> MemberFacts {
        MemberFacts {
            ensemble: None,
            has_data: false,
            nonce: [u8::try_from(member).unwrap(); 16],
            candidate: None,
            is_counted: true,
            is_authority: false,
            start: Start { incarnation: 1, life: 1 },
            began_with: 0,
            entries: 0,
            term: 0,
        }
    }

    fn id(number: u8) -> EnsembleId {
        EnsembleId([number; 16])
    }

    fn with_data(member: u64, ensemble: EnsembleId) -> MemberFacts {
        MemberFacts {
            ensemble: Some(ensemble),
            has_data: true,
            term: 4,
            entries: 9,
            ..empty(member)
        }
    }

    fn peers(heard: impl IntoIterator<Item = (u64, Heard)>) -> BTreeMap<u64, Heard> {
        heard.into_iter().collect()
    }

    fn of(facts: MemberFacts) -> Heard {
        Heard::Facts(facts)
    }

    #[test]
    fn an_ensemble_forms_when_all_are_there_and_agree() {
        let others = peers((2..=MEMBERS).map(|member| (member, of(empty(member)))));
        let candidate = candidate(1, &empty(1), &others).unwrap();
        assert_eq!(decide(1, &empty(1), &others), Decision::Wait(Obstacle::Forming));
        let agreed = |member| MemberFacts { candidate: Some(candidate), ..empty(member) };
        let one = peers([(2, of(agreed(2))), (3, of(empty(3)))]);
        assert_eq!(decide(1, &empty(1), &one), Decision::Wait(Obstacle::Forming));
        let all = peers([(2, of(agreed(2))), (3, of(agreed(3)))]);
        assert_eq!(decide(1, &empty(1), &all), Decision::Form(candidate));
        // One member has already formed it, and the others follow.
        let formed = peers([(2, of(with_data(2, candidate))), (3, of(empty(3)))]);
        assert_eq!(decide(1, &empty(1), &formed), Decision::Form(candidate));
    }

    #[test]
    fn a_majority_of_empty_members_forms_nothing() {
        for third in [Heard::Nothing, of(with_data(3, id(7))), Heard::EarlierRelease] {
            let others = peers([(2, of(empty(2))), (3, third)]);
            assert_eq!(candidate(1, &empty(1), &others), None);
            assert!(matches!(decide(1, &empty(1), &others), Decision::Wait(_)), "{others:?}");
        }
        let others = peers([(2, of(empty(2))), (3, of(with_data(3, id(7))))]);
        let Decision::Wait(obstacle) = decide(1, &empty(1), &others) else { panic!() };
        assert!(obstacle.to_string().contains("[3] have data, [2] are empty"), "{obstacle}");
    }

    #[test]
    fn an_empty_member_joins_through_a_majority_with_data() {
        let late = MemberFacts { term: 6, ..with_data(3, id(7)) };
        let others = peers([(2, of(with_data(2, id(7)))), (3, of(late.clone()))]);
        let join = Decision::Join { ensemble: id(7), floor: 6, authority: None };
        assert_eq!(decide(1, &empty(1), &others), join);
        // Two members that disagree are not enough, and neither is one that is still catching up.
        let differ = peers([(2, of(with_data(2, id(8)))), (3, of(late.clone()))]);
        assert!(matches!(decide(1, &empty(1), &differ), Decision::Wait(_)));
        let learner = MemberFacts { is_counted: false, ..with_data(2, id(7)) };
        let others = peers([(2, of(learner)), (3, of(late))]);
        assert!(matches!(decide(1, &empty(1), &others), Decision::Wait(_)));
    }

    #[test]
    fn an_outdated_member_is_readmitted_to_its_own_ensemble_alone() {
        let outdated = MemberFacts { is_counted: false, ..with_data(1, id(7)) };
        let own = peers([(2, of(with_data(2, id(7)))), (3, of(with_data(3, id(7))))]);
        let join = Decision::Join { ensemble: id(7), floor: 4, authority: None };
        assert_eq!(decide(1, &outdated, &own), join);
        let foreign = peers([(2, of(with_data(2, id(8)))), (3, of(with_data(3, id(8))))]);
        assert!(matches!(decide(1, &outdated, &foreign), Decision::Wait(_)));
    }

    #[test]
    fn the_word_of_an_authority_is_enough() {
        let authority = MemberFacts { is_authority: true, ..with_data(3, id(9)) };
        let others = peers([(2, of(empty(2))), (3, of(authority))]);
        let join = Decision::Join { ensemble: id(9), floor: 4, authority: Some(3) };
        assert_eq!(decide(1, &empty(1), &others), join);
    }

    #[test]
    fn a_folder_that_was_lost_is_not_the_one_that_founded_the_ensemble() {
        let others = peers((2..=MEMBERS).map(|member| (member, of(empty(member)))));
        let founded = candidate(1, &empty(1), &others).unwrap();
        let lost = MemberFacts { nonce: [99; 16], ..empty(1) };
        let formed = peers((2..=MEMBERS).map(|member| (member, of(with_data(member, founded)))));
        let join = Decision::Join { ensemble: founded, floor: 4, authority: None };
        assert_eq!(decide(1, &lost, &formed), join);
    }
}
