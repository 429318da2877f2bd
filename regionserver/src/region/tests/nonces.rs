//! Tests of operations with a nonce: each counts once, however often it is repeated, and
//! remembering them takes a bounded amount of memory.

use std::time::Duration;

use basalt_fs::{Durability, FileSystem, MemoryFileSystem};
use basalt_model::{RegionEpoch, paths};
use basalt_storage::manifest::Manifest;
use basalt_storage::wal::Nonce;
use bytes::Bytes;

use crate::region::testing::{TestServer, info, mutation, put_of, row_of, update_of};
use crate::region::{Condition, Error, MutationOutcome, Region, Result, RowRead, RowStep, Update};

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
    // Two edits of a row never share a millisecond. A row that gets 10,000 edits in a moment is ten
    // seconds ahead of the clock, and the time of a row that gets 5,000 a second runs five times as
    // fast as the clock.
    for number in 1..10 {
        server.hand.move_by(Duration::from_secs(60));
        server.renew();
        region.timestamp_floor_ms.fetch_add(300_000, std::sync::atomic::Ordering::Relaxed);
        increment(&region, number).await;
    }
    assert_eq!(increment(&region, 0).await, 1, "nine minutes later");
    assert_eq!(row_of(&region, "r").await.len(), 1);
}

fn folder() -> std::path::PathBuf {
    paths::nonces(&info().table, info().encoded_name())
}

/// An increment of `f:n` and an append to `f:log`, applied atomically with a put.
async fn mixed(region: &Region, number: u64, padding: usize) -> Result<MutationOutcome> {
    let steps = [
        RowStep::Mutation(put_of("r", "g:put", "beside")),
        RowStep::Update(update_of("r", "f:n", Update::Increment, &1_i64.to_be_bytes())),
        RowStep::Update(update_of("r", "f:log", Update::Append, &vec![b'x'; padding])),
    ];
    let always = Condition {
        row: Bytes::from_static(b"r"),
        read: RowRead::all(),
        holds: Box::new(|_| true),
    };
    region.check_and_mutate(&always, &steps, nonce(number)).await
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_is_read_again_while_that_very_version_is_there() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    let long = "x".repeat(300);
    assert_eq!(append(&region, 1, &long).await.unwrap().len(), 300);
    assert_eq!(append(&region, 1, &long).await.unwrap().len(), 300);
    region.flush().await.unwrap();
    assert_eq!(append(&region, 1, &long).await.unwrap().len(), 300, "from the store file");
    assert_eq!(append(&region, 2, "y").await.unwrap().len(), 301);
    assert_eq!(append(&region, 1, &long).await.unwrap().len(), 300, "below the later one");
    let sealed = server.die().await;
    let server = TestServer::start(&disk, 2).await;
    let region = server.open(2, vec![sealed]).await.region;
    assert_eq!(append(&region, 1, &long).await.unwrap().len(), 300, "after a move");
    assert_eq!(append(&region, 2, "y").await.unwrap().len(), 301, "after a replay");
    region.flush().await.unwrap();
    let files = region.view.load().families[&b"g"[..]].files.clone();
    region.merge(&Bytes::from_static(b"g"), &files, true).await.unwrap();
    assert_eq!(append(&region, 2, "y").await.unwrap().len(), 301);
    let error = append(&region, 1, &long).await.unwrap_err();
    assert!(matches!(error, Error::AnswerGone { .. }), "{error}");
    let exception = basalt_hbase_rpc::Exception::from(error);
    assert_eq!(exception.kind(), basalt_hbase_rpc::ExceptionKind::DoNotRetry);
    assert_eq!(row_of(&region, "r").await[0].len(), "g:log=".len() + 301, "applied once");
}

