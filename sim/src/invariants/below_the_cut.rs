//! Every acknowledgement ever sent is of an edit that lies below its log's cut, whichever of the
//! two came first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Violation;
use crate::witness::Told;

const INVARIANT: &str = "acknowledgements are below the cut";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct BelowTheCut {
    /// Where each edit ends in its log, by process, region and sequence id.
    durable: BTreeMap<(Arc<str>, String, u64), (Log, u64)>,
    /// The highest end of an acknowledged edit.
    acknowledged: BTreeMap<Log, u64>,
    cuts: BTreeMap<Log, u64>,
    /// Files that something other than Basalt made shorter.
    shortened: BTreeSet<Log>,
}

/// The server's name and the log's number.
type Log = (String, String);

// === impl BelowTheCut ===

impl BelowTheCut {
    pub(crate) fn check(&mut self, told: &Told) -> Option<Violation> {
        let log = (told.server.clone(), told.log.clone());
        let edit = || (Arc::clone(&told.process), told.region.clone(), told.sequence_id);
        match told.what.as_str() {
            "durable" => {
                self.durable.insert(edit(), (log, told.end));
                None
            }
            "acknowledged" => {
                let (log, end) = self.durable.remove(&edit())?;
                let highest = self.acknowledged.entry(log.clone()).or_default();
                *highest = end.max(*highest);
                self.compare(&log)
            }
            "cut" => {
                self.cuts.insert(log.clone(), told.cut);
                self.compare(&log)
            }
            _ => None,
        }
    }

    /// The file of a log has become shorter by the simulation's doing. Where it is still needed its
    /// regions must stay closed, or acknowledged writes are missing. Where it is not, and has not
    /// been deleted yet, it is sealed as it is.
    pub(crate) fn shorten(&mut self, server: &str, number: &str) {
        self.shortened.insert((server.to_owned(), number.to_owned()));
    }

    fn compare(&self, log: &Log) -> Option<Violation> {
        let (end, cut) = (self.acknowledged.get(log)?, self.cuts.get(log)?);
        if self.shortened.contains(log) {
            return None;
        }
        let (server, number) = log;
        let seen = format!("log {number} of {server}: cut at {cut}, acknowledged up to {end}");
        (end > cut).then(|| Violation::new(INVARIANT, seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(what: &str, end: u64, cut: u64) -> Told {
        let (server, log) = ("s".to_owned(), "1".to_owned());
        Told { what: what.to_owned(), server, log, sequence_id: end, end, cut, ..Told::default() }
    }

    #[test]
    fn both_orders_are_seen() {
        for order in [["acknowledged", "cut"], ["cut", "acknowledged"]] {
            let mut invariant = BelowTheCut::default();
            for end in [10, 20] {
                assert_eq!(invariant.check(&told("durable", end, 0)), None);
            }
            assert_eq!(invariant.check(&told("acknowledged", 10, 0)), None);
            let [first, second] = order;
            assert_eq!(invariant.check(&told(first, 20, 15)), None, "{order:?}");
            assert!(invariant.check(&told(second, 20, 15)).is_some(), "{order:?}");
        }
    }

    #[test]
    fn a_file_that_was_made_shorter_is_left_out_and_no_other() {
        let mut invariant = BelowTheCut::default();
        invariant.shorten("s", "2");
        for what in ["durable", "acknowledged"] {
            assert_eq!(invariant.check(&told(what, 20, 0)), None);
        }
        assert!(invariant.check(&told("cut", 0, 15)).is_some());
        invariant.shorten("s", "1");
        assert_eq!(invariant.check(&told("cut", 0, 15)), None);
    }
}
