//! Computes the Events of a cluster. Pure. An Event describes a change, so it is computed from two
//! statuses.

use std::collections::BTreeSet;

use basalt_api::cluster::BasaltClusterStatus;
use kube::runtime::events::{Event, EventType};

use super::status::is_true;

/// The Events of the change from `before` to `after`.
pub(super) fn between(before: &BasaltClusterStatus, after: &BasaltClusterStatus) -> Vec<Event> {
    let mut events = Vec::new();
    let was_available = is_true(before, "Available");
    match (was_available, is_true(after, "Available")) {
        (false, true) => events.push(event(EventType::Normal, "Available", "the cluster serves")),
        (true, false) => {
            events.push(event(EventType::Warning, "Unavailable", &message(after, "Available")));
        }
        _ => {}
    }
    let (old, new) = (before.phase.as_deref(), after.phase.as_deref());
    if new == Some("Invalid") && message(before, "Ready") != message(after, "Ready") {
        events.push(event(EventType::Warning, "Invalid", &message(after, "Ready")));
    }
    if is_true(after, "Conflict") && message(before, "Conflict") != message(after, "Conflict") {
        events.push(event(EventType::Warning, "Conflict", &message(after, "Conflict")));
    }
    if old != new && new == Some("Ready") {
        events.push(event(EventType::Normal, "Ready", &message(after, "Ready")));
    }
    if let Some(master) =
        after.active_master.as_ref().filter(|m| Some(*m) != before.active_master.as_ref())
    {
        let note = format!("{master} is the active master");
        events.push(event(EventType::Normal, "MasterActive", &note));
    }
    let known: BTreeSet<_> = before.recoveries.iter().map(|r| (&r.server, &r.at)).collect();
    // The first status of a cluster contains no new recoveries, only its history.
    let fresh = after.recoveries.iter().filter(|r| !known.contains(&(&r.server, &r.at)));
    for recovery in fresh.filter(|_| before.phase.is_some()) {
        let note = format!(
            "{} ({}): {} regions and {} bytes of WAL in {} ms: detect {}, fence {}, split {}, \
             assign {}, replay {}",
            recovery.server,
            recovery.cause,
            recovery.regions,
            recovery.wal_bytes,
            recovery.total_ms,
            recovery.detect_ms,
            recovery.fence_ms,
            recovery.split_ms,
            recovery.assign_ms,
            recovery.replay_ms,
        );
        events.push(event(EventType::Warning, "Recovered", &note));
    }
    events
}

/// The Event for a pod that is replaced.
pub(super) fn replacing(pod: &str) -> Event {
    event(EventType::Normal, "Replacing", &format!("{pod} is out of date and is being replaced"))
}

/// The Event for a pod that is deleted by force.
pub(super) fn taken_away(pod: &str) -> Event {
    let note = format!("{pod} was on a lost node and is safe to remove: it is recreated elsewhere");
    event(EventType::Warning, "TakenAway", &note)
}

/// The Event for a claim that is kept although the policy says `Delete`.
pub(super) fn claim_kept(claim: &str, reason: &str) -> Event {
    event(EventType::Warning, "ClaimKept", &format!("claim {claim} is kept: {reason}"))
}

fn event(type_: EventType, reason: &str, note: &str) -> Event {
    /// The API server rejects longer notes.
    const NOTE_CHARS_MAX: usize = 1_000;
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.chars().take(NOTE_CHARS_MAX).collect()),
        action: "Reconciling".to_owned(),
        secondary: None,
    }
}

fn message(status: &BasaltClusterStatus, kind: &str) -> String {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind);
    found.map(|condition| condition.message.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use basalt_api::cluster::Recovery;

    use super::*;

    fn status(phase: &str, master: &str, recoveries: &[&str]) -> BasaltClusterStatus {
        let recovery = |at: &&str| Recovery { at: (*at).to_owned(), ..Recovery::default() };
        BasaltClusterStatus {
            phase: Some(phase.to_owned()),
            active_master: Some(master.to_owned()),
            recoveries: recoveries.iter().map(recovery).collect(),
            ..BasaltClusterStatus::default()
        }
    }

    fn reasons(before: &BasaltClusterStatus, after: &BasaltClusterStatus) -> Vec<String> {
        between(before, after).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn each_recovery_and_each_new_master_is_reported_once() {
        let before = status("Ready", "m0", &["1"]);
        let after = status("Ready", "m1", &["3", "2", "1"]);
        assert_eq!(reasons(&before, &after), ["MasterActive", "Recovered", "Recovered"]);
        assert_eq!(reasons(&after, &after), [""; 0]);
    }

    #[test]
    fn what_happened_before_the_cluster_was_seen_is_no_news() {
        let after = status("Starting", "m0", &["2", "1"]);
        assert_eq!(reasons(&BasaltClusterStatus::default(), &after), ["MasterActive"]);
    }
}
