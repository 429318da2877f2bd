//! Closes a file by recovering its last block ourselves.
//!
//! The NameNode has assigned an id to the recovery. It gives the id only to the DataNode that it
//! will choose. But if a result has a wrong id, the NameNode's error message contains the right
//! one. We and a DataNode may try the recovery at the same time: each replica is given to whoever
//! asks first, and the other one gives up.

use futures::future::join_all;
use tracing::debug;

use super::Fence;
use super::recovery::{Asked, Decision, Member, REPLICAS_TO_CLOSE, decide};
use super::stop_writer::Located;
use crate::error::{Error, Result};
use crate::pb;

/// Closing a file whose last block is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing<'a> {
    pub(super) fence: &'a Fence,
    pub(super) path: &'a str,
    pub(super) last: &'a pb::LocatedBlock,
}

/// An id that no recovery has.
const NO_RECOVERY: u64 = u64::MAX;

// === impl Closing ===

impl Closing<'_> {
    /// The id that the NameNode has assigned to the recovery.
    ///
    /// # Errors
    /// There is no recovery, or the NameNode does not reveal its id to this client.
    pub(super) async fn recovery_id(&self) -> Result<u64> {
        match self.commit(NO_RECOVERY, 0, false, Vec::new()).await {
            Ok(()) => Err(self.given_up("it is closed")),
            Err(error) => {
                let exception = error.exception().map(|exception| exception.first_line());
                exception.and_then(recovery_id_in).ok_or(error)
            }
        }
    }

    /// Closes the file with the replicas that this recovery owns. Returns the length of its last
    /// block. `block_length` is the length that the takeover found.
    ///
    /// # Errors
    /// There are too few replicas.
    pub(super) async fn run(
        &self,
        recovery_id: u64,
        (found, asked): (Vec<Member<Located>>, Asked),
        block_length: Option<u64>,
    ) -> Result<u64> {
        match decide(found, asked, block_length) {
            Decision::Keep { members, length } => {
                self.finish(recovery_id, members, length).await?;
                Ok(length)
            }
            Decision::Delete => {
                self.commit(recovery_id, 0, true, Vec::new()).await?;
                Ok(0)
            }
            Decision::Wait { reason } => Err(self.given_up(reason)),
        }
    }

    /// Truncates the replicas, and reports to the NameNode which DataNodes have done so.
    async fn finish(
        &self,
        recovery_id: u64,
        members: Vec<Member<Located>>,
        length: u64,
    ) -> Result<()> {
        let pool_id = &self.last.block.pool_id;
        let updating = members.iter().map(|Member { replica: (node, replica), .. }| async move {
            let Fence { calls, .. } = self.fence;
            let finish = calls.finish_recovery(node, pool_id, replica, recovery_id, length);
            let updated = self.fence.while_reachable(node, finish).await;
            updated.map(|storage| (node.id.clone(), storage))
        });
        let mut kept = Vec::new();
        for updated in join_all(updating).await {
            match updated {
                Ok(target) => kept.push(target),
                Err(error) => debug!(%error, "a replica is left out"),
            }
        }
        if kept.len() < self.last.locations.len().min(REPLICAS_TO_CLOSE) {
            return Err(self.given_up("too few replicas were truncated"));
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

    fn given_up(&self, reason: &str) -> Error {
        Error::GivenUp { path: self.path.into(), reason: reason.into() }
    }
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
