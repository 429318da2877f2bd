//! A cluster as one would run it: coordinators, masters and region servers, each a simulated
//! process with the role's own `run` in it; one shared disk, and one of its own for each
//! coordinator.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use basalt_api::timers::TARGET_DEFAULT;
use basalt_api::{RegionServerConfig, TimerOverrides, Timers};
use basalt_fs::MemoryFileSystem;
use basalt_master::DeclaredTable;
use basalt_model::{FamilyDescriptor, TableDescriptor, TableName};
use basalt_runtime::{Random, Seams};
use bytes::Bytes;
use turmoil::Sim;

use crate::process::{Life, Process, Processes, State, boxed, seams};
use crate::seed::Seed;
use crate::trace::Trace;

/// The longest that a simulation may take, in simulated time.
const DURATION_MAX: Duration = Duration::from_mins(10);
/// The time between two looks at the network in the trace.
const NETWORK_LINE_INTERVAL: Duration = Duration::from_millis(100);
/// Where coordinators listen for clients.
const CLIENT_PORT: u16 = 2181;
/// Where coordinators listen for each other.
const COORDINATOR_PEER_PORT: u16 = 2888;
/// Where masters listen for HBase clients.
const MASTER_PORT: u16 = 16_000;
/// Where region servers listen for HBase clients.
const REGION_SERVER_PORT: u16 = 16_020;
/// Where masters and region servers listen for each other.
const PEER_PORT: u16 = 16_040;
/// The roots of the records of servers, and of those for clients.
const NODES_PARENT: &str = "/basalt";
const CLIENT_PARENT: &str = "/hbase";

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Members of the coordinator.
    pub coordinators: u64,
    /// Masters, one of them in charge.
    pub masters: u64,
    /// Region servers.
    pub region_servers: u64,
    /// Regions of the one table.
    pub regions: u32,
}

/// A running cluster.
pub struct Cluster {
    sim: Sim<'static>,
    seed: Seed,
    processes: Processes,
    members: BTreeMap<String, Arc<Process>>,
    faults: Random,
    trace: Trace,
    next_network_line: Duration,
    layout: Layout,
}

/// What the configurations of all roles are made from.
#[derive(Clone)]
struct Plan {
    timers: Timers,
    layout: Layout,
}

// === impl Layout ===

impl Default for Layout {
    fn default() -> Self {
        Self { coordinators: 3, masters: 2, region_servers: 3, regions: 6 }
    }
}

impl Layout {
    fn coordinator_addresses(&self) -> Vec<String> {
        (1..=self.coordinators).map(|id| format!("{}:{CLIENT_PORT}", coordinator(id))).collect()
    }

    fn split_keys(&self) -> Vec<Bytes> {
        (1..self.regions).map(|region| Bytes::from(format!("{region:02}"))).collect()
    }
}

/// The table that the cluster declares; its region `n` begins at `n` in two digits.
pub fn table_name() -> anyhow::Result<TableName> {
    Ok(TableName::new("default", "usertable")?)
}

/// The column family of the table.
pub const FAMILY: &str = "family";

/// The process that is the `number`th region server.
pub fn region_server(number: u64) -> String {
    format!("regionserver-{number}")
}

fn coordinator(id: u64) -> String {
    format!("coordinator-{id}")
}

fn master(number: u64) -> String {
    format!("master-{number}")
}

// === impl Cluster ===

impl Cluster {
    /// Starts a cluster.
    ///
    /// # Errors
    /// The timers do not fit each other.
    pub fn start(seed: Seed, layout: Layout, trace: &Trace) -> anyhow::Result<Self> {
        let timers = Timers::derive(TARGET_DEFAULT, &TimerOverrides::default())?;
        let plan = Plan { timers, layout };
        let coordinators = (1..=layout.coordinators).map(coordinator);
        let masters = (0..layout.masters).map(master);
        let region_servers = (0..layout.region_servers).map(region_server);
        let names: Vec<String> = coordinators.chain(masters).chain(region_servers).collect();
        let mut cluster = Self {
            sim: simulation(seed),
            seed,
            processes: Processes::new(names),
            members: BTreeMap::new(),
            faults: seed.random_for("faults", 0),
            trace: trace.clone(),
            next_network_line: Duration::ZERO,
            layout,
        };
        for id in 1..=layout.coordinators {
            cluster.start_coordinator(&plan, id);
        }
        let shared = MemoryFileSystem::new();
        for number in 0..layout.masters {
            cluster.start_master(&plan, number, &shared)?;
        }
        for number in 0..layout.region_servers {
            cluster.start_region_server(&plan, number, &shared)?;
        }
        Ok(cluster)
    }

