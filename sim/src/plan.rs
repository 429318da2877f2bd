//! The parts of a simulated cluster, and the configuration of each process. The configuration
//! equals the manifest's defaults, except that some limits are smaller.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use basalt_api::timers::TARGET_DEFAULT;
use basalt_api::{RegionServerConfig, TimerOverrides, Timers};
use basalt_master::DeclaredTable;
use basalt_model::{FamilyDescriptor, FeatureLevel, KeepDeletedCells, TableDescriptor, TableName};
use bytes::Bytes;

use crate::actors::Actors;
use crate::clock::WallClockError;
use crate::disk::Syncs;

/// The first column family of the table.
pub const FAMILY: &str = "family";
/// The second one: a write to both families at once must be seen in both.
pub const FAMILY_SECOND: &str = "second";
/// A family that keeps several versions.
const FAMILY_VERSIONS: &str = "versions";
/// A family whose cells have a time to live.
const FAMILY_EXPIRING: &str = "expiring";
/// A family that keeps some versions although they have expired.
const FAMILY_EXPIRING_BUT_NEWEST: &str = "expiring-but-newest";
/// A family that keeps deleted cells.
const FAMILY_KEPT: &str = "kept";
/// A family that keeps deleted cells until they expire.
const FAMILY_KEPT_IN_TIME: &str = "kept-in-time";
/// The time to live of cells in the families that have one.
const TIME_TO_LIVE_S: u32 = 3;
/// The parent of the nodes in which clients find the cluster.
pub const CLIENT_PARENT: &str = "/hbase";

/// A drift within the bound. Two clocks that drift this much in opposite directions differ by 47 ms
/// after a lease of 750 ms and its margin; the margin is 50 ms.
pub(crate) const DRIFT_PPM_MAX: u64 = 29_000;

/// The parent of the nodes that hold the records of the cluster.
pub(crate) const NODES_PARENT: &str = "/basalt";
/// The port on which coordinators listen for clients.
const CLIENT_PORT: u16 = 2181;
/// The port on which coordinators listen for each other.
const COORDINATOR_PEER_PORT: u16 = 2888;
/// The port on which masters listen for HBase clients.
const MASTER_PORT: u16 = 16_000;
/// The port on which region servers listen for HBase clients.
const REGION_SERVER_PORT: u16 = 16_020;
/// The port on which masters and region servers listen for each other.
const PEER_PORT: u16 = 16_040;

/// The size of the cluster and its environment.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Members of the coordinator.
    pub coordinators: u64,
    /// Masters, one of them active.
    pub masters: u64,
    /// Region servers.
    pub region_servers: u64,
    /// Regions of the main table.
    pub regions: u32,
    /// How many other tables are created and deleted.
    pub tables: u64,
    /// Whether each server that answers must show the result of a table operation as soon as the
    /// operation has returned. A server that is cut off from the coordinator cannot, until its
    /// session ends.
    pub catalogs_are_checked: bool,
    /// Whether procedures run out of time, because the masters' wall clocks are far apart.
    pub procedures_run_out_of_time: bool,
    /// The maximum duration of a write under the scenario's faults, if it is bounded.
    pub write_outage_max: Option<Duration>,
    /// How the disks handle syncs.
    pub syncs: Syncs,
    /// Whether masters and region servers keep their files on an HDFS.
    pub on_hdfs: bool,
    /// The size in bytes from which on a log file is followed by another one.
    pub wal_roll_bytes: u64,
    /// The maximum drift of a clock in parts per million, in either direction.
    pub clock_drift_ppm: u64,
    /// The bound on the error of a region server's clock.
    pub clock_bound: Duration,
    /// The maximum by which a wall clock is set wrong while its server still believes it.
    pub wall_clocks_set_by: Duration,
    /// The highest feature level that masters and region servers know when the cluster starts.
    pub feature_level: FeatureLevel,
    /// Actors besides the clients.
    pub actors: Actors,
}

/// The source of the configurations of all processes.
#[derive(Debug)]
pub struct Plan {
    layout: Layout,
    timers: Timers,
    limits: RegionServerConfig,
    table: DeclaredTable,
}

// === impl Layout ===

impl Layout {
    /// Three members of the coordinator, two masters, three region servers, six regions.
    pub const SMALL: Self = Self {
        coordinators: 3,
        masters: 2,
        region_servers: 3,
        regions: 6,
        tables: 0,
        catalogs_are_checked: false,
        procedures_run_out_of_time: false,
        write_outage_max: None,
        syncs: Syncs::Honest,
        on_hdfs: false,
        wal_roll_bytes: 16 << 10,
        clock_drift_ppm: 0,
        clock_bound: Duration::from_secs(1),
        wall_clocks_set_by: Duration::ZERO,
        feature_level: FeatureLevel::NEWEST,
        actors: Actors::NONE,
    };

