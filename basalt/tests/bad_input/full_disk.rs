//! A disk that becomes full under everything: data, logs, and the coordinator's files.
//!
//! Mounts a tmpfs of 64 MB, so it must run as root: use `e2e/full-disk.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use basalt::local::{Death, Event};
use basalt_client::{Outcome, Put};
use basalt_runtime::Seams;
use basalt_zk::proto::{CreateMode, ErrorCode};
use basalt_zk::{Client, Options};
use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::cluster::{PATIENCE, Rig, row_name, value};

/// A file system in memory that is mounted while this value exists.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(folder));
        Self(folder.to_owned())
    }

    /// Uses up all free space.
    fn fill(&self) {
        let ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        let mut bytes = 64 << 20;
        let mut from = 0;
        // In ever smaller pieces, down to a page.
        while bytes >= 4096 {
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&ballast, flags, from, bytes) {
                Ok(()) => from += bytes,
                Err(_) => bytes /= 2,
            }
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}: is this run as root?");
}

fn deaths(events: &mut broadcast::Receiver<Event>) -> Vec<Death> {
    let mut deaths = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::Died { death, .. } = event {
            deaths.push(death);
        }
    }
    deaths
}

/// Writes until a write fails. Returns the reason. The outcome of each attempt must be known.
async fn write_until_refused(rig: &Rig) -> String {
    let table = rig.table("small");
    let deadline = Instant::now() + PATIENCE;
    let large = vec![7; 100_000];
    for row in 1_000.. {
        assert!(Instant::now() < deadline, "the disk is never full");
        let put = Put::new(row_name(row)).column(b"f", b"q", &large);
        match table.try_put(&put, Duration::from_secs(10)).await {
            Outcome::Acked(_) => {}
            Outcome::Failed(error) => return error.to_string(),
            Outcome::Unknown(error) => panic!("a write whose outcome is unknown: {error}"),
        }
    }
    unreachable!()
}

/// A client of the coordinator that holds no lease.
async fn node_writer(rig: &Rig) -> Client {
    let (seams, timeout) = (Seams::system(), Duration::from_secs(10));
    let client = Client::connect(&seams, &rig.coordinators(), timeout, Options::default()).await;
    let client = client.unwrap();
    client.create("/large", Bytes::new(), CreateMode::Persistent).await.unwrap();
    client
}

/// Writes to the coordinator until it rejects a write. Returns the number of accepted writes.
async fn write_nodes_until_refused(client: &Client) -> usize {
    let data = Bytes::from(vec![7; 100_000]);
    // More than the reserved space.
    for written in 0..100 {
        match client.set_data("/large", data.clone(), None).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.code(), Some(ErrorCode::ThrottledOp), "{error}");
                return written * data.len();
            }
        }
    }
    panic!("all was taken");
}

/// Failed before logs reserved space: a log line that could not be written ended every process, and
/// a record that could not be written ended the region server and the coordinator.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts a tmpfs: run as root by e2e/full-disk.sh"]
async fn on_a_full_disk_reads_go_on_writes_fail_cleanly_and_nothing_ends() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&folder.path().join("data"));
    let rig = Rig::start_in(folder, &["small"]).await;
    let mut events = rig.cluster().supervisor().events();
    rig.write("small", 0..10).await;
    rig.cluster().supervisor().wait_all_ready(PATIENCE).await.unwrap();
    assert_eq!(deaths(&mut events), [], "before the disk is full");
    let client = node_writer(&rig).await;
    disk.fill();
    let reason = write_until_refused(&rig).await;
    for part in ["no space for more edits", "data/storage", "MiB free"] {
        assert!(reason.contains(part), "{part:?} is not in: {reason}");
    }
    let taken_bytes = write_nodes_until_refused(&client).await;
    assert!(taken_bytes < 4 << 20, "{taken_bytes} of the 8 to 9 MiB that are reserved");
    // Longer than any lease, any session, and any interval at which state is saved.
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        rig.check("small", 0..10).await;
        let put = Put::new(row_name(0)).column(b"f", b"q", &value("small", 0));
        let refused = rig.table("small").try_put(&put, Duration::from_secs(10)).await;
        assert!(matches!(refused, Outcome::Failed(_)), "{refused:?}");
    }
    assert_eq!(deaths(&mut events), [], "while the disk is full");
    disk.make_room();
    rig.write("small", 0..20).await;
    rig.check("small", 0..20).await;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = client.set_data("/large", Bytes::new(), None).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(deaths(&mut events), [], "afterwards");
    drop(rig);
    drop(disk);
}
