//! Checks that reads, conditional writes, increments, appends and deletes of a row are
//! linearizable: there is one order of them that agrees with every answer, and in which an
//! operation that ended before another began comes first.
//!
//! An operation without an answer is *unknown*: it may take effect at any moment after it began, or
//! never. `order.rs` implements the search.

mod contender;
mod order;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use parking_lot::Mutex;

pub use contender::{Contender, Contest};

/// Maximum operations on a row; clients then move on to another row.
const OPERATIONS_MAX: usize = 4_000;
/// Maximum unanswered operations on a row: each doubles the number of states that the row may be
/// in.
const OPEN_MAX: usize = 8;
/// How many steps before an unexplained answer are reported.
const REPORTED_STEPS: usize = 24;

/// The operations of the clients on all rows.
#[derive(Debug, Default)]
pub struct History(Mutex<BTreeMap<Bytes, Row>>);

/// The operations of the clients on one row.
#[derive(Debug, Default)]
struct Row {
    entries: Vec<Entry>,
    /// The number of begins and ends so far.
    steps: usize,
    /// The number of operations without an answer.
    open: usize,
}

/// An operation on the single value of a row. The value is a number, which is 0 while the row has
/// no value, or a list of numbers. A list is represented by one number that depends on all its
/// elements.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Reads the value.
    Read,
    /// Adds to the value and returns the sum.
    Add(i64),
    /// Sets the value to the second number if it equals the first. Returns 1 if it did, else 0.
    Replace(i64, i64),
    /// Appends a number to the list and returns the list.
    Append(i64),
    /// Removes the value and returns 0.
    Delete,
}

// === impl Operation ===

impl Operation {
    /// Its name in reports.
    fn kind(self) -> &'static str {
        match self {
            Self::Read => "read-of-contended",
            Self::Add(_) => "increment",
            Self::Replace(..) => "check-and-mutate",
            Self::Append(_) => "append",
            Self::Delete => "delete-of-contended",
        }
    }
}

/// The identity of an operation that has begun.
#[derive(Clone, Debug)]
pub struct OperationId {
    row: Bytes,
    place: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    operation: Operation,
    /// The begin and the end as steps of this row's history, which counts both in order.
    begun: usize,
    ended: Option<usize>,
    answer: Option<i64>,
    /// The operation is known to have had no effect.
    is_void: bool,
}

// === impl History ===

impl History {
    /// Records that an operation begins.
    pub fn begin(&self, row: &Bytes, operation: Operation) -> OperationId {
        let mut rows = self.0.lock();
        let history = rows.entry(row.clone()).or_default();
        let begun = history.steps;
        let entry = Entry { operation, begun, ended: None, answer: None, is_void: false };
        history.entries.push(entry);
        history.steps += 1;
        history.open += 1;
        OperationId { row: row.clone(), place: history.entries.len() - 1 }
    }

    /// Records the answer to an operation.
    pub fn end(&self, id: &OperationId, answer: i64) {
        self.close(id, |entry, now| {
            entry.ended = Some(now);
            entry.answer = Some(answer);
        });
    }

    /// Records that an operation is known to have had no effect: it was rejected, or it was a read.
    pub fn forget(&self, id: &OperationId) {
        self.close(id, |entry, _| entry.is_void = true);
    }

    fn close(&self, id: &OperationId, change: impl FnOnce(&mut Entry, usize)) {
        let mut rows = self.0.lock();
        let Some(row) = rows.get_mut(&id.row) else { return };
        if let Some(entry) = row.entries.get_mut(id.place) {
            change(entry, row.steps);
            row.steps += 1;
            row.open -= 1;
        }
    }

    /// Whether a row has reached its maximum number of operations.
    pub fn is_full(&self, row: &Bytes) -> bool {
        let rows = self.0.lock();
        rows.get(row).is_some_and(|row| {
            row.entries.len() + OPEN_MAX >= OPERATIONS_MAX || row.open >= OPEN_MAX
        })
    }

    /// The number of answered operations.
    pub fn count(&self) -> usize {
        let rows = self.0.lock();
        let entries = rows.values().flat_map(|row| &row.entries);
        entries.filter(|entry| entry.answer.is_some()).count()
    }

