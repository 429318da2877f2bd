//! Tests the cases in which a member refuses to start.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::sync::Arc;

use basalt_coordinator::{Config, Error, run};
use basalt_fs::{FileSystem, LocalFileSystem};
use basalt_runtime::{Seams, Shutdown};
use support::Cluster;

async fn refusal(config: Config, folder: &std::path::Path) -> Error {
    let files = Arc::new(LocalFileSystem::open(folder).unwrap());
    let running = run(config, Seams::system(), files, Shutdown::new());
    let outcome = tokio::time::timeout(support::PATIENCE, running).await;
    outcome.expect("it refuses").unwrap_err()
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let cluster = Cluster::start(1);
    cluster.leader().await;
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(cluster.config(1), folder.path()).await.to_string();
    let address = cluster.config(1).peer_listen.to_string();
    assert!(error.contains(&address), "{error}");
}

#[tokio::test]
async fn the_folder_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.leader().await;
    cluster.stop(1).await;
    let config = Config { cluster: "another".to_owned(), ..cluster.config(1) };
    let error = refusal(config, &cluster.folder(1)).await.to_string();
    assert!(error.contains("\"test\"") && error.contains("own folder"), "{error}");
}

#[tokio::test]
async fn damage_in_the_log_is_refused_with_its_place() {
    let mut cluster = Cluster::start(1);
    cluster.leader().await;
    let client = cluster.connect().await;
    let mode = basalt_zk::proto::CreateMode::Persistent;
    for number in 0..3 {
        client.create(&format!("/n{number}"), bytes::Bytes::new(), mode).await.unwrap();
    }
    cluster.stop(1).await;
    // The first segment ends where the ensemble formed.
    let segment = cluster.folder(1).join("data/log-00000000000000000002");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let error = refusal(cluster.config(1), &cluster.folder(1)).await;
    assert!(matches!(error, Error::Log(_)), "{error}");
    assert!(error.to_string().contains("damaged at byte"), "{error}");
}

#[tokio::test]
async fn a_snapshot_that_is_damaged_is_refused() {
    let cluster = Cluster::start(1);
    let folder = tempfile::tempdir().unwrap();
    let files = LocalFileSystem::open(folder.path()).unwrap();
    files.create_directories("/data".as_ref()).await.unwrap();
    let name = format!("/data/snapshot-{:020}-{:020}", 7, 1);
    files.write_whole(name.as_ref(), bytes::Bytes::from_static(b"not one")).await.unwrap();
    let config = Config {
        peer_listen: support::free_address(),
        client_listen: support::free_address(),
        ..cluster.config(1)
    };
    let error = refusal(config, folder.path()).await.to_string();
    assert!(error.contains("the snapshot is damaged"), "{error}");
}
