//! The file system against a real Apache Hadoop HDFS 3.4 with three DataNodes.
//!
//! `e2e/hdfs/run.sh` starts one and runs these tests. To run them by hand, set `BASALT_HDFS_CONF`
//! to the folder with its settings and `BASALT_HDFS_NODES` to a script that kills, freezes, thaws
//! and starts its DataNodes. Then run
//! `cargo test -p basalt-hdfs --test real_hdfs -- --ignored --test-threads=1`. The fencing tests
//! need the example `log_writer` to be built.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test may print")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests may")]

mod fencing;
mod name_node;
mod placement;
mod write_ahead_log;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use basalt_fs::FileSystem;
use basalt_hdfs::{HdfsConfig, HdfsFileSystem};
use basalt_runtime::Seams;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(180);

fn settings() -> PathBuf {
    let folder = std::env::var("BASALT_HDFS_CONF");
    folder.expect("BASALT_HDFS_CONF names the folder of an HDFS's settings").into()
}

fn config() -> HdfsConfig {
    HdfsConfig::from_folder(&settings(), None).unwrap()
}

/// A file system below an empty folder, on an HDFS whose servers are all running.
async fn files_with(config: HdfsConfig, name: &str) -> HdfsFileSystem {
    if let Ok(level) = std::env::var("BASALT_LOG") {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| basalt_runtime::init_telemetry(&level).unwrap());
    }
    repair().await;
    let root = format!("/basalt-tests/{name}");
    let all = HdfsFileSystem::new(&Seams::system(), config.clone(), Path::new("/")).unwrap();
    all.delete_directory(Path::new(&root)).await.unwrap();
    all.create_directories(Path::new(&root)).await.unwrap();
    HdfsFileSystem::new(&Seams::system(), config, Path::new(&root)).unwrap()
}

async fn files(name: &str) -> HdfsFileSystem {
    files_with(config(), name).await
}

/// Does something to a DataNode (1, 2, 3): kill, freeze, thaw, start.
fn node(action: &str, number: usize) {
    server(action, &number.to_string());
}

/// Does something to a server by its name in the script: the number of a DataNode, or `nn`.
fn server(action: &str, name: &str) {
    let script = std::env::var("BASALT_HDFS_NODES");
    let script = script.expect("BASALT_HDFS_NODES names the script that kills DataNodes");
    let status = Command::new(script).args([action, name]).status().unwrap();
    assert!(status.success(), "{action} of {name}");
}

/// Starts servers that an earlier failed test has left dead, frozen or in safe mode, so that one
/// failed test does not make the later ones fail.
async fn repair() {
    if write_to_all_nodes().await.is_ok() {
        return;
    }
    server("ensure", "nn");
    (1..=3).for_each(|number| node("ensure", number));
    server("leave-safe-mode", "nn");
    all_nodes_serve().await;
}

