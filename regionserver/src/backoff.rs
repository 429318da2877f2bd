//! Backoff for regions: after an attempt has failed, a region is left alone for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_model::EncodedRegionName;
use tokio::time::Instant;

/// The pause after the first failure. It doubles with each further failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The regions whose last attempt failed.
#[derive(Debug, Default)]
pub(crate) struct Backoff(BTreeMap<EncodedRegionName, Failed>);

#[derive(Debug)]
struct Failed {
    pause: Duration,
    until: Instant,
}

// === impl Backoff ===

impl Backoff {
    /// Whether an attempt for `region` is allowed now.
    pub(crate) fn allows(&self, region: EncodedRegionName) -> bool {
        self.0.get(&region).is_none_or(|failed| failed.until <= Instant::now())
    }

    /// Records the outcome of an attempt for `region`.
    pub(crate) fn ended(&mut self, region: EncodedRegionName, succeeded: bool) {
        let before = self.0.remove(&region);
        if !succeeded {
            let pause = before.map_or(PAUSE_MIN, |failed| (failed.pause * 2).min(PAUSE_MAX));
            self.0.insert(region, Failed { pause, until: Instant::now() + pause });
        }
    }

    /// Forgets the regions that are no longer served.
    pub(crate) fn keep(&mut self, is_served: impl Fn(EncodedRegionName) -> bool) {
        self.0.retain(|region, _| is_served(*region));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(number: u8) -> EncodedRegionName {
        EncodedRegionName::from_digest([number; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_minute_and_end_with_a_success() {
        let mut backoff = Backoff::default();
        for pause_s in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(backoff.allows(region(1)));
            backoff.ended(region(1), false);
            tokio::time::advance(Duration::from_millis(pause_s * 1000 - 1)).await;
            assert!(!backoff.allows(region(1)), "a pause of {pause_s} s");
            assert!(backoff.allows(region(2)), "of another region");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        backoff.ended(region(1), true);
        backoff.ended(region(1), false);
        tokio::time::advance(PAUSE_MIN).await;
        assert!(backoff.allows(region(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_region_that_comes_back_is_not_made_to_wait() {
        let mut backoff = Backoff::default();
        backoff.ended(region(1), false);
        backoff.ended(region(2), false);
        backoff.keep(|served| served == region(2));
        assert!(backoff.allows(region(1)));
        assert!(!backoff.allows(region(2)));
    }
}
