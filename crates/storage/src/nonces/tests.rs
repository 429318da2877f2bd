//! Nonce files written, merged and damaged.

use std::path::Path;
use std::sync::Arc;

use basalt_fs::{Durability, FileSystem, MemoryFileSystem, SharedFileSystem};
use basalt_model::{Cell, SequenceId, paths};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{
    ANSWER_BYTES_MAX, Answer, Error, NonceEntry, NonceFile, NonceFileEntry, NonceFileWriter,
    NonceMessage, Nonces, RETENTION_MS, merge,
};
use crate::wal::Nonce;

const FOLDER: &str = "/region/.nonces";

fn nonce(nonce: u64) -> Nonce {
    Nonce { group: nonce % 7, nonce }
}

fn cell(value_bytes: usize) -> Cell {
    Cell::put(b"row", b"f", b"q", 9, &vec![b'v'; value_bytes]).unwrap()
}

fn entry(number: u64, at_ms: u64) -> NonceEntry {
    let answer = Answer::of(&[cell(number as usize % 400)]);
    NonceEntry { nonce: nonce(number), sequence_id: SequenceId(number), at_ms, answer }
}

fn sorted(mut entries: Vec<NonceEntry>) -> Vec<NonceEntry> {
    entries.sort_by_key(|entry| entry.nonce);
    entries
}

async fn disk() -> (MemoryFileSystem, SharedFileSystem) {
    let disk = MemoryFileSystem::new();
    disk.create_directories(Path::new(FOLDER)).await.unwrap();
    (disk.clone(), Arc::new(disk))
}

async fn write(files: &SharedFileSystem, name: &str, entries: &[NonceEntry]) -> NonceFileEntry {
    let path = Path::new(FOLDER).join(name);
    let count = entries.len() as u64;
    let durability = Durability::default();
    let mut writer = NonceFileWriter::create(files, &path, count, durability).await.unwrap();
    for entry in entries {
        writer.append(entry).await.unwrap();
    }
    writer.finish(name.to_owned()).await.unwrap()
}

fn opened(files: &SharedFileSystem, entry: &NonceFileEntry) -> Arc<NonceFile> {
    Arc::new(NonceFile::new(files, Path::new(FOLDER), entry.clone()))
}

async fn read(file: &Arc<NonceFile>) -> Result<Vec<NonceEntry>, Error> {
    let mut scanner = file.scanner();
    let mut found = Vec::new();
    while let Some(entry) = scanner.next().await? {
        found.push(entry);
    }
    Ok(found)
}

#[test]
fn answers_of_256_bytes_are_kept_and_longer_ones_are_left_in_the_region() {
    let fixed = cell(0).bytes().len();
    let longest = [cell(ANSWER_BYTES_MAX - fixed)];
    let kept = Answer::of(&longest);
    let cells = kept.cells(SequenceId(3)).unwrap().unwrap();
    assert_eq!(cells, longest.map(|cell| cell.with_sequence_id(SequenceId(3))));
    let longer = Answer::of(&[cell(ANSWER_BYTES_MAX + 1 - fixed)]);
    assert_eq!(longer, Answer::InRegion { lowest: 9, highest: 9 });
    assert_eq!(longer.cells(SequenceId(3)).unwrap(), None);
    assert_eq!(Answer::of(&[]).cells(SequenceId(3)).unwrap(), Some(Vec::new()));
}

#[test]
fn an_entry_of_an_old_manifest_reads_as_it_was_written() {
    for written in [entry(5, 9), entry(399, 9)] {
        let read = NonceEntry::try_from(NonceMessage::from(&written)).unwrap();
        assert_eq!(read, written);
    }
}

#[test]
fn memory_is_counted_and_a_flush_takes_what_was_there_when_it_began() {
    let mut nonces = Nonces::new(Vec::new(), [entry(1, 0)]);
    let one = nonces.recent_bytes();
    nonces.insert(entry(1, 0));
    assert_eq!(nonces.recent_bytes(), one, "twice the same");
    nonces.begin_flush();
    nonces.insert(entry(2, 0));
    assert_eq!(nonces.flushing().unwrap().len(), 1);
    assert!(nonces.recent(nonce(1)).is_some() && nonces.recent(nonce(2)).is_some());
    nonces.flushed(Vec::new());
    assert!(nonces.recent(nonce(1)).is_none() && nonces.recent(nonce(2)).is_some());
    assert_eq!(nonces.recent_bytes(), nonces.active_bytes());
}

#[tokio::test]
async fn each_operation_of_a_file_is_found_and_no_other() {
    let (_, files) = disk().await;
    for count in [0, 1, 3_000] {
        let entries = sorted((0..count).map(|number| entry(2 * number, number)).collect());
        let written = write(&files, &format!("{count}"), &entries).await;
        assert_eq!((written.entries, written.oldest_ms), (count, 0));
        assert_eq!(written.newest_ms, count.saturating_sub(1));
        let file = opened(&files, &written);
        assert!(!file.is_open(), "nothing has been looked up yet");
        for expected in &entries {
            assert_eq!(file.get(expected.nonce).await.unwrap().as_ref(), Some(expected));
        }
        for number in 0..count {
            assert_eq!(file.get(nonce(2 * number + 1)).await.unwrap(), None);
        }
        assert_eq!(read(&file).await.unwrap(), entries);
        assert!(file.memory_bytes() <= 40 + 3 * count, "{} bytes", file.memory_bytes());
    }
}

