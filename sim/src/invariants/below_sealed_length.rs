//! Every acknowledged edit is stored below the sealed length of its log, whether the
//! acknowledgement or the seal came first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Violation;
use crate::witness::WitnessEvent;

const INVARIANT: &str = "acknowledgements are below the sealed length";

/// Checks the invariant; see the module.
#[derive(Debug, Default)]
pub(crate) struct BelowSealedLength {
    /// The end of each edit in its log, by process, region and sequence id.
    durable: BTreeMap<(Arc<str>, String, u64), (Log, u64)>,
    /// The highest end of an acknowledged edit in each log.
    acknowledged: BTreeMap<Log, u64>,
    sealed: BTreeMap<Log, u64>,
    /// Logs whose files were shortened by something other than Basalt.
    shortened: BTreeSet<Log>,
}

/// A server's name and the number of its log.
type Log = (String, String);

// === impl BelowSealedLength ===

impl BelowSealedLength {
    pub(crate) fn check(&mut self, event: &WitnessEvent) -> Option<Violation> {
        let log = (event.server.clone(), event.log.clone());
        let edit = || (Arc::clone(&event.process), event.region.clone(), event.sequence_id);
        match event.what.as_str() {
            "durable" => {
                self.durable.insert(edit(), (log, event.end));
                None
            }
            "acknowledged" => {
                let (log, end) = self.durable.remove(&edit())?;
                let highest = self.acknowledged.entry(log.clone()).or_default();
                *highest = end.max(*highest);
                self.compare(&log)
            }
            "sealed" => {
                self.sealed.insert(log.clone(), event.sealed_length);
                self.compare(&log)
            }
            _ => None,
        }
    }

    /// Records that the simulation has shortened the file of a log. If the log is still needed, its
    /// regions must stay closed; otherwise acknowledged writes are missing. If it is no longer
    /// needed but not deleted yet, it is sealed at its new length.
    pub(crate) fn shorten(&mut self, server: &str, number: &str) {
        self.shortened.insert((server.to_owned(), number.to_owned()));
    }

    fn compare(&self, log: &Log) -> Option<Violation> {
        let (end, length) = (self.acknowledged.get(log)?, self.sealed.get(log)?);
        if self.shortened.contains(log) {
            return None;
        }
        let (server, number) = log;
        let seen = format!("log {number} of {server}: sealed at {length}, acknowledged to {end}");
        (end > length).then(|| Violation::new(INVARIANT, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: &str, end: u64, sealed_length: u64) -> WitnessEvent {
        let (server, log) = ("s".to_owned(), "1".to_owned());
        let what = what.to_owned();
        WitnessEvent {
            what,
            server,
            log,
            sequence_id: end,
            end,
            sealed_length,
            ..WitnessEvent::default()
        }
    }

    #[test]
    fn both_orders_are_seen() {
        for order in [["acknowledged", "sealed"], ["sealed", "acknowledged"]] {
            let mut invariant = BelowSealedLength::default();
            for end in [10, 20] {
                assert_eq!(invariant.check(&event("durable", end, 0)), None);
            }
            assert_eq!(invariant.check(&event("acknowledged", 10, 0)), None);
            let [first, second] = order;
            assert_eq!(invariant.check(&event(first, 20, 15)), None, "{order:?}");
            assert!(invariant.check(&event(second, 20, 15)).is_some(), "{order:?}");
        }
    }

    #[test]
    fn a_file_that_was_made_shorter_is_left_out_and_no_other() {
        let mut invariant = BelowSealedLength::default();
        invariant.shorten("s", "2");
        for what in ["durable", "acknowledged"] {
            assert_eq!(invariant.check(&event(what, 20, 0)), None);
        }
        assert!(invariant.check(&event("sealed", 0, 15)).is_some());
        invariant.shorten("s", "1");
        assert_eq!(invariant.check(&event("sealed", 0, 15)), None);
    }
}
