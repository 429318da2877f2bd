//! The writer: group commit, order, bounds, failure, rolling, fencing.

use std::sync::Arc;
use std::time::Duration;

use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use basalt_model::{SequenceId, paths};
use futures_now::now_or_never;

use super::faulty_files::FaultyFiles;
use super::*;
use crate::wal::{Error, fence, list};

/// Polls a future once.
mod futures_now {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    pub(super) fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }
}

fn faulty() -> (FaultyFiles, SharedFileSystem) {
    let files = FaultyFiles::new();
    (files.clone(), Arc::new(files))
}

#[tokio::test(start_paused = true)]
async fn edits_that_arrive_during_a_sync_share_the_next_one() {
    let (faulty, files) = faulty();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    let before = faulty.faults.syncs();
    faulty.faults.hold_syncs();
    let first = append(&wal, &edit(1, 1, 10)).await.unwrap();
    settle().await;
    let mut later = Vec::new();
    for sequence_id in 2..=100 {
        later.push(append(&wal, &edit(1, sequence_id, 10)).await.unwrap());
    }
    settle().await;
    assert_eq!(faulty.faults.syncs(), before + 1, "one batch at a time");
    assert!(!first.is_synced());
    faulty.faults.let_syncs(1);
    first.synced().await.unwrap();
    settle().await;
    assert!(later.iter().all(|ticket| !ticket.is_synced()));
    faulty.faults.let_syncs(1);
    for ticket in &later {
        ticket.synced().await.unwrap();
    }
    assert_eq!(faulty.faults.syncs(), before + 2, "99 edits, one sync");
    let stats = wal.stats();
    assert_eq!((stats.batches, stats.edits), (2, 100));
}

