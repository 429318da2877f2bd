//! A client that creates, alters, disables, enables, truncates and deletes its own table. After
//! each step it checks wherever it can that the result is visible.
//!
//! Each operation must end, and the client must learn its result. It keeps asking well beyond the
//! time within which the cluster must have recovered. Meanwhile another client makes the balancer
//! move regions.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_client::{
    Admin, Connection, ConnectionConfig, Get, Outcome, Put, RetryConfig, RowResult, Scan, Table,
};
use basalt_model::{FamilyDescriptor, TableDescriptor, TableName, TableState};
use basalt_runtime::{Random, Seams};
use bytes::Bytes;
use tokio::time::Instant;

use super::catalogs::Catalogs;
use super::{ATTEMPT_TIMEOUT, QUALIFIER, Workload, random, value};
use crate::invariants::Violation;
use crate::plan::{FAMILY, FAMILY_SECOND};

/// The timeout of an operation on a table. Faults last at most 20 s.
const PATIENCE: Duration = Duration::from_secs(40);
/// The pause between two operations.
const PACE_MS: std::ops::Range<u64> = 10..250;
/// The pause between two calls of the balancer.
const BALANCE_PACE_MS: std::ops::Range<u64> = 50..400;
/// How long a disabled table is written to.
const DISABLED_MS: std::ops::Range<u64> = 0..600;
/// The pause between two such writes.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);
/// Rows written while the table is enabled.
const ROWS: std::ops::Range<u64> = 1..6;
/// The maximum number of rows that are written while a family is being added.
const ROWS_WHILE_ADDED_MAX: usize = 100;
/// The pause before each of them.
const PAUSE_WHILE_ADDED: Duration = Duration::from_millis(2);
/// The start keys of the regions of a table, except the first.
const SPLIT_KEYS: [&str; 3] = ["g", "n", "t"];
/// How long after the feature level was raised a master may still act by the previous one.
const LEVEL_KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// Part of a master's error for an operation that the cluster's feature level does not support.
const LEVEL_TOO_LOW: &str = "needs feature level";
/// Part of a master's error for a procedure that ran out of time. The error of a client that has
/// waited for too long differs.
const OUT_OF_TIME: &str = "not finished within 1200s";
/// How many operations may be needed to delete the table at the end.
const LAST_OPERATIONS_MAX: usize = 8;
/// The invariants of operations on tables.
const ENDS: &str = "every procedure ends and its client learns how";
const SHOWN: &str = "a returned operation on a table is visible to the next call";
const DISABLED: &str = "a disabled table acknowledges nothing";
const NOTHING_LEFT: &str = "a table that was emptied or deleted has left nothing";
const BEGINS_EMPTY: &str = "a family that is added again begins empty";
const READABLE: &str = "an enabled table can be read within the time for recovery";
const KEPT: &str = "a table keeps its rows when it is altered, disabled and enabled";

/// A table, as its only client knows it.
struct Tables {
    workload: Arc<Workload>,
    admin: Admin,
    /// This client found the table earlier: it may remember where its regions were.
    table: Table,
    catalogs: Catalogs,
    random: Random,
    name: TableName,
    state: Option<TableState>,
    descriptor: TableDescriptor,
    /// Whether it is unknown which rows the table has, because a procedure ran out of time.
    must_delete: bool,
    /// Whether an alteration ran out of time, so that some regions may not be reopened yet. The
    /// next operation reopens them and keeps the rows, which are then checked.
    must_reopen: bool,
    next_row: u64,
    /// A new generation begins whenever the table is truncated or deleted.
    first: FamilyRows,
    /// A new generation begins whenever the family is removed and added again.
    second: FamilyRows,
}

/// The rows of a family. Each value contains its generation.
#[derive(Default)]
struct FamilyRows {
    generation: u64,
    rows: BTreeMap<Bytes, Bytes>,
}

/// What is wrong with the rows of a family.
struct Compared<'a> {
    /// The rows with a value of an earlier generation.
    stale: Vec<String>,
    /// The first row that does not have its value.
    lost: Option<&'a Bytes>,
}

