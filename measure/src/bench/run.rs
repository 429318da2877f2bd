//! Runs the mixes with concurrent streams. Each stream sends its next request as soon as the last
//! one is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_client::{Get, Put, Scan, Table};
use basalt_model::TableName;
use basalt_runtime::{Random, Seams};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::report::{BenchReport, Machine, MixResult, TargetReport};
use super::workload::{FIELD_BYTES, FIELDS, Mix, Operation, Zipfian, key};
use crate::histogram::Histogram;
use crate::process::Usage;
use crate::report::Latencies;
use crate::target::{Target, describe, drop_table, ensure_table};
use crate::{Error, Result};

/// The configuration of a benchmark.
#[derive(Clone, Debug)]
pub struct BenchConfig {
    /// The clusters.
    pub targets: Vec<BenchTarget>,
    /// The mixes, in order.
    pub mixes: Vec<Mix>,
    /// How many rows are loaded.
    pub rows: u64,
    /// Maximum operations of a mix.
    pub operations: u64,
    /// Maximum duration of a mix; loading is not cut short.
    pub mix_time_max: Duration,
    /// How many requests are under way at once.
    pub streams: usize,
    /// The number of rounds.
    pub rounds: u32,
    /// The table; it is created before each load.
    pub table: TableName,
    /// The number of regions of the table.
    pub regions: u32,
}

/// One cluster.
#[derive(Clone, Debug)]
pub struct BenchTarget {
    /// Its name in tables.
    pub name: String,
    /// How to find it.
    pub target: Target,
    /// Its servers' processes, if they run on this machine.
    pub pids: Vec<u32>,
    /// The processes that store its data, such as DataNodes: their processor time counts as well.
    pub storage_pids: Vec<u32>,
}

// === impl BenchTarget ===

impl BenchTarget {
    /// The resources its processes have used. Memory counts the servers only.
    fn usage(&self) -> Result<Usage> {
        let servers = Usage::of(&self.pids)?;
        Ok(Usage { cpu: servers.cpu + Usage::of(&self.storage_pids)?.cpu, ..servers })
    }
}

/// The progress of a benchmark.
#[derive(Clone, Copy, Debug)]
pub struct BenchProgress<'a> {
    /// Which target.
    pub target: &'a str,
    /// Which round, from 1.
    pub round: u32,
    /// Which mix.
    pub mix: Mix,
    /// Operations done.
    pub done: u64,
    /// Operations to do.
    pub operations: u64,
    /// Time since the mix began.
    pub elapsed: Duration,
}

/// State shared by the streams of one mix.
struct Work {
    table: Table,
    family: String,
    mix: Mix,
    zipfian: Zipfian,
    /// Rows to choose from.
    rows: u64,
    next_insert: AtomicU64,
    operations: u64,
    begun_operations: AtomicU64,
    done: AtomicU64,
    deadline: Instant,
}

/// The measurements of one stream.
#[derive(Default)]
struct Tally {
    latencies: Histogram,
    errors: u64,
    last_error: Option<String>,
}

