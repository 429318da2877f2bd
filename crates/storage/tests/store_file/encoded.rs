//! Compares files that Apache HBase has just written in every encoding with what its own reader
//! reads from them. `e2e/java/write-encoded-files.sh` writes both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_fs::{LocalFileSystem, SharedFileSystem};
use basalt_model::{BloomType, Cell, CellKey};
use basalt_storage::store_file::{ScannerOptions, StoreFile};
use serde_json::Value;

use super::golden::{bloom_type, bytes_of_hex, cell, compression, text};
use super::{open, read_all, read_rest};

/// How many cells are read after a search; from some positions all remaining cells are read.
const READ_ON: usize = 3;

fn folder() -> PathBuf {
    PathBuf::from(std::env::var("BASALT_HBASE_FILES").unwrap())
}

fn listing(name: &str) -> Vec<Value> {
    let text = std::fs::read(folder().join(name)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test]
#[ignore = "Apache HBase must have written the files: run by e2e/run-java-client.sh"]
async fn files_of_every_encoding_read_as_hbase_reads_them() {
    let files: SharedFileSystem = Arc::new(LocalFileSystem::open(&folder()).unwrap());
    let keys: Vec<Vec<u8>> =
        listing("keys.json").iter().map(|key| bytes_of_hex(key.as_str().unwrap())).collect();
    let mut variants = BTreeSet::new();
    let mut cell_count = 0;
    for listed in listing("files.json") {
        let name = text(&listed, "file").strip_suffix(".hfile").unwrap();
        let expected = listing(&format!("{name}.cells.json"));
        let expected: Vec<Cell> = expected.iter().map(|listed| cell(listed, false)).collect();
        let file = open(&files, Path::new(text(&listed, "file"))).await;
        assert_eq!(file.compression(), compression(text(&listed, "compression")), "{name}");
        assert_eq!(file.bloom_type(), bloom_type(text(&listed, "bloom")), "{name}");
        check_scans(name, &file, &expected).await;
        let firsts = listing(&format!("{name}.seeks.json"));
        assert_eq!(firsts.len(), keys.len(), "{name}");
        let firsts = firsts.iter().map(|first| first.as_u64().unwrap() as usize);
        check_searches(name, &file, &expected, keys.iter().zip(firsts)).await;
        check_bloom_filter(name, &file, &expected).await;
        let of_cells = ["mvcc", "tags"].map(|name| listed[name].as_bool().unwrap());
        let of_file =
            ["encoding", "compression", "bloom"].map(|name| text(&listed, name).to_owned());
        variants.insert((of_file, of_cells));
        cell_count += expected.len();
    }
    // Each encoding: compressed and uncompressed, with three kinds of bloom filter, with and
    // without tags.
    assert_eq!(variants.len(), 5 * 2 * 3 * 2);
    println!("{cell_count} cells, {} search keys in each file", keys.len());
}

async fn check_scans(name: &str, file: &StoreFile, expected: &[Cell]) {
    assert!(expected.len() > 500, "{name}");
    assert_eq!(file.cell_count(), expected.len() as u64, "{name}");
    assert_eq!(file.first_key().unwrap(), expected[0].key_bytes(), "{name}");
    assert_eq!(file.last_key().unwrap(), expected[expected.len() - 1].key_bytes(), "{name}");
    for cache_blocks in [false, true] {
        let cells = read_all(file, cache_blocks).await;
        assert_eq!(cells.len(), expected.len(), "{name}");
        for (number, (cell, expected)) in cells.iter().zip(expected).enumerate() {
            assert_eq!(cell, expected, "{name}: cell {number}");
            assert!(cell.tags() == expected.tags(), "{name}: tags of cell {number}");
        }
    }
}

/// Searches for the keys that HBase searched for, and for each cell.
async fn check_searches(
    name: &str,
    file: &StoreFile,
    expected: &[Cell],
    searched: impl Iterator<Item = (&Vec<u8>, usize)>,
) {
    let mut scanner = file.scanner(ScannerOptions::default());
    for (number, (key, first)) in searched.enumerate() {
        scanner.seek(&CellKey::parse(key).unwrap()).await.unwrap();
        let key = key.escape_ascii();
        assert_eq!(scanner.peek(), expected.get(first), "{name}: {key}");
        if number % 50 == 0 {
            assert_eq!(read_rest(&mut scanner).await, expected[first..], "{name} from {key}");
        }
    }
    for (number, cell) in expected.iter().enumerate().rev() {
        // Among cells with the same key, the first is found.
        let same = expected[..number].iter().rev();
        let same = same.take_while(|before| before.key_bytes() == cell.key_bytes()).count();
        let first = number - same;
        scanner.seek(&cell.key()).await.unwrap();
        for expected in expected[first..].iter().take(READ_ON) {
            assert_eq!(scanner.next().await.unwrap().as_ref(), Some(expected), "{name}");
        }
        let before = first.checked_sub(1).map(|before| &expected[before]);
        assert_eq!(scanner.seek_before(&cell.key()).await.unwrap(), before.is_some(), "{name}");
        assert_eq!(scanner.peek(), before, "{name}: before cell {number}");
    }
}

async fn check_bloom_filter(name: &str, file: &StoreFile, expected: &[Cell]) {
    let mut mistaken = 0;
    for cell in expected {
        let (row, qualifier) = (cell.row(), cell.qualifier());
        assert!(file.may_contain_row(row).await.unwrap(), "{name}: {cell:?}");
        assert!(file.may_contain_row_column(row, qualifier).await.unwrap(), "{name}: {cell:?}");
        let absent = [row, b"-"].concat();
        mistaken += usize::from(file.may_contain_row_column(&absent, b"q").await.unwrap());
    }
    let share = mistaken as f64 / expected.len() as f64;
    match file.bloom_type() {
        BloomType::None => assert!(share > 0.9, "{name}: {share}"),
        _ => assert!(share < 0.05, "{name}: {share}"),
    }
}
