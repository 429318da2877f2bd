//! Stops the writer of a block on each of its DataNodes.
//!
//! *Taking over* is the request of a client that repairs its pipeline, with the generation stamp
//! that the NameNode already has. The DataNode interrupts the writer, waits until it has ended,
//! truncates the replica to what it acknowledged, and answers. The connection is then closed, and
//! the replica stays as it is.
//!
//! *Beginning a recovery* is the request of a DataNode that recovers the block. It also stops a
//! writer, and gives the replica to this recovery alone. On each DataNode it follows the takeover
//! immediately, because the NameNode gives the same recovery to a DataNode at its next heartbeat,
//! and the replica is given to whoever asks first.

use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::Fence;
use super::recovery::{Asked, Member, REPLICAS_TO_CLOSE};
use crate::data_node::{Replica, transfer_address};
use crate::error::{Error, Result};
use crate::pb;
use crate::rpc::connect;
use crate::transfer::operation::{WriteBlock, lost, read_response};

/// Stops the writer on the DataNodes of the last block of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopWriter<'a> {
    pub(super) fence: &'a Fence,
    pub(super) last: &'a pb::LocatedBlock,
}

/// The result on one DataNode.
#[derive(Debug)]
pub(super) struct Answer {
    node: pb::DatanodeInfo,
    /// If the writer is stopped: how many bytes of the replica are acknowledged.
    stopped: Option<u64>,
    /// The replica, if it was given to this recovery. The inner `None` means that there is no
    /// replica.
    replica: Option<Option<Replica>>,
    /// No connection to the DataNode could be opened.
    is_unreachable: bool,
}

/// A replica, and the DataNode that has it.
pub(super) type Located = (pb::DatanodeInfo, Replica);

/// The results on all DataNodes.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<Answer>);

// === impl StopWriter ===

impl StopWriter<'_> {
    /// Takes over all DataNodes at once, and begins the recovery with this id on each. Once this
    /// recovery owns enough replicas to close the file, it waits for the others no longer than
    /// `fence_patience`. Before that each DataNode gets its full time, because a replica that is
    /// given to us after we have moved on belongs to nobody until the recovery is started again.
    pub(super) async fn ask(&self, recovery_id: Option<u64>) -> Answers {
        let enough = match recovery_id {
            Some(_) => self.last.locations.len().min(REPLICAS_TO_CLOSE),
            None => self.last.locations.len(),
        };
        self.gather(enough, |node| self.ask_one(node, recovery_id)).await
    }

    /// Asks the DataNodes to begin a recovery with an old id. They reject it, but they stop the
    /// writer, if there is one, before they check the id. This also finds replicas of a recovery
    /// that has begun and has not ended.
    pub(super) async fn ask_under_recovery(&self) -> Answers {
        self.gather(self.last.locations.len(), |node| async move {
            let past = self.last.block.generation_stamp;
            let calls = &self.fence.calls;
            let mut stopped = None;
            if let Err(error) = calls.begin_recovery(&node, self.last, past).await {
                debug!(node = %transfer_address(&node), %error, "asked with an earlier id");
                if is_refused_after_stopping(&error) {
                    stopped = calls.visible_length(&node, &self.last.block).await.ok();
                }
            }
            Answer { node, stopped, replica: None, is_unreachable: false }
        })
        .await
    }

    async fn ask_one(&self, node: pb::DatanodeInfo, recovery_id: Option<u64>) -> Answer {
        let server = transfer_address(&node);
        let failed = |error: &Error| debug!(node = %server, %error, "a DataNode rejected a fence");
        let fence = self.fence;
        let stopped = fence.while_reachable(&node, self.stop(&node)).await.inspect_err(failed);
        let is_unreachable = |error: &Error| matches!(error, Error::Unreachable { .. });
        if stopped.as_ref().is_err_and(is_unreachable) {
            return Answer { node, stopped: None, replica: None, is_unreachable: true };
        }
        let begun = match recovery_id {
            Some(id) => {
                let begin = fence.calls.begin_recovery(&node, self.last, id);
                Some(fence.while_reachable(&node, begin).await.inspect_err(failed))
            }
            None => None,
        };
        // The machine may fail between the two.
        let is_unreachable = matches!(&begun, Some(Err(error)) if is_unreachable(error));
        Answer { node, stopped: stopped.ok(), replica: begun.and_then(Result::ok), is_unreachable }
    }

    /// Stops the writer on one DataNode. Returns the number of bytes that it acknowledged.
    async fn stop(&self, node: &pb::DatanodeInfo) -> Result<u64> {
        match self.announce(node).await {
            // Seen once in the experiment, with a writer at full speed. It is also the answer of a
            // DataNode whose replica no longer has a writer.
            Err(Error::Lost { .. }) => self.announce(node).await?,
            result => result?,
        }
        self.fence.calls.visible_length(node, &self.last.block).await
    }

    async fn announce(&self, node: &pb::DatanodeInfo) -> Result<()> {
        let server = transfer_address(node);
        let limit = self.fence.config.fence_step_timeout;
        let announcing = self.announce_to(&server, node);
        let timed_out =
            |_| Error::TimedOut { server: Arc::clone(&server), what: "taking over a block", limit };
        let announced = timeout(limit, announcing).await.map_err(timed_out).flatten();
        self.fence.health.heed(node, announced)
    }

    async fn announce_to(&self, server: &Arc<str>, node: &pb::DatanodeInfo) -> Result<()> {
        let Fence { network, config, name_node, .. } = self.fence;
        let mut connecting = pin!(connect(network, server, config.connect_timeout));
        let mut stream = match timeout(config.fence_patience, &mut connecting).await {
            Ok(connected) => connected?,
            Err(_) => {
                // This fence may end before the connection attempt does. A DataNode that only hangs
                // still accepts connections. So its machine is gone, and the next reader or writer
                // must know.
                self.fence.health.failed(node, &"no connection yet");
                connecting.await?
            }
        };
        let index = self.last.locations.iter().position(|other| other.id.uuid == node.id.uuid);
        let storage_type = index.and_then(|index| self.last.storage_types.get(index));
        // The DataNode reserves this many bytes for the replica.
        let bytes = Some(config.block_bytes);
        let block = pb::ExtendedBlock { bytes, ..self.last.block.clone() };
        let request = WriteBlock {
            block: &block,
            token: &self.last.token,
            client_name: name_node.client_name(),
            stage: pb::op_write_block::Stage::PipelineSetupStreamingRecovery,
            bytes_received_max: i64::MAX as u64,
            storage_type: storage_type.and_then(|kind| pb::StorageType::try_from(*kind).ok()),
            storage_id: index.and_then(|index| self.last.storage_ids.get(index).cloned()),
        };
        let (mut output, mut input) = (BytesMut::new(), BytesMut::new());
        request.put(&mut output);
        stream.write_all(&output).await.map_err(|error| lost(server, error))?;
        read_response(server, &mut stream, &mut input).await?;
        Ok(())
    }

    async fn gather<F: Future<Output = Answer>>(
        &self,
        enough: usize,
        ask: impl Fn(pb::DatanodeInfo) -> F,
    ) -> Answers {
        let config = &self.fence.config;
        let nodes = self.fence.health.order(&self.last.locations, None);
        let mut stop_writer: FuturesUnordered<_> = nodes.into_iter().map(ask).collect();
        let mut answers = Answers::default();
        // Each call has its own timeout; this deadline only becomes shorter.
        let mut deadline = Instant::now() + 4 * config.fence_step_timeout;
        while let Ok(Some(answer)) = timeout_at(deadline, stop_writer.next()).await {
            answers.0.push(answer);
            let ours = answers.0.iter().filter(|answer| matches!(answer.replica, Some(Some(_))));
            if ours.count() == enough {
                deadline = Instant::now() + config.fence_patience;
            }
        }
        answers
    }
}

