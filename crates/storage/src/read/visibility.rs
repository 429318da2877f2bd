//! Which cells of a row and family a read sees, or a compaction keeps.
//!
//! Cells arrive in their order (see [`basalt_model::Cell`]); for each there is one [`Decision`].
//! The rules are HBase's. A delete hides puts by timestamp, whichever was written first. Of several
//! cells with the same key, the newest edit counts. Versions beyond the family's limit do not exist
//! for a read, whether or not a compaction has removed them.

use std::collections::BTreeSet;

use basalt_model::{CellKey, CellType, FamilyDescriptor, KeepDeletedCells};
use basalt_planted::{Rule, is_off};
use bytes::Bytes;

/// Timestamps from `from` (included) to `to` (excluded), in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimeRange {
    /// The first timestamp in the range.
    pub from: i64,
    /// The first timestamp after the range.
    pub to: i64,
}

/// The requested columns of a family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Columns {
    /// All columns.
    All,
    /// The columns with these qualifiers.
    Some(BTreeSet<Bytes>),
}

/// The rules by which a read or a compaction selects cells of one family.
#[derive(Clone, Debug)]
pub struct ReadRules {
    /// The columns.
    pub columns: Columns,
    /// The maximum number of versions of a column.
    pub versions_max: u32,
    /// How many versions are visible even after their time to live is over.
    pub versions_min: u32,
    /// Cells with a lower timestamp have outlived their time to live.
    pub expired_below: i64,
    /// Only cells with a timestamp in this range are included.
    pub time_range: TimeRange,
    /// How delete markers are treated.
    pub deletes: Deletes,
    /// Whether cells older than a delete stay visible to reads of a time range before it.
    pub keep_deleted: KeepDeletedCells,
}

/// How delete markers are treated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deletes {
    /// They hide cells and are not returned: a read.
    Apply,
    /// They hide cells and are kept, because they may hide cells in other files: a flush, or a
    /// compaction of some files.
    ApplyAndKeep,
    /// They hide cells and are dropped, unless the family keeps deleted cells: a compaction of all
    /// files.
    Purge,
    /// They are returned like other cells and hide nothing: a raw scan.
    ShowAll,
}

/// The decision on a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Include it.
    Include,
    /// Skip it.
    Skip,
    /// Skip it and the rest of its column.
    SkipColumn,
    /// Skip it and the rest of its row in this family.
    SkipRow,
}

/// Decides which cells are visible, one row of one family at a time.
#[derive(Debug)]
pub struct Visibility {
    rules: ReadRules,
    family_deleted_to: Option<i64>,
    family_versions_deleted: BTreeSet<i64>,
    /// The qualifier that `column` belongs to.
    qualifier: Vec<u8>,
    column: Option<ColumnState>,
}

#[derive(Debug)]
struct ColumnState {
    wanted: bool,
    deleted_to: Option<i64>,
    version_deleted: Option<i64>,
    last_put: Option<i64>,
    last_mark: Option<(i64, CellType)>,
    versions: u32,
}

// === impl TimeRange ===

impl TimeRange {
    /// All timestamps from 0 on.
    pub const ALL: Self = Self { from: 0, to: i64::MAX };

    /// Whether `timestamp` is in the range. The largest timestamp is in [`TimeRange::ALL`].
    pub fn contains(&self, timestamp: i64) -> bool {
        timestamp >= self.from && (timestamp < self.to || self.to == i64::MAX)
    }

    /// Whether a file with timestamps from `lowest` to `highest` may have any in the range.
    pub fn overlaps(&self, lowest: i64, highest: i64) -> bool {
        highest >= self.from && (lowest < self.to || self.to == i64::MAX)
    }
}

// === impl Columns ===

impl Columns {
    fn contains(&self, qualifier: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Some(qualifiers) => qualifiers.contains(qualifier),
        }
    }

    fn is_past_last(&self, qualifier: &[u8]) -> bool {
        match self {
            Self::All => false,
            Self::Some(qualifiers) => qualifiers.last().is_none_or(|last| qualifier > &last[..]),
        }
    }
}

// === impl ReadRules ===

