//! Deletes and versions agree with HBase's rules: a row that one client alone writes, operation by
//! operation, is compared with a model of it.
//!
//! The model is deliberately naive: a list of cells with timestamps. What HBase leaves to chance it
//! allows either way: a version that was once beyond the number of versions kept may or may not come
//! back when newer ones are deleted, depending on whether a flush or a compaction dropped it.

use std::collections::BTreeMap;

use basalt_model::Cell;
use bytes::Bytes;

/// Its name.
pub(crate) const DELETES_AND_VERSIONS: &str = "deletes and versions follow HBase's rules";

/// How many versions of a column the family keeps.
pub(crate) const VERSIONS_KEPT: usize = 3;

/// What was written to one family of one row.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelRow {
    columns: BTreeMap<&'static str, BTreeMap<i64, ModelCell>>,
    /// The highest timestamp that was used.
    newest: i64,
}

#[derive(Clone, Debug)]
struct ModelCell {
    value: Bytes,
    /// Whether a read must see it: it was never beyond the number of versions kept.
    is_certain: bool,
}

/// One write, with its timestamp.
#[derive(Clone, Debug)]
pub(crate) enum ModelWrite {
    /// Sets a value.
    Put(&'static str, i64, Bytes),
    /// Deletes one version of a column.
    DeleteVersion(&'static str, i64),
    /// Deletes the versions of a column up to a timestamp.
    DeleteColumn(&'static str, i64),
    /// Deletes all versions of exactly this timestamp.
    DeleteFamilyVersion(i64),
    /// Deletes everything up to a timestamp.
    DeleteFamily(i64),
}

// === impl ModelRow ===

impl ModelRow {
    /// The highest timestamp that was used: a new version with a higher one lies above every
    /// deletion, so that it does not matter whether a compaction has dropped its marker.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// Takes in a write that was acknowledged.
    pub(crate) fn apply(&mut self, write: &ModelWrite) {
        match write {
            ModelWrite::Put(column, timestamp, value) => {
                let versions = self.columns.entry(column).or_default();
                versions.insert(*timestamp, ModelCell { value: value.clone(), is_certain: true });
                for cell in versions.values_mut().rev().skip(VERSIONS_KEPT) {
                    cell.is_certain = false;
                }
                self.newest = self.newest.max(*timestamp);
            }
            ModelWrite::DeleteVersion(column, timestamp) => {
                self.delete(|name, version| name == *column && version == *timestamp, *timestamp);
            }
            ModelWrite::DeleteColumn(column, until) => {
                self.delete(|name, version| name == *column && version <= *until, *until);
            }
            ModelWrite::DeleteFamilyVersion(timestamp) => {
                self.delete(|_, version| version == *timestamp, *timestamp);
            }
            ModelWrite::DeleteFamily(until) => {
                self.delete(|_, version| version <= *until, *until);
            }
        }
    }

    fn delete(&mut self, is_deleted: impl Fn(&str, i64) -> bool, timestamp: i64) {
        self.newest = self.newest.max(timestamp);
        for (column, versions) in &mut self.columns {
            versions.retain(|version, _| !is_deleted(column, *version));
        }
    }

    /// What is wrong with what a read of up to `versions_max` versions of each column found.
    pub(crate) fn compare(&self, found: &[Cell], versions_max: usize) -> Option<String> {
        let qualifiers = found.iter().map(|cell| cell.qualifier());
        if let Some(other) =
            qualifiers.clone().find(|name| !self.columns.keys().any(|n| n.as_bytes() == *name))
        {
            return Some(format!("column {} was never written", String::from_utf8_lossy(other)));
        }
        self.columns.iter().find_map(|(column, versions)| {
            let found = found.iter().filter(|cell| cell.qualifier() == column.as_bytes());
            let found: Vec<_> = found.map(|cell| (cell.timestamp(), cell.value())).collect();
            let wrong = compare_column(versions, &found, versions_max.min(VERSIONS_KEPT))?;
            Some(format!("column {column}: {wrong}; found {found:?}, of {versions:?}"))
        })
    }
}

fn compare_column(
    versions: &BTreeMap<i64, ModelCell>,
    found: &[(i64, &[u8])],
    versions_max: usize,
) -> Option<String> {
    if found.len() > versions_max {
        return Some(format!("more than {versions_max} versions"));
    }
    if !found.is_sorted_by(|before, after| before.0 > after.0) {
        return Some("not the newest first".to_owned());
    }
    for (timestamp, value) in found {
        match versions.get(timestamp) {
            None => return Some(format!("version {timestamp} was deleted or never written")),
            Some(cell) if cell.value != *value => {
                return Some(format!("version {timestamp} has another value"));
            }
            Some(_) => {}
        }
    }
    let is_full = found.len() == versions_max;
    let from = if is_full { found.last().map_or(i64::MIN, |(last, _)| *last) } else { i64::MIN };
    let missing = versions.range(from..).find(|(timestamp, cell)| {
        cell.is_certain && !found.iter().any(|(found, _)| found == *timestamp)
    });
    missing.map(|(timestamp, _)| format!("version {timestamp} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(timestamp: i64) -> ModelWrite {
        ModelWrite::Put("a", timestamp, value(timestamp))
    }

    fn value(timestamp: i64) -> Bytes {
        Bytes::from(format!("value {timestamp}"))
    }

    fn found(timestamps: &[i64]) -> Vec<Cell> {
        let cell =
            |timestamp: &i64| Cell::put(b"r", b"f", b"a", *timestamp, &value(*timestamp)).unwrap();
        timestamps.iter().map(cell).collect()
    }

    fn row(writes: &[ModelWrite]) -> ModelRow {
        let mut row = ModelRow::default();
        writes.iter().for_each(|write| row.apply(write));
        row
    }

    #[test]
    fn a_read_finds_the_newest_versions() {
        let row = row(&[put(1), put(3), put(2)]);
        assert_eq!(row.compare(&found(&[3, 2, 1]), 3), None);
        assert_eq!(row.compare(&found(&[3]), 1), None);
        for wrong in [&[3, 2][..], &[3, 1], &[2, 3, 1], &[], &[4, 3, 2]] {
            assert!(row.compare(&found(wrong), 3).is_some(), "{wrong:?}");
        }
        assert!(row.compare(&found(&[2]), 1).is_some());
    }

    #[test]
    fn what_was_deleted_stays_away() {
        for (delete, left) in [
            (ModelWrite::DeleteVersion("a", 2), &[3, 1][..]),
            (ModelWrite::DeleteColumn("a", 2), &[3]),
            (ModelWrite::DeleteFamilyVersion(3), &[2, 1]),
            (ModelWrite::DeleteFamily(3), &[]),
            (ModelWrite::DeleteColumn("b", 3), &[3, 2, 1]),
        ] {
            let row = row(&[put(1), put(2), put(3), delete.clone()]);
            assert_eq!(row.compare(&found(left), 3), None, "{delete:?}");
            let others = [&[3, 2, 1][..], &[3, 1], &[3], &[2, 1], &[]];
            for other in others.iter().filter(|other| **other != left) {
                assert!(row.compare(&found(other), 3).is_some(), "{delete:?}: {other:?}");
            }
        }
    }

    #[test]
    fn a_version_beyond_the_kept_ones_may_come_back_or_not() {
        let row = row(&[put(1), put(2), put(3), put(4), ModelWrite::DeleteVersion("a", 4)]);
        assert_eq!(row.compare(&found(&[3, 2]), 3), None);
        assert_eq!(row.compare(&found(&[3, 2, 1]), 3), None);
        assert!(row.compare(&found(&[3, 1]), 3).is_some(), "2 is certain");
    }
}
