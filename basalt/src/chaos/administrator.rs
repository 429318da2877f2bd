//! An administrator who changes tables while faults are injected, and checks the result of each
//! call.
//!
//! The load's table is altered (only in settings that its data does not depend on), flushed,
//! compacted and balanced. A second table has its own rows and is disabled and enabled. A third
//! table is truncated, deleted and created again. Each call must succeed despite the faults. A
//! disabled table must acknowledge nothing. Rows must survive every operation that does not delete
//! them.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_client::{Admin, Connection, Error, Get, Outcome as Attempt, Put, Scan, Table};
use basalt_measure::drop_table;
use basalt_model::{FamilyDescriptor, TableDescriptor, TableName, TableState};
use basalt_runtime::{Random, Shutdown};
use bytes::Bytes;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::schedule::milliseconds;

/// The administrator, with its tables and its report.
pub(super) struct Administrator {
    admin: Admin,
    random: Random,
    load: TableName,
    /// The table that keeps its rows.
    kept: Own,
    /// The table that loses them.
    brief: Own,
    report: Report,
}

/// The results of all operations.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// How often each operation was done.
    pub(super) done: BTreeMap<&'static str, u64>,
    /// The longest duration of each operation.
    pub(super) longest_ms: BTreeMap<&'static str, u64>,
    /// How often a read of a table's state still returned the state before the previous call.
    pub(super) late_states: u64,
    /// Violations: things that happened and must not happen.
    pub(super) broken: Vec<String>,
}

/// A table of the administrator, and the rows that were acknowledged in it.
struct Own {
    table: Table,
    rows: BTreeMap<Bytes, Bytes>,
    next_row: u64,
}

/// The administrator's operations.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Work {
    /// The load's table is altered.
    Alter,
    /// The table that keeps its rows is disabled and enabled.
    DisableAndEnable,
    /// The balancer moves regions.
    Balance,
    /// The load's table is flushed.
    Flush,
    /// The load's table is compacted.
    Compact,
    /// The table that loses its rows is emptied.
    Truncate,
    /// That table is deleted and created again.
    DeleteAndCreate,
}

/// A violation that stops the administrator. It is in the report.
struct Broken(String);

type StepResult<T> = Result<T, Broken>;

const WORKS: [Work; 7] = [
    Work::Alter,
    Work::DisableAndEnable,
    Work::Balance,
    Work::Flush,
    Work::Compact,
    Work::Truncate,
    Work::DeleteAndCreate,
];
/// The pause between two operations.
const PAUSE_MS: std::ops::Range<u64> = 100..3_000;
/// How long a table stays disabled while it is written to and read.
const DISABLED_MS: std::ops::Range<u64> = 0..1_000;
/// The pause between two attempts to write to or read from the disabled table.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may take until all servers that answer show the result of a call. A server that was
/// paused for longer than its session may answer once more when it resumes.
const SHOWN_PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two reads of a table's state.
const SHOWN_PAUSE: Duration = Duration::from_millis(50);
/// How many rows are written at a time.
const ROWS: u64 = 5;
const FAMILY: &str = "f";
const QUALIFIER: &[u8] = b"q";
/// The start keys of the second and third regions. Rows begin with a letter.
const SPLIT_KEYS: [&str; 2] = ["i", "r"];
/// The block sizes that the load's table alternates between.
const BLOCK_BYTES: [u32; 2] = [32 << 10, 64 << 10];

// === impl Administrator ===

impl Administrator {
    /// Creates the tables that it needs in addition to `load`. `connection` must have a long
    /// timeout.
    ///
    /// # Errors
    /// The tables cannot be created.
    pub(super) async fn begin(
        connection: &Connection,
        load: &TableName,
        random: Random,
    ) -> anyhow::Result<Self> {
        let own = |name| {
            let name = TableName::new("default", name)?;
            let table = connection.table(&name);
            anyhow::Ok(Own { table, rows: BTreeMap::new(), next_row: 0 })
        };
        let administrator = Self {
            admin: connection.admin(),
            random,
            load: load.clone(),
            kept: own("chaos-kept")?,
            brief: own("chaos-brief")?,
            report: Report::default(),
        };
        for own in [&administrator.kept, &administrator.brief] {
            // A previous run on the same data may have left this table.
            drop_table(connection, own.table.name()).await?;
            administrator.create(own).await?;
        }
        Ok(administrator)
    }