#[tokio::test(start_paused = true)]
async fn a_replayed_mutation_answers_with_the_cells_of_its_updates_alone() {
    for padding in [1, 1_000] {
        let disk = MemoryFileSystem::new();
        let server = TestServer::start(&disk, 1).await;
        let region = server.region(1).await;
        let first = mixed(&region, 1, padding).await.unwrap();
        let bytes = |outcome: &MutationOutcome| -> Vec<Bytes> {
            outcome.cells.iter().map(|cell| cell.bytes().clone()).collect()
        };
        assert_eq!(bytes(&first).len(), 2);
        let again = mixed(&region, 1, padding).await.unwrap();
        assert_eq!(bytes(&again), bytes(&first), "in memory");
        let sealed = server.die().await;
        let server = TestServer::start(&disk, 2).await;
        let region = server.open(2, vec![sealed]).await.region;
        let again = mixed(&region, 1, padding).await.unwrap();
        assert_eq!(bytes(&again), bytes(&first), "replayed");
        region.flush().await.unwrap();
        let again = mixed(&region, 1, padding).await.unwrap();
        assert!(again.processed);
        assert_eq!(bytes(&again), bytes(&first), "flushed");
    }
}

#[tokio::test(start_paused = true)]
async fn two_attempts_at_once_count_once() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    assert_eq!(increment(&region, 1).await, 1);
    region.flush().await.unwrap();
    let attempts = [increment(&region, 2), increment(&region, 1), increment(&region, 2)];
    let flushes = futures::future::join_all([region.flush(), region.flush()]);
    let (answers, _) = futures::future::join(futures::future::join_all(attempts), flushes).await;
    assert_eq!(answers, [2, 1, 2]);
    assert_eq!(increment(&region, 3).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_fails_after_its_nonces_forgets_none_and_counts_none_twice() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    assert_eq!(increment(&region, 1).await, 1);
    let in_the_way = paths::manifest(&info().table, info().encoded_name(), RegionEpoch(1), 1);
    disk.write_whole(&in_the_way, Bytes::from_static(b"another's")).await.unwrap();
    region.flush().await.unwrap_err();
    assert_eq!(disk.list(&folder()).await.unwrap().len(), 1, "in its place and unnamed");
    assert_eq!(increment(&region, 1).await, 1);
    assert_eq!(increment(&region, 2).await, 2);
    disk.delete_file(&in_the_way).await.unwrap();
    let sealed = server.die().await;
    let server = TestServer::start(&disk, 2).await;
    let region = server.open(2, vec![sealed]).await.region;
    assert_eq!(increment(&region, 1).await, 1);
    assert_eq!(increment(&region, 2).await, 2);
    region.flush().await.unwrap();
    let left = disk.list(&folder()).await.unwrap();
    assert_eq!(left.len(), 1, "the unnamed one is gone: {left:?}");
    assert_eq!(increment(&region, 2).await, 2);
}

