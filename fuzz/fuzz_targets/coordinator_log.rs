//! The log of a coordinator member, with one or two segments, opened as at a start. It is then
//! opened again, because the files that the first start leaves must be readable.
//!
//! Input: a selector byte, then the first segment, then the second. If the selector is odd, the
//! checksums and offsets of the segments are corrected first.

#![no_main]

use std::path::Path;
use std::sync::Arc;

use basalt_coordinator::fuzzing::{open_log, sample_log_records};
use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use basalt_fuzz::{block_on, checksums, choice, join_parts, ok, put, seed, two_parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (choice, rest) = choice(input);
    let (first, second) = two_parts(rest);
    block_on(async {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        let folder = Path::new("/member");
        for (number, segment) in [(1, first), (2, second)] {
            if number == 2 && segment.is_empty() {
                continue;
            }
            let mut segment = segment.to_vec();
            if choice & 1 != 0 {
                checksums::repair_segment(&mut segment);
            }
            put(&files, &folder.join(format!("log-{number:020}")), &segment).await;
        }
        if open_log(Arc::clone(&files), folder).await.is_ok() {
            ok(open_log(files, folder).await);
        }
    });
});

fn seeds() -> Vec<Vec<u8>> {
    let frame = |records: &[u8]| {
        let length = (records.len() as u32).to_be_bytes();
        [&length[..], &[0; 12], records].concat()
    };
    let records = sample_log_records();
    let each: Vec<u8> = records.iter().flat_map(|record| frame(record)).collect();
    let head: Vec<u8> = records[..2].concat();
    // The same header for segment 2: the number is its first field.
    let mut next = frame(&records[0]);
    if let Some(at) = next.iter().rposition(|byte| *byte == 1) {
        next[at] = 2;
    }
    vec![
        [&[1], &join_parts(&each, &[])[..]].concat(),
        [&[1], &join_parts(&frame(&records.concat()), &[])[..]].concat(),
        [&[1], &join_parts(&frame(&head), &next)[..]].concat(),
    ]
}
