//! Turns the attempts of the streams into outages, and outages into the cost of each fault. Pure.
//!
//! A stream serves one region with one kind of request. It makes a request, repeats it until an
//! attempt succeeds, then makes the next one. An **outage** runs from the start of the first
//! attempt that failed or was late to the end of the first attempt that succeeded. A request has
//! *failed* if it does not succeed within [`REQUEST_PATIENCE`]. A failed request is therefore an
//! outage longer than that, and each such outage contains one failed request.
//!
//! An outage belongs to the fault in whose window it begins. The window begins with the fault, or a
//! little earlier, because an attempt that was under way at the fault began before it. It ends when
//! the regions have recovered. The window in which requests to other regions may fail because of
//! the fault extends to the next fault.
//!
//! If an outage was already under way when the fault hit, it belongs to the fault from that moment
//! on. The fault counts such outages, because its own share of their cost is unknown. Outages that
//! belong to no fault are reported separately.
//!
//! Times are relative to the start of the measurement.

use std::collections::BTreeSet;
use std::time::Duration;

/// The maximum duration of an attempt. After that it is late and is repeated.
pub const ATTEMPT_PATIENCE: Duration = Duration::from_millis(250);
/// A request that does not succeed within this time has failed.
pub const REQUEST_PATIENCE: Duration = Duration::from_secs(2);

/// One attempt and its outcome.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attempt {
    /// When it began.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
    /// Its outcome.
    pub outcome: AttemptOutcome,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AttemptOutcome {
    /// The request succeeded.
    Succeeded,
    /// The request was rejected: it has no effect.
    Refused,
    /// No answer came in time, or the connection broke. Whether the request has an effect is
    /// unknown.
    Unknown,
}

/// A period in which a region did not serve one kind of request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outage {
    /// The start of the first attempt that did not succeed.
    pub start: Duration,
    /// The end of the first attempt that did, or of the measurement.
    pub end: Duration,
}

/// Tracks the outages of one stream.
#[derive(Clone, Debug, Default)]
pub struct OutageTracker {
    out_since: Option<Duration>,
    outages: Vec<Outage>,
    last_success: Option<Duration>,
}

/// The outages of one region.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RegionOutages {
    /// Of writes.
    pub writes: Vec<Outage>,
    /// Of strong reads.
    pub reads: Vec<Outage>,
    /// Of timeline reads; `None` if there were none.
    pub timeline: Option<Vec<Outage>>,
}

/// The properties of a fault that attribution needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FaultWindow {
    /// When it happened.
    pub at: Duration,
    /// When all affected regions were served again; `None` if they never were.
    pub recovered_at: Option<Duration>,
    /// The indices of the regions that the victim served.
    pub affected: BTreeSet<usize>,
}

/// The cost of a fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FaultCost {
    /// Write outages of the affected regions; of all regions if the victim served none.
    pub writes: Spread,
    /// The same for strong reads.
    pub reads: Spread,
    /// The same for timeline reads, if there were any.
    pub timeline: Option<Spread>,
    /// The number of those outages, of all kinds, that were already under way when the fault hit.
    pub already_out: u64,
    /// Failed requests to regions that the victim did not serve.
    pub bystander_failures: u64,
}

/// Outages that belong to no fault.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Apart {
    /// How many there were.
    pub count: u64,
    /// The length of the longest one.
    pub max: Duration,
}

/// The median and the maximum of a set of durations.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Spread {
    /// The median: half of the durations are no longer.
    pub p50: Duration,
    /// The maximum.
    pub max: Duration,
}

/// The result of [`attribute`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attribution {
    /// The cost of each fault, in order.
    pub faults: Vec<FaultCost>,
    /// The write outages of the faults whose victims served regions, taken together.
    pub writes: Spread,
    /// The same for strong reads.
    pub reads: Spread,
    /// The same for timeline reads.
    pub timeline: Option<Spread>,
    /// Failed requests to regions that were not on a victim, in the whole run.
    pub bystander_failures: u64,
    /// Write outages that belong to no fault.
    pub writes_apart: Apart,
    /// The same for strong reads.
    pub reads_apart: Apart,
}

/// Maximum number of outages kept for one stream. Later ones extend the last one.
const OUTAGES_MAX: usize = 10_000;

// === impl Outage ===

