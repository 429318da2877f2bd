//! A client that writes versions with its own timestamps and deletes them in each of the four ways,
//! in rows that no other client writes. It compares its reads with a model.
//!
//! Where a family keeps deleted cells, the client also writes below deletes and over other
//! versions, and makes raw reads and reads by time range. Where cells have a time to live, it gives
//! them timestamps so old that they expire soon.

use std::ops::Range;
use std::time::Duration;

use basalt_client::{Columns, Delete, Get, Outcome, Put, RowResult, Scan, Table, TimeRange};
use basalt_model::{FamilyDescriptor, KeepDeletedCells};
use basalt_reference::ModelRead;
use basalt_runtime::{Clock, Random};
use bytes::Bytes;

use super::{ATTEMPT_TIMEOUT, Workload};
use crate::invariants::{ClockSpan, DELETES_AND_VERSIONS, ModelRow, ModelWrite, Violation};

/// The pause after an attempt that failed.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);
/// The number of rows that are written to in turn, and the maximum number of writes to each.
const ROWS: usize = 8;
const WRITES_MAX: u32 = 60;
/// The columns.
const COLUMNS: [&str; 2] = ["a", "b"];
/// How long a cell with a time to live remains visible after it was written.
const LEFT_MS: Range<u64> = 0..2_500;
/// The maximum number of versions that a request can ask for.
const ALL_VERSIONS: u32 = i32::MAX as u32;

/// The client; see the module.
pub(super) struct Writer<'a> {
    workload: &'a Workload,
    table: Table,
    clock: Clock,
    random: Random,
    /// The families that are written to in turn.
    families: Vec<FamilyDescriptor>,
    pace_ms: Range<u64>,
    /// The number of rows so far.
    rows: u64,
    /// Makes each value unique.
    values: u64,
}

/// A row in use. Its key is the region's number followed by the name of the family, so that it
/// sorts after the rows of other writers.
struct Row {
    key: Bytes,
    model: ModelRow,
    writes: u32,
    /// An attempt of the last write may still take effect, so there are no further writes.
    is_closed: bool,
}

// === impl Row ===

impl Row {
    fn family(&self) -> &[u8] {
        self.model.family().name.as_bytes()
    }

    fn keeps_deleted(&self) -> bool {
        self.model.family().keep_deleted_cells != KeepDeletedCells::False
    }
}

// === impl Writer ===

impl<'a> Writer<'a> {
    pub(super) fn new(
        workload: &'a Workload,
        table: Table,
        clock: Clock,
        random: Random,
        families: Vec<FamilyDescriptor>,
        pace_ms: Range<u64>,
    ) -> Self {
        Self { workload, table, clock, random, families, pace_ms, rows: 0, values: 0 }
    }

    /// Writes and reads until the load is over.
    pub(super) async fn write_until_over(mut self) {
        let mut rows: Vec<Row> = (0..ROWS).filter_map(|_| self.new_row()).collect();
        while !self.workload.is_over() {
            let place = self.random.in_range(0..ROWS as u64) as usize;
            let Some(row) = rows.get_mut(place) else { continue };
            if row.is_closed || row.writes >= WRITES_MAX {
                // A later read also shows whether a compaction or a recovery has changed the row.
                self.read(row).await;
                let Some(next) = self.new_row() else { return };
                *row = next;
            } else if self.random.in_range(0..3) == 0 {
                self.read(row).await;
            } else if !self.write(row).await {
                return;
            }
            let pace = Duration::from_millis(self.random.in_range(self.pace_ms.clone()));
            tokio::time::sleep(pace).await;
        }
        for row in &rows {
            self.read(row).await;
        }
    }

    /// Begins a row of the next family.
    fn new_row(&mut self) -> Option<Row> {
        let place = self.rows as usize % self.families.len().max(1);
        let family = self.families.get(place)?.clone();
        self.rows += 1;
        let region = self.random.in_range(0..u64::from(self.workload.config.regions));
        let key = format!("{region:02}-{}-{:04}", family.name, self.rows);
        let model = ModelRow::new(key.clone(), family);
        Some(Row { key: key.into(), model, writes: 0, is_closed: false })
    }

    /// Chooses the next write. A put has a higher timestamp than everything before it, unless
    /// deleted cells are kept. A delete applies to existing cells.
    fn choose(&mut self, row: &Row) -> ModelWrite {
        let column = COLUMNS[self.random.in_range(0..COLUMNS.len() as u64) as usize];
        let near = self.near(row);
        match self.random.in_range(0..10) {
            0 => ModelWrite::DeleteVersion(column, near),
            1 => ModelWrite::DeleteColumn(column, near),
            2 => ModelWrite::DeleteFamilyVersion(near),
            3 => ModelWrite::DeleteFamily(near),
            _ => {
                self.values += 1;
                let value = Bytes::from(format!("{}", self.values));
                ModelWrite::Put(column, self.timestamp(row, near), value)
            }
        }
    }

    /// The timestamp of one of the last writes, or one next to it.
    fn near(&self, row: &Row) -> i64 {
        let recent = row.model.recent(self.random.in_range(0..4) as usize);
        let beside = recent + self.random.in_range(0..3) as i64 - 1;
        // Negative timestamps are rejected.
        beside.min(row.model.newest()).max(1)
    }

    fn timestamp(&self, row: &Row, near: i64) -> i64 {
        if row.keeps_deleted() && self.random.in_range(0..10) < 3 {
            return near;
        }
        let next = row.model.newest() + 1 + i64::from(self.random.in_range(0..3) == 0);
        match row.model.family().time_to_live_s {
            None => next,
            Some(seconds) => {
                let oldest_ms = self.clock.wall_ms() - u64::from(seconds) * 1_000;
                next.max((oldest_ms + self.random.in_range(LEFT_MS)) as i64)
            }
        }
    }

