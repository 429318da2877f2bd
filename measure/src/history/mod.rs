//! Strong reads, conditional writes and increments of a row are linearizable: there is one order of
//! them that agrees with every answer, and with which of them ended before others began.
//!
//! An operation that was not answered is *unknown*: it may take effect at any moment after it began,
//! or never. A row is small, so all orders are tried, each set of operations done with each value
//! once (Wing and Gong's search, with Lowe's memory).

mod contender;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parking_lot::Mutex;

pub use contender::{Contender, Contest};

/// How many operations a row may have: they are bits of one number.
const OPERATIONS_MAX: usize = 100;
/// How many of them may be unknown: each doubles what has to be tried.
const UNKNOWN_MAX: usize = 8;

/// What clients did to the rows.
#[derive(Debug, Default)]
pub struct History(Mutex<BTreeMap<Bytes, Vec<Entry>>>);

/// What is done to the one number of a row, which is 0 at first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Reads it.
    Read,
    /// Adds to it, and answers the sum.
    Add(i64),
    /// Makes it the second number if it is the first, and answers 1, else 0.
    Replace(i64, i64),
}

/// An operation under way.
#[derive(Clone, Debug)]
pub struct OperationId {
    row: Bytes,
    place: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    operation: Operation,
    /// Steps of this row's history: begins and ends, in their order.
    begun: usize,
    ended: Option<usize>,
    answer: Option<i64>,
    /// It is known to have had no effect.
    is_void: bool,
}

// === impl History ===

impl History {
    /// An operation begins.
    pub fn begin(&self, row: &Bytes, operation: Operation) -> OperationId {
        let mut rows = self.0.lock();
        let entries = rows.entry(row.clone()).or_default();
        let begun = steps(entries);
        let entry = Entry { operation, begun, ended: None, answer: None, is_void: false };
        entries.push(entry);
        OperationId { row: row.clone(), place: entries.len() - 1 }
    }

    /// An operation was answered.
    pub fn end(&self, id: &OperationId, answer: i64) {
        self.change(id, |entry, now| {
            entry.ended = Some(now);
            entry.answer = Some(answer);
        });
    }

    /// An operation is known to have had no effect: it was refused, or it was a read.
    pub fn forget(&self, id: &OperationId) {
        self.change(id, |entry, _| entry.is_void = true);
    }

    fn change(&self, id: &OperationId, change: impl FnOnce(&mut Entry, usize)) {
        let mut rows = self.0.lock();
        let Some(entries) = rows.get_mut(&id.row) else { return };
        let now = steps(entries);
        if let Some(entry) = entries.get_mut(id.place) {
            change(entry, now);
        }
    }

    /// Whether a row has had as many operations as can be checked.
    pub fn is_full(&self, row: &Bytes) -> bool {
        let rows = self.0.lock();
        rows.get(row).is_some_and(|entries| {
            let unknown = entries.iter().filter(|entry| entry.answer.is_none() && !entry.is_void);
            entries.len() + UNKNOWN_MAX >= OPERATIONS_MAX || unknown.count() >= UNKNOWN_MAX
        })
    }

    /// How many operations were answered.
    pub fn count(&self) -> usize {
        self.0.lock().values().flatten().filter(|entry| entry.answer.is_some()).count()
    }

    /// The rows for whose answers there is no order.
    pub fn violations(&self) -> Vec<String> {
        let rows = self.0.lock();
        let wrong = rows.iter().filter(|(_, entries)| !is_linearizable(entries));
        wrong
            .map(|(row, entries)| {
                format!("row {}: {}", String::from_utf8_lossy(row), told(entries))
            })
            .collect()
    }
}

/// How many begins and ends there were.
fn steps(entries: &[Entry]) -> usize {
    entries.len() + entries.iter().filter(|entry| entry.ended.is_some()).count()
}

