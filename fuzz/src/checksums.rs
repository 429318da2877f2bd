//! Writes correct checksums into bytes that a fuzzer has changed, wherever there is room for one.
//!
//! Written from the documents that describe the formats, independently of the code under test.

use crc32c::{crc32c, crc32c_append};

/// Corrects the blocks of a store file: all that begin with a known magic and have the lengths that
/// their header states.
pub fn repair_store_file(file: &mut [u8]) {
    const MAGICS: [&[u8; 8]; 7] =
        [b"DATABLK*", b"IDXLEAF2", b"BLMFBLK2", b"IDXINTE2", b"IDXROOT2", b"FILEINF2", b"BLMFMET2"];
    let mut at = 0;
    while at + 33 <= file.len() {
        let is_block = MAGICS.iter().any(|magic| file[at..].starts_with(&magic[..]));
        let length = is_block.then(|| repair_block(&mut file[at..])).flatten();
        at += length.unwrap_or(1);
    }
}

/// Corrects one block. Returns its length.
///
/// `[u8; 8] magic | i32 on disk after the header | i32 payload | i64 previous | u8 type | i32 chunk
/// | i32 on disk without checksums`
fn repair_block(block: &mut [u8]) -> Option<usize> {
    let number =
        |block: &[u8], at| Some(u32::from_be_bytes(*block.get(at..)?.first_chunk()?) as usize);
    let length = number(block, 8)?.checked_add(33)?;
    let (kind, chunk, data_length) = (*block.get(24)?, number(block, 25)?, number(block, 29)?);
    if chunk == 0 || data_length < 33 || data_length > length || length > block.len() {
        return None;
    }
    let (data, sums) = block[..length].split_at_mut(data_length);
    for (chunk, sum) in data.chunks(chunk).zip(sums.chunks_exact_mut(4)) {
        let computed = match kind {
            2 => crc32c(chunk),
            _ => 0,
        };
        sum.copy_from_slice(&computed.to_be_bytes());
    }
    Some(length)
}

/// Corrects the file header of a log, its batches and their records.
pub fn repair_log(file: &mut [u8]) {
    const FILE_HEADER_BYTES: usize = 512;
    const BATCH_HEADER_BYTES: usize = 36;
    let Some((header, mut rest)) = file.split_at_mut_checked(FILE_HEADER_BYTES) else {
        return;
    };
    let seed = put_at_end(header, 0);
    while rest.len() >= BATCH_HEADER_BYTES {
        let (header, records) = rest.split_at_mut(BATCH_HEADER_BYTES);
        put_at_end(header, seed);
        let length = header[20..].first_chunk::<8>().map_or(0, |l| u64::from_be_bytes(*l));
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(records.len());
        let (records, next) = records.split_at_mut(length);
        repair_records(records);
        rest = next;
    }
}

/// Corrects a sequence of records, each
/// `u32 length of the body | u32 crc32c of length and body | body`.
fn repair_records(mut records: &mut [u8]) {
    while let Some((prefix, rest)) = records.split_at_mut_checked(8) {
        let length = prefix.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        let Some((body, next)) = rest.split_at_mut_checked(length as usize) else {
            return;
        };
        let sum = crc32c_append(crc32c(&prefix[..4]), body);
        prefix[4..].copy_from_slice(&sum.to_be_bytes());
        records = next;
    }
}

/// Corrects the split index of a log: its sections, its directory and its header.
pub fn repair_split_index(index: &mut [u8]) {
    const HEADER_BYTES: usize = 42;
    const ENTRY_BYTES: usize = 100;
    if index.len() < HEADER_BYTES {
        return;
    }
    let regions = index[10..].first_chunk().map_or(0, |count| u32::from_be_bytes(*count)) as usize;
    let entries = regions.min((index.len() - HEADER_BYTES) / ENTRY_BYTES);
    for entry in 0..entries {
        let at = HEADER_BYTES + entry * ENTRY_BYTES;
        let number = |at: usize| index[at..].first_chunk().map_or(0, |n| u64::from_be_bytes(*n));
        let (start, length) = (number(at + 80) as usize, number(at + 88) as usize);
        let section = start.checked_add(length).and_then(|end| index.get(start..end));
        if let Some(sum) = section.map(crc32c) {
            index[at + 96..at + 100].copy_from_slice(&sum.to_be_bytes());
        }
    }
    let directory = HEADER_BYTES + entries * ENTRY_BYTES;
    let sum = crc32c(&index[HEADER_BYTES..directory]);
    index[34..38].copy_from_slice(&sum.to_be_bytes());
    put_at_end(&mut index[..HEADER_BYTES], 0);
}

/// Corrects a manifest: `magic 8 | u32 crc32c of the rest | rest`.
pub fn repair_manifest(file: &mut [u8]) {
    if let Some((front, rest)) = file.split_at_mut_checked(12) {
        front[8..].copy_from_slice(&crc32c(rest).to_be_bytes());
    }
}

/// Corrects a segment of a coordinator's log, a sequence of
/// `u32 length | u32 crc32c | u64 offset | records`. Corrects the offsets as well.
pub fn repair_segment(segment: &mut [u8]) {
    let mut offset = 0u64;
    let mut rest = segment;
    while rest.len() >= 16 {
        let length = rest.first_chunk().map_or(0, |length| u32::from_be_bytes(*length)) as usize;
        let Some((frame, next)) = rest.split_at_mut_checked(16usize.saturating_add(length)) else {
            return;
        };
        frame[8..16].copy_from_slice(&offset.to_be_bytes());
        let sum = crc32c(&frame[8..]);
        frame[4..8].copy_from_slice(&sum.to_be_bytes());
        offset += frame.len() as u64;
        rest = next;
    }
}

/// Corrects a coordinator's snapshot: `u32 crc32c of the rest | rest`.
pub fn repair_snapshot(file: &mut [u8]) {
    if let Some((sum, rest)) = file.split_at_mut_checked(4) {
        sum.copy_from_slice(&crc32c(rest).to_be_bytes());
    }
}

/// Stores the checksum of all but the last four bytes in the last four. Returns the checksum.
fn put_at_end(bytes: &mut [u8], seed: u32) -> u32 {
    let Some((covered, place)) = bytes.split_last_chunk_mut::<4>() else {
        return 0;
    };
    let sum = crc32c_append(seed, covered);
    *place = sum.to_be_bytes();
    sum
}
