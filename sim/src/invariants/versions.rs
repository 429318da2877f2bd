//! Deletes, versions and times to live follow HBase's rules. A row that only one client writes,
//! operation by operation, is compared with a model of it ([`basalt_reference`]).
//!
//! The model does not know when the region was flushed and compacted, or what its server's clock
//! showed. So it determines for each cell whether a read must see it, may see it, or must not see
//! it:
//! - A version that was once beyond the number of versions kept may or may not come back when newer
//!   ones are deleted, because a flush or a compaction may have dropped it. The same is true of a
//!   version that has expired and is not among the `MIN_VERSIONS` newest, deleted ones included.
//! - A cell may or may not be seen if its time to live ends at a moment that the clock of its
//!   server, the clock of the previous owner, or the read itself may or may not have reached. The
//!   same is true of the cells that a delete hides if the delete has expired by the fastest of
//!   these clocks, but not by the slowest.

use std::collections::BTreeSet;

use basalt_model::{Cell, CellType, FamilyDescriptor, KeepDeletedCells};
use basalt_reference::{ModelCell, ModelRead, Rules};
use bytes::Bytes;

/// The name of the invariant.
pub(crate) const DELETES_AND_VERSIONS: &str =
    "deletes, versions and times to live follow HBase's rules";

/// The range of all timestamps.
const ALWAYS: (i64, i64) = (0, i64::MAX);

/// The writes to one family of one row.
#[derive(Clone, Debug)]
pub(crate) struct ModelRow {
    key: String,
    family: FamilyDescriptor,
    /// The same family without a limit on versions.
    unlimited: FamilyDescriptor,
    cells: Vec<ModelCell>,
    /// The puts that were once beyond the number of versions kept, by column and timestamp.
    surplus: BTreeSet<(String, i64)>,
    /// The highest timestamp that was used.
    newest: i64,
}

/// The range of the clocks that decide whether a cell has expired, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockSpan {
    /// The lowest time that the server's clock may have shown at the read.
    pub(crate) earliest_ms: i64,
    /// The highest time that any server's clock may have shown so far.
    pub(crate) latest_ms: i64,
}

