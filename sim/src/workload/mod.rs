//! Clients that write and read all regions of the table, and remember what they were told.
//!
//! Each region has a writer of its own, which never waits for another region (`writer.rs`). Some
//! clients contend for counters and lists, one scans (`scanner.rs`), one writes and deletes
//! versions (`versions.rs`). It goes on until the
//! faults are over; then each region must take a write and answer a read within a stated time
//! ([`CALM_TIME_MAX`]), and at the end everything is read.

mod catalogs;
mod scanner;
mod tables;
mod versions;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use basalt_client::{
    Connection, ConnectionConfig, RegistryConfig, RetryConfig, RowResult, Scan, Table,
};
use basalt_runtime::{Random, Seams};
use bytes::Bytes;
use parking_lot::Mutex;

use basalt_measure::history::{Contender, Contest, History};

use crate::clock::CalendarError;
use crate::invariants::{AcknowledgedWrites, Violation, WholeRows};
use crate::plan::{FAMILY, FAMILY_SECOND, families_with_ends, family_of_versions, table_name};
use crate::trace::Trace;
use writer::Writer;

/// Until then, counted from the end of the last fault, each region takes a write and answers.
pub const CALM_TIME_MAX: Duration = Duration::from_secs(15);
/// For how long the load goes on after the faults, so that what was replayed is flushed.
const CALM_LOAD: Duration = Duration::from_millis(1_500);
/// The column that is written, in both families.
const QUALIFIER: &[u8] = b"value";
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(250);
/// How long an operation is tried that retries by itself.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause between two looks whether the load has begun.
const LOADING_LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How many clients contend for counters, and the pause between two operations of each.
const CONTENDERS: u64 = 3;
const CONTENDERS_PAUSE_MS: std::ops::Range<u64> = 5..40;
/// The pauses between two operations of those who write versions.
const VERSIONS_PAUSE_MS: std::ops::Range<u64> = 5..40;
const ENDS_PAUSE_MS: std::ops::Range<u64> = 10..60;
/// Counters are above the rows of the writers.
const COUNTER_PREFIX: &str = "counter";

/// How much is done.
#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    /// How the cluster is found.
    pub registry: RegistryConfig,
    /// How many regions the table has.
    pub regions: u32,
    /// How many other tables come and go.
    pub tables: u64,
    /// The servers that must show at once what was done to those, each `host:port`.
    pub catalogs: Vec<String>,
    /// Whether the cluster begins with a release that lacks what the next one has.
    pub is_upgraded: bool,
    /// By how much the calendars of servers may be off.
    pub calendars: CalendarError,
}

/// A workload, and what it has seen so far.
#[derive(Debug)]
pub struct Workload {
    config: WorkloadConfig,
    trace: Trace,
    writes: AcknowledgedWrites,
    contest: Arc<Contest>,
    rows: WholeRows,
    seen: Mutex<Seen>,
}

/// What was seen, besides the writes.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When all regions had taken a first write.
    pub loading_since: Option<Duration>,
    /// When the last fault was over.
    pub calm_since: Option<Duration>,
    /// Since when the cluster is known to be at the newest feature level, after the start.
    pub newest_level_since: Option<Duration>,
    /// Which process had each region when the load began.
    pub servers: BTreeMap<u32, String>,
    /// Attempts to write that may have been applied.
    pub unknown: u64,
    /// Attempts to write that were certainly not applied.
    pub failed: u64,
    /// The longest that each region took from the start of a write to its acknowledgement.
    pub outages: BTreeMap<u32, Duration>,
    /// How long after the last fault each region had taken a write and answered a read.
    pub recovered: BTreeMap<u32, Duration>,
    /// How many operations of each kind were answered, but for those on counters and lists.
    pub operations: BTreeMap<&'static str, u64>,
    /// How many rows of several versions were read and compared with their model.
    pub versions_read: u64,
    /// Regions that did not come back, and rows that were not as they should be.
    pub violations: Vec<Violation>,
}

// === impl Workload ===

