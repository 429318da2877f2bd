//! Measures the speed of the write-ahead log on an HDFS: `wal_bench CONF WRITERS SECONDS`.
//!
//! Each writer appends an edit of one cell with a value of 1,000 bytes, waits until it is durable,
//! and appends the next one, as Apache HBase's `WALPerformanceEvaluation` does. Prints one line of
//! JSON. CONF is the folder with core-site.xml and hdfs-site.xml.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use basalt_fs::{Durability, SharedFileSystem};
use basalt_hdfs::{HdfsConfig, HdfsFileSystem};
use basalt_model::{Cell, EncodedRegionName, RegionEpoch, SequenceId, ServerName, paths};
use basalt_runtime::Seams;
use basalt_storage::wal::{EncodedEdit, Wal, WalConfig};

/// The length of a value, in bytes.
const VALUE_BYTES: usize = 1000;
/// The warm-up time; edits appended before its end do not count.
const WARM_UP: Duration = Duration::from_secs(3);

// As many threads as a region server of `basalt local` has on a machine with two cores.
#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, writers, seconds] = arguments.as_slice() else {
        anyhow::bail!("usage: wal_bench CONF WRITERS SECONDS");
    };
    let (writers, length): (u64, _) = (writers.parse()?, Duration::from_secs(seconds.parse()?));
    let seams = Seams::system();
    let config = HdfsConfig::from_folder(Path::new(folder), None)?;
    let root = format!("/wal-bench-{:016x}", seams.random.next_u64());
    let files: SharedFileSystem = Arc::new(HdfsFileSystem::new(&seams, config, Path::new(&root))?);
    files.create_directories(&paths::logs()).await?;
    let server = ServerName { host: "bench".to_owned(), port: 1, start_code: 1 };
    let wal_config = WalConfig::default();
    let clock = seams.clock.clone();
    let wal = Wal::create(Arc::clone(&files), &server, "bench", wal_config, clock.clone()).await?;
    let wal = Arc::new(wal);
    let started = clock.boot_time();
    let running: Vec<_> = (0..writers)
        .map(|writer| {
            let (wal, clock) = (Arc::clone(&wal), clock.clone());
            tokio::spawn(async move {
                let since = move || clock.boot_time().saturating_sub(started);
                write(&wal, writer, length, since).await
            })
        })
        .collect();
    let mut took = Vec::new();
    for writer in running {
        took.extend(writer.await??);
    }
    took.sort_unstable();
    let stats = wal.stats();
    wal.close().await?;
    files.delete_directory(Path::new("/")).await?;
    let at = |part: f64| {
        let index = (took.len() as f64 * part) as usize;
        took.get(index.min(took.len().saturating_sub(1))).map_or(0.0, |t| t.as_secs_f64() * 1000.0)
    };
    println!(
        "{{\"writers\": {writers}, \"edits_per_s\": {:.0}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}, \
         \"max_ms\": {:.3}, \"edits_a_batch\": {:.1}, \"replaced_files\": {}}}",
        took.len() as f64 / length.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
        stats.edits as f64 / stats.batches.max(1) as f64,
        stats.replaced_files,
    );
    Ok(())
}

/// Writes until the time is over. Returns how long each edit after the warm-up took.
async fn write(
    wal: &Wal,
    writer: u64,
    length: Duration,
    since: impl Fn() -> Duration,
) -> anyhow::Result<Vec<Duration>> {
    let region = EncodedRegionName::from_digest([writer as u8; 16]);
    let value = vec![writer as u8; VALUE_BYTES];
    let mut took = Vec::new();
    for sequence_id in 1.. {
        let begun = since();
        if begun >= WARM_UP + length {
            break;
        }
        let row = format!("row{sequence_id}");
        let cell = Cell::put(row.as_bytes(), b"f", b"q", 7, &value)?;
        let cells = [cell.with_sequence_id(SequenceId(sequence_id))];
        let edit = EncodedEdit::new(region, RegionEpoch(1), 7, None, &cells)?;
        let permit = wal.reserve(edit.record_bytes()).await?;
        permit
            .append(&edit, SequenceId(sequence_id), Durability::default())
            .synced()
            .await
            .context("an edit")?;
        if begun >= WARM_UP {
            took.push(since().saturating_sub(begun));
        }
    }
    Ok(took)
}
