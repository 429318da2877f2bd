//! Tests of recovery: a server dies, and another one serves its region.

use basalt_fs::MemoryFileSystem;
use basalt_model::{CellType, LATEST_TIMESTAMP, SequenceId};
use basalt_storage::wal::Nonce;

use crate::region::testing::{LEASE, TestServer, cell, mutation, put, row_of, update_of};
use crate::region::{Region, RowRead, Update};

async fn append(region: &Region, nonce: u64, operand: &str) -> Vec<u8> {
    let append = update_of("n", "f:log", Update::Append, operand.as_bytes());
    let cells = region.update(&append, Some(Nonce { group: 1, nonce })).await;
    cells.unwrap()[0].value().to_vec()
}

#[tokio::test(start_paused = true)]
async fn every_acknowledged_edit_is_there_after_a_crash() {
    let disk = MemoryFileSystem::new();
    let first = TestServer::start(&disk, 1).await;
    let region = first.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    region.flush().await.unwrap();
    put(&region, "a", "f:q", "2").await.unwrap();
    put(&region, "b", "g:q", "3").await.unwrap();
    let sealed = first.die().await;
    let second = TestServer::start(&disk, 2).await;
    let opened = second.open(2, vec![sealed]).await;
    assert!(opened.replayed_bytes > 0);
    assert_eq!(opened.open_sequence_id, SequenceId(4), "the numbers go on");
    assert_eq!(row_of(&opened.region, "a").await, ["f:q=2"]);
    assert_eq!(row_of(&opened.region, "b").await, ["g:q=3"]);
    put(&opened.region, "a", "f:q", "4").await.unwrap();
    assert_eq!(row_of(&opened.region, "a").await, ["f:q=4"], "later edits are above");
    let read = RowRead { versions: 9, ..RowRead::all() };
    let cells = opened.region.get(b"a", &read).await.unwrap();
    let stamps: Vec<i64> = cells.iter().map(|cell| cell.timestamp()).collect();
    assert!(stamps.is_sorted_by(|left, right| left > right), "{stamps:?}");
    assert_eq!(stamps.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_nonce_is_remembered_across_crashes_and_flushes() {
    let disk = MemoryFileSystem::new();
    let first = TestServer::start(&disk, 1).await;
    let region = first.region(1).await;
    assert_eq!(append(&region, 1, "x").await, b"x");
    region.flush().await.unwrap();
    assert_eq!(append(&region, 2, "y").await, b"xy");
    let sealed = first.die().await;
    let second = TestServer::start(&disk, 2).await;
    let region = second.open(2, vec![sealed]).await.region;
    assert_eq!(append(&region, 1, "x").await, b"x", "from the manifest");
    assert_eq!(append(&region, 2, "y").await, b"xy", "from the log");
    assert_eq!(row_of(&region, "n").await, ["f:log=xy"]);
    region.flush().await.unwrap();
    drop(second.die().await);
    let third = TestServer::start(&disk, 3).await;
    let region = third.region(3).await;
    assert_eq!(append(&region, 2, "y").await, b"xy", "the replayed one was flushed too");
    assert_eq!(append(&region, 3, "z").await, b"xyz");
}

#[tokio::test(start_paused = true)]
async fn replaying_twice_changes_nothing() {
    let disk = MemoryFileSystem::new();
    let first = TestServer::start(&disk, 1).await;
    let region = first.region(1).await;
    for value in ["1", "2", "3"] {
        put(&region, "a", "f:q", value).await.unwrap();
    }
    let all = RowRead { versions: 9, ..RowRead::all() };
    let before = region.get(b"a", &all).await.unwrap();
    let sealed = first.die().await;
    let second = TestServer::start(&disk, 2).await;
    let once = second.open(2, vec![sealed.clone()]).await;
    assert_eq!(once.region.get(b"a", &all).await.unwrap(), before);
    let twice = second.open(3, vec![sealed.clone(), sealed.clone()]).await;
    assert_eq!(twice.open_sequence_id, once.open_sequence_id);
    assert_eq!(twice.region.get(b"a", &all).await.unwrap(), before);
    twice.region.flush().await.unwrap();
    let flushed = second.open(4, vec![sealed]).await;
    assert_eq!(flushed.replayed_bytes, 0, "it is all in store files");
    assert_eq!(flushed.open_sequence_id, once.open_sequence_id);
    assert_eq!(flushed.region.get(b"a", &all).await.unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn the_successor_may_die_before_it_has_flushed() {
    let disk = MemoryFileSystem::new();
    let first = TestServer::start(&disk, 1).await;
    let region = first.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    let first = first.die().await;
    let second = TestServer::start(&disk, 2).await;
    let region = second.open(2, vec![first.clone()]).await.region;
    put(&region, "a", "f:q", "2").await.unwrap();
    put(&region, "b", "f:q", "3").await.unwrap();
    let second = second.die().await;
    let third = TestServer::start(&disk, 3).await;
    let opened = third.open(3, vec![first, second]).await;
    assert_eq!(row_of(&opened.region, "a").await, ["f:q=2"]);
    assert_eq!(row_of(&opened.region, "b").await, ["f:q=3"]);
    assert_eq!(opened.open_sequence_id, SequenceId(4));
}

#[tokio::test(start_paused = true)]
async fn a_put_after_a_move_is_not_hidden_by_a_delete_before_it() {
    let disk = MemoryFileSystem::new();
    let first = TestServer::start(&disk, 1).await;
    first.hand.move_by(LEASE / 2);
    let region = first.region(1).await;
    let delete = cell("a", "f:q", CellType::DeleteColumn, LATEST_TIMESTAMP, "");
    region.mutate(&[mutation("a", vec![delete])]).await.unwrap();
    let sealed = first.die().await;
    // Its clock is behind that of the first.
    let second = TestServer::start(&disk, 2).await;
    let region = second.open(2, vec![sealed]).await.region;
    put(&region, "a", "f:q", "1").await.unwrap();
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_deletes_nothing_takes_no_sequence_id() {
    let disk = MemoryFileSystem::new();
    let mut server = TestServer::start(&disk, 1).await;
    let opened = server.open(1, Vec::new()).await;
    let latest = cell("a", "f:q", CellType::Delete, LATEST_TIMESTAMP, "");
    opened.region.mutate(&[mutation("a", vec![latest])]).await.unwrap();
    assert_eq!(opened.region.flush().await.unwrap(), 0, "there is nothing to flush");
    server.open_sequence_id = opened.open_sequence_id;
    let again = server.open(2, Vec::new()).await;
    assert_eq!(again.open_sequence_id, opened.open_sequence_id);
}
