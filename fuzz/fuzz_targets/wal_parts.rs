//! The split index beside a WAL file, and the part of a region that it points to.
//!
//! Input: a selector byte, then the index, then the log. If the selector is odd, all checksums are
//! corrected first.

#![no_main]

use std::path::Path;
use std::sync::Arc;

use basalt_fuzz::{block_on, checksums, choice, disk_with, join_parts, put, seed, two_parts};
use basalt_model::EncodedRegionName;
use basalt_storage::wal::split_index::{PartReader, SplitIndex, index_path, write_split_index};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (choice, rest) = choice(input);
    let (index, log) = two_parts(rest);
    let (mut index, mut log) = (index.to_vec(), log.to_vec());
    if choice & 1 != 0 {
        checksums::repair_split_index(&mut index);
        checksums::repair_log(&mut log);
    }
    let sealed_length = index.get(14..).and_then(|sealed_length| sealed_length.first_chunk());
    let sealed_length = sealed_length.map_or(0, |c| u64::from_be_bytes(*c));
    block_on(async {
        let path = Path::new("/log");
        let files = disk_with(path, &log).await;
        put(&files, &index_path(path), &index).await;
        for digest in index.get(42..).unwrap_or_default().chunks(100).take(4) {
            let Some(digest) = digest.first_chunk() else { continue };
            let region = EncodedRegionName::from_digest(*digest);
            let Ok(parts) = SplitIndex::open(&files, path, &Arc::default()).await else { continue };
            let Ok(Some(part)) = parts.part(region).await else { continue };
            let mut reader = PartReader::new(part);
            while let Ok(Some(edit)) = reader.next().await {
                assert_eq!(edit.region, region);
            }
        }
        let _ = write_split_index(&files, path, sealed_length).await;
    });
});

fn seeds() -> Vec<Vec<u8>> {
    let region = [7u8; 16];
    let cell = [
        &[0, 0, 0, 16, 0, 0, 0, 1, 0, 1, b'r', 1, b'f', b'q'][..],
        &[0, 0, 0, 0, 0, 0, 0, 5, 4, b'v'],
    ];
    let cell = cell.concat();
    let mut body =
        [&region[..], &1u64.to_be_bytes(), &5u64.to_be_bytes(), &[0, 0, 0, 0, 1]].concat();
    body.extend_from_slice(&(cell.len() as u32).to_be_bytes());
    body.extend_from_slice(&cell);
    body.extend_from_slice(&3u64.to_be_bytes());
    let record = [&(body.len() as u32).to_be_bytes()[..], &[0; 4], &body].concat();
    let mut batch = [&b"BsB\x9d"[..], &512u64.to_be_bytes(), &512u64.to_be_bytes()].concat();
    batch.extend_from_slice(&(record.len() as u64).to_be_bytes());
    batch.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    let mut log = b"BsltWAL\n\0\x01".to_vec();
    log.extend_from_slice(&[0; 16]);
    for text in ["c", "rs-0,16020,1", "boot"] {
        log.extend_from_slice(&(text.len() as u16).to_be_bytes());
        log.extend_from_slice(text.as_bytes());
    }
    log.resize(512, 0);
    log.extend_from_slice(&batch);
    log.extend_from_slice(&record);
    checksums::repair_log(&mut log);
    let index = block_on(async {
        let path = Path::new("/log");
        let files = disk_with(path, &log).await;
        basalt_fuzz::ok(write_split_index(&files, path, log.len() as u64).await);
        basalt_fuzz::ok(files.read_whole(&index_path(path), 1 << 20).await).to_vec()
    });
    vec![[&[1], &join_parts(&index, &log)[..]].concat()]
}