/// An operation on a table.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Create,
    Alter,
    /// Removes the second family and adds it again.
    ReplaceFamily,
    Disable,
    Enable,
    Truncate {
        preserve_splits: bool,
    },
    Delete,
}

/// Operates on table `number` until the load is over; then deletes the table.
pub(super) async fn change_tables(
    workload: Arc<Workload>,
    seams: Seams,
    number: u64,
) -> anyhow::Result<()> {
    let name = table_name(number)?;
    let connection = connection(&workload, &seams);
    let families = [FAMILY, FAMILY_SECOND].map(FamilyDescriptor::new);
    let descriptor = TableDescriptor {
        name: name.clone(),
        families: families.map(|family| (family.name.clone(), family)).into(),
        region_replication: 1,
        settings: BTreeMap::new(),
    };
    let mut tables = Tables {
        admin: connection.admin(),
        table: connection.table(&name),
        catalogs: Catalogs::new(&seams, workload.config.catalogs.clone()),
        random: random(&seams),
        name,
        state: None,
        descriptor,
        must_delete: false,
        must_reopen: false,
        next_row: 0,
        first: FamilyRows::default(),
        second: FamilyRows::default(),
        workload,
    };
    tables.run().await;
    Ok(())
}

/// Makes the balancer move regions until the load is over.
pub(super) async fn balance(workload: &Workload, seams: &Seams) {
    let admin = connection(workload, seams).admin();
    let random = random(seams);
    while !workload.is_over() {
        // The balancer does nothing while a server is recovered.
        let _ = tokio::time::timeout(ATTEMPT_TIMEOUT, admin.balance()).await;
        tokio::time::sleep(Duration::from_millis(random.in_range(BALANCE_PACE_MS))).await;
    }
}

/// The name of a table that is created and deleted.
fn table_name(number: u64) -> anyhow::Result<TableName> {
    Ok(TableName::new("default", &format!("changing-{number}"))?)
}

fn connection(workload: &Workload, seams: &Seams) -> Connection {
    let retry = RetryConfig {
        operation_timeout: PATIENCE,
        attempt_timeout: ATTEMPT_TIMEOUT * 4,
        ..RetryConfig::default()
    };
    let registry = workload.config.registry.clone();
    Connection::new(seams, ConnectionConfig { retry, ..ConnectionConfig::new(registry) })
}

// === impl Operation ===

impl Operation {
    fn kind(self) -> &'static str {
        match self {
            Self::Create => "create-table",
            Self::Alter => "alter-table",
            Self::ReplaceFamily => "replace-family",
            Self::Disable => "disable-table",
            Self::Enable => "enable-table",
            Self::Truncate { .. } => "truncate-table",
            Self::Delete => "delete-table",
        }
    }
}

// === impl FamilyRows ===

impl FamilyRows {
    fn begin_generation(&mut self) {
        self.generation += 1;
        self.rows.clear();
    }

    /// Compares the rows with what a scan has found in `family`.
    fn compare(&self, scanned: &[RowResult], family: &str) -> Compared<'_> {
        let (mut found, mut stale) = (BTreeMap::new(), Vec::new());
        for row in scanned {
            let (Some(key), Some(value)) = (row.row(), value(row, family)) else { continue };
            if !value.starts_with(format!("{}-", self.generation).as_bytes()) {
                stale.push(format!("{} holds {}", key.escape_ascii(), value.escape_ascii()));
            }
            found.insert(key, value);
        }
        let is_lost = |(row, value): &(&Bytes, &Bytes)| found.get(&row[..]) != Some(&&value[..]);
        let lost = self.rows.iter().find(is_lost).map(|(row, _)| row);
        Compared { stale, lost }
    }
}

// === impl Tables ===

impl Tables {
    async fn run(&mut self) {
        while !self.workload.is_over() {
            let operation = self.choose();
            if !self.operate(operation).await {
                return;
            }
            match self.state {
                _ if self.must_delete => {}
                Some(TableState::Enabled) => self.use_enabled().await,
                Some(_) => self.use_disabled().await,
                None => {}
            }
            let pace = Duration::from_millis(self.random.in_range(PACE_MS));
            tokio::time::sleep(pace).await;
        }
        // At the end, nothing may be left.
        self.must_delete = true;
        for _ in 0..LAST_OPERATIONS_MAX {
            if self.state.is_none() || !self.operate(self.choose()).await {
                return;
            }
        }
        let (name, state) = (&self.name, self.state);
        self.report(ENDS, format!("{name}: it cannot be deleted; it is {state:?}"));
    }

