//! Where a file ends: the decisions, without the asking.
//!
//! Invariant: a cut is at least the length of everything that was ever acknowledged, and every
//! replica that is kept has that many bytes.

use crate::data_node::Replica;
use crate::pb;

/// What is done to take a file away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Nothing: nobody writes it.
    Closed,
    /// Each DataNode is told of a new writer, which never writes. By client protocols alone, so
    /// it works with Kerberos too; the file is closed later.
    TakeOver,
    /// First taking over, then the block's recovery, which closes the file. The one to choose. (The
    /// recovery alone may fail for good: under a writer, and in 1 of 20 runs after its death.)
    TakeOverAndClose,
    /// The NameNode's own recovery: seconds, and minutes after the loss of a machine.
    LeaseRecovery,
}

/// A replica that takes part in the recovery of a block.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) node: pb::DatanodeInfo,
    pub(super) replica: Replica,
}

/// What to do with the replicas of a block.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// These are cut to this length, in bytes, and kept.
    Keep { members: Vec<Member>, length: u64 },
    /// Nothing in it was ever acknowledged: the block goes.
    Delete,
    /// Not enough is known, or too few replicas would be left.
    Wait { reason: &'static str },
}

/// What was asked about a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The length that the NameNode has on record, in bytes: 0 until the writer has recorded one,
    /// which it does before anything in the block is acknowledged.
    pub(super) recorded: u64,
    /// How many DataNodes the NameNode lists.
    pub(super) listed: usize,
    /// How many gave an answer, be it that they have no replica.
    pub(super) answered: usize,
}

/// Decides as the recovery of HDFS does, but for two rules of ours: a file is closed on two
/// replicas or more (or on all, if fewer are listed), for the loss of the only one would lose what
/// was acknowledged; and replicas of restarted DataNodes, which may be shorter than what they
/// acknowledged, decide only when nobody is left to ask.
///
/// A block with a recorded length is never deleted here. That its DataNodes have no replica, or that
/// there are none, proves nothing: one that has just started answers before it has found its
/// replicas, and a NameNode that has restarted lists no DataNode until one has reported. What
/// becomes of such a block is left to the NameNode's own recovery, which a DataNode makes only once it
/// has reported its own replica.
///
/// `cut` is what taking over found: the block is not made longer than that.
pub(super) fn decide(found: Vec<Member>, asked: Asked, cut: Option<u64>) -> Decision {
    let best = found.iter().filter_map(|member| rank(member.replica.state)).min();
    let Some(best) = best else {
        return if asked.listed == 0 {
            Decision::Wait { reason: "the NameNode lists no DataNode" }
        } else if asked.answered < asked.listed || asked.recorded > 0 {
            Decision::Wait { reason: "no DataNode that answered has a replica" }
        } else {
            Decision::Delete
        };
    };
    if best == rank(pb::ReplicaState::Rwr).unwrap_or(u8::MAX) && asked.answered < asked.listed {
        return Decision::Wait { reason: "only restarted DataNodes answered" };
    }
    let of_best = || found.iter().filter(|member| rank(member.replica.state) == Some(best));
    let shortest = of_best().map(|member| member.replica.block.bytes()).min().unwrap_or(0);
    let is_final = best == 0;
    let length = if is_final { shortest } else { shortest.min(cut.unwrap_or(u64::MAX)) };
    if length == 0 {
        return if asked.recorded > 0 {
            Decision::Wait { reason: "a replica has lost what was recorded" }
        } else {
            Decision::Delete
        };
    }
    let fits = |member: &Member| {
        let bytes = member.replica.block.bytes();
        match rank(member.replica.state) {
            Some(0) => bytes == length,
            Some(1) if is_final => bytes == length,
            Some(state) => state == best && bytes >= length,
            None => false,
        }
    };
    let members: Vec<Member> = found.into_iter().filter(fits).collect();
    if members.len() < asked.listed.min(REPLICAS_TO_CLOSE) {
        return Decision::Wait { reason: "too few replicas would be left" };
    }
    Decision::Keep { members, length }
}

/// A file is closed on so many replicas at least.
pub(super) const REPLICAS_TO_CLOSE: usize = 2;

