//! The report of a run, and the violations that it contains.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_measure::report::duration;
use serde::Serialize;

use super::administrator::Report;
use super::memory::ProcessMemory;

/// What a run did, and its results.
#[derive(Debug, Default, Serialize)]
pub(super) struct ChaosOutcome {
    pub(super) seed: u64,
    pub(super) seconds: u64,
    pub(super) processes: usize,
    #[serde(flatten)]
    pub(super) tally: Tally,
    /// The number of connections that strangers had open.
    pub(super) strangers: u64,
    /// What the administrator did and found.
    pub(super) administration: Report,
    pub(super) acked: u64,
    pub(super) unknown: u64,
    pub(super) lost: u64,
    pub(super) undefined: u64,
    /// The longest time until a node was acknowledged while the coordinator had a quorum.
    pub(super) longest_wait_ms: u64,
    /// The same for nodes that waited while the coordinator had no quorum.
    pub(super) longest_wait_without_quorum_ms: u64,
    /// The number of operations on counters that were answered.
    pub(super) contended: usize,
    /// Rows whose answers have no linearization.
    pub(super) not_linearizable: Vec<String>,
    /// The time from the last fault until all processes were ready and all regions accepted a
    /// write.
    pub(super) healthy_after_ms: Option<u64>,
    /// The memory use of each process.
    pub(super) memory: BTreeMap<String, ProcessMemory>,
    /// The processes that used too much memory at the end.
    pub(super) grown: Vec<String>,
}

/// The number of faults.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tally {
    /// Faults of one process, by kind.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// How often two processes had a fault at the same time or in sequence.
    pub(super) double_faults: u64,
    /// Losses of the coordinator's quorum, by their cause. Each of them affects the whole cluster.
    pub(super) quorum_losses: BTreeMap<&'static str, u64>,
    /// The longest time from the end of a quorum loss until all regions accepted a write again.
    pub(super) longest_return_of_quorum_ms: u64,
    /// Processes outside the affected members that ended during a quorum loss. An earlier fault may
    /// be the reason.
    pub(super) ended_without_quorum: u64,
}

/// The cluster must be healthy this long after the last fault.
const HEALTHY_MAX: Duration = Duration::from_secs(10);

// === impl Tally ===

impl Tally {
    pub(super) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }
}

// === impl ChaosOutcome ===

impl ChaosOutcome {
    /// Describes the violations: things that happened and must not happen.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.lost > 0 {
            broken.push(format!("{} of {} acknowledged nodes are lost", self.lost, self.acked));
        }
        if self.undefined > 0 {
            broken.push(format!("{} references point to missing nodes", self.undefined));
        }
        for row in &self.not_linearizable {
            broken.push(format!("not linearizable: {row}"));
        }
        let healthy_max = HEALTHY_MAX.as_millis() as u64;
        if self.healthy_after_ms.is_none_or(|after| after > healthy_max) {
            broken
                .push(format!("the cluster was not healthy {HEALTHY_MAX:?} after the last fault"));
        }
        let return_ms = self.tally.longest_return_of_quorum_ms;
        if return_ms > healthy_max {
            broken.push(format!("no writes for {return_ms} ms after a quorum was possible again"));
        }
        broken.extend(self.administration.broken.iter().cloned());
        broken.extend(self.grown.iter().cloned());
        broken
    }

    pub(super) fn print(&self) {
        let tally = &self.tally;
        let faults: u64 = tally.faults.values().sum();
        print_line!("\nseed {}: {faults} faults ({})", self.seed, counted(&tally.faults));
        print_line!(
            "  {} double faults: two processes at once or one after the other",
            tally.double_faults
        );
        let losses: u64 = tally.quorum_losses.values().sum();
        if losses > 0 {
            print_line!(
                "quorum lost: {losses} times ({}); writes resumed at most {} ms after a quorum was \
                 possible again; {} other processes ended",
                counted(&tally.quorum_losses),
                tally.longest_return_of_quorum_ms,
                tally.ended_without_quorum
            );
        }
        print_line!("strangers: {} connections", self.strangers);
        let longest = self.administration.longest_ms.iter().max_by_key(|(_, took)| **took);
        let (longest, took) = longest.map_or(("", 0), |(work, took)| (*work, *took));
        print_line!("administrator: {}", counted(&self.administration.done));
        print_line!("  the longest took {took} ms ({longest})");
        let Self { acked, unknown, lost, undefined, contended, .. } = self;
        print_line!(
            "nodes: {acked} acknowledged, {unknown} unknown, {lost} lost, {undefined} undefined"
        );
        print_line!(
            "longest wait for a write: {}; without a quorum: {}",
            duration(Duration::from_millis(self.longest_wait_ms)),
            duration(Duration::from_millis(self.longest_wait_without_quorum_ms))
        );
        let rows = self.not_linearizable.len();
        print_line!("counters: {contended} operations, {rows} rows not linearizable");
        for (process, memory) in &self.memory {
            print_line!("memory of {process}: {}", memory.describe());
        }
        match self.healthy_after_ms {
            Some(after) => print_line!("healthy again {after} ms after the last fault"),
            None => print_line!("NOT healthy after the last fault"),
        }
    }
}

fn counted(counts: &BTreeMap<&'static str, u64>) -> String {
    let counts: Vec<_> =
        counts.iter().map(|(kind, count)| format!("{count} times {kind}")).collect();
    counts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_must_not_happen_breaks_a_run() {
        let well = || ChaosOutcome { healthy_after_ms: Some(10_000), ..ChaosOutcome::default() };
        assert_eq!(well().broken(), Vec::<String>::new());
        let administration =
            Report { broken: vec!["disable failed".to_owned()], ..Report::default() };
        let late = Tally { longest_return_of_quorum_ms: 10_001, ..Tally::default() };
        let broken = [
            ChaosOutcome { tally: late, ..well() },
            ChaosOutcome { lost: 1, ..well() },
            ChaosOutcome { undefined: 1, ..well() },
            ChaosOutcome { not_linearizable: vec!["row".to_owned()], ..well() },
            ChaosOutcome { healthy_after_ms: Some(10_001), ..well() },
            ChaosOutcome { healthy_after_ms: None, ..well() },
            ChaosOutcome { administration, ..well() },
            ChaosOutcome { grown: vec!["master-0 took 2.00 times".to_owned()], ..well() },
        ];
        for outcome in broken {
            assert_eq!(outcome.broken().len(), 1, "{outcome:?}");
        }
    }
}
