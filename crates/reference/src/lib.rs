//! A reference model of HBase's rules for versions, deletes and times to live, in the simplest
//! form: over unordered sets of cells. It shares no code with the code that it checks. It is
//! compared with the random histories of a region (`regionserver/src/region/tests/model`), which
//! know every flush and every compaction, and with the simulation
//! (`sim/src/invariants/versions.rs`), which knows none of them.
//!
//! In two places Apache HBase 2.6.4 contradicts itself, and the model follows one side:
//! - A minor compaction keeps the deletes below surplus versions. (HBase loses them.)
//! - `MIN_VERSIONS` applies equally to reads of all columns and of some columns. (HBase shows one
//!   more expired version in the latter.)

use std::collections::{BTreeMap, BTreeSet};

use basalt_model::{Cell, CellType, FamilyDescriptor, KeepDeletedCells};

/// One cell of a family.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ModelCell {
    /// The row's key.
    pub row: String,
    /// The column, without its family; empty if a whole family is deleted.
    pub qualifier: String,
    /// Its timestamp.
    pub timestamp: i64,
    /// A put, or one of the kinds of deletes.
    pub kind: CellType,
    /// The number of the edit; later edits have higher numbers.
    pub edit: u64,
    /// The value; empty for deletes.
    pub value: Vec<u8>,
}

/// The parameters of a read.
#[derive(Clone, Debug)]
pub struct ModelRead {
    /// The maximum number of versions per column.
    pub versions: u32,
    /// The timestamps to read: from the first, included, to the last, excluded.
    pub range: (i64, i64),
    /// Whether deletes are returned and hide nothing.
    pub raw: bool,
}

/// A family: its cells in memory, and its files.
#[derive(Clone, Debug, Default)]
pub struct ModelFamily {
    /// The cells that are in no file yet.
    pub memory: Vec<ModelCell>,
    /// The cells of each file, the oldest file first.
    pub files: Vec<Vec<ModelCell>>,
}

/// The rules of a family at a given time.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The descriptor of the family.
    pub family: &'a FamilyDescriptor,
    /// The current time, in milliseconds.
    pub now: i64,
}

// === impl ModelCell ===

impl ModelCell {
    /// Whether it sets a value.
    pub fn is_put(&self) -> bool {
        self.kind == CellType::Put
    }

    /// Whether this delete hides `put`.
    pub fn hides(&self, put: &Self) -> bool {
        let same_column = self.qualifier == put.qualifier;
        self.row == put.row
            && match self.kind {
                CellType::DeleteFamily => self.timestamp >= put.timestamp,
                CellType::DeleteFamilyVersion => self.timestamp == put.timestamp,
                CellType::DeleteColumn => same_column && self.timestamp >= put.timestamp,
                CellType::Delete => same_column && self.timestamp == put.timestamp,
                _ => false,
            }
    }

    /// Identifies the cell, except among several writes of the same cell.
    fn key(&self) -> (&str, &str, i64, CellType) {
        (&self.row, &self.qualifier, self.timestamp, self.kind)
    }

    /// Whether it equals `cell`, in a family of this name.
    pub fn is(&self, family: &str, cell: &Cell) -> bool {
        let key = cell.key();
        let (row, qualifier) = (self.row.as_bytes(), self.qualifier.as_bytes());
        (row, family.as_bytes(), qualifier) == (key.row, key.family, key.qualifier)
            && (self.timestamp, self.kind) == (key.timestamp, cell.cell_type())
            && (!self.is_put() || self.value == cell.value())
    }
}

// === impl ModelFamily ===

impl ModelFamily {
    /// All cells, in memory and in files.
    pub fn all(&self) -> Vec<ModelCell> {
        self.files.iter().flatten().chain(&self.memory).cloned().collect()
    }

    /// Writes the cells in memory to a file.
    pub fn flush(&mut self, rules: Rules<'_>) {
        let kept = rules.compact(&std::mem::take(&mut self.memory), false);
        if !kept.is_empty() {
            self.files.push(kept);
        }
    }