#[tokio::test(start_paused = true)]
async fn edits_are_read_back_in_the_order_of_the_calls() {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    let mut expected = Vec::new();
    for sequence_id in 1..=200 {
        let edit = edit(sequence_id as u8 % 5, sequence_id, sequence_id as usize);
        let ticket = append(&wal, &edit).await.unwrap();
        if sequence_id % 7 == 0 {
            ticket.synced().await.unwrap();
        }
        expected.push(edit);
    }
    wal.close().await.unwrap();
    assert_eq!(read_log(&files, 1).await, expected);
    let sealed_length = length(&files, &log(1)).await;
    let mut reader = WalReader::open(&files, &log(1), sealed_length).await.unwrap();
    assert_eq!(reader.header().unwrap().server, server());
    assert_eq!(reader.header().unwrap().cluster_id, "test cluster");
    assert_eq!(read_all(&mut reader).await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_queue_takes_no_more_than_its_bound() {
    let (faulty, files) = faulty();
    let config = WalConfig { queue_bytes_max: 1000, ..WalConfig::default() };
    let wal = create(&files, config).await.unwrap();
    faulty.faults.hold_syncs();
    let first = append(&wal, &edit(1, 2, 600)).await.unwrap();
    settle().await;
    assert!(now_or_never(wal.reserve(600)).is_none(), "600 of 1000 are taken");
    let dropped = now_or_never(wal.reserve(200)).unwrap().unwrap();
    assert!(now_or_never(wal.reserve(200)).is_none());
    drop(dropped);
    assert!(now_or_never(wal.reserve(200)).is_some(), "an unused permit is given back");
    faulty.faults.let_syncs(1);
    first.synced().await.unwrap();
    let oversized = wal.reserve(5000).await.unwrap();
    assert_eq!(wal.stats().queued_bytes, 1000);
    drop(oversized);
    assert_eq!(wal.stats().queued_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_sync_everything_fails_for_good() {
    let (faulty, files) = faulty();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    faulty.faults.hold_syncs();
    let in_flight = append(&wal, &edit(1, 2, 10)).await.unwrap();
    settle().await;
    let gathering = append(&wal, &edit(1, 3, 10)).await.unwrap();
    let reserved = wal.reserve(100).await.unwrap();
    faulty.faults.fail_syncs(true);
    faulty.faults.let_syncs(1);
    assert!(matches!(in_flight.synced().await, Err(Error::Files(_))));
    assert!(matches!(gathering.synced().await, Err(Error::Files(_))));
    assert!(matches!(wal.failed().await, Error::Files(_)));
    faulty.faults.fail_syncs(false);
    faulty.faults.let_syncs(1000);
    let late = reserved.append(&encode(&edit(1, 4, 10)), SequenceId(4), Durability::default());
    assert!(late.synced().await.is_err());
    assert!(append(&wal, &edit(1, 5, 10)).await.is_err());
    assert!(wal.roll().await.is_err());
    let seal = files.seal(&log(1), files.boot_id()).await.unwrap();
    assert!(!seal.writer_gone, "the lock is no proof while the server may answer");
    assert!(wal.close().await.is_err());
    let seal = files.seal(&log(1), files.boot_id()).await.unwrap();
    assert!(seal.writer_gone);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_has_failed() {
    let (faulty, files) = faulty();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    faulty.faults.hold_syncs();
    let result = append_synced(&wal, &edit(1, 1, 10)).await;
    assert!(matches!(result, Err(Error::TimedOut { limit_ms: 10_000, .. })));
}

#[test]
fn a_writer_that_is_gone_has_failed() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (faulty, files) = faulty();
    let first = runtime();
    let (wal, ticket) = first.block_on(async {
        let wal = create(&files, WalConfig::default()).await.unwrap();
        faulty.faults.hold_syncs();
        let ticket = append(&wal, &edit(1, 1, 10)).await.unwrap();
        settle().await;
        (wal, ticket)
    });
    drop(first);
    runtime().block_on(async {
        assert!(matches!(ticket.synced().await, Err(Error::Closed)));
        assert!(matches!(wal.failed().await, Error::Closed));
        assert!(wal.roll().await.is_err());
        assert!(wal.close().await.is_err());
    });
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_log_that_was_dropped() {
    let (faulty, files) = faulty();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    faulty.faults.hold_syncs();
    let ticket = append(&wal, &edit(1, 1, 10)).await.unwrap();
    drop(wal);
    faulty.faults.let_syncs(1);
    ticket.synced().await.unwrap();
    settle().await;
    let seal = files.seal(&log(1), files.boot_id()).await.unwrap();
    assert!(seal.writer_gone);
}

#[tokio::test(start_paused = true)]
async fn a_closed_log_takes_nothing_and_has_not_failed() {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    let ticket = append(&wal, &edit(1, 1, 10)).await.unwrap();
    wal.close().await.unwrap();
    ticket.synced().await.unwrap();
    assert!(matches!(append(&wal, &edit(1, 2, 10)).await, Err(Error::Closed)));
    assert!(now_or_never(wal.failed()).is_none());
    wal.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_file_is_followed_by_another() {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let config = WalConfig { roll_bytes: 4000, ..WalConfig::default() };
    let wal = create(&files, config).await.unwrap();
    let edits: Vec<Edit> = (1..=30).map(|id| edit(1, id, 500)).collect();
    for edit in &edits {
        append_synced(&wal, edit).await.unwrap();
    }
    wal.roll().await.unwrap();
    let logs = list(&files, &server(), &paths::server_logs(&server())).await.unwrap();
    let numbers: Vec<u64> = logs.iter().map(|log| log.number).collect();
    assert!(numbers.len() > 5);
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let mut read = Vec::new();
    for number in numbers {
        read.extend(read_log(&files, number).await);
    }
    assert_eq!(read, edits);
    for (log, newest) in logs.iter().rev().zip([true, false, false]) {
        let seal = files.seal(&log.path, files.boot_id()).await.unwrap();
        assert_eq!(seal.writer_gone, !newest, "only the newest file is locked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_deleted_once_all_its_regions_are_flushed() {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    append_synced(&wal, &edit(1, 1, 100)).await.unwrap();
    append_synced(&wal, &edit(2, 1, 100)).await.unwrap();
    wal.roll().await.unwrap();
    append_synced(&wal, &edit(1, 2, 100)).await.unwrap();
    wal.flushed(region(1), SequenceId(2));
    assert_eq!(wal.delete_obsolete().await.unwrap(), 0);
    assert_eq!(wal.oldest_needing_flush(1), [region(2)]);
    assert!(wal.stats().unflushed_bytes > 100);
    wal.forget_region(region(2));
    assert_eq!(wal.stats().unflushed_bytes, 0);
    assert_eq!(wal.delete_obsolete().await.unwrap(), 1);
    assert!(!files.exists(&log(1)).await.unwrap());
    assert!(files.exists(&log(2)).await.unwrap());
    assert_eq!(wal.stats().live_files, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_folder_was_renamed_knows_that_it_is_fenced() {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    wal.roll().await.unwrap();
    append_synced(&wal, &edit(2, 1, 10)).await.unwrap();
    let logs = fence(&files, &server()).await.unwrap();
    assert_eq!(logs.len(), 2);
    assert_eq!(fence(&files, &server()).await.unwrap(), logs, "once is as good as twice");
    wal.forget_region(region(1));
    wal.forget_region(region(2));
    assert!(wal.delete_obsolete().await.unwrap_err().is_fenced());
    assert!(wal.roll().await.unwrap_err().is_fenced());
    assert!(wal.failed().await.is_fenced());
    assert!(append(&wal, &edit(1, 3, 10)).await.unwrap_err().is_fenced());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_taken_away_acknowledges_nothing_more() {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    fence(&files, &server()).await.unwrap();
    assert!(append_synced(&wal, &edit(1, 2, 10)).await.unwrap_err().is_fenced());
    assert!(wal.failed().await.is_fenced());
}

#[tokio::test(start_paused = true)]
async fn a_log_is_made_once_and_never_after_its_server_was_fenced() {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    let again = create(&files, WalConfig::default()).await;
    assert!(matches!(again, Err(Error::NotNew { .. })));
    drop(wal);

    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    assert_eq!(fence(&files, &server()).await.unwrap(), []);
    let fenced = create(&files, WalConfig::default()).await;
    assert!(fenced.unwrap_err().is_fenced());
    assert!(!files.exists(&paths::server_logs(&server())).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_idle_log_is_marked_once_without_a_sync() {
    let (faulty, files) = faulty();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    let (syncs, before) = (faulty.faults.syncs(), length(&files, &log(1)).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = length(&files, &log(1)).await;
    assert_eq!(after, before + super::super::header::BATCH_HEADER_BYTES as u64);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(length(&files, &log(1)).await, after);
    assert_eq!(faulty.faults.syncs(), syncs);
    append_synced(&wal, &edit(1, 2, 10)).await.unwrap();
    assert_eq!(read_log(&files, 1).await, [edit(1, 1, 10), edit(1, 2, 10)]);
}

#[tokio::test(start_paused = true)]
async fn a_new_file_takes_edits_once_it_is_on_record_and_goes_once_it_is_not() {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let config = WalConfig { is_listed: true, ..WalConfig::default() };
    let wal = create(&files, config).await.unwrap();
    let numbers = |wal: &Wal| Vec::from_iter(wal.list().files.into_keys());
    wal.listed(wal.list());
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    let mut rolled = Box::pin(wal.roll());
    assert!(now_or_never(&mut rolled).is_none());
    wal.list_changed().await;
    assert_eq!(numbers(&wal), [1, 2], "it is there, and must not vanish from now on");
    append_synced(&wal, &edit(1, 2, 10)).await.unwrap();
    assert!(now_or_never(&mut rolled).is_none(), "the full file takes on what comes until then");
    wal.listed(wal.list());
    rolled.await.unwrap();
    append_synced(&wal, &edit(1, 3, 10)).await.unwrap();
    assert_eq!(read_log(&files, 1).await.len(), 2);
    assert_eq!(read_log(&files, 2).await.len(), 1);
    let closed_bytes = wal.list().files[&1];
    assert!(closed_bytes > 512 && closed_bytes <= length(&files, &log(1)).await);

    wal.listed(wal.list());
    wal.flushed(region(1), SequenceId(2));
    wal.list_changed().await;
    assert_eq!(numbers(&wal), [2]);
    assert_eq!(wal.delete_obsolete().await.unwrap(), 0, "the record names it still");
    wal.listed(wal.list());
    assert_eq!(wal.delete_obsolete().await.unwrap(), 1);
    wal.close().await.unwrap();
}
