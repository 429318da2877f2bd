//! The configuration of a master process.

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
    /// The address of the HBase RPC. Port 0 selects a free port.
    pub rpc_listen: SocketAddr,
    /// The host by which clients and servers reach this master.
    pub advertised_host: String,
    /// The address of the gRPC services. Port 0 selects a free port.
    pub peer_listen: SocketAddr,
    /// The port of the admin pages, as clients see it.
    pub info_port: u16,
    /// The coordinator's members, each `host:port`.
    pub coordinators: Vec<String>,
    /// The node below which the cluster's records are stored, `/basalt` by default.
    pub nodes_parent: String,
    /// The node below which clients look for the cluster, `/hbase` by default.
    pub client_parent: String,
    /// The timeouts and intervals.
    pub timers: MasterTimers,
    /// Tables that are created if they are missing.
    pub declared_tables: Vec<DeclaredTable>,
    /// The rack this process runs in.
    pub rack: String,
    /// Identifies this process to whatever started it.
    pub instance: String,
    /// Decides when this master may campaign: with the Lease, or always.
    pub guard: LeaseGuard,
    /// A sentence for each storage setting that differs from what the failover guarantee needs,
    /// once that is known. Reported on request.
    pub storage_deviations: Option<watch::Receiver<Option<Vec<String>>>>,
    /// The highest feature level that this process knows. Except in tests of upgrades, that is the
    /// level of its release.
    pub feature_level: FeatureLevel,
    /// Receives the addresses once they are bound.
    pub ready: Option<oneshot::Sender<BoundAddresses>>,
}

/// The addresses that a master listens on.
#[derive(Clone, Copy, Debug)]
pub struct BoundAddresses {
    /// The address of the HBase RPC.
    pub rpc: SocketAddr,
    /// The address of the gRPC services.
    pub peer: SocketAddr,
}

/// A table that is declared in the manifest.
#[derive(Clone, Debug)]
pub struct DeclaredTable {
    /// The table.
    pub descriptor: TableDescriptor,
    /// The start keys of its regions, except for the first region.
    pub split_keys: Vec<Bytes>,
}

/// The master's timers. They follow from the manifest's `failover.target`.
#[derive(Clone, Copy, Debug)]
pub struct MasterTimers {
    /// The timeout of the coordinator session.
    pub session_timeout: Duration,
    /// How long a region server may serve after it sent its last renewal.
    pub lease: Duration,
    /// How far two clocks may drift apart during a lease.
    pub drift_margin: Duration,
    /// How far the wall clock of a region server may be off.
    pub clock_bound: Duration,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// When an order to a region server times out and is sent again.
    pub order_timeout: Duration,
    /// The interval at which the master looks for regions to assign or move, in addition to each
    /// change.
    pub reconcile_interval: Duration,
    /// The interval at which the balancer may move regions.
    pub balance_interval: Duration,
    /// How long the balancer rests after a server has joined, left or begun to drain. During a
    /// rolling restart the next change comes within that time and moves the regions anyway.
    pub balance_rest: Duration,
    /// How long the first assignments wait for more region servers after the first one has joined.
    pub settle: Duration,
    /// How long all live servers must have known a higher feature level before the cluster's level
    /// is raised to it. Until then the servers can go back to their earlier release.
    pub feature_level_delay: Duration,
    /// How long an alteration of a table waits for regions that are being opened before it has them
    /// opened anew. Longer than a replay usually takes.
    pub reopening_wait: Duration,
}

// === impl MasterTimers ===

impl Default for MasterTimers {
    /// The timers for a failover target of 3 s.
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
            reopening_wait: Duration::from_mins(1),
        }
    }
}

impl MasterTimers {
    /// How long a server may still consider its lease valid after it has been declared dead.
    pub fn lease_ends_after(&self) -> Duration {
        self.lease + self.drift_margin
    }
}
