//! A client of one cluster: the state that its tables and its admin handle share.

use std::sync::Arc;
use std::time::Duration;

use basalt_model::TableName;
use basalt_runtime::Seams;
use tokio::time::timeout;

use crate::locate::Locator;
use crate::pool::Pool;
use crate::registry::Registry;
use crate::{Admin, Error, RegistryConfig, Result, RetryConfig, Table};

/// Which cluster to connect to, and as which user.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// How the cluster is found.
    pub registry: RegistryConfig,
    /// The user to act as. Default `basalt`.
    pub user: String,
    /// How failed attempts are retried.
    pub retry: RetryConfig,
    /// How long one lookup in the registry or the meta table may take. Default 1 s.
    pub lookup_timeout: Duration,
    /// How many regions the lookup of an unknown region reads: that region and those before it.
    /// Default 100.
    pub prefetch_regions: u32,
    /// How long a timeline read waits for the primary before it asks the replicas too.
    /// Default 10 ms.
    pub primary_wait: Duration,
}

/// A client of one cluster; a cheap handle. It opens connections only when they are needed.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) shared: Arc<ConnectionShared>,
}

#[derive(Debug)]
pub(crate) struct ConnectionShared {
    pub(crate) config: ConnectionConfig,
    pub(crate) seams: Seams,
    pub(crate) pool: Pool,
    pub(crate) registry: Registry,
    pub(crate) locator: Locator,
    /// Identifies the client in its nonces.
    pub(crate) nonce_group: u64,
}

// === impl ConnectionConfig ===

impl ConnectionConfig {
    /// The defaults, for the cluster of `registry`.
    pub fn new(registry: RegistryConfig) -> Self {
        Self {
            registry,
            user: "basalt".to_owned(),
            retry: RetryConfig::default(),
            lookup_timeout: Duration::from_secs(1),
            prefetch_regions: 100,
            primary_wait: Duration::from_millis(10),
        }
    }
}

// === impl Connection ===

impl Connection {
    /// A client of the cluster in `config`, over `seams`.
    pub fn new(seams: &Seams, config: ConnectionConfig) -> Self {
        let shared = ConnectionShared {
            pool: Pool::new(seams.network.clone(), config.user.clone()),
            registry: Registry::new(&config.registry, seams),
            locator: Locator::default(),
            nonce_group: nonzero(seams),
            seams: seams.clone(),
            config,
        };
        Self { shared: Arc::new(shared) }
    }

    /// A handle to a table, which need not exist yet.
    pub fn table(&self, name: &TableName) -> Table {
        Table::new(self.clone(), name)
    }

    /// A handle to the cluster's tables and servers.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// [`Error::Registry`] if it does not answer within the operation timeout.
    pub async fn cluster_id(&self) -> Result<String> {
        let shared = &self.shared;
        shared.retried("cluster id", |wait| shared.registry.cluster_id(&shared.pool, wait)).await
    }
}

// === impl ConnectionShared ===

impl ConnectionShared {
    /// Makes attempts as configured in `retry`.
    pub(crate) async fn retried<T, F: Future<Output = Result<T>>>(
        &self,
        operation: &'static str,
        attempt: impl FnMut(Duration) -> F,
    ) -> Result<T> {
        self.config.retry.run(&self.seams.random, operation, attempt).await
    }

    /// A number that identifies one write, so that it is applied once however often it is sent.
    pub(crate) fn nonce(&self) -> u64 {
        nonzero(&self.seams)
    }
}

/// Runs `future`, for no longer than `wait`.
pub(crate) async fn within<T>(
    wait: Duration,
    what: &'static str,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout(wait, future).await {
        Ok(result) => result,
        Err(_) => Err(Error::NotFoundInTime { what, waited: wait }),
    }
}

/// Servers treat zero as "no nonce".
fn nonzero(seams: &Seams) -> u64 {
    seams.random.next_u64().max(1)
}