    fn choose(&self) -> Operation {
        let choice = self.random.in_range(0..6);
        match (self.state, choice) {
            (None, _) => Operation::Create,
            (Some(TableState::Enabled), _) if self.must_delete => Operation::Disable,
            (Some(_), _) if self.must_delete => Operation::Delete,
            (Some(TableState::Enabled), _) if self.must_reopen => Operation::Alter,
            (Some(_), _) if self.must_reopen => Operation::Enable,
            (Some(TableState::Enabled), 1..=3) if self.runs_out_of_time() => {
                Operation::ReplaceFamily
            }
            // At an earlier feature level, the old cells may come back.
            (Some(_), 0) if self.is_at_newest_level() => Operation::ReplaceFamily,
            (Some(TableState::Enabled), 1) => Operation::Alter,
            (Some(TableState::Enabled), _) => Operation::Disable,
            (Some(_), 0..=3) => Operation::Enable,
            (Some(_), 4) => {
                Operation::Truncate { preserve_splits: self.random.in_range(0..2) == 0 }
            }
            (Some(_), _) => Operation::Delete,
        }
    }

    fn is_at_newest_level(&self) -> bool {
        !self.workload.config.is_upgraded || self.workload.newest_level_for() >= LEVEL_KNOWN_WITHIN
    }

    /// Executes the operation, and checks that its result is visible. Returns whether it went as
    /// expected.
    async fn operate(&mut self, operation: Operation) -> bool {
        let (began, newest_level_for) = (Instant::now(), self.workload.newest_level_for());
        let ended = match operation {
            Operation::Create => {
                let keys = SPLIT_KEYS.map(Bytes::from);
                self.admin.create_table(&self.descriptor, &keys).await
            }
            Operation::Alter => {
                let setting = (format!("NOTE_{}", self.random.in_range(0..3)), "x".to_owned());
                self.descriptor.settings.extend([setting]);
                self.admin.modify_table(&self.descriptor).await
            }
            Operation::ReplaceFamily => self.replace_family().await,
            Operation::Disable => self.admin.disable_table(&self.name).await,
            Operation::Enable => self.admin.enable_table(&self.name).await,
            Operation::Truncate { preserve_splits } => {
                self.admin.truncate_table(&self.name, preserve_splits).await
            }
            Operation::Delete => self.admin.delete_table(&self.name).await,
        };
        let (name, took) = (&self.name, began.elapsed());
        self.workload
            .trace
            .record(format_args!("client: {name}: {operation:?} {ended:?} after {took:?}"));
        if let Err(error) = &ended
            && matches!(operation, Operation::Truncate { .. })
            && self.workload.config.is_upgraded
            && newest_level_for < LEVEL_KNOWN_WITHIN
            && error.to_string().contains(LEVEL_TOO_LOW)
        {
            // The operation had no effect.
            self.workload.count("refused-truncation");
            return true;
        }
        if let Err(error) = &ended
            && self.is_out_of_time(error)
        {
            self.workload.count("ran-out-of-time");
            return self.after_running_out_of_time(operation).await;
        }
        if let Err(error) = ended {
            self.report(ENDS, format!("{name}: {operation:?} failed after {took:?}: {error}"));
            return false;
        }
        self.workload.count(operation.kind());
        self.state = match operation {
            Operation::Disable => Some(TableState::Disabled),
            Operation::Delete => None,
            Operation::Create | Operation::Alter | Operation::Enable => Some(TableState::Enabled),
            Operation::ReplaceFamily => self.state,
            Operation::Truncate { .. } => Some(TableState::Enabled),
        };
        if matches!(operation, Operation::Truncate { .. } | Operation::Delete) {
            self.first.begin_generation();
            self.second.rows.clear();
        }
        match operation {
            Operation::Delete => (self.must_delete, self.must_reopen) = (false, false),
            Operation::Alter | Operation::Enable => self.must_reopen = false,
            _ => {}
        }
        self.check_shown(operation).await;
        true
    }

