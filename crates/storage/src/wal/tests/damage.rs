//! Reads logs that were truncated or damaged.

use std::path::Path;
use std::sync::Arc;

use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use bytes::Bytes;

use super::*;
use crate::wal::header::{BATCH_HEADER_BYTES, FILE_HEADER_BYTES};
use crate::wal::{Error, Tail};

/// A log as stored on the disk.
struct Written {
    bytes: Bytes,
    edits: Vec<Edit>,
    /// The length of the file when each edit was acknowledged.
    acked_at: Vec<usize>,
}

/// Writes batches of several sizes. No commit marker follows the last one.
async fn write_log() -> Written {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    let (mut edits, mut acked_at) = (Vec::new(), Vec::new());
    let mut sequence_id = 0;
    for batch in [1, 3, 2, 5, 1] {
        let mut tickets = Vec::new();
        for _ in 0..batch {
            sequence_id += 1;
            let edit = edit(sequence_id as u8 % 3, sequence_id, 20);
            tickets.push(append(&wal, &edit).await.unwrap());
            edits.push(edit);
        }
        for ticket in tickets {
            ticket.synced().await.unwrap();
            acked_at.push(length(&files, &log(1)).await as usize);
        }
    }
    let bytes = files.read_whole(&log(1), u64::MAX).await.unwrap();
    Written { bytes, edits, acked_at }
}

async fn read(bytes: &[u8], sealed_length: u64) -> super::super::Result<(Vec<Edit>, Tail)> {
    let files = disk_with(bytes).await;
    let mut reader = WalReader::open(&files, Path::new("/log"), sealed_length).await?;
    let edits = read_all(&mut reader).await?;
    Ok((edits, reader.tail().unwrap().clone()))
}

#[tokio::test(start_paused = true)]
async fn every_prefix_holds_what_was_acknowledged_and_nothing_half() {
    let written = write_log().await;
    for length in 0..=written.bytes.len() {
        let (edits, tail) = read(&written.bytes[..length], length as u64).await.unwrap();
        let acked = written.acked_at.iter().filter(|at| **at <= length).count();
        assert!(edits.len() >= acked, "{length} bytes: an acknowledged edit is missing");
        assert_eq!(edits, written.edits[..edits.len()]);
        assert_eq!(tail.end + tail.torn_bytes, length as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_beyond_the_sealed_length_is_read() {
    let written = write_log().await;
    for length in 0..=written.bytes.len() {
        let sealed = read(&written.bytes, length as u64).await.unwrap();
        let truncated = read(&written.bytes[..length], length as u64).await.unwrap();
        assert_eq!(sealed, truncated);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_shorter_than_it_was_sealed_is_no_torn_tail() {
    let written = write_log().await;
    let sealed = written.bytes.len() as u64;
    for length in 0..sealed {
        let error = read(&written.bytes[..length as usize], sealed).await.unwrap_err();
        assert!(
            matches!(error, Error::Shorter { length: found, sealed_length, .. }
                if found == length && sealed_length == sealed),
            "{length}: {error}"
        );
    }
    // A file that was sealed within its header holds no edit, whatever happened to it since.
    let header = FILE_HEADER_BYTES as u64;
    for (length, sealed) in [(0, header), (100, header), (0, 1), (100, 400)] {
        let (edits, _) = read(&written.bytes[..length], sealed).await.unwrap();
        assert_eq!(edits, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_torn_in_the_last_batch_and_corruption_before() {
    let written = write_log().await;
    let last_batch = written.acked_at[written.acked_at.len() - 2];
    for at in 0..written.bytes.len() {
        let mut bytes = written.bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        match read(&bytes, bytes.len() as u64).await {
            Ok((edits, tail)) => {
                assert!(at >= last_batch, "byte {at} had been durable");
                assert_eq!(edits, written.edits[..edits.len()]);
                assert_eq!(edits.len(), written.edits.len() - 1);
                assert!(tail.defect.is_some() && tail.end <= at as u64);
            }
            Err(Error::Corrupt { path, offset, .. }) => {
                assert!(at < last_batch, "nobody says that byte {at} was durable");
                assert_eq!(path, Path::new("/log"));
                assert!(offset <= at as u64, "{offset} is behind the damage at {at}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_torn_tail_may_be_zeros_or_garbage() {
    let written = write_log().await;
    let whole = *written.acked_at.last().unwrap();
    for filling in [0_u8, 0xff, b'B'] {
        for garbage in [1, 8, BATCH_HEADER_BYTES, 5000] {
            let mut bytes = written.bytes[..whole].to_vec();
            bytes.resize(whole + garbage, filling);
            let (edits, tail) = read(&bytes, bytes.len() as u64).await.unwrap();
            assert_eq!(edits, written.edits);
            assert_eq!((tail.end, tail.torn_bytes), (whole as u64, garbage as u64));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_makes_damage_to_the_last_batch_corruption() {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    append_synced(&wal, &edit(1, 1, 10)).await.unwrap();
    wal.close().await.unwrap();
    let mut bytes = files.read_whole(&log(1), u64::MAX).await.unwrap().to_vec();
    let damaged = FILE_HEADER_BYTES + BATCH_HEADER_BYTES + 20;
    bytes[damaged] ^= 1;
    let error = read(&bytes, bytes.len() as u64).await.unwrap_err();
    assert!(error.is_corrupt());
    let text = error.to_string();
    assert!(text.starts_with("/log: corrupt at byte 548: the checksum of a record"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_log_inside_a_value_proves_nothing() {
    let written = write_log().await;
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    let mut edit = edit(1, 1, 0);
    edit.cells = vec![
        Cell::put(b"row", b"f", b"q", 1, &written.bytes)
            .unwrap()
            .with_sequence_id(edit.sequence_id),
    ];
    append_synced(&wal, &edit).await.unwrap();
    let bytes = files.read_whole(&log(1), u64::MAX).await.unwrap();
    for damaged in [FILE_HEADER_BYTES, FILE_HEADER_BYTES + BATCH_HEADER_BYTES + 9] {
        let mut bytes = bytes.to_vec();
        bytes[damaged] ^= 1;
        let (edits, tail) = read(&bytes, bytes.len() as u64).await.unwrap();
        assert_eq!(edits, []);
        assert!(tail.defect.is_some() && tail.end <= damaged as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_leaves_holds_every_acknowledged_edit() {
    for kept in 0..400 {
        let disk = MemoryFileSystem::new();
        let files: SharedFileSystem = Arc::new(disk.as_writer(1));
        let wal = create(&files, WalConfig::default()).await.unwrap();
        let edits = [edit(1, 1, 50), edit(2, 1, 50), edit(1, 2, 50)];
        append_synced(&wal, &edits[0]).await.unwrap();
        append_synced(&wal, &edits[1]).await.unwrap();
        // A batch that reaches the disk only in part, as if power failed before its sync.
        let whole = files.read_whole(&log(1), u64::MAX).await.unwrap();
        append_synced(&wal, &edits[2]).await.unwrap();
        let after = files.read_whole(&log(1), u64::MAX).await.unwrap();
        disk.crash(1, |_| 0);
        let torn = &after[..(whole.len() + kept).min(after.len())];
        let (read, _) = read(torn, torn.len() as u64).await.unwrap();
        assert!(read == edits[..2] || (read == edits && torn.len() == after.len()));
        assert!(wal.reserve(1).await.is_ok());
        let late = append(&wal, &edit(1, 3, 50)).await.unwrap();
        assert!(late.synced().await.is_err(), "a crashed machine acknowledges nothing");
    }
}
