//! One simulation: a cluster, a workload, the faults of a scenario, and the outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_client::RegistryConfig;
use basalt_cluster::{Nodes, RegionRecord, catalog};
use basalt_failpoint::Point;
use basalt_model::FeatureLevel;
use basalt_runtime::{Random, Seams};
use basalt_zk::{Client, Options};
use parking_lot::Mutex;

use crate::actors;
use crate::cluster::Cluster;
use crate::disk::Syncs;
use crate::faults::{Fault, FaultAction, Victim};
use crate::folder::Folder;
use crate::invariants::{
    ACKNOWLEDGED_WRITES, Leftovers, Violation, check_newest_manifest, check_no_healthy_end,
    check_registered, check_served_as_recorded, check_write_outage, tables_on_disk,
};
use crate::plan::{CLIENT_PARENT, DRIFT_PPM_MAX, Layout, NODES_PARENT};
use crate::scenarios::{Scenario, failpoints};
use crate::seed::Seed;
use crate::trace::Trace;
use crate::witness::Witness;
use crate::workload::{Workload, WorkloadConfig};

/// The session timeout of the simulation's own clients.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of checks of the records, and the pause before each: the sessions of
/// processes that ended last need time to expire.
const LOOKS: u32 = 8;
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Maximum violations that are reported for one run.
const VIOLATIONS_MAX: usize = 20;

/// The settings of a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The minimum duration of the load.
    pub load: Duration,
    /// How the disks handle syncs.
    pub syncs: Syncs,
    /// The failpoint at which a process is killed or delayed, and the hit at which this happens.
    /// Only for the failpoint scenarios, which otherwise choose both by the seed.
    pub point: Option<(Point, u32)>,
}

/// The outcome of a simulation.
#[derive(Clone, Debug)]
pub struct SimulationOutcome {
    /// The process that sprang the trap, if one did.
    pub sprung: Option<String>,
    /// The faults and their victims.
    pub faults: Vec<String>,
    /// Acknowledged writes and deletes.
    pub acknowledged: usize,
    /// Attempts that may have been applied.
    pub unknown: u64,
    /// Attempts that were certainly not applied.
    pub failed: u64,
    /// Rows that were read under load.
    pub reads: u64,
    /// Answered and checked operations on counters and lists.
    pub counted: usize,
    /// Answered operations by kind.
    pub operations: BTreeMap<&'static str, u64>,
    /// The failpoints that were reached.
    pub points: BTreeSet<String>,
    /// Reads of rows with several versions that were compared with their model.
    pub versions_read: u64,
    /// Rows that were checked for being whole.
    pub whole_rows: u64,
    /// The number of events that the roles reported.
    pub events: u64,
    /// The longest time that a write to any region took, in simulated time.
    pub write_outage_max: Duration,
    /// How long after the last fault every region had acknowledged a write and answered a read.
    pub recovered_after: Duration,
    /// The simulated duration of the whole run.
    pub elapsed: Duration,
    /// The violated invariants.
    pub violations: Vec<Violation>,
}

/// A running simulation.
struct Simulation<'a> {
    cluster: Cluster,
    workload: Arc<Workload>,
    witness: &'a Witness,
    /// Faults that have not begun yet, in order of time.
    coming: Vec<Fault>,
    /// Faults that have begun and not ended. Their ends count from the start.
    lasting: Vec<Lasting>,
    injected: Vec<String>,
    /// The faults so far, with their victims.
    actions: Vec<(String, FaultAction)>,
    violations: Vec<Violation>,
}

/// A fault under way.
struct Lasting {
    victim: String,
    action: FaultAction,
    ends_at: Duration,
}

/// Runs `scenario`.
///
/// # Errors
/// The cluster did not begin to serve, or could not be read at the end.
pub fn simulate(
    seed: Seed,
    scenario: &Scenario,
    settings: Settings,
    trace: &Trace,
) -> anyhow::Result<SimulationOutcome> {
    let witness = Witness::default();
    let layout = Layout { syncs: settings.syncs, ..scenario.layout };
    trace.with_log(&witness, || {
        let random = seed.random_for("scenario", 0);
        let cluster = Cluster::start(seed, layout, trace)?;
        let registry = registry(&cluster, &random);
        let config = WorkloadConfig {
            registry,
            regions: layout.regions,
            tables: layout.tables,
            catalogs: cluster.plan().catalogs(),
            procedures_run_out_of_time: layout.procedures_run_out_of_time,
            is_upgraded: layout.feature_level < FeatureLevel::NEWEST,
            wall_clocks: layout.wall_clock_error(),
        };
        let workload = Arc::new(Workload::new(config, trace));
        let mut coming = match settings.point {
            Some(point) => failpoints::faults_at(scenario, point, &random, layout),
            None => (scenario.faults)(&random, layout),
        };
        coming.sort_by_key(|fault| fault.at);
        let simulation = Simulation {
            cluster,
            workload,
            witness: &witness,
            coming,
            lasting: Vec::new(),
            injected: Vec::new(),
            actions: Vec::new(),
            violations: Vec::new(),
        };
        simulation.run(settings.load)
    })
}