const FAMILY: &str = "family";
/// How often progress is reported and memory is sampled.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the benchmark and reports its progress to `progress`.
///
/// # Errors
/// A cluster does not answer, or a process that is to be watched does not run.
pub async fn run(
    config: &BenchConfig,
    seams: &Seams,
    progress: &mut (dyn FnMut(BenchProgress<'_>) + Send),
) -> Result<BenchReport> {
    if config.mixes.first() != Some(&Mix::Load) {
        let reason =
            "the first mix must be load: the others use the rows that it writes".to_owned();
        return Err(Error::BadBenchmark { reason });
    }
    let mut targets = Vec::new();
    for target in &config.targets {
        target.usage()?;
        let version = describe(&target.target.connect(seams)).await?;
        targets.push(TargetReport {
            name: target.name.clone(),
            target: target.target.to_string(),
            version,
            processes: target.pids.len(),
        });
    }
    let mut results = Vec::new();
    for round in 1..=config.rounds {
        for target in &config.targets {
            run_target(config, target, round, seams, &mut results, progress).await?;
        }
    }
    Ok(BenchReport::new(Machine::this(), config, targets, results))
}

async fn run_target(
    config: &BenchConfig,
    target: &BenchTarget,
    round: u32,
    seams: &Seams,
    results: &mut Vec<MixResult>,
    progress: &mut (dyn FnMut(BenchProgress<'_>) + Send),
) -> Result<()> {
    let connection = target.target.connect(seams);
    drop_table(&connection, &config.table).await?;
    let family = ensure_table(&connection, &config.table, FAMILY, config.regions).await?;
    let mut rows = 0;
    for &mix in &config.mixes {
        let is_load = mix == Mix::Load;
        let time_max = if is_load { Duration::from_secs(86_400) } else { config.mix_time_max };
        let work = Arc::new(Work {
            table: connection.table(&config.table),
            family: family.clone(),
            mix,
            zipfian: Zipfian::scrambled(),
            rows,
            next_insert: AtomicU64::new(rows),
            operations: if is_load { config.rows } else { config.operations },
            begun_operations: AtomicU64::new(0),
            done: AtomicU64::new(0),
            deadline: Instant::now() + time_max,
        });
        let step = |done, elapsed| BenchProgress {
            target: &target.name,
            round,
            mix,
            done,
            operations: work.operations,
            elapsed,
        };
        let mut show = |done, elapsed| progress(step(done, elapsed));
        results.push(run_mix(config, target, round, &work, seams, &mut show).await?);
        rows = work.next_insert.load(Ordering::Relaxed);
    }
    drop_table(&connection, &config.table).await
}

async fn run_mix(
    config: &BenchConfig,
    target: &BenchTarget,
    round: u32,
    work: &Arc<Work>,
    seams: &Seams,
    progress: &mut (dyn FnMut(u64, Duration) + Send),
) -> Result<MixResult> {
    let before = target.usage()?;
    let begun = Instant::now();
    let mut streams = JoinSet::new();
    for _ in 0..config.streams {
        // One generator per stream, so that streams do not wait for each other.
        let random = Random::from_seed(seams.random.next_u64());
        streams.spawn(stream(Arc::clone(work), random));
    }
    let mut total = Tally::default();
    let mut resident_bytes = before.resident_bytes_max;
    let mut watch = tokio::time::interval(WATCH_INTERVAL);
    loop {
        tokio::select! {
            biased;
            ended = streams.join_next() => match ended {
                Some(Ok(tally)) => total.add(tally),
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => break,
            },
            _ = watch.tick() => {
                progress(work.done.load(Ordering::Relaxed), begun.elapsed());
                resident_bytes = resident_bytes.max(target.usage()?.resident_bytes_max);
            }
        }
    }
    let elapsed = begun.elapsed();
    progress(work.done.load(Ordering::Relaxed), elapsed);
    if let Some(error) = &total.last_error {
        tracing::warn!(errors = total.errors, target = target.name, "the last error: {error}");
    }
    let cpu = target.usage()?.cpu.saturating_sub(before.cpu);
    let watched = !target.pids.is_empty();
    let count = total.latencies.count();
    Ok(MixResult {
        round,
        target: target.name.clone(),
        mix: work.mix.name(),
        operations: count,
        errors: total.errors,
        seconds: elapsed.as_secs_f64(),
        operations_per_s: count as f64 / elapsed.as_secs_f64(),
        latency_ms: Latencies::of(&total.latencies),
        cpu_seconds: watched.then_some(cpu.as_secs_f64()),
        operations_per_cpu_s: watched.then(|| count as f64 / cpu.as_secs_f64().max(0.01)),
        resident_bytes: watched.then_some(resident_bytes),
    })
}

async fn stream(work: Arc<Work>, random: Random) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < work.deadline
        && work.begun_operations.fetch_add(1, Ordering::Relaxed) < work.operations
    {
        let operation = work.mix.next(&work.zipfian, work.rows, &random);
        let begun = Instant::now();
        match work.perform(operation, &random).await {
            Ok(()) => tally.latencies.record(begun.elapsed()),
            Err(reason) => {
                tally.errors += 1;
                tally.last_error = Some(reason);
            }
        }
        work.done.fetch_add(1, Ordering::Relaxed);
    }
    tally
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies);
        self.errors += other.errors;
        self.last_error = other.last_error.or(self.last_error.take());
    }
}

// === impl Work ===

impl Work {
    async fn perform(
        &self,
        operation: Operation,
        random: &Random,
    ) -> std::result::Result<(), String> {
        match operation {
            Operation::Read(row) => self.read(row).await,
            Operation::Update(row) => self.update(row, random).await,
            Operation::ReadModifyWrite(row) => match self.read(row).await {
                Ok(()) => self.update(row, random).await,
                failed => failed,
            },
            Operation::Insert => {
                let row = self.next_insert.fetch_add(1, Ordering::Relaxed);
                let put =
                    (0..FIELDS).fold(Put::new(key(row)), |put, field| self.set(put, field, random));
                self.table.put(&put).await.map_err(|error| error.to_string())
            }
            Operation::Scan(row, length) => {
                let scan = Scan { rows_max: Some(length), rows_per_call: length, ..self.scan(row) };
                let rows = self.table.scan(scan).rows().await;
                rows.map(|_| ()).map_err(|error| error.to_string())
            }
        }
    }

    async fn read(&self, row: u64) -> std::result::Result<(), String> {
        let get = Get::new(key(row)).family(self.family.as_bytes());
        match self.table.get(&get).await {
            Ok(result) if result.cells.len() == FIELDS => Ok(()),
            Ok(result) => Err(format!("row {row} has {} fields", result.cells.len())),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn update(&self, row: u64, random: &Random) -> std::result::Result<(), String> {
        let field = usize::try_from(random.in_range(0..FIELDS as u64)).unwrap_or(0);
        let put = self.set(Put::new(key(row)), field, random);
        self.table.put(&put).await.map_err(|error| error.to_string())
    }

    fn set(&self, put: Put, field: usize, random: &Random) -> Put {
        let mut value = [0; FIELD_BYTES];
        random.fill(&mut value);
        put.column(self.family.as_bytes(), format!("field{field}").as_bytes(), &value)
    }

    fn scan(&self, row: u64) -> Scan {
        Scan::range(key(row), "")
    }
}