fn told(entries: &[Entry]) -> String {
    let told = entries.iter().filter(|entry| !entry.is_void).map(|entry| {
        let Entry { operation, begun, ended, answer, .. } = entry;
        match (ended, answer) {
            (Some(ended), Some(answer)) => format!("{operation:?}={answer} ({begun} to {ended})"),
            _ => format!("{operation:?}=unknown (from {begun})"),
        }
    });
    told.collect::<Vec<_>>().join(", ")
}

fn is_linearizable(entries: &[Entry]) -> bool {
    let entries: Vec<&Entry> = entries.iter().filter(|entry| !entry.is_void).collect();
    debug_assert!(entries.len() <= 128, "{} operations", entries.len());
    let bits = |wanted: bool| {
        let places = entries.iter().enumerate();
        let wanted = places.filter(|(_, entry)| entry.answer.is_some() == wanted);
        wanted.fold(0_u128, |bits, (place, _)| bits | 1 << place)
    };
    let answered = bits(true);
    let mut tried = BTreeSet::new();
    let mut pending = vec![(0_u128, 0_i64)];
    while let Some((done, value)) = pending.pop() {
        if done & answered == answered {
            return true;
        }
        if !tried.insert((done, value)) {
            continue;
        }
        let left = || entries.iter().enumerate().filter(|(place, _)| done & (1 << place) == 0);
        // Nothing may come before an operation that ended before it began.
        let first_end = left().filter_map(|(_, entry)| entry.ended).min().unwrap_or(usize::MAX);
        for (place, entry) in left().filter(|(_, entry)| entry.begun < first_end) {
            let (answer, next) = apply(entry.operation, value);
            if entry.answer.is_none_or(|given| given == answer) {
                pending.push((done | 1 << place, next));
            }
        }
    }
    false
}

/// The answer and the number afterwards.
fn apply(operation: Operation, value: i64) -> (i64, i64) {
    match operation {
        Operation::Read => (value, value),
        Operation::Add(amount) => (value + amount, value + amount),
        Operation::Replace(expected, new) if expected == value => (1, new),
        Operation::Replace(..) => (0, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{Add, Read, Replace};

    fn violations(history: &History) -> usize {
        history.violations().len()
    }

    #[test]
    fn what_came_one_after_another_must_agree() {
        let (history, row) = (History::default(), Bytes::from("r"));
        for (operation, answer) in [(Add(2), 2), (Read, 2), (Replace(2, 9), 1), (Add(1), 10)] {
            history.end(&history.begin(&row, operation), answer);
        }
        assert_eq!(violations(&history), 0);
        history.end(&history.begin(&row, Read), 9);
        assert_eq!(violations(&history), 1, "the last sum was lost");
    }

    #[test]
    fn what_overlaps_may_come_in_either_order() {
        for (read, expected) in [(0, 0), (1, 0), (2, 1)] {
            let (history, row) = (History::default(), Bytes::from("r"));
            let add = history.begin(&row, Add(1));
            let reading = history.begin(&row, Read);
            history.end(&reading, read);
            history.end(&add, 1);
            assert_eq!(violations(&history), expected, "read {read}");
        }
    }

    #[test]
    fn an_unknown_operation_happens_once_at_any_later_time_or_never() {
        for (reads, expected) in
            [(&[0, 0, 1][..], 0), (&[0, 0, 0], 0), (&[0, 1, 0], 1), (&[0, 1, 2], 1)]
        {
            let (history, row) = (History::default(), Bytes::from("r"));
            let _unknown = history.begin(&row, Add(1));
            for read in reads {
                history.end(&history.begin(&row, Read), *read);
            }
            assert_eq!(violations(&history), expected, "{reads:?}");
        }
    }

    #[test]
    fn a_sum_that_was_added_twice_is_found() {
        let (history, row) = (History::default(), Bytes::from("r"));
        history.end(&history.begin(&row, Add(1)), 2);
        assert_eq!(violations(&history), 1);
    }

    #[test]
    fn a_refused_operation_counts_for_nothing() {
        let (history, row) = (History::default(), Bytes::from("r"));
        history.forget(&history.begin(&row, Add(1)));
        history.end(&history.begin(&row, Read), 0);
        assert_eq!(violations(&history), 0);
    }
}
