//! The metrics of a master; `docs/metrics.md` lists them. Without a recorder, as in tests and in
//! the simulation, they are discarded.

use std::collections::BTreeMap;

use basalt_cluster::pb;
use basalt_model::RegionState;
use metrics::{counter, gauge, histogram};

use crate::view::View;

/// Reports this master as active until it is dropped.
pub(crate) struct ActiveTerm;

// === impl ActiveTerm ===

impl ActiveTerm {
    pub(crate) fn begin(epoch: u64) -> Self {
        gauge!("basalt_master_active").set(1.0);
        gauge!("basalt_master_epoch").set(epoch as f64);
        Self
    }
}

impl Drop for ActiveTerm {
    fn drop(&mut self) {
        gauge!("basalt_master_active").set(0.0);
    }
}

/// Records the state of the cluster as the active master sees it.
pub(crate) fn record(view: &View, recovering: usize) {
    let states = [
        (RegionState::Closed, "closed"),
        (RegionState::Opening, "opening"),
        (RegionState::Open, "open"),
        (RegionState::Closing, "closing"),
    ];
    let mut counts = BTreeMap::new();
    for region in view.regions.values() {
        *counts.entry(region.record.state).or_insert(0_u32) += 1;
    }
    for (state, name) in states {
        let count = counts.get(&state).copied().unwrap_or_default();
        gauge!("basalt_master_regions", "state" => name).set(count);
    }
    gauge!("basalt_master_region_servers").set(view.servers.len() as f64);
    gauge!("basalt_master_tables").set(view.tables.len() as f64);
    gauge!("basalt_master_recoveries_under_way").set(recovering as f64);
}

/// Records how many regions stay closed because logs with acknowledged edits are lost.
pub(crate) fn record_lost_logs(regions: u32) {
    gauge!("basalt_master_regions_with_lost_logs").set(regions);
}

/// Records how many clocks are off, of the region servers and of this master.
pub(crate) fn record_clocks(off: usize) {
    gauge!("basalt_master_clocks_off").set(off as f64);
}

/// Records a finished recovery.
pub(crate) fn recovered(report: &pb::RecoveryRecord) {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let phases = [
        ("detect", report.detect_ms),
        ("fence", report.fence_ms),
        ("split", report.split_ms),
        ("assign", report.assign_ms),
        ("replay", report.replay_ms),
        ("total", report.total_ms),
    ];
    for (phase, ms) in phases {
        histogram!("basalt_recovery_seconds", "phase" => phase).record(seconds(ms));
    }
    counter!("basalt_recovery_regions_total").increment(u64::from(report.regions));
    counter!("basalt_recovery_wal_bytes_total").increment(report.wal_bytes);
}

/// Records the check of a region that was not served as its record says.
pub(crate) fn region_checked(verdict: pb::RegionVerdict) {
    let verdict = match verdict {
        pb::RegionVerdict::Unspecified | pb::RegionVerdict::Failed => "failed",
        pb::RegionVerdict::AsRecorded => "as recorded",
        pb::RegionVerdict::UnderWay => "under way",
        pb::RegionVerdict::LetGo => "let go",
        pb::RegionVerdict::WithoutEdits => "opened again",
    };
    counter!("basalt_master_regions_checked_total", "verdict" => verdict).increment(1);
}
