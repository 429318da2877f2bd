//! Tests the log on a disk in memory: a reopened log holds what was synced.

use std::path::Path;
use std::sync::Arc;

use basalt_fs::{FileSystem, MemoryFileSystem, SharedFileSystem};
use bytes::Bytes;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::alias;

use super::*;
use crate::raft::types::Payload;
use crate::tree::{Change, Command};

const FOLDER: &str = "/data";

fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: alias::CommittedLeaderIdOf::<TypeConfig>::new(term), index }
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: alias::LeaderIdOf::<TypeConfig> { term, voted_for: 1 }, committed: false }
}

fn entry(term: u64, index: u64) -> Entry {
    let command = Command { origin: None, time_ms: index, change: Change::SetSecret([7; 32]) };
    Entry { log_id: id(term, index), payload: Payload::Normal(command) }
}

async fn reopen(files: &MemoryFileSystem) -> Result<Log, LogError> {
    let files: SharedFileSystem = Arc::new(files.clone());
    let opened = open(files, Path::new(FOLDER), 1).await?;
    tokio::spawn(opened.writer.run());
    Ok(opened.log)
}

fn indices(log: &Log) -> Vec<u64> {
    let entries = log.memory.read().entries(.., usize::MAX);
    entries.iter().map(|entry| entry.log_id.index).collect()
}

fn first_segment() -> PathBuf {
    Path::new(FOLDER).join("log-00000000000000000001")
}

/// A folder whose first segment is `bytes`.
async fn folder_with(bytes: Bytes) -> MemoryFileSystem {
    let files = MemoryFileSystem::new();
    files.create_directories(Path::new(FOLDER)).await.unwrap();
    files.write_whole(&first_segment(), bytes).await.unwrap();
    files
}

#[tokio::test]
async fn what_was_written_is_there_again() {
    let files = MemoryFileSystem::new();
    let mut log = reopen(&files).await.unwrap();
    log.save_vote(&vote(3)).await.unwrap();
    log.blocking_append([entry(1, 0), entry(1, 1), entry(1, 2)]).await.unwrap();
    log.truncate_after(Some(id(1, 1))).await.unwrap();
    log.blocking_append([entry(3, 2)]).await.unwrap();
    for _ in 0..2 {
        log = reopen(&files).await.unwrap();
        assert_eq!(indices(&log), [0, 1, 2]);
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, Some(id(3, 2)));
        assert_eq!(log.read_vote().await.unwrap(), Some(vote(3)));
        assert_eq!(log.try_get_log_entries(2..9).await.unwrap(), [entry(3, 2)]);
    }
}

