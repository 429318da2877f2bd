//! The running probe: two streams for each region, which never wait for another region.
//!
//! An attempt without an answer in time counts as late, and the next attempt begins. The late
//! request continues, because a server that resumes after a pause may still acknowledge it, and
//! must then have kept it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_client::{Connection, Error, Get, Outcome, Put, Scan, Table};
use basalt_model::{ServerName, TableName};
use basalt_runtime::{Seams, Shutdown};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::{Attempts, Audit, RegionRows, RunId};
use crate::measurement::{Fault, Measurement, Totals};
use crate::outage::{ATTEMPT_PATIENCE, Attempt, AttemptOutcome, OutageTracker, RegionOutages};
use crate::timeline::{Kind, Timeline};

/// The settings of a probe.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// The table.
    pub table: TableName,
    /// The family that is written to.
    pub family: String,
    /// The interval between two writes, and between two reads, of each region.
    pub pace: Duration,
    /// The length of the values in bytes.
    pub value_bytes: usize,
}

/// A running probe.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<ProbeShared>,
    regions: Vec<Arc<RegionProbe>>,
    tasks: TaskTracker,
    stop: Shutdown,
}

#[derive(Debug)]
struct ProbeShared {
    table: Table,
    config: ProbeConfig,
    begun: Instant,
    timeline: Mutex<Timeline>,
    writes: Mutex<Totals>,
    reads: Mutex<Totals>,
    stale_reads: AtomicU64,
}

/// State of one region.
#[derive(Debug)]
struct RegionProbe {
    rows: RegionRows,
    start_key: Bytes,
    attempts: Mutex<Attempts>,
    writes: Mutex<OutageTracker>,
    reads: Mutex<OutageTracker>,
}

/// Determines when a stream makes its next attempt.
struct Pace {
    next: Instant,
    every: Duration,
    /// The pause after the next attempt that is rejected, and the longest such pause.
    repeat: Duration,
    repeat_max: Duration,
}

/// The fastest pace: 100 writes per second to each region.
const PACE_MIN: Duration = Duration::from_millis(10);
/// Maximum writes per second over all regions.
const WRITES_PER_SECOND_MAX: u64 = 2_000;
/// How long to wait for the answer to a late attempt.
const LATE_ANSWER: Duration = Duration::from_secs(30);
/// How soon a rejected attempt is repeated. With many regions this pause grows with each rejection:
/// otherwise the attempts for hundreds of unavailable regions would take CPU time from the servers.
const REPEAT_MIN: Duration = Duration::from_millis(10);
const REPEAT_MAX: Duration = Duration::from_millis(50);
/// How far a stream may be behind its pace and still catch up.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);
/// The column that is written.
const QUALIFIER: &[u8] = b"v";
/// Maximum attempts to read back a region.
const AUDIT_ATTEMPTS: usize = 5;

// === impl ProbeConfig ===

impl ProbeConfig {
    /// The standard settings for measuring outages: one write per region every 10 ms, or 2,000 per
    /// second in total if there are more than 20 regions.
    pub fn standard(table: TableName, family: &str, regions: usize) -> Self {
        let shared = Duration::from_micros(regions as u64 * 1_000_000 / WRITES_PER_SECOND_MAX);
        Self { table, family: family.to_owned(), pace: PACE_MIN.max(shared), value_bytes: 100 }
    }
}

// === impl Probe ===

