//! A client that writes versions with timestamps of its own and deletes them in each of the four
//! ways, to rows that nobody else writes, and compares what it reads with a model.

use std::time::Duration;

use basalt_client::{Columns, Delete, Get, Outcome, Put, RowResult, Scan, Table};
use basalt_runtime::Random;
use bytes::Bytes;

use super::{ATTEMPT_TIMEOUT, Workload};
use crate::invariants::{DELETES_AND_VERSIONS, ModelRow, ModelWrite, VERSIONS_KEPT, Violation};
use crate::plan::FAMILY_VERSIONS;

/// The pause between two operations, and after an attempt that failed.
const PACE_MS: std::ops::Range<u64> = 5..40;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);
/// How many rows are written to in turn, and how many writes each gets.
const ROWS: usize = 8;
const WRITES_MAX: u32 = 60;
/// The columns.
const COLUMNS: [&str; 2] = ["a", "b"];
/// What the rows are called, after the region's number. They are above those of the writers.
const PREFIX: &str = "versions";

/// See the module.
struct Writer<'a> {
    workload: &'a Workload,
    table: Table,
    random: Random,
    /// How many rows there were.
    rows: u64,
    /// Makes each value a different one.
    values: u64,
}

/// A row under way.
struct Row {
    key: Bytes,
    model: ModelRow,
    writes: u32,
    /// An attempt of the last write may still take effect, so nothing else is written.
    is_closed: bool,
}

/// Writes and reads until the load is over.
pub(super) async fn write(workload: &Workload, table: Table, random: Random) {
    let mut writer = Writer { workload, table, random, rows: 0, values: 0 };
    let mut rows: Vec<Row> = (0..ROWS).map(|_| writer.new_row()).collect();
    while !workload.is_over() {
        let place = writer.random.in_range(0..ROWS as u64) as usize;
        let Some(row) = rows.get_mut(place) else { continue };
        if row.is_closed || row.writes >= WRITES_MAX {
            // Whether a compaction or a recovery changes it shows later, too.
            writer.read(row).await;
            *row = writer.new_row();
        } else if writer.random.in_range(0..3) == 0 {
            writer.read(row).await;
        } else if !writer.write(row).await {
            return;
        }
        let pace = Duration::from_millis(writer.random.in_range(PACE_MS));
        tokio::time::sleep(pace).await;
    }
    for row in &rows {
        writer.read(row).await;
    }
}

// === impl Writer ===

impl Writer<'_> {
    fn new_row(&mut self) -> Row {
        self.rows += 1;
        let region = self.random.in_range(0..u64::from(self.workload.config.regions));
        let key = Bytes::from(format!("{region:02}-{PREFIX}-{:04}", self.rows));
        Row { key, model: ModelRow::default(), writes: 0, is_closed: false }
    }

    /// The next write: a put lies above everything before it or is an older version; a deletion
    /// is of what is there.
    fn choose(&mut self, row: &Row) -> ModelWrite {
        let column = COLUMNS[self.random.in_range(0..COLUMNS.len() as u64) as usize];
        let newest = row.model.newest();
        // Negative timestamps are rejected.
        let older = (newest - i64::try_from(self.random.in_range(0..4)).unwrap_or(0)).max(1);
        match self.random.in_range(0..10) {
            0 => ModelWrite::DeleteVersion(column, older),
            1 => ModelWrite::DeleteColumn(column, older),
            2 => ModelWrite::DeleteFamilyVersion(older),
            3 => ModelWrite::DeleteFamily(older),
            _ => {
                self.values += 1;
                let timestamp = newest + 1 + i64::from(self.random.in_range(0..3) == 0);
                ModelWrite::Put(column, timestamp, Bytes::from(format!("{}", self.values)))
            }
        }
    }

    /// Makes one write, by as many attempts as it takes. Whether it came to that.
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
        let (key, family) = (row.key.clone(), FAMILY_VERSIONS.as_bytes());
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

    /// Reads a row by a get or a scan, forward or reversed, and compares it with its model. That it
    /// cannot be read now proves nothing.
    async fn read(&mut self, row: &Row) {
        let versions_max = 1 + self.random.in_range(0..VERSIONS_KEPT as u64 + 1) as u32;
        let found = match self.random.in_range(0..3) {
            0 => self.get(row, versions_max).await,
            way => self.scan(row, versions_max, way == 1).await,
        };
        let Some(found) = found else { return };
        self.workload.seen.lock().versions_read += 1;
        if let Some(wrong) = row.model.compare(&found.cells, versions_max as usize) {
            let name = String::from_utf8_lossy(&row.key);
            let seen = format!("row {name}, {versions_max} versions: {wrong}");
            self.workload.report(Violation::new(DELETES_AND_VERSIONS, seen));
        }
    }

    async fn get(&self, row: &Row, versions_max: u32) -> Option<RowResult> {
        let get = Get { versions_max, ..Get::new(row.key.clone()) };
        match self.table.try_get(&get, ATTEMPT_TIMEOUT).await {
            Outcome::Acked(found) => Some(found),
            Outcome::Failed(_) | Outcome::Unknown(_) => None,
        }
    }

    async fn scan(&self, row: &Row, versions_max: u32, reversed: bool) -> Option<RowResult> {
        let mut columns = Columns::default();
        columns.add_family(FAMILY_VERSIONS.as_bytes());
        let (start, stop) = (row.key.clone(), row.key.clone());
        let range = Scan { include_stop: true, ..Scan::range(start, stop) };
        let scan = Scan { reversed, versions_max, columns, ..range };
        let mut scanner = self.table.scan(scan);
        let rows = tokio::time::timeout(ATTEMPT_TIMEOUT, scanner.rows()).await.ok()?.ok()?;
        Some(rows.into_iter().next().unwrap_or_default())
    }
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
