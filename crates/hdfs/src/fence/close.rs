//! Closes a file by recovering its last block ourselves.
//!
//! The NameNode has given the recovery an id, which it tells nobody but the DataNode that it will
//! choose; a result under a wrong id is refused with the right one in the message. Both may be at
//! it at once: a DataNode gives its replica to the first, and the second steps back.

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::Fence;
use super::cut::{Asked, Decision, Member, Stopped, decide};
use crate::error::{Error, Result};
use crate::pb;

/// Closing a file whose last block is known.
#[derive(Debug)]
pub(super) struct Closing<'a> {
    pub(super) fence: &'a Fence,
    pub(super) last: &'a pb::LocatedBlock,
    /// The DataNodes that were taken over; empty if that was not tried or not possible.
    pub(super) stopped: &'a [Stopped],
    /// The length that taking over found.
    pub(super) cut: Option<u64>,
}

/// An id that no recovery has.
const NO_RECOVERY: u64 = u64::MAX;

// === impl Closing ===

impl Closing<'_> {
    /// Closes the file. Gives the length of its last block.
    ///
    /// # Errors
    /// Somebody else recovers the block, or too few of its DataNodes can be reached.
    pub(super) async fn run(&self, path: &str) -> Result<u64> {
        let recovery_id = self.recovery_id(path).await?;
        let (found, asked) = self.begin(recovery_id).await?;
        match decide(found, asked, self.cut) {
            Decision::Keep { members, length } => {
                self.finish(path, recovery_id, members, length).await?;
                Ok(length)
            }
            Decision::Delete => {
                self.commit(recovery_id, 0, true, Vec::new()).await?;
                Ok(0)
            }
            Decision::Wait { reason } => {
                Err(Error::GivenUp { path: path.into(), reason: reason.into() })
            }
        }
    }

    /// The id that the NameNode has given to the recovery.
    async fn recovery_id(&self, path: &str) -> Result<u64> {
        let closed = || Error::GivenUp { path: path.into(), reason: "it is closed".into() };
        match self.commit(NO_RECOVERY, 0, false, Vec::new()).await {
            Ok(()) => Err(closed()),
            Err(error) => {
                let exception = error.exception().map(|exception| exception.first_line());
                exception.and_then(recovery_id_in).ok_or(error)
            }
        }
    }

    /// Asks the DataNodes for their replicas: those that were taken over, for the others are dead
    /// or hung; all of them if none was. One is asked alone, first: of two recoveries that run at
    /// once, with the same id, only one then gets it.
    async fn begin(&self, recovery_id: u64) -> Result<(Vec<Member>, Asked)> {
        let nodes = match self.stopped {
            [] => self.fence.nodes(self.last),
            stopped => stopped.iter().map(|stopped| stopped.node.clone()).collect(),
        };
        let ask = |node: pb::DatanodeInfo| async move {
            let answer = self.fence.calls.begin_recovery(&node, self.last, recovery_id).await;
            (node, answer)
        };
        let mut answers = Vec::new();
        let mut rest = nodes.into_iter();
        if !self.stopped.is_empty()
            && let Some(first) = rest.next()
        {
            answers.push(ask(first).await);
            step_back(&answers)?;
        }
        let config = &self.fence.config;
        let mut asking: FuturesUnordered<_> = rest.map(ask).collect();
        let mut deadline = Instant::now() + 2 * config.fence_step_timeout;
        while let Ok(Some(answer)) = timeout_at(deadline, asking.next()).await {
            if answer.1.is_ok() {
                deadline = deadline.min(Instant::now() + config.fence_patience);
            }
            answers.push(answer);
        }
        step_back(&answers)?;
        let answered = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
        let asked = Asked { listed: self.last.locations.len(), answered };
        let generation_stamp = self.last.block.generation_stamp;
        let members = answers.into_iter().filter_map(|(node, answer)| {
            let answer = answer.inspect_err(|error| debug!(%error, "a replica is left out"));
            let replica = answer.ok().flatten()?;
            let is_current = replica.block.generation_stamp >= generation_stamp;
            is_current.then_some(Member { node, replica })
        });
        Ok((members.collect(), asked))
    }

    /// Cuts the replicas and tells the NameNode of those that have done it.
    async fn finish(
        &self,
        path: &str,
        recovery_id: u64,
        members: Vec<Member>,
        length: u64,
    ) -> Result<()> {
        let pool_id = &self.last.block.pool_id;
        let updating = members.iter().map(|Member { node, replica }| async move {
            let calls = &self.fence.calls;
            let updated = calls.finish_recovery(node, pool_id, replica, recovery_id, length).await;
            updated.map(|storage| (node.id.clone(), storage))
        });
        let mut kept = Vec::new();
        for updated in join_all(updating).await {
            match updated {
                Ok(target) => kept.push(target),
                Err(error) => debug!(%error, "a replica is left out"),
            }
        }
        if kept.len() < self.last.locations.len().min(2) {
            let reason = "too few replicas were cut".into();
            return Err(Error::GivenUp { path: path.into(), reason });
        }
        self.commit(recovery_id, length, false, kept).await
    }

    async fn commit(
        &self,
        recovery_id: u64,
        length: u64,
        delete: bool,
        kept: Vec<(pb::DatanodeId, String)>,
    ) -> Result<()> {
        let (new_targets, new_target_storages) = kept.into_iter().unzip();
        let request = pb::CommitBlockSynchronizationRequest {
            block: self.last.block.clone(),
            new_generation_stamp: recovery_id,
            new_length: length,
            close_file: recovery_id != NO_RECOVERY,
            delete_block: delete,
            new_targets,
            new_target_storages,
        };
        self.fence.name_node.commit_block_synchronization(&request).await
    }
}

/// Fails if another recovery has one of the replicas.
fn step_back<T>(answers: &[(pb::DatanodeInfo, Result<T>)]) -> Result<()> {
    let taken = answers.iter().filter_map(|(_, answer)| answer.as_ref().err());
    let mut taken = taken.filter(|error| error.is_exception("RecoveryInProgressException"));
    taken.next().map_or(Ok(()), |error| Err(error.clone()))
}

/// The id in "The recovery id … does not match current recovery id N for block …".
fn recovery_id_in(message: &str) -> Option<u64> {
    let (_, after) = message.split_once("does not match current recovery id ")?;
    let digits = after.split(|sign: char| !sign.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|id| *id != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recovery_id_is_in_the_refusal() {
        let message = "The recovery id -1 does not match current recovery id 1230 for block BP-1:b";
        assert_eq!(recovery_id_in(message), Some(1230));
        assert_eq!(recovery_id_in("does not match current recovery id 0 for block"), None);
        assert_eq!(recovery_id_in("does not match current recovery id -5"), None);
        assert_eq!(recovery_id_in("Block not found"), None);
    }
}