    /// How wrong the wall clocks of servers may be.
    pub(crate) fn wall_clock_error(&self) -> WallClockError {
        WallClockError { set_by: self.wall_clocks_set_by, drift_ppm: self.clock_drift_ppm }
    }

    /// The names of all processes.
    pub(crate) fn processes(&self) -> Vec<String> {
        let coordinators = (1..=self.coordinators).map(coordinator);
        let masters = (0..self.masters).map(master);
        let region_servers = (0..self.region_servers).map(region_server);
        coordinators.chain(masters).chain(region_servers).collect()
    }
}

// === impl Plan ===

impl Plan {
    pub(crate) fn new(layout: Layout) -> anyhow::Result<Self> {
        let timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default())?;
        Ok(Self { layout, timers, limits: limits(), table: table(layout.regions)? })
    }

    /// The layout of the cluster.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The addresses of the coordinator's members, as clients and roles use them.
    pub fn coordinators(&self) -> Vec<String> {
        let ids = 1..=self.layout.coordinators;
        ids.map(|id| format!("{}:{CLIENT_PORT}", coordinator(id))).collect()
    }

    /// The addresses of the masters, for clients that do not ask the coordinator.
    pub fn bootstrap_servers(&self) -> Vec<String> {
        let numbers = 0..self.layout.masters;
        numbers.map(|number| format!("{}:{MASTER_PORT}", master(number))).collect()
    }

    /// The addresses at which the coordinator's members listen for each other.
    pub(crate) fn coordinator_peers(&self) -> Vec<String> {
        let ids = 1..=self.layout.coordinators;
        ids.map(|id| format!("{}:{COORDINATOR_PEER_PORT}", coordinator(id))).collect()
    }

    /// All addresses at which processes listen.
    pub(crate) fn ports(&self) -> Vec<String> {
        let Layout { masters, region_servers, .. } = self.layout;
        let ports_of = |host: String, rpc| [rpc, PEER_PORT].map(|port| format!("{host}:{port}"));
        let masters = (0..masters).flat_map(|number| ports_of(master(number), MASTER_PORT));
        let servers = (0..region_servers)
            .flat_map(|number| ports_of(region_server(number), REGION_SERVER_PORT));
        let coordinators = self.coordinators().into_iter().chain(self.coordinator_peers());
        coordinators.chain(masters).chain(servers).collect()
    }

    /// The servers whose answers about the existing tables are checked.
    pub(crate) fn catalogs(&self) -> Vec<String> {
        let Layout { masters, region_servers, catalogs_are_checked, .. } = self.layout;
        if !catalogs_are_checked {
            return Vec::new();
        }
        let masters = (0..masters).map(|number| format!("{}:{MASTER_PORT}", master(number)));
        let servers = (0..region_servers)
            .map(|number| format!("{}:{REGION_SERVER_PORT}", region_server(number)));
        masters.chain(servers).collect()
    }

    pub(crate) fn coordinator(&self, id: u64) -> basalt_coordinator::Config {
        let timers = &self.timers;
        let members = (1..=self.layout.coordinators).map(|id| {
            let host = coordinator(id);
            let member = basalt_coordinator::Member {
                peer_address: format!("{host}:{COORDINATOR_PEER_PORT}"),
                client_address: format!("{host}:{CLIENT_PORT}"),
            };
            (id, member)
        });
        basalt_coordinator::Config {
            cluster: "simulated".to_owned(),
            member_id: id,
            members: members.collect(),
            peer_listen: any(COORDINATOR_PEER_PORT),
            client_listen: any(CLIENT_PORT),
            data: "/".into(),
            timers: basalt_coordinator::CoordinatorTimers {
                heartbeat_interval: timers.coordinator_heartbeat,
                election_timeout_min: timers.election_timeout_min,
                election_timeout_max: timers.election_timeout_max,
                session_timeout_min: timers.session_timeout_min,
                session_timeout_max: timers.session_timeout_max,
                isolation_grace: timers.isolation_grace,
                ..Default::default()
            },
            limits: basalt_coordinator::Limits::default(),
            ready: None,
        }
    }

    /// The configuration of a master that knows the feature levels up to `level`, by default up to
    /// that of the layout.
    pub(crate) fn master(
        &self,
        number: u64,
        instance: String,
        level: Option<FeatureLevel>,
    ) -> basalt_master::Config {
        let timers = &self.timers;
        basalt_master::Config {
            cluster_name: "simulated".to_owned(),
            rpc_listen: any(MASTER_PORT),
            advertised_host: master(number),
            peer_listen: any(PEER_PORT),
            info_port: 0,
            coordinators: self.coordinators(),
            nodes_parent: NODES_PARENT.to_owned(),
            client_parent: CLIENT_PARENT.to_owned(),
            timers: basalt_master::MasterTimers {
                session_timeout: timers.session_timeout,
                lease: timers.serving_lease,
                drift_margin: timers.drift_margin,
                clock_bound: self.layout.clock_bound,
                connect_timeout: timers.rpc_connect_timeout,
                feature_level_delay: Duration::from_millis(300),
                // So short that openings are overtaken.
                reopening_wait: Duration::from_millis(500),
                ..Default::default()
            },
            declared_tables: vec![self.table.clone()],
            rack: String::new(),
            instance,
            guard: basalt_master::LeaseGuard::without_lease(),
            storage_deviations: None,
            feature_level: level.unwrap_or(self.layout.feature_level),
            ready: None,
        }
    }

    /// The configuration of a region server that knows the feature levels up to `level`, by default
    /// up to that of the layout.
    pub(crate) fn region_server(
        &self,
        number: u64,
        instance: String,
        level: Option<FeatureLevel>,
    ) -> basalt_regionserver::Config {
        let (timers, limits) = (&self.timers, &self.limits);
        let count = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        basalt_regionserver::Config {
            host: region_server(number),
            rpc_listen: any(REGION_SERVER_PORT),
            peer_listen: any(PEER_PORT),
            coordinators: self.coordinators(),
            nodes_parent: NODES_PARENT.to_owned(),
            instance,
            rack: String::new(),
            session_timeout: timers.session_timeout,
            lease: timers.serving_lease,
            renewal_interval: timers.lease_renewal,
            stop_timeout: timers.termination_grace,
            clock_bound: self.layout.clock_bound,
            region: basalt_regionserver::RegionConfig {
                flush_bytes: limits.flush_bytes,
                memstore_bytes_max: limits.flush_bytes.saturating_mul(limits.block_multiplier),
                lease_patience: timers.session_timeout,
                compaction_files_min: count(limits.compaction_files_min),
                // A run takes only a few seconds.
                compaction_rest: Duration::from_millis(300),
            },
            wal_roll_bytes: self.layout.wal_roll_bytes,
            wal_files_max: count(limits.wal_files_max),
            memstores_bytes_max: limits.memstores_bytes_max,
            block_cache_bytes: limits.block_cache_bytes,
            calls_max: 1_024,
            feature_level: level.unwrap_or(self.layout.feature_level),
            ready: None,
        }
    }
}

