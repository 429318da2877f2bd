//! Decides where a file ends, without any I/O.
//!
//! Invariant: the decided length is at least the length of everything that was ever acknowledged, and every
//! replica that is kept has that many bytes.

use crate::pb::ReplicaState;

/// How a file is taken away from its writer and recovered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecoveryMethod {
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
pub struct Member<R> {
    /// The replica and where it lies.
    pub replica: R,
    /// What it was before the recovery began.
    pub state: ReplicaState,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What to do with the replicas of a block.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<R> {
    /// These are truncated to this length and kept.
    Keep {
        /// The replicas.
        members: Vec<Member<R>>,
        /// The length in bytes.
        length: u64,
    },
    /// Nothing in it was ever acknowledged: the block goes.
    Delete,
    /// Not enough is known, or too few replicas would be left.
    Wait {
        /// What is not known.
        reason: &'static str,
    },
}

/// What was asked about a block.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The length that the NameNode has on record, in bytes: 0 until the writer has recorded one,
    /// which it does before anything in the block is acknowledged.
    pub recorded: u64,
    /// How many DataNodes the NameNode lists.
    pub listed: usize,
    /// How many gave an answer, be it that they have no replica.
    pub answered: usize,
}

/// Decides as the recovery of HDFS does, but for two rules of ours: a file is closed on two
/// replicas or more (or on all, if fewer are listed), for the loss of the only one would lose what
/// was acknowledged; and replicas of restarted DataNodes, which may be shorter than what they
/// acknowledged, decide only when nobody is left to ask.
///
/// A block with a recorded length is never deleted here. That its DataNodes have no replica, or
/// that there are none, proves nothing: one that has just started answers before it has found its
/// replicas, and a NameNode that has restarted lists no DataNode until one has reported. What
/// becomes of such a block is left to the NameNode's own recovery, which a DataNode makes only once
/// it has reported its own replica.
///
/// `block_length` is what taking over found: the block is not made longer than that.
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

/// A file is closed on so many replicas at least.
pub const REPLICAS_TO_CLOSE: usize = 2;

/// How far a replica can be relied on, the best first; nothing for those that do not count.
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
