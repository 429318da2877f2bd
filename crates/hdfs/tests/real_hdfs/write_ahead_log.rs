//! The write-ahead log of a region server on HDFS: rolled, fenced while its server lives, and read
//! up to the cuts.

use std::sync::Arc;

use basalt_fs::SharedFileSystem;
use basalt_model::{Cell, EncodedRegionName, RegionEpoch, SequenceId, ServerName, paths};
use basalt_runtime::{Clock, SystemClock};
use basalt_storage::wal::{self, EncodedEdit, Wal, WalConfig, WalReader};

use super::*;

const EDITS_MAX: u64 = 100_000;

async fn append(wal: &Wal, number: u64) -> wal::Result<()> {
    let region = EncodedRegionName::from_digest([7; 16]);
    let cell = Cell::put(format!("row{number}").as_bytes(), b"f", b"q", 1, &[7; 1000]).unwrap();
    let edit = EncodedEdit::new(region, RegionEpoch(1), number, None, &[cell])?;
    let permit = wal.reserve(edit.record_bytes()).await?;
    permit.append(&edit, SequenceId(number)).synced().await
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn a_log_is_fenced_under_its_server_and_has_every_acknowledged_edit() {
    let files: SharedFileSystem = Arc::new(files("wal").await);
    let server: ServerName = "rs-0.demo,16020,1700000000000".parse().unwrap();
    files.create_directories(&paths::logs()).await.unwrap();
    let config = WalConfig { roll_bytes: 10_000, ..WalConfig::default() };
    let clock = Clock::new(SystemClock);
    let wal = Wal::create(Arc::clone(&files), &server, "test", config, clock).await.unwrap();
    let writing = tokio::spawn(async move {
        for number in 1..EDITS_MAX {
            if append(&wal, number).await.is_err() {
                return number - 1;
            }
        }
        panic!("the fenced log takes edits");
    });
    sleep(Duration::from_millis(1500)).await;
    let started = Instant::now();
    let mut logs = wal::fence(&files, &server).await.unwrap();
    for log in &mut logs {
        let seal = files.seal(&log.path, "").await.unwrap();
        assert!(seal.is_final && !seal.writer_gone);
        log.length = seal.length;
    }
    let took = started.elapsed();
    let acknowledged = writing.await.unwrap();
    let mut next = 1;
    for log in &logs {
        let mut reader = WalReader::open(&files, &log.path, log.length).await.unwrap();
        while let Some(edit) = reader.next().await.unwrap() {
            assert_eq!(edit.sequence_id, SequenceId(next));
            next += 1;
        }
    }
    println!("{} files, {acknowledged} edits acknowledged, fenced within {took:?}", logs.len());
    assert!(logs.len() > 1, "it rolled");
    assert!(next > acknowledged, "{acknowledged} acknowledged, but {next} is missing");
}
