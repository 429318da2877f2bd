//! The report as JSON. Its shape is an interface: `docs/measuring.md` documents it, a test pins it.

use std::time::Duration;

use serde::Serialize;

use crate::histogram::Histogram;
use crate::measurement::{Fault, Measurement, Phases};
use crate::outage::{Apart, FaultCost, Spread};

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The cluster, in a few words.
    pub cluster: String,
    /// How the requests fared in the whole run.
    pub ops: Operations,
    /// The faults, in order.
    pub faults: Vec<FaultReport>,
    /// All of it in a few figures.
    pub summary: Summary,
}

/// How the requests fared in the whole run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operations {
    /// Acknowledged writes in a second.
    pub writes_per_s: f64,
    /// Answered strong reads in a second.
    pub reads_per_s: f64,
    /// Latencies of those writes.
    pub write_ms: Latencies,
    /// Latencies of those reads.
    pub read_ms: Latencies,
    /// Writes that were acknowledged after their stream had given them up.
    pub late_writes: Late,
    /// Strong reads that were answered after their stream had given them up.
    pub late_reads: Late,
}

/// Attempts that were answered well, but late. They are in no other latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Late {
    /// How many.
    pub count: u64,
    /// How long they took.
    pub ms: Latencies,
}

/// Outages that belong to no fault.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ApartMs {
    /// How many.
    pub count: u64,
    /// None was longer.
    pub max: u64,
}

/// Latencies in milliseconds, of attempts that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latencies {
    /// Half are no longer.
    pub p50: f64,
    /// 99 of 100 are no longer.
    pub p99: f64,
    /// None is longer.
    pub max: f64,
}

/// One fault and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultReport {
    /// What was done, as `kill-regionserver`.
    pub kind: &'static str,
    /// To which process.
    pub victim: String,
    /// When, from the start of the run.
    pub at_ms: u64,
    /// How many regions were on the victim.
    pub regions: usize,
    /// The bytes in the victim's log.
    pub wal_bytes: Option<u64>,
    /// How the recovery went.
    pub phases_ms: Option<PhasesMs>,
    /// How long writes were out.
    pub write_outage_ms: SpreadMs,
    /// How long strong reads were out.
    pub read_outage_ms: SpreadMs,
    /// How long timeline reads were out.
    pub timeline_outage_ms: Option<SpreadMs>,
    /// How many of these outages were under way already when it hit.
    pub already_out: u64,
    /// Failed requests in regions that were not on the victim.
    pub bystander_failures: u64,
}

/// Durations of phases in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PhasesMs {
    /// See [`Phases`]; so for all.
    pub detect: Option<u64>,
    #[expect(missing_docs, reason = "see Phases")]
    pub fence: Option<u64>,
    #[expect(missing_docs, reason = "see Phases")]
    pub split: Option<u64>,
    #[expect(missing_docs, reason = "see Phases")]
    pub assign: Option<u64>,
    #[expect(missing_docs, reason = "see Phases")]
    pub replay: Option<u64>,
    #[expect(missing_docs, reason = "see Phases")]
    pub total: Option<u64>,
}

/// The outages of regions, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SpreadMs {
    /// Half of the regions were out no longer.
    pub p50: u64,
    /// None was out longer.
    pub max: u64,
}

/// All of it in a few figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Over the regions of all region servers that were hit.
    pub write_outage_ms: SpreadMs,
    /// The same of strong reads.
    pub read_outage_ms: SpreadMs,
    /// The same of timeline reads.
    pub timeline_outage_ms: Option<SpreadMs>,
    /// Outages of writes that belong to no fault.
    pub write_outages_apart_ms: ApartMs,
    /// The same of strong reads.
    pub read_outages_apart_ms: ApartMs,
    /// Failed requests in regions that were not on a victim.
    pub bystander_failures: u64,
    /// Writes that were acknowledged.
    pub acked: u64,
    /// Attempts to write of which that is not known.
    pub unknown: u64,
    /// Writes that were acknowledged and are not there.
    pub lost: u64,
}

// === impl Report ===

impl Report {
    /// The report of `measurement`.
    pub fn of(measurement: &Measurement) -> Self {
        let attribution = measurement.attribution();
        let faults = measurement.faults.iter().zip(&attribution.faults);
        let Measurement { length, writes, reads, audit, .. } = measurement;
        Self {
            cluster: measurement.cluster.clone(),
            ops: Operations {
                writes_per_s: rounded(writes.per_second(*length), 1.0),
                reads_per_s: rounded(reads.per_second(*length), 1.0),
                write_ms: Latencies::of(&writes.latencies),
                read_ms: Latencies::of(&reads.latencies),
                late_writes: Late::of(&writes.late),
                late_reads: Late::of(&reads.late),
            },
            faults: faults.map(|(fault, cost)| FaultReport::of(fault, cost)).collect(),
            summary: Summary {
                write_outage_ms: attribution.writes.into(),
                read_outage_ms: attribution.reads.into(),
                timeline_outage_ms: attribution.timeline.map(SpreadMs::from),
                write_outages_apart_ms: attribution.writes_apart.into(),
                read_outages_apart_ms: attribution.reads_apart.into(),
                bystander_failures: attribution.bystander_failures,
                acked: audit.acked,
                unknown: audit.unknown,
                lost: audit.lost,
            },
        }
    }
}

