//! A procedure ends once.

use std::collections::BTreeSet;

use super::Violation;
use crate::witness::Told;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct OneProcedureEnd {
    ended: BTreeSet<u64>,
}

// === impl OneProcedureEnd ===

impl OneProcedureEnd {
    pub(crate) fn check(&mut self, told: &Told) -> Option<Violation> {
        let again = told.what == "finished" && !self.ended.insert(told.id);
        let seen = || format!("{}: procedure {} ended again", told.process, told.id);
        again.then(|| Violation::new("a procedure ends once", seen()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_end_is_a_violation() {
        let mut invariant = OneProcedureEnd::default();
        let end = |id| Told { what: "finished".to_owned(), id, ..Told::default() };
        assert_eq!(invariant.check(&end(1)), None);
        assert_eq!(invariant.check(&end(2)), None);
        assert!(invariant.check(&end(1)).is_some());
    }
}
