//! All child processes of a cluster, by name.
//!
//! It restarts a child when it dies, as a kubelet does. On request it also kills, pauses, resumes
//! or holds down a child. It stops the roles in order: first the region servers, while masters can
//! still reassign their regions; then the masters; then the coordinator, which both need.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use basalt_runtime::Clock;
use rustix::process::Signal;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::keeper::{DeathHook, Event, Keeper, Launch, Order, ProcessState};
use crate::role_config::RoleName;

/// The child processes of a cluster. Dropping this value kills them.
#[derive(Debug)]
pub struct Supervisor {
    processes: BTreeMap<String, Process>,
    events: broadcast::Sender<Event>,
    /// The receiver for the first listener. It also contains the events from before the first call.
    first: Mutex<Option<broadcast::Receiver<Event>>>,
    keepers: JoinSet<()>,
}

#[derive(Debug)]
struct Process {
    role: RoleName,
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<ProcessState>,
}

/// Why an operation on a process failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// No process has this name.
    #[error("there is no process {name}; the processes are {}", .known.join(", "))]
    NoSuchProcess {
        /// The name.
        name: String,
        /// The names of all processes.
        known: Vec<String>,
    },
    /// The process was stopped permanently.
    #[error("{name} was stopped")]
    Stopped {
        /// The name.
        name: String,
    },
    /// Processes that did not get ready in time.
    #[error("not ready after {}: {}", basalt_api::Timespan::from(*.after), .names.join(", "))]
    NotReady {
        /// The time that was waited.
        after: Duration,
        /// Their names.
        names: Vec<String>,
    },
}

/// The maximum number of pending orders of a keeper.
const ORDERS_MAX: usize = 64;
/// How many events a slow listener may lag behind before it loses the oldest.
const EVENTS_MAX: usize = 1024;
/// The roles that are stopped together, in order.
const STOP_ORDER: [&[RoleName]; 3] =
    [&[RoleName::RegionServer, RoleName::Idle], &[RoleName::Master], &[RoleName::Coordinator]];
/// How long a keeper may take, beyond the grace period, to reap a killed child.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

// === impl Supervisor ===

impl Supervisor {
    /// Starts all processes at once. Calls `on_death` for each death. Must be called in a tokio
    /// runtime.
    pub fn start(launches: Vec<Launch>, clock: &Clock, on_death: &DeathHook) -> Self {
        let (events, first) = broadcast::channel(EVENTS_MAX);
        let mut keepers = JoinSet::new();
        let mut processes = BTreeMap::new();
        for launch in launches {
            let (orders, orders_of_keeper) = mpsc::channel(ORDERS_MAX);
            let (state_of_keeper, state) = watch::channel(ProcessState::Waiting);
            let role = launch.role;
            processes.insert(launch.name.clone(), Process { role, orders, state });
            let keeper = Keeper {
                launch,
                orders: orders_of_keeper,
                state: state_of_keeper,
                events: events.clone(),
                on_death: on_death.clone(),
                run: clock.wall_ms(),
                held: false,
                kill_at: None,
            };
            keepers.spawn(keeper.run());
        }
        Self { processes, events, first: Mutex::new(Some(first)), keepers }
    }

