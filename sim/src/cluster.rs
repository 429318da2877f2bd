//! A cluster like a real one: coordinators, masters and region servers, each a simulated process
//! that executes the role's own `run`. Masters and region servers share one disk; each coordinator
//! has its own.
//!
//! turmoil ticks every machine, so the timers of a *paused* process cannot be stopped. Everything
//! that others see of the process is simulated instead. Until it resumes, no message that it sends
//! arrives and none reaches it, and each disk operation that it began waits until then. So
//! everything that a frozen process would do on waking does happen late: append to a log that has
//! been sealed, write a manifest, answer a client.

use std::collections::BTreeMap;
use std::fmt::{Arguments, Display};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use basalt_fs::MemoryFileSystem;
use basalt_model::FeatureLevel;
use basalt_runtime::{Random, Seams};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use turmoil::Sim;

use crate::clock::ClockError;
use crate::disk::DiskFaults;
use crate::drain::drain;
use crate::faults::{Direction, FaultAction, LogLoss, Peers};
use crate::folder::FolderCopy;
use crate::hdfs::{Hdfs, HdfsFault, Outage};
use crate::invariants::{Violation, check_standstill};
use crate::links::Links;
use crate::lost_logs::LostLogs;
use crate::plan::{self, Layout, Plan};
use crate::process::{HdfsVolume, Life, Process, Processes, State, Volume, World};
use crate::seed::Seed;
use crate::trace::Trace;

/// The maximum simulated time of a simulation.
const DURATION_MAX: Duration = Duration::from_mins(10);
/// The interval between two lines about the network in the trace.
const NETWORK_LINE_INTERVAL: Duration = Duration::from_millis(100);

/// The maximum latency of a message, normally and on slow links.
const LATENCY_MAX: Duration = Duration::from_millis(4);
const SLOW_LATENCY_MAX: Duration = Duration::from_millis(300);

/// A running cluster.
pub struct Cluster {
    sim: Sim<'static>,
    world: World,
    members: BTreeMap<String, Arc<Process>>,
    faults: Random,
    shared: MemoryFileSystem,
    /// Stores the contents of the shared files if they are on HDFS.
    hdfs: Option<Hdfs>,
    /// Logs that faults have removed from the shared disk.
    lost_logs: Vec<LostLogs>,
    clients: Vec<String>,
    next_network_line: Duration,
    drains: u32,
    /// The processes that have ended by themselves.
    ended: Vec<String>,
    plan: Arc<Plan>,
    /// The feature levels of the processes that were replaced.
    levels: Levels,
    /// Processes whose serving threads stand still, with the number of their starts before that.
    standing_still: BTreeMap<String, u64>,
}

/// The highest feature level that a process knows from its next start on, by its name.
type Levels = Arc<Mutex<BTreeMap<String, FeatureLevel>>>;

/// The peers whose requests serving threads answer.
const SERVED: [Peers; 3] = [Peers::Masters, Peers::RegionServers, Peers::Clients];

// === impl Cluster ===

impl Cluster {
    /// Starts a cluster.
    ///
    /// # Errors
    /// The timers contradict each other.
    pub fn start(seed: Seed, layout: Layout, trace: &Trace) -> anyhow::Result<Self> {
        let plan = Arc::new(Plan::new(layout)?);
        let world = World {
            seed,
            processes: Processes::new(plan.layout().processes()),
            links: Links::default(),
            trace: trace.clone(),
            violations: Arc::default(),
        };
        // One DataNode on the machine of each region server, plus one.
        let data_nodes = layout.region_servers + 1;
        let hdfs = || Hdfs::new(data_nodes, seed.random_for("hdfs", 0), trace);
        let hdfs = layout.on_hdfs.then(hdfs);
        let shared = hdfs.as_ref().map_or_else(MemoryFileSystem::new, Hdfs::names);
        let mut cluster = Self {
            sim: simulation(seed),
            world,
            plan,
            members: BTreeMap::new(),
            faults: seed.random_for("faults", 0),
            shared,
            hdfs,
            lost_logs: Vec::new(),
            clients: Vec::new(),
            next_network_line: Duration::ZERO,
            drains: 0,
            levels: Levels::default(),
            standing_still: BTreeMap::new(),
            ended: Vec::new(),
        };
        for id in 1..=layout.coordinators {
            cluster.start_coordinator(id);
        }
        for number in 0..layout.masters {
            cluster.start_master(number);
        }
        for number in 0..layout.region_servers {
            cluster.start_region_server(number);
        }
        Ok(cluster)
    }

