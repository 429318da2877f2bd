//! Simulated processes: which are up, and how one lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use basalt_runtime::{Clock, Network, Random, Seams, Shutdown};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::clock::SimulatedClock;
use crate::disk::{SimulatedDisk, Syncs};
use crate::network::SimulatedNetwork;
use crate::seed::Seed;
use crate::trace::Trace;

/// How long whoever supervises a process waits before it starts it again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Which processes are up; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Processes(Arc<BTreeMap<String, watch::Sender<State>>>);

/// What a process is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// Not running: not started yet, or killed.
    Down,
    /// Running.
    Up,
    /// Its role's `run` has returned: the operating system is about to clean up after it.
    Ended,
}

/// A process of the cluster, over all its lives.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: Arc<str>,
    seed: Seed,
    volume: Volume,
    lives: AtomicU64,
    processes: Processes,
    trace: Trace,
}

/// What a process keeps its files on.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) files: MemoryFileSystem,
    /// As whom it writes them.
    pub(crate) writer: u64,
    pub(crate) syncs: Syncs,
}

/// What one life of a process runs with.
pub(crate) struct Life {
    pub(crate) seams: Seams,
    pub(crate) files: SharedFileSystem,
    /// Never cancelled: these processes are killed.
    pub(crate) shutdown: Shutdown,
    /// Which life it is, to whoever started it.
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

    /// Ends once the process is not up.
    pub(crate) async fn down(&self, name: &str) {
        let Some(state) = self.0.get(name) else { return };
        let mut state = state.subscribe();
        // An error says that all is over.
        let _over = state.wait_for(|state| *state != State::Up).await;
    }

    pub(crate) fn set(&self, name: &str, now: State) {
        if let Some(state) = self.0.get(name) {
            state.send_replace(now);
        }
    }

    /// Those that have ended by themselves.
    pub(crate) fn ended(&self) -> Vec<String> {
        let ended = self.0.iter().filter(|(_, state)| *state.borrow() == State::Ended);
        ended.map(|(name, _)| name.clone()).collect()
    }
}

// === impl Process ===

impl Process {
    pub(crate) fn new(
        name: &str,
        seed: Seed,
        volume: Volume,
        processes: Processes,
        trace: Trace,
    ) -> Self {
        let lives = AtomicU64::new(0);
        Self { name: name.into(), seed, volume, lives, processes, trace }
    }

    /// Lives once: runs `role` until that returns or the process is killed.
    pub(crate) async fn live<E: std::fmt::Display>(
        &self,
        role: impl FnOnce(Life) -> BoxFuture<'static, Result<(), E>>,
    ) {
        let number = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        if number > 1 {
            tokio::time::sleep(RESTART_PAUSE).await;
        }
        self.trace.record(format_args!("{}: life {number} begins", self.name));
        self.processes.set(&self.name, State::Up);
        let life = Life {
            seams: seams(self.seed, &self.name, number, &self.processes, &self.trace),
            files: self.files(number),
            shutdown: Shutdown::new(),
            instance: format!("{}/{number}", self.name),
        };
        match role(life).await {
            Ok(()) => self.trace.record(format_args!("{}: ended", self.name)),
            Err(error) => self.trace.record(format_args!("{}: ended: {error}", self.name)),
        }
        self.processes.set(&self.name, State::Ended);
    }

    /// What a crash does to the disk: each file that was being written keeps what was synced, and
    /// of the rest as much as `random` says.
    pub(crate) fn crash_disk(&self, random: &Random) {
        let Volume { files, writer, .. } = &self.volume;
        files.crash(*writer, |unsynced| random.in_range(0..unsynced + 1));
    }

    fn files(&self, life: u64) -> SharedFileSystem {
        let Volume { files, writer, syncs } = &self.volume;
        let random = self.seed.random_for(&format!("{}'s disk", self.name), life);
        Arc::new(SimulatedDisk::new(files.as_writer(*writer), random, *syncs))
    }
}

/// The seams of the `life`th life of a process.
pub(crate) fn seams(
    seed: Seed,
    name: &Arc<str>,
    life: u64,
    processes: &Processes,
    trace: &Trace,
) -> Seams {
    Seams {
        clock: Clock::new(SimulatedClock::default()),
        random: seed.random_for(name, life),
        network: Network::new(SimulatedNetwork::new(
            Arc::clone(name),
            processes.clone(),
            trace.clone(),
        )),
    }
}