    /// The number of answered operations of each kind.
    pub fn count_by_kind(&self) -> BTreeMap<&'static str, u64> {
        let rows = self.0.lock();
        let mut counts = BTreeMap::new();
        for entry in rows.values().flat_map(|row| &row.entries) {
            if entry.answer.is_some() {
                *counts.entry(entry.operation.kind()).or_default() += 1;
            }
        }
        counts
    }

    /// The number of answered operations on the row that has the most of them.
    pub fn longest(&self) -> usize {
        let rows = self.0.lock();
        let answered =
            |row: &Row| row.entries.iter().filter(|entry| entry.answer.is_some()).count();
        rows.values().map(answered).max().unwrap_or(0)
    }

    /// Describes the rows whose answers no order explains.
    pub fn violations(&self) -> Vec<String> {
        let rows = self.0.lock();
        let wrong = rows.iter().filter_map(|(row, Row { entries, .. })| {
            let entry = entries.get(order::first_unexplained(entries)?)?;
            let row = String::from_utf8_lossy(row);
            Some(format!("row {row}: no order explains {entry}, after {}", before(entries, entry)))
        });
        wrong.collect()
    }
}

/// The operations shortly before `last` ended, and those still open at that time.
fn before(entries: &[Entry], last: &Entry) -> String {
    let end = last.ended.unwrap_or(usize::MAX);
    let begin = last.begun.saturating_sub(REPORTED_STEPS);
    let shown = entries.iter().filter(|entry| {
        let is_open = entry.ended.is_none_or(|ended| ended >= begin);
        !entry.is_void && is_open && entry.begun < end && entry.begun != last.begun
    });
    shown.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, begun, .. } = self;
        match (self.ended, self.answer) {
            (Some(ended), Some(answer)) => {
                write!(formatter, "{operation:?}={answer} ({begun} to {ended})")
            }
            _ => write!(formatter, "{operation:?}=unknown (from {begun})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{Add, Append, Delete, Read, Replace};

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
    fn appended_numbers_keep_their_order_and_a_deletion_removes_them() {
        let (history, row) = (History::default(), Bytes::from("r"));
        let list = |tokens: &[i64]| order::of_tokens(tokens.iter().copied());
        for (operation, answer) in [
            (Append(1), list(&[1])),
            (Append(2), list(&[1, 2])),
            (Read, list(&[1, 2])),
            (Delete, 0),
            (Read, 0),
            (Append(1), list(&[1])),
        ] {
            history.end(&history.begin(&row, operation), answer);
        }
        assert_eq!(violations(&history), 0);
        history.end(&history.begin(&row, Append(2)), list(&[1, 2, 2]));
        assert_eq!(violations(&history), 1, "it was appended twice");
        assert_ne!(list(&[1, 2]), list(&[2, 1]));
    }

    /// One unanswered operation that took effect late, among thousands of others.
    #[test]
    fn a_long_history_is_checked_whole() {
        let (history, row) = (History::default(), Bytes::from("r"));
        let _unknown = history.begin(&row, Add(1_000_000));
        for number in 1..=1_500 {
            history.end(&history.begin(&row, Add(1)), number);
        }
        history.end(&history.begin(&row, Add(1)), 1_001_501);
        assert_eq!((violations(&history), history.longest()), (0, 1_501));
        history.end(&history.begin(&row, Read), 1_501);
        let printed = history.violations().concat();
        assert!(printed.contains("no order explains Read=1501"), "{printed}");
        assert!(printed.contains("Add(1000000)=unknown (from 0)"), "{printed}");
    }

    #[test]
    fn an_answer_counts_also_for_an_operation_that_takes_effect_before_another_ends() {
        let (history, row) = (History::default(), Bytes::from("r"));
        let slow = history.begin(&row, Add(1));
        history.end(&history.begin(&row, Read), 1);
        history.end(&slow, 2);
        assert_eq!(violations(&history), 1, "the sum was 1 when it was read");
    }

    #[test]
    fn a_refused_operation_counts_for_nothing() {
        let (history, row) = (History::default(), Bytes::from("r"));
        history.forget(&history.begin(&row, Add(1)));
        history.end(&history.begin(&row, Read), 0);
        assert_eq!(violations(&history), 0);
    }
}
