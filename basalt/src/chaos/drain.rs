//! Drains a region server as the operator does in a scale-in: it reports to the active master,
//! again and again, that the server is draining. The drain is undone by a report without the
//! server.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use basalt_cluster::pb;
use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_runtime::{Network, grpc};
use tokio::time::{sleep, timeout};

use crate::demo::Observer;

/// Sends reports to the active master.
pub(super) struct Drainer<'a> {
    pub(super) network: &'a Network,
    pub(super) observer: &'a Observer,
}

/// How long it may take to connect to a master, and how long the master may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two reports.
const PAUSE: Duration = Duration::from_millis(200);
/// How long it may take until a master is active and has received a report.
const PATIENCE: Duration = Duration::from_secs(60);

// === impl Drainer ===

impl Drainer<'_> {
    /// Drains the region server at `address` for `lasts`. Returns the number of regions that it had
    /// at the end, if the master reported it.
    ///
    /// # Errors
    /// The server does not register in time.
    pub(super) async fn drain(
        &self,
        address: SocketAddr,
        lasts: Duration,
    ) -> anyhow::Result<Option<u32>> {
        let registered = async {
            loop {
                match self.observer.instance_at(address).await {
                    Some(instance) => return instance,
                    None => sleep(PAUSE).await,
                }
            }
        };
        let uid = timeout(PATIENCE, registered).await.context("it is not registered")?;
        let pod = pb::Pod { uid: uid.clone(), rack: String::new(), draining: true };
        let mut left = None;
        let sending = async {
            loop {
                // A master that has become active in the meantime has not received the report yet.
                if let Ok(reply) = self.send_pods(vec![pod.clone()]).await {
                    left = reply.regions.get(&uid).copied();
                }
                sleep(PAUSE).await;
            }
        };
        let _ = timeout(lasts, sending).await;
        Ok(left)
    }

    /// Undoes all drains.
    ///
    /// # Errors
    /// No master receives the report in time.
    pub(super) async fn undo(&self) -> anyhow::Result<()> {
        let sending = async {
            while self.send_pods(Vec::new()).await.is_err() {
                sleep(PAUSE).await;
            }
        };
        timeout(PATIENCE, sending).await.context("no master undoes a drain")
    }

    /// Reports to the active master which servers are draining.
    async fn send_pods(&self, pods: Vec<pb::Pod>) -> anyhow::Result<pb::PodsReply> {
        let master =
            self.observer.active_master_peer().await.context("there is no active master")?;
        let channel = grpc::channel(self.network, &master, CONNECT_TIMEOUT)?;
        let mut client = MasterPeerClient::new(channel);
        let asked = timeout(ANSWER_TIMEOUT, client.pods(pb::PodsRequest { pods })).await;
        Ok(asked.context("the master does not answer")??.into_inner())
    }
}