impl Workload {
    /// A workload that has not begun.
    pub fn new(config: WorkloadConfig, trace: &Trace) -> Self {
        let prefix = |region| format!("{region:02}-{COUNTER_PREFIX}-");
        let contest = Arc::new(Contest {
            history: Arc::default(),
            prefixes: (0..config.regions).map(prefix).collect(),
            family: FAMILY.to_owned(),
            qualifier: Bytes::from_static(QUALIFIER),
            attempt_timeout: ATTEMPT_TIMEOUT,
        });
        Self {
            config,
            trace: trace.clone(),
            writes: AcknowledgedWrites::default(),
            contest,
            rows: WholeRows::default(),
            seen: Mutex::default(),
        }
    }

    /// What was acknowledged.
    pub fn writes(&self) -> &AcknowledgedWrites {
        &self.writes
    }

    /// What was done to the counters.
    pub fn history(&self) -> &History {
        &self.contest.history
    }

    /// Which rows were looked at as a whole.
    pub fn rows(&self) -> &WholeRows {
        &self.rows
    }

    /// What else was seen.
    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// When the load began; cheap.
    pub fn loading_since(&self) -> Option<Duration> {
        self.seen.lock().loading_since
    }

    /// Ends once the load has begun.
    pub(crate) async fn until_loading(&self) {
        while self.loading_since().is_none() {
            tokio::time::sleep(LOADING_LOOK_PAUSE).await;
        }
    }

    /// The faults are over.
    pub fn calm_down(&self, now: Duration) {
        self.seen.lock().calm_since.get_or_insert(now);
    }

    /// Runs all clients until the faults are over and everything has been read.
    ///
    /// # Errors
    /// The cluster did not come to serve, or the table cannot be read at the end.
    pub async fn run(self: Arc<Self>, seams: Seams) -> anyhow::Result<()> {
        let table = self.table(&seams)?;
        let mut writers: Vec<Writer> = (0..self.config.regions)
            .map(|region| Writer::new(&self, table.clone(), random(&seams), region))
            .collect();
        futures::future::join_all(writers.iter_mut().map(Writer::write)).await;
        let mut servers = BTreeMap::new();
        for writer in &writers {
            let location = table.locate(&writer.row(0)).await?;
            servers.insert(writer.region, location.server.host.clone());
        }
        self.begin_loading(servers);
        let mut contenders = Vec::new();
        for _ in 0..CONTENDERS {
            // A client of its own each, with nonces of its own.
            let contender = Contender::new(&self.contest, self.table(&seams)?, random(&seams));
            contenders.push(self.contend(contender, random(&seams)));
        }
        let scans = scanner::scan(&self, self.table(&seams)?, random(&seams));
        let writes = futures::future::join_all(writers.iter_mut().map(Writer::write_until_calm));
        let contend = futures::future::join_all(contenders);
        let versions = self.write_versions(&seams)?;
        let changes = self.change_tables(&seams);
        let clients = futures::future::join5(writes, contend, scans, versions, changes);
        let (_, _, (), (), changed) = Box::pin(clients).await;
        changed?;
        self.trace.record(format_args!("client: {} writes acknowledged", self.writes.count()));
        if self.seen.lock().violations.is_empty() {
            // By a client that looks the regions up: the others may know places that only they do.
            let newcomer = self.table(&seams)?;
            self.writes.check_all(&self.read_all(&newcomer).await?);
        }
        Ok(())
    }

    /// Has versions written and deleted by two clients: to a family that only limits their number,
    /// and, less often, to those whose cells have a time to live or stay when they are deleted.
    fn write_versions(&self, seams: &Seams) -> anyhow::Result<impl Future<Output = ()>> {
        let writer = |families, pace_ms| {
            let (table, clock) = (self.table(seams)?, seams.clock.clone());
            anyhow::Ok(versions::Writer::new(self, table, clock, random(seams), families, pace_ms))
        };
        let versions = writer(vec![family_of_versions()], VERSIONS_PAUSE_MS)?;
        let ends = writer(families_with_ends().into(), ENDS_PAUSE_MS)?;
        Ok(async move {
            let both = futures::future::join(versions.write_until_over(), ends.write_until_over());
            Box::pin(both).await;
        })
    }

