//! The settings of a region server.

use std::net::SocketAddr;
use std::time::Duration;

use basalt_model::FeatureLevel;
use tokio::sync::oneshot;

/// The addresses, connections and limits of a region server.
#[derive(Debug)]
pub struct Config {
    /// The host under which clients and other servers reach it.
    pub host: String,
    /// The address on which the HBase RPC listens; port 0 picks a free port.
    pub rpc_listen: SocketAddr,
    /// The address on which the gRPC services listen; port 0 picks a free port.
    pub peer_listen: SocketAddr,
    /// The `host:port` of each coordinator.
    pub coordinators: Vec<String>,
    /// The node that holds the cluster's records, such as `/basalt`.
    pub nodes_parent: String,
    /// Identifies this process to the process that started it.
    pub instance: String,
    /// The rack of its machine; empty if unknown.
    pub rack: String,
    /// The session with the coordinator ends after this long without contact.
    pub session_timeout: Duration,
    /// How long the serving lease runs from a renewal.
    pub lease: Duration,
    /// How often the lease is renewed.
    pub renewal_interval: Duration,
    /// How long a clean stop may take.
    pub stop_timeout: Duration,
    /// How far the clock may be off, in either direction.
    pub clock_bound: Duration,
    /// The limits of each region.
    pub region: RegionConfig,
    /// The size in bytes at which a log file is closed and the next one begun.
    pub wal_roll_bytes: u64,
    /// How many log files may exist before regions are flushed so that the oldest can be deleted.
    pub wal_files_max: usize,
    /// The limit for all memstores together, in bytes. Above it, the largest are flushed. Above
    /// twice the limit, no edits are accepted.
    pub memstores_bytes_max: u64,
    /// The size of the block cache, in bytes.
    pub block_cache_bytes: u64,
    /// How many calls are processed at once.
    pub calls_max: usize,
    /// The highest feature level that this process knows. It is the level of its release, except in
    /// tests of upgrades.
    pub feature_level: FeatureLevel,
    /// Receives the bound addresses once the server is registered.
    pub ready: Option<oneshot::Sender<Addresses>>,
}

/// The limits of each region.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    /// The total size at which a region's memstores are flushed, in bytes.
    pub flush_bytes: u64,
    /// The total size above which a region accepts no edits, in bytes.
    pub memstore_bytes_max: u64,
    /// How long a request waits for a late renewal of the lease.
    pub lease_patience: Duration,
    /// How many store files a family may have before it is compacted.
    pub compaction_files_min: usize,
    /// How long a region is not compacted after it has been opened here: other regions may be
    /// opening at the same time, and the region may be moved again soon.
    pub compaction_rest: Duration,
}

/// The addresses that were bound.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The address of the HBase RPC.
    pub rpc: SocketAddr,
    /// The address of the gRPC services.
    pub peer: SocketAddr,
}

// === impl RegionConfig ===

impl Default for RegionConfig {
    fn default() -> Self {
        Self {
            flush_bytes: 128 << 20,
            memstore_bytes_max: 512 << 20,
            lease_patience: Duration::from_secs(1),
            compaction_files_min: 3,
            compaction_rest: Duration::from_secs(10),
        }
    }
}
