//! While only coordinators suffer, no process ends by itself: a session expires only after silence
//! that its owner had the chance to break, and time without a quorum is none; and a member of the
//! coordinator waits for the others.

use std::collections::BTreeSet;

use super::Violation;
use crate::faults::{Harm, Peers};

const INVARIANT: &str = "no healthy process ends";

/// Compares the processes that ended by themselves with what was done, and to whom.
pub(crate) fn check_no_healthy_end(
    ended: &[String],
    harms: &[(String, Harm)],
) -> Option<Violation> {
    let is_coordinator = |name: &str| Peers::Coordinators.include(name);
    if !harms.iter().all(|(name, _)| is_coordinator(name)) {
        return None;
    }
    let is_excused = |name: &&String| {
        is_coordinator(name) && harms.iter().any(|(harmed, harm)| harmed == *name && ends(*harm))
    };
    let healthy: BTreeSet<&String> = ended.iter().filter(|name| !is_excused(name)).collect();
    let seen = || format!("{healthy:?} ended, and this was done: {harms:?}");
    (!healthy.is_empty()).then(|| Violation::new(INVARIANT, seen()))
}

/// Whether a member of the coordinator may end by itself for this.
fn ends(harm: Harm) -> bool {
    matches!(harm, Harm::Stop | Harm::FailSyncs(_) | Harm::FailStoreSyncs(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_excused_by_harm_to_others_than_coordinators_or_by_a_broken_disk() {
        let check = |ended: &str, harms: &[(&str, Harm)]| {
            let harms: Vec<_> = harms.iter().map(|(name, harm)| ((*name).into(), *harm)).collect();
            check_no_healthy_end(&[ended.to_owned()], &harms).is_some()
        };
        let killed = ("coordinator-2", Harm::Kill);
        assert!(check("regionserver-1", &[killed]));
        assert!(!check("regionserver-1", &[killed, ("master-0", Harm::Pause)]));
        assert!(check("coordinator-1", &[killed]) && check("coordinator-2", &[killed]));
        assert!(!check("coordinator-2", &[killed, ("coordinator-2", Harm::FailSyncs(1))]));
        assert!(check("coordinator-1", &[killed, ("coordinator-2", Harm::FailSyncs(1))]));
    }
}
