//! Measures the log, on demand:
//! `cargo test --release -p basalt-storage wal::tests::measure -- --ignored --nocapture`

use std::sync::Arc;
use std::time::Duration;

use basalt_fs::{LocalFileSystem, SharedFileSystem};
use basalt_runtime::{Clock, SystemClock};

use super::*;
use crate::wal::split_index::{PartReader, SplitIndex, write_split_index};

const REGIONS: u8 = 12;

/// The time that a piece of work took. Other processes may use the machine too, so the processor
/// time is more reliable.
struct Stopwatch {
    clock: Clock,
    started: Duration,
    processor_ms: u64,
}

impl Stopwatch {
    fn start() -> Self {
        let clock = Clock::new(SystemClock);
        Self { started: clock.boot_time(), clock, processor_ms: processor_ms() }
    }

    fn report(self, what: &str, bytes: u64) {
        let took = (self.clock.boot_time() - self.started).as_secs_f64();
        let processor = processor_ms() - self.processor_ms;
        let rate = bytes as f64 / took / (1 << 20) as f64;
        println!("{what}: {:.0} ms, {processor} ms of processor, {rate:.0} MiB/s", took * 1000.0);
    }
}

/// The processor time of this process, in steps of 10 ms.
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

/// A folder on a disk: `/tmp` may be in memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::var("MEASURE_IN").unwrap_or(".".into())).unwrap()
}

async fn fill(files: &SharedFileSystem, total_bytes: u64, value_bytes: usize) {
    let config = WalConfig { roll_bytes: u64::MAX, ..WalConfig::default() };
    let wal = create(files, config).await.unwrap();
    let (mut written, mut sequence_id) = (0, 0);
    while written < total_bytes {
        let mut last = None;
        for _ in 0..256 {
            sequence_id += 1;
            let edit =
                edit((sequence_id * 7 % u64::from(REGIONS)) as u8, sequence_id * 2, value_bytes);
            written += encode(&edit).record_bytes() as u64;
            last = Some(append(&wal, &edit).await.unwrap());
        }
        last.unwrap().synced().await.unwrap();
    }
    wal.close().await.unwrap();
}

async fn replay(files: &SharedFileSystem, number: u8) -> u64 {
    let index = SplitIndex::open(files, &log(1), &Arc::default()).await.unwrap();
    let part = index.part(region(number)).await.unwrap();
    let mut reader = PartReader::new(part.unwrap());
    let mut cells = 0;
    while let Some(edit) = reader.next().await.unwrap() {
        cells += edit.cells.len() as u64;
    }
    cells
}

async fn measure_recovery(value_bytes: usize) {
    let folder = folder();
    let files: SharedFileSystem = Arc::new(LocalFileSystem::open(folder.path()).unwrap());
    fill(&files, 512 << 20, value_bytes).await;
    let bytes = length(&files, &log(1)).await;
    println!("{bytes} bytes, values of {value_bytes}");
    let stopwatch = Stopwatch::start();
    let summary = write_split_index(&files, &log(1), bytes).await.unwrap();
    stopwatch.report("index", bytes);
    println!(
        "index file: {} bytes",
        length(&files, &crate::wal::split_index::index_path(&log(1))).await
    );
    let edits: u64 = summary.parts.iter().map(|part| part.edits).sum();
    let stopwatch = Stopwatch::start();
    assert_eq!(replay(&files, 0).await, summary.parts[0].edits);
    stopwatch.report("replay of one region", summary.parts[0].bytes);
    let stopwatch = Stopwatch::start();
    let readers: Vec<_> = (0..REGIONS)
        .map(|number| {
            let files = Arc::clone(&files);
            tokio::spawn(async move { replay(&files, number).await })
        })
        .collect();
    let mut cells = 0;
    for reader in readers {
        cells += reader.await.unwrap();
    }
    stopwatch.report("replay of all regions at once", bytes);
    assert_eq!(cells, edits);
    let stopwatch = Stopwatch::start();
    let mut reader = WalReader::open(&files, &log(1), bytes).await.unwrap();
    while reader.next().await.unwrap().is_some() {}
    stopwatch.report("plain read", bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn recovery_of_512_mb() {
    measure_recovery(1000).await;
    measure_recovery(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn group_commit() {
    for streams in [1_u64, 16, 256] {
        let folder = folder();
        let files: SharedFileSystem = Arc::new(LocalFileSystem::open(folder.path()).unwrap());
        let clock = Clock::new(SystemClock);
        let wal = Arc::new(create(&files, WalConfig::default()).await.unwrap());
        let started = clock.boot_time();
        let writers: Vec<_> = (0..streams)
            .map(|stream| {
                let (wal, clock) = (Arc::clone(&wal), clock.clone());
                tokio::spawn(async move {
                    let mut sequence_id = 0;
                    while clock.boot_time() - started < Duration::from_secs(3) {
                        sequence_id += 2;
                        let edit = edit((stream % 12) as u8, sequence_id, 1000);
                        append_synced(&wal, &edit).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let took = (clock.boot_time() - started).as_secs_f64();
        let stats = wal.stats();
        println!(
            "{streams} streams: {:.0} edits/s, {:.0} syncs/s, {:.3} ms a sync, {:.1} ms at most",
            stats.edits as f64 / took,
            stats.batches as f64 / took,
            stats.sync_time.as_secs_f64() * 1000.0 / stats.batches as f64,
            stats.sync_time_max.as_secs_f64() * 1000.0,
        );
    }
}
