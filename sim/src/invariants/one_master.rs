//! There is one active master. Once a later master has become active, an earlier one commits
//! nothing, and a server that has obeyed the later one does not obey the earlier one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Violation;
use crate::witness::WitnessEvent;

const INVARIANT: &str = "one active master";

/// Checks the invariant; see the module.
#[derive(Debug, Default)]
pub(crate) struct OneMaster {
    /// The highest epoch, and since when it is known to be in use.
    active: (u64, Duration),
    /// The highest epoch that each server has obeyed.
    obeyed: BTreeMap<String, u64>,
}

// === impl OneMaster ===

impl OneMaster {
    pub(crate) fn check(&mut self, event: &WitnessEvent) -> Option<Violation> {
        let (epoch, at) = (event.epoch, event.at);
        let (highest, since) = self.active;
        let wrong = match event.what.as_str() {
            "active" if epoch > highest => {
                self.active = (epoch, at);
                None
            }
            // Only a commit that began after the change is certainly wrong.
            "committed" if epoch < highest && at.saturating_sub(event.took) > since => {
                Some(format!("committed at {at:?} under epoch {epoch}; {highest} since {since:?}"))
            }
            "ordered" => {
                let obeyed = self.obeyed.entry(event.server.clone()).or_default();
                let other = *obeyed;
                *obeyed = epoch.max(other);
                let server = &event.server;
                let wrong = || format!("{server} obeyed an order of {epoch} after one of {other}");
                (epoch < other).then(wrong)
            }
            _ => None,
        };
        wrong.map(|wrong| Violation::new(INVARIANT, format!("{}: {wrong}", event.process)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: &str, epoch: u64, at_ms: u64, took_ms: u64) -> WitnessEvent {
        WitnessEvent {
            what: what.to_owned(),
            epoch,
            at: Duration::from_millis(at_ms),
            took: Duration::from_millis(took_ms),
            ..WitnessEvent::default()
        }
    }

    #[test]
    fn a_master_that_was_passed_over_writes_nothing() {
        let mut invariant = OneMaster::default();
        assert_eq!(invariant.check(&event("active", 1, 0, 0)), None);
        assert_eq!(invariant.check(&event("active", 2, 100, 0)), None);
        let begun_before = event("committed", 1, 120, 30);
        assert_eq!(invariant.check(&begun_before), None, "it may have been first");
        assert!(invariant.check(&event("committed", 1, 120, 10)).is_some());
        assert_eq!(invariant.check(&event("ordered", 2, 130, 0)), None);
        assert!(invariant.check(&event("ordered", 1, 140, 0)).is_some());
    }
}