// === impl Simulation ===

impl Simulation<'_> {
    fn run(mut self, load: Duration) -> anyhow::Result<SimulationOutcome> {
        let workload = Arc::clone(&self.workload);
        actors::start(&mut self.cluster, &workload, self.witness);
        self.cluster.client("client", |seams| workload.run(seams));
        while !self.cluster.step()? {
            self.check_opened();
            let now = self.cluster.elapsed();
            let loading_since = self.workload.loading_since();
            self.begin_faults(now, loading_since)?;
            self.end_faults(now)?;
            let Some(since) = loading_since else { continue };
            let only_trapped = self.coming.iter().all(|fault| fault.victim.trap().is_some());
            if only_trapped && self.lasting.is_empty() && now.saturating_sub(since) >= load {
                self.witness.take_trap();
                self.workload.calm_down(now);
            }
        }
        self.check_registered()?;
        if self.cluster.plan().layout().tables > 0 {
            self.check_nothing_left()?;
        }
        self.check_served()?;
        Ok(self.outcome())
    }

    fn begin_faults(&mut self, now: Duration, since: Option<Duration>) -> anyhow::Result<()> {
        let loaded = since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let (witness, is_loading) = (self.witness, since.is_some());
        let due = self.coming.extract_if(.., |fault| match fault.victim.trap() {
            Some(trap) => {
                if fault.at <= loaded {
                    witness.set_trap(trap);
                }
                witness.trapped().is_some()
            }
            None => is_loading && fault.at <= loaded,
        });
        for fault in due.collect::<Vec<_>>() {
            let Some(victim) = self.victim(&fault.victim) else { continue };
            self.cluster.inject(&victim, fault.action)?;
            self.actions.push((victim.clone(), fault.action));
            for (server, number) in self.cluster.lost_logs() {
                self.witness.shorten_log(server, number);
            }
            if fault.action == FaultAction::Folder(Folder::Falsified) {
                self.witness.falsify(&victim);
            }
            self.injected.push(format!("{victim} {} for {:?}", fault.action, fault.lasts));
            let begun = if fault.victim.trap().is_some() { loaded } else { fault.at };
            let ends_at = now + (begun + fault.lasts).saturating_sub(loaded);
            self.lasting.push(Lasting { victim, action: fault.action, ends_at });
        }
        Ok(())
    }

    fn end_faults(&mut self, now: Duration) -> anyhow::Result<()> {
        let over = self.lasting.extract_if(.., |fault| fault.ends_at <= now);
        for Lasting { victim, action, .. } in over.collect::<Vec<_>>() {
            self.cluster.heal(&victim, action)?;
        }
        Ok(())
    }

    fn victim(&self, victim: &Victim) -> Option<String> {
        match victim {
            Victim::Named(name) => Some(name.clone()),
            Victim::Hdfs => Some("hdfs".to_owned()),
            Victim::OwnerOf(region) => self.workload.seen().servers.get(region).cloned(),
            Victim::LastOpener => Some(self.witness.last_opener()?.to_string()),
            Victim::ActiveMaster => Some(self.witness.active_master()?.to_string()),
            Victim::Springing(_) => Some(self.witness.trapped()?.to_string()),
        }
    }

    fn check_opened(&mut self) {
        let disk = self.cluster.shared_disk();
        for (region, epoch) in self.witness.take_opened() {
            self.violations.extend(check_newest_manifest(disk, &region, epoch));
        }
    }

    /// Compares the ephemeral nodes of servers with the running processes.
    fn check_registered(&mut self) -> anyhow::Result<()> {
        let running: Vec<String> = self.cluster.registering().map(str::to_owned).collect();
        self.look("observer", registered, |found: &Vec<String>| check_registered(found, &running))
    }

    /// Checks that deleted tables have left nothing behind.
    fn check_nothing_left(&mut self) -> anyhow::Result<()> {
        if !self.workload.seen().violations.is_empty() {
            // A client that met a violation has not deleted its table.
            return Ok(());
        }
        let servers = self.cluster.plan().coordinators();
        let left: Leftovers = self.ask("leftovers", |seams| Leftovers::read(seams, servers))?;
        let folders = tables_on_disk(self.cluster.shared_disk());
        self.violations.extend(left.violations(&folders));
        Ok(())
    }

    /// Compares the regions that servers serve with the records.
    fn check_served(&mut self) -> anyhow::Result<()> {
        let witness = self.witness;
        self.look("auditor", on_record, |OnRecord { regions, living }| {
            check_served_as_recorded(regions, living, &witness.served())
        })
    }

    /// Reads from the coordinator's members with `read` until `check` finds no violation, at most
    /// [`LOOKS`] times.
    fn look<T, F>(
        &mut self,
        name: &str,
        read: fn(Seams, Vec<String>) -> F,
        check: impl Fn(&T) -> Option<Violation>,
    ) -> anyhow::Result<()>
    where
        T: Default + 'static,
        F: Future<Output = anyhow::Result<T>> + 'static,
    {
        let mut violation = None;
        for look in 0..LOOKS {
            let servers = self.cluster.plan().coordinators();
            let found = self.ask(&format!("{name}-{look}"), |seams| async move {
                tokio::time::sleep(LOOK_PAUSE).await;
                read(seams, servers).await
            })?;
            violation = check(&found);
            if violation.is_none() {
                break;
            }
        }
        self.violations.extend(violation);
        Ok(())
    }

    /// Runs the simulation until a client named `name` has its answer.
    fn ask<T, F>(&mut self, name: &str, client: impl FnOnce(Seams) -> F) -> anyhow::Result<T>
    where
        T: Default + 'static,
        F: Future<Output = anyhow::Result<T>> + 'static,
    {
        let found: Arc<Mutex<T>> = Arc::default();
        let answer = Arc::clone(&found);
        self.cluster.client(name, |seams| {
            let client = client(seams);
            async move {
                *answer.lock() = client.await?;
                Ok(())
            }
        });
        while !self.cluster.step()? {}
        let mut found = found.lock();
        Ok(std::mem::take(&mut *found))
    }

    fn outcome(self) -> SimulationOutcome {
        let (workload, seen) = (&self.workload, self.workload.seen());
        let mut violations = self.violations;
        violations.extend(check_no_healthy_end(self.cluster.ended(), &self.actions));
        violations.extend(workload.writes().violations());
        let disorders = workload.history().violations().into_iter();
        violations.extend(disorders.map(|seen| Violation::new("rows are linearizable", seen)));
        violations.extend(workload.rows().violations());
        violations.extend(self.witness.violations());
        violations.extend(seen.violations);
        violations.extend(self.cluster.take_violations());
        let write_outage_max = seen.outages.values().max().copied().unwrap_or_default();
        let bound = self.cluster.plan().layout().write_outage_max;
        violations.extend(check_write_outage(write_outage_max, bound));
        if self.cluster.plan().layout().clock_drift_ppm > DRIFT_PPM_MAX {
            // Beyond the bound, no other invariant has to hold.
            violations.retain(|violation| violation.invariant == ACKNOWLEDGED_WRITES);
        }
        violations.truncate(VIOLATIONS_MAX);
        let mut operations = seen.operations;
        operations.extend(workload.history().count_by_kind());
        SimulationOutcome {
            sprung: self.witness.trapped().map(|process| process.to_string()),
            faults: self.injected,
            acknowledged: workload.writes().count(),
            unknown: seen.unknown,
            failed: seen.failed,
            reads: operations.get("get").copied().unwrap_or_default(),
            operations,
            points: self.witness.points(),
            counted: workload.history().count(),
            versions_read: seen.versions_read,
            whole_rows: workload.rows().count(),
            events: self.witness.count(),
            write_outage_max,
            recovered_after: seen.recovered.values().max().copied().unwrap_or_default(),
            elapsed: self.cluster.elapsed(),
            violations,
        }
    }
}

