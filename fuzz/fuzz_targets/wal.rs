//! A WAL file: read whole, indexed, and read part by part. All three must agree.
//!
//! Input: a selector byte, then the file. If the selector is odd, the checksums are corrected
//! first. The other bits of the selector say how many bytes before the end of the file its sealed
//! length is.

#![no_main]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_fs::{Durability, MemoryFileSystem, SharedFileSystem};
use basalt_fuzz::{block_on, checksums, choice, disk_with, ok, seed};
use basalt_model::{Cell, EncodedRegionName, RegionEpoch, SequenceId, ServerName, paths};
use basalt_runtime::{Clock, SystemClock};
use basalt_storage::wal::split_index::{
    PartReader, SplitIndex, SplitIndexSummary, write_split_index,
};
use basalt_storage::wal::{EncodedEdit, Nonce, Wal, WalConfig, WalReader};
use libfuzzer_sys::fuzz_target;

type Counts = BTreeMap<EncodedRegionName, u64>;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (choice, file) = choice(input);
    let mut file = file.to_vec();
    if choice & 1 != 0 {
        checksums::repair_log(&mut file);
    }
    let sealed_length = file.len() as u64 - u64::from(choice >> 1).min(file.len() as u64);
    block_on(async {
        let path = Path::new("/log");
        let files = disk_with(path, &file).await;
        let whole = read_whole(&files, path, sealed_length).await;
        let index = write_split_index(&files, path, sealed_length).await;
        let (Some(whole), Ok(index)) = (whole, index) else {
            return;
        };
        let again = ok(write_split_index(&files, path, sealed_length).await);
        assert_eq!(index, again, "an index is read as it was made");
        let counts: Counts = index.parts.iter().map(|part| (part.region, part.edits)).collect();
        assert_eq!(counts, whole);
        read_parts(&files, path, &index).await;
    });
});

/// The number of edits of each region; `None` if the file is corrupt.
async fn read_whole(files: &SharedFileSystem, path: &Path, sealed_length: u64) -> Option<Counts> {
    let mut reader = WalReader::open(files, path, sealed_length).await.ok()?;
    let mut counts = Counts::new();
    while let Some(edit) = reader.next().await.ok()? {
        assert!(edit.cells.iter().all(|cell| cell.sequence_id() == edit.sequence_id));
        *counts.entry(edit.region).or_default() += 1;
    }
    assert!(reader.tail().is_some_and(|tail| tail.end + tail.torn_bytes == sealed_length));
    Some(counts)
}

async fn read_parts(files: &SharedFileSystem, path: &Path, index: &SplitIndexSummary) {
    let parts = ok(SplitIndex::open(files, path, &Arc::default()).await);
    for summary in &index.parts {
        let part = ok(parts.part(summary.region).await);
        let Some(part) = part else {
            panic!("the part of {} is not found", summary.region);
        };
        let mut reader = PartReader::new(part);
        while ok(reader.next().await).is_some() {}
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let file = block_on(write());
    let with = |choice: u8| [&[choice], &file[..]].concat();
    vec![with(1), with(1 | 9 << 1), [&[0], &file[..512]].concat(), [&[1], &file[..300]].concat()]
}

async fn write() -> Vec<u8> {
    let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
    let server: ServerName = ok("rs-0,16020,1".parse());
    let clock = Clock::new(SystemClock);
    let config = WalConfig::default();
    let wal = ok(Wal::create(Arc::clone(&files), &server, "c", config, clock).await);
    for number in 0..6u8 {
        let sequence_id = SequenceId(u64::from(number) + 1);
        let cell = ok(Cell::put(&[b'r', number], b"f", b"q", 7, b"v"));
        let nonce = (number == 3).then_some(Nonce { group: 1, nonce: 2 });
        let region = EncodedRegionName::from_digest([number % 2; 16]);
        let edit = ok(EncodedEdit::new(region, RegionEpoch(1), 5, nonce, &[cell]));
        let permit = ok(wal.reserve(edit.record_bytes()).await);
        let ticket = permit.append(&edit, sequence_id, Durability::default());
        if number % 2 == 1 {
            ok(ticket.synced().await);
        }
    }
    ok(wal.close().await);
    let path: PathBuf = paths::server_logs(&server).join(format!("{server}.1"));
    ok(files.read_whole(&path, 1 << 20).await).to_vec()
}
