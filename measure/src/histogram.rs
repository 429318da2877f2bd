//! Counts latencies in buckets whose width grows with the value: about 3 % of it at any size.
//!
//! Each value below 32 µs has its own bucket. Above, each power of two has 32 buckets.

use std::time::Duration;

/// A histogram of latencies.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Only as long as the largest value requires.
    counts: Vec<u64>,
    count: u64,
    max_us: u64,
}

/// log2 of the number of buckets for each power of two.
const SUB_BITS: u32 = 5;
/// Longer latencies count as this: one hour.
const MAX_US: u64 = 3_600_000_000;

// === impl Histogram ===

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(MAX_US).min(MAX_US);
        let index = bucket_of(us);
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The number of latencies counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The latency that the fraction `fraction` of all latencies do not exceed; zero if there are
    /// none.
    pub fn quantile(&self, fraction: f64) -> Duration {
        let rank = ((self.count as f64 * fraction).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper_end_of(index).min(self.max_us));
            }
        }
        Duration::ZERO
    }

    /// The longest latency.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us)
    }
}

fn bucket_of(us: u64) -> usize {
    let power = us.checked_ilog2().unwrap_or(0).saturating_sub(SUB_BITS);
    ((power as usize) << SUB_BITS) + (us >> power) as usize
}

/// The largest value that a bucket holds.
fn upper_end_of(bucket: usize) -> u64 {
    let power = (bucket >> SUB_BITS).saturating_sub(1);
    let first = (bucket - (power << SUB_BITS)) as u64;
    ((first + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_its_bucket_and_buckets_are_narrow() {
        for us in (0..100_000).chain([1 << 20, 3_599_999_999]) {
            let bucket = bucket_of(us);
            let upper = upper_end_of(bucket);
            assert!(upper >= us, "{us} above {upper}");
            assert!(upper - us <= us / 32, "{us} far below {upper}");
            assert!(bucket == 0 || upper_end_of(bucket - 1) < us);
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        let p50 = histogram.quantile(0.5).as_micros();
        assert!((50_000..=51_600).contains(&p50), "{p50}");
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(100));
        assert_eq!(histogram.max(), Duration::from_millis(100));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn histograms_add_up() {
        let (mut first, mut second) = (Histogram::default(), Histogram::default());
        first.record(Duration::from_micros(3));
        second.record(Duration::from_secs(3));
        first.add(&second);
        assert_eq!(first.count(), 2);
        assert_eq!(first.max(), Duration::from_secs(3));
        assert_eq!(first.quantile(0.5), Duration::from_micros(3));
    }
}
