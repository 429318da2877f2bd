//! Drains a region server as the operator does when a cluster is scaled in: it tells the active
//! master, again and again, that the server is to go. It is undone by telling the master otherwise.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use basalt_cluster::pb;
use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_runtime::{Network, grpc};
use tokio::time::{sleep, timeout};

use crate::demo::Observer;

/// Who tells the active master.
pub(super) struct Drainer<'a> {
    pub(super) network: &'a Network,
    pub(super) observer: &'a Observer,
}

/// How long a master may take to connect, and to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Before it is told again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a master may take to be there and to have been told.
const PATIENCE: Duration = Duration::from_secs(60);

// === impl Drainer ===

impl Drainer<'_> {
    /// Drains the region server at `address` for `lasts`. Gives how many regions it had at the end,
    /// if the master said so.
    ///
    /// # Errors
    /// It does not register in time.
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
        let telling = async {
            loop {
                // Whoever has become the active master in between has not been told yet.
                if let Ok(reply) = self.send_pods(vec![pod.clone()]).await {
                    left = reply.regions.get(&uid).copied();
                }
                sleep(PAUSE).await;
            }
        };
        let _ = timeout(lasts, telling).await;
        Ok(left)
    }

    /// Undoes all drains.
    ///
    /// # Errors
    /// No master is told in time.
    pub(super) async fn undo(&self) -> anyhow::Result<()> {
        let telling = async {
            while self.send_pods(Vec::new()).await.is_err() {
                sleep(PAUSE).await;
            }
        };
        timeout(PATIENCE, telling).await.context("no master undoes a drain")
    }

    /// Tells the active master which servers are to go.
    async fn send_pods(&self, pods: Vec<pb::Pod>) -> anyhow::Result<pb::PodsReply> {
        let master =
            self.observer.active_master_peer().await.context("there is no active master")?;
        let channel = grpc::channel(self.network, &master, CONNECT_TIMEOUT)?;
        let mut client = MasterPeerClient::new(channel);
        let asked = timeout(ANSWER_TIMEOUT, client.pods(pb::PodsRequest { pods })).await;
        Ok(asked.context("the master does not answer")??.into_inner())
    }
}
