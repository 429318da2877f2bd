//! openraft's type parameters, made concrete once.

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::type_config::alias;
use openraft::{EmptyNode, EntryPayload};

use crate::raft::runtime::SeamRuntime;
use crate::raft::state_machine::StateMachine;
use crate::tree::Command;

openraft::declare_raft_types!(
    /// The coordinator's Raft: its entries are commands of the tree, members are identified by
    /// number alone (their addresses come from the configuration), and a term has at most one
    /// leader.
    pub(crate) TypeConfig:
        D = Command,
        R = (),
        NodeId = u64,
        Node = EmptyNode,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = SeamRuntime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type Payload = EntryPayload<Command, u64, EmptyNode>;
pub(crate) type Membership = openraft::Membership<u64, EmptyNode>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type StoredSnapshot = alias::SnapshotOf<TypeConfig, Bytes>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// The term in which an entry was proposed.
pub(crate) fn term(id: &LogId) -> u64 {
    *id.leader_id
}