impl ReadRules {
    /// The rules of a read of `columns` as of `now_ms`.
    pub fn read(
        family: &FamilyDescriptor,
        columns: Columns,
        versions: u32,
        time_range: TimeRange,
        now_ms: u64,
    ) -> Self {
        Self {
            columns,
            versions_max: versions.min(family.versions_max).max(1),
            versions_min: family.versions_min,
            expired_below: unseen_below(family, now_ms),
            time_range,
            deletes: Deletes::Apply,
            keep_deleted: family.keep_deleted_cells,
        }
    }

    /// The rules of a raw read: everything that has not outlived its time to live, deleted or not.
    pub fn raw(
        family: &FamilyDescriptor,
        columns: Columns,
        versions: u32,
        time_range: TimeRange,
        now_ms: u64,
    ) -> Self {
        Self {
            columns,
            versions_max: versions.max(1),
            versions_min: family.versions_min,
            expired_below: unseen_below(family, now_ms),
            time_range,
            deletes: Deletes::ShowAll,
            keep_deleted: family.keep_deleted_cells,
        }
    }

    /// The rules of a flush or a compaction. `all_files`: the input has all cells of the family, so
    /// that deletes have nothing left to hide elsewhere.
    pub fn compaction(family: &FamilyDescriptor, all_files: bool, now_ms: u64) -> Self {
        let keep_deleted = match family.keep_deleted_cells {
            _ if is_off(Rule::KeepDeletedCells) => KeepDeletedCells::False,
            declared => declared,
        };
        Self {
            columns: Columns::All,
            versions_max: family.versions_max,
            versions_min: if is_off(Rule::VersionsMin) { 0 } else { family.versions_min },
            expired_below: expired_below(family, now_ms),
            time_range: TimeRange { from: i64::MIN, to: i64::MAX },
            deletes: if all_files { Deletes::Purge } else { Deletes::ApplyAndKeep },
            keep_deleted,
        }
    }
}

// === impl Visibility ===

impl Visibility {
    /// Decides by `rules`.
    pub fn new(rules: ReadRules) -> Self {
        Self {
            rules,
            family_deleted_to: None,
            family_versions_deleted: BTreeSet::new(),
            qualifier: Vec::new(),
            column: None,
        }
    }

    /// Begins a new row and drops the state of the previous one.
    pub fn begin_row(&mut self) {
        self.family_deleted_to = None;
        self.family_versions_deleted.clear();
        self.column = None;
    }

    /// Decides on the row's next cell, by its key.
    pub fn decide(&mut self, key: &CellKey<'_>) -> Decision {
        match self.decide_cell(key) {
            // Deletes of the whole family are among the cells of the column without a name. Those
            // that follow must still be seen.
            Decision::SkipColumn if key.qualifier.is_empty() => Decision::Skip,
            decision => decision,
        }
    }

    fn decide_cell(&mut self, key: &CellKey<'_>) -> Decision {
        let cell_type = key.cell_type();
        if self.column.is_none() || self.qualifier != key.qualifier {
            self.begin_column(key.qualifier);
        }
        let rules = &self.rules;
        // Cells that a delete hides have outlived their time to live together with it.
        if rules.versions_min == 0 && rules.is_expired(key.timestamp) {
            return Decision::SkipColumn;
        }
        if matches!(cell_type, CellType::DeleteFamily | CellType::DeleteFamilyVersion) {
            return self.decide_family_delete(key.timestamp, cell_type);
        }
        let Some(column) = self.column.as_mut() else { return Decision::Skip };
        if !column.wanted {
            let past_last = rules.columns.is_past_last(key.qualifier);
            return if past_last { Decision::SkipRow } else { Decision::SkipColumn };
        }
        if cell_type.is_delete() {
            return column.decide_delete(rules, key.timestamp, cell_type);
        }
        if self.is_deleted(key.timestamp) {
            return Decision::Skip;
        }
        let Some(column) = self.column.as_mut() else { return Decision::Skip };
        column.decide_version(&self.rules, key.timestamp)
    }

