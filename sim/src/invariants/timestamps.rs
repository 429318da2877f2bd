//! No server gives a cell a timestamp that is far ahead of true time. Such a timestamp could not be
//! revoked, and every later timestamp of the region would be as far ahead.

use super::Violation;
use crate::clock::EPOCH_MS;
use crate::witness::WitnessEvent;

/// How far a server's clock may be ahead, plus the time that regions add: two mutations of one row
/// never share a millisecond.
const AHEAD_MS_MAX: u64 = 1_000 + 500;
/// Drifting clocks are ahead by at most this fraction of the elapsed time.
const DRIFT_OF_ELAPSED: u64 = 5;

/// Checks a timestamp that was assigned.
pub(crate) fn check_timestamp(event: &WitnessEvent) -> Option<Violation> {
    if event.what != "timestamp" {
        return None;
    }
    let elapsed_ms = u64::try_from(event.at.as_millis()).unwrap_or(u64::MAX);
    let ahead_ms = event.timestamp_ms.saturating_sub(EPOCH_MS + elapsed_ms);
    let is_wrong = ahead_ms > AHEAD_MS_MAX + elapsed_ms / DRIFT_OF_ELAPSED;
    let seen = || format!("{}: region {}, {ahead_ms} ms ahead", event.process, event.region);
    is_wrong.then(|| Violation::new("timestamps are not ahead of time", seen()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_timestamp_that_is_far_ahead_is_a_violation() {
        let event = |ahead_ms: u64| WitnessEvent {
            what: "timestamp".to_owned(),
            at: Duration::from_secs(5),
            timestamp_ms: EPOCH_MS + 5_000 + ahead_ms,
            ..WitnessEvent::default()
        };
        assert_eq!(check_timestamp(&event(0)), None);
        assert_eq!(check_timestamp(&event(2_500)), None);
        assert!(check_timestamp(&event(2_501)).is_some());
        assert!(check_timestamp(&event(86_400_000)).is_some());
    }
}
