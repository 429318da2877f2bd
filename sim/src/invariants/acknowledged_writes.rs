//! Every acknowledged write is visible to each strong read that begins after the acknowledgement,
//! and at the end.
//!
//! A row is written only once, so a read cannot be correct by chance. Some rows are deleted later,
//! and must stay deleted.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Violation;

/// The name of the invariant.
pub(crate) const ACKNOWLEDGED_WRITES: &str = "acknowledged writes are there";

/// The acknowledged writes.
#[derive(Debug, Default)]
pub struct AcknowledgedWrites(Mutex<Writes>);

/// The expected contents of some rows at one moment.
#[derive(Debug)]
pub(crate) struct Held(BTreeMap<Bytes, Option<Bytes>>);

#[derive(Debug, Default)]
struct Writes {
    /// The expected value of each row; `None` once it is deleted.
    rows: BTreeMap<Bytes, Option<Bytes>>,
    count: usize,
    violations: Vec<Violation>,
}

// === impl AcknowledgedWrites ===

impl AcknowledgedWrites {
    /// Records that the write of `value` to `row` was acknowledged.
    pub fn acknowledge(&self, row: Bytes, value: Bytes) {
        let mut writes = self.0.lock();
        writes.rows.insert(row, Some(value));
        writes.count += 1;
    }

    /// Records that `row` is about to be deleted: until that is acknowledged, its contents are
    /// unknown.
    pub fn doubt(&self, row: &Bytes) {
        self.0.lock().rows.remove(row);
    }

    /// Records that the deletion of `row` was acknowledged.
    pub fn acknowledge_delete(&self, row: Bytes) {
        let mut writes = self.0.lock();
        writes.rows.insert(row, None);
        writes.count += 1;
    }

    /// Compares a strong read of `row` with the value written. The read must have begun after the
    /// acknowledgement.
    pub fn check_read(&self, row: &Bytes, found: Option<&[u8]>) {
        let mut writes = self.0.lock();
        let Some(written) = writes.rows.get(row).cloned() else { return };
        if found == written.as_deref() {
            return;
        }
        let written = written.map_or_else(|| "its deletion".to_owned(), |written| text(&written));
        let found = found.map_or_else(|| "nothing".to_owned(), text);
        let row = text(row);
        let seen = format!("row {row}: {written} was acknowledged, but a read found {found}");
        writes.violations.push(Violation::new(ACKNOWLEDGED_WRITES, seen));
    }

    /// The current expectations for the rows from `start` up to `stop`, deleted rows included.
    pub(crate) fn held(&self, start: &[u8], stop: &[u8]) -> Held {
        let writes = self.0.lock();
        let within = |row: &Bytes| start <= &row[..] && &row[..] < stop;
        let rows = writes.rows.iter().filter(|(row, _)| within(row));
        Held(rows.map(|(row, value)| (row.clone(), value.clone())).collect())
    }

    /// Compares the rows that a scan found with the expectations at its beginning. A row whose
    /// expectation has changed since then proves nothing.
    pub(crate) fn check_scan(&self, held: &Held, found: &BTreeMap<Bytes, Option<Bytes>>) {
        for (row, value) in &held.0 {
            let now = self.0.lock().rows.get(row).cloned();
            if now.as_ref() == Some(value) {
                let found = found.get(row).cloned().flatten();
                self.check_read(row, found.as_deref());
            }
        }
    }

    /// Compares all rows with the contents of the whole table.
    pub fn check_all(&self, found: &BTreeMap<Bytes, Bytes>) {
        let rows: Vec<Bytes> = self.0.lock().rows.keys().cloned().collect();
        for row in rows {
            self.check_read(&row, found.get(&row).map(|value| &value[..]));
        }
    }

    /// The number of acknowledged writes.
    pub fn count(&self) -> usize {
        self.0.lock().count
    }

    /// The violations found so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.0.lock().violations.clone()
    }
}

// === impl Held ===

impl Held {
    /// Removes the rows that a scan did not reach: those beyond `last`, the last row that it
    /// returned.
    pub(crate) fn without_rest(mut self, last: &[u8], reversed: bool) -> Self {
        self.0.retain(|row, _| if reversed { &row[..] >= last } else { &row[..] <= last });
        self
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_misses_no_row_that_was_acknowledged_before_it_began() {
        let writes = AcknowledgedWrites::default();
        for row in ["a", "b", "c", "d"] {
            writes.acknowledge(row.into(), "1".into());
        }
        let held = writes.held(b"a", b"z");
        writes.acknowledge("aa".into(), "1".into());
        writes.doubt(&"c".into());
        let scanned = |rows: &[&'static str]| {
            rows.iter().map(|row| (Bytes::from(*row), Some(Bytes::from("1")))).collect()
        };
        writes.check_scan(&held, &scanned(&["a", "b", "d"]));
        assert_eq!(writes.violations(), []);
        writes.check_scan(&held, &scanned(&["a", "d"]));
        assert_eq!(writes.violations().len(), 1, "b is missing");
        let held = held.without_rest(b"b", false);
        writes.check_scan(&held, &scanned(&["a", "b"]));
        assert_eq!(writes.violations().len(), 1, "d lies beyond");
        writes.check_scan(&held, &scanned(&["b"]));
        assert_eq!(writes.violations().len(), 2, "a is missing");
    }

    #[test]
    fn what_is_missing_different_or_back_again_is_a_violation() {
        let writes = AcknowledgedWrites::default();
        for row in ["a", "b", "c", "d"] {
            writes.acknowledge(row.into(), "1".into());
        }
        writes.doubt(&"d".into());
        writes.acknowledge_delete("d".into());
        let found = [("a", "1"), ("c", "2"), ("d", "1"), ("unacknowledged", "3")];
        writes.check_all(&found.map(|(row, value)| (row.into(), value.into())).into());
        let seen: Vec<String> = writes.violations().into_iter().map(|found| found.seen).collect();
        assert_eq!(
            seen,
            [
                "row b: 1 was acknowledged, but a read found nothing",
                "row c: 1 was acknowledged, but a read found 2",
                "row d: its deletion was acknowledged, but a read found 1",
            ]
        );
    }
}
