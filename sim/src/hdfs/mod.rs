//! A model of HDFS at the file-system seam: what a role sees through `crates/hdfs`, without the
//! protocols.
//!
//! There is one NameNode. It knows the names, the lengths of closed files, and which process writes
//! or takes over which file. There is a DataNode on each region server's machine, plus one. A file
//! is one block. Its replicas have their own lengths: each DataNode receives the writer's bytes at
//! its own pace, and a sync is acknowledged once all replicas have the bytes. So a crash leaves
//! replicas of different lengths.
//!
//! - `state` holds the whole state and changes without waiting: blocks, replicas, DataNodes,
//!   NameNode.
//! - `recovery` is what the NameNode and its DataNodes do by themselves.
//! - `client` is one process's file system on the HDFS. `writer`, `reader` and `fence` follow the
//!   modules with the same purpose in `crates/hdfs`. That crate's own function
//!   ([`basalt_hdfs::decide`]) decides where a file ends when it is taken away from its writer.
//!
//! The contents of a file are stored once: replicas are prefixes of the bytes that its only writer
//! sent. The seed determines everything. Time is simulated time.

mod client;
mod fence;
mod reader;
mod recovery;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use basalt_fs::MemoryFileSystem;
use basalt_runtime::Random;
use parking_lot::{Mutex, MutexGuard};

pub(crate) use client::HdfsClient;
use state::{NodeState, State};

use crate::trace::Trace;

/// The HDFS of a simulation; a cheap handle.
#[derive(Clone)]
pub(crate) struct Hdfs {
    state: Arc<Mutex<State>>,
    trace: Trace,
}

/// A fault of the HDFS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HdfsFault {
    /// The NameNode answers no calls.
    NameNodeAway,
    /// The NameNode is killed. It starts when the fault is over, and is then in safe mode for this
    /// long. It knows only the DataNodes that have reported.
    NameNodeRestart {
        /// In milliseconds.
        safe_mode_ms: u64,
    },
    /// The NameNode rejects changes.
    SafeMode,
    /// This happens to the DataNode with this number.
    DataNode(u64, Outage),
    /// This many DataNodes hang, among those that have the log that the victim writes.
    LogNodesHang(usize),
    /// The hanging DataNodes resume, and the NameNode recovers the files without a writer.
    Return,
}

/// What happens to a DataNode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outage {
    /// It does nothing until it resumes.
    Hang,
    /// Its process is killed; the machine keeps the bytes it had.
    Kill,
    /// Its machine is killed; a part of the bytes that were not on disk is lost.
    PowerCut,
}

/// How long a DataNode may take for an acknowledgement or a read: `hdfsSocketTimeout` with the
/// default target. The other timers follow from it as in `docs/hdfs.md`.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval between two checks of a DataNode that hangs.
const HANGING_PAUSE: Duration = Duration::from_millis(5);
/// A DataNode that is silent for longer is considered dead: its blocks are copied to others, and
/// new blocks are placed elsewhere.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// How long a call to the NameNode is retried.
const CALL_DEADLINE: Duration = Duration::from_secs(12);
/// The number of replicas of a file, and the minimum with which one can be created.
const REPLICAS: usize = 3;
const REPLICAS_MIN: usize = 2;

// === impl Hdfs ===

impl Hdfs {
    /// An empty HDFS with `data_nodes` DataNodes; the first ones are on the machines of region
    /// servers.
    pub(crate) fn new(data_nodes: u64, random: Random, trace: &Trace) -> Self {
        let state = State::new(data_nodes, random);
        Self { state: Arc::new(Mutex::new(state)), trace: trace.clone() }
    }

    /// The namespace: all files and folders without their contents.
    pub(crate) fn names(&self) -> MemoryFileSystem {
        self.state.lock().names.clone()
    }

    /// Lets the NameNode and the DataNodes do the work that is due at `now`.
    pub(crate) fn tick(&self, now: Duration) {
        let mut state = self.at(now);
        recovery::run_due(&mut state);
        self.record_events(&mut state);
    }

    /// Ends the current life of the process that writes as `writer`.
    pub(crate) fn crash(&self, now: Duration, writer: u64) {
        self.at(now).crash(writer);
    }

    /// Injects a fault; `writer` is the victim if that is a process.
    pub(crate) fn inject(&self, now: Duration, action: HdfsFault, writer: Option<u64>) {
        let mut state = self.at(now);
        match action {
            HdfsFault::NameNodeAway | HdfsFault::NameNodeRestart { .. } => {
                state.name_node.is_away = true;
            }
            HdfsFault::SafeMode => state.name_node.safe_mode_until = Some(Duration::MAX),
            HdfsFault::DataNode(node, Outage::Hang) => state.take_down(node, NodeState::Hangs),
            HdfsFault::DataNode(node, outage) => {
                state.take_down(node, NodeState::Down);
                if outage == Outage::PowerCut {
                    state.cut_power(node);
                }
            }
            HdfsFault::LogNodesHang(count) => {
                if let Some(writer) = writer {
                    state.hang_log_nodes(writer, count);
                }
            }
            HdfsFault::Return => {
                state.let_go_on();
                recovery::hasten(&mut state);
            }
        }
        self.record_events(&mut state);
    }

    /// Undoes [`Hdfs::inject`].
    pub(crate) fn heal(&self, now: Duration, action: HdfsFault) {
        let mut state = self.at(now);
        match action {
            HdfsFault::NameNodeAway => state.name_node.is_away = false,
            HdfsFault::NameNodeRestart { safe_mode_ms } => {
                state.restart_name_node(Duration::from_millis(safe_mode_ms));
            }
            HdfsFault::SafeMode => state.name_node.safe_mode_until = None,
            HdfsFault::DataNode(node, outage) => state.bring_back(node, outage),
            HdfsFault::LogNodesHang(_) | HdfsFault::Return => state.let_go_on(),
        }
        self.record_events(&mut state);
    }

    fn at(&self, now: Duration) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.set_now(now);
        state
    }

    /// The state at the current simulated time.
    fn now(&self) -> MutexGuard<'_, State> {
        self.at(turmoil::sim_elapsed().unwrap_or_default())
    }

    fn record_events(&self, state: &mut State) {
        let now = state.now();
        for event in state.events.drain(..) {
            self.trace.record_at(now, format_args!("hdfs: {event}"));
        }
    }
}

impl std::fmt::Debug for Hdfs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Hdfs")
    }
}
