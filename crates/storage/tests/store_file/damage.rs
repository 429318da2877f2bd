//! Damage is detected, reported with its place, and affects nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use basalt_fs::SharedFileSystem;
use basalt_model::{BloomType, Cell, CellKey, Compression};
use basalt_storage::block_cache::BlockCache;
use basalt_storage::store_file::{
    Damage, Error, Result, ScannerOptions, StoreFile, StoreFileOptions,
};
use bytes::Bytes;

use super::{memory, read_all, write};

const PATH: &str = "/file";
const TRAILER_BYTES: usize = 4096;

fn cells(count: u32) -> BTreeSet<Cell> {
    let cell = |number| {
        let row = format!("row{number:04}");
        Cell::put(row.as_bytes(), b"f", b"q", 1, b"value").unwrap()
    };
    (0..count).map(cell).collect()
}

async fn contents(options: StoreFileOptions, cells: &BTreeSet<Cell>) -> Bytes {
    let files = memory();
    let length = write(&files, Path::new(PATH), options, cells).await.length;
    files.read_whole(Path::new(PATH), length).await.unwrap()
}

async fn with_contents(contents: Vec<u8>) -> SharedFileSystem {
    let files = memory();
    let mut file = files.create(Path::new(PATH)).await.unwrap();
    file.append(contents.into()).await.unwrap();
    drop(file);
    files
}

async fn open(files: &SharedFileSystem) -> Result<StoreFile> {
    let cache = Arc::new(BlockCache::new(1 << 20));
    StoreFile::open(files, Path::new(PATH), cache).await
}

