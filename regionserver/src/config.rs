//! The settings of a region server.

use std::net::SocketAddr;
use std::time::Duration;

use basalt_model::FeatureLevel;
use tokio::sync::oneshot;

/// Where a region server listens, whom it talks to, and by which limits it works.
#[derive(Debug)]
pub struct Config {
    /// The host that clients and other servers reach it by.
    pub host: String,
    /// Where the HBase RPC listens; port 0 takes a free one.
    pub rpc_listen: SocketAddr,
    /// Where the gRPC services listen; port 0 takes a free one.
    pub peer_listen: SocketAddr,
    /// The `host:port` of each coordinator.
    pub coordinators: Vec<String>,
    /// The node below which the cluster's records lie, as `/basalt`.
    pub nodes_parent: String,
    /// Which process this is to the one who started it.
    pub instance: String,
    /// The rack it stands in; empty if unknown.
    pub rack: String,
    /// The session with the coordinator ends after this long without a word.
    pub session_timeout: Duration,
    /// How long a renewal lets it serve.
    pub lease: Duration,
    /// How often the lease is renewed.
    pub renewal_interval: Duration,
    /// How long a clean stop may take.
    pub stop_timeout: Duration,
    /// How far the clock may be off.
    pub clock_bound: Duration,
    /// The limits of the regions.
    pub region: RegionConfig,
    /// The size at which a log file is closed and another begun, in bytes.
    pub wal_roll_bytes: u64,
    /// How many log files may be alive before regions are flushed to let the oldest go.
    pub wal_files_max: usize,
    /// All memstores together, in bytes; the largest are flushed beyond, and beyond twice
    /// as many no edits are taken.
    pub memstores_bytes_max: u64,
    /// The block cache, in bytes.
    pub block_cache_bytes: u64,
    /// How many calls are handled at once.
    pub calls_max: usize,
    /// The highest feature level that this process knows: that of its release, but in tests of
    /// upgrades.
    pub feature_level: FeatureLevel,
    /// Gets the bound addresses once the server is registered.
    pub ready: Option<oneshot::Sender<Addresses>>,
}

/// The limits of each region.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    /// The size at which memstores are flushed, in bytes.
    pub flush_bytes: u64,
    /// The size at which no more edits are taken, in bytes.
    pub memstore_bytes_max: u64,
    /// How long a request waits for a late renewal of the lease.
    pub lease_patience: Duration,
    /// How many store files a family may have before it is compacted.
    pub compaction_files_min: usize,
    /// How long a region that has come here is not compacted: others come with it, and it may be on
    /// its way through.
    pub compaction_rest: Duration,
}

/// The addresses that were bound.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Of the HBase RPC.
    pub rpc: SocketAddr,
    /// Of the gRPC services.
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