impl Probe {
    /// Starts the streams of all regions of the table.
    ///
    /// # Errors
    /// The regions cannot be found.
    pub async fn start(
        connection: &Connection,
        seams: &Seams,
        config: ProbeConfig,
    ) -> Result<Self, Error> {
        let run = RunId(seams.random.next_u64());
        let locations = connection.admin().regions(&config.table).await?;
        let regions = locations.iter().filter_map(|location| {
            let (start, end) = (&location.region.start_key, &location.region.end_key);
            let rows = RegionRows::new(start, end, run)?;
            Some(Arc::new(RegionProbe {
                rows,
                start_key: start.clone(),
                attempts: Mutex::default(),
                writes: Mutex::default(),
                reads: Mutex::default(),
            }))
        });
        let regions: Vec<_> = regions.collect();
        let shared = Arc::new(ProbeShared {
            table: connection.table(&config.table),
            config,
            begun: Instant::now(),
            timeline: Mutex::default(),
            writes: Mutex::default(),
            reads: Mutex::default(),
            stale_reads: AtomicU64::new(0),
        });
        let (tasks, stop) = (TaskTracker::new(), Shutdown::new());
        for region in &regions {
            // Spread the starts over one pace, so that the streams do not run in lockstep.
            let delay = Duration::from_micros(
                seams.random.in_range(0..shared.config.pace.as_micros().max(1) as u64),
            );
            let (one, other) = (Arc::clone(region), Arc::clone(region));
            tasks.spawn(write_stream(Arc::clone(&shared), one, delay, tasks.clone(), stop.clone()));
            let delay = delay + shared.config.pace / 2;
            let read = read_stream(Arc::clone(&shared), other, delay, tasks.clone(), stop.clone());
            tasks.spawn(read);
        }
        Ok(Self { shared, regions, tasks, stop })
    }

    /// The time since the start.
    pub fn now(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// The number of regions that are probed.
    pub fn regions(&self) -> usize {
        self.regions.len()
    }

    /// The numbers of the regions that are on `server` now.
    ///
    /// # Errors
    /// The regions cannot be found.
    pub async fn regions_on(
        &self,
        connection: &Connection,
        server: impl Fn(&ServerName) -> bool,
    ) -> Result<BTreeSet<usize>, Error> {
        let locations = connection.admin().regions(&self.shared.config.table).await?;
        let on_server: BTreeSet<&Bytes> = locations
            .iter()
            .filter(|location| server(&location.server))
            .map(|location| &location.region.start_key)
            .collect();
        let numbered = self.regions.iter().enumerate();
        Ok(numbered
            .filter(|(_, region)| on_server.contains(&region.start_key))
            .map(|(number, _)| number)
            .collect())
    }

    /// Whether all of `regions` have served a write and a read that began after `moment`.
    pub fn serve_since(&self, regions: &BTreeSet<usize>, moment: Duration) -> bool {
        regions.iter().filter_map(|number| self.regions.get(*number)).all(|region| {
            region.writes.lock().serves_since(moment) && region.reads.lock().serves_since(moment)
        })
    }

    /// The address of the server with the most regions of the table, as `host:port`.
    ///
    /// # Errors
    /// The regions cannot be found.
    pub async fn busiest_server(&self, connection: &Connection) -> Result<String, Error> {
        let mut counts = BTreeMap::<String, usize>::new();
        for location in connection.admin().regions(&self.shared.config.table).await? {
            *counts.entry(location.server.address()).or_default() += 1;
        }
        let busiest = counts.into_iter().max_by_key(|(_, count)| *count);
        Ok(busiest.map(|(server, _)| server).unwrap_or_default())
    }

    /// The number of regions that do not accept writes at this moment.
    pub fn regions_out(&self) -> usize {
        let regions = self.regions.iter();
        regions.filter(|region| region.writes.lock().out_since().is_some()).count()
    }

    /// The numbers of all regions.
    pub fn all_regions(&self) -> BTreeSet<usize> {
        (0..self.regions.len()).collect()
    }

    /// The number of acknowledged writes.
    pub fn acknowledged(&self) -> u64 {
        self.regions.iter().map(|region| region.attempts.lock().acknowledged_count()).sum()
    }

    /// Stops the streams, waits for late answers, and reads everything back.
    ///
    /// # Errors
    /// A region cannot be read back even after several attempts.
    pub async fn finish(self, cluster: &str, faults: Vec<Fault>) -> Result<Measurement, Error> {
        let length = self.now();
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let mut audit = Audit::default();
        let mut regions = Vec::with_capacity(self.regions.len());
        for region in &self.regions {
            let present = self.shared.read_back(region).await?;
            audit = audit.plus(region.attempts.lock().audit(present));
            let finished = |tracker: &Mutex<OutageTracker>| {
                std::mem::take(&mut *tracker.lock()).finish(length)
            };
            regions.push(RegionOutages {
                writes: finished(&region.writes),
                reads: finished(&region.reads),
                timeline: None,
            });
        }
        let shared = &self.shared;
        Ok(Measurement {
            cluster: cluster.to_owned(),
            length,
            buckets: std::mem::take(&mut *shared.timeline.lock()).finish(),
            writes: std::mem::take(&mut *shared.writes.lock()),
            reads: std::mem::take(&mut *shared.reads.lock()),
            regions,
            faults,
            audit,
            stale_reads: shared.stale_reads.load(Ordering::Relaxed),
        })
    }
}

// === impl ProbeShared ===

impl ProbeShared {
    fn totals(&self, kind: Kind) -> &Mutex<Totals> {
        if kind == Kind::Write { &self.writes } else { &self.reads }
    }

