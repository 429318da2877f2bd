//! The RPC registry: calls masters and region servers. One that fails is asked last the next time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use basalt_hbase_rpc::{Service, pb, schema, znode};
use basalt_model::{ReplicaId, ServerName};
use basalt_runtime::Random;
use tokio::time::Instant;

use crate::pool::Pool;
use crate::{Error, Result};

#[derive(Debug)]
pub(crate) struct BootstrapRegistry {
    servers: Vec<String>,
    /// The server to ask first.
    next: AtomicUsize,
}

// === impl BootstrapRegistry ===

impl BootstrapRegistry {
    pub(super) fn new(random: Random, servers: Vec<String>) -> Self {
        let first = random.in_range(0..servers.len().max(1) as u64);
        Self { servers, next: AtomicUsize::new(usize::try_from(first).unwrap_or(0)) }
    }

    pub(super) fn servers(&self) -> &[String] {
        &self.servers
    }

    pub(super) async fn cluster_id(&self, pool: &Pool, wait: Duration) -> Result<String> {
        let request = pb::GetClusterIdRequest {};
        let response: pb::GetClusterIdResponse =
            self.ask(pool, "GetClusterId", &request, wait).await?;
        response.cluster_id.ok_or_else(|| self.error("no cluster id"))
    }

    pub(super) async fn active_master(&self, pool: &Pool, wait: Duration) -> Result<ServerName> {
        let request = pb::GetActiveMasterRequest {};
        let response: pb::GetActiveMasterResponse =
            self.ask(pool, "GetActiveMaster", &request, wait).await?;
        let server = response.server_name.ok_or_else(|| self.error("no master is active"))?;
        znode::server_from_message(&server).map_err(|error| self.error(error))
    }

    pub(super) async fn meta_servers(
        &self,
        pool: &Pool,
        wait: Duration,
    ) -> Result<Vec<ServerName>> {
        let request = pb::GetMetaRegionLocationsRequest {};
        let response: pb::GetMetaRegionLocationsResponse =
            self.ask(pool, "GetMetaRegionLocations", &request, wait).await?;
        let mut servers = Vec::new();
        for location in &response.meta_locations {
            let parse = || {
                let region = schema::region_from_message(&location.region_info)?;
                let server = location.server_name.as_ref();
                Ok((region.replica, server.map(znode::server_from_message).transpose()?))
            };
            let (replica, server) =
                parse().map_err(|error: basalt_hbase_rpc::Error| self.error(error))?;
            // Replicas of HBase's meta region may lag, and use another name for it.
            servers.extend(server.filter(|_| replica == ReplicaId(0)));
        }
        Ok(servers)
    }

    async fn ask<M: prost::Message + Default>(
        &self,
        pool: &Pool,
        method: &'static str,
        request: &impl prost::Message,
        wait: Duration,
    ) -> Result<M> {
        let deadline = Instant::now() + wait;
        let mut last = self.error("it has no servers");
        for left in (1..=self.servers.len() as u32).rev() {
            let index = self.next.load(Ordering::Relaxed) % self.servers.len();
            // Each server gets its share of the remaining time.
            let wait = deadline.saturating_duration_since(Instant::now()) / left;
            let asked = tokio::time::timeout(wait, async {
                let connection = pool.get(&self.servers[index], Service::ClientMeta).await?;
                connection.call_decoded(method, request, &[], wait).await
            });
            // Stored before waiting: if the caller gives up, it asks another server the next time.
            self.next.store(index + 1, Ordering::Relaxed);
            match asked.await {
                Ok(Ok((response, _))) => {
                    self.next.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                Ok(Err(error)) => last = self.error(error),
                Err(_) => last = self.error(format!("no answer within {wait:?}")),
            }
        }
        Err(last)
    }

    fn error(&self, reason: impl ToString) -> Error {
        Error::Registry { registry: self.servers.join(","), reason: reason.to_string() }
    }
}
