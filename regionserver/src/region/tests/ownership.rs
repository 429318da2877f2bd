//! Tests of what a server must not do when it is no longer the owner or is about to close a region.

use std::sync::atomic::{AtomicBool, Ordering};

use basalt_fs::MemoryFileSystem;

use crate::region::testing::{LEASE, TestServer, put, row_of};
use crate::region::{Error, RowRead};

#[tokio::test(start_paused = true)]
async fn nothing_is_read_without_a_lease() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    server.hand.move_by(LEASE);
    let refused = region.get(b"a", &RowRead::all()).await;
    assert!(matches!(refused, Err(Error::LeaseOver(_))), "{refused:?}");
    server.renew();
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_after_the_lease_is_neither_acknowledged_nor_shown() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    server.hand.move_by(LEASE);
    let refused = put(&region, "a", "f:q", "2").await;
    assert!(matches!(refused, Err(Error::LeaseOver(_))), "{refused:?}");
    assert!(matches!(region.flush().await, Err(Error::LeaseOver(_))));
    server.renew();
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
    put(&region, "b", "f:q", "3").await.unwrap();
    // It precedes the new edit in the log: once the new edit is visible, so is this one.
    assert_eq!(row_of(&region, "a").await, ["f:q=2"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_zombie_flushes_is_not_seen() {
    let disk = MemoryFileSystem::new();
    let (first, second) = (TestServer::start(&disk, 1).await, TestServer::start(&disk, 2).await);
    let zombie = first.region(1).await;
    put(&zombie, "a", "f:q", "1").await.unwrap();
    zombie.flush().await.unwrap();
    let owner = second.region(2).await;
    put(&owner, "a", "f:q", "2").await.unwrap();
    owner.flush().await.unwrap();
    for value in ["8", "9"] {
        put(&zombie, "a", "f:q", value).await.unwrap();
        zombie.flush().await.unwrap();
    }
    let next = second.region(3).await;
    assert_eq!(row_of(&next, "a").await, ["f:q=2"]);
}

#[tokio::test(start_paused = true)]
async fn a_region_that_closes_takes_no_edits_and_leaves_nothing_in_memory() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    let closing = region.begin_close().unwrap();
    let refused = put(&region, "a", "f:q", "2").await;
    assert!(matches!(refused, Err(Error::Closing { .. })), "{refused:?}");
    assert_eq!(row_of(&region, "a").await, ["f:q=1"], "reads go on");
    drop(closing);
    put(&region, "b", "f:q", "3").await.unwrap();
    let has_ended = AtomicBool::new(false);
    let end = || has_ended.store(true, Ordering::Relaxed);
    region.begin_close().unwrap().finish(end).await.unwrap();
    assert!(has_ended.into_inner());
    assert_eq!(region.memstore_bytes(), 0);
    let refused = put(&region, "a", "f:q", "2").await;
    assert!(matches!(refused, Err(Error::Closing { .. })), "for good: {refused:?}");
    let region = server.region(2).await;
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
    assert_eq!(row_of(&region, "b").await, ["f:q=3"]);
}

/// A past bug: of two concurrent closes, one failed and reset the other's state. Clients wrote
/// again, and their edits were only in a log that was then deleted.
#[tokio::test(start_paused = true)]
async fn a_close_that_fails_does_not_let_edits_into_another_one() {
    let server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    let closing = region.begin_close();
    let other = region.begin_close();
    assert!(other.is_none(), "one close at a time");
    drop(other);
    let refused = put(&region, "a", "f:q", "2").await;
    assert!(matches!(refused, Err(Error::Closing { .. })), "{refused:?}");
    drop(closing);
}
