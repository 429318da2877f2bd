//! Compares the parts of a split index with what a plain reader reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::wal::Error;
use crate::wal::split_index::{PartReader, SplitIndex, index_path, write_split_index};

async fn read_region(files: &SharedFileSystem, number: u8) -> super::super::Result<Vec<Edit>> {
    let index = SplitIndex::open(files, &log(1), &Arc::default()).await?;
    let Some(part) = index.part(region(number)).await? else {
        return Ok(Vec::new());
    };
    let mut reader = PartReader::new(part);
    let mut edits = Vec::new();
    while let Some(edit) = reader.next().await? {
        edits.push(edit);
    }
    Ok(edits)
}

async fn write(edits: &[(u8, usize, bool)]) -> (SharedFileSystem, Vec<Edit>) {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let wal = create(&files, WalConfig::default()).await.unwrap();
    let mut written = Vec::new();
    for (index, (region, value_bytes, sync)) in edits.iter().enumerate() {
        let edit = edit(*region, index as u64 + 1, *value_bytes);
        let ticket = append(&wal, &edit).await.unwrap();
        if *sync {
            ticket.synced().await.unwrap();
        }
        written.push(edit);
    }
    wal.close().await.unwrap();
    (files, written)
}

fn by_region(edits: &[Edit]) -> BTreeMap<EncodedRegionName, Vec<Edit>> {
    let mut regions: BTreeMap<_, Vec<Edit>> = BTreeMap::new();
    for edit in edits {
        regions.entry(edit.region).or_default().push(edit.clone());
    }
    regions
}

