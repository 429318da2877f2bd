//! A whole store file: opened, scanned in both directions, positioned at keys, and queried for
//! rows.
//!
//! Input: a selector byte, then the message of the trailer, then the blocks. The target pads the
//! trailer. If the selector is odd, it corrects the checksums of the blocks.

#![no_main]

use std::path::Path;
use std::sync::Arc;

use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use basalt_fuzz::{block_on, checksums, choice, disk_with, join_parts, ok, seed, two_parts};
use basalt_model::{BloomType, Cell, CellBuilder, CellKey, CellType, Compression, SequenceId};
use basalt_storage::block_cache::BlockCache;
use basalt_storage::store_file::{
    Result, ScannerOptions, StoreFile, StoreFileMeta, StoreFileOptions, StoreFileWriter,
};
use libfuzzer_sys::fuzz_target;

const TRAILER_BYTES: usize = 4096;
const TRAILER_MAGIC: &[u8; 8] = b"TRABLK\"$";

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (choice, rest) = choice(input);
    let (trailer, blocks) = two_parts(rest);
    let mut file = blocks.to_vec();
    if choice & 1 != 0 {
        checksums::repair_store_file(&mut file);
    }
    file.extend_from_slice(TRAILER_MAGIC);
    file.extend_from_slice(&trailer[..trailer.len().min(TRAILER_BYTES - 12)]);
    file.resize(blocks.len() + TRAILER_BYTES - 4, 0);
    file.extend_from_slice(&[3, 0, 0, 3]);
    block_on(async {
        let files = disk_with(Path::new("/file"), &file).await;
        let cache_blocks = choice & 2 != 0;
        let _ = read(&files, ScannerOptions { cache_blocks }).await;
    });
});

async fn read(files: &SharedFileSystem, options: ScannerOptions) -> Result<()> {
    let cache = Arc::new(BlockCache::new(1 << 20));
    let file = StoreFile::open(files, Path::new("/file"), cache).await?;
    let _ = (file.time_range(), file.earliest_put_timestamp(), file.max_sequence_id());
    let mut scanner = file.scanner(options);
    scanner.seek_to_first().await?;
    let mut some = Vec::new();
    let mut count = 0u64;
    while let Some(cell) = scanner.next().await? {
        count += 1;
        if count.is_power_of_two() {
            some.push(cell);
        }
    }
    for cell in &some {
        let key = cell.key();
        file.may_contain_row(key.row).await?;
        file.may_contain_row_column(key.row, key.qualifier).await?;
        scanner.seek(&key).await?;
        scanner.seek_before(&key).await?;
        scanner.seek_to_row_before(key.row).await?;
        scanner.next().await?;
    }
    scanner.seek(&CellKey::before_row(b"")).await?;
    scanner.seek_to_last_row().await?;
    while scanner.next().await?.is_some() {}
    Ok(())
}

fn seeds() -> Vec<Vec<u8>> {
    use Compression::{Gz, Lz4, None, Snappy, Zstd};
    let files = [None, None, Gz, Snappy, Lz4, Zstd].into_iter().enumerate();
    files.map(|(number, compression)| seed_of(number, compression)).collect()
}

/// A small file. Files with higher numbers have more index levels.
fn seed_of(number: usize, compression: Compression) -> Vec<u8> {
    let options = StoreFileOptions {
        compression,
        bloom_type: if number % 2 == 0 { BloomType::Row } else { BloomType::RowCol },
        block_bytes: 150,
        index_chunk_bytes: if number == 0 { 1 << 20 } else { 100 },
        bloom_chunk_bytes: 128,
        created_ms: 1,
        ..StoreFileOptions::default()
    };
    let meta = StoreFileMeta { max_sequence_id: SequenceId(9), is_major_compaction: number == 1 };
    let path = Path::new("/file");
    let file = block_on(async {
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        let mut writer = ok(StoreFileWriter::create(&files, path, options).await);
        for row in 0..number * 20 {
            ok(writer.append(&cell(row)).await);
        }
        let length = ok(writer.finish(meta).await).length;
        ok(files.read_whole(path, length).await)
    });
    let (blocks, trailer) = file.split_at(file.len() - TRAILER_BYTES);
    let message = &trailer[TRAILER_MAGIC.len()..];
    let message =
        &message[..2.max(message.iter().rposition(|b| *b != 0 && *b != 3).unwrap_or(0) + 1)];
    [&[3], &join_parts(message, blocks)[..]].concat()
}

fn cell(row: usize) -> Cell {
    let name = format!("row{row:03}");
    let builder = CellBuilder {
        row: name.as_bytes(),
        family: b"f",
        qualifier: b"q",
        timestamp: 5,
        cell_type: if row % 7 == 6 { CellType::DeleteFamily } else { CellType::Put },
        value: b"value",
        tags: if row % 5 == 0 { &[0, 2, 7, 9] } else { &[] },
    };
    ok(builder.build()).with_sequence_id(SequenceId(row as u64))
}
