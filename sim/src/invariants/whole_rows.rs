//! A write to both families of a row is seen as a whole: both families have the same value.

use bytes::Bytes;
use parking_lot::Mutex;

use super::Violation;

/// The reads of rows that are written to two families at once.
#[derive(Debug, Default)]
pub struct WholeRows(Mutex<(u64, Vec<Violation>)>);

// === impl WholeRows ===

impl WholeRows {
    /// Checks the values that a read found in the two families of a row.
    pub fn check(&self, row: &[u8], found: [Option<&[u8]>; 2]) {
        let mut seen = self.0.lock();
        seen.0 += 1;
        if found[0] != found[1] {
            let row = String::from_utf8_lossy(row).into_owned();
            let found = found.map(|found| found.map(Bytes::copy_from_slice));
            let text = format!("row {row}: {found:?} in the two families");
            seen.1.push(Violation::new("rows are seen whole", text));
        }
    }

    /// The number of rows checked.
    pub fn count(&self) -> u64 {
        self.0.lock().0
    }

    /// The violations found so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.0.lock().1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_row_is_a_violation() {
        let rows = WholeRows::default();
        rows.check(b"r", [Some(b"1"), Some(b"1")]);
        rows.check(b"r", [None, None]);
        assert_eq!(rows.violations(), []);
        rows.check(b"r", [Some(b"2"), Some(b"1")]);
        rows.check(b"r", [Some(b"2"), None]);
        assert_eq!((rows.count(), rows.violations().len()), (4, 2));
    }
}
