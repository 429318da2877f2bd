//! Simulated processes: which of them are up, and how one runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use basalt_runtime::{Clock, Executor, Network, Random, Seams, Shutdown, Threads};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::{ClockError, SimulatedClock};
use crate::disk::{DiskFaults, SimulatedDisk, Syncs};
use crate::folder::{Folder, FolderCopy};
use crate::hdfs::{Hdfs, HdfsClient};
use crate::invariants::{Violation, check_full_disk};
use crate::links::Links;
use crate::network::SimulatedNetwork;
use crate::seed::Seed;
use crate::threads::ServingThreads;
use crate::trace::Trace;

/// How long the supervisor of a process waits before it starts the process again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Which processes are up; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Processes(Arc<BTreeMap<String, watch::Sender<State>>>);

/// The state of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// Not running: not started yet, or killed.
    Down,
    /// Running.
    Up,
    /// Its role's `run` has returned, and the operating system is about to clean up.
    Ended,
}

/// A process of the cluster, across all its lives.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: Arc<str>,
    volume: Volume,
    lives: AtomicU64,
    /// Asks the current life to stop.
    shutdown: Mutex<Shutdown>,
    world: World,
    pub(crate) clock: ClockError,
    pub(crate) serving: ServingThreads,
}

/// State shared by all processes of a simulation; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) seed: Seed,
    pub(crate) processes: Processes,
    pub(crate) links: Links,
    pub(crate) trace: Trace,
    /// Violations found when processes ended.
    pub(crate) violations: Arc<Mutex<Vec<Violation>>>,
}

/// The storage of a process.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) files: MemoryFileSystem,
    /// The writer id under which it writes files.
    pub(crate) writer: u64,
    pub(crate) syncs: Syncs,
    pub(crate) faults: DiskFaults,
    /// The copy that a fault has made of its folder.
    pub(crate) copy: FolderCopy,
    /// The HDFS that stores the files instead of a disk.
    pub(crate) hdfs: Option<HdfsVolume>,
}

/// A process's place in an HDFS.
#[derive(Clone, Debug)]
pub(crate) struct HdfsVolume {
    pub(crate) hdfs: Hdfs,
    /// The DataNode on the machine of the process.
    pub(crate) own_node: Option<u64>,
}

/// The environment of one life of a process.
pub(crate) struct Life {
    pub(crate) seams: Seams,
    pub(crate) files: SharedFileSystem,
    /// Cancelled when the process is asked to stop.
    pub(crate) shutdown: Shutdown,
    /// Identifies this life, like the instance name that a supervisor passes.
    pub(crate) instance: String,
}

// === impl Processes ===

impl Processes {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let states = names.into_iter().map(|name| (name, watch::Sender::new(State::Down)));
        Self(Arc::new(states.collect()))
    }

    pub(crate) fn is_up(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|state| *state.borrow() == State::Up)
    }

    /// Returns once the process is not up.
    pub(crate) async fn down(&self, name: &str) {
        let Some(state) = self.0.get(name) else { return };
        let mut state = state.subscribe();
        // An error means that the simulation is over.
        let _over = state.wait_for(|state| *state != State::Up).await;
    }

    pub(crate) fn set(&self, name: &str, now: State) {
        if let Some(state) = self.0.get(name) {
            state.send_replace(now);
        }
    }

    /// The processes that have ended by themselves.
    pub(crate) fn ended(&self) -> Vec<String> {
        let ended = self.0.iter().filter(|(_, state)| *state.borrow() == State::Ended);
        ended.map(|(name, _)| name.clone()).collect()
    }
}

// === impl Process ===

impl Process {
    pub(crate) fn new(name: &str, volume: Volume, clock: ClockError, world: World) -> Self {
        let (lives, shutdown) = (AtomicU64::new(0), Mutex::default());
        let serving = ServingThreads::default();
        Self { name: name.into(), volume, lives, shutdown, world, clock, serving }
    }

    /// How often the process was started.
    pub(crate) fn lives(&self) -> u64 {
        self.lives.load(Ordering::Relaxed)
    }

