//! Raft's own words as messages.

use std::collections::BTreeSet;

use openraft::EmptyNode;
use openraft::type_config::alias;

use crate::raft::types::{
    Entry, LogId, Membership, Payload, StoredMembership, TypeConfig, Vote, term,
};
use crate::wire::{Malformed, v1};

// === impl LogId ===

impl From<LogId> for v1::LogId {
    fn from(id: LogId) -> Self {
        Self {
            term: term(&id),
            index: id.index,
        }
    }
}

impl From<v1::LogId> for LogId {
    fn from(id: v1::LogId) -> Self {
        Self {
            leader_id: alias::CommittedLeaderIdOf::<TypeConfig>::new(id.term),
            index: id.index,
        }
    }
}

// === impl Vote ===

impl From<Vote> for v1::Ballot {
    fn from(vote: Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            voted_for: vote.leader_id.voted_for,
            committed: vote.committed,
        }
    }
}

impl From<v1::Ballot> for Vote {
    fn from(ballot: v1::Ballot) -> Self {
        Self {
            leader_id: alias::LeaderIdOf::<TypeConfig> {
                term: ballot.term,
                voted_for: ballot.voted_for,
            },
            committed: ballot.committed,
        }
    }
}

/// An optional id as a message field.
pub(crate) fn log_id_of(id: Option<v1::LogId>) -> Option<LogId> {
    id.map(LogId::from)
}

/// A compulsory vote.
pub(crate) fn vote_of(ballot: Option<v1::Ballot>) -> Result<Vote, Malformed> {
    ballot
        .map(Vote::from)
        .ok_or(Malformed::new("no vote where one is needed"))
}

/// A vote as a message field.
pub(crate) fn ballot_of(vote: &Vote) -> Option<v1::Ballot> {
    Some((*vote).into())
}

// === impl Membership ===

impl From<&Membership> for v1::Membership {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership
                .get_joint_config()
                .iter()
                .map(|voters| v1::VoterSet {
                    members: voters.iter().copied().collect(),
                })
                .collect(),
            members: membership.nodes().map(|(member, _)| *member).collect(),
        }
    }
}

impl TryFrom<v1::Membership> for Membership {
    type Error = Malformed;

    fn try_from(membership: v1::Membership) -> Result<Self, Malformed> {
        let configs: Vec<BTreeSet<u64>> = membership
            .configs
            .into_iter()
            .map(|voters| voters.members.into_iter().collect())
            .collect();
        let known: BTreeSet<u64> = membership.members.iter().copied().collect();
        if !configs.iter().flatten().all(|voter| known.contains(voter)) {
            return Err(Malformed::new("a voter that is no member"));
        }
        Ok(Self::new_with_defaults(configs, membership.members))
    }
}

impl From<&StoredMembership> for v1::StoredMembership {
    fn from(stored: &StoredMembership) -> Self {
        Self {
            log_id: (*stored.log_id()).map(Into::into),
            membership: Some(stored.membership().into()),
        }
    }
}

/// The membership of a snapshot.
pub(crate) fn stored_membership_of(
    stored: Option<v1::StoredMembership>,
) -> Result<StoredMembership, Malformed> {
    let stored = stored.unwrap_or_default();
    let membership = stored.membership.unwrap_or_default().try_into()?;
    Ok(StoredMembership::new(log_id_of(stored.log_id), membership))
}

// === impl Entry ===

impl From<Entry> for v1::Entry {
    fn from(entry: Entry) -> Self {
        let payload = match entry.payload {
            Payload::Blank => None,
            Payload::Normal(command) => Some(v1::entry::Payload::Command(command.into())),
            Payload::Membership(membership) => {
                Some(v1::entry::Payload::Membership((&membership).into()))
            }
        };
        Self {
            id: Some(entry.log_id.into()),
            payload,
        }
    }
}

/// An entry of the log.
pub(crate) fn entry_of(entry: v1::Entry) -> Result<Entry, Malformed> {
    let payload = match entry.payload {
        None => Payload::Blank,
        Some(v1::entry::Payload::Command(command)) => Payload::Normal(command.try_into()?),
        Some(v1::entry::Payload::Membership(membership)) => {
            Payload::Membership(membership.try_into()?)
        }
    };
    let log_id = entry
        .id
        .ok_or(Malformed::new("an entry without its place in the log"))?
        .into();
    Ok(Entry { log_id, payload })
}

/// Members have no addresses in the log: those are in the configuration.
pub(crate) fn nodes(members: impl Iterator<Item = u64>) -> std::collections::BTreeMap<u64, EmptyNode> {
    members.map(|member| (member, EmptyNode {})).collect()
}
