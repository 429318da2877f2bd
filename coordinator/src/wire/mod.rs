//! The messages that members exchange and that are in the files on disk (`proto/peer.proto`), and
//! their conversion to our types.

pub(crate) mod command;
mod raft;

/// The generated messages and services.
#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications, reason = "generated")]
pub(crate) mod v1 {
    tonic::include_proto!("basalt.coordinator.v1");
}

pub(crate) use raft::{
    entry_from_wire, entry_to_wire, log_id_from_wire, log_id_to_wire, nodes,
    stored_membership_from_wire, stored_membership_to_wire, vote_from_wire, vote_of, vote_to_wire,
};

/// A message that decodes, but has invalid contents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message from another member or from the log has {problem}")]
pub(crate) struct Malformed {
    /// What is wrong with it.
    pub(crate) problem: &'static str,
}

// === impl Malformed ===

impl Malformed {
    pub(crate) fn new(problem: &'static str) -> Self {
        Self { problem }
    }
}