#[tokio::test]
async fn a_log_cut_off_anywhere_opens_with_the_entries_before_the_cut() {
    let files = MemoryFileSystem::new();
    let mut log = reopen(&files).await.unwrap();
    let mut synced_at = Vec::new();
    for index in 0..4 {
        log.blocking_append([entry(1, index)]).await.unwrap();
        let length = files.open(&first_segment()).await.unwrap().length();
        synced_at.push(length);
    }
    let whole = files.read_whole(&first_segment(), 1 << 20).await.unwrap();
    for cut in 0..=whole.len() {
        let torn = folder_with(whole.slice(..cut)).await;
        let mut log = reopen(&torn).await.unwrap();
        let expected = synced_at.iter().filter(|end| **end <= cut as u64).count() as u64;
        assert_eq!(indices(&log), (0..expected).collect::<Vec<_>>(), "cut at {cut}");
        // The log continues from there, and later entries are not confused with the torn tail.
        log.blocking_append([entry(2, expected)]).await.unwrap();
        let log = reopen(&torn).await.unwrap();
        assert_eq!(indices(&log), (0..=expected).collect::<Vec<_>>(), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_flipped_byte_below_what_was_synced_is_refused() {
    let files = MemoryFileSystem::new();
    let mut log = reopen(&files).await.unwrap();
    log.blocking_append([entry(1, 0)]).await.unwrap();
    let last_frame = files.open(&first_segment()).await.unwrap().length();
    log.blocking_append([entry(1, 1)]).await.unwrap();
    let whole = files.read_whole(&first_segment(), 1 << 20).await.unwrap();
    for flipped in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[flipped] ^= 1;
        let outcome = reopen(&folder_with(bytes.into()).await).await;
        if (flipped as u64) < last_frame {
            let error = outcome.err().expect("damage is found").to_string();
            assert!(error.contains("damaged"), "{flipped}: {error}");
        } else {
            // Nothing proves that the last frame had been synced.
            assert_eq!(indices(&outcome.unwrap()), [0], "{flipped}");
        }
    }
}

#[tokio::test]
async fn purged_segments_go_and_the_rest_opens() {
    let files = MemoryFileSystem::new();
    for index in 0..5 {
        // Each start opens a segment.
        let mut log = reopen(&files).await.unwrap();
        log.save_vote(&vote(index + 1)).await.unwrap();
        log.blocking_append([entry(1, index)]).await.unwrap();
    }
    let mut log = reopen(&files).await.unwrap();
    log.purge(id(1, 2)).await.unwrap();
    log.blocking_append([entry(1, 5)]).await.unwrap();
    let mut log = reopen(&files).await.unwrap();
    // Segments are deleted when something is written.
    log.blocking_append([entry(1, 6)]).await.unwrap();
    let left = files.list(Path::new(FOLDER)).await.unwrap().len();
    assert!(left <= 5, "{left} segments are left");
    let mut log = reopen(&files).await.unwrap();
    assert_eq!(indices(&log), [3, 4, 5, 6]);
    assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(id(1, 2)));
    assert_eq!(log.read_vote().await.unwrap(), Some(vote(5)));
    log.purge(id(9, 40)).await.unwrap();
    assert_eq!(indices(&log), Vec::<u64>::new());
    log.blocking_append([entry(9, 41)]).await.unwrap();
    let log = reopen(&files).await.unwrap();
    assert_eq!(indices(&log), [41]);
}

#[tokio::test]
async fn a_missing_segment_is_named() {
    let files = MemoryFileSystem::new();
    for _ in 0..3 {
        let mut log = reopen(&files).await.unwrap();
        log.save_vote(&vote(1)).await.unwrap();
    }
    let middle = Path::new(FOLDER).join("log-00000000000000000002");
    files.delete_file(&middle).await.unwrap();
    let error = reopen(&files).await.err().unwrap().to_string();
    assert!(error.contains("log-00000000000000000002"), "{error}");
}

/// Numbers at their maximum neither wrap nor panic, and no entry is accepted after the last index.
#[tokio::test]
async fn the_highest_numbers_there_are_do_not_wrap() {
    use v1::log_record::Record;
    let highest = log_id_to_wire(id(1, u64::MAX));
    let header = v1::SegmentHeader { number: 1, life: u64::MAX, ..Default::default() };
    let blank = v1::Entry { id: Some(log_id_to_wire(id(1, 0))), payload: None };
    let truncation = v1::Truncation { keep: Some(highest) };
    let records = [
        Record::Header(header),
        Record::Purge(highest),
        Record::Entry(blank),
        Record::Truncation(truncation),
    ];
    let records = records.map(|record| v1::LogRecord { record: Some(record) });
    let files = folder_with(frame::encode(0, &records)).await;
    let shared: SharedFileSystem = Arc::new(files);
    let opened = open(shared, Path::new(FOLDER), 1).await.unwrap();
    assert_eq!(opened.life, u64::MAX);
    assert_eq!(opened.log.memory.read().next_index(), u64::MAX);
    assert_eq!(indices(&opened.log), [0; 0]);
}

#[tokio::test]
async fn what_is_longer_than_a_frame_when_written_at_once_is_read_again() {
    let files = MemoryFileSystem::new();
    let mut log = reopen(&files).await.unwrap();
    let large = |index| {
        let operation = crate::tree::Operation::SetData {
            path: "/large".to_owned(),
            data: Some(Bytes::from(vec![index as u8; 1 << 20])),
            version: -1,
        };
        let write = crate::tree::Write {
            session: basalt_zk::proto::SessionId(1),
            attachment: 1,
            operations: vec![operation],
            multi: false,
        };
        let command = Command { origin: None, time_ms: index, change: Change::Write(write) };
        Entry { log_id: id(1, index), payload: Payload::Normal(command) }
    };
    const ENTRIES: u64 = 70;
    log.blocking_append((0..ENTRIES).map(large)).await.unwrap();
    let log = reopen(&files).await.unwrap();
    assert_eq!(indices(&log), (0..ENTRIES).collect::<Vec<_>>());
}