/// Opens a session for a client that is not a process of the cluster.
pub(crate) async fn connect(seams: &Seams, coordinators: &[String]) -> basalt_zk::Result<Client> {
    Client::connect(seams, coordinators, SESSION_TIMEOUT, Options::default()).await
}

/// The names under which masters and region servers are registered.
async fn registered(seams: Seams, servers: Vec<String>) -> anyhow::Result<Vec<String>> {
    let client = connect(&seams, &servers).await?;
    let nodes = Nodes::below(NODES_PARENT);
    let mut names = Vec::new();
    for parent in [nodes.servers(), nodes.masters()] {
        client.sync(&parent).await?;
        names.extend(client.get_children(&parent).await?.0);
    }
    client.close().await;
    Ok(names)
}

/// The coordinator's records of regions and region servers.
#[derive(Debug, Default)]
struct OnRecord {
    regions: Vec<RegionRecord>,
    living: Vec<String>,
}

async fn on_record(seams: Seams, servers: Vec<String>) -> anyhow::Result<OnRecord> {
    let client = connect(&seams, &servers).await?;
    let nodes = Nodes::below(NODES_PARENT);
    client.sync(nodes.parent()).await?;
    let catalog = catalog::follow(client.clone(), nodes.clone()).await?;
    let regions = catalog.regions().into_values().map(|region| region.record.clone()).collect();
    let living = client.get_children(&nodes.servers()).await?.0;
    client.close().await;
    Ok(OnRecord { regions, living })
}

/// Chooses one of HBase's two registries.
fn registry(cluster: &Cluster, random: &Random) -> RegistryConfig {
    if random.in_range(0..2) == 0 {
        RegistryConfig::Bootstrap { servers: cluster.plan().bootstrap_servers() }
    } else {
        let servers = cluster.plan().coordinators();
        RegistryConfig::ZooKeeper { servers, root: CLIENT_PARENT.to_owned() }
    }
}