    /// Works until `stop`, or until a violation is found. At the end all tables are enabled.
    pub(super) async fn work(mut self, stop: Shutdown) -> Report {
        while !stop.is_cancelled() {
            let pause = milliseconds(&self.random, PAUSE_MS);
            let _ = timeout(pause, stop.cancelled()).await;
            if stop.is_cancelled() {
                break;
            }
            let Some(work) = next_work(&self.random) else { break };
            let begun = Instant::now();
            if let Err(Broken(what)) = self.do_work(work).await {
                let after = begun.elapsed();
                self.report.broken.push(format!("{}: {what}, after {after:.1?}", work.name()));
                return self.report;
            }
            *self.report.done.entry(work.name()).or_default() += 1;
            let longest = self.report.longest_ms.entry(work.name()).or_default();
            *longest = (begun.elapsed().as_millis() as u64).max(*longest);
        }
        if let Err(Broken(what)) = self.kept.check_rows().await {
            self.report.broken.push(format!("at the end: {what}"));
        }
        self.report
    }

    async fn do_work(&mut self, work: Work) -> StepResult<()> {
        match work {
            Work::Alter => self.alter().await,
            Work::DisableAndEnable => self.disable_and_enable().await,
            // The result says whether the balancer ran: it does not while a server is recovered.
            Work::Balance => ended("balance", self.admin.balance().await).map(|_| ()),
            Work::Flush => ended("flush", self.admin.flush_table(&self.load).await),
            Work::Compact => ended("compact", self.admin.compact_table(&self.load, true).await),
            Work::Truncate => self.truncate().await,
            Work::DeleteAndCreate => self.delete_and_create().await,
        }
    }

    async fn create(&self, own: &Own) -> Result<(), Error> {
        let family = FamilyDescriptor::new(FAMILY);
        let descriptor = TableDescriptor {
            name: own.table.name().clone(),
            families: [(family.name.clone(), family)].into(),
            region_replication: 1,
            settings: BTreeMap::new(),
        };
        self.admin.create_table(&descriptor, &SPLIT_KEYS.map(Bytes::from)).await
    }

    /// Changes the block size, which does not affect any data.
    async fn alter(&mut self) -> StepResult<()> {
        let mut descriptor = ended("describe", self.admin.descriptor(&self.load).await)?;
        let block_bytes = self.random.pick(&BLOCK_BYTES).copied().unwrap_or_default();
        for family in descriptor.families.values_mut() {
            family.block_bytes = block_bytes;
        }
        ended("alter", self.admin.modify_table(&descriptor).await)?;
        let shown = ended("describe", self.admin.descriptor(&self.load).await)?;
        match shown == descriptor {
            true => Ok(()),
            false => {
                Err(Broken(format!("{} does not show what was altered: {shown:?}", self.load)))
            }
        }
    }

    async fn disable_and_enable(&mut self) -> StepResult<()> {
        let name = self.kept.table.name().clone();
        self.kept.write(&self.random).await;
        ended("disable", self.admin.disable_table(&name).await)?;
        self.check_state(&name, Some(TableState::Disabled)).await?;
        self.check_disabled().await?;
        ended("enable", self.admin.enable_table(&name).await)?;
        self.check_state(&name, Some(TableState::Enabled)).await?;
        self.kept.check_rows().await
    }

    async fn truncate(&mut self) -> StepResult<()> {
        let name = self.brief.table.name().clone();
        self.brief.write(&self.random).await;
        ended("disable", self.admin.disable_table(&name).await)?;
        let preserve_splits = self.random.in_range(0..2) == 0;
        ended("truncate", self.admin.truncate_table(&name, preserve_splits).await)?;
        self.check_state(&name, Some(TableState::Enabled)).await?;
        self.brief.check_empty().await
    }

    async fn delete_and_create(&mut self) -> StepResult<()> {
        let name = self.brief.table.name().clone();
        self.brief.write(&self.random).await;
        ended("disable", self.admin.disable_table(&name).await)?;
        ended("delete", self.admin.delete_table(&name).await)?;
        self.check_state(&name, None).await?;
        ended("create", self.create(&self.brief).await)?;
        self.check_state(&name, Some(TableState::Enabled)).await?;
        self.brief.check_empty().await
    }

    /// Checks that clients see the state that the previous call gave the table.
    async fn check_state(
        &mut self,
        name: &TableName,
        expected: Option<TableState>,
    ) -> StepResult<()> {
        let deadline = Instant::now() + SHOWN_PATIENCE;
        loop {
            let state = ended("read the state of a table", self.admin.table_state(name).await)?;
            if state == expected {
                return Ok(());
            }
            self.report.late_states += 1;
            if Instant::now() >= deadline {
                return Err(Broken(format!("{name} is {state:?} instead of {expected:?}")));
            }
            sleep(SHOWN_PAUSE).await;
        }
    }

