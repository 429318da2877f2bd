//! Clients that write to and read from all regions of the table, and remember the answers.
//!
//! Each region has its own writer, which never waits for another region (`writer.rs`). Some clients
//! contend for counters and lists, one scans (`scanner.rs`), and one writes and deletes versions
//! (`versions.rs`). They run until the faults are over. Then each region must acknowledge a write
//! and answer a read within a stated time ([`CALM_TIME_MAX`]). At the end everything is read.

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

use crate::clock::WallClockError;
use crate::invariants::{AcknowledgedWrites, Violation, WholeRows};
use crate::plan::{FAMILY, FAMILY_SECOND, families_with_ends, family_of_versions, table_name};
use crate::trace::Trace;
use writer::Writer;

/// The time after the last fault within which each region must acknowledge a write and answer a
/// read.
pub const CALM_TIME_MAX: Duration = Duration::from_secs(15);
/// How long the load continues after the faults, so that replayed edits are flushed.
const CALM_LOAD: Duration = Duration::from_millis(1_500);
/// The column that is written, in both families.
const QUALIFIER: &[u8] = b"value";
/// The timeout of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(250);
/// The timeout of an operation that retries by itself.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(3);
/// The interval between two checks of whether the load has begun.
const LOADING_LOOK_PAUSE: Duration = Duration::from_millis(20);
/// The number of clients that contend for counters, and the pause between two operations of each.
const CONTENDERS: u64 = 3;
const CONTENDERS_PAUSE_MS: std::ops::Range<u64> = 5..40;
/// The pauses between two operations of the clients that write versions.
const VERSIONS_PAUSE_MS: std::ops::Range<u64> = 5..40;
const ENDS_PAUSE_MS: std::ops::Range<u64> = 10..60;
/// Counters sort after the rows of the writers.
const COUNTER_PREFIX: &str = "counter";

/// The configuration of the workload.
#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    /// How to find the cluster.
    pub registry: RegistryConfig,
    /// The number of regions of the table.
    pub regions: u32,
    /// The number of other tables that are created and deleted.
    pub tables: u64,
    /// The servers that must show operations on those tables at once, each as `host:port`.
    pub catalogs: Vec<String>,
    /// Whether the cluster starts with a release that lacks features of the next one.
    pub is_upgraded: bool,
    /// Whether procedures run out of time.
    pub procedures_run_out_of_time: bool,
    /// How wrong the wall clocks of servers may be.
    pub wall_clocks: WallClockError,
}

/// A workload and its observations so far.
#[derive(Debug)]
pub struct Workload {
    config: WorkloadConfig,
    trace: Trace,
    writes: AcknowledgedWrites,
    contest: Arc<Contest>,
    rows: WholeRows,
    seen: Mutex<Seen>,
}

/// Observations other than the acknowledged writes.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When all regions had acknowledged a first write.
    pub loading_since: Option<Duration>,
    /// When the last fault was over.
    pub calm_since: Option<Duration>,
    /// When the cluster was first known to be at the newest feature level; times count from the
    /// start.
    pub newest_level_since: Option<Duration>,
    /// The process that served each region when the load began.
    pub servers: BTreeMap<u32, String>,
    /// Attempts to write that may have been applied.
    pub unknown: u64,
    /// Attempts to write that were certainly not applied.
    pub failed: u64,
    /// The longest time of each region from the start of a write to its acknowledgement.
    pub outages: BTreeMap<u32, Duration>,
    /// How long after the last fault each region had acknowledged a write and answered a read.
    pub recovered: BTreeMap<u32, Duration>,
    /// The number of answered operations of each kind, except those on counters and lists.
    pub operations: BTreeMap<&'static str, u64>,
    /// The number of reads of rows with several versions that were compared with their model.
    pub versions_read: u64,
    /// Regions that did not recover, and rows with wrong contents.
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

    /// The acknowledged writes.
    pub fn writes(&self) -> &AcknowledgedWrites {
        &self.writes
    }

    /// The history of the counters and lists.
    pub fn history(&self) -> &History {
        &self.contest.history
    }

    /// The rows that were checked for being whole.
    pub fn rows(&self) -> &WholeRows {
        &self.rows
    }

    /// All other observations.
    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// When the load began. This is cheaper than [`Workload::seen`].
    pub fn loading_since(&self) -> Option<Duration> {
        self.seen.lock().loading_since
    }

    /// Returns once the load has begun.
    pub(crate) async fn until_loading(&self) {
        while self.loading_since().is_none() {
            tokio::time::sleep(LOADING_LOOK_PAUSE).await;
        }
    }

    /// Records that the faults are over.
    pub fn calm_down(&self, now: Duration) {
        self.seen.lock().calm_since.get_or_insert(now);
    }

    /// Runs all clients until the faults are over and everything has been read.
    ///
    /// # Errors
    /// The cluster did not begin to serve, or the table cannot be read at the end.
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
            // Each contender has its own client, and thus its own nonces.
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
            // Use a new client, which must look up the regions: the others may know locations that
            // only they know.
            let newcomer = self.table(&seams)?;
            self.writes.check_all(&self.read_all(&newcomer).await?);
        }
        Ok(())
    }

    /// Two clients write and delete versions: one in a family that only limits their number, and
    /// one, less often, in families whose cells have a time to live or are kept when they are
    /// deleted.
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

    /// Creates, changes and deletes the other tables, while regions are moved.
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

    /// Opens a separate client.
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

    /// Resets the observations: the load begins here.
    fn begin_loading(&self, servers: BTreeMap<u32, String>) {
        self.trace.record(format_args!("client: all regions take writes"));
        let loading_since = turmoil::sim_elapsed();
        *self.seen.lock() = Seen { loading_since, servers, ..Seen::default() };
    }

    /// How long the faults have been over; `None` if they are not.
    pub(crate) fn calm_for(&self) -> Option<Duration> {
        let since = self.seen.lock().calm_since?;
        Some(turmoil::sim_elapsed().unwrap_or(since).saturating_sub(since))
    }

    /// Records that the cluster is at the newest feature level.
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

    /// Whether the time to recover is over.
    fn is_late(&self) -> bool {
        self.calm_for().is_some_and(|calm| calm > CALM_TIME_MAX)
    }

    /// Counts an answered operation.
    fn count(&self, kind: &'static str) {
        *self.seen.lock().operations.entry(kind).or_default() += 1;
    }

    pub(crate) fn report(&self, violation: Violation) {
        self.seen.lock().violations.push(violation);
    }

    async fn read_all(&self, table: &Table) -> anyhow::Result<BTreeMap<Bytes, Bytes>> {
        // Region by region, because a scan of all regions would have to finish within one operation
        // timeout.
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

    /// Checks that a row of a writer is whole.
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

/// Whether a row belongs to a [`Writer`]: its number follows the region directly.
fn is_of_writer(row: &[u8]) -> bool {
    row.get(3).is_some_and(u8::is_ascii_digit)
}

fn random(seams: &Seams) -> Random {
    Random::from_seed(seams.random.next_u64())
}
