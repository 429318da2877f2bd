//! Decides which terms are plausible.
//!
//! A term rises by one with each election, and is stored before it is answered. A term far above
//! every term that a member knows was not reached by elections. Accepting it, no matter from whom,
//! would use up the remaining numbers for ever.

use tonic::Status;

use crate::raft::log::Log;
use crate::raft::types::Vote;

/// Knows the highest term that this member has stored. Clones share it.
#[derive(Clone)]
pub(crate) struct Terms(Log);

/// How far a term may be ahead. An ensemble does not hold that many elections in years. The bound
/// is also so low that the numbers practically never run out.
const TERMS_AHEAD_MAX: u64 = 1_000_000;

// === impl Terms ===

impl Terms {
    /// Checks terms against the votes that `log` stores.
    pub(crate) fn new(log: Log) -> Self {
        Self(log)
    }

    /// Checks the term of a vote before anything is stored.
    pub(crate) fn check(&self, vote: &Vote) -> Result<(), Status> {
        let (term, known) = (vote.leader_id.term, self.0.term());
        if is_plausible(term, known) {
            return Ok(());
        }
        tracing::warn!(term, known, "rejected a term that elections cannot have reached");
        Err(Status::invalid_argument("the term is out of bounds"))
    }
}

fn is_plausible(term: u64, known: u64) -> bool {
    term <= known.saturating_add(TERMS_AHEAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_be_ahead_but_not_beyond_all_elections() {
        for (term, known, plausible) in [
            (1, 0, true),
            (3, 7, true),
            (TERMS_AHEAD_MAX, 0, true),
            (TERMS_AHEAD_MAX + 1, 0, false),
            (u64::MAX - 1, 5, false),
            (u64::MAX, u64::MAX - 5, true),
        ] {
            assert_eq!(is_plausible(term, known), plausible, "{term} after {known}");
        }
    }
}