    /// Checks that nothing is acknowledged while the table is disabled.
    async fn check_disabled(&self) -> StepResult<()> {
        let table = &self.kept.table;
        let until = Instant::now() + milliseconds(&self.random, DISABLED_MS);
        while Instant::now() < until {
            let row = row(&self.random, 0);
            let is_acknowledged = match self.random.in_range(0..2) {
                0 => table.try_get(&Get::new(row), ATTEMPT_TIMEOUT).await.is_acked(),
                _ => {
                    let put = Put::new(row).column(FAMILY.as_bytes(), QUALIFIER, b"late");
                    table.try_put(&put, ATTEMPT_TIMEOUT).await.is_acked()
                }
            };
            if is_acknowledged {
                return Err(Broken(format!("{} acknowledged while disabled", table.name())));
            }
            sleep(ATTEMPT_PAUSE).await;
        }
        Ok(())
    }
}

fn next_work(random: &Random) -> Option<Work> {
    random.pick(&WORKS).copied()
}

/// The name of a row. The seed decides the region.
fn row(random: &Random, number: u64) -> Bytes {
    let letter = char::from(b'a' + u8::try_from(random.in_range(0..26)).unwrap_or(0));
    Bytes::from(format!("{letter}-{number}"))
}

/// Reports a failed call as a violation: every call must succeed within the timeouts of its
/// connection.
fn ended<T>(call: &str, result: Result<T, Error>) -> StepResult<T> {
    result.map_err(|error| Broken(format!("{call} failed: {error}")))
}

// === impl Work ===

impl Work {
    /// The operation's name in reports.
    fn name(self) -> &'static str {
        match self {
            Self::Alter => "alter",
            Self::DisableAndEnable => "disable and enable",
            Self::Balance => "balance",
            Self::Flush => "flush",
            Self::Compact => "major compaction",
            Self::Truncate => "truncate",
            Self::DeleteAndCreate => "delete and create",
        }
    }
}

// === impl Own ===

impl Own {
    /// Writes some rows. Rows that are not acknowledged may or may not exist afterwards.
    async fn write(&mut self, random: &Random) {
        for _ in 0..ROWS {
            self.next_row += 1;
            let row = row(random, self.next_row);
            let value = Bytes::from(self.next_row.to_string());
            let put = Put::new(row.clone()).column(FAMILY.as_bytes(), QUALIFIER, &value);
            if let Attempt::Acked(()) = self.table.try_put(&put, ATTEMPT_TIMEOUT).await {
                self.rows.insert(row, value);
            }
        }
    }

    async fn read(&self) -> StepResult<BTreeMap<Bytes, Bytes>> {
        let rows = ended("scan", self.table.scan(Scan::range("", "")).rows().await)?;
        let found = rows.iter().filter_map(|row| {
            let value = row.value(FAMILY.as_bytes(), QUALIFIER)?;
            Some((Bytes::copy_from_slice(row.row()?), Bytes::copy_from_slice(value)))
        });
        Ok(found.collect())
    }

    /// Checks that all acknowledged rows have their values.
    async fn check_rows(&self) -> StepResult<()> {
        let found = self.read().await?;
        let mut rows = self.rows.iter();
        match rows.find(|(row, value)| found.get(*row) != Some(value)) {
            None => Ok(()),
            Some((row, _)) => {
                let (name, row) = (self.table.name(), row.escape_ascii());
                Err(Broken(format!("{name}: row {row} is missing or has changed")))
            }
        }
    }

    /// Checks that the table is empty.
    async fn check_empty(&mut self) -> StepResult<()> {
        let found = self.read().await?;
        self.rows.clear();
        match found.first_key_value() {
            None => Ok(()),
            Some((row, _)) => {
                let (name, row) = (self.table.name(), row.escape_ascii());
                Err(Broken(format!("{name}: row {row} has survived truncation or deletion")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_work_has_its_turn_and_the_same_seed_gives_the_same_works() {
        let works = |seed| {
            let random = Random::from_seed(seed);
            (0..100).filter_map(|_| next_work(&random)).collect::<Vec<_>>()
        };
        assert_eq!(works(7).into_iter().collect::<BTreeSet<_>>(), WORKS.into());
        assert_eq!(works(7), works(7));
        assert_ne!(works(7), works(8));
    }
}
