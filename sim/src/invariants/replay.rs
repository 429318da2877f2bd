//! Replay skips edits that are already in the store files. Applying them twice would change nothing
//! if every later edit of the same cell was applied too, but this rule does not rely on that.

use super::Violation;
use crate::witness::WitnessEvent;

/// Checks an edit that was replayed.
pub(crate) fn check_replay(event: &WitnessEvent) -> Option<Violation> {
    let WitnessEvent { region, sequence_id, flushed, .. } = event;
    let is_wrong = event.what == "replayed" && sequence_id <= flushed;
    let seen = || format!("region {region}: edit {sequence_id}, flushed up to {flushed}");
    is_wrong.then(|| Violation::new("replay passes over what was flushed", seen()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flushed_edit_that_is_taken_in_is_a_violation() {
        let event = |sequence_id| WitnessEvent {
            what: "replayed".to_owned(),
            sequence_id,
            flushed: 5,
            ..WitnessEvent::default()
        };
        assert_eq!(check_replay(&event(6)), None);
        assert!(check_replay(&event(5)).is_some());
    }
}