/// All cells that can be read in one pass, and how the pass ended.
async fn read(files: &SharedFileSystem) -> (Vec<Cell>, Result<()>) {
    let file = match open(files).await {
        Ok(file) => file,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut scanner = file.scanner(ScannerOptions::default());
    if let Err(error) = scanner.seek_to_first().await {
        return (Vec::new(), Err(error));
    }
    let mut cells = Vec::new();
    loop {
        match scanner.next().await {
            Ok(Some(cell)) => cells.push(cell),
            Ok(None) => return (cells, Ok(())),
            Err(error) => return (cells, Err(error)),
        }
    }
}

/// A flipped bit anywhere results in an error or in the correct cells, never in other cells. Where
/// there are checksums, the result is the correct cells only if the block was not needed.
#[tokio::test]
async fn no_flipped_byte_gives_wrong_cells() {
    let written = cells(30);
    let expected: Vec<Cell> = written.iter().cloned().collect();
    for compression in [Compression::None, Compression::Snappy] {
        let options = StoreFileOptions {
            compression,
            block_bytes: 100,
            index_chunk_bytes: 100,
            bloom_chunk_bytes: 128,
            ..StoreFileOptions::default()
        };
        let contents = contents(options, &written).await;
        for place in 0..contents.len() {
            let in_padding = contents.len() - TRAILER_BYTES + 200..contents.len() - 4;
            if in_padding.contains(&place) {
                continue;
            }
            let mut flipped = contents.to_vec();
            flipped[place] ^= 1 << (place % 8);
            let files = with_contents(flipped).await;
            let (cells, end) = read(&files).await;
            assert!(expected.starts_with(&cells), "{compression:?}, byte {place}");
            if end.is_ok() {
                assert_eq!(cells.len(), expected.len(), "{compression:?}, byte {place}");
            }
            if let Ok(file) = open(&files).await {
                for cell in &expected {
                    // A damaged filter must not hide a row.
                    assert!(file.may_contain_row(cell.row()).await.unwrap(), "byte {place}");
                }
            }
        }
    }
}

#[tokio::test]
async fn no_truncated_file_opens() {
    let contents = contents(StoreFileOptions::default(), &cells(30)).await;
    for length in (0..contents.len()).step_by(7) {
        let files = with_contents(contents[..length].to_vec()).await;
        assert!(open(&files).await.is_err(), "{length} bytes");
    }
}

#[tokio::test]
async fn a_damaged_block_is_named_and_the_others_are_read() {
    let written = cells(300);
    let options = StoreFileOptions { block_bytes: 1000, ..StoreFileOptions::default() };
    let mut contents = contents(options, &written).await.to_vec();
    let magic = b"DATABLK*";
    let found = |from: usize| {
        let rest = contents[from..].windows(8);
        from + rest.into_iter().position(|window| window == magic).unwrap()
    };
    let second = found(1);
    let third = found(second + 1);
    contents[second + 200] ^= 0x10;

    let files = with_contents(contents).await;
    let file = open(&files).await.unwrap();
    let mut scanner = file.scanner(ScannerOptions::default());
    scanner.seek_to_first().await.unwrap();
    let error = loop {
        if let Err(error) = scanner.next().await {
            break error;
        }
    };
    let message = error.to_string();
    let Error::Corrupt { path, offset, damage } = error else {
        panic!("{message}");
    };
    assert_eq!((path.as_path(), offset), (Path::new(PATH), second as u64));
    assert!(matches!(damage, Damage::Checksum { .. }), "{message}");
    assert!(message.contains(PATH) && message.contains("checksum"), "{message}");
    // The scanner is still at the last cell that it could read, and returns the same error again.
    assert!(scanner.peek().is_some());
    assert!(scanner.next().await.is_err());

    let last = CellKey::before_row(b"row0299");
    scanner.seek(&last).await.unwrap();
    assert_eq!(scanner.next().await.unwrap().as_ref(), written.last());
    assert!(third > second);
}

#[tokio::test]
async fn a_damaged_bloom_filter_is_not_asked() {
    let written = cells(300);
    let mut contents = contents(StoreFileOptions::default(), &written).await.to_vec();
    let chunk = contents.windows(8).position(|window| window == b"BLMFBLK2");
    contents[chunk.unwrap() + 40] ^= 1;
    let files = with_contents(contents).await;
    let file = open(&files).await.unwrap();
    assert!(file.may_contain_row(b"row0100").await.unwrap());
    assert!(file.may_contain_row(b"row0100x").await.unwrap());
    assert!(!file.may_contain_row(b"s").await.unwrap(), "outside the range of rows");
    assert_eq!(read_all(&file, true).await.len(), 300);
}

#[tokio::test]
async fn an_encoding_that_is_not_read_is_named() {
    let options = StoreFileOptions { bloom_type: BloomType::None, ..StoreFileOptions::default() };
    let mut contents = contents(options, &cells(3)).await.to_vec();
    // Renames a property to that of the encoding, and corrects the checksum.
    let renamed = b"DELETE_FAMILY_COUNT";
    let place = contents.windows(renamed.len()).position(|window| window == renamed);
    let place = place.unwrap();
    contents[place..place + 19].copy_from_slice(b"DATA_BLOCK_ENCODING");
    let block = contents.windows(8).position(|window| window == b"FILEINF2").unwrap();
    let length = u32::from_be_bytes(contents[block + 29..block + 33].try_into().unwrap());
    let end = block + length as usize;
    let checksum = crc32c::crc32c(&contents[block..end]);
    contents[end..end + 4].copy_from_slice(&checksum.to_be_bytes());

    let files = with_contents(contents).await;
    let error = open(&files).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("data block encoding"), "{error}");
}

/// An index with a valid checksum that refers to one block twice, and so could make a scan endless.
#[tokio::test]
async fn an_index_that_leads_back_is_refused() {
    let options = StoreFileOptions { block_bytes: 100, ..StoreFileOptions::default() };
    let mut contents = contents(options, &cells(10)).await.to_vec();
    let root = contents.windows(8).position(|magic| magic == b"IDXROOT2").unwrap();
    let entries = root + 33;
    let key_length = usize::from(contents[entries + 12]);
    let second = entries + 13 + key_length;
    contents.copy_within(entries..entries + 12, second);
    let length = |at: usize| u32::from_be_bytes(*contents[at..].first_chunk().unwrap()) as usize;
    let data_end = root + length(root + 29);
    let sum = crc32c::crc32c(&contents[root..data_end]);
    contents[data_end..data_end + 4].copy_from_slice(&sum.to_be_bytes());
    let (cells, end) = read(&with_contents(contents).await).await;
    let error = end.unwrap_err().to_string();
    assert!(error.contains("offset of the next data block"), "{error}");
    assert!(cells.len() < 10);
}
