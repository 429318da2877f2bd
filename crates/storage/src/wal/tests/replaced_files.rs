//! The writer on a file system with concurrent syncs, where a failed file is replaced.

use std::sync::Arc;
use std::time::Duration;

use basalt_fs::SharedFileSystem;
use basalt_model::{SequenceId, paths};

use super::faulty_files::FaultyFiles;
use super::*;
use crate::wal::Error;

fn replacing() -> (FaultyFiles, SharedFileSystem) {
    let files = FaultyFiles::replacing();
    (files.clone(), Arc::new(files))
}

/// Appends edits, each in its own batch.
async fn append_apart(wal: &Wal, sequence_ids: impl IntoIterator<Item = u64>) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for sequence_id in sequence_ids {
        tickets.push(append(wal, &edit(1, sequence_id, 10)).await.unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tickets
}

async fn ids(files: &SharedFileSystem, number: u64) -> Vec<u64> {
    let edits = read_log(files, number).await;
    edits.iter().map(|edit| edit.sequence_id.0).collect()
}

#[tokio::test(start_paused = true)]
async fn several_batches_are_in_flight_and_acknowledged_in_order() {
    let (faulty, files) = replacing();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    let before = faulty.faults.syncs();
    faulty.faults.hold_syncs();
    let tickets = append_apart(&wal, 1..=6).await;
    assert_eq!(faulty.faults.syncs(), before + 1, "the oldest is waited for");
    assert!(!tickets[0].is_synced());
    faulty.faults.let_syncs(1);
    tickets[0].synced().await.unwrap();
    settle().await;
    assert!(!tickets[1].is_synced());
    faulty.faults.let_syncs(100);
    for ticket in &tickets {
        ticket.synced().await.unwrap();
    }
    // Four batches were in flight; later edits gathered in one.
    assert_eq!((wal.stats().batches, wal.stats().edits), (5, 6));
    wal.close().await.unwrap();
    assert_eq!(ids(&files, 1).await, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_right_behind_a_batch_gathers_in_the_next() {
    let (faulty, files) = replacing();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    faulty.faults.hold_syncs();
    let mut tickets = Vec::new();
    for sequence_id in 1..=3 {
        tickets.push(append(&wal, &edit(1, sequence_id, 10)).await.unwrap());
        settle().await;
    }
    faulty.faults.let_syncs(100);
    for ticket in &tickets {
        ticket.synced().await.unwrap();
    }
    assert_eq!((wal.stats().batches, wal.stats().edits), (2, 3));
    wal.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_not_acknowledged_is_appended_to_a_new_file() {
    let (faulty, files) = replacing();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    faulty.faults.hold_syncs();
    let tickets = append_apart(&wal, 2..=3).await;
    faulty.faults.fail_next_syncs(1);
    faulty.faults.let_syncs(1000);
    for ticket in &tickets {
        ticket.synced().await.unwrap();
    }
    append_synced(&wal, &edit(1, 4, 10)).await.unwrap();
    assert_eq!(wal.stats().replaced_files, 1);
    assert_eq!(ids(&files, 1).await, [1, 2, 3], "they had been written");
    assert_eq!(ids(&files, 2).await, [2, 3, 4]);
    // Both files are needed until the edits are flushed.
    assert_eq!(wal.delete_obsolete().await.unwrap(), 0);
    wal.flushed(region(1), SequenceId(3));
    assert_eq!(wal.delete_obsolete().await.unwrap(), 1);
    wal.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_begun_is_followed_by_the_next() {
    let (faulty, files) = replacing();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    // The edit's sync, and then those of the headers of two files.
    faulty.faults.fail_next_syncs(3);
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    assert_eq!(ids(&files, 4).await, [1]);
    wal.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_fenced_log_begins_no_file_and_ends() {
    let (faulty, files) = replacing();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    files.rename(&paths::server_logs(&server()), &paths::fenced_logs(&server())).await.unwrap();
    faulty.faults.fail_next_syncs(1);
    let error = append_synced(&wal, &edit(1, 2, 10)).await.unwrap_err();
    assert!(error.is_fenced(), "{error}");
    assert!(wal.failed().await.is_fenced());
}

#[tokio::test(start_paused = true)]
async fn a_log_whose_files_all_fail_ends() {
    let (faulty, files) = replacing();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    faulty.faults.fail_syncs(true);
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap_err();
    wal.failed().await;
    assert!(files.list(&paths::server_logs(&server())).await.unwrap().len() < 20);
}

#[tokio::test(start_paused = true)]
async fn a_full_file_goes_on_while_no_new_one_can_be_begun() {
    let (faulty, files) = replacing();
    let config = WalConfig { roll_bytes: 600, ..WalConfig::default() };
    let wal = create(&files, config).await.unwrap();
    faulty.faults.hold_syncs();
    let ticket = append(&wal, &edit(1, 1, 400)).await.unwrap();
    faulty.faults.let_syncs(1);
    ticket.synced().await.unwrap();
    settle().await;
    // The sync of the next file's header.
    faulty.faults.fail_next_syncs(1);
    faulty.faults.let_syncs(1000);
    append_synced(&wal, &edit(1, 2, 10)).await.unwrap();
    assert_eq!(ids(&files, 1).await, [1, 2]);
    tokio::time::advance(Duration::from_secs(6)).await;
    append_synced(&wal, &edit(1, 3, 10)).await.unwrap();
    append_synced(&wal, &edit(1, 4, 10)).await.unwrap();
    assert_eq!(ids(&files, 3).await, [4]);
    wal.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_file_goes_on_while_the_next_one_is_being_made() {
    let (faulty, files) = replacing();
    let config = WalConfig { roll_bytes: 600, ..WalConfig::default() };
    let wal = create(&files, config).await.unwrap();
    faulty.faults.hold_creates();
    for (sequence_id, bytes) in [(1, 600), (2, 10), (3, 10)] {
        append_synced(&wal, &edit(1, sequence_id, bytes)).await.unwrap();
    }
    // The roll waits for the same file.
    let rolled = tokio::spawn(async move {
        wal.roll().await.unwrap();
        wal
    });
    settle().await;
    faulty.faults.let_creates(1);
    let wal = rolled.await.unwrap();
    append_synced(&wal, &edit(1, 4, 10)).await.unwrap();
    assert_eq!(ids(&files, 1).await, [1, 2, 3]);
    assert_eq!(ids(&files, 2).await, [4]);
    wal.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_made_takes_the_place_of_one_that_fails() {
    let (faulty, files) = replacing();
    let config = WalConfig { roll_bytes: 600, ..WalConfig::default() };
    let wal = create(&files, config).await.unwrap();
    faulty.faults.hold_creates();
    append_synced(&wal, &edit(1, 1, 600)).await.unwrap();
    faulty.faults.fail_next_syncs(1);
    let ticket = append(&wal, &edit(1, 2, 10)).await.unwrap();
    settle().await;
    assert!(!ticket.is_synced());
    faulty.faults.let_creates(1);
    ticket.synced().await.unwrap();
    assert_eq!(ids(&files, 2).await, [2]);
    assert_eq!(wal.stats().live_files, 2);
    wal.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_roll_that_fails_is_reported_and_loses_nothing() {
    let (faulty, files) = replacing();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    faulty.faults.fail_next_syncs(1);
    assert!(matches!(wal.roll().await, Err(Error::Files(_))));
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    wal.roll().await.unwrap();
    append_synced(&wal, &edit(1, 2, 10)).await.unwrap();
    assert_eq!(ids(&files, 1).await, [1]);
    assert_eq!(ids(&files, 3).await, [2]);
    wal.close().await.unwrap();
}
