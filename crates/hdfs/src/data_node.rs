//! A DataNode: its addresses, and calls to its IPC port.
//!
//! Each call opens its own connection. These calls are made when a file is fenced, to nodes with
//! which there is usually no other contact.

use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::Network;
use tokio::time::{Instant, timeout};

use crate::HdfsConfig;
use crate::error::{Defect, Error, Result};
use crate::node_health::NodeHealth;
use crate::pb;
use crate::rpc::frame::{CallId, ClientId};
use crate::rpc::{Connection, ConnectionOptions, Protocol};

/// Makes calls to the IPC ports of DataNodes.
#[derive(Clone, Debug)]
pub(crate) struct DataNodeCalls {
    network: Network,
    user: Arc<str>,
    health: NodeHealth,
    /// How long connecting may take.
    connect_timeout: Duration,
    /// How long a call may take, including connecting.
    pub(crate) timeout: Duration,
}

/// The replica that a DataNode has of a block under recovery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Replica {
    /// Its state before the recovery began.
    pub(crate) state: pb::ReplicaState,
    /// Its id, generation stamp and length.
    pub(crate) block: pb::Block,
}

/// The address for reading and writing blocks, as `host:port`.
pub(crate) fn transfer_address(node: &pb::DatanodeInfo) -> Arc<str> {
    address(&node.id.ip_address, node.id.transfer_port)
}

/// The address for calls, as `host:port`.
fn ipc_address(node: &pb::DatanodeInfo) -> Arc<str> {
    address(&node.id.ip_address, node.id.ipc_port)
}

/// Checks a byte count that is signed in Java but unsigned on the wire.
fn visible_bytes(length: u64) -> Result<u64, Defect> {
    let signed = length.cast_signed();
    if signed < 0 {
        return Err(Defect::Value { what: "the visible length of a replica", value: signed });
    }
    Ok(length)
}

fn address(host: &str, port: u32) -> Arc<str> {
    let is_v6 = host.contains(':');
    if is_v6 { format!("[{host}]:{port}").into() } else { format!("{host}:{port}").into() }
}

// === impl DataNodeCalls ===

impl DataNodeCalls {
    /// Each call takes at most `timeout`.
    pub(crate) fn new(
        network: &Network,
        config: &HdfsConfig,
        health: &NodeHealth,
        timeout: Duration,
    ) -> Self {
        Self {
            network: network.clone(),
            user: config.user.as_str().into(),
            health: health.clone(),
            connect_timeout: config.connect_timeout,
            timeout,
        }
    }

    /// How many bytes of a replica its node has acknowledged. The node rejects a block with a newer
    /// generation stamp than its own. A node that has restarted does not know how many bytes it had
    /// acknowledged and answers −1, which is an error.
    pub(crate) async fn visible_length(
        &self,
        node: &pb::DatanodeInfo,
        block: &pb::ExtendedBlock,
    ) -> Result<u64> {
        let request = pb::GetReplicaVisibleLengthRequest { block: block.clone() };
        let method = "getReplicaVisibleLength";
        let response: pb::GetReplicaVisibleLengthResponse =
            self.call(node, Protocol::ClientDataNode, method, &request).await?;
        visible_bytes(response.length)
            .map_err(|defect| Error::BadAnswer { server: ipc_address(node), defect })
    }

    /// Stops the writer of a replica and gives the replica to this recovery. Returns `None` if the
    /// node has no replica.
    pub(crate) async fn begin_recovery(
        &self,
        node: &pb::DatanodeInfo,
        block: &pb::LocatedBlock,
        recovery_id: u64,
    ) -> Result<Option<Replica>> {
        // Tokens are for clients; between DataNodes this field is empty.
        let block = pb::LocatedBlock { token: pb::Token::default(), ..block.clone() };
        let recovering = pb::RecoveringBlock { new_generation_stamp: recovery_id, block };
        let request = pb::InitReplicaRecoveryRequest { block: recovering };
        let method = "initReplicaRecovery";
        let response: pb::InitReplicaRecoveryResponse =
            self.call(node, Protocol::InterDataNode, method, &request).await?;
        let state = response.state();
        let replica = response.block.map(|block| Replica { state, block });
        Ok(replica.filter(|_| response.replica_found))
    }

    /// Ends the recovery of a replica: the replica is truncated to `length` bytes and is final.
    /// Returns the storage that contains it.
    pub(crate) async fn finish_recovery(
        &self,
        node: &pb::DatanodeInfo,
        pool_id: &str,
        replica: &Replica,
        recovery_id: u64,
        length: u64,
    ) -> Result<String> {
        let block = pb::ExtendedBlock {
            pool_id: pool_id.to_owned(),
            block_id: replica.block.block_id,
            generation_stamp: replica.block.generation_stamp,
            bytes: Some(replica.block.bytes()),
        };
        let request = pb::UpdateReplicaUnderRecoveryRequest {
            block,
            recovery_id,
            new_length: length,
            new_block_id: Some(replica.block.block_id),
        };
        let method = "updateReplicaUnderRecovery";
        let response: pb::UpdateReplicaUnderRecoveryResponse =
            self.call(node, Protocol::InterDataNode, method, &request).await?;
        Ok(response.storage_uuid().to_owned())
    }

    async fn call<M: prost::Message + Default>(
        &self,
        node: &pb::DatanodeInfo,
        protocol: Protocol,
        method: &'static str,
        request: &impl prost::Message,
    ) -> Result<M> {
        let answer = self.call_at(ipc_address(node), protocol, method, request).await;
        self.health.heed(node, answer)
    }

    async fn call_at<M: prost::Message + Default>(
        &self,
        server: Arc<str>,
        protocol: Protocol,
        method: &'static str,
        request: &impl prost::Message,
    ) -> Result<M> {
        let deadline = Instant::now() + self.timeout;
        let options = ConnectionOptions {
            protocol,
            user: Arc::clone(&self.user),
            client: ClientId::default(),
            connect_timeout: self.connect_timeout.min(self.timeout),
            write_timeout: self.timeout,
        };
        let connecting = Connection::open(&self.network, Arc::clone(&server), &options);
        let connection = match timeout(self.timeout, connecting).await {
            Ok(connection) => connection?,
            Err(_) => {
                return Err(Error::TimedOut { server, what: "connecting", limit: self.timeout });
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        connection.call(CallId { id: 0, retry: 0 }, method, request, left).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_visible_length_is_an_error() {
        assert_eq!(visible_bytes(7), Ok(7));
        let defect = visible_bytes((-1_i64).cast_unsigned()).unwrap_err();
        assert_eq!(defect.to_string(), "the visible length of a replica is -1");
    }
}
