//! The ZooKeeper registry. One session is kept while it works; no watches are set.

use std::time::Duration;

use basalt_hbase_rpc::znode;
use basalt_model::ServerName;
use basalt_runtime::Seams;
use basalt_zk::{Client, Options};
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::{Error, Result};

#[derive(Debug)]
pub(crate) struct ZooKeeperRegistry {
    seams: Seams,
    servers: Vec<String>,
    root: String,
    session: Mutex<Option<Client>>,
}

/// Long enough for any server to grant it, because nothing depends on its length.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that is silent for longer than this is replaced by another one.
const SILENCE_MAX: Duration = Duration::from_secs(2);

// === impl ZooKeeperRegistry ===

impl ZooKeeperRegistry {
    pub(super) fn new(seams: Seams, servers: Vec<String>, root: &str) -> Self {
        Self {
            seams,
            servers,
            root: root.trim_end_matches('/').to_owned(),
            session: Mutex::new(None),
        }
    }

    pub(super) fn servers(&self) -> &[String] {
        &self.servers
    }

    pub(super) async fn cluster_id(&self, wait: Duration) -> Result<String> {
        let data = self.read(znode::CLUSTER_ID, Instant::now() + wait).await?;
        znode::decode_cluster_id(data).map_err(|error| self.error(error))
    }

    pub(super) async fn active_master(&self, wait: Duration) -> Result<ServerName> {
        let data = self.read(znode::MASTER, Instant::now() + wait).await?;
        znode::decode_master(data).map_err(|error| self.error(error))
    }

    pub(super) async fn meta_servers(&self, wait: Duration) -> Result<Vec<ServerName>> {
        let deadline = Instant::now() + wait;
        let data = self.read(znode::META_SERVER, deadline).await?;
        let server = znode::decode_meta_server(data).map_err(|error| self.error(error))?;
        Ok(server.into_iter().collect())
    }

    async fn read(&self, name: &str, deadline: Instant) -> Result<Bytes> {
        let path = format!("{}/{name}", self.root);
        let read = timeout_at(deadline, async {
            let client = self.session().await?;
            client.get_data(&path).await
        });
        let (error, is_answer) = match read.await {
            Ok(Ok((data, _))) => return Ok(data),
            Ok(Err(error)) => (self.error(&error), error.code().is_some()),
            Err(_) => (self.error(format!("no answer about {path} in time")), false),
        };
        if !is_answer {
            // The session may no longer be usable; a new one finds a live server.
            *self.session.lock().await = None;
        }
        Err(error)
    }

    async fn session(&self) -> basalt_zk::Result<Client> {
        let mut session = self.session.lock().await;
        if let Some(client) = &*session {
            return Ok(client.clone());
        }
        let options = Options { silence_max: Some(SILENCE_MAX), ..Options::default() };
        let client = Client::connect(&self.seams, &self.servers, SESSION_TIMEOUT, options).await?;
        *session = Some(client.clone());
        Ok(client)
    }

    fn error(&self, reason: impl ToString) -> Error {
        Error::Registry { registry: self.servers.join(","), reason: reason.to_string() }
    }
}
