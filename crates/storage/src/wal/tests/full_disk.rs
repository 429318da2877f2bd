//! A disk that becomes full: no edit runs out of room half-way, and the log continues once there is
//! room.

use std::sync::Arc;
use std::time::Duration;

use basalt_fs::SharedFileSystem;

use super::faulty_files::FaultyFiles;
use super::*;
use crate::wal::Error;

/// Appends edits until there is no room. Returns the sequence id of the last one accepted.
async fn fill(wal: &Wal, from: u64) -> u64 {
    for sequence_id in from..from + 100_000 {
        match append(wal, &edit(1, sequence_id, 10_000)).await {
            Ok(ticket) => ticket.synced().await.unwrap(),
            Err(error) => {
                assert!(matches!(error, Error::NoRoom(_)), "{error}");
                assert!(error.to_string().contains("/WALs/"), "{error} names no place");
                return sequence_id - 1;
            }
        }
    }
    panic!("the disk is never full");
}

fn on_a_disk_that_runs_full() -> (FaultyFiles, SharedFileSystem) {
    let faulty = FaultyFiles::new();
    let files: SharedFileSystem = Arc::new(faulty.clone());
    (faulty, files)
}

#[tokio::test(start_paused = true)]
async fn writes_are_refused_while_the_disk_is_full_and_taken_again_afterwards() {
    let (faulty, files) = on_a_disk_that_runs_full();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    faulty.faults.fill_up(true);
    let last = fill(&wal, 2).await;
    assert!(append(&wal, &edit(1, last + 1, 10)).await.is_err(), "nor a small one");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(append(&wal, &edit(1, last + 1, 10)).await.is_err(), "it is still full");
    faulty.faults.fill_up(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    append_synced(&wal, &edit(1, last + 1, 10)).await.unwrap();
    wal.close().await.unwrap();
    let read: Vec<u64> = read_log(&files, 1).await.iter().map(|edit| edit.sequence_id.0).collect();
    assert_eq!(read, (1..=last + 1).collect::<Vec<_>>(), "all that was taken, and nothing else");
}

#[tokio::test(start_paused = true)]
async fn what_was_permitted_is_written_however_full_the_disk_is() {
    let (faulty, files) = on_a_disk_that_runs_full();
    let wal = create(&files, WalConfig::default()).await.unwrap();
    let permits = 16 << 20;
    let encoded = encode(&edit(1, 1, 10_000));
    let count = permits / encoded.record_bytes();
    let mut reserved = Vec::new();
    for _ in 0..count {
        reserved.push(wal.reserve(encoded.record_bytes()).await.unwrap());
    }
    faulty.faults.fill_up(true);
    let mut tickets = Vec::new();
    for (permit, sequence_id) in reserved.into_iter().zip(1..) {
        let encoded = encode(&edit(1, sequence_id, 10_000));
        tickets.push(permit.append(&encoded, SequenceId(sequence_id), Durability::default()));
    }
    for ticket in tickets {
        ticket.synced().await.unwrap();
    }
    assert!(matches!(append(&wal, &edit(1, 9_999, 10)).await, Err(Error::NoRoom(_))));
}

#[tokio::test(start_paused = true)]
async fn a_full_file_goes_on_where_there_is_no_room_for_the_next() {
    let (faulty, files) = on_a_disk_that_runs_full();
    let config = WalConfig { roll_bytes: 100_000, ..WalConfig::default() };
    let wal = create(&files, config).await.unwrap();
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    faulty.faults.fill_up(true);
    let last = fill(&wal, 2).await;
    assert!(last > 20, "it has gone on beyond {last} edits of 10,000 bytes");
    assert!(wal.roll().await.unwrap_err().is_storage_full());
    assert_eq!(files.list(&paths_of_logs()).await.unwrap().len(), 1, "nothing is left behind");
    faulty.faults.fill_up(false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    append_synced(&wal, &edit(1, last + 1, 10)).await.unwrap();
    wal.roll().await.unwrap();
    append_synced(&wal, &edit(1, last + 2, 10)).await.unwrap();
}

fn paths_of_logs() -> PathBuf {
    basalt_model::paths::server_logs(&server())
}