    fn start_coordinator(&mut self, id: u64) {
        let plan = Arc::clone(&self.plan);
        let volume = self.volume(MemoryFileSystem::new(), 1);
        self.host(&plan::coordinator(id), volume, move |life| {
            let config = plan.coordinator(id);
            basalt_coordinator::run(config, life.seams, life.files, life.shutdown).boxed()
        });
    }

    // Writer ids on the shared disk: masters count from 1, region servers from 101.

    fn start_master(&mut self, number: u64) {
        let plan = Arc::clone(&self.plan);
        let volume = self.shared_volume(1 + number, None);
        let (name, levels) = (plan::master(number), Arc::clone(&self.levels));
        self.host(&plan::master(number), volume, move |life| {
            let level = levels.lock().get(&name).copied();
            let config = plan.master(number, life.instance, level);
            basalt_master::run(config, life.seams, life.files, life.shutdown).boxed()
        });
    }

    fn start_region_server(&mut self, number: u64) {
        let plan = Arc::clone(&self.plan);
        let volume = self.shared_volume(101 + number, Some(number));
        let (name, levels) = (plan::region_server(number), Arc::clone(&self.levels));
        self.host(&plan::region_server(number), volume, move |life| {
            let level = levels.lock().get(&name).copied();
            let config = plan.region_server(number, life.instance, level);
            basalt_regionserver::run(config, life.seams, life.files, life.shutdown).boxed()
        });
    }

    fn volume(&self, files: MemoryFileSystem, writer: u64) -> Volume {
        let (syncs, faults) = (self.plan.layout().syncs, DiskFaults::default());
        Volume { files, writer, syncs, faults, copy: FolderCopy::default(), hdfs: None }
    }

    /// The files that masters and region servers share.
    fn shared_volume(&self, writer: u64, own_node: Option<u64>) -> Volume {
        let hdfs = self.hdfs.clone().map(|hdfs| HdfsVolume { hdfs, own_node });
        Volume { hdfs, ..self.volume(self.shared.clone(), writer) }
    }

