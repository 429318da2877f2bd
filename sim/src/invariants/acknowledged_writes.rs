//! What was acknowledged is there: for each strong read that begins after the acknowledgement, and
//! at the end.
//!
//! A row is written once, so a read cannot be right by chance.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

/// Every write that was acknowledged.
#[derive(Debug, Default)]
pub struct AcknowledgedWrites(Mutex<Ledger>);

#[derive(Debug, Default)]
struct Ledger {
    rows: BTreeMap<Bytes, Bytes>,
    violations: Vec<Violation>,
}

/// A row that is not what it must be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("row {row}: {written} was acknowledged, but a read found {found}")]
pub struct Violation {
    /// The row.
    pub row: String,
    /// Its value.
    pub written: String,
    /// What was read instead.
    pub found: String,
}

// === impl AcknowledgedWrites ===

impl AcknowledgedWrites {
    /// Takes in that the write of `value` to `row` was acknowledged.
    pub fn acknowledge(&self, row: Bytes, value: Bytes) {
        self.0.lock().rows.insert(row, value);
    }

    /// Compares a strong read of `row`, begun after its acknowledgement, with what was written.
    pub fn check_read(&self, row: &Bytes, found: Option<&[u8]>) {
        let mut ledger = self.0.lock();
        let written = ledger.rows.get(row).cloned();
        let Some(written) = written else { return };
        if found != Some(&written[..]) {
            ledger.violations.push(Violation {
                row: text(row),
                written: text(&written),
                found: found.map_or_else(|| "nothing".to_owned(), text),
            });
        }
    }

    /// Compares all rows with what was read of the whole table.
    pub fn check_all(&self, found: &BTreeMap<Bytes, Bytes>) {
        let rows: Vec<Bytes> = self.0.lock().rows.keys().cloned().collect();
        for row in rows {
            self.check_read(&row, found.get(&row).map(|value| &value[..]));
        }
    }

    /// How many writes were acknowledged.
    pub fn count(&self) -> usize {
        self.0.lock().rows.len()
    }

    /// What was wrong.
    pub fn violations(&self) -> Vec<Violation> {
        self.0.lock().violations.clone()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_different_is_a_violation() {
        let writes = AcknowledgedWrites::default();
        for row in ["a", "b", "c"] {
            writes.acknowledge(row.into(), "1".into());
        }
        let found = [("a", "1"), ("c", "2"), ("unacknowledged", "3")];
        writes.check_all(&found.map(|(row, value)| (row.into(), value.into())).into());
        let violations = writes.violations();
        assert_eq!(violations.len(), 2, "{violations:?}");
        let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "row b: 1 was acknowledged, but a read found nothing");
        assert_eq!(texts[1], "row c: 1 was acknowledged, but a read found 2");
    }
}