    /// Counts a successful attempt if it succeeded after its stream stopped waiting for it.
    fn count_late(&self, kind: Kind, start: Duration) {
        let latency = self.begun.elapsed().saturating_sub(start);
        if latency > ATTEMPT_PATIENCE {
            self.totals(kind).lock().late.record(latency);
        }
    }

    fn count(&self, kind: Kind, tracker: &Mutex<OutageTracker>, attempt: Attempt) {
        let latency = attempt.end.saturating_sub(attempt.start);
        let succeeded = attempt.outcome == AttemptOutcome::Succeeded;
        let totals = self.totals(kind);
        if succeeded {
            totals.lock().latencies.record(latency);
        } else {
            totals.lock().failed += 1;
        }
        self.timeline.lock().record(kind, attempt.end, succeeded.then_some(latency));
        tracker.lock().record(attempt);
    }

    /// The attempts of a region whose rows exist and are intact.
    async fn read_back(&self, region: &RegionProbe) -> Result<Vec<u32>, Error> {
        let mut attempts = 1;
        loop {
            match self.scan_back(region).await {
                Ok(present) => return Ok(present),
                Err(error) if attempts == AUDIT_ATTEMPTS => return Err(error),
                Err(error) => tracing::warn!("reading back failed, trying again: {error}"),
            }
            attempts += 1;
        }
    }