    fn member(&mut self, name: &str, disk: MemoryFileSystem, writer: u64) -> Arc<Process> {
        let (processes, trace) = (self.processes.clone(), self.trace.clone());
        let process = Process::new(name, self.seed, (disk, writer), processes, trace);
        let process = Arc::new(process);
        self.members.insert(name.to_owned(), Arc::clone(&process));
        process
    }

    fn start_coordinator(&mut self, plan: &Plan, id: u64) {
        let process = self.member(&coordinator(id), MemoryFileSystem::new(), 1);
        let plan = plan.clone();
        self.sim.host(coordinator(id), move || {
            let (process, plan) = (Arc::clone(&process), plan.clone());
            async move {
                let role = |life: Life| {
                    let config = plan.coordinator(id);
                    boxed(basalt_coordinator::run(config, life.seams, life.files, life.shutdown))
                };
                process.live(role).await;
                Ok(())
            }
        });
    }

    fn start_master(
        &mut self,
        plan: &Plan,
        number: u64,
        shared: &MemoryFileSystem,
    ) -> anyhow::Result<()> {
        // Writers of the shared disk: masters from 1, region servers from 101.
        let process = self.member(&master(number), shared.clone(), 1 + number);
        let (plan, table) = (plan.clone(), plan.table()?);
        self.sim.host(master(number), move || {
            let (process, plan, table) = (Arc::clone(&process), plan.clone(), table.clone());
            async move {
                let role = |life: Life| {
                    let config = plan.master(number, table, life.instance);
                    boxed(basalt_master::run(config, life.seams, life.files, life.shutdown))
                };
                process.live(role).await;
                Ok(())
            }
        });
        Ok(())
    }

    fn start_region_server(
        &mut self,
        plan: &Plan,
        number: u64,
        shared: &MemoryFileSystem,
    ) -> anyhow::Result<()> {
        let process = self.member(&region_server(number), shared.clone(), 101 + number);
        let plan = plan.clone();
        let limits = RegionServerConfig { block_cache_bytes: 16 << 20, ..Default::default() };
        let compaction_files_min = usize::try_from(limits.compaction_files_min)?;
        let wal_files_max = usize::try_from(limits.wal_files_max)?;
        self.sim.host(region_server(number), move || {
            let (process, plan, limits) = (Arc::clone(&process), plan.clone(), limits.clone());
            async move {
                let role = |life: Life| {
                    let mut config = plan.region_server(number, &limits, life.instance);
                    config.region.compaction_files_min = compaction_files_min;
                    config.wal_files_max = wal_files_max;
                    boxed(basalt_regionserver::run(config, life.seams, life.files, life.shutdown))
                };
                process.live(role).await;
                Ok(())
            }
        });
        Ok(())
    }

    /// Starts a client; the simulation ends when all clients have.
    pub fn client<F>(&mut self, name: &str, client: impl FnOnce(Seams) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        let seams = seams(self.seed, &name.into(), 1, &self.processes, &self.trace);
        let client = client(seams);
        self.sim
            .client(name, async move { client.await.map_err(|error| format!("{error:#}").into()) });
    }

    /// The coordinator's members, as clients are given them.
    pub fn coordinators(&self) -> Vec<String> {
        self.layout.coordinator_addresses()
    }

    /// The HBase ports of masters and region servers, as clients are given them.
    pub fn bootstrap_servers(&self) -> Vec<String> {
        (0..self.layout.masters).map(|number| format!("{}:{MASTER_PORT}", master(number))).collect()
    }

    /// Where clients look for the cluster in the coordinator.
    pub fn client_root(&self) -> String {
        CLIENT_PARENT.to_owned()
    }