#[tokio::test]
async fn every_flipped_bit_and_every_truncation_is_noticed() {
    let (disk, files) = disk().await;
    let entries = sorted((0..40).map(|number| entry(number, 5)).collect());
    let written = write(&files, "whole", &entries).await;
    let whole = disk.read_whole(&Path::new(FOLDER).join("whole"), 1 << 20).await.unwrap();
    for at in 0..whole.len() {
        let name = format!("flipped-{at}");
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1;
        let path = Path::new(FOLDER).join(&name);
        disk.write_whole(&path, Bytes::from(flipped)).await.unwrap();
        let file = opened(&files, &NonceFileEntry { name, ..written.clone() });
        // The first magic is not checked, because no offset refers to it.
        let noticed = read(&file).await;
        assert!(noticed.is_err() || at < 8, "flipped at {at}: {noticed:?}");
        let name = format!("cut-{at}");
        disk.write_whole(&Path::new(FOLDER).join(&name), whole.slice(..at)).await.unwrap();
        for length in [written.length, at as u64] {
            let entry = NonceFileEntry { name: name.clone(), length, ..written.clone() };
            assert!(read(&opened(&files, &entry)).await.is_err(), "cut at {at}");
        }
    }
}

#[tokio::test]
async fn merged_files_hold_what_may_still_be_retried() {
    let (_, files) = disk().await;
    let (old, new) = (0, RETENTION_MS);
    let odd = (0..500).map(|number| entry(2 * number + 1, if number < 9 { old } else { new }));
    let even = (0..500).map(|number| entry(2 * number, new));
    let again = NonceEntry { sequence_id: SequenceId(9_999), ..entry(4, new) };
    let inputs = [sorted(odd.collect()), sorted(even.collect()), vec![again.clone()]];
    let mut opened_inputs = Vec::new();
    for (name, entries) in (0..).zip(&inputs) {
        opened_inputs.push(opened(&files, &write(&files, &format!("{name}"), entries).await));
    }
    let path = Path::new(FOLDER).join("merged");
    let durability = Durability::default();
    let merged =
        merge(&files, &path, "merged".to_owned(), &opened_inputs, new + 1, durability).await;
    let merged = opened(&files, &merged.unwrap());
    assert_eq!(merged.entry().entries, 991);
    assert_eq!(merged.get(nonce(4)).await.unwrap(), Some(again), "the later one");
    assert_eq!(merged.get(nonce(3)).await.unwrap(), None, "too old");
    assert_eq!(merged.get(nonce(999)).await.unwrap(), Some(entry(999, new)));
}

#[tokio::test]
async fn a_file_in_the_archive_is_read_there() {
    let (disk, files) = disk().await;
    let written = write(&files, "a", &[entry(1, 5)]).await;
    let path = Path::new(FOLDER).join("a");
    let archived = paths::archived(&path);
    disk.create_directories(archived.parent().unwrap()).await.unwrap();
    disk.rename(&path, &archived).await.unwrap();
    assert!(opened(&files, &written).get(nonce(1)).await.unwrap().is_some());
    assert!(!disk.exists(&path).await.unwrap(), "reading moves no file");
    disk.delete_file(&archived).await.unwrap();
    let error = opened(&files, &written).get(nonce(1)).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn a_writer_refuses_what_no_reader_would_accept() {
    let (_, files) = disk().await;
    let path = Path::new(FOLDER).join("a");
    let most = NonceFileWriter::ENTRIES_MAX;
    let durability = Durability::default();
    let create = |count| NonceFileWriter::create(&files, &path, count, durability);
    assert!(matches!(create(most + 1).await, Err(Error::TooMany { .. })));
    let mut writer = create(1).await.unwrap();
    writer.append(&entry(2, 5)).await.unwrap();
    let error = writer.append(&entry(2, 5)).await.unwrap_err();
    assert!(matches!(error, Error::OutOfOrder { .. }), "{error}");
    let error = writer.append(&entry(9, 5)).await.unwrap_err();
    assert!(matches!(error, Error::TooMany { .. }), "{error}");
}

proptest! {
    #[test]
    fn any_entry_reads_as_it_was_written(
        numbers in (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()),
        lengths in proptest::collection::vec(0..300_usize, 0..14),
        rest in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let cells: Vec<Cell> = lengths.into_iter().map(cell).collect();
        let written = NonceEntry {
            nonce: Nonce { group: numbers.0, nonce: numbers.1 },
            sequence_id: SequenceId(numbers.2),
            at_ms: numbers.3,
            answer: Answer::of(&cells),
        };
        let mut bytes = BytesMut::new();
        written.put(&mut bytes);
        prop_assert!(bytes.len() <= super::entry::ENTRY_BYTES_MAX);
        bytes.extend_from_slice(&rest);
        let mut bytes = bytes.freeze();
        prop_assert_eq!(NonceEntry::take(&mut bytes).unwrap(), written);
        prop_assert_eq!(&bytes[..], &rest[..]);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut rest = Bytes::from(bytes);
        if let Ok(entry) = NonceEntry::take(&mut rest) {
            let _ = entry.answer.cells(entry.sequence_id);
        }
    }
}