    /// Runs one life: `role` runs until it returns or the process is killed.
    pub(crate) async fn live<E: std::fmt::Display>(
        &self,
        role: impl FnOnce(Life) -> BoxFuture<'static, Result<(), E>>,
    ) {
        let World { processes, trace, .. } = &self.world;
        let number = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        if number > 1 {
            tokio::time::sleep(RESTART_PAUSE).await;
        }
        trace.record(format_args!("{}: life {number} begins", self.name));
        processes.set(&self.name, State::Up);
        let shutdown = Shutdown::new();
        *self.shutdown.lock() = shutdown.clone();
        let Some(files) = self.open_files(number, &shutdown).await else {
            trace.record(format_args!("{}: ended before it began", self.name));
            return processes.set(&self.name, State::Ended);
        };
        let life = Life {
            seams: Seams {
                threads: Threads {
                    serving: Executor::new(self.serving.clone()),
                    liveness: Executor::default(),
                },
                ..self.world.seams(&self.name, number, self.clock.clone())
            },
            files,
            shutdown,
            instance: format!("{}/{number}", self.name),
        };
        match role(life).await {
            Ok(()) => trace.record(format_args!("{}: ended", self.name)),
            Err(error) => {
                trace.record(format_args!("{}: ended: {error}", self.name));
                let violation = check_full_disk(&self.name, &error.to_string());
                self.world.violations.lock().extend(violation);
            }
        }
        processes.set(&self.name, State::Ended);
    }

    /// Asks the process to stop. Its supervisor starts it again once it has ended.
    pub(crate) fn stop(&self) {
        self.shutdown.lock().cancel();
    }

    /// Applies a crash to the disk. Each file that was being written keeps its synced bytes, and a
    /// random part of the others.
    pub(crate) fn crash_disk(&self, now: Duration, random: &Random) {
        let Volume { files, writer, hdfs, .. } = &self.volume;
        if let Some(HdfsVolume { hdfs, .. }) = hdfs {
            return hdfs.crash(now, *writer);
        }
        files.crash(*writer, |unsynced| random.in_range(0..unsynced + 1));
    }

    /// Applies `what` to the folder of a process that is down and does not share its disk.
    pub(crate) fn change_folder(&self, what: Folder) -> anyhow::Result<()> {
        let Volume { files, writer, copy, .. } = &self.volume;
        copy.apply(&files.as_writer(*writer), what)
    }

    /// The DataNode on the process's machine.
    pub(crate) fn own_node(&self) -> Option<u64> {
        self.volume.hdfs.as_ref()?.own_node
    }

    /// The writer id under which the process writes files.
    pub(crate) fn writer(&self) -> u64 {
        self.volume.writer
    }

    pub(crate) fn disk(&self) -> &DiskFaults {
        &self.volume.faults
    }

    /// The files of the process's `life`th life, once they are available. `None` if the process is
    /// asked to stop before.
    async fn open_files(&self, life: u64, shutdown: &Shutdown) -> Option<SharedFileSystem> {
        let Volume { files, writer, syncs, faults, hdfs, .. } = &self.volume;
        let random = self.world.seed.random_for(&format!("{}'s disk", self.name), life);
        let Some(HdfsVolume { hdfs, own_node }) = hdfs else {
            let files = files.as_writer(*writer);
            return Some(Arc::new(SimulatedDisk::new(files, random, *syncs, faults.clone())));
        };
        let client = HdfsClient::new(hdfs.clone(), *writer, random, faults.clone(), *own_node);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            () = client.until_it_takes_writes() => Some(Arc::new(client)),
        }
    }
}

// === impl World ===

impl World {
    /// The seams of the `life`th life of a process.
    pub(crate) fn seams(&self, name: &Arc<str>, life: u64, clock: ClockError) -> Seams {
        let (processes, links) = (self.processes.clone(), self.links.clone());
        let network = SimulatedNetwork::new(Arc::clone(name), processes, links, self.trace.clone());
        Seams {
            clock: Clock::new(SimulatedClock::new(clock)),
            random: self.seed.random_for(name, life),
            network: Network::new(network),
            threads: Threads::default(),
        }
    }
}