/// The name of the table that the cluster declares.
pub(crate) fn table_name() -> anyhow::Result<TableName> {
    Ok(TableName::new("default", "usertable")?)
}

pub(crate) fn coordinator(id: u64) -> String {
    format!("coordinator-{id}")
}

pub(crate) fn master(number: u64) -> String {
    format!("master-{number}")
}

pub(crate) fn region_server(number: u64) -> String {
    format!("regionserver-{number}")
}

/// A table whose region `n` begins at the two-digit key `n`.
fn table(regions: u32) -> anyhow::Result<DeclaredTable> {
    let families = [FAMILY, FAMILY_SECOND].map(FamilyDescriptor::new).into_iter();
    let families = families.chain([family_of_versions()]).chain(families_with_ends());
    Ok(DeclaredTable {
        descriptor: TableDescriptor {
            name: table_name()?,
            families: families.map(|family| (family.name.clone(), family)).collect(),
            region_replication: 1,
            settings: BTreeMap::new(),
        },
        split_keys: (1..regions).map(|region| Bytes::from(format!("{region:02}"))).collect(),
    })
}

/// The family that keeps several versions.
pub(crate) fn family_of_versions() -> FamilyDescriptor {
    FamilyDescriptor { versions_max: 3, ..FamilyDescriptor::new(FAMILY_VERSIONS) }
}

/// The families whose cells have a time to live, or are kept when they are deleted.
pub(crate) fn families_with_ends() -> [FamilyDescriptor; 4] {
    let family = |name, versions_max, time_to_live_s, keep_deleted_cells| FamilyDescriptor {
        versions_max,
        time_to_live_s,
        keep_deleted_cells,
        ..FamilyDescriptor::new(name)
    };
    let ends = Some(TIME_TO_LIVE_S);
    [
        family(FAMILY_EXPIRING, 3, ends, KeepDeletedCells::False),
        FamilyDescriptor {
            versions_min: 2,
            ..family(FAMILY_EXPIRING_BUT_NEWEST, 3, ends, KeepDeletedCells::False)
        },
        family(FAMILY_KEPT, 8, None, KeepDeletedCells::True),
        family(FAMILY_KEPT_IN_TIME, 8, ends, KeepDeletedCells::Ttl),
    ]
}

/// Small, so that a few seconds of load cause flushes, compactions and new log files.
fn limits() -> RegionServerConfig {
    RegionServerConfig {
        flush_bytes: 8 << 10,
        block_cache_bytes: 1 << 20,
        ..RegionServerConfig::default()
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}
