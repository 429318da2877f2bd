//! Converts Raft's own types to and from messages. There are functions instead of `From`, because
//! the types belong to openraft.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EmptyNode;
use openraft::type_config::alias;

use crate::raft::types::{
    Entry, LogId, Membership, Payload, StoredMembership, TypeConfig, Vote, term,
};
use crate::wire::{Malformed, v1};

pub(crate) fn log_id_to_wire(id: LogId) -> v1::LogId {
    v1::LogId { term: term(&id), index: id.index }
}

pub(crate) fn log_id_from_wire(id: v1::LogId) -> LogId {
    LogId { leader_id: alias::CommittedLeaderIdOf::<TypeConfig>::new(id.term), index: id.index }
}

pub(crate) fn vote_to_wire(vote: Vote) -> v1::Ballot {
    v1::Ballot {
        term: vote.leader_id.term,
        voted_for: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_wire(ballot: v1::Ballot) -> Vote {
    Vote {
        leader_id: alias::LeaderIdOf::<TypeConfig> {
            term: ballot.term,
            voted_for: ballot.voted_for,
        },
        committed: ballot.committed,
    }
}

/// The vote of a message that must have one.
pub(crate) fn vote_of(ballot: Option<v1::Ballot>) -> Result<Vote, Malformed> {
    ballot.map(vote_from_wire).ok_or(Malformed::new("no vote where one is needed"))
}

fn membership_to_wire(membership: &Membership) -> v1::Membership {
    let configs = membership.get_joint_config().iter();
    v1::Membership {
        configs: configs
            .map(|voters| v1::VoterSet { members: voters.iter().copied().collect() })
            .collect(),
        members: membership.nodes().map(|(member, _)| *member).collect(),
    }
}

fn membership_from_wire(membership: v1::Membership) -> Result<Membership, Malformed> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|voters| voters.members.into_iter().collect()).collect();
    let known: BTreeSet<u64> = membership.members.iter().copied().collect();
    if !configs.iter().flatten().all(|voter| known.contains(voter)) {
        return Err(Malformed::new("a voter that is not a member"));
    }
    Ok(Membership::new_with_defaults(configs, membership.members))
}

pub(crate) fn stored_membership_to_wire(stored: &StoredMembership) -> v1::StoredMembership {
    v1::StoredMembership {
        log_id: stored.log_id().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_wire(
    stored: Option<v1::StoredMembership>,
) -> Result<StoredMembership, Malformed> {
    let stored = stored.unwrap_or_default();
    let membership = membership_from_wire(stored.membership.unwrap_or_default())?;
    let log_id = stored.log_id.map(log_id_from_wire);
    Ok(StoredMembership::new(log_id, membership))
}

pub(crate) fn entry_to_wire(entry: Entry) -> v1::Entry {
    let payload = match entry.payload {
        Payload::Blank => None,
        Payload::Normal(command) => Some(v1::entry::Payload::Command(command.into())),
        Payload::Membership(membership) => {
            Some(v1::entry::Payload::Membership(membership_to_wire(&membership)))
        }
    };
    v1::Entry { id: Some(log_id_to_wire(entry.log_id)), payload }
}

pub(crate) fn entry_from_wire(entry: v1::Entry) -> Result<Entry, Malformed> {
    let payload = match entry.payload {
        None => Payload::Blank,
        Some(v1::entry::Payload::Command(command)) => Payload::Normal(command.try_into()?),
        Some(v1::entry::Payload::Membership(membership)) => {
            Payload::Membership(membership_from_wire(membership)?)
        }
    };
    let log_id = entry
        .id
        .map(log_id_from_wire)
        .ok_or(Malformed::new("an entry without its place in the log"))?;
    Ok(Entry { log_id, payload })
}

/// Members have no addresses in the log. The addresses are in the configuration.
pub(crate) fn nodes(members: impl Iterator<Item = u64>) -> BTreeMap<u64, EmptyNode> {
    members.map(|member| (member, EmptyNode {})).collect()
}