    async fn scan_back(&self, region: &RegionProbe) -> Result<Vec<u32>, Error> {
        let scan = Scan::range(region.rows.start(), region.rows.end());
        let mut scanner = self.table.scan(scan);
        let mut present = Vec::new();
        while let Some(result) = scanner.next().await? {
            let Some(number) = result.row().and_then(|row| region.rows.number(row)) else {
                continue;
            };
            let value = result.value(self.config.family.as_bytes(), QUALIFIER);
            if value.is_some_and(|value| region.rows.is_value(number, value)) {
                present.push(number);
            }
        }
        Ok(present)
    }
}

/// Writes to one region until `stop` is cancelled.
async fn write_stream(
    shared: Arc<ProbeShared>,
    region: Arc<RegionProbe>,
    delay: Duration,
    tasks: TaskTracker,
    stop: Shutdown,
) {
    let mut pace = Pace::new(shared.config.pace, delay);
    while pace.wait(&stop).await {
        let Some(number) = region.attempts.lock().begin() else { return };
        let start = shared.begun.elapsed();
        let answer = tasks.spawn(write_once(Arc::clone(&shared), Arc::clone(&region), number));
        let outcome = match timeout(ATTEMPT_PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => AttemptOutcome::Unknown,
            Err(_) => {
                shared.table.doubt(&region.rows.row(number));
                AttemptOutcome::Unknown
            }
        };
        let end = shared.begun.elapsed();
        shared.count(Kind::Write, &region.writes, Attempt { start, end, outcome });
        pace.after(outcome);
    }
}

/// Makes one write. Its answer is recorded however late it comes.
async fn write_once(
    shared: Arc<ProbeShared>,
    region: Arc<RegionProbe>,
    number: u32,
) -> AttemptOutcome {
    let start = shared.begun.elapsed();
    let row = region.rows.row(number);
    // A write that could not even be sent in time is not sent at all.
    let located = timeout(ATTEMPT_PATIENCE, shared.table.locate(&row)).await;
    if !matches!(located, Ok(Ok(_))) {
        region.attempts.lock().refuse();
        return AttemptOutcome::Refused;
    }
    let value = region.rows.value(number, shared.config.value_bytes);
    let put = Put::new(row).column(shared.config.family.as_bytes(), QUALIFIER, &value);
    match shared.table.try_put(&put, LATE_ANSWER).await {
        Outcome::Acked(()) => {
            region.attempts.lock().acknowledge(number);
            shared.count_late(Kind::Write, start);
            AttemptOutcome::Succeeded
        }
        Outcome::Failed(error) => {
            tracing::debug!(number, "write rejected: {error}");
            region.attempts.lock().refuse();
            AttemptOutcome::Refused
        }
        Outcome::Unknown(error) => {
            tracing::debug!(number, "write unknown: {error}");
            AttemptOutcome::Unknown
        }
    }
}

/// Reads the newest acknowledged row of one region until `stop` is cancelled.
async fn read_stream(
    shared: Arc<ProbeShared>,
    region: Arc<RegionProbe>,
    delay: Duration,
    tasks: TaskTracker,
    stop: Shutdown,
) {
    let mut pace = Pace::new(shared.config.pace, delay);
    while pace.wait(&stop).await {
        let Some(number) = region.attempts.lock().newest() else {
            pace.after(AttemptOutcome::Refused);
            continue;
        };
        let start = shared.begun.elapsed();
        let answer = tasks.spawn(read_once(Arc::clone(&shared), Arc::clone(&region), number));
        let outcome = match timeout(ATTEMPT_PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => AttemptOutcome::Unknown,
            Err(_) => {
                shared.table.doubt(&region.rows.row(number));
                AttemptOutcome::Unknown
            }
        };
        let end = shared.begun.elapsed();
        shared.count(Kind::Read, &region.reads, Attempt { start, end, outcome });
        pace.after(outcome);
    }
}

/// Makes one strong read of the row that attempt `number` wrote and that was acknowledged. Its
/// answer is recorded however late it comes.
async fn read_once(
    shared: Arc<ProbeShared>,
    region: Arc<RegionProbe>,
    number: u32,
) -> AttemptOutcome {
    let start = shared.begun.elapsed();
    let family = shared.config.family.as_bytes();
    let row = region.rows.row(number);
    // A read that could not even be sent in time is not sent at all.
    let located = timeout(ATTEMPT_PATIENCE, shared.table.locate(&row)).await;
    if !matches!(located, Ok(Ok(_))) {
        return AttemptOutcome::Refused;
    }
    let get = Get::new(row).column(family, QUALIFIER);
    match shared.table.try_get(&get, LATE_ANSWER).await {
        Outcome::Acked(result) => {
            let value = result.value(family, QUALIFIER);
            if !value.is_some_and(|value| region.rows.is_value(number, value)) {
                tracing::warn!(number, "a strong read missed an acknowledged write");
                shared.stale_reads.fetch_add(1, Ordering::Relaxed);
            }
            shared.count_late(Kind::Read, start);
            AttemptOutcome::Succeeded
        }
        Outcome::Failed(_) => AttemptOutcome::Refused,
        Outcome::Unknown(_) => AttemptOutcome::Unknown,
    }
}

// === impl Pace ===

impl Pace {
    fn new(every: Duration, delay: Duration) -> Self {
        let repeat_max = (every / 10).clamp(REPEAT_MIN, REPEAT_MAX);
        Self { next: Instant::now() + delay, every, repeat: REPEAT_MIN, repeat_max }
    }

    /// Waits for the next attempt; returns `false` once `stop` is cancelled.
    async fn wait(&self, stop: &Shutdown) -> bool {
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = tokio::time::sleep_until(self.next) => true,
        }
    }

    /// Sets the time of the next attempt. A stream catches up after an attempt that took longer
    /// than the pace, but not after an outage.
    fn after(&mut self, outcome: AttemptOutcome) {
        let now = Instant::now();
        self.next = match outcome {
            AttemptOutcome::Succeeded => (self.next + self.every).max(now - CATCH_UP_MAX),
            AttemptOutcome::Refused => now + self.repeat,
            AttemptOutcome::Unknown => now,
        };
        self.repeat = match outcome {
            AttemptOutcome::Refused => (self.repeat * 2).min(self.repeat_max),
            AttemptOutcome::Succeeded | AttemptOutcome::Unknown => REPEAT_MIN,
        };
    }
}
