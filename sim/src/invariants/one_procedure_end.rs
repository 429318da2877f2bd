//! A procedure ends once.

use std::collections::BTreeSet;

use super::Violation;
use crate::witness::WitnessEvent;

/// Checks the invariant; see the module.
#[derive(Debug, Default)]
pub(crate) struct OneProcedureEnd {
    ended: BTreeSet<u64>,
}

// === impl OneProcedureEnd ===

impl OneProcedureEnd {
    pub(crate) fn check(&mut self, event: &WitnessEvent) -> Option<Violation> {
        let again = event.what == "finished" && !self.ended.insert(event.id);
        let seen = || format!("{}: procedure {} ended again", event.process, event.id);
        again.then(|| Violation::new("a procedure ends once", seen()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_end_is_a_violation() {
        let mut invariant = OneProcedureEnd::default();
        let end = |id| WitnessEvent { what: "finished".to_owned(), id, ..WitnessEvent::default() };
        assert_eq!(invariant.check(&end(1)), None);
        assert_eq!(invariant.check(&end(2)), None);
        assert!(invariant.check(&end(1)).is_some());
    }
}