    /// Has the tables changed that come and go, while regions are moved.
    async fn change_tables(self: &Arc<Self>, seams: &Seams) -> anyhow::Result<()> {
        let numbers = 0..self.config.tables;
        let changes =
            numbers.map(|number| tables::change_tables(Arc::clone(self), seams.clone(), number));
        let balances = async {
            if self.config.tables > 0 {
                tables::balance(self, seams).await;
            }
        };
        let (changed, ()) =
            futures::future::join(futures::future::try_join_all(changes), balances).await;
        changed.map(drop)
    }

    async fn contend(&self, mut contender: Contender, random: Random) {
        while !self.is_over() {
            contender.contend_once().await;
            let pause = Duration::from_millis(random.in_range(CONTENDERS_PAUSE_MS));
            tokio::time::sleep(pause).await;
        }
    }

    /// A client of its own.
    pub(crate) fn connection(&self, seams: &Seams) -> Connection {
        let config = ConnectionConfig {
            retry: RetryConfig {
                operation_timeout: OPERATION_TIMEOUT,
                attempt_timeout: ATTEMPT_TIMEOUT,
                ..RetryConfig::default()
            },
            ..ConnectionConfig::new(self.config.registry.clone())
        };
        Connection::new(seams, config)
    }

    fn table(&self, seams: &Seams) -> anyhow::Result<Table> {
        Ok(self.connection(seams).table(&table_name()?))
    }

    /// From here on it counts.
    fn begin_loading(&self, servers: BTreeMap<u32, String>) {
        self.trace.record(format_args!("client: all regions take writes"));
        let loading_since = turmoil::sim_elapsed();
        *self.seen.lock() = Seen { loading_since, servers, ..Seen::default() };
    }

    /// How long the faults have been over, if they are.
    pub(crate) fn calm_for(&self) -> Option<Duration> {
        let since = self.seen.lock().calm_since?;
        Some(turmoil::sim_elapsed().unwrap_or(since).saturating_sub(since))
    }

    /// The cluster is at the newest feature level.
    pub(crate) fn note_newest_level(&self) {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        self.seen.lock().newest_level_since.get_or_insert(now);
    }

    /// How long the cluster has been known to be at the newest feature level.
    fn newest_level_for(&self) -> Duration {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        let since = self.seen.lock().newest_level_since;
        since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Whether the load is over.
    pub(crate) fn is_over(&self) -> bool {
        self.calm_for().is_some_and(|calm| calm >= CALM_LOAD)
    }

    /// Whether the time for coming back is over.
    fn is_late(&self) -> bool {
        self.calm_for().is_some_and(|calm| calm > CALM_TIME_MAX)
    }

    /// An operation was answered.
    fn count(&self, kind: &'static str) {
        *self.seen.lock().operations.entry(kind).or_default() += 1;
    }

    pub(crate) fn report(&self, violation: Violation) {
        self.seen.lock().violations.push(violation);
    }

    async fn read_all(&self, table: &Table) -> anyhow::Result<BTreeMap<Bytes, Bytes>> {
        // Region by region, as a scan of all would have to be done within one operation's time.
        let mut found = BTreeMap::new();
        for region in 0..self.config.regions {
            let scan = Scan::range(format!("{region:02}-"), format!("{region:02}."));
            let rows = table.scan(scan).rows().await.context("reading all rows")?;
            for row in &rows {
                self.check_row(row);
                if let (Some(key), Some(value)) = (row.row(), value(row, FAMILY)) {
                    found.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                }
            }
        }
        self.trace.record(format_args!("client: {} rows read", found.len()));
        Ok(found)
    }

    /// Looks whether a row of a writer is whole.
    fn check_row(&self, row: &RowResult) {
        let key = row.row().unwrap_or_default();
        if is_of_writer(key) && !row.is_empty() {
            self.rows.check(key, [value(row, FAMILY), value(row, FAMILY_SECOND)]);
        }
    }
}

fn value<'a>(row: &'a RowResult, family: &str) -> Option<&'a [u8]> {
    row.value(family.as_bytes(), QUALIFIER)
}

/// Whether a row is one of a [`Writer`]: its number comes right after the region.
fn is_of_writer(row: &[u8]) -> bool {
    row.get(3).is_some_and(u8::is_ascii_digit)
}

fn random(seams: &Seams) -> Random {
    Random::from_seed(seams.random.next_u64())
}