// === impl Latencies ===

impl Latencies {
    /// Those of `histogram`.
    pub fn of(histogram: &Histogram) -> Self {
        let ms = |latency: Duration| rounded(latency.as_secs_f64() * 1e3, 100.0);
        Self {
            p50: ms(histogram.quantile(0.5)),
            p99: ms(histogram.quantile(0.99)),
            max: ms(histogram.max()),
        }
    }
}

// === impl Late ===

impl Late {
    fn of(histogram: &Histogram) -> Self {
        Self { count: histogram.count(), ms: Latencies::of(histogram) }
    }
}

// === impl ApartMs ===

impl From<Apart> for ApartMs {
    fn from(apart: Apart) -> Self {
        Self { count: apart.count, max: ms(apart.max) }
    }
}

// === impl FaultReport ===

impl FaultReport {
    fn of(fault: &Fault, cost: &FaultCost) -> Self {
        Self {
            kind: fault.kind.name(),
            victim: fault.victim.clone(),
            at_ms: ms(fault.window.at),
            regions: fault.window.affected.len(),
            wal_bytes: fault.wal_bytes,
            phases_ms: fault.phases.map(PhasesMs::from),
            write_outage_ms: cost.writes.into(),
            read_outage_ms: cost.reads.into(),
            timeline_outage_ms: cost.timeline.map(SpreadMs::from),
            already_out: cost.already_out,
            bystander_failures: cost.bystander_failures,
        }
    }
}

// === impl PhasesMs ===

impl From<Phases> for PhasesMs {
    fn from(phases: Phases) -> Self {
        Self {
            detect: phases.detect.map(ms),
            fence: phases.fence.map(ms),
            split: phases.split.map(ms),
            assign: phases.assign.map(ms),
            replay: phases.replay.map(ms),
            total: phases.total.map(ms),
        }
    }
}

// === impl SpreadMs ===

impl From<Spread> for SpreadMs {
    fn from(spread: Spread) -> Self {
        Self { p50: ms(spread.p50), max: ms(spread.max) }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `value` with as many digits behind the point as `scale` has zeros.
fn rounded(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    /// Whoever reads the JSON relies on exactly this.
    #[test]
    fn the_shape_is_the_documented_one() {
        let spread = |p50, max| serde_json::json!({ "p50": p50, "max": max });
        let report = serde_json::to_value(Report::of(&fixtures::small())).unwrap();
        let expected = serde_json::json!({
            "cluster": "made up",
            "ops": {
                "writes_per_s": 2.0,
                "reads_per_s": 1.0,
                "write_ms": { "p50": 2.01, "p99": 4.0, "max": 4.0 },
                "read_ms": { "p50": 1.0, "p99": 1.0, "max": 1.0 },
                "late_writes": { "count": 1, "ms": { "p50": 900.0, "p99": 900.0, "max": 900.0 } },
                "late_reads": { "count": 0, "ms": { "p50": 0.0, "p99": 0.0, "max": 0.0 } },
            },
            "faults": [
                {
                    "kind": "kill-regionserver",
                    "victim": "regionserver-1",
                    "at_ms": 1000,
                    "regions": 1,
                    "wal_bytes": 4096,
                    "phases_ms": {
                        "detect": 40, "fence": 10, "split": 100, "assign": 20, "replay": 30,
                        "total": 200,
                    },
                    "write_outage_ms": spread(250, 250),
                    "read_outage_ms": spread(240, 240),
                    "timeline_outage_ms": null,
                    "already_out": 0,
                    "bystander_failures": 0,
                },
                {
                    "kind": "kill-master",
                    "victim": "master-0",
                    "at_ms": 3000,
                    "regions": 0,
                    "wal_bytes": null,
                    "phases_ms": null,
                    "write_outage_ms": spread(0, 0),
                    "read_outage_ms": spread(0, 0),
                    "timeline_outage_ms": null,
                    "already_out": 0,
                    "bystander_failures": 0,
                },
            ],
            "summary": {
                "write_outage_ms": spread(250, 250),
                "read_outage_ms": spread(240, 240),
                "timeline_outage_ms": null,
                "write_outages_apart_ms": { "count": 1, "max": 20 },
                "read_outages_apart_ms": { "count": 0, "max": 0 },
                "bystander_failures": 0,
                "acked": 20,
                "unknown": 1,
                "lost": 0,
            },
        });
        assert_eq!(report, expected);
    }
}
