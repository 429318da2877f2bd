//! Asks the active master to drain a region server, as is done before a server is stopped.

use std::time::Duration;

use anyhow::Context;
use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_cluster::{Nodes, pb};
use basalt_runtime::{Seams, grpc};
use prost::Message;

use crate::plan::NODES_PARENT;
use crate::simulate::connect;

/// The connect timeout for the master.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long to wait for the master; the drain continues after that.
const WAIT: Duration = Duration::from_secs(3);

/// Asks once. `host` is the host name of the region server.
pub(crate) async fn drain(
    seams: &Seams,
    coordinators: &[String],
    host: &str,
) -> anyhow::Result<()> {
    let client = connect(seams, coordinators).await?;
    let nodes = Nodes::below(NODES_PARENT);
    let asked = async {
        let (servers, _) = client.get_children(&nodes.servers()).await?;
        let is_it = |server: &&String| server.split(',').next() == Some(host);
        let server = servers.iter().find(is_it).context("it is not registered")?;
        let (data, _) = client.get_data(&nodes.master()).await?;
        let master = pb::MasterRecord::decode(data)?;
        let channel = grpc::channel(&seams.network, &master.peer_address, CONNECT_TIMEOUT)?;
        let request = pb::DrainRequest { server_name: server.clone() };
        tokio::time::timeout(WAIT, MasterPeerClient::new(channel).drain(request)).await??;
        anyhow::Ok(())
    };
    let asked = asked.await;
    client.close().await;
    asked
}
