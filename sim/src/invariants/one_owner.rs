//! A region has one owner. Under one epoch, only one process opens it and acknowledges writes. Once
//! a later owner has opened it or acknowledged a write, an earlier one acknowledges nothing more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Violation;
use crate::witness::WitnessEvent;

const INVARIANT: &str = "one owner a region";
/// How far the clocks of two simulated machines may differ within one step of the simulation.
const STEP: Duration = Duration::from_millis(1);

/// Checks the invariant; see the module.
#[derive(Debug, Default)]
pub(crate) struct OneOwner {
    regions: BTreeMap<String, Owner>,
}

/// The owner with the highest epoch that has opened the region or acknowledged a write.
#[derive(Debug)]
struct Owner {
    epoch: u64,
    process: Arc<str>,
    first_at: Duration,
}

// === impl OneOwner ===

impl OneOwner {
    pub(crate) fn check(&mut self, event: &WitnessEvent) -> Option<Violation> {
        let has_opened = event.what == "opened";
        if !has_opened && event.what != "acknowledged" {
            return None;
        }
        let (region, epoch, process) = (&event.region, event.epoch, &event.process);
        let Some(owner) = self.regions.get(region).filter(|owner| owner.epoch >= epoch) else {
            let owner = Owner { epoch, process: Arc::clone(process), first_at: event.at };
            self.regions.insert(region.clone(), owner);
            return None;
        };
        let Owner { epoch: known, process: other, first_at } = owner;
        let is_same = *known == epoch && other == process;
        // A process that resumes from a pause may learn late that it had opened the region.
        let is_over = *known > epoch && (has_opened || event.at <= *first_at + STEP);
        if is_same || is_over {
            return None;
        }
        let seen = format!(
            "region {region}: {process} has {} under epoch {epoch} at {:?}, but {other} acts under \
             epoch {known} since {first_at:?}",
            event.what, event.at
        );
        Some(Violation::new(INVARIANT, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(process: &str, epoch: u64, at_ms: u64) -> WitnessEvent {
        WitnessEvent {
            process: process.into(),
            at: Duration::from_millis(at_ms),
            what: "acknowledged".to_owned(),
            region: "r".to_owned(),
            epoch,
            ..WitnessEvent::default()
        }
    }

    #[test]
    fn an_owner_that_was_passed_over_is_silent() {
        let mut invariant = OneOwner::default();
        assert_eq!(invariant.check(&acknowledged("a", 1, 10)), None);
        assert_eq!(invariant.check(&acknowledged("b", 2, 20)), None);
        assert!(invariant.check(&acknowledged("a", 1, 30)).is_some());
        assert!(invariant.check(&acknowledged("c", 2, 40)).is_some(), "one process an epoch");
        assert_eq!(invariant.check(&acknowledged("b", 2, 50)), None);
    }

    #[test]
    fn an_epoch_is_opened_by_one_process() {
        let opened = |process, epoch, at_ms| WitnessEvent {
            what: "opened".to_owned(),
            ..acknowledged(process, epoch, at_ms)
        };
        let mut invariant = OneOwner::default();
        assert_eq!(invariant.check(&opened("a", 1, 10)), None);
        assert_eq!(invariant.check(&opened("b", 2, 20)), None);
        assert_eq!(invariant.check(&opened("a", 1, 30)), None, "it woke");
        assert!(invariant.check(&opened("c", 2, 40)).is_some());
    }
}
