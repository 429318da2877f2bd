//! Throughput and latency over time, in buckets of [`BUCKET_MS`].
//!
//! A request counts in the bucket in which it ended. Old buckets are reduced to a few numbers, so a
//! run of a day takes megabytes of memory.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::histogram::Histogram;

/// The width of a bucket, in milliseconds.
pub const BUCKET_MS: u64 = 50;

/// The kinds of request that a probe makes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A put of a row.
    Write,
    /// A get of a row that was written, answered by the region's owner.
    Read,
    /// A get that any replica may answer.
    TimelineRead,
}

/// One kind of request in one bucket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Attempts that succeeded.
    pub succeeded: u32,
    /// Attempts that did not succeed.
    pub failed: u32,
    /// The median latency of the successful attempts, in microseconds.
    pub p50_us: u32,
    /// Their 99th percentile, in microseconds.
    pub p99_us: u32,
}

/// One bucket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bucket {
    /// Writes.
    pub writes: Tally,
    /// Strong and timeline reads.
    pub reads: Tally,
}

/// Collects the buckets.
#[derive(Debug, Default)]
pub struct Timeline {
    folded: Vec<Bucket>,
    open: BTreeMap<u64, [Open; 2]>,
}

#[derive(Debug, Default)]
struct Open {
    failed: u32,
    latencies: Histogram,
}

/// Maximum number of buckets that are not reduced yet.
const OPEN_MAX: usize = 40;
/// Maximum number of buckets: 14 hours. Later requests count in the totals only.
const BUCKETS_MAX: usize = 1 << 20;

// === impl Timeline ===

impl Timeline {
    /// Counts an attempt that ended at `end`; `latency` is `None` if it did not succeed.
    pub fn record(&mut self, kind: Kind, end: Duration, latency: Option<Duration>) {
        let index = u64::try_from(end.as_millis()).unwrap_or(u64::MAX) / BUCKET_MS;
        if index < self.folded.len() as u64 || index >= BUCKETS_MAX as u64 {
            return;
        }
        let kinds = self.open.entry(index).or_default();
        let open = &mut kinds[usize::from(kind != Kind::Write)];
        match latency {
            Some(latency) => open.latencies.record(latency),
            None => open.failed += 1,
        }
        while self.open.len() > OPEN_MAX {
            self.fold_first();
        }
    }

    /// All buckets, from the start of the measurement.
    pub fn finish(mut self) -> Vec<Bucket> {
        while !self.open.is_empty() {
            self.fold_first();
        }
        self.folded
    }

    fn fold_first(&mut self) {
        let Some((index, [writes, reads])) = self.open.pop_first() else {
            return;
        };
        // Buckets in which no request ended are empty.
        let index = usize::try_from(index).unwrap_or(BUCKETS_MAX);
        self.folded.resize(index, Bucket::default());
        self.folded.push(Bucket { writes: writes.fold(), reads: reads.fold() });
    }
}

// === impl Open ===

impl Open {
    fn fold(&self) -> Tally {
        let us = |fraction| {
            u32::try_from(self.latencies.quantile(fraction).as_micros()).unwrap_or(u32::MAX)
        };
        Tally {
            succeeded: u32::try_from(self.latencies.count()).unwrap_or(u32::MAX),
            failed: self.failed,
            p50_us: us(0.5),
            p99_us: us(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn requests_count_where_they_end_and_gaps_are_empty_buckets() {
        let mut timeline = Timeline::default();
        timeline.record(Kind::Write, ms(10), Some(ms(2)));
        timeline.record(Kind::Write, ms(49), Some(ms(2)));
        timeline.record(Kind::Read, ms(20), None);
        timeline.record(Kind::Write, ms(150), Some(ms(3)));
        let buckets = timeline.finish();
        assert_eq!(buckets.len(), 4);
        assert_eq!(buckets[0].writes.succeeded, 2);
        assert_eq!(buckets[0].reads.failed, 1);
        assert_eq!(buckets[1], Bucket::default());
        assert_eq!(buckets[3].writes.p99_us, 3000);
    }

    #[test]
    fn old_buckets_are_folded_and_stay_as_they_are() {
        let mut timeline = Timeline::default();
        for index in 0..200 {
            timeline.record(Kind::Read, ms(index * BUCKET_MS), Some(ms(1)));
        }
        timeline.record(Kind::Read, ms(0), Some(ms(1)));
        assert!(timeline.open.len() <= OPEN_MAX);
        let buckets = timeline.finish();
        assert_eq!(buckets.len(), 200);
        assert!(buckets.iter().all(|bucket| bucket.reads.succeeded == 1));
    }
}
