//! The complete results of a probe; all reports are made from them.

use std::time::Duration;

use crate::histogram::Histogram;
use crate::outage::{Attribution, FaultWindow, Outage, RegionOutages, attribute};
use crate::probe::Audit;
use crate::timeline::Bucket;

/// The results of a probe. Times are relative to its start.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The cluster, in a few words.
    pub cluster: String,
    /// The duration of the measurement.
    pub length: Duration,
    /// Throughput and latency over time.
    pub buckets: Vec<Bucket>,
    /// All writes.
    pub writes: Totals,
    /// All strong reads.
    pub reads: Totals,
    /// The outages of each region.
    pub regions: Vec<RegionOutages>,
    /// The faults, in order.
    pub faults: Vec<Fault>,
    /// The result of reading back the writes.
    pub audit: Audit,
    /// Strong reads that missed a write that was acknowledged before they began.
    pub stale_reads: u64,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// The latency of each attempt that succeeded.
    pub latencies: Histogram,
    /// Attempts that did not succeed in time.
    pub failed: u64,
    /// The latency of each attempt that succeeded too late.
    pub late: Histogram,
}

/// A fault that was injected into the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// Its kind.
    pub kind: FaultKind,
    /// The process that it hit.
    pub victim: String,
    /// When it happened, which regions it affected, and when it was over.
    pub window: FaultWindow,
    /// The size of the victim's log at that time in bytes, where known.
    pub wal_bytes: Option<u64>,
    /// The phases of the recovery, where the cluster reports them.
    pub phases: Option<Phases>,
}

/// The kinds of fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FaultKind {
    /// SIGKILL to a region server.
    KillRegionServer,
    /// SIGSTOP to a region server.
    PauseRegionServer,
    /// SIGTERM to a region server.
    TermRegionServer,
    /// SIGKILL to the active master.
    KillMaster,
    /// SIGTERM to the active master.
    TermMaster,
    /// SIGKILL to the coordinator's leader.
    KillCoordinatorLeader,
    /// SIGKILL to every process at once.
    KillAll,
    /// A fault outside the cluster's processes.
    Elsewhere,
}

/// How long each phase of a recovery took. The first phase begins with the fault, and each other
/// phase with the end of the one before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Phases {
    /// Until the victim was declared dead.
    pub detect: Option<Duration>,
    /// Until no late write of the victim could take effect.
    pub fence: Option<Duration>,
    /// Until its log was split.
    pub split: Option<Duration>,
    /// Until every region had a new owner.
    pub assign: Option<Duration>,
    /// Until the last region was open.
    pub replay: Option<Duration>,
    /// The whole recovery. For faults of processes other than region servers: until another process
    /// had taken over.
    pub total: Option<Duration>,
}

// === impl Measurement ===

impl Measurement {
    /// The cost of each fault, and of all faults together.
    pub fn attribution(&self) -> Attribution {
        let windows: Vec<_> = self.faults.iter().map(|fault| fault.window.clone()).collect();
        attribute(&windows, &self.regions)
    }

    /// At most `count` of the longest write outages, the longest first, with the index of the
    /// region.
    pub fn longest_write_outages(&self, count: usize) -> Vec<(usize, Outage)> {
        let of_region = |(index, region): (usize, &RegionOutages)| {
            region.writes.iter().map(|outage| (index, *outage)).collect::<Vec<_>>()
        };
        let mut outages: Vec<_> = self.regions.iter().enumerate().flat_map(of_region).collect();
        outages.sort_by_key(|(index, outage)| (std::cmp::Reverse(outage.length()), *index));
        outages.truncate(count);
        outages
    }

    /// Describes each guarantee that was violated; empty if there is none.
    pub fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        if self.audit.lost > 0 {
            let Self { audit, .. } = self;
            violations
                .push(format!("{} of {} acknowledged writes were lost", audit.lost, audit.acked));
        }
        if self.stale_reads > 0 {
            violations.push(format!(
                "{} strong reads missed a write that had been acknowledged before they began",
                self.stale_reads
            ));
        }
        violations
    }
}

// === impl Totals ===

impl Totals {
    /// Successful attempts per second over `length`.
    pub fn per_second(&self, length: Duration) -> f64 {
        if length.is_zero() {
            return 0.0;
        }
        self.latencies.count() as f64 / length.as_secs_f64()
    }
}

// === impl FaultKind ===

impl FaultKind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillRegionServer => "kill-regionserver",
            Self::PauseRegionServer => "pause-regionserver",
            Self::TermRegionServer => "term-regionserver",
            Self::KillMaster => "kill-master",
            Self::TermMaster => "term-master",
            Self::KillCoordinatorLeader => "kill-coordinator-leader",
            Self::KillAll => "kill-all",
            Self::Elsewhere => "elsewhere",
        }
    }

    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::KillRegionServer,
        Self::PauseRegionServer,
        Self::TermRegionServer,
        Self::KillMaster,
        Self::TermMaster,
        Self::KillCoordinatorLeader,
        Self::KillAll,
        Self::Elsewhere,
    ];

    /// The kind with the name `name`.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A description of the fault for reports.
    pub fn description(self) -> &'static str {
        match self {
            Self::KillRegionServer => "region server killed (SIGKILL)",
            Self::PauseRegionServer => "region server paused (SIGSTOP)",
            Self::TermRegionServer => "region server stopped (SIGTERM)",
            Self::KillMaster => "active master killed (SIGKILL)",
            Self::TermMaster => "active master stopped (SIGTERM)",
            Self::KillCoordinatorLeader => "coordinator's leader killed (SIGKILL)",
            Self::KillAll => "all processes killed (SIGKILL)",
            Self::Elsewhere => "fault outside the cluster",
        }
    }
}

// === impl Phases ===

impl Phases {
    /// The phases in order, with their names.
    pub fn named(&self) -> [(&'static str, Option<Duration>); 5] {
        [
            ("detect", self.detect),
            ("fence", self.fence),
            ("split", self.split),
            ("assign", self.assign),
            ("replay", self.replay),
        ]
    }
}
