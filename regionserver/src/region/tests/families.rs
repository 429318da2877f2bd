//! Tests of families that are removed and added again.

use basalt_fs::MemoryFileSystem;
use basalt_model::SequenceId;

use crate::region::Error;
use crate::region::testing::{TestServer, put, row_of, table};

#[tokio::test(start_paused = true)]
async fn a_family_that_is_added_again_begins_without_its_old_files() {
    let mut server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    let region = server.region(1).await;
    put(&region, "a", "f:q", "1").await.unwrap();
    put(&region, "a", "g:q", "1").await.unwrap();
    region.flush().await.unwrap();
    server.incarnations.insert("g".to_owned(), 5);
    let region = server.region(2).await;
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
    put(&region, "a", "g:q", "2").await.unwrap();
    region.flush().await.unwrap();
    let region = server.region(3).await;
    assert_eq!(row_of(&region, "a").await, ["f:q=1", "g:q=2"]);
    server.incarnations.insert("g".to_owned(), 7);
    assert_eq!(row_of(&*server.region(4).await, "a").await, ["f:q=1"]);
    // Another family that is added later changes nothing for this one.
    server.incarnations.insert("f".to_owned(), 8);
    let region = server.region(5).await;
    assert!(row_of(&region, "a").await.is_empty());
    put(&region, "a", "g:q", "3").await.unwrap();
    region.flush().await.unwrap();
    assert_eq!(row_of(&*server.region(6).await, "a").await, ["g:q=3"]);
}

#[tokio::test(start_paused = true)]
async fn a_family_that_is_added_again_begins_without_edits_in_sealed_logs() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    for column in ["f:q", "g:q"] {
        put(&region, "a", column, "1").await.unwrap();
        put(&region, "b", column, "1").await.unwrap();
    }
    let first = server.die().await;
    let mut server = TestServer::start(&disk, 2).await;
    server.incarnations.insert("g".to_owned(), 5);
    let region = server.open(2, vec![first.clone()]).await.region;
    assert_eq!(row_of(&region, "a").await, ["f:q=1"]);
    put(&region, "a", "g:q", "2").await.unwrap();
    let second = server.die().await;
    let mut server = TestServer::start(&disk, 3).await;
    server.incarnations.insert("g".to_owned(), 5);
    let region = server.open(3, vec![first, second]).await.region;
    assert_eq!(row_of(&region, "a").await, ["f:q=1", "g:q=2"], "its own edit is replayed");
    assert_eq!(row_of(&region, "b").await, ["f:q=1"]);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_incarnation_than_that_of_the_manifest_opens_nothing() {
    let mut server = TestServer::start(&MemoryFileSystem::new(), 1).await;
    server.incarnations.insert("g".to_owned(), 7);
    let region = server.region(1).await;
    put(&region, "a", "g:q", "1").await.unwrap();
    region.flush().await.unwrap();
    server.incarnations.insert("g".to_owned(), 5);
    let refused = server.try_open_as(2, Vec::new(), table()).await.err().unwrap();
    assert!(matches!(refused, Error::EarlierIncarnation { in_manifest: 7, in_record: 5, .. }));
    server.incarnations.insert("g".to_owned(), 7);
    assert_eq!(row_of(&*server.region(3).await, "a").await, ["g:q=1"], "its files are kept");
}

#[tokio::test(start_paused = true)]
async fn the_ids_of_edits_that_replay_skips_are_not_given_again() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    put(&region, "a", "g:q", "1").await.unwrap();
    put(&region, "b", "g:q", "1").await.unwrap();
    let sealed = server.die().await;
    let mut server = TestServer::start(&disk, 2).await;
    server.incarnations.insert("g".to_owned(), 5);
    let opened = server.open(2, vec![sealed]).await;
    assert_eq!(opened.open_sequence_id, SequenceId(3));
    // There is nothing to flush, so the record no longer names the log, and no manifest has them.
    assert_eq!(opened.region.flush().await.unwrap(), 0);
    server.open_sequence_id = opened.open_sequence_id;
    let opened = server.open(3, Vec::new()).await;
    assert_eq!(opened.open_sequence_id, SequenceId(3));
    put(&opened.region, "a", "g:q", "2").await.unwrap();
    assert_eq!(row_of(&opened.region, "a").await, ["g:q=2"]);
}
