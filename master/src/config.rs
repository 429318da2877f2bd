//! What a master is told when it starts.

use std::net::SocketAddr;
use std::time::Duration;

use basalt_model::{FeatureLevel, TableDescriptor};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::election::LeaseGuard;

/// The settings of one master process.
#[derive(Debug)]
pub struct Config {
    /// The name of the cluster, for logs and pages.
    pub cluster_name: String,
    /// Where the HBase RPC listens; port 0 takes a free one.
    pub rpc_listen: SocketAddr,
    /// The host by which clients and servers reach this master.
    pub advertised_host: String,
    /// Where the gRPC services listen; port 0 takes a free one.
    pub peer_listen: SocketAddr,
    /// The port of the admin pages, as told to clients.
    pub info_port: u16,
    /// The coordinator's members, each `host:port`.
    pub coordinators: Vec<String>,
    /// The node below which the cluster's records lie, `/basalt` by default.
    pub nodes_parent: String,
    /// The node below which clients look for the cluster, `/hbase` by default.
    pub client_parent: String,
    /// How long this and that may take.
    pub timers: MasterTimers,
    /// Tables that are made when they are missing.
    pub declared_tables: Vec<DeclaredTable>,
    /// The rack this process runs in.
    pub rack: String,
    /// Which process this is to the one who started it.
    pub instance: String,
    /// Opens when this master may campaign: with the Lease, or always.
    pub guard: LeaseGuard,
    /// Which settings of the storage the promise needs otherwise, a sentence each, once that is
    /// known: for whoever asks.
    pub storage_deviations: Option<watch::Receiver<Option<Vec<String>>>>,
    /// The highest feature level that this process knows: that of its release, but in tests of
    /// upgrades.
    pub feature_level: FeatureLevel,
    /// Told the addresses once they are bound.
    pub ready: Option<oneshot::Sender<BoundAddresses>>,
}

/// The addresses that a master listens on.
#[derive(Clone, Copy, Debug)]
pub struct BoundAddresses {
    /// Of the HBase RPC.
    pub rpc: SocketAddr,
    /// Of the gRPC services.
    pub peer: SocketAddr,
}

/// A table of the manifest.
#[derive(Clone, Debug)]
pub struct DeclaredTable {
    /// The table.
    pub descriptor: TableDescriptor,
    /// The first rows of its regions but the first.
    pub split_keys: Vec<Bytes>,
}

/// The master's timers; the manifest's `failover.target` gives them.
#[derive(Clone, Copy, Debug)]
pub struct MasterTimers {
    /// The coordinator's session.
    pub session_timeout: Duration,
    /// How long a region server may serve after it sent its last renewal.
    pub lease: Duration,
    /// How far clocks may run apart during a lease.
    pub drift_margin: Duration,
    /// How far the clock of a region server may be off.
    pub clock_bound: Duration,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// After how long an order to a region server is given up and given again.
    pub order_timeout: Duration,
    /// How often is looked for regions to assign or to move, besides at each change.
    pub reconcile_interval: Duration,
    /// How often the balancer may move regions.
    pub balance_interval: Duration,
    /// How long the balancer rests after a server has come, gone or begun to drain. In a roll the
    /// next change comes within that time, and moves the regions anyway.
    pub balance_rest: Duration,
    /// After the first region server came, how long the first assignments wait for others.
    pub settle: Duration,
    /// For how long all living servers must know a higher feature level before the cluster's is
    /// raised to it: until then the servers can go back to their earlier release.
    pub feature_level_delay: Duration,
}

// === impl MasterTimers ===

impl Default for MasterTimers {
    /// The timers of a failover target of 3 s.
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_millis(1_500),
            lease: Duration::from_millis(600),
            drift_margin: Duration::from_millis(100),
            clock_bound: Duration::from_secs(1),
            connect_timeout: Duration::from_millis(500),
            order_timeout: Duration::from_secs(20),
            reconcile_interval: Duration::from_millis(500),
            balance_interval: Duration::from_secs(2),
            balance_rest: Duration::from_secs(5),
            settle: Duration::from_millis(150),
            feature_level_delay: Duration::from_mins(10),
        }
    }
}

impl MasterTimers {
    /// How long after its committed death a server may still believe in its lease.
    pub fn lease_ends_after(&self) -> Duration {
        self.lease + self.drift_margin
    }
}
