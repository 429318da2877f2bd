//! Measures the speed of store files. Run it alone, in a release build:
//! `cargo test --release -p basalt-storage --test store_file figures -- --ignored --nocapture`.

use std::path::Path;
use std::sync::Arc;

use basalt_fs::{LocalFileSystem, SharedFileSystem};
use basalt_model::{Cell, CellKey, Compression, SequenceId};
use basalt_storage::block_cache::BlockCache;
use basalt_storage::store_file::{ScanStep, ScannerOptions, StoreFile, StoreFileOptions};
use tokio::time::Instant;

use super::write;

fn cells(count: u64, value_length: usize) -> Vec<Cell> {
    let mut random = 1u64;
    let mut noise = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Half of the bits, so that the value is compressible.
        ((random >> 33) as u8) & 0x0f | b'0'
    };
    let cell = |number| {
        let row = format!("user{number:012}");
        let value: Vec<u8> = (0..value_length).map(|_| noise()).collect();
        let cell = Cell::put(row.as_bytes(), b"family", b"field0", 1, &value).unwrap();
        cell.with_sequence_id(SequenceId(number))
    };
    (0..count).map(cell).collect()
}

async fn scan(file: &StoreFile, cache_blocks: bool) -> u64 {
    let mut scanner = file.scanner(ScannerOptions { cache_blocks });
    scanner.seek_to_first().await.unwrap();
    let mut count = 0;
    loop {
        match scanner.try_next().unwrap() {
            ScanStep::Cell(cell) => count += u64::from(!cell.row().is_empty()),
            ScanStep::NeedBlock => count += u64::from(scanner.next().await.unwrap().is_some()),
            ScanStep::End => return count,
        }
    }
}

async fn gets(file: &StoreFile, rows: u64, count: u64) {
    let mut random = 7u64;
    for _ in 0..count {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let row = format!("user{:012}", (random >> 20) % rows);
        assert!(file.may_contain_row(row.as_bytes()).await.unwrap());
        let mut scanner = file.scanner(ScannerOptions::default());
        scanner.seek(&CellKey::before_row(row.as_bytes())).await.unwrap();
        assert_eq!(scanner.peek().unwrap().row(), row.as_bytes());
    }
}

async fn measure(compression: Compression, count: u64, value_length: usize) {
    let folder = tempfile::tempdir().unwrap();
    let files: SharedFileSystem = Arc::new(LocalFileSystem::open(folder.path()).unwrap());
    let cells = cells(count, value_length);
    let megabytes = cells.iter().map(|cell| cell.bytes().len()).sum::<usize>() as f64 / 1e6;
    let options = StoreFileOptions { compression, ..StoreFileOptions::default() };
    let path = Path::new("/file");
    let started = Instant::now();
    let summary = write(&files, path, options, &cells).await;
    let write_seconds = started.elapsed().as_secs_f64();
    drop(cells);

    let cache = Arc::new(BlockCache::new(1 << 30));
    let file = StoreFile::open(&files, path, cache).await.unwrap();
    let started = Instant::now();
    assert_eq!(scan(&file, false).await, count);
    let disk_seconds = started.elapsed().as_secs_f64();
    scan(&file, true).await;
    let started = Instant::now();
    for _ in 0..3 {
        assert_eq!(scan(&file, true).await, count);
    }
    let scan_seconds = started.elapsed().as_secs_f64() / 3.0;
    let get_count = 300_000;
    let started = Instant::now();
    gets(&file, count, get_count).await;
    let get_seconds = started.elapsed().as_secs_f64();
    println!(
        "{compression:?}, values of {value_length}: {megabytes:.0} MB to {:.0} MB; \
         write {:.0} MB/s; compaction read {:.0} MB/s; cached scan {:.1} M cells/s; \
         cached gets {:.0} K/s",
        summary.length as f64 / 1e6,
        megabytes / write_seconds,
        megabytes / disk_seconds,
        count as f64 / scan_seconds / 1e6,
        get_count as f64 / get_seconds / 1e3,
    );
}

#[tokio::test]
#[ignore = "measures; means something only alone and in a release build"]
async fn figures() {
    use Compression::{Gz, Lz4, None, Snappy, Zstd};
    for compression in [None, Snappy, Lz4, Zstd, Gz] {
        measure(compression, 200_000, 1000).await;
    }
    measure(None, 2_000_000, 50).await;
}
