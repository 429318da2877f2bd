//! When a client learns that a procedure has ended: only after every live server shows its effects.
//!
//! Masters and region servers answer from copies of the catalog, which lag behind the coordinator.
//! A client that learns that its table exists must find it on whichever server it asks next. The
//! end of a procedure is therefore reported only after every copy has caught up, or after the
//! session timeout: a server that has had no contact for that long has lost its session and answers
//! no requests. Look-ups do not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_cluster::pb;
use basalt_cluster::pb::master_peer_client::MasterPeerClient;
use basalt_model::ServerName;
use basalt_planted::{Rule, is_off};
use basalt_runtime::grpc;
use basalt_zk::proto::ErrorCode;
use prost::Message;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::orders;
use crate::term::Term;

/// The pause before a server that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// The role of a server whose catalog clients read, apart from this master.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Role {
    RegionServer,
    Standby,
}

/// Makes the ends of procedures of earlier terms visible, once the catalogs show their effects.
pub(crate) async fn show_earlier_ends(term: Arc<Term>) {
    let ended = term.procedure_store.not_shown();
    term.wait_for_catalogs().await;
    ended.into_iter().for_each(|id| term.procedure_store.shown(id));
    term.catalogs_shown.send_replace(true);
}

// === impl Term ===

impl Term {
    /// Makes the end of procedure `id` visible, once the catalogs show its effects.
    pub(super) async fn show_end(&self, id: u64) {
        if self.procedure_store.not_shown().contains(&id) {
            self.wait_for_catalogs().await;
            self.procedure_store.shown(id);
        }
    }

    /// Waits until this master's catalog shows the effects of earlier terms. Waits at most the
    /// session timeout.
    pub(crate) async fn catalog_is_shown(&self) {
        let mut shown = self.catalogs_shown.subscribe();
        let _ = timeout(self.timers.session_timeout, shown.wait_for(|shown| *shown)).await;
    }

    /// Waits until the catalogs of all live servers show everything that is committed now.
    async fn wait_for_catalogs(&self) {
        if is_off(Rule::CatalogsBeforeEnd) {
            return;
        }
        let waiting = async {
            while let Err(error) = self.views.catalog().catch_up().await {
                tracing::warn!(%error, "the catalog does not catch up");
                tokio::time::sleep(PAUSE).await;
            }
            let mut shown = BTreeSet::new();
            loop {
                // Servers that have joined meanwhile have read the catalog too, but perhaps an old
                // state.
                let Ok(servers) = self.readers().await else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let servers = servers.into_iter().filter(|(key, _)| shown.insert(key.clone()));
                let asked = servers.map(|((role, server), address)| async move {
                    self.wait_for_catalog(role, &server, &address).await;
                });
                let asked: Vec<_> = asked.collect();
                if asked.is_empty() {
                    return;
                }
                futures::future::join_all(asked).await;
            }
        };
        if timeout(self.timers.session_timeout, waiting).await.is_err() {
            tracing::warn!("not every catalog is known to show the changes");
        }
    }

    /// The servers that answer from their catalogs, with their addresses.
    async fn readers(&self) -> Result<BTreeMap<(Role, ServerName), String>, basalt_zk::Error> {
        let servers = self.views.servers().into_iter();
        let servers =
            servers.map(|(server, record)| ((Role::RegionServer, server), record.peer_address));
        let mut readers: BTreeMap<_, _> = servers.collect();
        let (client, nodes) = (self.store.client(), self.store.nodes());
        let (masters, _) = client.get_children(&nodes.masters()).await?;
        for name in masters {
            let Ok(server) = name.parse::<ServerName>() else { continue };
            if server == self.server {
                continue;
            }
            let data = match client.get_data(&nodes.standby(&server)).await {
                Ok((data, _)) => data,
                Err(error) if error.code() == Some(ErrorCode::NoNode) => continue,
                Err(error) => return Err(error),
            };
            let Ok(record) = pb::ServerRecord::decode(data) else { continue };
            readers.insert((Role::Standby, server), record.peer_address);
        }
        Ok(readers)
    }

    /// Waits until a server's catalog has caught up, or until the server is dead.
    async fn wait_for_catalog(&self, role: Role, server: &ServerName, address: &str) {
        loop {
            let asked = async {
                tokio::select! {
                    biased;
                    asked = self.ask_to_catch_up(role, server, address) => asked,
                    () = self.death_of_reader(role, server) => Ok(()),
                }
            };
            match asked.await {
                Ok(()) => return,
                // A server of an earlier release, during an upgrade.
                Err(status) if status.code() == Code::Unimplemented => return,
                Err(status) => {
                    tracing::debug!(%server, status = orders::lost(&status), "did not catch up");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask_to_catch_up(
        &self,
        role: Role,
        server: &ServerName,
        address: &str,
    ) -> Result<(), Status> {
        let request = pb::CatchUpRequest { master_epoch: self.store.epoch().0 };
        let request = orders::within(self.timers.session_timeout, request);
        match role {
            Role::RegionServer => {
                self.orders.client(server, address)?.catch_up(request).await?;
            }
            Role::Standby => {
                let channel = grpc::channel(&self.network, address, self.timers.connect_timeout);
                let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
                MasterPeerClient::new(channel).catch_up(request).await?;
            }
        }
        Ok(())
    }

    async fn death_of_reader(&self, role: Role, server: &ServerName) {
        match role {
            Role::RegionServer => self.views.death_of(server).await,
            Role::Standby => {
                let node = self.store.nodes().standby(server);
                while !matches!(self.store.client().exists(&node).await, Ok(None)) {
                    tokio::time::sleep(self.timers.reconcile_interval).await;
                }
            }
        }
    }
}
