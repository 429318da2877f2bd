//! A cluster as one would run it: coordinators, masters and region servers, each a simulated
//! process with the role's own `run` in it; one shared disk, and one of its own for each
//! coordinator.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use basalt_fs::MemoryFileSystem;
use basalt_runtime::{Random, Seams};
use futures::FutureExt;
use futures::future::BoxFuture;
use turmoil::Sim;

use crate::plan::{self, Layout, Plan};
use crate::process::{Life, Process, Processes, State, Volume, seams};
use crate::seed::Seed;
use crate::trace::Trace;

/// The longest that a simulation may take, in simulated time.
const DURATION_MAX: Duration = Duration::from_mins(10);
/// The time between two looks at the network in the trace.
const NETWORK_LINE_INTERVAL: Duration = Duration::from_millis(100);

/// A running cluster.
pub struct Cluster {
    sim: Sim<'static>,
    seed: Seed,
    processes: Processes,
    members: BTreeMap<String, Arc<Process>>,
    faults: Random,
    trace: Trace,
    next_network_line: Duration,
    plan: Arc<Plan>,
}

// === impl Cluster ===

impl Cluster {
    /// Starts a cluster.
    ///
    /// # Errors
    /// The timers do not fit each other.
    pub fn start(seed: Seed, layout: Layout, trace: &Trace) -> anyhow::Result<Self> {
        let plan = Arc::new(Plan::new(layout)?);
        let mut cluster = Self {
            sim: simulation(seed),
            seed,
            processes: Processes::new(plan.processes()),
            plan,
            members: BTreeMap::new(),
            faults: seed.random_for("faults", 0),
            trace: trace.clone(),
            next_network_line: Duration::ZERO,
        };
        for id in 1..=layout.coordinators {
            cluster.start_coordinator(id);
        }
        let shared = MemoryFileSystem::new();
        for number in 0..layout.masters {
            cluster.start_master(number, &shared);
        }
        for number in 0..layout.region_servers {
            cluster.start_region_server(number, &shared);
        }
        Ok(cluster)
    }

    fn start_coordinator(&mut self, id: u64) {
        let plan = Arc::clone(&self.plan);
        self.host(&plan::coordinator(id), MemoryFileSystem::new(), 1, move |life| {
            let config = plan.coordinator(id);
            basalt_coordinator::run(config, life.seams, life.files, life.shutdown).boxed()
        });
    }

    // Writers of the shared disk: masters from 1, region servers from 101.

    fn start_master(&mut self, number: u64, shared: &MemoryFileSystem) {
        let plan = Arc::clone(&self.plan);
        self.host(&plan::master(number), shared.clone(), 1 + number, move |life| {
            let config = plan.master(number, life.instance);
            basalt_master::run(config, life.seams, life.files, life.shutdown).boxed()
        });
    }

    fn start_region_server(&mut self, number: u64, shared: &MemoryFileSystem) {
        let plan = Arc::clone(&self.plan);
        self.host(&plan::region_server(number), shared.clone(), 101 + number, move |life| {
            let config = plan.region_server(number, life.instance);
            basalt_regionserver::run(config, life.seams, life.files, life.shutdown).boxed()
        });
    }

    /// Starts a process that runs `role` in each of its lives.
    fn host<E: Display + 'static>(
        &mut self,
        name: &str,
        files: MemoryFileSystem,
        writer: u64,
        role: impl Fn(Life) -> BoxFuture<'static, Result<(), E>> + 'static,
    ) {
        let volume = Volume { files, writer, syncs: self.plan.layout().syncs };
        let (processes, trace) = (self.processes.clone(), self.trace.clone());
        let process = Arc::new(Process::new(name, self.seed, volume, processes, trace));
        self.members.insert(name.to_owned(), Arc::clone(&process));
        let role = Rc::new(role);
        self.sim.host(name, move || {
            let (process, role) = (Arc::clone(&process), Rc::clone(&role));
            async move {
                process.live(|life| role(life)).await;
                Ok(())
            }
        });
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

    /// What it was started by.
    pub fn plan(&self) -> &Plan {
        &self.plan
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
