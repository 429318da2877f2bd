//! What the demo reads from the cluster's own records: the active master, the course of a recovery,
//! and the coordinator's leader.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use basalt_cluster::{Nodes, pb};
use basalt_measure::Phases;
use basalt_runtime::Seams;
use basalt_zk::{Client, Options};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::local::{LocalCluster, PortName};
use crate::role_config::RoleName;

/// The node that contains the cluster's records.
const NODES_PARENT: &str = "/basalt";
/// The observer's session must outlast all faults of the coordinator.
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a member may take to report whether it leads.
const WORD_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may take until the end of a recovery is recorded.
const RECORD_PATIENCE: Duration = Duration::from_secs(2);
/// The pause between two attempts to find it.
const RECORD_PAUSE: Duration = Duration::from_millis(20);

/// Reads the cluster's records.
pub(crate) struct Observer {
    seams: Seams,
    client: Client,
    nodes: Nodes,
}

// === impl Observer ===

impl Observer {
    pub(crate) async fn connect(seams: &Seams, local: &LocalCluster) -> anyhow::Result<Self> {
        let servers = local.plan().addresses(RoleName::Coordinator, PortName::Client);
        let options = Options { silence_max: Some(WORD_TIMEOUT), ..Options::default() };
        let client = Client::connect(seams, &servers, SESSION_TIMEOUT, options).await?;
        Ok(Self { seams: seams.clone(), client, nodes: Nodes::below(NODES_PARENT) })
    }

    /// The name of the active master; `None` while there is none.
    pub(crate) async fn active_master(&self) -> Option<String> {
        Some(self.master_record().await?.server_name)
    }

    /// The address at which the active master serves masters and region servers. `None` while there
    /// is none.
    pub(crate) async fn active_master_peer(&self) -> Option<String> {
        Some(self.master_record().await?.peer_address)
    }

    async fn master_record(&self) -> Option<pb::MasterRecord> {
        let (data, _) = self.client.get_data(&self.nodes.master()).await.ok()?;
        pb::MasterRecord::decode(data).ok()
    }

    /// The instance of the region server that is registered at `address`, if there is one.
    pub(crate) async fn instance_at(&self, address: SocketAddr) -> Option<String> {
        let (names, _) = self.client.get_children(&self.nodes.servers()).await.ok()?;
        let is_there =
            |name: &&String| name.starts_with(&format!("{},{},", address.ip(), address.port()));
        let path = format!("{}/{}", self.nodes.servers(), names.iter().find(is_there)?);
        let (data, _) = self.client.get_data(&path).await.ok()?;
        Some(pb::ServerRecord::decode(data).ok()?.instance)
    }

    /// The recovery of the server at `port` that the master learnt of at `since_ms` or later. Waits
    /// for its end, which is recorded soon after the last region is served.
    pub(crate) async fn recovery(&self, port: u16, since_ms: u64) -> Option<pb::RecoveryRecord> {
        let looking = async {
            loop {
                let newest = self.newest_recovery(port).await;
                if let Some(record) = newest.filter(|record| record.learnt_ms >= since_ms) {
                    return record;
                }
                sleep(RECORD_PAUSE).await;
            }
        };
        timeout(RECORD_PATIENCE, looking).await.ok()
    }

    /// The newest recovery of a server at `port` that has ended.
    async fn newest_recovery(&self, port: u16) -> Option<pb::RecoveryRecord> {
        let (mut names, _) = self.client.get_children(&self.nodes.recoveries()).await.ok()?;
        names.sort();
        for name in names.iter().rev() {
            let path = format!("{}/{name}", self.nodes.recoveries());
            let (data, _) = self.client.get_data(&path).await.ok()?;
            let record = pb::RecoveryRecord::decode(data).ok()?;
            let server = record.server_name.parse::<basalt_model::ServerName>().ok()?;
            if server.port == port && record.done {
                return Some(record);
            }
        }
        None
    }

    /// The process that leads the coordinator.
    pub(crate) async fn coordinator_leader(&self, local: &LocalCluster) -> anyhow::Result<String> {
        for process in &local.plan().processes {
            let Some(address) = process.address(PortName::Client) else { continue };
            let says = timeout(WORD_TIMEOUT, self.ask(&address.to_string())).await;
            if matches!(says, Ok(Ok(text)) if text.contains("Mode: leader")) {
                return Ok(process.name.clone());
            }
        }
        Err(anyhow::anyhow!("no coordinator member reports that it is the leader"))
            .context("asked with srvr")
    }

    async fn ask(&self, address: &str) -> std::io::Result<String> {
        let mut connection = self.seams.network.connect(address).await?;
        connection.write_all(b"srvr").await?;
        let mut answer = Vec::new();
        connection.take(1 << 16).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// The phases of a recovery. `detected_after` is the time until the master learnt of the death.
pub(crate) fn phases(record: &pb::RecoveryRecord, detected_after: Duration) -> Phases {
    let milliseconds = |number| Some(Duration::from_millis(number));
    Phases {
        detect: Some(detected_after + Duration::from_millis(record.detect_ms)),
        fence: milliseconds(record.fence_ms),
        split: milliseconds(record.split_ms),
        assign: milliseconds(record.assign_ms),
        replay: milliseconds(record.replay_ms),
        total: Some(detected_after + Duration::from_millis(record.total_ms)),
    }
}
