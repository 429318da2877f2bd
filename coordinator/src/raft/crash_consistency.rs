//! Tests the log and the snapshots on a disk that loses power after every single step. Data that
//! was not synced is lost, torn, holed or kept.

use std::path::Path;
use std::sync::Arc;

use basalt_fs::{DiskStep, FileSystem, MemoryFileSystem, RecordingFileSystem, SharedFileSystem};
use basalt_runtime::Random;
use bytes::Bytes;
use openraft::RaftLogReader;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::alias;

use crate::ensemble::Ensemble;
use crate::raft::log::{Log, open};
use crate::raft::snapshot_store::SnapshotStore;
use crate::raft::types::{Entry, LogId, Payload, SnapshotMeta, TypeConfig, Vote};
use crate::tree::{Change, Command};

const FOLDER: &str = "/data";
/// How many random disks are checked for each step, besides the best and the worst one.
const CHANCES: u64 = 6;

/// Marks of what had been acknowledged. Entries are marked with their index, votes from here on,
/// and purges from `PURGES_FROM` on.
const VOTES_FROM: u64 = 1_000;
const PURGES_FROM: u64 = 2_000;

fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: alias::CommittedLeaderIdOf::<TypeConfig>::new(term), index }
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: alias::LeaderIdOf::<TypeConfig> { term, voted_for: 1 }, committed: false }
}

fn entry(term: u64, index: u64) -> Entry {
    let change = Change::SetSecret([index as u8; 32]);
    let command = Command { origin: None, time_ms: index, change };
    Entry { log_id: id(term, index), payload: Payload::Normal(command) }
}

fn ensemble() -> Ensemble {
    Ensemble::new(None, false, false)
}

async fn new_folder() -> RecordingFileSystem {
    let recording = RecordingFileSystem::new();
    recording.create_directories(Path::new(FOLDER)).await.unwrap();
    recording.sync_directory(Path::new("/")).await.unwrap();
    recording
}

async fn reopen(files: SharedFileSystem, what: &str) -> Log {
    let opened = open(files, Path::new(FOLDER), 1).await;
    let opened = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    tokio::spawn(opened.writer.run());
    opened.log
}

/// Calls `look` with each disk that a power cut may leave, and with the marks before the cut.
async fn each_wreck<F: Future<Output = ()>>(
    recording: &RecordingFileSystem,
    look: impl Fn(String, Vec<u64>, SharedFileSystem) -> F,
) {
    let steps = recording.steps();
    let begun =
        steps.iter().position(|step| matches!(step, DiskStep::SyncDirectory(_))).unwrap_or(0);
    for count in begun + 1..=steps.len() {
        let steps = &steps[..count];
        let marks = steps.iter().filter_map(|step| match step {
            DiskStep::Mark(mark) => Some(*mark),
            _ => None,
        });
        let marks: Vec<u64> = marks.collect();
        for chance in 0..CHANCES + 2 {
            let random = Random::from_seed(chance + 1_000 * count as u64);
            let disk: MemoryFileSystem =
                RecordingFileSystem::after_power_cut(steps, |possible| match chance {
                    0 => 0,
                    1 => possible - 1,
                    _ => random.in_range(0..possible),
                });
            let what = format!("after {count} steps, chance {chance}");
            look(what, marks.clone(), Arc::new(disk)).await;
        }
    }
}

#[tokio::test]
async fn a_log_holds_what_was_acknowledged_after_any_power_cut() {
    let recording = new_folder().await;
    for life in 0..3 {
        let mut log = reopen(Arc::new(recording.clone()), "recording").await;
        log.save_vote(&vote(life + 1)).await.unwrap();
        recording.mark(VOTES_FROM + life + 1);
        for index in life * 4..life * 4 + 4 {
            log.blocking_append([entry(1, index)]).await.unwrap();
            recording.mark(index);
        }
        if life > 0 {
            log.purge(id(1, life * 2)).await.unwrap();
            // Segments that are no longer needed are deleted with the next write.
            log.save_vote(&vote(life + 1)).await.unwrap();
            recording.mark(PURGES_FROM + life * 2);
        }
    }
    each_wreck(&recording, async |what, marks, files| {
        let mut log = reopen(files, &what).await;
        let state = log.get_log_state().await.unwrap();
        let entries = marks.iter().filter(|mark| **mark < VOTES_FROM);
        let last = state.last_log_id.map(|last| last.index);
        assert!(last >= entries.max().copied(), "{what}: {last:?} is the last entry");
        let votes = marks.iter().filter(|mark| (VOTES_FROM..PURGES_FROM).contains(mark));
        let voted = log.read_vote().await.unwrap().map(|vote| VOTES_FROM + vote.leader_id.term);
        assert!(voted >= votes.max().copied(), "{what}: {voted:?}");
        // Every entry that exists is as it was written, and there is no gap.
        let first = state.last_purged_log_id.map_or(0, |purged| purged.index + 1);
        for index in first..last.map_or(0, |last| last + 1) {
            let found = log.try_get_log_entries(index..index + 1).await.unwrap();
            assert_eq!(found, [entry(1, index)], "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_newest_snapshot_that_was_acknowledged_is_found_whole() {
    let recording = new_folder().await;
    let contents = |index: u64| Bytes::from(vec![index as u8; 1_500]);
    let store = SnapshotStore::new(Arc::new(recording.clone()), Path::new(FOLDER), ensemble());
    for index in [3, 7, 9] {
        let meta = SnapshotMeta { last_log_id: Some(id(1, index)), ..Default::default() };
        store.save(&meta, &contents(index)).await.unwrap();
        recording.mark(index);
    }
    each_wreck(&recording, async |what, marks, files| {
        let found = SnapshotStore::new(files, Path::new(FOLDER), ensemble()).newest().await;
        let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
        let index = found.as_ref().and_then(|found| found.meta.last_log_id).map(|id| id.index);
        assert!(index >= marks.last().copied(), "{what}: {index:?}");
        if let (Some(found), Some(index)) = (found, index) {
            assert_eq!(found.snapshot, contents(index), "{what}");
        }
    })
    .await;
}
