//! Reads files written by Apache HBase, and compares our files with HBase's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_fs::{Durability, LocalFileSystem, SharedFileSystem};
use basalt_model::{BloomType, Cell, CellBuilder, CellKey, CellType, Compression, SequenceId};
use basalt_storage::store_file::{ScannerOptions, StoreFileOptions};
use serde_json::Value;

use super::{memory, open, read_all, write};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn listing(name: &str) -> Vec<Value> {
    let text = std::fs::read(folder().join(name)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn golden_files() -> SharedFileSystem {
    Arc::new(LocalFileSystem::open(&folder()).unwrap())
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn hex(value: &Value, name: &str) -> Vec<u8> {
    bytes_of_hex(text(value, name))
}

pub(super) fn bytes_of_hex(digits: &str) -> Vec<u8> {
    (0..digits.len() / 2)
        .map(|byte| u8::from_str_radix(&digits[byte * 2..byte * 2 + 2], 16).unwrap())
        .collect()
}

/// A listed cell, without the parts that a plain file does not store.
pub(super) fn cell(listed: &Value, plain: bool) -> Cell {
    let mut tags = Vec::new();
    for tag in listed["tags"].as_array().unwrap().iter().filter(|_| !plain) {
        let value = hex(tag, "value");
        tags.extend((value.len() as u16 + 1).to_be_bytes());
        tags.push(tag["type"].as_u64().unwrap() as u8);
        tags.extend(value);
    }
    let builder = CellBuilder {
        row: &hex(listed, "row"),
        family: &hex(listed, "family"),
        qualifier: &hex(listed, "qualifier"),
        timestamp: listed["timestamp"].as_i64().unwrap(),
        cell_type: CellType::from_byte(listed["type"].as_u64().unwrap() as u8).unwrap(),
        value: &hex(listed, "value"),
        tags: &tags,
    };
    let mvcc = listed["mvcc"].as_u64().unwrap();
    let sequence_id = SequenceId(if plain { 0 } else { mvcc });
    builder.build().unwrap().with_sequence_id(sequence_id)
}

fn cells(plain: bool) -> Vec<Cell> {
    listing("cells.json").iter().map(|listed| cell(listed, plain)).collect()
}

pub(super) fn compression(name: &str) -> Compression {
    match name {
        "none" => Compression::None,
        "gz" => Compression::Gz,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => panic!("{other}"),
    }
}

pub(super) fn bloom_type(name: &str) -> BloomType {
    match name {
        "NONE" => BloomType::None,
        "ROW" => BloomType::Row,
        "ROWCOL" => BloomType::RowCol,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_file_of_hbase_gives_its_cells() {
    let files = golden_files();
    let listed = listing("files.json");
    let encodings: BTreeSet<&str> = listed.iter().map(|listed| text(listed, "encoding")).collect();
    let all = ["NONE", "PREFIX", "DIFF", "FAST_DIFF", "ROW_INDEX_V1"];
    assert_eq!(encodings, BTreeSet::from(all));
    for listed in listed {
        let name = text(&listed, "file");
        let expected = cells(!listed["mvcc"].as_bool().unwrap());
        let file = open(&files, Path::new(name)).await;
        assert_eq!(read_all(&file, true).await, expected, "{name}");
        assert_eq!(file.cell_count(), expected.len() as u64, "{name}");
        assert_eq!(file.length(), listed["length"].as_u64().unwrap(), "{name}");
        let max_sequence_id = listed["max_sequence_id"].as_u64().unwrap();
        assert_eq!(file.max_sequence_id(), SequenceId(max_sequence_id), "{name}");
        assert_eq!(file.compression(), compression(text(&listed, "compression")));
        assert_eq!(file.bloom_type(), bloom_type(text(&listed, "bloom")), "{name}");
        assert_eq!(file.first_key().unwrap(), expected[0].key_bytes(), "{name}");
        assert_eq!(file.last_key().unwrap(), expected.last().unwrap().key_bytes(), "{name}");
        let family_deletes = expected
            .iter()
            .map(Cell::cell_type)
            .filter(|kind| matches!(kind, CellType::DeleteFamily | CellType::DeleteFamilyVersion));
        let family_deletes = family_deletes.count() as u64;
        assert_eq!(file.delete_family_count(), Some(family_deletes), "{name}");
        // The deletes of whole columns reach down to 0.
        assert_eq!(file.time_range().unwrap().min, 0, "{name}");
    }
}

#[tokio::test]
async fn every_cell_of_hbases_files_is_found_by_search() {
    let files = golden_files();
    for listed in listing("files.json") {
        let name = text(&listed, "file");
        let expected = cells(!listed["mvcc"].as_bool().unwrap());
        let file = open(&files, Path::new(name)).await;
        let mut scanner = file.scanner(ScannerOptions::default());
        for (number, cell) in expected.iter().enumerate().rev() {
            scanner.seek(&cell.key()).await.unwrap();
            assert_eq!(scanner.peek(), Some(cell), "{name}");
            let found = scanner.seek_before(&cell.key()).await.unwrap();
            assert_eq!(found, number > 0, "{name}");
            let before = number.checked_sub(1).map(|before| &expected[before]);
            assert_eq!(scanner.peek(), before, "{name}");
        }
    }
}

#[tokio::test]
async fn hbases_bloom_filters_answer() {
    let files = golden_files();
    for listed in listing("files.json") {
        let name = text(&listed, "file");
        let file = open(&files, Path::new(name)).await;
        for cell in cells(true) {
            let (row, qualifier) = (cell.row(), cell.qualifier());
            assert!(file.may_contain_row(row).await.unwrap(), "{name}");
            assert!(file.may_contain_row_column(row, qualifier).await.unwrap(), "{name}");
        }
        let mut mistaken = 0;
        for number in 0..39 {
            let row = format!("row-{number:04}x");
            let may = file.may_contain_row_column(row.as_bytes(), b"q1").await.unwrap();
            mistaken += usize::from(may);
        }
        match file.bloom_type() {
            BloomType::None => assert_eq!(mistaken, 39, "{name}"),
            _ => assert!(mistaken < 5, "{name}: {mistaken}"),
        }
    }
}

/// The position of the `count`th occurrence of `magic`.
fn find(bytes: &[u8], magic: &[u8; 8], count: usize) -> usize {
    let windows = bytes.windows(magic.len()).enumerate();
    let mut found = windows.filter(|(_, window)| window == magic);
    found.nth(count - 1).unwrap().0
}

/// Data, leaf index and bloom blocks equal HBase's byte by byte, with headers and checksums. This
/// holds up to the first intermediate block (HBase made smaller ones here), or up to HBase's second
/// bloom filter, for deletes of families, which we omit.
#[tokio::test]
async fn our_blocks_are_hbases_to_the_byte() {
    let deep = ("none-rowcol-deep-index.hfile", BloomType::RowCol, 512, 128);
    let flat = ("none-row.hfile", BloomType::Row, 2048, 128 << 10);
    for (name, bloom_type, block_bytes, chunk_bytes) in [deep, flat] {
        let golden = std::fs::read(folder().join(name)).unwrap();
        let end = match bloom_type {
            BloomType::RowCol => find(&golden, b"IDXINTE2", 1),
            _ => find(&golden, b"BLMFBLK2", 2),
        };
        assert!(find(&golden, b"DATABLK*", 2) < end && find(&golden, b"BLMFBLK2", 1) < end);
        let files = memory();
        let path = Path::new("/file");
        let options = StoreFileOptions {
            compression: Compression::None,
            bloom_type,
            block_bytes,
            index_chunk_bytes: chunk_bytes,
            bloom_chunk_bytes: chunk_bytes,
            created_ms: 0,
            durability: Durability::default(),
        };
        let length = write(&files, path, options, &cells(false)).await.length;
        let ours = files.read_whole(path, length).await.unwrap();
        assert!(ours[..end] == golden[..end], "{name}");
    }
}

/// Writes a file for each compression into the folder named by `BASALT_STORE_FILES`, for
/// `e2e/java/print-store-file.sh`.
#[tokio::test]
#[ignore = "its files are for Apache HBase's HFilePrettyPrinter to read"]
async fn files_for_hbase_to_read() {
    let folder = std::env::var("BASALT_STORE_FILES").unwrap();
    let files: SharedFileSystem = Arc::new(LocalFileSystem::open(Path::new(&folder)).unwrap());
    let many: BTreeSet<Cell> = (0..20_000u64)
        .map(|number| {
            let row = format!("row-{:07}", number / 4);
            let qualifier = format!("q{}", number % 4);
            let value = row.repeat(3);
            Cell::put(row.as_bytes(), b"f", qualifier.as_bytes(), 5, value.as_bytes())
                .unwrap()
                .with_sequence_id(SequenceId(number))
        })
        .collect();
    let many: Vec<Cell> = many.into_iter().collect();
    for codec in ["none", "gz", "snappy", "lz4", "zstd"] {
        for bloom in ["NONE", "ROW", "ROWCOL"] {
            for (kind, cells) in [("golden", &cells(false)), ("many", &many), ("empty", &vec![])] {
                let small = kind == "many";
                let options = StoreFileOptions {
                    compression: compression(codec),
                    bloom_type: bloom_type(bloom),
                    block_bytes: if small { 1024 } else { 64 << 10 },
                    index_chunk_bytes: if small { 256 } else { 128 << 10 },
                    bloom_chunk_bytes: if small { 1024 } else { 128 << 10 },
                    created_ms: 1_700_000_000_000,
                    durability: Durability::default(),
                };
                let name = format!("{kind}-{codec}-{}.hfile", bloom.to_lowercase());
                let path = Path::new(&name);
                if files.exists(path).await.unwrap() {
                    files.delete_file(path).await.unwrap();
                }
                write(&files, path, options, cells).await;
                let file = open(&files, path).await;
                let mut scanner = file.scanner(ScannerOptions::default());
                scanner.seek(&CellKey::before_row(b"")).await.unwrap();
                assert_eq!(scanner.peek(), cells.first());
            }
        }
    }
}