    /// Makes one write, in as many attempts as necessary. Returns whether it was acknowledged.
    async fn write(&mut self, row: &mut Row) -> bool {
        let write = self.choose(row);
        row.writes += 1;
        loop {
            let outcome = self.attempt(row, &write).await;
            if outcome.is_acked() {
                break;
            }
            row.is_closed = true;
            if self.workload.is_late() {
                let seen = format!("{write:?} was never acknowledged: {outcome:?}");
                self.workload.report(Violation::new(DELETES_AND_VERSIONS, seen));
                return false;
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
        row.model.apply(&write);
        self.workload.count(kind_of(&write));
        true
    }

    async fn attempt(&self, row: &Row, write: &ModelWrite) -> Outcome<()> {
        let (key, family) = (row.key.clone(), row.family());
        let delete = Delete::new(key.clone());
        let delete = match write {
            ModelWrite::Put(column, timestamp, value) => {
                let put = Put::new(key).column_at(family, column.as_bytes(), *timestamp, value);
                return self.table.try_put(&put, ATTEMPT_TIMEOUT).await;
            }
            ModelWrite::DeleteVersion(column, timestamp) => {
                delete.version(family, column.as_bytes(), *timestamp)
            }
            ModelWrite::DeleteColumn(column, until) => {
                delete.column_until(family, column.as_bytes(), *until)
            }
            ModelWrite::DeleteFamilyVersion(timestamp) => delete.family_version(family, *timestamp),
            ModelWrite::DeleteFamily(until) => delete.family_until(family, *until),
        };
        self.table.try_delete(&delete, ATTEMPT_TIMEOUT).await
    }

    /// Reads a row with a get or a scan, forward or reversed, and compares it with its model. A
    /// failed read proves nothing at this point.
    async fn read(&self, row: &Row) {
        let read = self.choose_read(row);
        let way = self.random.in_range(0..3);
        let began_ms = self.clock.wall_ms();
        // A get cannot be raw.
        let found = match way {
            0 if !read.raw => self.get(row, &read).await,
            way => self.scan(row, &read, way == 1).await,
        };
        let Some(found) = found else { return };
        let clock = self.workload.config.wall_clocks.span(began_ms, self.clock.wall_ms());
        self.workload.seen.lock().versions_read += 1;
        self.count(row, &read, clock);
        if let Some(wrong) = row.model.compare(&read, clock, &found.cells) {
            let name = String::from_utf8_lossy(&row.key);
            let seen = format!("row {name}, {read:?}: {wrong}; written {:?}", row.model);
            self.workload.report(Violation::new(DELETES_AND_VERSIONS, seen));
        }
    }

    fn choose_read(&self, row: &Row) -> ModelRead {
        let raw = row.keeps_deleted() && self.random.in_range(0..4) == 0;
        let range = if self.random.in_range(0..3) == 0 {
            let (one, other) = (self.near(row), self.near(row));
            let from = if self.random.in_range(0..2) == 0 { 0 } else { one.min(other) };
            (from, one.max(other) + 1)
        } else {
            (0, i64::MAX)
        };
        let few = 1 + self.random.in_range(0..4) as u32;
        ModelRead { versions: if raw { ALL_VERSIONS } else { few }, range, raw }
    }

    fn count(&self, row: &Row, read: &ModelRead, clock: ClockSpan) {
        if read.raw {
            self.workload.count("read-raw");
        }
        if read.range.1 != i64::MAX {
            self.workload.count("read-time-range");
        }
        if row.model.has_expired(clock) {
            self.workload.count("read-of-expired");
        }
    }

    async fn get(&self, row: &Row, read: &ModelRead) -> Option<RowResult> {
        let get = Get::new(row.key.clone()).family(row.family());
        let (versions_max, time_range) = (read.versions, time_range(read));
        let get = Get { versions_max, time_range, ..get };
        match self.table.try_get(&get, ATTEMPT_TIMEOUT).await {
            Outcome::Acked(found) => Some(found),
            Outcome::Failed(_) | Outcome::Unknown(_) => None,
        }
    }

    async fn scan(&self, row: &Row, read: &ModelRead, reversed: bool) -> Option<RowResult> {
        let mut columns = Columns::default();
        columns.add_family(row.family());
        let (start, stop) = (row.key.clone(), row.key.clone());
        let range = Scan { include_stop: true, columns, ..Scan::range(start, stop) };
        let (versions_max, time_range, raw) = (read.versions, time_range(read), read.raw);
        let mut scanner =
            self.table.scan(Scan { reversed, versions_max, time_range, raw, ..range });
        let rows = tokio::time::timeout(ATTEMPT_TIMEOUT, scanner.rows()).await.ok()?.ok()?;
        Some(rows.into_iter().next().unwrap_or_default())
    }
}

/// The time range of a read, if it has one.
fn time_range(read: &ModelRead) -> Option<TimeRange> {
    let (from, to) = read.range;
    let unsigned = |ms: i64| u64::try_from(ms).unwrap_or_default();
    (to != i64::MAX).then(|| TimeRange { from: unsigned(from), to: unsigned(to) })
}

fn kind_of(write: &ModelWrite) -> &'static str {
    match write {
        ModelWrite::Put(..) => "put-with-timestamp",
        ModelWrite::DeleteVersion(..) => "delete-version",
        ModelWrite::DeleteColumn(..) => "delete-column",
        ModelWrite::DeleteFamilyVersion(..) => "delete-family-version",
        ModelWrite::DeleteFamily(..) => "delete-family",
    }
}
