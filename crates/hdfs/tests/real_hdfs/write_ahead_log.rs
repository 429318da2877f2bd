//! The write-ahead log of a region server on HDFS: rolled, fenced while its server is alive, and
//! read up to the sealed lengths.

use std::sync::Arc;

use basalt_fs::{Durability, SharedFileSystem};
use basalt_hdfs::ServerKind;
use basalt_model::{Cell, EncodedRegionName, RegionEpoch, SequenceId, ServerName, paths};
use basalt_runtime::{Clock, SystemClock};
use basalt_storage::wal::{self, EncodedEdit, Wal, WalConfig, WalReader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const EDITS_MAX: u64 = 100_000;

async fn append(wal: &Wal, number: u64) -> wal::Result<()> {
    append_as(wal, number, Durability::Replicated).await
}

async fn append_as(wal: &Wal, number: u64, durability: Durability) -> wal::Result<()> {
    let region = EncodedRegionName::from_digest([7; 16]);
    let cell = Cell::put(format!("row{number}").as_bytes(), b"f", b"q", 1, &[7; 1000]).unwrap();
    let edit = EncodedEdit::new(region, RegionEpoch(1), number, None, &[cell])?;
    let permit = wal.reserve(edit.record_bytes()).await?;
    permit.append(&edit, SequenceId(number), durability).synced().await
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

/// The maximum age of the counts on a DataNode's page.
const COUNTS_AGE_MAX: Duration = Duration::from_secs(12);

/// How often each DataNode has synced a file to its disk, from its metrics.
async fn disk_syncs(files: &HdfsFileSystem) -> Vec<u64> {
    sleep(COUNTS_AGE_MAX).await;
    let network = Seams::system().network;
    let mut counts = Vec::new();
    for server in files.configurations().await {
        if server.kind != ServerKind::DataNode {
            continue;
        }
        let mut stream = network.connect(&server.address).await.unwrap();
        let bean = "Hadoop:service=DataNode,name=DataNodeActivity*";
        let request = format!("GET /jmx?qry={bean} HTTP/1.0\r\nHost: {}\r\n\r\n", server.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        let count = page.split_once("\"FsyncCount\" : ").expect("it counts them").1;
        let digits = count.split(|c: char| !c.is_ascii_digit()).next();
        counts.push(digits.unwrap_or_default().parse().unwrap());
    }
    counts
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn what_is_to_outlast_a_loss_of_power_waits_for_the_disks() {
    const EDITS: u64 = 20;
    let hdfs = Arc::new(files("durability").await);
    let more = |now: &[u64], before: &[u64]| {
        assert_eq!((now.len(), before.len()), (3, 3));
        now.iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>()
    };

    let files: SharedFileSystem = Arc::<HdfsFileSystem>::clone(&hdfs);
    let server: ServerName = "rs-0.demo,16020,1700000000000".parse().unwrap();
    files.create_directories(&paths::logs()).await.unwrap();
    let clock = Clock::new(SystemClock);
    let wal = Wal::create(files, &server, "test", WalConfig::default(), clock).await.unwrap();
    let begun = disk_syncs(&hdfs).await;
    for number in 1..=2 * EDITS {
        // Every other edit, so that syncs of the edits between them would be counted too.
        let durability = [Durability::Replicated, Durability::OnDisk][number as usize % 2];
        append_as(&wal, number, durability).await.unwrap();
    }
    let logged = disk_syncs(&hdfs).await;
    assert_eq!(more(&logged, &begun), [EDITS; 3]);

    // The data of exactly one packet, and of two: nothing is left to send at the flush.
    let mut open = Vec::new();
    for length in [256 << 10, 512 << 10, 1] {
        let mut file = hdfs.create(Path::new(&format!("/{length}"))).await.unwrap();
        file.set_durability(Durability::OnDisk);
        file.append_and_sync(pattern(length, 1)).await.unwrap();
        file.sync().await.unwrap();
        open.push(file);
    }
    let synced = disk_syncs(&hdfs).await;
    assert_eq!(more(&synced, &logged), [3; 3]);
    for file in &mut open {
        file.close().await.unwrap();
    }
    let closed = more(&disk_syncs(&hdfs).await, &synced);
    assert!(closed.iter().all(|count| *count >= 3), "{closed:?}");
    let read = hdfs.read_whole(Path::new("/524288"), 1 << 20).await.unwrap();
    assert_eq!(read, pattern(512 << 10, 1));
}
