//! While faults hit only coordinators, no healthy process ends by itself. A session expires only if
//! its owner stayed silent although it had the chance to be heard; time without a quorum does not
//! count. A member of the coordinator waits for the others.

use std::collections::BTreeSet;

use super::Violation;
use crate::faults::{FaultAction, Peers};

const INVARIANT: &str = "no healthy process ends";

/// Compares the processes that ended by themselves with the faults and their victims.
pub(crate) fn check_no_healthy_end(
    ended: &[String],
    actions: &[(String, FaultAction)],
) -> Option<Violation> {
    let is_coordinator = |name: &str| Peers::Coordinators.include(name);
    if !actions.iter().all(|(name, _)| is_coordinator(name)) {
        return None;
    }
    let is_excused = |name: &&String| {
        is_coordinator(name)
            && actions.iter().any(|(victim, action)| victim == *name && ends(*action))
    };
    let healthy: BTreeSet<&String> = ended.iter().filter(|name| !is_excused(name)).collect();
    let seen = || format!("{healthy:?} ended, and this was done: {actions:?}");
    (!healthy.is_empty()).then(|| Violation::new(INVARIANT, seen()))
}

/// Whether this fault may make a member of the coordinator end by itself.
fn ends(action: FaultAction) -> bool {
    matches!(action, FaultAction::Stop | FaultAction::FailSyncs(_) | FaultAction::FailStoreSyncs(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_excused_by_faults_of_others_than_coordinators_or_by_a_broken_disk() {
        let check = |ended: &str, actions: &[(&str, FaultAction)]| {
            let actions: Vec<_> =
                actions.iter().map(|(name, action)| ((*name).into(), *action)).collect();
            check_no_healthy_end(&[ended.to_owned()], &actions).is_some()
        };
        let killed = ("coordinator-2", FaultAction::Kill);
        assert!(check("regionserver-1", &[killed]));
        assert!(!check("regionserver-1", &[killed, ("master-0", FaultAction::Pause)]));
        assert!(check("coordinator-1", &[killed]) && check("coordinator-2", &[killed]));
        assert!(!check("coordinator-2", &[killed, ("coordinator-2", FaultAction::FailSyncs(1))]));
        assert!(check("coordinator-1", &[killed, ("coordinator-2", FaultAction::FailSyncs(1))]));
    }
}