impl Outage {
    /// How long it lasted.
    pub fn length(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }

    /// Whether the request in it failed.
    pub fn is_failure(&self) -> bool {
        self.length() > REQUEST_PATIENCE
    }
}

// === impl OutageTracker ===

impl OutageTracker {
    /// Records the next attempt of the stream. Returns the outage that it ended.
    pub fn record(&mut self, attempt: Attempt) -> Option<Outage> {
        if attempt.outcome != AttemptOutcome::Succeeded {
            self.out_since.get_or_insert(attempt.start);
            return None;
        }
        self.last_success = Some(attempt.start);
        let start = self.out_since.take()?;
        let outage = Outage { start, end: attempt.end };
        self.keep(outage);
        Some(outage)
    }

    /// When the current outage began, if the region is out.
    pub fn out_since(&self) -> Option<Duration> {
        self.out_since
    }

    /// Whether an attempt that began after `moment` succeeded and none has failed since.
    pub fn serves_since(&self, moment: Duration) -> bool {
        self.out_since.is_none() && self.last_success.is_some_and(|start| start > moment)
    }

    /// All outages. An outage that is still under way ends at `end`.
    pub fn finish(mut self, end: Duration) -> Vec<Outage> {
        if let Some(start) = self.out_since.take() {
            self.keep(Outage { start, end });
        }
        self.outages
    }

    fn keep(&mut self, outage: Outage) {
        let full = self.outages.len() >= OUTAGES_MAX;
        match self.outages.last_mut() {
            Some(last) if full => last.end = outage.end,
            _ => self.outages.push(outage),
        }
    }
}

// === impl Spread ===

impl Spread {
    /// The spread of `durations`; zeros if there are none.
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let middle = durations.len().div_ceil(2).saturating_sub(1);
        Self {
            p50: durations.get(middle).copied().unwrap_or_default(),
            max: durations.last().copied().unwrap_or_default(),
        }
    }
}

/// Finds the cost of each of `faults` for the `regions`; `faults` must be in order.
///
/// Without faults, the totals cover the outages of all regions.
pub fn attribute(faults: &[FaultWindow], regions: &[RegionOutages]) -> Attribution {
    let mut costs = Vec::with_capacity(faults.len());
    let mut together = Kinds::default();
    for (index, fault) in faults.iter().enumerate() {
        let next_at = faults.get(index + 1).map(|next| next.at);
        let lengths = lengths_in(fault, next_at, regions);
        costs.push(FaultCost {
            writes: Spread::of(lengths.writes.clone()),
            reads: Spread::of(lengths.reads.clone()),
            timeline: lengths.timeline.clone().map(Spread::of),
            already_out: lengths.already_out,
            bystander_failures: bystander_failures(fault, next_at, regions),
        });
        if !fault.affected.is_empty() {
            together.extend(lengths);
        }
    }
    let mut failures = costs.iter().map(|cost| cost.bystander_failures).sum();
    // Failures before the first fault are the cluster's own.
    let first_at = faults.first().map(|fault| begins(fault.at));
    failures += count_failures(regions, |_, outage| first_at.is_none_or(|at| outage.start < at));
    if faults.is_empty() {
        together = all_lengths(regions);
    }
    Attribution {
        faults: costs,
        writes: Spread::of(together.writes),
        reads: Spread::of(together.reads),
        timeline: together.timeline.map(Spread::of),
        bystander_failures: failures,
        writes_apart: apart(faults, regions, |region| &region.writes),
        reads_apart: apart(faults, regions, |region| &region.reads),
    }
}

/// Lengths of outages by the kind of request.
#[derive(Default)]
struct Kinds {
    writes: Vec<Duration>,
    reads: Vec<Duration>,
    timeline: Option<Vec<Duration>>,
    already_out: u64,
}

/// The window in which outages belong to a fault.
struct Window {
    at: Duration,
    until: Duration,
}

// === impl Kinds ===

impl Kinds {
    fn extend(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
        if let Some(timeline) = other.timeline {
            self.timeline.get_or_insert_default().extend(timeline);
        }
    }
}

/// When the window of a fault begins: an attempt that it hit may have begun this much earlier.
fn begins(at: Duration) -> Duration {
    at.saturating_sub(ATTEMPT_PATIENCE)
}

// === impl Window ===

