//! The report as JSON. Its shape is an interface: `docs/measuring.md` documents it, a test checks
//! it.

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
    /// The requests of the whole run.
    pub ops: Operations,
    /// The faults, in order.
    pub faults: Vec<FaultReport>,
    /// A summary of all faults.
    pub summary: Summary,
}

/// The requests of the whole run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operations {
    /// Acknowledged writes per second.
    pub writes_per_s: f64,
    /// Answered strong reads per second.
    pub reads_per_s: f64,
    /// Latencies of the acknowledged writes.
    pub write_ms: Latencies,
    /// Latencies of the answered strong reads.
    pub read_ms: Latencies,
    /// Writes that were acknowledged after their stream had stopped waiting.
    pub late_writes: Late,
    /// Strong reads that were answered after their stream had stopped waiting.
    pub late_reads: Late,
}

/// Attempts that succeeded, but late. No other latency includes them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Late {
    /// The number of attempts.
    pub count: u64,
    /// Their latencies.
    pub ms: Latencies,
}

/// Outages that belong to no fault.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ApartMs {
    /// The number of outages.
    pub count: u64,
    /// The longest of them.
    pub max: u64,
}

/// Latencies of successful attempts in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latencies {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The maximum.
    pub max: f64,
}

/// A fault and its cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultReport {
    /// The kind of fault, such as `kill-regionserver`.
    pub kind: &'static str,
    /// The process that it hit.
    pub victim: String,
    /// When it happened, from the start of the run.
    pub at_ms: u64,
    /// How many regions the victim served.
    pub regions: usize,
    /// The size of the victim's log in bytes.
    pub wal_bytes: Option<u64>,
    /// The phases of the recovery.
    pub phases_ms: Option<PhasesMs>,
    /// How long writes were out.
    pub write_outage_ms: SpreadMs,
    /// How long strong reads were out.
    pub read_outage_ms: SpreadMs,
    /// How long timeline reads were out.
    pub timeline_outage_ms: Option<SpreadMs>,
    /// How many of these outages were already under way when the fault hit.
    pub already_out: u64,
    /// Failed requests to regions that the victim did not serve.
    pub bystander_failures: u64,
}

/// Durations of the phases in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PhasesMs {
    /// See [`Phases`], for this and all other fields.
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
    /// The median over the regions.
    pub p50: u64,
    /// The maximum over the regions.
    pub max: u64,
}

/// A summary of all faults.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Over the regions of all region servers that a fault hit.
    pub write_outage_ms: SpreadMs,
    /// The same for strong reads.
    pub read_outage_ms: SpreadMs,
    /// The same for timeline reads.
    pub timeline_outage_ms: Option<SpreadMs>,
    /// Write outages that belong to no fault.
    pub write_outages_apart_ms: ApartMs,
    /// The same for strong reads.
    pub read_outages_apart_ms: ApartMs,
    /// Failed requests to regions that were not on a victim.
    pub bystander_failures: u64,
    /// Acknowledged writes.
    pub acked: u64,
    /// Attempts to write whose outcome is unknown.
    pub unknown: u64,
    /// Acknowledged writes that are missing.
    pub lost: u64,
}

// === impl Report ===

impl Report {
    /// Makes the report of `measurement`.
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
    /// The latencies in `histogram`.
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

/// Rounds `value` to as many decimal places as `scale` has zeros.
fn rounded(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    /// Users of the JSON rely on exactly this shape.
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