    /// Adds a process that runs `role` in each of its lives.
    fn host<E: Display + 'static>(
        &mut self,
        name: &str,
        volume: Volume,
        role: impl Fn(Life) -> BoxFuture<'static, Result<(), E>> + 'static,
    ) {
        let Layout { clock_drift_ppm, .. } = self.plan.layout();
        let drift = i64::try_from(self.faults.in_range(0..2 * clock_drift_ppm + 1)).unwrap_or(0);
        let clock = ClockError::of_rate(drift - i64::try_from(clock_drift_ppm).unwrap_or(0));
        let process = Arc::new(Process::new(name, volume, clock, self.world.clone()));
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
        let seams = self.world.seams(&name.into(), 1, ClockError::default());
        self.clients.push(name.to_owned());
        let client = client(seams);
        self.sim
            .client(name, async move { client.await.map_err(|error| format!("{error:#}").into()) });
    }

    /// The plan that the cluster was started with.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The simulated time since the start.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Advances the simulation by one step. Returns whether all clients have ended.
    ///
    /// # Errors
    /// A client failed, or the simulation takes too long.
    pub fn step(&mut self) -> anyhow::Result<bool> {
        if let Some(hdfs) = &self.hdfs {
            hdfs.tick(self.sim.elapsed());
        }
        let over = self.sim.step().map_err(|error| anyhow!("{error}"))?;
        for name in self.world.processes.ended() {
            self.ended.push(name.clone());
            self.take_down(&name)?;
            // Its supervisor starts it again.
            self.sim.bounce(name);
        }
        let now = self.elapsed();
        if now >= self.next_network_line || over {
            self.world.trace.record_network(now);
            self.next_network_line = now + NETWORK_LINE_INTERVAL;
        }
        Ok(over)
    }

    /// Takes the violations that were found when processes ended.
    pub(crate) fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut *self.world.violations.lock())
    }

    /// The processes that have an ephemeral node while they are alive: masters and region servers.
    pub(crate) fn registering(&self) -> impl Iterator<Item = &str> {
        let names = self.members.keys().map(String::as_str);
        names.filter(|name| !Peers::Coordinators.include(name))
    }

    /// The processes that have ended by themselves.
    pub(crate) fn ended(&self) -> &[String] {
        &self.ended
    }

    /// The disk that all region servers and masters share.
    pub(crate) fn shared_disk(&self) -> &MemoryFileSystem {
        &self.shared
    }

    /// Records in the trace an event that the simulation causes.
    pub(crate) fn record(&self, event: Arguments<'_>) {
        self.world.trace.record_at(self.elapsed(), event);
    }

    /// Injects a fault into a process.
    ///
    /// # Errors
    /// There is no such process.
    pub fn inject(&mut self, name: &str, action: FaultAction) -> anyhow::Result<()> {
        self.record(format_args!("fault: {name} is {action}"));
        if let FaultAction::Hdfs(action) = action {
            let writer = self.members.get(name).map(|process| process.writer());
            self.hdfs()?.inject(self.sim.elapsed(), action, writer);
            return Ok(());
        }
        let disk = self.process(name)?.disk().clone();
        match action {
            FaultAction::Kill => self.take_down(name)?,
            FaultAction::Folder(what) => {
                self.take_down(name)?;
                self.process(name)?.change_folder(what)?;
            }
            FaultAction::Stop => self.process(name)?.stop(),
            FaultAction::Replace(level) => {
                self.levels.lock().insert(name.to_owned(), level);
                self.process(name)?.stop();
            }
            FaultAction::Drain => self.drain(name),
            FaultAction::Pause => {
                disk.freeze(true);
                self.cut(name, Direction::Both, Peers::All, Links::hold);
            }
            FaultAction::Cut(direction, peers) => self.cut(name, direction, peers, Links::hold),
            FaultAction::Refuse(peers) => self.cut(name, Direction::Out, peers, Links::refuse),
            FaultAction::SlowLinks => self.latency(name, SLOW_LATENCY_MAX),
            FaultAction::StandStill => {
                let process = self.process(name)?;
                process.serving.stand_still(true);
                let lives = process.lives();
                self.standing_still.insert(name.to_owned(), lives);
                for peers in SERVED {
                    self.cut(name, Direction::Both, peers, Links::hold);
                }
            }
            FaultAction::FreezeDisk => disk.freeze(true),
            FaultAction::SlowDisk => disk.slow_down(true),
            FaultAction::FullDisk => disk.fill_up(true),
            FaultAction::FailSyncs(count) => disk.fail_syncs(count, false),
            FaultAction::FailStoreSyncs(count) => disk.fail_syncs(count, true),
            FaultAction::FlipBits(of) => disk.flip_bits(of),
            FaultAction::SetClock(ahead_ms) => self.process(name)?.clock.set_wall_ms(ahead_ms),
            FaultAction::KillAndLoseLogs(loss) => {
                self.take_down(name)?;
                self.lose_logs(name, loss);
            }
            FaultAction::LoseLogs(loss) => self.lose_logs(name, loss),
            FaultAction::KillMachine => {
                self.take_down(name)?;
                self.inject_into_data_node(name)?;
            }
            FaultAction::Nothing | FaultAction::Hdfs(_) => {}
        }
        Ok(())
    }

    /// Undoes the effect of [`Cluster::inject`] as far as possible.
    ///
    /// # Errors
    /// There is no such process.
    pub fn heal(&mut self, name: &str, action: FaultAction) -> anyhow::Result<()> {
        self.record(format_args!("fault over: {name} was {action}"));
        if let FaultAction::Hdfs(action) = action {
            self.hdfs()?.heal(self.sim.elapsed(), action);
            return Ok(());
        }
        let disk = self.process(name)?.disk().clone();
        match action {
            // Another fault may have started it already.
            FaultAction::Kill | FaultAction::Folder(_) if self.sim.is_host_running(name) => {}
            FaultAction::Kill | FaultAction::Folder(_) => self.sim.bounce(name),
            // It is restarted as soon as it has ended.
            FaultAction::Stop | FaultAction::Replace(_) => {}
            FaultAction::Drain => {
                if self.sim.is_host_running(name) {
                    self.take_down(name)?;
                }
                self.sim.bounce(name);
            }
            FaultAction::Pause => {
                disk.freeze(false);
                self.cut(name, Direction::Both, Peers::All, Links::release);
            }
            FaultAction::Cut(direction, peers) => self.cut(name, direction, peers, Links::release),
            FaultAction::Refuse(peers) => self.cut(name, Direction::Out, peers, Links::accept),
            FaultAction::SlowLinks => self.latency(name, LATENCY_MAX),
            FaultAction::StandStill => {
                let process = self.process(name)?;
                process.serving.stand_still(false);
                let now = process.lives();
                let before = self.standing_still.remove(name).unwrap_or(0);
                let violation = check_standstill(name, before, now);
                self.world.violations.lock().extend(violation);
                for peers in SERVED {
                    self.cut(name, Direction::Both, peers, Links::release);
                }
            }
            FaultAction::FreezeDisk => disk.freeze(false),
            FaultAction::SlowDisk => disk.slow_down(false),
            FaultAction::FullDisk => disk.fill_up(false),
            FaultAction::FailSyncs(_) | FaultAction::FailStoreSyncs(_) => disk.fail_syncs(0, false),
            FaultAction::FlipBits(_) => disk.flip_bits(0),
            FaultAction::SetClock(_) => self.process(name)?.clock.set_wall_ms(0),
            FaultAction::KillAndLoseLogs(_) | FaultAction::LoseLogs(_) => {
                for lost in std::mem::take(&mut self.lost_logs) {
                    lost.put_back(&self.shared);
                }
                if matches!(action, FaultAction::KillAndLoseLogs(_))
                    && !self.sim.is_host_running(name)
                {
                    self.sim.bounce(name);
                }
            }
            FaultAction::KillMachine => {
                if let Some(action) = self.data_node_of(name)? {
                    self.hdfs()?.heal(self.sim.elapsed(), action);
                }
                if !self.sim.is_host_running(name) {
                    self.sim.bounce(name);
                }
            }
            FaultAction::Nothing | FaultAction::Hdfs(_) => {}
        }
        Ok(())
    }

    /// Kills the DataNode on the machine of a process, as in a power cut.
    fn inject_into_data_node(&self, name: &str) -> anyhow::Result<()> {
        if let Some(action) = self.data_node_of(name)? {
            self.hdfs()?.inject(self.sim.elapsed(), action, None);
        }
        Ok(())
    }

    fn data_node_of(&self, name: &str) -> anyhow::Result<Option<HdfsFault>> {
        let own = self.process(name)?.own_node();
        Ok(own.map(|node| HdfsFault::DataNode(node, Outage::PowerCut)))
    }

    fn hdfs(&self) -> anyhow::Result<&Hdfs> {
        self.hdfs.as_ref().context("the files of this layout are on no HDFS")
    }

    /// Asks the master to move all regions off a region server.
    fn drain(&mut self, name: &str) {
        self.drains += 1;
        let (coordinators, name) = (self.plan.coordinators(), name.to_owned());
        self.client(&format!("drain-{}", self.drains), |seams| async move {
            // A failed drain is not a violation.
            let _ = drain(&seams, &coordinators, &name).await;
            Ok(())
        });
    }

    fn process(&self, name: &str) -> anyhow::Result<&Process> {
        Ok(self.members.get(name).with_context(|| format!("no process {name}"))?)
    }

    /// Applies `change` to the links between `name` and `peers`.
    fn cut(&self, name: &str, direction: Direction, peers: Peers, change: fn(&Links, &str, &str)) {
        let others = self.members.keys().chain(&self.clients);
        for other in others.filter(|other| *other != name && peers.include(other)) {
            if direction != Direction::In {
                change(&self.world.links, name, other);
            }
            if direction != Direction::Out {
                change(&self.world.links, other, name);
            }
        }
    }

    fn latency(&self, name: &str, latency_max: Duration) {
        for other in self.members.keys().chain(&self.clients).filter(|other| *other != name) {
            self.sim.set_link_max_message_latency(name, other.as_str(), latency_max);
        }
    }

    /// The server and the number of each log from which something was removed.
    pub(crate) fn lost_logs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lost_logs.iter().flat_map(LostLogs::names)
    }

    fn lose_logs(&mut self, name: &str, loss: LogLoss) {
        let lost = LostLogs::take(&self.shared, name, loss, &self.faults);
        self.record(format_args!("lost: {lost:?}"));
        self.lost_logs.push(lost);
    }

    fn take_down(&mut self, name: &str) -> anyhow::Result<()> {
        self.world.processes.set(name, State::Down);
        // The disk first: the dying tasks may still act, and must not change it.
        self.process(name)?.crash_disk(self.sim.elapsed(), &self.faults);
        self.sim.crash(name);
        Ok(())
    }
}

/// The network of the simulation: 1 to 4 ms one way; the seed chooses the order of the processes.
fn simulation(seed: Seed) -> Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed.0)
        .simulation_duration(DURATION_MAX)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(LATENCY_MAX)
        .tcp_capacity(4_096)
        .enable_random_order()
        .build()
}
