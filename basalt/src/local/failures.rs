//! Decides when `basalt local` gives up: when a process that has never served fails in the same way
//! again and again.
//!
//! A process that has served once is restarted without limit, as a kubelet does. The cause of its
//! failure may be temporary, as a full disk is.

use std::collections::{BTreeMap, BTreeSet};

use super::keeper::Event;

/// The failures of the processes that have not served yet.
#[derive(Debug, Default)]
pub(super) struct Failures {
    served: BTreeSet<String>,
    /// The last failure of each process, and how often in a row it occurred.
    repeated: BTreeMap<String, (String, u32)>,
}

/// How many identical failures in a row stop the cluster. The restarts take about 8 s.
const IDENTICAL_FAILURES_MAX: u32 = 5;

// === impl Failures ===

impl Failures {
    /// Records an event. Returns the reason to stop the cluster, if there is one. `last_line`
    /// returns the last line of a process's log.
    pub(super) fn note(
        &mut self,
        event: &Event,
        last_line: impl FnOnce(&str) -> Option<String>,
    ) -> Option<String> {
        let (process, reason) = match event {
            Event::Ready { process, .. } => {
                self.served.insert(process.clone());
                return None;
            }
            Event::Died { death, again_after: Some(_) } => {
                let line = last_line(&death.process).unwrap_or_default();
                (&death.process, format!("{}\n{line}", death.how))
            }
            Event::Died { .. } => return None,
            Event::NotStarted { process, reason } => (process, reason.clone()),
        };
        if self.served.contains(process) {
            return None;
        }
        let (last, count) = self.repeated.entry(process.clone()).or_default();
        *count = if *last == reason { *count + 1 } else { 1 };
        *last = reason;
        (*count >= IDENTICAL_FAILURES_MAX)
            .then(|| format!("{process} has never served, and failed {count} times alike: {last}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::local::Death;
    use crate::role_config::RoleName;

    fn died() -> Event {
        let death = Death {
            process: "master-0".to_owned(),
            role: RoleName::Master,
            instance: String::new(),
            pid: 1,
            how: "failed with exit code 1".to_owned(),
            asked: false,
        };
        Event::Died { death, again_after: Some(Duration::ZERO) }
    }

    #[test]
    fn the_same_failure_again_and_again_stops_the_cluster() {
        let mut failures = Failures::default();
        let mut fail = |line: &str| failures.note(&died(), |_| Some(line.to_owned()));
        for line in ["a", "a", "a", "a", "b", "b", "b", "b"] {
            assert_eq!(fail(line), None);
        }
        let reason = fail("b").unwrap();
        assert!(reason.contains("master-0") && reason.ends_with("exit code 1\nb"), "{reason}");
    }

    #[test]
    fn a_process_that_has_served_is_started_again_for_ever() {
        let mut failures = Failures::default();
        let ready = Event::Ready { process: "master-0".to_owned(), pid: 1, after: Duration::ZERO };
        assert_eq!(failures.note(&ready, |_| None), None);
        for _ in 0..20 {
            assert_eq!(failures.note(&died(), |_| None), None);
        }
    }
}
