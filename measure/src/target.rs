//! A cluster to measure: how to find it, and its table.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use basalt_client::{Connection, ConnectionConfig, Error as ClientError, Get, RegistryConfig};
use basalt_model::{FamilyDescriptor, TableDescriptor, TableName};
use basalt_runtime::Seams;
use bytes::Bytes;
use futures::StreamExt as _;

use crate::{Error, Result};

/// How to find a cluster: `zk:host:port,host:port/znode` or `bootstrap:host:port,host:port`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// Through ZooKeeper.
    ZooKeeper {
        /// The servers, each as `host:port`.
        servers: Vec<String>,
        /// The parent of the cluster's nodes.
        root: String,
    },
    /// Through masters and region servers.
    Bootstrap {
        /// Some of them, each as `host:port`.
        servers: Vec<String>,
    },
}

/// The default parent of the nodes of Apache HBase, and of Basalt.
pub const DEFAULT_ROOT: &str = "/hbase";
/// A server that does not return the location of a region within this time is skipped.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(200);
/// How often to check whether all regions of a new table are online.
const ONLINE_POLL: Duration = Duration::from_millis(100);
/// How long the regions may take to come online.
const ONLINE_TIMEOUT: Duration = Duration::from_secs(120);
/// How many regions are read concurrently.
const READS_AT_ONCE: usize = 64;
/// The key prefix of a new table, as in YCSB: `user` followed by digits.
const KEY_PREFIX: &str = "user";

// === impl Target ===

impl Target {
    /// Creates a connection; it opens sockets only when it needs them.
    pub fn connect(&self, seams: &Seams) -> Connection {
        let registry = match self.clone() {
            Self::ZooKeeper { servers, root } => RegistryConfig::ZooKeeper { servers, root },
            Self::Bootstrap { servers } => RegistryConfig::Bootstrap { servers },
        };
        let config =
            ConnectionConfig { lookup_timeout: LOOKUP_TIMEOUT, ..ConnectionConfig::new(registry) };
        Connection::new(seams, config)
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::BadTarget { text: text.to_owned() };
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        let (servers, root) = match rest.split_once('/') {
            Some((servers, root)) => (servers, format!("/{root}")),
            None => (rest, DEFAULT_ROOT.to_owned()),
        };
        let servers: Vec<_> = servers.split(',').map(|server| server.trim().to_owned()).collect();
        let is_address = |server: &String| {
            server.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        if !servers.iter().all(is_address) {
            return Err(bad());
        }
        match kind {
            "zk" => Ok(Self::ZooKeeper { servers, root }),
            "bootstrap" if !rest.contains('/') => Ok(Self::Bootstrap { servers }),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZooKeeper { servers, root } => {
                write!(formatter, "zk:{}{root}", servers.join(","))
            }
            Self::Bootstrap { servers } => write!(formatter, "bootstrap:{}", servers.join(",")),
        }
    }
}

/// Creates `table` with one family and `regions` regions if it does not exist. Returns its first
/// family.
///
/// # Errors
/// The cluster does not answer, or rejects a request.
pub async fn ensure_table(
    connection: &Connection,
    table: &TableName,
    family: &str,
    regions: u32,
) -> Result<String> {
    let admin = connection.admin();
    if !admin.table_exists(table).await? {
        let descriptor = TableDescriptor {
            name: table.clone(),
            families: [(family.to_owned(), FamilyDescriptor::new(family))].into(),
            region_replication: 1,
            settings: std::collections::BTreeMap::new(),
        };
        admin.create_table(&descriptor, &split_keys(regions)).await?;
    }
    wait_online(connection, table).await?;
    let descriptor = admin.descriptor(table).await?;
    let first = descriptor.families.into_keys().next();
    first.ok_or_else(|| Error::NoFamily { table: table.clone() })
}

/// Waits until every region of `table` is assigned and answers.
///
/// # Errors
/// They do not in time.
pub async fn wait_online(connection: &Connection, table: &TableName) -> Result<()> {
    let waiting = async {
        loop {
            if is_whole(connection, table).await {
                return;
            }
            tokio::time::sleep(ONLINE_POLL).await;
        }
    };
    let waited = tokio::time::timeout(ONLINE_TIMEOUT, waiting).await;
    waited.map_err(|_| Error::NotOnline { table: table.clone(), waited: ONLINE_TIMEOUT })
}

/// Deletes `table` if it exists.
///
/// # Errors
/// The cluster does not answer, or rejects a request.
pub async fn drop_table(connection: &Connection, table: &TableName) -> Result<()> {
    let admin = connection.admin();
    if admin.table_exists(table).await? {
        if admin.is_enabled(table).await? {
            admin.disable_table(table).await?;
        }
        admin.delete_table(table).await?;
    }
    Ok(())
}

/// The cluster's version and the number of its region servers, in words.
///
/// # Errors
/// The master does not answer.
pub async fn describe(connection: &Connection) -> Result<String> {
    let cluster = connection.admin().cluster().await?;
    let version = cluster.version.unwrap_or_else(|| "unknown version".to_owned());
    Ok(format!("{version}, {} region servers", cluster.live_servers.len()))
}

/// Whether the assigned regions cover the whole key space without a gap, and all of them answer.
async fn is_whole(connection: &Connection, table: &TableName) -> bool {
    let Ok::<_, ClientError>(regions) = connection.admin().regions(table).await else {
        return false;
    };
    let mut next = Bytes::new();
    for location in &regions {
        if location.region.start_key != next {
            return false;
        }
        next = location.region.end_key.clone();
    }
    if regions.is_empty() || !next.is_empty() {
        return false;
    }
    let table = connection.table(table);
    let reads = regions.iter().map(|location| async {
        // A row key must not be empty.
        let first = [&location.region.start_key[..], b"\0"].concat();
        table.get(&Get::new(first)).await.is_ok()
    });
    let reads: Vec<_> = reads.collect();
    futures::stream::iter(reads).buffer_unordered(READS_AT_ONCE).all(std::future::ready).await
}

fn split_keys(regions: u32) -> Vec<Bytes> {
    let regions = u64::from(regions.max(1));
    let key = |index| format!("{KEY_PREFIX}{:08}", index * 100_000_000 / regions).into();
    (1..regions).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let target: Target = "zk:a:2181,b:2182".parse().unwrap();
        assert_eq!(target.to_string(), "zk:a:2181,b:2182/hbase");
        let target: Target = "zk:a:2181/x/y".parse().unwrap();
        assert_eq!(target.to_string(), "zk:a:2181/x/y");
        let target: Target = "bootstrap:a:16000".parse().unwrap();
        assert_eq!(target.to_string(), "bootstrap:a:16000");
        for bad in ["", "a:2181", "zk:", "zk:a", "zk:a:0", "bootstrap:a:1/b", "http:a:1"] {
            let error = bad.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("zk:host:port"), "{error}");
        }
    }

    #[test]
    fn a_table_is_cut_evenly() {
        assert_eq!(split_keys(4), ["user25000000", "user50000000", "user75000000"]);
        assert!(split_keys(1).is_empty());
    }
}
