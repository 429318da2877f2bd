//! Faults that are injected into a cluster. Each fault has a victim, begins at a moment after the
//! load began, and is undone after a while.

use std::fmt;
use std::time::Duration;

use basalt_failpoint::{Answer, Point};
use basalt_model::FeatureLevel;

use crate::folder::Folder;
use crate::hdfs::HdfsFault;

/// One fault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// When it begins, counted from when every region has acknowledged a write. For a trap: when it
    /// is set. A trap at 0 is set before the cluster starts.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// The victim.
    pub victim: Victim,
    /// What is done to the victim.
    pub action: FaultAction,
}

/// The victim of a fault; it is chosen when the fault begins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Victim {
    /// The process with this name.
    Named(String),
    /// The HDFS.
    Hdfs,
    /// The region server that served a region when the load began.
    OwnerOf(u32),
    /// The region server that last opened a region.
    LastOpener,
    /// The active master.
    ActiveMaster,
    /// The process that springs the trap; the fault begins at that moment. One trap per simulation.
    Springing(Trap),
}

/// Waits for a process to reach a failpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trap {
    /// The failpoint.
    pub point: Point,
    /// The trap springs when the failpoint has been reached this many times, by any process.
    pub hit: u32,
    /// What happens to the task that reached it.
    pub answer: Answer,
}

/// What is done to the victim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FaultAction {
    /// It is killed together with its machine, and started again when the fault is over.
    Kill,
    /// It is asked to stop, as by SIGTERM, and started again once it has ended.
    Stop,
    /// It is asked to stop, then started as a release that knows the feature levels up to this one.
    Replace(FeatureLevel),
    /// The active master is asked to move the victim's regions to other servers. When the fault is
    /// over, the victim is killed and started again, because nothing else ends a drain.
    Drain,
    /// It is stopped as by SIGSTOP, and resumes when the fault is over; see the module `cluster`.
    Pause,
    /// Messages between it and others do not arrive.
    Cut(Direction, Peers),
    /// Its connections to others are reset and refused, while it keeps running.
    Refuse(Peers),
    /// Messages between it and others take up to 300 ms.
    SlowLinks,
    /// Its serving threads stand still: it answers no request, but still reaches the coordinator.
    StandStill,
    /// Operations on its disk do not complete.
    FreezeDisk,
    /// Its syncs take up to 400 ms.
    SlowDisk,
    /// Its disk accepts no more data.
    FullDisk,
    /// This many of its next syncs fail.
    FailSyncs(u32),
    /// This many of its next syncs fail, except syncs of logs, whose failure ends a server.
    FailStoreSyncs(u32),
    /// One of this many reads of store files and manifests returns a flipped bit.
    FlipBits(u32),
    /// It is killed, and this happens to its folder. It is started again when the fault is over.
    Folder(Folder),
    /// Its wall clock is set ahead by this many milliseconds.
    SetClock(i64),
    /// No other action than that of its trap.
    Nothing,
    /// It is killed as by [`FaultAction::Kill`], and its logs lose data until the fault is over.
    KillAndLoseLogs(LogLoss),
    /// A log of any server loses data until the fault is over.
    LoseLogs(LogLoss),
    /// It is killed as by [`FaultAction::Kill`], together with the DataNode on its machine.
    KillMachine,
    /// A fault of the HDFS.
    Hdfs(HdfsFault),
}

/// The part of a server's logs that is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLoss {
    /// All files and their folder.
    Folder,
    /// One file.
    File,
    /// The end of one file that is not the newest.
    Closed,
    /// The end of the longest sealed file.
    Sealed,
}

/// The direction of messages that is cut off, as the victim sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// To it and from it.
    Both,
    /// Messages that it sends.
    Out,
    /// Messages that it receives.
    In,
}

/// The processes that a victim is cut off from.
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
    /// When it ends, counted from when every region has acknowledged a write.
    pub fn ends_at(&self) -> Duration {
        self.at + self.lasts
    }
}

// === impl Victim ===

impl Victim {
    /// The trap that the victim springs.
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
