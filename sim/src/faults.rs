//! What is done to a cluster: each fault has a victim, begins at a moment after the load began, and
//! is taken back after a while.

use std::fmt;
use std::time::Duration;

use basalt_failpoint::{Answer, Point};
use basalt_model::FeatureLevel;

use crate::folder::Folder;
use crate::hdfs::HdfsFault;

/// One fault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// When it begins, after all regions have taken a write. On a trap: from when on it is set; a
    /// trap from 0 on is set before the cluster starts.
    pub at: Duration,
    /// For how long it lasts.
    pub lasts: Duration,
    /// Whom it befalls.
    pub victim: Victim,
    /// What befalls it.
    pub action: FaultAction,
}

/// A process, chosen when the fault begins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Victim {
    /// By its name.
    Named(String),
    /// The HDFS.
    Hdfs,
    /// The region server that had a region when the load began.
    OwnerOf(u32),
    /// The region server that opened a region last.
    LastOpener,
    /// The active master.
    ActiveMaster,
    /// The process that springs the trap; the fault begins when it does. One trap a simulation.
    Springing(Trap),
}

/// Waits for a process to reach a point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trap {
    /// The point.
    pub point: Point,
    /// How many times it is reached, by whichever process, until the trap springs.
    pub hit: u32,
    /// What becomes of the task that reached it.
    pub answer: Answer,
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FaultAction {
    /// It is killed together with its machine, and started again when the fault is over.
    Kill,
    /// It is asked to stop, as by SIGTERM, and started again once it has ended.
    Stop,
    /// It is asked to stop, and started again as a release that knows the levels up to this one.
    Replace(FeatureLevel),
    /// The active master is asked to move its regions away; when the fault is over it is killed
    /// and started again, as nothing else ends a drain.
    Drain,
    /// It is stopped as by SIGSTOP, and goes on when the fault is over; see the module `cluster`.
    Pause,
    /// What is sent between it and others does not arrive.
    Cut(Direction, Peers),
    /// Its connections with others are reset and refused, while it goes on.
    Refuse(Peers),
    /// What is sent between it and others takes up to 300 ms.
    SlowLinks,
    /// Its serving threads run nothing: it answers nobody, and still reaches the coordinator.
    StandStill,
    /// Its disk answers nothing.
    FreezeDisk,
    /// Its syncs take up to 400 ms.
    SlowDisk,
    /// Its disk takes nothing more.
    FullDisk,
    /// So many of its next syncs fail.
    FailSyncs(u32),
    /// So many of its next syncs fail that are not of a log: those end no server.
    FailStoreSyncs(u32),
    /// One of so many reads of store files and manifests comes back with a flipped bit.
    FlipBits(u32),
    /// It is killed, and this happens to its folder; it is started again when the fault is over.
    Folder(Folder),
    /// Its calendar is set by so much.
    SetClock(i64),
    /// Nothing but what its trap did to it.
    Nothing,
    /// It is killed as by [`FaultAction::Kill`], and its logs lose something until the fault is
    /// over.
    KillAndLoseLogs(LogLoss),
    /// A log loses something until the fault is over, whoever the victim is.
    LoseLogs(LogLoss),
    /// It is killed as by [`FaultAction::Kill`], and the DataNode on its machine with it.
    KillMachine,
    /// This befalls the HDFS.
    Hdfs(HdfsFault),
}

/// What is lost of logs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLoss {
    /// All files, and their folder.
    Folder,
    /// One file.
    File,
    /// The end of one file, not of the newest.
    Closed,
    /// The end of the longest file that has been sealed.
    Sealed,
}

/// The direction that is cut off, as the victim sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// To it and from it.
    Both,
    /// What it sends.
    Out,
    /// What is sent to it.
    In,
}

/// Those that a victim is cut off from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peers {
    /// All others, clients included.
    All,
    /// The coordinator's members.
    Coordinators,
    /// The masters.
    Masters,
    /// The region servers.
    RegionServers,
    /// The clients.
    Clients,
}

// === impl Fault ===

impl Fault {
    /// When it is over, after all regions have taken a write.
    pub fn ends_at(&self) -> Duration {
        self.at + self.lasts
    }
}

// === impl Victim ===

impl Victim {
    /// What it springs.
    pub(crate) fn trap(&self) -> Option<Trap> {
        match self {
            Self::Springing(trap) => Some(*trap),
            _ => None,
        }
    }
}

// === impl Peers ===

impl Peers {
    /// Whether the process `name` is one of them.
    pub(crate) fn include(self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Coordinators => name.starts_with("coordinator-"),
            Self::Masters => name.starts_with("master-"),
            Self::RegionServers => name.starts_with("regionserver-"),
            Self::Clients => {
                let roles = [Self::Coordinators, Self::Masters, Self::RegionServers];
                !roles.iter().any(|role| role.include(name))
            }
        }
    }
}

// === impl FaultAction ===

impl fmt::Display for FaultAction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => formatter.write_str("killed"),
            Self::Stop => formatter.write_str("asked to stop"),
            Self::Replace(level) => write!(formatter, "replaced by one of level {level}"),
            Self::Drain => formatter.write_str("drained"),
            Self::Pause => formatter.write_str("paused"),
            Self::Cut(direction, peers) => {
                write!(formatter, "cut off ({direction:?}) from {peers:?}")
            }
            Self::Refuse(peers) => write!(formatter, "refused by {peers:?}"),
            Self::SlowLinks => formatter.write_str("on slow links"),
            Self::StandStill => formatter.write_str("made to stand still"),
            Self::FreezeDisk => formatter.write_str("on a frozen disk"),
            Self::SlowDisk => formatter.write_str("on a slow disk"),
            Self::FullDisk => formatter.write_str("on a full disk"),
            Self::FailSyncs(count) => write!(formatter, "about to fail {count} syncs"),
            Self::FailStoreSyncs(count) => {
                write!(formatter, "about to fail {count} syncs that are not of a log")
            }
            Self::FlipBits(of) => write!(formatter, "reading a flipped bit in one of {of} reads"),
            Self::Folder(what) => write!(formatter, "killed, its folder {what:?}"),
            Self::KillAndLoseLogs(loss) => write!(formatter, "killed, and its logs lose: {loss:?}"),
            Self::LoseLogs(loss) => write!(formatter, "there when logs lose: {loss:?}"),
            Self::KillMachine => formatter.write_str("killed with its DataNode"),
            Self::Hdfs(action) => write!(formatter, "where this befalls HDFS: {action:?}"),
            Self::SetClock(ahead_ms) => write!(formatter, "set {ahead_ms} ms ahead"),
            Self::Nothing => formatter.write_str("held up at a point"),
        }
    }
}