    /// The simulated time since the start.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets a little time pass. Whether all clients have ended.
    ///
    /// # Errors
    /// A client failed, or the simulation takes too long.
    pub fn step(&mut self) -> anyhow::Result<bool> {
        let over = self.sim.step().map_err(|error| anyhow!("{error}"))?;
        for name in self.processes.ended() {
            self.take_down(&name)?;
            // Its supervisor starts it again.
            self.sim.bounce(name);
        }
        let now = self.elapsed();
        if now >= self.next_network_line || over {
            self.trace.record_network(now);
            self.next_network_line = now + NETWORK_LINE_INTERVAL;
        }
        Ok(over)
    }

    /// Kills a process, as SIGKILL does on a machine that crashes with it: nothing of it goes on,
    /// and of what it had not synced the seed says how much is left.
    ///
    /// # Errors
    /// There is no such process.
    pub fn crash(&mut self, name: &str) -> anyhow::Result<()> {
        self.trace.record_at(self.elapsed(), format_args!("fault: {name} is killed"));
        self.take_down(name)
    }

    /// Starts a process that was killed.
    pub fn restart(&mut self, name: &str) {
        self.trace.record_at(self.elapsed(), format_args!("fault over: {name} is started again"));
        self.sim.bounce(name);
    }

    fn take_down(&mut self, name: &str) -> anyhow::Result<()> {
        let process = self.members.get(name).with_context(|| format!("no process {name}"))?;
        self.processes.set(name, State::Down);
        // The disk first: what the dying tasks still do must not reach it.
        process.crash_disk(&self.faults);
        self.sim.crash(name);
        Ok(())
    }
}

// === impl Plan ===

impl Plan {
    fn coordinator(&self, id: u64) -> basalt_coordinator::Config {
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
            timers: basalt_coordinator::Timers {
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

    fn master(&self, number: u64, table: DeclaredTable, instance: String) -> basalt_master::Config {
        let timers = &self.timers;
        basalt_master::Config {
            cluster_name: "simulated".to_owned(),
            rpc_listen: any(MASTER_PORT),
            advertised_host: master(number),
            peer_listen: any(PEER_PORT),
            info_port: 0,
            coordinators: self.layout.coordinator_addresses(),
            nodes_parent: NODES_PARENT.to_owned(),
            client_parent: CLIENT_PARENT.to_owned(),
            timers: basalt_master::Timers {
                session_timeout: timers.session_timeout,
                lease: timers.serving_lease,
                drift_margin: timers.drift_margin,
                connect_timeout: timers.rpc_connect_timeout,
                ..Default::default()
            },
            declared_tables: vec![table],
            rack: String::new(),
            instance,
            ready: None,
        }
    }

    fn region_server(
        &self,
        number: u64,
        limits: &RegionServerConfig,
        instance: String,
    ) -> basalt_regionserver::Config {
        let timers = &self.timers;
        basalt_regionserver::Config {
            host: region_server(number),
            rpc_listen: any(REGION_SERVER_PORT),
            peer_listen: any(PEER_PORT),
            coordinators: self.layout.coordinator_addresses(),
            nodes_parent: NODES_PARENT.to_owned(),
            instance,
            rack: String::new(),
            session_timeout: timers.session_timeout,
            lease: timers.serving_lease,
            renewal_interval: timers.lease_renewal,
            stop_timeout: timers.termination_grace,
            region: basalt_regionserver::RegionConfig {
                flush_bytes: limits.flush_bytes,
                memstore_bytes_max: limits.flush_bytes.saturating_mul(limits.block_multiplier),
                lease_patience: timers.session_timeout,
                ..Default::default()
            },
            wal_roll_bytes: limits.wal_roll_bytes,
            wal_files_max: 8,
            memstores_bytes_max: limits.memstores_bytes_max,
            block_cache_bytes: limits.block_cache_bytes,
            calls_max: 1_024,
            ready: None,
        }
    }

    fn table(&self) -> anyhow::Result<DeclaredTable> {
        let family = FamilyDescriptor::new(FAMILY);
        Ok(DeclaredTable {
            descriptor: TableDescriptor {
                name: table_name()?,
                families: [(family.name.clone(), family)].into(),
                region_replication: 1,
                settings: BTreeMap::new(),
            },
            split_keys: self.layout.split_keys(),
        })
    }
}

/// The network of the simulation: 1 to 4 ms one way, processes in an order of the seed's choice.
fn simulation(seed: Seed) -> Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed.0)
        .simulation_duration(DURATION_MAX)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(4))
        .tcp_capacity(4_096)
        .enable_random_order()
        .build()
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}
