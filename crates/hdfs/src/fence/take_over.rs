//! Stops the writer on each DataNode by announcing another one, which never writes.
//!
//! The request is that of a client which mends its pipeline, under the generation stamp that the
//! NameNode has already. The DataNode interrupts the writer and waits until it has ended, cuts the
//! replica to what it acknowledged, and answers. The connection is closed then; the replica stays.

use std::sync::Arc;

use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::Fence;
use super::cut::Stopped;
use crate::data_node::transfer_address;
use crate::error::{Error, Result};
use crate::pb;
use crate::rpc::connect;
use crate::transfer::operation::{WriteBlock, lost, read_response};

/// Taking over the last block of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakingOver<'a> {
    pub(super) fence: &'a Fence,
    pub(super) last: &'a pb::LocatedBlock,
}

// === impl TakingOver ===

impl TakingOver<'_> {
    /// Asks all DataNodes at once. Gives those that have stopped the writer; waits for the others
    /// no longer than the patience lasts once there is one.
    pub(super) async fn run(&self) -> Vec<Stopped> {
        let nodes = self.fence.nodes(self.last);
        self.gather(nodes.into_iter().map(|node| async move {
            let result = self.stop(&node).await;
            if let Err(error) = &result {
                debug!(node = %transfer_address(&node), %error, "not taken over");
            }
            result.map(|length| Stopped { node, length })
        }))
        .await
    }

    /// The length by those DataNodes that refuse a recovery with the id of the past: they stop the
    /// writer, if there is one, before they look at the id. What is left to find here are replicas
    /// that a recovery has begun with and not ended.
    pub(super) async fn under_recovery(&self) -> Option<u64> {
        let nodes = self.fence.nodes(self.last);
        let stopped = self.gather(nodes.into_iter().map(|node| async move {
            let past = self.last.block.generation_stamp;
            match self.fence.calls.begin_recovery(&node, self.last, past).await {
                Err(error) if is_refused_after_stopping(&error) => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let (server, reason) = (transfer_address(&node), "no replica".into());
                    return Err(Error::Lost { server, reason });
                }
            }
            let length = self.fence.calls.visible_length(&node, &self.last.block).await?;
            Ok(Stopped { node, length })
        }));
        super::cut::of_taken_over(&stopped.await)
    }

    /// Stops the writer on one DataNode. Gives the number of bytes that it acknowledged.
    async fn stop(&self, node: &pb::DatanodeInfo) -> Result<u64> {
        match self.announce(node).await {
            // Seen once in the experiment, with a writer at full speed.
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
            |_| Error::TimedOut { server: Arc::clone(&server), what: "taking a block over", limit };
        timeout(limit, announcing).await.map_err(timed_out)?
    }

    async fn announce_to(&self, server: &Arc<str>, node: &pb::DatanodeInfo) -> Result<()> {
        let Fence { network, config, name_node, .. } = self.fence;
        let mut stream = connect(network, server, config.connect_timeout).await?;
        let index = self.last.locations.iter().position(|other| other.id.uuid == node.id.uuid);
        let storage_type = index.and_then(|index| self.last.storage_types.get(index));
        // The DataNode sets this many bytes aside for the replica.
        let block =
            pb::ExtendedBlock { bytes: Some(config.block_bytes), ..self.last.block.clone() };
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

    async fn gather(
        &self,
        asking: impl Iterator<Item = impl Future<Output = Result<Stopped>>>,
    ) -> Vec<Stopped> {
        let config = &self.fence.config;
        let mut asking: FuturesUnordered<_> = asking.collect();
        let mut stopped = Vec::new();
        // Each has its own timeout: this one only grows shorter.
        let mut deadline = Instant::now() + 3 * config.fence_step_timeout;
        while let Ok(Some(answer)) = timeout_at(deadline, asking.next()).await {
            match answer {
                Ok(node) => {
                    stopped.push(node);
                    deadline = deadline.min(Instant::now() + config.fence_patience);
                }
                Err(error) => debug!(%error, "a DataNode did not stop a writer"),
            }
        }
        stopped
    }
}

/// Whether a DataNode has refused a recovery for a reason that it looks at only after it has
/// stopped the writer: not for want of rights, and not because the writer would not end.
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
