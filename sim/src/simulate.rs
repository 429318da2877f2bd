//! One simulation: a cluster, a workload, the faults of a scenario, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use basalt_client::RegistryConfig;
use basalt_cluster::Nodes;
use basalt_runtime::{Random, Seams};
use basalt_zk::{Client, Options};
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::disk::Syncs;
use crate::faults::{Fault, Victim};
use crate::invariants::{Violation, check_newest_manifest, check_registered};
use crate::plan::{CLIENT_PARENT, Layout, NODES_PARENT};
use crate::scenarios::Scenario;
use crate::seed::Seed;
use crate::trace::Trace;
use crate::witness::Witness;
use crate::workload::{Workload, WorkloadConfig};

/// How long a session of the simulation's own may be silent.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);
/// How often, and after which pause each, is looked for the ephemeral nodes: sessions of processes
/// that ended last must have had their time.
const LOOKS: u32 = 8;
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// How many violations of one run are told.
const VIOLATIONS_MAX: usize = 20;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done to whom.
    pub faults: Vec<String>,
    /// Writes and deletes that were acknowledged.
    pub acknowledged: usize,
    /// Attempts that may have been applied.
    pub unknown: u64,
    /// Attempts that were certainly not applied.
    pub failed: u64,
    /// Rows that were read under load.
    pub reads: u64,
    /// Operations on counters that were answered and checked.
    pub counted: usize,
    /// Rows that were looked at as a whole.
    pub whole_rows: u64,
    /// What the roles told of themselves.
    pub told: u64,
    /// The longest that any region took for a write, in simulated time.
    pub write_outage_max: Duration,
    /// How long after the last fault all regions had taken a write and answered a read.
    pub recovered_after: Duration,
    /// How long all of it took, in simulated time.
    pub elapsed: Duration,
    /// What does not hold.
    pub violations: Vec<Violation>,
}

/// A simulation under way.
struct Simulation<'a> {
    cluster: Cluster,
    workload: Arc<Workload>,
    witness: &'a Witness,
    /// Not begun yet, the first one last.
    coming: Vec<Fault>,
    /// On whom, and until when.
    lasting: Vec<(Fault, String)>,
    told: Vec<String>,
    violations: Vec<Violation>,
}

/// Runs `scenario`, with at least `load` of writing.
///
/// # Errors
/// The cluster did not come to serve, or could not be read at the end.
pub fn simulate(
    seed: Seed,
    scenario: &Scenario,
    load: Duration,
    syncs: Syncs,
    trace: &Trace,
) -> anyhow::Result<Outcome> {
    let witness = Witness::default();
    let layout = Layout { syncs, ..scenario.layout };
    trace.with_log(&witness, || {
        let random = seed.random_for("scenario", 0);
        let cluster = Cluster::start(seed, layout, trace)?;
        let registry = registry(&cluster, &random);
        let config = WorkloadConfig { registry, regions: layout.regions };
        let workload = Arc::new(Workload::new(config, trace));
        let mut coming = (scenario.faults)(&random, layout);
        coming.sort_by_key(|fault| std::cmp::Reverse(fault.at));
        let simulation = Simulation {
            cluster,
            workload,
            witness: &witness,
            coming,
            lasting: Vec::new(),
            told: Vec::new(),
            violations: Vec::new(),
        };
        simulation.run(load)
    })
}

// === impl Simulation ===