#[tokio::test(start_paused = true)]
async fn nonces_of_a_manifest_of_an_earlier_release_are_kept() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    let long = "x".repeat(300);
    assert_eq!(increment(&region, 1).await, 1);
    assert_eq!(append(&region, 2, &long).await.unwrap().len(), 300);
    region.flush().await.unwrap();
    let files: basalt_fs::SharedFileSystem = std::sync::Arc::new(disk.clone());
    let (table, name) = (info().table, info().encoded_name());
    let newest = Manifest::take_over(&files, &table, name, RegionEpoch(2)).await.unwrap().unwrap();
    let entries = [1, 2].map(|number| region.done_before(nonce(number)));
    let entries = futures::future::try_join_all(entries).await.unwrap();
    let nonces = entries.into_iter().flatten().collect();
    let old = Manifest { number: 1, nonce_files: Vec::new(), nonces, ..newest };
    old.write(&files, &table, name, Durability::default()).await.unwrap();
    drop(server.die().await);
    let server = TestServer::start(&disk, 2).await;
    for epoch in [3, 4] {
        let region = server.region(epoch).await;
        assert_eq!(increment(&region, 1).await, 1);
        assert_eq!(append(&region, 2, &long).await.unwrap().len(), 300);
        region.flush().await.unwrap();
    }
    let newest = Manifest::take_over(&files, &table, name, RegionEpoch(5)).await.unwrap().unwrap();
    assert_eq!((newest.nonces.len(), newest.nonce_files.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_edit_without_cells_is_flushed_for_its_nonce() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    let nothing = mutation("r", Vec::new());
    let steps = [RowStep::Mutation(nothing)];
    region.mutate_row(&Bytes::from_static(b"r"), &steps, nonce(1)).await.unwrap();
    assert!(region.memstore_bytes() > 0, "what is remembered counts as memstore");
    region.flush().await.unwrap();
    assert_eq!(region.memstore_bytes(), 0);
    assert!(region.done_before(nonce(1)).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_many_bytes_is_in_the_log_once() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    append(&region, 1, &"x".repeat(100_000)).await.unwrap();
    let folder = paths::server_logs(&server.name);
    let log = disk.list(&folder).await.unwrap().remove(0);
    assert!((100_000..101_000).contains(&log.length), "{} bytes", log.length);
    assert!(region.nonces.lock().recent_bytes() < 200);
}

/// Longer than any client keeps retrying.
const TOO_OLD: Duration = Duration::from_secs(31 * 60);

#[tokio::test(start_paused = true)]
async fn files_are_merged_beside_a_flush_and_dropped_by_age() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    for number in 1..=4 {
        assert_eq!(increment(&region, number).await, number as i64);
        region.flush().await.unwrap();
    }
    assert!(region.needs_compaction());
    assert_eq!(increment(&region, 5).await, 5);
    let (replaced, flushed) =
        futures::future::join(region.replace_nonce_files(), region.flush()).await;
    flushed.unwrap();
    assert_eq!(replaced.unwrap().len(), 4);
    assert_eq!(region.nonces(), 5);
    assert_eq!(region.nonces.lock().files().len(), 2);
    drop(server.die().await);
    let server = TestServer::start(&disk, 2).await;
    let region = server.region(2).await;
    for number in 1..=5 {
        assert_eq!(increment(&region, number).await, number as i64, "found in the merged file");
    }
    server.hand.move_by(TOO_OLD);
    server.renew();
    assert_eq!(region.replace_nonce_files().await.unwrap().len(), 2);
    assert_eq!(region.nonces(), 0);
    assert_eq!(increment(&region, 1).await, 6, "no client repeats it any more");
    region.flush().await.unwrap();
    let left = disk.list(&folder()).await.unwrap();
    assert_eq!(left.len(), 3, "the merged inputs of the first owner are gone: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_fails_operations_with_nonces_and_nothing_else() {
    let disk = MemoryFileSystem::new();
    let server = TestServer::start(&disk, 1).await;
    let region = server.region(1).await;
    assert_eq!(increment(&region, 1).await, 1);
    region.flush().await.unwrap();
    drop(server.die().await);
    let path = folder().join(&disk.list(&folder()).await.unwrap()[0].name);
    let mut contents = disk.read_whole(&path, 1 << 20).await.unwrap().to_vec();
    let middle = contents.len() / 2;
    contents[middle] ^= 1;
    disk.delete_file(&path).await.unwrap();
    disk.write_whole(&path, contents.into()).await.unwrap();
    let server = TestServer::start(&disk, 2).await;
    let region = server.region(2).await;
    let again = append(&region, 1, "x").await;
    assert!(matches!(again, Err(Error::Nonces(_))), "not applied, as it may have been: {again:?}");
    region.mutate(&[put_of("r", "f:q", "1")]).await.unwrap();
    server.hand.move_by(TOO_OLD);
    server.renew();
    assert_eq!(region.replace_nonce_files().await.unwrap().len(), 1);
    assert_eq!(increment(&region, 2).await, 2);
}
