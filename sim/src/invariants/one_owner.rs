//! One owner a region: under an epoch one process acknowledges, and once a later owner has
//! acknowledged, no earlier one does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Violation;
use crate::witness::Told;

const INVARIANT: &str = "one owner a region";
/// How far apart the clocks of two simulated machines may be within one step of the simulation.
const STEP: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct OneOwner {
    regions: BTreeMap<String, Owner>,
}

/// The owner with the highest epoch that has acknowledged anything.
#[derive(Debug)]
struct Owner {
    epoch: u64,
    process: Arc<str>,
    first_at: Duration,
}

// === impl OneOwner ===

impl OneOwner {
    pub(crate) fn check(&mut self, told: &Told) -> Option<Violation> {
        if told.what != "acknowledged" {
            return None;
        }
        let (region, epoch, process) = (&told.region, told.epoch, &told.process);
        let Some(owner) = self.regions.get(region).filter(|owner| owner.epoch >= epoch) else {
            let owner = Owner { epoch, process: Arc::clone(process), first_at: told.at };
            self.regions.insert(region.clone(), owner);
            return None;
        };
        let Owner { epoch: known, process: other, first_at } = owner;
        let is_same = *known == epoch && other == process;
        if is_same || (*known > epoch && told.at <= *first_at + STEP) {
            return None;
        }
        let seen = format!(
            "region {region}: {process} acknowledged under epoch {epoch} at {:?}, but {other} has \
             under epoch {known} since {first_at:?}",
            told.at
        );
        Some(Violation::new(INVARIANT, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(process: &str, epoch: u64, at_ms: u64) -> Told {
        Told {
            process: process.into(),
            at: Duration::from_millis(at_ms),
            what: "acknowledged".to_owned(),
            region: "r".to_owned(),
            epoch,
            ..Told::default()
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
}