impl Simulation<'_> {
    fn run(mut self, load: Duration) -> anyhow::Result<Outcome> {
        let workload = Arc::clone(&self.workload);
        self.cluster.client("client", |seams| workload.run(seams));
        while !self.cluster.step()? {
            self.check_opened();
            let Some(since) = self.workload.loading_since() else { continue };
            let loaded = self.cluster.elapsed().saturating_sub(since);
            self.begin_faults(loaded)?;
            self.end_faults(loaded)?;
            if self.coming.is_empty() && self.lasting.is_empty() && loaded >= load {
                self.workload.calm_down(self.cluster.elapsed());
            }
        }
        self.check_registered()?;
        Ok(self.outcome())
    }

    fn begin_faults(&mut self, loaded: Duration) -> anyhow::Result<()> {
        while let Some(fault) = self.coming.pop_if(|fault| fault.at <= loaded) {
            let Some(victim) = self.victim(&fault.victim) else { continue };
            self.cluster.harm(&victim, fault.harm)?;
            self.told.push(format!("{victim} {} for {:?}", fault.harm, fault.lasts));
            self.lasting.push((fault, victim));
        }
        Ok(())
    }

    fn end_faults(&mut self, loaded: Duration) -> anyhow::Result<()> {
        let over = self.lasting.extract_if(.., |(fault, _)| fault.ends_at() <= loaded);
        for (fault, victim) in over.collect::<Vec<_>>() {
            self.cluster.heal(&victim, fault.harm)?;
        }
        Ok(())
    }

    fn victim(&self, victim: &Victim) -> Option<String> {
        match victim {
            Victim::Named(name) => Some(name.clone()),
            Victim::OwnerOf(region) => self.workload.seen().servers.get(region).cloned(),
            Victim::LastOpener => Some(self.witness.last_opener()?.to_string()),
            Victim::ActiveMaster => Some(self.witness.active_master()?.to_string()),
        }
    }

    fn check_opened(&mut self) {
        let disk = self.cluster.shared_disk();
        for (region, epoch) in self.witness.take_opened() {
            self.violations.extend(check_newest_manifest(disk, &region, epoch));
        }
    }

    /// Compares the ephemeral nodes of servers with what runs.
    fn check_registered(&mut self) -> anyhow::Result<()> {
        let running: Vec<String> = self.cluster.registering().map(str::to_owned).collect();
        let mut violation = None;
        for look in 0..LOOKS {
            let (servers, found) = (self.cluster.plan().coordinators(), Arc::default());
            let seen: Arc<Mutex<Vec<String>>> = Arc::clone(&found);
            self.cluster.client(&format!("observer-{look}"), |seams| async move {
                tokio::time::sleep(LOOK_PAUSE).await;
                *seen.lock() = registered(seams, servers).await?;
                Ok(())
            });
            while !self.cluster.step()? {}
            violation = check_registered(&found.lock(), &running);
            if violation.is_none() {
                break;
            }
        }
        self.violations.extend(violation);
        Ok(())
    }

    fn outcome(self) -> Outcome {
        let (workload, seen) = (&self.workload, self.workload.seen());
        let mut violations = self.violations;
        violations.extend(workload.writes().violations());
        let disorders = workload.history().violations().into_iter();
        violations.extend(disorders.map(|seen| Violation::new("rows are linearizable", seen)));
        violations.extend(workload.rows().violations());
        violations.extend(self.witness.violations());
        violations.extend(seen.violations);
        violations.truncate(VIOLATIONS_MAX);
        Outcome {
            faults: self.told,
            acknowledged: workload.writes().count(),
            unknown: seen.unknown,
            failed: seen.failed,
            reads: seen.reads,
            counted: workload.history().count(),
            whole_rows: workload.rows().count(),
            told: self.witness.count(),
            write_outage_max: seen.outages.values().max().copied().unwrap_or_default(),
            recovered_after: seen.recovered.values().max().copied().unwrap_or_default(),
            elapsed: self.cluster.elapsed(),
            violations,
        }
    }
}

/// The names under which masters and region servers are registered.
async fn registered(seams: Seams, servers: Vec<String>) -> anyhow::Result<Vec<String>> {
    let client = Client::connect(&seams, &servers, SESSION_TIMEOUT, Options::default()).await?;
    let nodes = Nodes::below(NODES_PARENT);
    let mut names = Vec::new();
    for parent in [nodes.servers(), nodes.masters()] {
        client.sync(&parent).await?;
        names.extend(client.get_children(&parent).await?.0);
    }
    client.close().await;
    Ok(names)
}

/// One of HBase's two registries.
fn registry(cluster: &Cluster, random: &Random) -> RegistryConfig {
    if random.in_range(0..2) == 0 {
        RegistryConfig::Bootstrap { servers: cluster.plan().bootstrap_servers() }
    } else {
        let servers = cluster.plan().coordinators();
        RegistryConfig::ZooKeeper { servers, root: CLIENT_PARENT.to_owned() }
    }
}