/// How far a replica can be relied on, the best first; nothing for those that do not count.
fn rank(state: pb::ReplicaState) -> Option<u8> {
    match state {
        pb::ReplicaState::Finalized => Some(0),
        pb::ReplicaState::Rbw => Some(1),
        pb::ReplicaState::Rwr => Some(2),
        pb::ReplicaState::Rur | pb::ReplicaState::Temporary => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::ReplicaState::{Finalized, Rbw, Rwr};

    fn members(replicas: &[(pb::ReplicaState, u64)]) -> Vec<Member> {
        let member = |(state, bytes): &(pb::ReplicaState, u64)| Member {
            node: pb::DatanodeInfo::default(),
            replica: Replica {
                state: *state,
                block: pb::Block { bytes: Some(*bytes), ..Default::default() },
            },
        };
        replicas.iter().map(member).collect()
    }

    fn decided(replicas: &[(pb::ReplicaState, u64)], answered: usize, cut: Option<u64>) -> String {
        decided_of(replicas, Asked { recorded: 0, listed: 3, answered }, cut)
    }

    fn decided_of(replicas: &[(pb::ReplicaState, u64)], asked: Asked, cut: Option<u64>) -> String {
        match decide(members(replicas), asked, cut) {
            Decision::Keep { members, length } => format!("keep {} of {length}", members.len()),
            Decision::Delete => "delete".to_owned(),
            Decision::Wait { .. } => "wait".to_owned(),
        }
    }

    #[test]
    fn replicas_being_written_are_cut_to_the_shortest() {
        assert_eq!(decided(&[(Rbw, 9), (Rbw, 7), (Rbw, 8)], 3, None), "keep 3 of 7");
        assert_eq!(decided(&[(Rbw, 9), (Rbw, 7)], 2, Some(5)), "keep 2 of 5");
        assert_eq!(decided(&[(Rbw, 9), (Rbw, 7)], 2, Some(8)), "keep 2 of 7");
    }

    #[test]
    fn a_final_replica_says_how_long_the_block_is() {
        assert_eq!(decided(&[(Finalized, 9), (Rbw, 9), (Rbw, 8)], 3, Some(8)), "keep 2 of 9");
        assert_eq!(decided(&[(Finalized, 9), (Rbw, 8), (Rbw, 8)], 3, None), "wait");
    }

    #[test]
    fn a_file_is_not_closed_on_one_replica_of_several() {
        assert_eq!(decided(&[(Rbw, 9)], 1, None), "wait");
        assert_eq!(decided(&[(Rbw, 9)], 3, None), "wait");
        let single = Asked { recorded: 9, listed: 1, answered: 1 };
        assert_eq!(decided_of(&[(Rbw, 9)], single, None), "keep 1 of 9");
    }

    #[test]
    fn a_restarted_node_decides_only_when_all_have_answered() {
        assert_eq!(decided(&[(Rwr, 4), (Rwr, 6)], 2, None), "wait");
        assert_eq!(decided(&[(Rwr, 4), (Rwr, 6)], 3, None), "keep 2 of 4");
        assert_eq!(decided(&[(Rbw, 9), (Rbw, 9), (Rwr, 4)], 3, None), "keep 2 of 9");
    }

    #[test]
    fn a_block_without_an_acknowledged_byte_goes() {
        assert_eq!(decided(&[(Rbw, 0), (Rbw, 9)], 2, None), "delete");
        assert_eq!(decided(&[], 3, None), "delete");
        assert_eq!(decided(&[], 2, None), "wait");
    }

    #[test]
    fn a_block_with_a_recorded_length_is_never_deleted() {
        let asked = Asked { recorded: 1, listed: 3, answered: 3 };
        assert_eq!(decided_of(&[], asked, None), "wait", "they may have just started");
        assert_eq!(decided_of(&[(Rwr, 0), (Rwr, 9), (Rwr, 9)], asked, None), "wait");
        assert_eq!(decided_of(&[(Rbw, 9), (Rbw, 9)], asked, Some(0)), "wait");
        assert_eq!(decided_of(&[(Rbw, 9), (Rbw, 9)], asked, Some(5)), "keep 2 of 5");
    }

    #[test]
    fn a_block_without_data_nodes_is_not_deleted() {
        for recorded in [0, 9] {
            let asked = Asked { recorded, listed: 0, answered: 0 };
            assert_eq!(decided_of(&[], asked, None), "wait", "they have not reported yet");
        }
    }
}
