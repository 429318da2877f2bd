//! Finds the cluster: the two registries of HBase.

mod bootstrap;
mod zookeeper;

use std::time::Duration;

use basalt_model::ServerName;
use basalt_runtime::Seams;

use crate::pool::Pool;
use crate::{Error, Result};

/// How a client finds the cluster.
#[derive(Clone, Debug)]
pub enum RegistryConfig {
    /// By the znodes of the cluster. HBase's default up to 2.6.
    ZooKeeper {
        /// The servers of the ensemble, `host:port` each.
        servers: Vec<String>,
        /// The path of the cluster's znodes; `/hbase` by default.
        root: String,
    },
    /// By calls to masters or region servers. HBase's default from 3.0.
    Bootstrap {
        /// Some of them, `host:port` each.
        servers: Vec<String>,
    },
}

/// A registry in use.
#[derive(Debug)]
pub(crate) enum Registry {
    ZooKeeper(zookeeper::ZooKeeperRegistry),
    Bootstrap(bootstrap::BootstrapRegistry),
}

// === impl Registry ===

impl Registry {
    pub(crate) fn new(config: &RegistryConfig, seams: &Seams) -> Self {
        match config {
            RegistryConfig::ZooKeeper { servers, root } => Self::ZooKeeper(
                zookeeper::ZooKeeperRegistry::new(seams.clone(), servers.clone(), root),
            ),
            RegistryConfig::Bootstrap { servers } => Self::Bootstrap(
                bootstrap::BootstrapRegistry::new(seams.random.clone(), servers.clone()),
            ),
        }
    }

    /// The cluster's id.
    pub(crate) async fn cluster_id(&self, pool: &Pool, wait: Duration) -> Result<String> {
        match self {
            Self::ZooKeeper(registry) => registry.cluster_id(wait).await,
            Self::Bootstrap(registry) => registry.cluster_id(pool, wait).await,
        }
    }

    /// The active master.
    pub(crate) async fn active_master(&self, pool: &Pool, wait: Duration) -> Result<ServerName> {
        match self {
            Self::ZooKeeper(registry) => registry.active_master(wait).await,
            Self::Bootstrap(registry) => registry.active_master(pool, wait).await,
        }
    }

    /// The servers that have the meta table. Never empty.
    pub(crate) async fn meta_servers(
        &self,
        pool: &Pool,
        wait: Duration,
    ) -> Result<Vec<ServerName>> {
        let servers = match self {
            Self::ZooKeeper(registry) => registry.meta_servers(wait).await?,
            Self::Bootstrap(registry) => registry.meta_servers(pool, wait).await?,
        };
        if servers.is_empty() {
            return Err(self.error("no server has the meta table"));
        }
        Ok(servers)
    }

    fn error(&self, reason: impl ToString) -> Error {
        let servers = match self {
            Self::ZooKeeper(registry) => registry.servers(),
            Self::Bootstrap(registry) => registry.servers(),
        };
        Error::Registry { registry: servers.join(","), reason: reason.to_string() }
    }
}