/// Waits until each of the three DataNodes accepts blocks. The NameNode lists a DataNode as alive
/// as soon as it has registered, but gives it blocks only after a heartbeat that reports its
/// storage.
async fn all_nodes_serve() {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = write_to_all_nodes().await {
        assert!(Instant::now() < deadline, "a DataNode does not come back: {error}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Writes a small file that has a replica on each of the three DataNodes, and deletes it.
async fn write_to_all_nodes() -> basalt_hdfs::Result<()> {
    let call_deadline = Duration::from_secs(2);
    let config = HdfsConfig { replication: 3, replicas_min: 3, call_deadline, ..config() };
    HdfsFileSystem::new(&Seams::system(), config, Path::new("/"))?.check_writes().await
}

/// Pseudorandom bytes, so that no two parts are the same.
fn pattern(length: usize, seed: u32) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let bytes = (0..length).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes.collect()
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn names_behave_as_the_trait_says() {
    let files = files("names").await;
    assert!(files.list(Path::new("/none")).await.unwrap_err().is_not_found());
    assert!(files.open(Path::new("/none")).await.err().unwrap().is_not_found());
    assert!(files.create(Path::new("/none/a")).await.err().unwrap().is_not_found());
    assert!(files.delete_file(Path::new("/none")).await.unwrap_err().is_not_found());
    files.delete_directory(Path::new("/none")).await.unwrap();
    files.create_directories(Path::new("/x/y")).await.unwrap();
    files.create_directories(Path::new("/x/y")).await.unwrap();
    files.write_whole(Path::new("/x/a"), Bytes::from_static(b"one")).await.unwrap();
    files.write_whole(Path::new("/x/b"), Bytes::new()).await.unwrap();
    let again = files.write_whole(Path::new("/x/a"), Bytes::from_static(b"two")).await;
    assert!(again.unwrap_err().is_already_exists());
    assert!(files.create(Path::new("/x/a")).await.err().unwrap().is_already_exists());
    assert!(
        files.rename(Path::new("/x/b"), Path::new("/x/a")).await.unwrap_err().is_already_exists()
    );
    assert!(
        files.rename(Path::new("/x/b"), Path::new("/x/y")).await.unwrap_err().is_already_exists()
    );
    assert!(files.rename(Path::new("/x/n"), Path::new("/x/m")).await.unwrap_err().is_not_found());
    assert_eq!(&files.read_whole(Path::new("/x/a"), 10).await.unwrap()[..], b"one");
    let entries = files.list(Path::new("/x")).await.unwrap();
    let entries: Vec<_> = entries.iter().map(|e| (&*e.name, e.is_directory, e.length)).collect();
    let leftover = entries.iter().find(|entry| entry.0.starts_with(".aside-"));
    assert!(leftover.is_some(), "of the file that was there already");
    let rest: Vec<_> = entries.into_iter().filter(|e| !e.0.starts_with(".aside-")).collect();
    assert_eq!(rest, [("a", false, 3), ("b", false, 0), ("y", true, 0)]);
    files.rename(Path::new("/x"), Path::new("/z")).await.unwrap();
    assert!(files.exists(Path::new("/z/a")).await.unwrap());
    files.delete_file(Path::new("/z/a")).await.unwrap();
    assert!(!files.exists(Path::new("/z/a")).await.unwrap());
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn the_servers_report_their_effective_settings() {
    let configurations = files("settings").await.configurations().await;
    assert_eq!(configurations.len(), 1 + 3, "the NameNode and three DataNodes");
    for configuration in configurations {
        let settings = configuration.settings.unwrap();
        assert_eq!(settings.get("dfs.heartbeat.interval").map(String::as_str), Some("1"));
    }
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn what_is_synced_is_read_back_from_the_open_file_and_from_the_closed_one() {
    let files = files("write").await;
    let mut file = files.create(Path::new("/log")).await.unwrap();
    let mut written = Vec::new();
    for (index, length) in [1, 511, 512, 513, 100, 70_000, 3, 1 << 20, 17].into_iter().enumerate() {
        let bytes = pattern(length, index as u32);
        file.append_and_sync(bytes.clone()).await.unwrap();
        written.extend_from_slice(&bytes);
        let open = files.read_whole(Path::new("/log"), 1 << 30).await.unwrap();
        assert!(open[..] == written, "after {length} bytes");
    }
    let started = Instant::now();
    for number in 0..100 {
        let bytes = pattern(100, number);
        file.append_and_sync(bytes.clone()).await.unwrap();
        written.extend_from_slice(&bytes);
    }
    println!("one flush after another: {:?} each", started.elapsed() / 100);
    assert_eq!(file.length(), written.len() as u64);
    file.close().await.unwrap();
    assert!(file.append(Bytes::from_static(b"more")).await.is_err());
    let reader = files.open(Path::new("/log")).await.unwrap();
    assert_eq!(reader.length(), written.len() as u64);
    for (offset, length) in [(0, 1), (511, 2), (1000, 70_000), (written.len() - 5, 5)] {
        let read = reader.read_at(offset as u64, length).await.unwrap();
        assert!(read[..] == written[offset..offset + length], "{length} bytes at {offset}");
    }
    assert!(reader.read_at(written.len() as u64 - 1, 2).await.is_err());
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn a_file_of_several_blocks_is_read_across_them() {
    let config = HdfsConfig { block_bytes: 1 << 20, ..config() };
    let files = files_with(config, "blocks").await;
    let bytes = pattern((3 << 20) + 777, 7);
    files.write_whole(Path::new("/a"), bytes.clone()).await.unwrap();
    let reader = files.open(Path::new("/a")).await.unwrap();
    assert_eq!(reader.length(), bytes.len() as u64);
    let across = reader.read_at((1 << 20) - 10, (1 << 20) + 20).await.unwrap();
    assert!(across[..] == bytes[(1 << 20) - 10..(2 << 20) + 10]);
    assert!(files.read_whole(Path::new("/a"), 1 << 30).await.unwrap() == bytes);
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn many_flushes_are_under_way_at_once() {
    let files = files("flushes").await;
    let mut file = files.create_file(Path::new("/log")).await.unwrap();
    let mut waiting = Vec::new();
    for number in 0..200 {
        file.append(&pattern(100, number)).await.unwrap();
        waiting.push(file.flush().await.unwrap().unwrap());
    }
    for flushed in waiting {
        flushed.wait().await.unwrap();
    }
    file.close().await.unwrap();
    let expected: Vec<u8> = (0..200).flat_map(|number| pattern(100, number)).collect();
    assert!(files.read_whole(Path::new("/log"), 1 << 20).await.unwrap()[..] == expected);
}

/// The DataNodes of the test cluster give up on a silent writer after a second.
#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn an_idle_file_stays_open() {
    let files = files("idle").await;
    let mut file = files.create(Path::new("/log")).await.unwrap();
    for _ in 0..2 {
        file.append_and_sync(pattern(1000, 1)).await.unwrap();
        sleep(Duration::from_secs(3)).await;
    }
    file.append_and_sync(pattern(1000, 2)).await.unwrap();
    file.close().await.unwrap();
}

/// The other DataNodes are ready meanwhile, and give up on a silent writer after a second.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real HDFS and its processes"]
async fn a_data_node_that_is_slow_to_begin_costs_nothing_but_time() {
    let files = files("slow").await;
    node("freeze", 1);
    let thawed = tokio::task::spawn_blocking(|| {
        std::thread::sleep(Duration::from_millis(1200));
        node("thaw", 1);
    });
    files.write_whole(Path::new("/a"), pattern(1000, 3)).await.unwrap();
    thawed.await.unwrap();
    assert!(files.read_whole(Path::new("/a"), 1000).await.unwrap() == pattern(1000, 3));
}

/// The file fails in time, a new one is begun on the other DataNodes, and all acknowledged bytes
/// are there.
#[tokio::test]
#[ignore = "needs a real HDFS and its processes"]
async fn a_data_node_that_is_killed_costs_the_file_and_no_acknowledged_byte() {
    // With this timeout the failure is noticed because the connection ends.
    let config = HdfsConfig { ack_timeout: PATIENCE, ..config() };
    let files = files_with(config, "killed").await;
    let mut file = files.create(Path::new("/log.1")).await.unwrap();
    let mut acknowledged = Vec::new();
    let mut number = 0;
    let failed_after = loop {
        let bytes = pattern(1000, number);
        let started = Instant::now();
        if number == 50 {
            node("kill", 1);
        }
        match file.append_and_sync(bytes.clone()).await {
            Ok(()) => acknowledged.extend_from_slice(&bytes),
            Err(_) => break started.elapsed(),
        }
        number += 1;
        assert!(number < 5000, "the writer did not notice that a DataNode is gone");
    };
    assert!(failed_after < PATIENCE / 2, "{failed_after:?}");
    assert!(file.append(Bytes::from_static(b"x")).await.is_err(), "the file is given up");
    let started = Instant::now();
    let mut next = files.create(Path::new("/log.2")).await.unwrap();
    next.append_and_sync(Bytes::from_static(b"again")).await.unwrap();
    let rolled_after = started.elapsed();
    let sealed = files.seal(Path::new("/log.1"), "").await.unwrap();
    assert!(sealed.is_final && !sealed.writer_gone);
    assert!(sealed.length >= acknowledged.len() as u64);
    let reader = files.open(Path::new("/log.1")).await.unwrap();
    let read = reader.read_at(0, acknowledged.len()).await.unwrap();
    assert!(read[..] == acknowledged);
    println!("noticed after {failed_after:?}, new file after {rolled_after:?}");
    next.close().await.unwrap();
    node("start", 1);
    all_nodes_serve().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real HDFS, its processes, and root to mount a small disk"]
async fn a_full_disk_costs_the_file_and_no_acknowledged_byte() {
    let files = files("full").await;
    node("small", 2);
    // Wait until the NameNode knows the new disk.
    sleep(Duration::from_secs(3)).await;
    all_nodes_serve().await;
    let mut open = Vec::new();
    for number in 0..4 {
        let path = format!("/log.{number}");
        let mut file = files.create(Path::new(&path)).await.unwrap();
        file.append_and_sync(pattern(1000, number)).await.unwrap();
        open.push((path, file, pattern(1000, number).to_vec()));
    }
    node("fill", 2);
    let mut failed = 0;
    for (path, file, acknowledged) in &mut open {
        for number in 0..30 {
            let bytes = pattern(100_000, number);
            match file.append_and_sync(bytes.clone()).await {
                Ok(()) => acknowledged.extend_from_slice(&bytes),
                Err(failure) => {
                    println!("{path}, after {} bytes: {failure}", acknowledged.len());
                    failed += 1;
                    break;
                }
            }
        }
    }
    assert!(failed > 0, "12 MB went onto a disk with room for 1 MB");
    let mut next = files.create(Path::new("/next")).await.unwrap();
    next.append_and_sync(pattern(3_000_000, 9)).await.unwrap();
    next.close().await.unwrap();
    assert!(files.read_whole(Path::new("/next"), 1 << 30).await.unwrap() == pattern(3_000_000, 9));
    for (path, mut file, acknowledged) in open {
        file.give_up().await;
        let sealed = files.seal(Path::new(&path), "").await.unwrap();
        assert!(sealed.length >= acknowledged.len() as u64, "{sealed:?}");
        let reader = files.open(Path::new(&path)).await.unwrap();
        assert!(reader.read_at(0, acknowledged.len()).await.unwrap()[..] == acknowledged);
    }
    node("large", 2);
    all_nodes_serve().await;
}

#[tokio::test]
#[ignore = "needs a real HDFS and its processes"]
async fn reads_do_not_wait_for_a_data_node_that_hangs() {
    // Longer than a read takes on a busy machine.
    let read_timeout = Duration::from_secs(20);
    let files = files_with(HdfsConfig { read_timeout, ..config() }, "hung").await;
    let bytes = pattern(1 << 20, 3);
    files.write_whole(Path::new("/a"), bytes.clone()).await.unwrap();
    let reader = files.open(Path::new("/a")).await.unwrap();
    let mut slowest = Duration::ZERO;
    for number in 1..=3 {
        node("freeze", number);
        for offset in (0..1 << 20).step_by(1 << 17) {
            let started = Instant::now();
            let read = reader.read_at(offset as u64, 1 << 16).await.unwrap();
            assert!(read[..] == bytes[offset..offset + (1 << 16)]);
            slowest = slowest.max(started.elapsed());
        }
        node("thaw", number);
    }
    println!("slowest read with a hung DataNode: {slowest:?}");
    assert!(slowest < read_timeout, "{slowest:?}: it waited for the read timeout");
}