// === impl Answers ===

impl Answers {
    /// The lengths of the replicas whose writer is stopped.
    pub(super) fn stopped(&self) -> impl Iterator<Item = u64> {
        self.0.iter().filter_map(|answer| answer.stopped)
    }

    /// Whether the writer is stopped on each of the `listed` DataNodes. Returns false if none is
    /// listed, because then this is unknown.
    pub(super) fn are_all_stopped(&self, listed: usize) -> bool {
        listed > 0 && self.stopped().count() == listed
    }

    /// Whether a DataNode was unreachable.
    pub(super) fn has_unreachable(&self) -> bool {
        self.0.iter().any(|answer| answer.is_unreachable)
    }

    /// The replicas that this recovery owns, and how many DataNodes answered.
    pub(super) fn into_members(self, last: &pb::LocatedBlock) -> (Vec<Member<Located>>, Asked) {
        let answered = self.0.iter().filter(|answer| answer.replica.is_some()).count();
        let members = self.0.into_iter().filter_map(|answer| {
            let replica = answer.replica.flatten()?;
            let is_current = replica.block.generation_stamp >= last.block.generation_stamp;
            let (state, bytes) = (replica.state, replica.block.bytes());
            is_current.then_some(Member { replica: (answer.node, replica), state, bytes })
        });
        let (recorded, listed) = (last.block.bytes(), last.locations.len());
        (members.collect(), Asked { recorded, listed, answered })
    }
}

/// Whether a DataNode rejected a recovery for a reason that it checks only after it has stopped the
/// writer: not for missing permissions, and not because the writer did not end.
fn is_refused_after_stopping(error: &Error) -> bool {
    error.is_exception("RecoveryInProgressException")
        || error.exception().is_some_and(|exception| {
            exception.is("IOException") && !exception.message.contains("Join on writer")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RemoteException;

    #[test]
    fn only_a_refusal_after_the_stop_proves_the_stop() {
        let refused = |class: &str, message: &str| {
            let exception = RemoteException { class: class.into(), message: message.into() };
            let error = Error::Remote { server: "dn:1".into(), method: "x", exception };
            is_refused_after_stopping(&error)
        };
        assert!(refused("java.io.IOException", "replica.getGenerationStamp() >= recoveryId = 7"));
        assert!(refused("org.apache.hadoop.hdfs.protocol.RecoveryInProgressException", ""));
        assert!(!refused("java.io.IOException", "Join on writer thread t timed out"));
        assert!(!refused("org.apache.hadoop.security.authorize.AuthorizationException", ""));
    }
}
