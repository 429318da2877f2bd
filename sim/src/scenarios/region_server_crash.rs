//! A region server that has regions is killed under load, and started again later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basalt_client::RegistryConfig;
use basalt_runtime::Random;

use crate::cluster::Cluster;
use crate::invariants::Violation;
use crate::plan::{CLIENT_PARENT, Layout};
use crate::seed::Seed;
use crate::trace::Trace;
use crate::workload::{Workload, WorkloadConfig};

/// When the server is killed, after all regions have taken a write.
const CRASH_AFTER_MS: std::ops::Range<u64> = 300..900;
/// When it is started again, after it was killed.
const RESTART_AFTER_MS: std::ops::Range<u64> = 500..2_000;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The server that was killed.
    pub victim: String,
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Attempts that may have been applied.
    pub unknown: u64,
    /// Attempts that were certainly not applied.
    pub failed: u64,
    /// Rows that were read under load.
    pub reads: u64,
    /// The longest that any region took for a write, in simulated time.
    pub write_outage_max: Duration,
    /// How long all of it took, in simulated time.
    pub elapsed: Duration,
    /// What was acknowledged and not found.
    pub violations: Vec<Violation>,
}

enum Fault {
    Crash,
    Restart,
}

/// Runs the scenario, with `load` of writing.
///
/// # Errors
/// The cluster did not come to serve, or not again.
pub fn region_server_crash(
    seed: Seed,
    layout: Layout,
    load: Duration,
    trace: &Trace,
) -> anyhow::Result<Outcome> {
    trace.with_log(|| run(seed, layout, load, trace))
}

fn run(seed: Seed, layout: Layout, load: Duration, trace: &Trace) -> anyhow::Result<Outcome> {
    let random = seed.random_for("scenario", 0);
    let mut cluster = Cluster::start(seed, layout, trace)?;
    let registry = registry(&cluster, &random);
    let config = WorkloadConfig { registry, regions: layout.regions, load };
    let workload = Arc::new(Workload::new(config, trace));
    cluster.client("client", |seams| Arc::clone(&workload).run(seams));

    let region = u32::try_from(random.in_range(0..u64::from(layout.regions)))?;
    let mut victim = String::new();
    let mut faults = plan(&random);
    loop {
        let over = cluster.step()?;
        let seen = workload.seen();
        let loaded = seen.loading_since.map_or(Duration::ZERO, |since| cluster.elapsed() - since);
        while let Some((_, fault)) = faults.pop_front_if(|(at, _)| *at <= loaded) {
            match fault {
                Fault::Crash => {
                    victim = seen.servers.get(&region).cloned().unwrap_or_default();
                    cluster.crash(&victim)?;
                }
                Fault::Restart => cluster.restart(&victim),
            }
        }
        if over {
            break;
        }
    }
    let (writes, seen) = (workload.writes(), workload.seen());
    Ok(Outcome {
        victim,
        acknowledged: writes.count(),
        unknown: seen.unknown,
        failed: seen.failed,
        reads: seen.reads,
        write_outage_max: seen.outages.values().max().copied().unwrap_or_default(),
        elapsed: cluster.elapsed(),
        violations: writes.violations(),
    })
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

fn plan(random: &Random) -> VecDeque<(Duration, Fault)> {
    let crash_ms = random.in_range(CRASH_AFTER_MS);
    let restart_ms = crash_ms + random.in_range(RESTART_AFTER_MS);
    [
        (Duration::from_millis(crash_ms), Fault::Crash),
        (Duration::from_millis(restart_ms), Fault::Restart),
    ]
    .into()
}