impl Window {
    fn of(fault: &FaultWindow, next_at: Option<Duration>) -> Self {
        let until = match (fault.recovered_at, next_at) {
            (Some(recovered), _) => recovered,
            (None, Some(next)) => begins(next),
            (None, None) => Duration::MAX,
        };
        Self { at: fault.at, until }
    }

    /// Whether `outage` was under way before the fault hit, and so not because of it.
    fn meets(&self, outage: &Outage) -> bool {
        outage.start < begins(self.at) && outage.end > self.at
    }

    fn holds(&self, outage: &Outage) -> bool {
        self.meets(outage) || (begins(self.at)..self.until).contains(&outage.start)
    }

    /// The time from the start of the first outage that belongs to the fault to the end of the
    /// last.
    fn length_of(&self, outages: &[Outage]) -> Duration {
        let mut within = outages.iter().filter(|outage| self.holds(outage));
        let Some(first) = within.next() else {
            return Duration::ZERO;
        };
        let start = if self.meets(first) { self.at } else { first.start };
        within.next_back().unwrap_or(first).end - start
    }
}

/// Whether region `index` counts towards the cost of the fault.
fn is_judged_by(fault: &FaultWindow, index: usize) -> bool {
    fault.affected.is_empty() || fault.affected.contains(&index)
}

/// How long each region that counts towards the fault was out because of it.
fn lengths_in(fault: &FaultWindow, next_at: Option<Duration>, regions: &[RegionOutages]) -> Kinds {
    let window = Window::of(fault, next_at);
    let mut kinds = Kinds::default();
    for (index, region) in regions.iter().enumerate() {
        if !is_judged_by(fault, index) {
            continue;
        }
        kinds.writes.push(window.length_of(&region.writes));
        kinds.reads.push(window.length_of(&region.reads));
        if let Some(timeline) = &region.timeline {
            kinds.timeline.get_or_insert_default().push(window.length_of(timeline));
        }
        let timeline = region.timeline.iter().flatten();
        let outages = region.writes.iter().chain(&region.reads).chain(timeline);
        kinds.already_out += outages.filter(|outage| window.meets(outage)).count() as u64;
    }
    kinds
}

/// The outages that belong to no fault.
fn apart(
    faults: &[FaultWindow],
    regions: &[RegionOutages],
    kind: impl Fn(&RegionOutages) -> &[Outage],
) -> Apart {
    let mut apart = Apart::default();
    for (index, region) in regions.iter().enumerate() {
        let belongs = |outage: &Outage| {
            faults.iter().enumerate().any(|(number, fault)| {
                let next_at = faults.get(number + 1).map(|next| next.at);
                is_judged_by(fault, index) && Window::of(fault, next_at).holds(outage)
            })
        };
        for outage in kind(region).iter().filter(|outage| !belongs(outage)) {
            apart.count += 1;
            apart.max = apart.max.max(outage.length());
        }
    }
    apart
}

/// Failed requests between the fault and the next one, except those to affected regions before
/// their recovery.
fn bystander_failures(
    fault: &FaultWindow,
    next_at: Option<Duration>,
    regions: &[RegionOutages],
) -> u64 {
    let until = next_at.map_or(Duration::MAX, begins);
    count_failures(regions, |index, outage| {
        let excused = fault.affected.contains(&index)
            && fault.recovered_at.is_none_or(|recovered| outage.start < recovered);
        (begins(fault.at)..until).contains(&outage.start) && !excused
    })
}

fn count_failures(regions: &[RegionOutages], counts: impl Fn(usize, &Outage) -> bool) -> u64 {
    let mut failures = 0;
    for (index, region) in regions.iter().enumerate() {
        let outages = region.writes.iter().chain(&region.reads);
        let failed = outages.filter(|outage| outage.is_failure() && counts(index, outage));
        failures += failed.count() as u64;
    }
    failures
}