    /// Removes the second family and adds it again. Rows that are acknowledged once the family is
    /// there again must be kept, although the procedure has not ended.
    async fn replace_family(&mut self) -> basalt_client::Result<()> {
        let mut without = self.descriptor.clone();
        without.families.remove(FAMILY_SECOND);
        self.alter(&without).await?;
        self.second.begin_generation();
        let is_added = Cell::new(false);
        let adding = async {
            let ended = self.alter(&self.descriptor).await;
            is_added.set(true);
            ended
        };
        let (ended, written) = futures::join!(adding, self.write_while(|| !is_added.get()));
        self.must_reopen = matches!(ended, Ok(false));
        self.next_row += u64::try_from(written.len()).unwrap_or(0);
        self.second.rows.extend(written);
        ended.map(drop)
    }

    /// Alters the table. The descriptor is on record even if the procedure that reopens the regions
    /// runs out of time. Returns whether all regions have been reopened.
    async fn alter(&self, descriptor: &TableDescriptor) -> basalt_client::Result<bool> {
        match self.admin.modify_table(descriptor).await {
            Err(error) if self.is_out_of_time(&error) => {
                self.workload.trace.record(format_args!("client: {}: {error}", self.name));
                self.workload.count("alteration-out-of-time");
                Ok(false)
            }
            ended => ended.map(|()| true),
        }
    }

    /// Writes rows to the second family as soon as the table has it. Returns the acknowledged ones.
    async fn write_while(&self, is_so: impl Fn() -> bool) -> BTreeMap<Bytes, Bytes> {
        let (mut written, mut has_family) = (BTreeMap::new(), false);
        while is_so() && written.len() < ROWS_WHILE_ADDED_MAX {
            // A region that was not reopened before is reopened soon.
            tokio::time::sleep(PAUSE_WHILE_ADDED).await;
            if !has_family {
                let found =
                    tokio::time::timeout(ATTEMPT_TIMEOUT, self.admin.descriptor(&self.name)).await;
                has_family = matches!(
                    found,
                    Ok(Ok(found)) if found.families.contains_key(FAMILY_SECOND)
                );
                continue;
            }
            let number = self.next_row + u64::try_from(written.len()).unwrap_or(0) + 1;
            let row = Bytes::from(format!("{}-{number}", self.first_letter()));
            let value = Bytes::from(format!("{}-{number}", self.second.generation));
            let put = Put::new(row.clone()).column(FAMILY_SECOND.as_bytes(), QUALIFIER, &value);
            if let Outcome::Acked(()) = self.table.try_put(&put, ATTEMPT_TIMEOUT).await {
                self.workload.count("put-while-family-is-added");
                written.insert(row, value);
            }
        }
        written
    }

    fn runs_out_of_time(&self) -> bool {
        self.workload.config.procedures_run_out_of_time
    }

    fn is_out_of_time(&self, error: &basalt_client::Error) -> bool {
        self.runs_out_of_time() && error.to_string().contains(OUT_OF_TIME)
    }

    /// Finds out what remains of the table. Returns whether it can be used.
    async fn after_running_out_of_time(&mut self, operation: Operation) -> bool {
        let found = self.admin.table_state(&self.name).await;
        let is_as_declared = match (&found, operation) {
            (Ok(state), Operation::Create) => matches!(state, None | Some(TableState::Enabled)),
            (Ok(state), Operation::Delete) => matches!(state, None | Some(TableState::Disabled)),
            (Ok(state), Operation::Truncate { .. }) => {
                matches!(state, Some(TableState::Enabled | TableState::Disabled))
            }
            (Ok(state), _) => *state == Some(TableState::Enabled),
            (Err(_), _) => false,
        };
        if !is_as_declared {
            let name = &self.name;
            self.report(ENDS, format!("{name}: {operation:?} ran out of time: {found:?}"));
            return false;
        }
        self.state = found.ok().flatten();
        let keeps_rows =
            matches!(operation, Operation::Alter | Operation::Disable | Operation::Enable);
        self.must_delete |= self.state.is_some() && !keeps_rows;
        if self.state.is_none() {
            self.must_delete = false;
            self.first.begin_generation();
            self.second.rows.clear();
        }
        true
    }