    /// Merges the files from `first` up to, but not including, `end`.
    pub fn compact(&mut self, rules: Rules<'_>, first: usize, end: usize) {
        let all = first == 0 && end == self.files.len();
        let merged: Vec<ModelCell> = self.files.drain(first..end).flatten().collect();
        let kept = rules.compact(&merged, all);
        if !kept.is_empty() {
            self.files.insert(first, kept);
        }
    }
}

// === impl Rules ===

impl Rules<'_> {
    /// Whether the time to live of a cell is over.
    pub fn is_expired(&self, cell: &ModelCell) -> bool {
        let lived = self.family.time_to_live_s.map(|seconds| i64::from(seconds) * 1000);
        lived.is_some_and(|lived| cell.timestamp < self.now.saturating_sub(lived))
    }

    /// Whether a cell is expired, in a family that keeps no expired cells.
    pub fn is_gone(&self, cell: &ModelCell) -> bool {
        self.family.versions_min == 0 && self.is_expired(cell)
    }

    /// Selects the newest versions of each column, as many as are kept. Of several puts with the
    /// same timestamp, only the last one counts.
    fn versions(&self, puts: Vec<&ModelCell>, versions_max: u32) -> Vec<ModelCell> {
        let mut columns: BTreeMap<(&str, &str), BTreeMap<i64, &ModelCell>> = BTreeMap::new();
        for put in puts {
            let column = columns.entry((&put.row, &put.qualifier)).or_default();
            let version = column.entry(put.timestamp).or_insert(put);
            if version.edit < put.edit {
                *version = put;
            }
        }
        let mut kept = Vec::new();
        for versions in columns.into_values() {
            for (rank, put) in (0..).zip(versions.into_values().rev()) {
                let in_time = !self.is_expired(put) || rank < self.family.versions_min;
                if rank < versions_max && in_time {
                    kept.push(put.clone());
                }
            }
        }
        kept
    }

    /// The deletes among `cells`. Of several writes of the same delete, only the last one.
    fn marks<'c>(cells: impl Iterator<Item = &'c ModelCell>) -> Vec<ModelCell> {
        let mut marks: BTreeMap<(&str, &str, i64, CellType), &ModelCell> = BTreeMap::new();
        for mark in cells.filter(|cell| !cell.is_put()) {
            let last = marks.entry(mark.key()).or_insert(mark);
            if last.edit < mark.edit {
                *last = mark;
            }
        }
        marks.into_values().cloned().collect()
    }

    /// The cells that a read of `cells` returns.
    pub fn read(&self, cells: &[ModelCell], read: &ModelRead) -> Vec<ModelCell> {
        let (from, to) = read.range;
        let inside = |cell: &&ModelCell| cell.timestamp >= from && cell.timestamp < to;
        let living = || cells.iter().filter(|cell| !self.is_gone(cell));
        if read.raw {
            let puts = living().filter(|cell| cell.is_put()).filter(inside).collect();
            let mut seen = self.versions(puts, read.versions);
            let marks = Self::marks(living().filter(inside));
            let is_seen = |mark: &ModelCell| self.is_mark_seen(mark, &seen, cells, read);
            let marks: Vec<_> = marks.into_iter().filter(is_seen).collect();
            seen.extend(marks);
            return seen;
        }
        let counts = |mark: &&ModelCell| match self.family.keep_deleted_cells {
            KeepDeletedCells::False => mark.timestamp >= from,
            _ => mark.timestamp >= from && mark.timestamp < to,
        };
        let marks: Vec<_> = living().filter(|cell| !cell.is_put()).filter(counts).collect();
        let is_hidden = |put: &&ModelCell| marks.iter().any(|mark| mark.hides(put));
        let puts = living().filter(|cell| cell.is_put() && !is_hidden(cell)).filter(inside);
        self.versions(puts.collect(), read.versions.min(self.family.versions_max))
    }

    /// Whether a raw read returns the delete `mark`. The read ends a column at the first surplus
    /// version. It returns an expired delete only if at most `versions_min` of the returned
    /// versions are newer.
    fn is_mark_seen(
        &self,
        mark: &ModelCell,
        seen: &[ModelCell],
        cells: &[ModelCell],
        read: &ModelRead,
    ) -> bool {
        let of_family = matches!(mark.kind, CellType::DeleteFamily | CellType::DeleteFamilyVersion);
        let before = |put: &&ModelCell| {
            put.is_put()
                && (&put.row, &put.qualifier) == (&mark.row, &mark.qualifier)
                && put.timestamp > mark.timestamp
                && put.timestamp < read.range.1
        };
        let counted = seen.iter().filter(before).count() as u32;
        let versions: BTreeSet<i64> = cells
            .iter()
            .filter(|cell| !self.is_gone(cell))
            .filter(before)
            .map(|put| put.timestamp)
            .collect();
        let ended = versions.len() as u32 > counted && !mark.qualifier.is_empty();
        let counted = if of_family { 0 } else { counted };
        !ended && (!self.is_expired(mark) || counted <= self.family.versions_min)
    }

    /// The cells that a flush or a compaction keeps. A compaction of `all` files leaves no deletes
    /// to apply.
    fn compact(&self, cells: &[ModelCell], all: bool) -> Vec<ModelCell> {
        let living = || cells.iter().filter(|cell| !self.is_gone(cell));
        let keep = self.family.keep_deleted_cells;
        let counts = |mark: &&ModelCell| match keep {
            KeepDeletedCells::False => true,
            KeepDeletedCells::True => false,
            KeepDeletedCells::Ttl => self.is_expired(mark),
        };
        let marks: Vec<_> = living().filter(|cell| !cell.is_put()).filter(counts).collect();
        let is_hidden = |put: &&ModelCell| marks.iter().any(|mark| mark.hides(put));
        let puts = living().filter(|cell| cell.is_put() && !is_hidden(cell));
        let mut kept = self.versions(puts.collect(), self.family.versions_max);
        let stays = |mark: &ModelCell| match (all, keep) {
            (false, _) => true,
            (true, KeepDeletedCells::False) => false,
            (true, KeepDeletedCells::Ttl) => !self.is_expired(mark),
            (true, KeepDeletedCells::True) => {
                let of_family =
                    matches!(mark.kind, CellType::DeleteFamily | CellType::DeleteFamilyVersion);
                let counted = kept.iter().filter(|put| {
                    (&put.row, &put.qualifier) == (&mark.row, &mark.qualifier)
                        && put.timestamp > mark.timestamp
                });
                let counted = if of_family { 0 } else { counted.count() as u32 };
                !self.is_expired(mark) || counted <= self.family.versions_min
            }
        };
        let marks: Vec<_> = Self::marks(living()).into_iter().filter(|mark| stays(mark)).collect();
        kept.extend(marks);
        kept
    }

    /// The earliest time, not before `now`, at which a put to any of `columns` (`None` means all
    /// columns) is visible and no visible put is newer.
    pub fn latest(&self, cells: &[ModelCell], row: &str, columns: &[Option<String>]) -> i64 {
        let everything = ModelRead { versions: u32::MAX, range: (0, i64::MAX), raw: false };
        let is_meant = |qualifier: &str| {
            columns.iter().any(|column| column.as_deref().is_none_or(|name| name == qualifier))
        };
        let seen = self.read(cells, &everything);
        let seen: Vec<_> =
            seen.iter().filter(|put| put.row == row && is_meant(&put.qualifier)).collect();
        let later = cells.iter().flat_map(|cell| [cell.timestamp, cell.timestamp + 1]);
        let mut candidates: Vec<i64> = later.filter(|at| *at > self.now).collect();
        candidates.push(self.now);
        candidates.extend(candidates.clone().iter().map(|at| at + 1));
        candidates.sort_unstable();
        let fits = |at: &i64| {
            let is_hidden = cells.iter().any(|mark| {
                let of_family =
                    matches!(mark.kind, CellType::DeleteFamily | CellType::DeleteFamilyVersion);
                let qualifier = mark.qualifier.clone();
                let put = ModelCell { kind: CellType::Put, timestamp: *at, ..mark.clone() };
                mark.row == row && (of_family || is_meant(&qualifier)) && mark.hides(&put)
            });
            !is_hidden && seen.iter().all(|put| put.timestamp <= *at)
        };
        candidates.into_iter().find(fits).unwrap_or(self.now)
    }
}