    fn begin_column(&mut self, qualifier: &[u8]) {
        self.qualifier.clear();
        self.qualifier.extend_from_slice(qualifier);
        self.column = Some(ColumnState {
            wanted: self.rules.columns.contains(qualifier),
            deleted_to: None,
            version_deleted: None,
            last_put: None,
            last_mark: None,
            versions: 0,
        });
    }

    fn decide_family_delete(&mut self, timestamp: i64, cell_type: CellType) -> Decision {
        if self.rules.hides(timestamp) {
            if cell_type == CellType::DeleteFamily {
                self.family_deleted_to = self.family_deleted_to.max(Some(timestamp));
            } else {
                self.family_versions_deleted.insert(timestamp);
            }
        }
        let again =
            self.column.as_mut().is_some_and(|column| column.is_repeated(timestamp, cell_type));
        if again { Decision::Skip } else { self.rules.keep_mark(timestamp, 0) }
    }

    fn is_deleted(&self, timestamp: i64) -> bool {
        let column = self.column.as_ref();
        let deleted_to = column.and_then(|c| c.deleted_to).max(self.family_deleted_to);
        deleted_to.is_some_and(|to| timestamp <= to)
            || column.and_then(|c| c.version_deleted) == Some(timestamp)
            || self.family_versions_deleted.contains(&timestamp)
    }
}

impl ReadRules {
    fn is_expired(&self, timestamp: i64) -> bool {
        timestamp < self.expired_below
    }

    /// Whether a delete mark at `timestamp` hides cells.
    fn hides(&self, timestamp: i64) -> bool {
        match (self.deletes, self.keep_deleted) {
            (Deletes::ShowAll, _) => false,
            (Deletes::Apply, KeepDeletedCells::False) => timestamp >= self.time_range.from,
            (Deletes::Apply, _) => self.time_range.contains(timestamp),
            (_, KeepDeletedCells::False) => true,
            (_, KeepDeletedCells::True) => false,
            // The cells that it hid are kept only for their time to live.
            (_, KeepDeletedCells::Ttl) => self.is_expired(timestamp),
        }
    }

    /// The decision on a delete marker at `timestamp` that follows `versions` puts of its column.
    fn keep_mark(&self, timestamp: i64, versions: u32) -> Decision {
        let lives = versions <= self.versions_min || !self.is_expired(timestamp);
        let keeps = match (self.deletes, self.keep_deleted) {
            (Deletes::Apply, _) | (Deletes::Purge, KeepDeletedCells::False) => false,
            (Deletes::ApplyAndKeep, _) => true,
            (Deletes::Purge, KeepDeletedCells::Ttl) => !self.is_expired(timestamp),
            (Deletes::Purge, KeepDeletedCells::True) => lives,
            (Deletes::ShowAll, _) => lives && self.time_range.contains(timestamp),
        };
        if keeps { Decision::Include } else { Decision::Skip }
    }
}

// === impl ColumnState ===

impl ColumnState {
    fn decide_delete(
        &mut self,
        rules: &ReadRules,
        timestamp: i64,
        cell_type: CellType,
    ) -> Decision {
        if rules.hides(timestamp) {
            if cell_type == CellType::DeleteColumn {
                self.deleted_to = self.deleted_to.max(Some(timestamp));
            } else {
                self.version_deleted = Some(timestamp);
            }
        }
        if self.is_repeated(timestamp, cell_type) {
            return Decision::Skip;
        }
        rules.keep_mark(timestamp, self.versions)
    }

    /// Whether the previous marker was the same, from a later edit.
    fn is_repeated(&mut self, timestamp: i64, cell_type: CellType) -> bool {
        let mark = Some((timestamp, cell_type));
        std::mem::replace(&mut self.last_mark, mark) == mark
    }

    fn decide_version(&mut self, rules: &ReadRules, timestamp: i64) -> Decision {
        // An older edit of the same version: the newer edit, seen just before, counts.
        if self.last_put.replace(timestamp) == Some(timestamp) {
            return Decision::Skip;
        }
        if timestamp < rules.time_range.from {
            return Decision::SkipColumn;
        }
        if !rules.time_range.contains(timestamp) {
            return Decision::Skip;
        }
        let expired = rules.is_expired(timestamp);
        if self.versions >= rules.versions_max || (expired && self.versions >= rules.versions_min) {
            // A compaction must still see the delete markers that follow. Further puts of the
            // column are not wanted in either case, as they are older.
            return match rules.deletes {
                Deletes::Apply | Deletes::ShowAll => Decision::SkipColumn,
                Deletes::ApplyAndKeep | Deletes::Purge => Decision::Skip,
            };
        }
        self.versions += 1;
        Decision::Include
    }
}

