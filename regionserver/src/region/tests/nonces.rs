//! Operations with a nonce: each counts once however often it is repeated, and what is remembered of
//! them takes a bounded amount of memory.

use std::time::Duration;

use basalt_fs::{FileSystem, MemoryFileSystem};
use basalt_model::paths;
use basalt_storage::wal::Nonce;

use crate::region::testing::{TestServer, info, row_of, update_of};
use crate::region::{Region, Result, Update};

fn nonce(nonce: u64) -> Option<Nonce> {
    Some(Nonce { group: 1, nonce })
}

async fn append(region: &Region, number: u64, operand: &str) -> Result<Vec<u8>> {
    let append = update_of("r", "g:log", Update::Append, operand.as_bytes());
    let cells = region.update(&append, nonce(number)).await?;
    Ok(cells[0].value().to_vec())
}

async fn increment(region: &Region, number: u64) -> i64 {
    let increment = update_of("r", "g:n", Update::Increment, &1_i64.to_be_bytes());
    let cells = region.update(&increment, nonce(number)).await.unwrap();
    i64::from_be_bytes(cells[0].value().try_into().unwrap())
}

async fn manifest_bytes(disk: &MemoryFileSystem) -> u64 {
    let folder = paths::manifests(&info().table, info().encoded_name());
    disk.list(&folder).await.unwrap().last().unwrap().length
}

#[tokio::test(start_paused = true)]
async fn appends_to_one_cell_leave_a_small_manifest_and_a_region_that_opens() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    for number in 0..1_500 {
        append(&region, number, &"x".repeat(100)).await.unwrap();
    }
    region.flush().await.unwrap();
    let bytes = manifest_bytes(&disk).await;
    assert!(bytes < 10_000, "the manifest takes {bytes} bytes");
    drop(server.die().await);
    let region = TestServer::start(&disk, 2).await.region(2).await;
    assert_eq!(append(&region, 1_500, "y").await.unwrap().len(), 150_001);
}

#[tokio::test(start_paused = true)]
async fn no_number_of_later_operations_makes_a_retry_count_twice() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    for number in 0..100_100 {
        increment(&region, number).await;
    }
    assert_eq!(increment(&region, 7).await, 8, "repeated, it answers as it did");
    region.flush().await.unwrap();
    assert_eq!(increment(&region, 8).await, 9, "after a flush");
    drop(server.die().await);
    let region = TestServer::start(&disk, 2).await.region(2).await;
    assert_eq!(increment(&region, 9).await, 10, "at the next owner");
    assert_eq!(increment(&region, 100_100).await, 100_101);
}

#[tokio::test(start_paused = true)]
async fn a_hot_row_whose_timestamps_run_ahead_forgets_no_operation() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    increment(&region, 0).await;
    // Two edits of a row never share a millisecond, so that a row that gets 10,000 in a moment is
    // ten seconds ahead of the clock, and one that gets 5,000 a second five times as fast as it.
    for number in 1..10 {
        server.hand.move_by(Duration::from_secs(60));
        server.renew();
        region.timestamp_floor_ms.fetch_add(300_000, std::sync::atomic::Ordering::Relaxed);
        increment(&region, number).await;
    }
    assert_eq!(increment(&region, 0).await, 1, "nine minutes later");
    assert_eq!(row_of(&region, "r").await.len(), 1);
}