    /// Asks each server and the master for its knowledge of the table.
    async fn check_shown(&self, operation: Operation) {
        for (server, found) in self.catalogs.states_of(&self.name).await {
            if found != self.state {
                let expected = self.state;
                let seen = format!(
                    "{}: after {operation:?}, {server} says {found:?} instead of {expected:?}",
                    self.name
                );
                self.report(SHOWN, seen);
            }
        }
        if let Ok(Ok(tables)) = tokio::time::timeout(ATTEMPT_TIMEOUT, self.admin.tables()).await
            && tables.contains(&self.name) != self.state.is_some()
        {
            let (name, expected) = (&self.name, self.state);
            let seen =
                format!("{name}: after {operation:?}, the master lists {tables:?}, {expected:?}");
            self.report(SHOWN, seen);
        }
    }

    /// Checks that earlier rows are there, and writes more rows.
    async fn use_enabled(&mut self) {
        self.check_rows().await;
        for _ in 0..self.random.in_range(ROWS) {
            self.next_row += 1;
            let row = Bytes::from(format!("{}-{}", self.first_letter(), self.next_row));
            let [first, second] = [&self.first, &self.second]
                .map(|family| Bytes::from(format!("{}-{}", family.generation, self.next_row)));
            let put = Put::new(row.clone()).column(FAMILY.as_bytes(), QUALIFIER, &first);
            let put = put.column(FAMILY_SECOND.as_bytes(), QUALIFIER, &second);
            if let Outcome::Acked(()) = self.table.try_put(&put, ATTEMPT_TIMEOUT).await {
                self.first.rows.insert(row.clone(), first);
                self.second.rows.insert(row, second);
            }
        }
    }

    async fn check_rows(&self) {
        let scanned =
            tokio::time::timeout(PATIENCE, self.table.scan(Scan::range("", "")).rows()).await;
        let scanned = match scanned {
            Ok(Ok(scanned)) => scanned,
            failed => {
                let failed = failed.map(|scanned| scanned.map(drop));
                self.report(READABLE, format!("{}: {failed:?}", self.name));
                return;
            }
        };
        let first = self.first.compare(&scanned, FAMILY);
        let second = self.second.compare(&scanned, FAMILY_SECOND);
        for stale in first.stale {
            self.report(NOTHING_LEFT, format!("{}: {stale} of an earlier table", self.name));
        }
        for stale in second.stale {
            self.report(BEGINS_EMPTY, format!("{}: {stale} of an earlier family", self.name));
        }
        if let Some(row) = first.lost.or(second.lost) {
            let seen = format!("{}: row {} is not as it was", self.name, row.escape_ascii());
            self.report(KEPT, seen);
        }
    }

    /// No server may acknowledge anything while the table is disabled, whatever clients remember.
    async fn use_disabled(&self) {
        let until = Instant::now() + Duration::from_millis(self.random.in_range(DISABLED_MS));
        while Instant::now() < until {
            let row = Bytes::from(format!("{}-late", self.first_letter()));
            let is_acknowledged = match self.random.in_range(0..3) {
                0 => {
                    let got = self.table.try_get(&Get::new(row), ATTEMPT_TIMEOUT).await;
                    matches!(got, Outcome::Acked(_))
                }
                _ => {
                    let put = Put::new(row).column(FAMILY.as_bytes(), QUALIFIER, b"late");
                    let put = self.table.try_put(&put, ATTEMPT_TIMEOUT).await;
                    matches!(put, Outcome::Acked(()))
                }
            };
            if is_acknowledged {
                self.report(DISABLED, self.name.to_string());
                return;
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// The seed chooses the region of a row.
    fn first_letter(&self) -> char {
        char::from(b'a' + u8::try_from(self.random.in_range(0..26)).unwrap_or(0))
    }

    fn report(&self, invariant: &'static str, seen: impl Into<String>) {
        self.workload.report(Violation::new(invariant, seen));
    }
}
