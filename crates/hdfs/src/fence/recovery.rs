//! Decides where a file ends, without any I/O.
//!
//! Invariant: the decided length is at least the length of everything that was ever acknowledged,
//! and every replica that is kept has that many bytes.

use crate::pb::ReplicaState;

/// How a file is fenced and recovered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecoveryMethod {
    /// Nothing to do: the file has no writer.
    Closed,
    /// Announce a new writer, which never writes, to each DataNode. This uses only client
    /// protocols, so it also works with Kerberos. The file is closed later.
    TakeOver,
    /// First take over, then perform the block's recovery, which closes the file. This is the
    /// default. (The recovery alone may fail permanently: while a writer is active, and in 1 of 20
    /// runs after its death.)
    TakeOverAndClose,
    /// Wait for the NameNode's own recovery: seconds, or minutes after the loss of a machine.
    LeaseRecovery,
}

/// A replica that takes part in the recovery of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Member<R> {
    /// The replica and its location.
    pub replica: R,
    /// Its state before the recovery began.
    pub state: ReplicaState,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What to do with the replicas of a block.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<R> {
    /// Truncate these replicas to this length, and keep them.
    Keep {
        /// The replicas.
        members: Vec<Member<R>>,
        /// The length in bytes.
        length: u64,
    },
    /// Delete the block: nothing in it was ever acknowledged.
    Delete,
    /// Wait: not enough is known, or too few replicas would be left.
    Wait {
        /// The reason.
        reason: &'static str,
    },
}

/// What is known about a block, besides its replicas.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The length that the NameNode has on record, in bytes. It is 0 until the writer has recorded
    /// one, which it does before anything in the block is acknowledged.
    pub recorded: u64,
    /// How many DataNodes the NameNode lists.
    pub listed: usize,
    /// How many DataNodes answered, including those that have no replica.
    pub answered: usize,
}

/// Decides as the recovery of HDFS does, with two additional rules:
/// - A file is closed on two replicas or more (or on all, if fewer are listed), because the loss of
///   the only replica would lose acknowledged data.
/// - Replicas of restarted DataNodes may be shorter than what they acknowledged. They decide only
///   if every listed DataNode has answered.
///
/// A block with a recorded length is never deleted here. It proves nothing that its DataNodes have
/// no replica, or that there are no DataNodes: a DataNode that has just started answers before it
/// has found its replicas, and a restarted NameNode lists no DataNode until one has reported. Such
/// a block is left to the NameNode's own recovery, which a DataNode performs only once it has
/// reported its own replica.
///
/// `block_length` is the length that the takeover found. The block is not made longer than that.
pub fn decide<R>(found: Vec<Member<R>>, asked: Asked, block_length: Option<u64>) -> Decision<R> {
    let best = found.iter().filter_map(|member| rank(member.state)).min();
    let Some(best) = best else {
        return if asked.listed == 0 {
            Decision::Wait { reason: "the NameNode lists no DataNode" }
        } else if asked.answered < asked.listed || asked.recorded > 0 {
            Decision::Wait { reason: "no DataNode that answered has a replica" }
        } else {
            Decision::Delete
        };
    };
    if best == rank(ReplicaState::Rwr).unwrap_or(u8::MAX) && asked.answered < asked.listed {
        return Decision::Wait { reason: "only restarted DataNodes answered" };
    }
    let of_best = found.iter().filter(|member| rank(member.state) == Some(best));
    let shortest = of_best.map(|member| member.bytes).min().unwrap_or(0);
    let is_final = best == 0;
    let length = if is_final { shortest } else { shortest.min(block_length.unwrap_or(u64::MAX)) };
    if length == 0 {
        return if asked.recorded > 0 {
            Decision::Wait { reason: "a replica has lost recorded bytes" }
        } else {
            Decision::Delete
        };
    }
    let fits = |member: &Member<R>| match rank(member.state) {
        Some(0) => member.bytes == length,
        Some(1) if is_final => member.bytes == length,
        Some(state) => state == best && member.bytes >= length,
        None => false,
    };
    let members: Vec<Member<R>> = found.into_iter().filter(fits).collect();
    if members.len() < asked.listed.min(REPLICAS_TO_CLOSE) {
        return Decision::Wait { reason: "too few replicas would be left" };
    }
    Decision::Keep { members, length }
}

/// The minimum number of replicas on which a file is closed.
pub const REPLICAS_TO_CLOSE: usize = 2;

/// How reliable a replica is, the best first. `None` for a replica that does not count.
fn rank(state: ReplicaState) -> Option<u8> {
    match state {
        ReplicaState::Finalized => Some(0),
        ReplicaState::Rbw => Some(1),
        ReplicaState::Rwr => Some(2),
        ReplicaState::Rur | ReplicaState::Temporary => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReplicaState::{Finalized, Rbw, Rwr};

    fn members(replicas: &[(ReplicaState, u64)]) -> Vec<Member<()>> {
        let members = replicas.iter();
        members.map(|(state, bytes)| Member { replica: (), state: *state, bytes: *bytes }).collect()
    }

    fn decided(
        replicas: &[(ReplicaState, u64)],
        answered: usize,
        block_length: Option<u64>,
    ) -> String {
        decided_of(replicas, Asked { recorded: 0, listed: 3, answered }, block_length)
    }

    fn decided_of(
        replicas: &[(ReplicaState, u64)],
        asked: Asked,
        block_length: Option<u64>,
    ) -> String {
        match decide(members(replicas), asked, block_length) {
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