/// Like [`expired_below`], for a read.
fn unseen_below(family: &FamilyDescriptor, now_ms: u64) -> i64 {
    if is_off(Rule::TimeToLive) { i64::MIN } else { expired_below(family, now_ms) }
}

fn expired_below(family: &FamilyDescriptor, now_ms: u64) -> i64 {
    match family.time_to_live_s {
        None => i64::MIN,
        Some(seconds) => {
            let lived_ms = u64::from(seconds) * 1000;
            i64::try_from(now_ms.saturating_sub(lived_ms)).unwrap_or(i64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::{Cell, CellBuilder};

    fn cell(qualifier: &str, timestamp: i64, cell_type: CellType) -> Cell {
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

    fn put(qualifier: &str, timestamp: i64) -> Cell {
        cell(qualifier, timestamp, CellType::Put)
    }

    fn family(versions_max: u32) -> FamilyDescriptor {
        FamilyDescriptor { versions_max, ..FamilyDescriptor::new("f") }
    }

    /// The qualifiers and timestamps of the included cells.
    fn taken(rules: ReadRules, mut cells: Vec<Cell>) -> Vec<(String, i64)> {
        cells.sort();
        let mut visibility = Visibility::new(rules);
        visibility.begin_row();
        let taken = cells.iter().filter(|cell| visibility.decide(&cell.key()) == Decision::Include);
        taken
            .map(|c| (String::from_utf8_lossy(c.qualifier()).into_owned(), c.timestamp()))
            .collect()
    }

    fn read(versions: u32) -> ReadRules {
        ReadRules::read(&family(10), Columns::All, versions, TimeRange::ALL, 1_000_000)
    }

    #[test]
    fn the_newest_versions_are_read() {
        let cells = vec![put("a", 1), put("a", 2), put("a", 3), put("b", 1)];
        let expected = [("a".into(), 3), ("a".into(), 2), ("b".into(), 1)];
        assert_eq!(taken(read(2), cells), expected);
    }

    #[test]
    fn each_kind_of_delete_hides_its_own() {
        let puts = || vec![put("a", 1), put("a", 2), put("a", 3), put("b", 2)];
        let with = |qualifier, kind| {
            let mut cells = puts();
            cells.push(cell(qualifier, 2, kind));
            taken(read(9), cells)
        };
        let (a1, a2, a3, b2) =
            (("a".into(), 1), ("a".into(), 2), ("a".into(), 3), ("b".to_owned(), 2));
        assert_eq!(with("a", CellType::Delete), [a3.clone(), a1.clone(), b2.clone()]);
        assert_eq!(with("a", CellType::DeleteColumn), [a3.clone(), b2]);
        assert_eq!(with("", CellType::DeleteFamilyVersion), [a3.clone(), a1]);
        assert_eq!(with("", CellType::DeleteFamily), [a3]);
        let _unused: (String, i64) = a2;
    }

    #[test]
    fn only_asked_columns_are_read() {
        let columns = Columns::Some([Bytes::from_static(b"b")].into());
        let rules = ReadRules { columns, ..read(1) };
        assert_eq!(taken(rules, vec![put("a", 1), put("b", 1), put("c", 1)]), [("b".into(), 1)]);
    }

    #[test]
    fn a_time_range_selects_versions() {
        let rules = ReadRules { time_range: TimeRange { from: 2, to: 4 }, ..read(9) };
        let cells = (1..6).map(|timestamp| put("a", timestamp)).collect();
        assert_eq!(taken(rules, cells), [("a".into(), 3), ("a".into(), 2)]);
    }

    #[test]
    fn what_outlived_its_time_is_not_read() {
        let family = FamilyDescriptor { time_to_live_s: Some(1), ..family(10) };
        let rules = ReadRules::read(&family, Columns::All, 9, TimeRange::ALL, 10_000);
        assert_eq!(taken(rules, vec![put("a", 8_999), put("a", 9_000)]), [("a".into(), 9_000)]);
    }

    #[test]
    fn a_compaction_of_some_files_keeps_the_marks_and_drops_what_they_hide() {
        let cells = || vec![put("a", 1), put("a", 3), cell("a", 2, CellType::DeleteColumn)];
        let some = ReadRules::compaction(&family(10), false, 0);
        assert_eq!(taken(some, cells()), [("a".into(), 3), ("a".into(), 2)]);
        let all = ReadRules::compaction(&family(10), true, 0);
        assert_eq!(taken(all, cells()), [("a".into(), 3)]);
    }

    #[test]
    fn a_compaction_keeps_the_marks_below_surplus_versions() {
        let cells = vec![put("a", 9), put("a", 8), cell("a", 7, CellType::DeleteColumn)];
        let some = ReadRules::compaction(&family(1), false, 0);
        assert_eq!(taken(some, cells), [("a".into(), 9), ("a".into(), 7)]);
    }

    #[test]
    fn a_raw_read_shows_all() {
        let rules = ReadRules::raw(&family(1), Columns::All, 9, TimeRange::ALL, 0);
        let cells = vec![put("a", 1), cell("a", 2, CellType::DeleteColumn)];
        assert_eq!(taken(rules, cells), [("a".into(), 2), ("a".into(), 1)]);
    }

    #[test]
    fn a_raw_read_shows_nothing_that_outlived_its_time() {
        let family = FamilyDescriptor { time_to_live_s: Some(1), ..family(10) };
        let rules = ReadRules::raw(&family, Columns::All, 9, TimeRange::ALL, 10_000);
        let cells = vec![put("a", 8_999), put("a", 9_000), cell("b", 1, CellType::DeleteColumn)];
        assert_eq!(taken(rules, cells), [("a".into(), 9_000)]);
    }

    #[test]
    fn a_delete_of_the_family_is_seen_behind_cells_of_the_column_without_a_name() {
        let cells = || {
            let mark = cell("", 5, CellType::DeleteFamily);
            vec![put("", 9), put("", 8), mark, put("a", 4), put("a", 6)]
        };
        assert_eq!(taken(read(1), cells()), [(String::new(), 9), ("a".into(), 6)]);
        let columns = Columns::Some([Bytes::from_static(b"a")].into());
        let rules = ReadRules { columns, ..read(9) };
        assert_eq!(taken(rules, cells()), [("a".into(), 6)]);
    }

    #[test]
    fn a_compaction_never_shows_what_a_delete_hides() {
        // Only the newest version is kept beyond its time to live; all of these have outlived it.
        let family = |keep_deleted_cells| FamilyDescriptor {
            time_to_live_s: Some(1),
            versions_min: 1,
            keep_deleted_cells,
            ..family(3)
        };
        let cells = || vec![put("a", 1), cell("a", 2, CellType::DeleteColumn), put("b", 1)];
        let kept = |keep| taken(ReadRules::compaction(&family(keep), true, 10_000), cells());
        assert_eq!(kept(KeepDeletedCells::False), [("b".into(), 1)]);
        assert_eq!(kept(KeepDeletedCells::Ttl), [("b".into(), 1)]);
        let all = [("a".into(), 2), ("a".into(), 1), ("b".into(), 1)];
        assert_eq!(kept(KeepDeletedCells::True), all);
    }

    #[test]
    fn deleted_cells_that_are_kept_count_as_versions() {
        for keep_deleted_cells in [KeepDeletedCells::True, KeepDeletedCells::Ttl] {
            let family = FamilyDescriptor { keep_deleted_cells, ..family(2) };
            let cells =
                vec![put("a", 9), cell("a", 8, CellType::DeleteColumn), put("a", 8), put("a", 7)];
            let rules = ReadRules::compaction(&family, true, 0);
            assert_eq!(taken(rules, cells), [("a".into(), 9), ("a".into(), 8), ("a".into(), 8)]);
        }
    }
}
