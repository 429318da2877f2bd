//! A region's manifest, with the nonces in it. Every manifest that decodes must survive being
//! written and read again.
//!
//! Input: a selector byte, then the file. If the selector is odd, its checksum is corrected first.

#![no_main]

use std::sync::Arc;

use basalt_fs::{Durability, MemoryFileSystem, SharedFileSystem};
use basalt_fuzz::{block_on, checksums, choice, ok, put, seed};
use basalt_model::{Cell, EncodedRegionName, RegionEpoch, SequenceId, TableName, paths};
use basalt_storage::manifest::{FamilyIncarnation, FileEntry, Manifest, Origin};
use basalt_storage::nonces::{Answer, NonceEntry, NonceFileEntry, Nonces};
use basalt_storage::store_file::FilePart;
use basalt_storage::wal::Nonce;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fn place() -> (TableName, EncodedRegionName) {
    (ok("t".parse()), EncodedRegionName::from_digest([1; 16]))
}

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (choice, file) = choice(input);
    let mut file = file.to_vec();
    if choice & 1 != 0 {
        checksums::repair_manifest(&mut file);
    }
    let (table, region) = place();
    let epoch = RegionEpoch(1);
    let first = paths::manifest(&table, region, epoch, 0);
    block_on(async {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        put(&files, &first, &file).await;
        let Ok(manifest) = Manifest::take_over(&files, &table, region, epoch).await else {
            return;
        };
        let manifest = manifest.unwrap_or_default();
        drop(Nonces::new(Vec::new(), manifest.nonces.iter().cloned()));
        ok(files.delete_file(&first).await);
        ok(manifest.write(&files, &table, region, Durability::default()).await);
        let again = ok(Manifest::take_over(&files, &table, region, epoch).await);
        assert_eq!(again, Some(manifest));
    });
});

fn seeds() -> Vec<Vec<u8>> {
    let name = "0123456789abcdef".to_owned();
    let file = FileEntry {
        name,
        origin: Some(Origin { table: ok("ns:t".parse()), region: place().1 }),
        part: FilePart {
            start: Bytes::from_static(b"a"),
            end: Bytes::from_static(b"b"),
            sequence_id: Some(SequenceId(5)),
        },
        length: 99,
        highest: SequenceId(7),
        major: true,
    };
    let nonce = NonceEntry {
        nonce: Nonce { group: 1, nonce: 2 },
        sequence_id: SequenceId(7),
        at_ms: 12,
        answer: Answer::of(&[ok(Cell::put(b"r", b"f", b"q", 1, b"v"))]),
    };
    let epoch = RegionEpoch(2);
    let manifest = Manifest {
        epoch,
        number: 3,
        families: [("f".to_owned(), vec![file])].into(),
        incarnations: [("f".to_owned(), FamilyIncarnation { number: 3, since: epoch })].into(),
        flushed: SequenceId(7),
        highest: SequenceId(9),
        highest_timestamp_ms: 12,
        nonce_files: vec![NonceFileEntry {
            name: "0123".to_owned(),
            length: 99,
            entries: 3,
            oldest_ms: 10,
            newest_ms: 12,
        }],
        nonces: vec![nonce],
    };
    let (table, region) = place();
    let file = block_on(async {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        ok(files.create_directories(&paths::manifests(&table, region)).await);
        ok(manifest.write(&files, &table, region, Durability::default()).await);
        let path = paths::manifest(&table, region, manifest.epoch, manifest.number);
        ok(files.read_whole(&path, 1 << 20).await)
    });
    vec![[&[1], &file[..]].concat(), [&[1], &file[..12]].concat()]
}