async fn check_against_reader(files: &SharedFileSystem, sealed_length: u64) {
    let mut reader = WalReader::open(files, &log(1), sealed_length).await.unwrap();
    let expected = by_region(&read_all(&mut reader).await.unwrap());
    let summary = write_split_index(files, &log(1), sealed_length).await.unwrap();
    assert_eq!(summary.end, reader.tail().unwrap().end);
    assert_eq!(
        write_split_index(files, &log(1), sealed_length).await.unwrap(),
        summary,
        "from the index"
    );
    assert_eq!(summary.parts.len(), expected.len());
    for (part, (region, edits)) in summary.parts.iter().zip(&expected) {
        let ids = edits.iter().map(|edit| edit.sequence_id);
        let epochs = edits.iter().map(|edit| edit.epoch);
        assert_eq!(part.region, *region);
        assert_eq!(part.edits, edits.len() as u64);
        assert_eq!(part.sequence_ids, ids.clone().min().unwrap()..=ids.max().unwrap());
        assert_eq!(part.epochs, epochs.clone().min().unwrap()..=epochs.max().unwrap());
        let bytes: usize = edits.iter().map(|edit| encode(edit).record_bytes()).sum();
        assert_eq!(part.bytes, bytes as u64);
        let number = region.digest()[0];
        assert_eq!(&read_region(files, number).await.unwrap(), edits);
    }
    assert_eq!(read_region(files, 0xee).await.unwrap(), []);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_are_what_a_reader_reads(
        edits in prop::collection::vec((0_u8..6, 0_usize..3000, any::<bool>()), 0..80),
        length_of_1000 in 0_u64..=1000,
    ) {
        runtime().block_on(async {
            let (files, _) = write(&edits).await;
            let length = length(&files, &log(1)).await;
            check_against_reader(&files, length * length_of_1000 / 1000).await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_several_windows_is_read_whole() {
    let edits: Vec<_> = (0..600).map(|i| ((i / 7 % 3) as u8, 9000, i % 50 == 0)).collect();
    let (files, written) = write(&edits).await;
    let length = length(&files, &log(1)).await;
    assert!(length > 5 << 20);
    check_against_reader(&files, length).await;
    assert_eq!(read_log(&files, 1).await, written);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_index_is_refused_and_made_again() {
    let (files, written) = write(&[(1, 10, true), (2, 10, false), (1, 10, true)]).await;
    let sealed_length = length(&files, &log(1)).await;
    let summary = write_split_index(&files, &log(1), sealed_length).await.unwrap();
    let path = index_path(&log(1));
    let index = files.read_whole(&path, u64::MAX).await.unwrap();
    for at in 0..index.len() {
        let mut damaged = index.to_vec();
        damaged[at] ^= 0x40;
        files.delete_file(&path).await.unwrap();
        files.write_whole(&path, damaged.into()).await.unwrap();
        let (first, second) = (read_region(&files, 1).await, read_region(&files, 2).await);
        assert!(first.is_err() || second.is_err(), "byte {at} was taken");
    }
    for length in 0..index.len() {
        files.delete_file(&path).await.unwrap();
        files.write_whole(&path, index.slice(..length)).await.unwrap();
        assert!(read_region(&files, 2).await.is_err(), "{length} bytes were taken");
    }
    files.delete_file(&path).await.unwrap();
    files.write_whole(&path, Bytes::from_static(b"garbage")).await.unwrap();
    assert_eq!(write_split_index(&files, &log(1), sealed_length).await.unwrap(), summary);
    assert_eq!(files.read_whole(&path, u64::MAX).await.unwrap(), index);
    assert_eq!(read_region(&files, 2).await.unwrap(), written[1..2]);
}

#[tokio::test(start_paused = true)]
async fn damage_that_comes_after_the_index_is_found() {
    let (files, _) = write(&[(1, 10, true), (2, 10, false), (1, 10, true)]).await;
    let bytes = files.read_whole(&log(1), u64::MAX).await.unwrap();
    write_split_index(&files, &log(1), bytes.len() as u64).await.unwrap();
    files.delete_file(&log(1)).await.unwrap();
    let mut damaged = bytes.to_vec();
    damaged[560] ^= 1;
    files.write_whole(&log(1), damaged.into()).await.unwrap();
    assert!(read_region(&files, 1).await.unwrap_err().is_corrupt());
    assert!(read_region(&files, 2).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_log_is_not_indexed() {
    let (files, _) = write(&[(1, 10, true), (2, 10, true)]).await;
    let mut bytes = files.read_whole(&log(1), u64::MAX).await.unwrap().to_vec();
    bytes[560] ^= 1;
    files.delete_file(&log(1)).await.unwrap();
    let sealed_length = bytes.len() as u64;
    files.write_whole(&log(1), bytes.into()).await.unwrap();
    let result = write_split_index(&files, &log(1), sealed_length).await;
    assert!(result.unwrap_err().is_corrupt());
    assert!(!files.exists(&index_path(&log(1))).await.unwrap());
}

/// A log in batches of two, closed with a commit marker: all of it had been durable.
async fn write_batches() -> (Vec<u8>, BTreeMap<EncodedRegionName, Vec<Edit>>) {
    let edits: Vec<_> = (0..12).map(|index| (1 + index % 3, 20, index % 2 == 1)).collect();
    let (files, written) = write(&edits).await;
    let bytes = files.read_whole(&log(1), u64::MAX).await.unwrap();
    (bytes.to_vec(), by_region(&written))
}

#[tokio::test(start_paused = true)]
async fn a_damaged_edit_costs_its_own_region() {
    let (mut bytes, written) = write_batches().await;
    let value = |edit: &Edit| edit.cells[0].value().to_vec();
    // The third of the first region's four edits.
    let victim = &written[&region(1)][2];
    let needle = value(victim);
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] ^= 4;
    let files = disk_with(&bytes).await;
    let path = Path::new("/log");
    let summary = write_split_index(&files, path, bytes.len() as u64).await.unwrap();
    assert_eq!(write_split_index(&files, path, bytes.len() as u64).await.unwrap(), summary);
    let before = written[&region(1)][3].sequence_id;
    let damage = summary.parts[0].damage.unwrap();
    assert_eq!(damage.before, Some(before));
    assert!(damage.offset < at as u64 && at as u64 - damage.offset < 200);
    for number in [2, 3] {
        let part = SplitIndex::open(&files, path, &Arc::default())
            .await
            .unwrap()
            .part(region(number))
            .await;
        let part = part.unwrap().unwrap();
        part.check_whole_after(SequenceId(0)).unwrap();
        let mut reader = PartReader::new(part);
        for edit in &written[&region(number)] {
            assert_eq!(reader.next().await.unwrap().as_ref(), Some(edit));
        }
        assert!(reader.next().await.unwrap().is_none());
    }
    let part = SplitIndex::open(&files, path, &Arc::default()).await.unwrap().part(region(1)).await;
    let part = part.unwrap().unwrap();
    let error = part.check_whole_after(SequenceId(victim.sequence_id.0 - 1)).unwrap_err();
    assert!(
        error.is_corrupt() && error.to_string().starts_with("/log: corrupt at byte"),
        "{error}"
    );
    let flushed = SequenceId(before.0 - 1);
    part.check_whole_after(flushed).unwrap();
}

/// For any flipped bit, a region that is reported as intact has all its edits.
#[tokio::test(start_paused = true)]
async fn no_flipped_bit_loses_an_edit_silently() {
    let (bytes, written) = write_batches().await;
    let path = Path::new("/log");
    let last_mark = bytes.len() - crate::wal::header::BATCH_HEADER_BYTES;
    let mut confined = 0;
    for bit in 0..last_mark * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let files = disk_with(&damaged).await;
        let Ok(summary) = write_split_index(&files, path, bytes.len() as u64).await else {
            continue;
        };
        confined += 1;
        assert_eq!(summary.parts.iter().filter(|part| part.damage.is_some()).count(), 1);
        for (part, edits) in summary.parts.iter().zip(written.values()) {
            let short = usize::from(part.damage.is_some());
            assert_eq!(part.edits as usize + short, edits.len(), "bit {bit}");
        }
    }
    assert!(confined > last_mark * 4, "most damage can be confined: {confined}");
}

#[tokio::test(start_paused = true)]
async fn an_index_of_a_log_that_was_cut_off_since_is_made_again() {
    let (bytes, written) = write_batches().await;
    let path = Path::new("/log");
    let sealed_length = bytes.len() as u64;
    let files = disk_with(&bytes).await;
    let whole = write_split_index(&files, path, sealed_length).await.unwrap();
    files.delete_file(path).await.unwrap();
    let half = &bytes[..bytes.len() / 2];
    files.write_whole(path, Bytes::copy_from_slice(half)).await.unwrap();
    let error = write_split_index(&files, path, sealed_length).await.unwrap_err();
    assert!(matches!(error, Error::Shorter { .. }), "{error}");
    // The loss was accepted: from now on the log ends where the file does.
    let shorter = write_split_index(&files, path, half.len() as u64).await.unwrap();
    assert!(shorter.end <= half.len() as u64 && shorter.end < whole.end);
    assert!(shorter.parts[0].edits < written[&region(1)].len() as u64);
}