    /// A receiver of the events from now on. The first caller also gets all earlier events.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let first = self.first.lock().ok().and_then(|mut first| first.take());
        first.unwrap_or_else(|| self.events.subscribe())
    }

    /// The state of each process, by name.
    pub fn states(&self) -> BTreeMap<String, ProcessState> {
        let states = self.processes.iter();
        states.map(|(name, process)| (name.clone(), *process.state.borrow())).collect()
    }

    /// The state of one process.
    ///
    /// # Errors
    /// [`Error::NoSuchProcess`].
    pub fn state(&self, name: &str) -> Result<ProcessState, Error> {
        Ok(*self.process(name)?.state.borrow())
    }

    /// Waits until one process is ready.
    ///
    /// # Errors
    /// [`Error::NotReady`], [`Error::NoSuchProcess`].
    pub async fn wait_ready(&self, name: &str, within: Duration) -> Result<(), Error> {
        let mut state = self.process(name)?.state.clone();
        let ready = state.wait_for(|state| matches!(state, ProcessState::Ready { .. }));
        match timeout(within, ready).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped { name: name.to_owned() }),
            Err(_) => Err(Error::NotReady { after: within, names: vec![name.to_owned()] }),
        }
    }

    /// Waits until all processes are ready.
    ///
    /// # Errors
    /// [`Error::NotReady`] with the names of all processes that are not ready.
    pub async fn wait_all_ready(&self, within: Duration) -> Result<(), Error> {
        let waits = self.processes.keys().map(|name| self.wait_ready(name, within));
        let waited = futures::future::join_all(waits).await;
        let waiting = self.processes.keys().zip(waited).filter(|(_, ready)| ready.is_err());
        let names: Vec<_> = waiting.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Error::NotReady { after: within, names })
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    /// [`Error::NoSuchProcess`], [`Error::Stopped`]. The following functions return the same
    /// errors.
    pub async fn kill(&self, name: &str) -> Result<(), Error> {
        self.order(name, Order::Signal(Signal::KILL)).await
    }

    /// Sends SIGSTOP: the process is paused until [`Supervisor::resume`].
    ///
    /// # Errors
    /// As [`Supervisor::kill`].
    pub async fn pause(&self, name: &str) -> Result<(), Error> {
        self.order(name, Order::Signal(Signal::STOP)).await
    }

    /// Sends SIGCONT.
    ///
    /// # Errors
    /// As [`Supervisor::kill`].
    pub async fn resume(&self, name: &str) -> Result<(), Error> {
        self.order(name, Order::Signal(Signal::CONT)).await
    }

    /// Sends SIGTERM: the process stops in its own time.
    ///
    /// # Errors
    /// As [`Supervisor::kill`].
    pub async fn terminate(&self, name: &str) -> Result<(), Error> {
        self.order(name, Order::Signal(Signal::TERM)).await
    }

    /// From now on the process is not restarted when it dies, until [`Supervisor::release`].
    ///
    /// # Errors
    /// As [`Supervisor::kill`].
    pub async fn hold(&self, name: &str) -> Result<(), Error> {
        self.order(name, Order::Hold(true)).await
    }

    /// Ends [`Supervisor::hold`]: the process is started if it is down.
    ///
    /// # Errors
    /// As [`Supervisor::kill`].
    pub async fn release(&self, name: &str) -> Result<(), Error> {
        self.order(name, Order::Hold(false)).await
    }

    /// Stops all processes, role by role. Each may take `grace` before it is killed. This is cancel
    /// safe, and a second call with a shorter `grace` speeds up the first.
    pub async fn stop(&self, grace: Duration) {
        for roles in STOP_ORDER {
            let together = self.processes.values().filter(|process| roles.contains(&process.role));
            let stops = together.map(|process| process.stop(grace));
            futures::future::join_all(stops).await;
        }
    }

    fn process(&self, name: &str) -> Result<&Process, Error> {
        self.processes.get(name).ok_or_else(|| Error::NoSuchProcess {
            name: name.to_owned(),
            known: self.processes.keys().cloned().collect(),
        })
    }

    async fn order(&self, name: &str, order: Order) -> Result<(), Error> {
        let sent = self.process(name)?.orders.send(order).await;
        sent.map_err(|_| Error::Stopped { name: name.to_owned() })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Each keeper owns its child, which is killed together with it.
        self.keepers.abort_all();
    }
}

// === impl Process ===

impl Process {
    async fn stop(&self, grace: Duration) {
        if self.orders.send(Order::Stop(grace)).await.is_err() {
            return;
        }
        let mut state = self.state.clone();
        let stopped = state.wait_for(|state| *state == ProcessState::Stopped);
        // The keeper kills after the grace period. After that, only a child that cannot die
        // remains.
        let _ = timeout(grace + REAP_TIMEOUT, stopped).await;
    }
}
