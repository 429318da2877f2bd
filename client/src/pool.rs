//! One connection per server and service, opened when it is first needed and shared by all callers.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_hbase_rpc::{CallError, CallResult, Connection, ConnectionOptions, Service};
use basalt_runtime::Network;
use parking_lot::Mutex;

/// The connections of a client. Failed ones are reopened when they are next needed.
#[derive(Debug)]
pub(crate) struct Pool {
    network: Network,
    user: String,
    servers: Mutex<BTreeMap<(String, Service), Arc<Slot>>>,
}

/// A caller that finds no connection opens one; other callers wait for it.
type Slot = tokio::sync::Mutex<Option<Connection>>;

/// How many servers are remembered. Above this number, servers that are not in use are forgotten.
const SERVERS_MAX: usize = 4096;

// === impl Pool ===

impl Pool {
    pub(crate) fn new(network: Network, user: String) -> Self {
        Self { network, user, servers: Mutex::new(BTreeMap::new()) }
    }

    /// The connection to `address`. Sets no timeout except that of connecting.
    pub(crate) async fn get(&self, address: &str, service: Service) -> CallResult<Connection> {
        let slot = self.slot(address, service);
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|open| !open.is_failed()) {
            return Ok(connection.clone());
        }
        let options = ConnectionOptions::new(service, &self.user);
        let connection = Connection::open(&self.network, address, &options).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Handles the `error` of a call on `connection`. If the server no longer answers at all, the
    /// next call gets a new connection.
    pub(crate) fn note_failure(
        &self,
        connection: &Connection,
        service: Service,
        error: &CallError,
    ) {
        if !matches!(error, CallError::TimedOut { silent: true, .. }) {
            return;
        }
        let slot = self.slot(connection.address(), service);
        // If the lock is held, another task is connecting, so the connection is already a new one.
        if let Ok(mut slot) = slot.try_lock()
            && slot.as_ref().is_some_and(|open| open.is_same(connection))
        {
            *slot = None;
        }
    }

    fn slot(&self, address: &str, service: Service) -> Arc<Slot> {
        let mut servers = self.servers.lock();
        if servers.len() >= SERVERS_MAX {
            servers.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        servers.entry((address.to_owned(), service)).or_default().clone()
    }
}