fn all_lengths(regions: &[RegionOutages]) -> Kinds {
    let lengths = |outages: &[Outage]| outages.iter().map(Outage::length).collect::<Vec<_>>();
    let mut kinds = Kinds::default();
    for region in regions {
        kinds.extend(Kinds {
            writes: lengths(&region.writes),
            reads: lengths(&region.reads),
            timeline: region.timeline.as_deref().map(lengths),
            already_out: 0,
        });
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn attempt(start: u64, end: u64, outcome: AttemptOutcome) -> Attempt {
        Attempt { start: ms(start), end: ms(end), outcome }
    }

    fn outage(start: u64, end: u64) -> Outage {
        Outage { start: ms(start), end: ms(end) }
    }

    fn region(writes: &[(u64, u64)], reads: &[(u64, u64)]) -> RegionOutages {
        let outages = |list: &[(u64, u64)]| list.iter().map(|&(s, e)| outage(s, e)).collect();
        RegionOutages { writes: outages(writes), reads: outages(reads), timeline: None }
    }

    fn fault(at: u64, recovered: Option<u64>, affected: &[usize]) -> FaultWindow {
        FaultWindow {
            at: ms(at),
            recovered_at: recovered.map(ms),
            affected: affected.iter().copied().collect(),
        }
    }

    #[test]
    fn an_outage_runs_from_the_start_of_the_first_failure_to_the_end_of_the_first_success() {
        let mut tracker = OutageTracker::default();
        assert_eq!(tracker.record(attempt(0, 2, AttemptOutcome::Succeeded)), None);
        assert_eq!(tracker.record(attempt(10, 260, AttemptOutcome::Unknown)), None);
        assert_eq!(tracker.out_since(), Some(ms(10)));
        assert_eq!(tracker.record(attempt(260, 262, AttemptOutcome::Refused)), None);
        assert!(!tracker.serves_since(ms(0)));
        let ended = tracker.record(attempt(270, 275, AttemptOutcome::Succeeded));
        assert_eq!(ended, Some(outage(10, 275)));
        assert!(tracker.serves_since(ms(269)));
        assert!(!tracker.serves_since(ms(270)), "it began no later");
        assert_eq!(tracker.finish(ms(1000)), [outage(10, 275)]);
    }

    #[test]
    fn an_outage_that_goes_on_ends_with_the_measurement() {
        let mut tracker = OutageTracker::default();
        tracker.record(attempt(100, 350, AttemptOutcome::Unknown));
        assert_eq!(tracker.finish(ms(5000)), [outage(100, 5000)]);
    }

    #[test]
    fn what_is_kept_of_one_stream_is_bounded() {
        let mut tracker = OutageTracker::default();
        for index in 0..OUTAGES_MAX as u64 + 5 {
            tracker.record(attempt(index * 10, index * 10 + 1, AttemptOutcome::Refused));
            tracker.record(attempt(index * 10 + 2, index * 10 + 3, AttemptOutcome::Succeeded));
        }
        let outages = tracker.finish(ms(1 << 30));
        assert_eq!(outages.len(), OUTAGES_MAX);
        let end = (OUTAGES_MAX as u64 + 4) * 10 + 3;
        assert_eq!(outages.last().unwrap().end, ms(end));
    }

    #[test]
    fn the_median_of_an_even_number_is_the_lower_one() {
        let spread = Spread::of(vec![ms(40), ms(10), ms(30), ms(20)]);
        assert_eq!((spread.p50, spread.max), (ms(20), ms(40)));
        assert_eq!(Spread::of(vec![ms(7)]).p50, ms(7));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn a_fault_costs_what_its_regions_were_out() {
        let regions = [
            region(&[(900, 1400)], &[(1000, 1300)]),
            region(&[(1005, 1205)], &[]),
            region(&[(1010, 1020)], &[]),
        ];
        let found = attribute(&[fault(1000, Some(1500), &[0, 1])], &regions);
        let cost = found.faults[0];
        assert_eq!((cost.writes.p50, cost.writes.max), (ms(200), ms(500)));
        assert_eq!((cost.reads.p50, cost.reads.max), (ms(0), ms(300)));
        assert_eq!(cost.timeline, None);
        assert_eq!(cost.bystander_failures, 0, "10 ms is no failed request");
        assert_eq!(found.writes, cost.writes);
    }

    #[test]
    fn a_region_that_comes_and_goes_is_out_from_the_first_failure_to_the_last_success() {
        let regions = [region(&[(1000, 1100), (1200, 1500), (9000, 9001)], &[])];
        let found = attribute(&[fault(1000, Some(1600), &[0])], &regions);
        assert_eq!(found.writes.max, ms(500), "the one after the recovery is apart");
    }

    #[test]
    fn outages_before_a_fault_are_not_its_doing() {
        let regions = [region(&[(100, 760), (1000, 1100)], &[])];
        let found = attribute(&[fault(1000, Some(1200), &[0])], &regions);
        assert_eq!(found.writes.max, ms(100));
    }

    #[test]
    fn an_outage_under_way_at_a_fault_counts_from_the_fault_and_is_reported() {
        // Reads were out when the fault hit, and stayed out for two more seconds. Writes went out
        // because of the fault.
        let regions = [region(&[(990, 1400)], &[(500, 3070)]), region(&[], &[(300, 1000)])];
        let found = attribute(&[fault(1000, Some(3100), &[0, 1])], &regions);
        let cost = found.faults[0];
        assert_eq!(cost.reads.max, ms(2070));
        assert_eq!(cost.writes.max, ms(410));
        assert_eq!(cost.already_out, 1, "one ended as the fault hit");
        assert_eq!(found.reads.max, ms(2070));
        // A fault without recovery, followed by another one.
        let regions = [region(&[(1000, 9500)], &[])];
        let faults = [fault(1000, None, &[0]), fault(9000, Some(9600), &[0])];
        let found = attribute(&faults, &regions);
        let costs = found.faults.iter().map(|cost| (cost.writes.max, cost.already_out));
        assert_eq!(costs.collect::<Vec<_>>(), [(ms(8500), 0), (ms(500), 1)]);
    }

    #[test]
    fn outages_that_belong_to_no_fault_are_reported_separately() {
        let regions = [
            region(&[(100, 200), (1000, 1300), (5000, 5700)], &[]),
            // A region that was not on the victim.
            region(&[(1100, 1150)], &[(1000, 1020), (20_000, 20_001)]),
        ];
        let found = attribute(&[fault(1000, Some(1500), &[0])], &regions);
        assert_eq!(found.writes_apart, Apart { count: 3, max: ms(700) });
        assert_eq!(found.reads_apart, Apart { count: 2, max: ms(20) });
        let found = attribute(&[], &regions);
        assert_eq!(found.writes_apart.count, 4, "without faults all of them");
    }

    #[test]
    fn failures_elsewhere_count_once_each() {
        let regions = [
            region(&[(1000, 4000)], &[(1000, 4000)]),
            region(&[(1500, 3600)], &[(1500, 3400)]),
            // A region that is affected, recovers, and is out again long before the next fault.
            region(&[(1000, 1200), (6000, 9000)], &[]),
        ];
        let faults = [fault(1000, Some(4100), &[0, 2]), fault(20_000, Some(20_500), &[1])];
        let found = attribute(&faults, &regions);
        assert_eq!(found.faults[0].bystander_failures, 2);
        assert_eq!(found.faults[1].bystander_failures, 0);
        assert_eq!(found.bystander_failures, 2);
    }

    #[test]
    fn a_fault_whose_victim_serves_nothing_is_judged_by_all_regions_and_left_out_of_the_sum() {
        let regions = [region(&[], &[]), region(&[(1000, 1300)], &[(1000, 3500)])];
        let found = attribute(&[fault(1000, Some(4000), &[])], &regions);
        assert_eq!(found.faults[0].writes.max, ms(300));
        assert_eq!(found.faults[0].writes.p50, ms(0));
        assert_eq!(found.faults[0].bystander_failures, 1);
        assert_eq!(found.writes, Spread::default());
    }

    #[test]
    fn a_fault_that_nothing_recovers_from_lasts_until_the_next() {
        let regions = [region(&[(1000, 1500), (2000, 2400), (9000, 9900)], &[])];
        let faults = [fault(1000, None, &[0]), fault(9000, None, &[0])];
        let found = attribute(&faults, &regions);
        assert_eq!(found.faults[0].writes.max, ms(1400));
        assert_eq!(found.faults[1].writes.max, ms(900));
    }

    #[test]
    fn without_faults_all_outages_are_reported() {
        let mut regions = [region(&[(10, 40)], &[]), region(&[(10, 4000)], &[])];
        regions[0].timeline = Some(vec![outage(5, 6)]);
        let found = attribute(&[], &regions);
        assert_eq!((found.writes.p50, found.writes.max), (ms(30), ms(3990)));
        assert_eq!(found.timeline.unwrap().max, ms(1));
        assert_eq!(found.bystander_failures, 1);
    }
}