/// A write with its timestamp.
#[derive(Clone, Debug)]
pub(crate) enum ModelWrite {
    /// Sets a value.
    Put(&'static str, i64, Bytes),
    /// Deletes one version of a column.
    DeleteVersion(&'static str, i64),
    /// Deletes the versions of a column up to a timestamp.
    DeleteColumn(&'static str, i64),
    /// Deletes all versions with exactly this timestamp.
    DeleteFamilyVersion(i64),
    /// Deletes everything up to a timestamp.
    DeleteFamily(i64),
}

// === impl ModelRow ===

impl ModelRow {
    /// A row without any writes.
    pub(crate) fn new(key: String, family: FamilyDescriptor) -> Self {
        let unlimited = FamilyDescriptor { versions_max: u32::MAX, ..family.clone() };
        let (cells, surplus) = (Vec::new(), BTreeSet::new());
        Self { key, family, unlimited, cells, surplus, newest: 0 }
    }

    /// The settings of the family.
    pub(crate) fn family(&self) -> &FamilyDescriptor {
        &self.family
    }

    /// The highest timestamp that was used. A version with a higher one is above every deletion, so
    /// it does not matter whether a compaction has dropped the delete marker.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// The timestamp of the write before the last `back` ones.
    pub(crate) fn recent(&self, back: usize) -> i64 {
        self.cells.iter().rev().nth(back).map_or(self.newest, |cell| cell.timestamp)
    }

    /// Whether some version has expired by every clock.
    pub(crate) fn has_expired(&self, clock: ClockSpan) -> bool {
        let rules = self.rules(clock.earliest_ms);
        self.cells.iter().any(|cell| cell.is_put() && rules.is_expired(cell))
    }

    /// Records an acknowledged write.
    pub(crate) fn apply(&mut self, write: &ModelWrite) {
        let (kind, qualifier, timestamp, value) = match write {
            ModelWrite::Put(column, timestamp, value) => {
                (CellType::Put, *column, *timestamp, value.to_vec())
            }
            ModelWrite::DeleteVersion(column, timestamp) => {
                (CellType::Delete, *column, *timestamp, Vec::new())
            }
            ModelWrite::DeleteColumn(column, until) => {
                (CellType::DeleteColumn, *column, *until, Vec::new())
            }
            ModelWrite::DeleteFamilyVersion(timestamp) => {
                (CellType::DeleteFamilyVersion, "", *timestamp, Vec::new())
            }
            ModelWrite::DeleteFamily(until) => (CellType::DeleteFamily, "", *until, Vec::new()),
        };
        let (row, qualifier, edit) = (self.key.clone(), qualifier.to_owned(), self.cells.len());
        self.newest = self.newest.max(timestamp);
        self.cells.push(ModelCell { row, qualifier, timestamp, kind, edit: edit as u64, value });
        self.note_surplus();
    }

    /// Notes the versions beyond those that are kept, counting as a compaction does: with
    /// `KEEP_DELETED_CELLS`, deleted versions count too.
    fn note_surplus(&mut self) {
        let raw = self.family.keep_deleted_cells != KeepDeletedCells::False;
        let all = ModelRead { versions: u32::MAX, range: ALWAYS, raw };
        let mut counted = self.rules(0).read(&self.cells, &all);
        counted.retain(ModelCell::is_put);
        counted.sort_by_key(|cell| (cell.qualifier.clone(), std::cmp::Reverse(cell.timestamp)));
        for column in counted.chunk_by(|a, b| a.qualifier == b.qualifier) {
            let beyond = column.iter().skip(self.family.versions_max as usize);
            self.surplus.extend(beyond.map(|cell| (cell.qualifier.clone(), cell.timestamp)));
        }
    }

    fn rules(&self, now: i64) -> Rules<'_> {
        Rules { family: &self.unlimited, now }
    }

    /// The cells that `read` may see, regardless of the number of versions.
    fn allowed(&self, read: &ModelRead, clock: ClockSpan) -> Vec<ModelCell> {
        let latest = self.rules(clock.latest_ms);
        // An expired delete may be dropped before the cells that it hides. It hides nothing from a
        // raw read.
        let stays = |cell: &&ModelCell| read.raw || cell.is_put() || !latest.is_gone(cell);
        let cells: Vec<_> = self.cells.iter().filter(stays).cloned().collect();
        let earliest = self.rules(clock.earliest_ms);
        let mut allowed = earliest.read(&cells, read);
        if self.family.versions_min > 0 {
            // If a newer version was dropped, an older one takes its place among the newest.
            let dropped = self.droppable(clock);
            let (lost, left): (Vec<_>, Vec<_>) =
                cells.into_iter().partition(|cell| is_of(&dropped, cell));
            for cell in lost {
                let with_it: Vec<_> = left.iter().chain([&cell]).cloned().collect();
                allowed.extend(earliest.read(&with_it, read));
            }
        }
        allowed
    }

    /// Whether a put of a family with `MIN_VERSIONS` has expired by every clock, although the read
    /// found that many newer versions of its column.
    fn is_too_old(&self, cell: &Cell, found: &[Cell], clock: ClockSpan) -> bool {
        let rules = self.rules(clock.earliest_ms);
        let mut own =
            self.cells.iter().filter(|own| own.is_put() && own.is(&self.family.name, cell));
        let is_expired = own.any(|own| rules.is_expired(own));
        let is_newer = |other: &&Cell| {
            other.cell_type() == CellType::Put
                && other.qualifier() == cell.qualifier()
                && other.timestamp() > cell.timestamp()
        };
        self.family.versions_min > 0
            && is_expired
            && found.iter().filter(is_newer).count() >= self.family.versions_min as usize
    }

    /// The puts that a flush or a compaction may have dropped, by column and timestamp.
    fn droppable(&self, clock: ClockSpan) -> BTreeSet<(String, i64)> {
        let mut droppable = self.surplus.clone();
        let latest = self.rules(clock.latest_ms);
        let puts = || self.cells.iter().filter(|cell| cell.is_put());
        for put in puts().filter(|put| self.family.versions_min > 0 && latest.is_expired(put)) {
            let is_newer = |other: &&ModelCell| {
                other.qualifier == put.qualifier && other.timestamp > put.timestamp
            };
            let newer: BTreeSet<i64> = puts().filter(is_newer).map(|put| put.timestamp).collect();
            if newer.len() >= self.family.versions_min as usize {
                droppable.insert((put.qualifier.clone(), put.timestamp));
            }
        }
        droppable
    }

    /// The cells that `read` must see, unless it finds as many newer versions as it asks for.
    fn certain(&self, read: &ModelRead, clock: ClockSpan) -> Vec<ModelCell> {
        let mut certain = self.rules(clock.latest_ms).read(&self.cells, read);
        let droppable = self.droppable(clock);
        certain.retain(|cell| !is_of(&droppable, cell));
        certain
    }

    /// Describes the first error in the cells that `read` found.
    pub(crate) fn compare(
        &self,
        read: &ModelRead,
        clock: ClockSpan,
        found: &[Cell],
    ) -> Option<String> {
        let name = &self.family.name;
        let all = ModelRead { versions: u32::MAX, ..read.clone() };
        let kept = if read.raw { u32::MAX } else { self.family.versions_max };
        let versions_max = read.versions.min(kept) as usize;
        if !found.is_sorted_by(|before, after| before.key().compare(&after.key()).is_lt()) {
            return Some(format!("not in order: {found:?}"));
        }
        let allowed = self.allowed(&all, clock);
        let is_allowed = |cell: &&Cell| allowed.iter().any(|one| one.is(name, cell));
        if let Some(wrong) = found.iter().find(|cell| !is_allowed(cell)) {
            return Some(format!("{wrong:?} must not be seen at {clock:?}; found {found:?}"));
        }
        let puts_of = |qualifier: &[u8]| {
            let of_column =
                |cell: &&Cell| cell.cell_type() == CellType::Put && cell.qualifier() == qualifier;
            found.iter().filter(of_column).collect::<Vec<_>>()
        };
        if let Some(cell) = found.iter().find(|c| puts_of(c.qualifier()).len() > versions_max) {
            return Some(format!("more than {versions_max} versions beside {cell:?}: {found:?}"));
        }
        if let Some(cell) = found.iter().find(|cell| self.is_too_old(cell, found, clock)) {
            return Some(format!("{cell:?} has expired and is not among the newest: {found:?}"));
        }
        let is_left_out = |cell: &&ModelCell| {
            let puts = puts_of(cell.qualifier.as_bytes());
            let is_full = puts.len() == versions_max;
            is_full && puts.last().is_some_and(|last| last.timestamp() > cell.timestamp)
        };
        let certain = self.certain(&all, clock);
        let mut missing = certain.iter().filter(|cell| !found.iter().any(|one| cell.is(name, one)));
        let missing = missing.find(|cell| !(cell.is_put() && is_left_out(cell)))?;
        let ModelCell { qualifier, timestamp, kind, .. } = missing;
        Some(format!(
            "{kind:?} of {qualifier}/{timestamp} is missing at {clock:?}; found {found:?}"
        ))
    }
}

/// Whether `cell` is a put with a column and timestamp in `puts`.
fn is_of(puts: &BTreeSet<(String, i64)>, cell: &ModelCell) -> bool {
    cell.is_put() && puts.contains(&(cell.qualifier.clone(), cell.timestamp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::CellBuilder;

    const NOW: ClockSpan = ClockSpan { earliest_ms: 10_000, latest_ms: 10_000 };

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

    fn mark(qualifier: &str, timestamp: i64, cell_type: CellType) -> Cell {
        CellBuilder {
            row: b"r",
            family: b"f",
            qualifier: qualifier.as_bytes(),
            timestamp,
            cell_type,
            value: b"",
            tags: &[],
        }
        .build()
        .unwrap()
    }

    fn family() -> FamilyDescriptor {
        FamilyDescriptor { versions_max: 3, ..FamilyDescriptor::new("f") }
    }

    fn row_of(family: FamilyDescriptor, writes: &[ModelWrite]) -> ModelRow {
        let mut row = ModelRow::new("r".to_owned(), family);
        writes.iter().for_each(|write| row.apply(write));
        row
    }

    fn row(writes: &[ModelWrite]) -> ModelRow {
        row_of(family(), writes)
    }

    /// The error, if any, of a read of `versions` versions that found exactly these timestamps.
    fn wrong(row: &ModelRow, timestamps: &[i64], versions: u32) -> Option<String> {
        let read = ModelRead { versions, range: ALWAYS, raw: false };
        row.compare(&read, NOW, &found(timestamps))
    }

    #[test]
    fn a_read_finds_the_newest_versions() {
        let row = row(&[put(1), put(3), put(2)]);
        assert_eq!(wrong(&row, &[3, 2, 1], 3), None);
        assert_eq!(wrong(&row, &[3], 1), None);
        for other in [&[3, 2][..], &[3, 1], &[2, 3, 1], &[], &[4, 3, 2]] {
            assert!(wrong(&row, other, 3).is_some(), "{other:?}");
        }
        assert!(wrong(&row, &[2], 1).is_some());
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
            assert_eq!(wrong(&row, left, 3), None, "{delete:?}");
            let others = [&[3, 2, 1][..], &[3, 1], &[3], &[2, 1], &[]];
            for other in others.iter().filter(|other| **other != left) {
                assert!(wrong(&row, other, 3).is_some(), "{delete:?}: {other:?}");
            }
        }
    }

    #[test]
    fn a_version_beyond_the_kept_ones_may_come_back_or_not() {
        let row = row(&[put(1), put(2), put(3), put(4), ModelWrite::DeleteVersion("a", 4)]);
        assert_eq!(wrong(&row, &[3, 2], 3), None);
        assert_eq!(wrong(&row, &[3, 2, 1], 3), None);
        assert!(wrong(&row, &[3, 1], 3).is_some(), "2 is certain");
    }

    #[test]
    fn a_version_may_be_seen_or_not_only_while_clocks_disagree_on_its_end() {
        let family = FamilyDescriptor { time_to_live_s: Some(3), ..family() };
        let row = row_of(family, &[put(5_000), put(7_000), put(9_000)]);
        let read = ModelRead { versions: 3, range: ALWAYS, raw: false };
        let wrong = |clock, timestamps: &[i64]| row.compare(&read, clock, &found(timestamps));
        // The put at 7,000 lives until 10,000.
        assert_eq!(wrong(NOW, &[9_000, 7_000]), None);
        assert!(wrong(NOW, &[9_000]).is_some() && wrong(NOW, &[9_000, 7_000, 5_000]).is_some());
        let unsure = ClockSpan { earliest_ms: 9_900, latest_ms: 10_100 };
        assert_eq!(wrong(unsure, &[9_000, 7_000]), None);
        assert_eq!(wrong(unsure, &[9_000]), None);
        assert!(wrong(unsure, &[7_000]).is_some() && wrong(unsure, &[]).is_some());
        assert!(row.has_expired(unsure));
    }

    #[test]
    fn the_newest_versions_stay_although_their_time_is_over() {
        let family = FamilyDescriptor { time_to_live_s: Some(3), versions_min: 2, ..family() };
        let puts = [put(1_000), put(2_000), put(3_000)];
        let row = row_of(family.clone(), &puts);
        assert_eq!(wrong(&row, &[3_000, 2_000], 3), None);
        assert!(wrong(&row, &[3_000], 3).is_some(), "two are kept");
        assert!(wrong(&row, &[3_000, 2_000, 1_000], 3).is_some(), "the third has expired");
        assert!(row.has_expired(NOW));
        // The oldest version was dropped, or is one of the two newest again.
        let deleted = [&puts[..], &[ModelWrite::DeleteVersion("a", 3_000)]].concat();
        let row = row_of(family.clone(), &deleted);
        assert_eq!(wrong(&row, &[2_000, 1_000], 3), None);
        assert_eq!(wrong(&row, &[2_000], 3), None);
        assert!(wrong(&row, &[1_000], 3).is_some() && wrong(&row, &[], 3).is_some());
        // Among the versions that may have been dropped, an older one may remain because it is in a
        // file of its own.
        let deleted = [&deleted[..], &[ModelWrite::DeleteVersion("a", 2_000)]].concat();
        let row = row_of(FamilyDescriptor { versions_min: 1, ..family }, &deleted);
        for left in [&[1_000][..], &[]] {
            assert_eq!(wrong(&row, left, 3), None);
        }
        let deleted = [&deleted[..], &[put(3_500), put(4_000)]].concat();
        let deleted = [&deleted[..], &[ModelWrite::DeleteFamilyVersion(4_000)]].concat();
        let row = row_of(row.family, &deleted);
        assert_eq!(wrong(&row, &[3_500], 3), None);
        assert_eq!(wrong(&row, &[1_000], 3), None);
        assert!(wrong(&row, &[3_500, 1_000], 3).is_some(), "only one of them is seen");
    }

    #[test]
    fn what_a_delete_hides_may_come_back_only_while_clocks_disagree_on_its_end() {
        let family = FamilyDescriptor { time_to_live_s: Some(3), ..family() };
        let row = row_of(family, &[put(7_000), ModelWrite::DeleteColumn("a", 7_001)]);
        let read = ModelRead { versions: 3, range: ALWAYS, raw: false };
        for (earliest_ms, latest_ms, may_be_seen) in
            [(9_900, 10_000, false), (9_900, 10_100, true), (10_001, 10_100, false)]
        {
            let clock = ClockSpan { earliest_ms, latest_ms };
            assert_eq!(row.compare(&read, clock, &[]), None);
            assert_eq!(row.compare(&read, clock, &found(&[7_000])).is_none(), may_be_seen);
        }
    }

    #[test]
    fn deleted_cells_that_are_kept_are_seen_by_reads_of_before_and_by_raw_ones() {
        let family = FamilyDescriptor { keep_deleted_cells: KeepDeletedCells::True, ..family() };
        let row = row_of(family, &[put(1), put(3), ModelWrite::DeleteColumn("a", 2), put(2)]);
        let wrong = |range, raw, cells: &[Cell]| {
            row.compare(&ModelRead { versions: 9, range, raw }, NOW, cells)
        };
        assert_eq!(wrong(ALWAYS, false, &found(&[3])), None);
        assert!(wrong(ALWAYS, false, &found(&[3, 2])).is_some());
        assert_eq!(wrong((0, 2), false, &found(&[1])), None);
        assert!(wrong((0, 2), false, &[]).is_some(), "the delete at 2 is not of that time");
        let mut all = found(&[3, 2, 1]);
        all.insert(1, mark("a", 2, CellType::DeleteColumn));
        assert_eq!(wrong(ALWAYS, true, &all), None);
        assert!(wrong(ALWAYS, true, &found(&[3, 2, 1])).is_some());
        all.remove(3);
        assert!(wrong(ALWAYS, true, &all).is_some());
    }
}
