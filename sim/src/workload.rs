//! A client that writes and reads all regions of the table, and remembers what was acknowledged.
//!
//! Each region has a writer of its own, which never waits for another region. It writes a new row
//! each time, makes attempts until one is acknowledged, and now and then reads back a row of its
//! own. At the end everything is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use basalt_client::{Connection, ConnectionConfig, Get, Outcome, Put, RegistryConfig, Scan, Table};
use basalt_runtime::{Random, Seams};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::invariants::AcknowledgedWrites;
use crate::plan::{FAMILY, table_name};
use crate::trace::Trace;

/// The column that is written.
const QUALIFIER: &[u8] = b"value";
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(250);
/// The pause after an attempt that failed.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);
/// Until then a region must take a write again, whatever was done to the cluster.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// The pause between two writes of a region.
const PACE_MS: std::ops::Range<u64> = 5..25;

/// How much is done.
#[derive(Clone, Debug)]
pub struct WorkloadConfig {
    /// How the cluster is found.
    pub registry: RegistryConfig,
    /// How many regions the table has.
    pub regions: u32,
    /// For how long they are written.
    pub load: Duration,
}

/// A workload, and what it has seen so far.
#[derive(Debug)]
pub struct Workload {
    config: WorkloadConfig,
    trace: Trace,
    writes: AcknowledgedWrites,
    seen: Mutex<Seen>,
}

/// What was seen, besides the writes.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When all regions had taken a first write.
    pub loading_since: Option<Duration>,
    /// Which process had each region then.
    pub servers: BTreeMap<u32, String>,
    /// Attempts to write that may have been applied.
    pub unknown: u64,
    /// Attempts to write that were certainly not applied.
    pub failed: u64,
    /// The longest that each region took from the start of a write to its acknowledgement.
    pub outages: BTreeMap<u32, Duration>,
    /// How many rows were read back under load.
    pub reads: u64,
}

// === impl Workload ===

impl Workload {
    /// A workload that has not begun.
    pub fn new(config: WorkloadConfig, trace: &Trace) -> Self {
        let trace = trace.clone();
        Self { config, trace, writes: AcknowledgedWrites::default(), seen: Mutex::default() }
    }

    /// What was acknowledged.
    pub fn writes(&self) -> &AcknowledgedWrites {
        &self.writes
    }

    /// What else was seen.
    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// Writes for as long as the configuration says, then reads everything.
    ///
    /// # Errors
    /// A region took no write for too long, or the table cannot be read.
    pub async fn run(self: Arc<Self>, seams: Seams) -> anyhow::Result<()> {
        let config = ConnectionConfig::new(self.config.registry.clone());
        let table = Connection::new(&seams, config).table(&table_name()?);
        let mut writers: Vec<Writer> = (0..self.config.regions)
            .map(|region| Writer {
                workload: Arc::clone(&self),
                table: table.clone(),
                random: Random::from_seed(seams.random.next_u64()),
                region,
                next: 0,
            })
            .collect();
        futures::future::try_join_all(writers.iter_mut().map(Writer::write)).await?;
        let mut servers = BTreeMap::new();
        for writer in &writers {
            let location = table.locate(&writer.row(0)).await?;
            servers.insert(writer.region, location.server.host.clone());
        }
        self.begin_loading(servers);
        let end = Instant::now() + self.config.load;
        futures::future::try_join_all(writers.iter_mut().map(|writer| writer.write_until(end)))
            .await?;
        self.trace.record(format_args!("client: {} writes acknowledged", self.writes.count()));
        self.writes.check_all(&self.read_all(&table).await?);
        Ok(())
    }

    /// From here on it counts.
    fn begin_loading(&self, servers: BTreeMap<u32, String>) {
        self.trace.record(format_args!("client: all regions take writes"));
        let loading_since = turmoil::sim_elapsed();
        *self.seen.lock() = Seen { loading_since, servers, ..Seen::default() };
    }

    async fn read_all(&self, table: &Table) -> anyhow::Result<BTreeMap<Bytes, Bytes>> {
        let rows = table.scan(Scan::default()).rows().await.context("reading all rows")?;
        self.trace.record(format_args!("client: {} rows read", rows.len()));
        let found = rows.iter().filter_map(|row| {
            let (key, value) = (row.row()?, row.value(FAMILY.as_bytes(), QUALIFIER)?);
            Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)))
        });
        Ok(found.collect())
    }
}

/// The writer of one region.
struct Writer {
    workload: Arc<Workload>,
    table: Table,
    random: Random,
    region: u32,
    next: u64,
}

// === impl Writer ===

impl Writer {
    async fn write_until(&mut self, end: Instant) -> anyhow::Result<()> {
        while Instant::now() < end {
            self.write().await?;
            self.read_back().await;
            let pace = Duration::from_millis(self.random.in_range(PACE_MS));
            tokio::time::sleep(pace).await;
        }
        Ok(())
    }

    /// Writes the next row, by as many attempts as it takes.
    async fn write(&mut self) -> anyhow::Result<()> {
        let row = self.row(self.next);
        let value = Bytes::from(format!("value {}", self.next));
        let put = Put::new(row.clone()).column(FAMILY.as_bytes(), QUALIFIER, &value);
        let started = Instant::now();
        loop {
            let error = match self.table.try_put(&put, ATTEMPT_TIMEOUT).await {
                Outcome::Acked(()) => break,
                Outcome::Failed(error) => {
                    self.workload.seen.lock().failed += 1;
                    error
                }
                Outcome::Unknown(error) => {
                    self.workload.seen.lock().unknown += 1;
                    error
                }
            };
            if started.elapsed() > WRITE_DEADLINE {
                bail!("region {} took no write for {WRITE_DEADLINE:?}: {error}", self.region);
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
        self.next += 1;
        let workload = &self.workload;
        let name = String::from_utf8_lossy(&row);
        workload.trace.record(format_args!("client: acknowledged {name}"));
        workload.writes.acknowledge(row, value);
        let mut seen = workload.seen.lock();
        let outage = seen.outages.entry(self.region).or_default();
        *outage = started.elapsed().max(*outage);
        Ok(())
    }

    /// Reads one of the rows that were acknowledged; that it cannot be read now proves nothing.
    async fn read_back(&mut self) {
        let row = self.row(self.random.in_range(0..self.next.max(1)));
        let outcome = self.table.try_get(&Get::new(row.clone()), ATTEMPT_TIMEOUT).await;
        if let Outcome::Acked(found) = outcome {
            self.workload.seen.lock().reads += 1;
            self.workload.writes.check_read(&row, found.value(FAMILY.as_bytes(), QUALIFIER));
        }
    }

    fn row(&self, number: u64) -> Bytes {
        Bytes::from(format!("{:02}-{number:08}", self.region))
    }
}
