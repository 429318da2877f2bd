//! Orders to region servers, each with the epoch of this master.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_cluster::pb::region_server_orders_client::RegionServerOrdersClient;
use basalt_fs::{NodeName, NodeSuspicion, SharedFileSystem};
use basalt_model::ServerName;
use basalt_runtime::{Network, grpc};
use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Connections to region servers, opened when first used.
#[derive(Debug)]
pub(crate) struct Orders {
    network: Network,
    connect_timeout: Duration,
    channels: Mutex<BTreeMap<ServerName, Channel>>,
}

/// A client of one region server.
pub(crate) type OrdersClient = RegionServerOrdersClient<Channel>;

/// The storage nodes that this master excludes, as part of an order.
pub(crate) fn excluded_nodes(files: &SharedFileSystem) -> Vec<pb::ExcludedNode> {
    let excluded = files.excluded_nodes().into_iter();
    let message = |(node, suspicion): (NodeName, NodeSuspicion)| pb::ExcludedNode {
        node: node.to_string(),
        failed: suspicion == NodeSuspicion::Failed,
    };
    excluded.map(message).collect()
}

// === impl Orders ===

impl Orders {
    pub(crate) fn new(network: Network, connect_timeout: Duration) -> Self {
        Self { network, connect_timeout, channels: Mutex::new(BTreeMap::new()) }
    }

    /// A client of `server`, which listens at `address`.
    ///
    /// # Errors
    /// The address is invalid.
    pub(crate) fn client(
        &self,
        server: &ServerName,
        address: &str,
    ) -> Result<OrdersClient, Status> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(server) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.channel(address)?;
                channels.insert(server.clone(), channel.clone());
                channel
            }
        };
        Ok(client(channel))
    }

    /// A client with a connection of its own.
    ///
    /// # Errors
    /// The address is invalid.
    pub(crate) fn separate_client(&self, address: &str) -> Result<OrdersClient, Status> {
        self.channel(address).map(client)
    }

    /// Forgets a server that is dead.
    pub(crate) fn forget(&self, server: &ServerName) {
        self.channels.lock().remove(server);
    }

    fn channel(&self, address: &str) -> Result<Channel, Status> {
        grpc::channel(&self.network, address, self.connect_timeout)
            .map_err(|error| Status::invalid_argument(format!("{address}: {error}")))
    }
}

/// Whether a region server rejected an order because it knows a master with a higher epoch.
pub(crate) fn is_deposed(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
}

/// A request with a deadline.
pub(crate) fn within<T>(timeout: Duration, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// The failure text for an order whose outcome is unknown.
pub(crate) fn lost(status: &Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

/// Whether `outcome` is a success.
pub(crate) fn is_done(outcome: &pb::RegionOutcome) -> bool {
    outcome.failure.is_empty()
}

fn client(channel: Channel) -> OrdersClient {
    RegionServerOrdersClient::new(channel)
        .max_decoding_message_size(grpc::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(grpc::MESSAGE_BYTES_MAX)
}
