//! Where blocks are placed, and how that is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use basalt_fs::{AppendFile, FileSystem, NodeName, NodeSuspicion};
use basalt_hdfs::{HdfsConfig, HdfsFileSystem, Machine};
use bytes::Bytes;

use super::{config, files_with, pattern};

const BLOCK_BYTES: usize = 1 << 20;
/// A DataNode that takes longer than this has failed.
const SLOWEST: Duration = Duration::from_secs(20);

/// A file system of a process on the machine of the DataNode `own`, below an empty folder. No
/// DataNode is avoided because the machine is busy.
async fn files_beside(own: &str, replication: u32, name: &str) -> HdfsFileSystem {
    let machine = Machine { name: own.to_owned(), ordinal: None };
    let config = HdfsConfig {
        machine: Some(machine),
        replication,
        replicas_min: 1,
        block_bytes: BLOCK_BYTES as u64,
        connect_timeout: SLOWEST,
        ack_timeout: SLOWEST,
        slow_ack: SLOWEST,
        ..config()
    };
    let files = files_with(config, name).await;
    files.look_for_nodes().await.unwrap();
    assert_eq!(files.own_node(), Some(NodeName::new(own)));
    files
}

async fn live_nodes() -> Vec<String> {
    let files = files_with(config(), "placement").await;
    files.live_data_nodes().await.unwrap()
}

async fn bytes_of(files: &HdfsFileSystem, path: &str) -> BTreeMap<NodeName, u64> {
    files.block_bytes(Path::new(path)).await.unwrap().unwrap()
}

/// Writes a file, and returns the DataNodes that it was begun on. They are those of the open file:
/// for a closed file, the NameNode lists only DataNodes that have reported it, and later any that
/// it has copied it to.
async fn nodes_of_new(
    files: &HdfsFileSystem,
    path: &str,
    mut file: Box<dyn AppendFile>,
    bytes: Bytes,
) -> BTreeSet<NodeName> {
    file.append_and_sync(bytes).await.unwrap();
    let nodes = bytes_of(files, path).await.into_keys().collect();
    file.close().await.unwrap();
    nodes
}

/// With one replica per block, so that it cannot be there by chance each time.
#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn a_store_file_is_on_the_local_data_node_and_block_bytes_says_so() {
    let bytes = pattern(2 * BLOCK_BYTES + 77, 5);
    for own in live_nodes().await {
        let files = files_beside(&own, 1, "placement-store").await;
        files.write_whole(Path::new("/a"), bytes.clone()).await.unwrap();
        let expected = [(NodeName::new(own.as_str()), bytes.len() as u64)];
        assert_eq!(bytes_of(&files, "/a").await, expected.into());
        assert!(files.read_whole(Path::new("/a"), 1 << 30).await.unwrap() == bytes);
        let none = files.block_bytes(Path::new("/none")).await;
        assert!(none.unwrap_err().is_not_found());
    }
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn a_log_lies_elsewhere_if_there_are_enough_data_nodes_and_anywhere_else() {
    let nodes = live_nodes().await;
    let bytes = pattern(100_000, 6);
    for (replication, own) in [1, 2, 3].into_iter().zip(&nodes) {
        let files = files_beside(own, replication, "placement-log").await;
        let log = files.create_log(Path::new("/log")).await.unwrap();
        let replicas = nodes_of_new(&files, "/log", log, bytes.clone()).await;
        assert_eq!(replicas.len(), replication as usize, "{replicas:?}");
        assert!(files.read_whole(Path::new("/log"), 1 << 20).await.unwrap() == bytes);
        let is_here = replicas.contains(&NodeName::new(own.as_str()));
        assert_eq!(is_here, replication as usize == nodes.len(), "{replicas:?}");
    }
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn a_data_node_that_may_be_gone_gets_no_new_blocks_and_still_serves_old_ones() {
    let nodes = live_nodes().await;
    let (own, other) = (&nodes[0], &nodes[1]);
    let files = files_beside(own, 2, "placement-avoided").await;
    let bytes = pattern(100_000, 7);
    files.write_whole(Path::new("/before"), bytes.clone()).await.unwrap();
    files.exclude_node(&NodeName::new(other.as_str()), NodeSuspicion::MayBeGone);
    let file = files.create(Path::new("/after")).await.unwrap();
    let after = nodes_of_new(&files, "/after", file, bytes.clone()).await;
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(!after.contains(&NodeName::new(other.as_str())), "{after:?}");
    for path in ["/before", "/after"] {
        assert!(files.read_whole(Path::new(path), 1 << 20).await.unwrap() == bytes);
    }
}

#[tokio::test]
#[ignore = "needs a real HDFS"]
async fn a_data_node_that_failed_elsewhere_gets_no_new_blocks_even_if_that_costs_a_copy() {
    let nodes = live_nodes().await;
    let (own, other) = (&nodes[0], NodeName::new(nodes[1].as_str()));
    let files = files_beside(own, 3, "placement-failed").await;
    for (suspicion, path) in
        [(NodeSuspicion::MayBeGone, "/there"), (NodeSuspicion::Failed, "/elsewhere")]
    {
        files.exclude_node(&other, suspicion);
        assert!(files.excluded_nodes().contains(&(other.clone(), suspicion)));
        let file = files.create(Path::new(path)).await.unwrap();
        let replicas = nodes_of_new(&files, path, file, pattern(100, 8)).await;
        let expected = if suspicion == NodeSuspicion::MayBeGone { 3 } else { 2 };
        assert_eq!(replicas.len(), expected, "{suspicion:?}: {replicas:?}");
        assert_eq!(
            replicas.contains(&other),
            suspicion == NodeSuspicion::MayBeGone,
            "{replicas:?}"
        );
    }
}
