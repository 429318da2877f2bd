//! The sequence ids of a region increase across all its owners, and no two edits get the same id.

use std::collections::BTreeMap;

use super::Violation;
use crate::witness::WitnessEvent;

const INVARIANT: &str = "sequence ids ascend";

/// Checks the invariant; see the module.
#[derive(Debug, Default)]
pub(crate) struct SequenceIds {
    regions: BTreeMap<String, Ids>,
}

#[derive(Debug, Default)]
struct Ids {
    /// The highest id that was assigned under each epoch, acknowledged or not.
    given: BTreeMap<u64, u64>,
    /// The highest id that was acknowledged under any epoch.
    acknowledged: u64,
    /// The epoch under which each id was acknowledged.
    epochs: BTreeMap<u64, u64>,
}

// === impl SequenceIds ===

impl SequenceIds {
    pub(crate) fn check(&mut self, event: &WitnessEvent) -> Option<Violation> {
        let WitnessEvent { region, epoch, sequence_id: id, .. } = event;
        let is_known = ["given", "acknowledged", "replayed"].contains(&event.what.as_str());
        if !is_known {
            return None;
        }
        let ids = self.regions.entry(region.clone()).or_default();
        let wrong = match event.what.as_str() {
            "given" => {
                let is_first = !ids.given.contains_key(epoch);
                let highest = ids.given.entry(*epoch).or_default();
                let descends = *id <= *highest || (is_first && *id <= ids.acknowledged);
                *highest = (*id).max(*highest);
                descends.then(|| format!("{id} was given after {}", ids.acknowledged))
            }
            "acknowledged" => {
                ids.acknowledged = (*id).max(ids.acknowledged);
                let other = ids.epochs.insert(*id, *epoch).filter(|other| other != epoch);
                other.map(|other| format!("{id} was acknowledged under epoch {other} too"))
            }
            _ => {
                let other = ids.epochs.get(id).filter(|other| *other != epoch);
                other.map(|other| format!("{id} was replayed, but it is an edit of epoch {other}"))
            }
        };
        let seen = |wrong| format!("region {region}, epoch {epoch}: {wrong}");
        wrong.map(|wrong| Violation::new(INVARIANT, seen(wrong)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: &str, epoch: u64, sequence_id: u64) -> WitnessEvent {
        WitnessEvent { what: what.to_owned(), epoch, sequence_id, ..WitnessEvent::default() }
    }

    #[test]
    fn ids_go_on_where_the_last_owner_stopped() {
        let mut invariant = SequenceIds::default();
        for (what, epoch, id) in
            [("given", 1, 1), ("given", 1, 2), ("acknowledged", 1, 1), ("given", 2, 2)]
        {
            assert_eq!(invariant.check(&event(what, epoch, id)), None, "{what} {id}");
        }
        assert_eq!(invariant.check(&event("acknowledged", 2, 2)), None);
        assert!(invariant.check(&event("given", 3, 2)).is_some(), "given again");
        assert!(invariant.check(&event("given", 2, 2)).is_some(), "given twice by one owner");
        assert!(invariant.check(&event("replayed", 1, 2)).is_some(), "two edits of one id");
        assert_eq!(invariant.check(&event("replayed", 2, 2)), None);
    }
}
