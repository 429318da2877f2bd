//! Everything that is written is found again, as in a sorted set.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use basalt_fs::Durability;
use basalt_model::{
    BloomType, Cell, CellBuilder, CellKey, CellType, Compression, LATEST_TIMESTAMP, SequenceId,
};
use basalt_storage::block_cache::BlockCache;
use basalt_storage::store_file::{
    Error, FilePart, ScanStep, ScannerOptions, StoreFile, StoreFileOptions, StoreFileScanner,
    StoreFileWriter,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::{META, memory, open, read_all, write};

const PATH: &str = "/file";

prop_compose! {
    /// A cell from few rows and columns, so that there are many versions and neighbours.
    fn any_cell()(
        row in prop_oneof![
            (0..60u8).prop_map(|number| format!("row{number:02}").into_bytes()),
            prop::collection::vec(select(vec![0u8, 1, b'a', 0xff]), 1..5),
        ],
        qualifier in prop::collection::vec(select(vec![0u8, b'q', 0xff]), 0..3),
        timestamp in prop_oneof![0..4i64, Just(LATEST_TIMESTAMP)],
        cell_type in select(vec![
            CellType::Put, CellType::Put, CellType::Put, CellType::Delete,
            CellType::DeleteColumn, CellType::DeleteFamily, CellType::DeleteFamilyVersion,
        ]),
        value in prop::collection::vec(any::<u8>(), 0..40),
        tag in prop::option::of(prop::collection::vec(any::<u8>(), 0..5)),
        sequence_id in prop_oneof![0..4u64, 0..i64::MAX as u64],
    ) -> Cell {
        let tags = tag.map_or(Vec::new(), |tag| {
            let mut tags = (tag.len() as u16 + 1).to_be_bytes().to_vec();
            tags.push(65);
            tags.extend(tag);
            tags
        });
        let builder = CellBuilder {
            row: &row,
            family: b"f",
            qualifier: &qualifier,
            timestamp,
            cell_type,
            value: &value,
            tags: &tags,
        };
        builder.build().unwrap().with_sequence_id(SequenceId(sequence_id))
    }
}

fn any_options() -> impl Strategy<Value = StoreFileOptions> {
    let compression = select(vec![
        Compression::None,
        Compression::Gz,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ]);
    let bloom_type = select(vec![BloomType::None, BloomType::Row, BloomType::RowCol]);
    let index_chunk_bytes = select(vec![64usize, 300, 128 << 10]);
    (compression, bloom_type, 1..400usize, index_chunk_bytes).prop_map(
        |(compression, bloom_type, block_bytes, index_chunk_bytes)| StoreFileOptions {
            compression,
            bloom_type,
            block_bytes,
            index_chunk_bytes,
            bloom_chunk_bytes: 128,
            created_ms: 7,
            durability: Durability::default(),
        },
    )
}

fn position(found: Option<&Cell>, expected: Option<&Cell>, what: &str) {
    assert_eq!(found, expected, "{what}");
}

/// Seeks with one scanner from cell to cell, so that short moves within a block are covered too.
async fn check_seeks(file: &StoreFile, cells: &BTreeSet<Cell>, sought: &[Cell]) {
    let mut scanner = file.scanner(ScannerOptions::default());
    for (number, target) in sought.iter().enumerate() {
        let key = target.key();
        let at_or_after = |cell: &&Cell| cell.key().compare(&key).is_ge();
        scanner.seek(&key).await.unwrap();
        let mut following = cells.iter().filter(at_or_after);
        position(scanner.peek(), following.clone().next(), "seek");
        // A few steps further, and then the next seek from there.
        for _ in 0..number % 7 {
            assert_eq!(scanner.next().await.unwrap().as_ref(), following.next());
        }
        position(scanner.peek(), following.next(), "after some steps");

        let before = cells.iter().rfind(|cell| cell.key().compare(&key).is_lt());
        let found = scanner.seek_before(&key).await.unwrap();
        assert_eq!(found, before.is_some());
        position(scanner.peek(), before, "seek_before");

        let row_before = cells.iter().rfind(|cell| cell.row() < key.row);
        let start = row_before.and_then(|last| cells.iter().find(|cell| cell.row() == last.row()));
        assert_eq!(scanner.seek_to_row_before(key.row).await.unwrap(), start.is_some());
        position(scanner.peek(), start, "seek_to_row_before");
    }
    scanner.seek_to_last_row().await.unwrap();
    let last_row = cells.last().map(Cell::row);
    let start = cells.iter().find(|cell| Some(cell.row()) == last_row);
    position(scanner.peek(), start, "seek_to_last_row");
}

async fn check_blooms(file: &StoreFile, cells: &BTreeSet<Cell>) {
    for cell in cells {
        assert!(file.may_contain_row(cell.row()).await.unwrap());
        let (row, qualifier) = (cell.row(), cell.qualifier());
        assert!(file.may_contain_row_column(row, qualifier).await.unwrap());
        if cell.cell_type() == CellType::DeleteFamily && cell.qualifier().is_empty() {
            assert!(file.may_contain_row_column(row, b"any").await.unwrap());
        }
    }
    assert!(!file.may_contain_row(b"\xff\xff\xff\xff\xff").await.unwrap());
    assert!(!file.may_contain_row_column(b"\xff\xff\xff\xff\xff", b"q").await.unwrap());
}

async fn check_file(options: StoreFileOptions, cells: &BTreeSet<Cell>, sought: &[Cell]) {
    let files = memory();
    let summary = write(&files, Path::new(PATH), options, cells).await;
    let file = open(&files, Path::new(PATH)).await;
    let expected: Vec<Cell> = cells.iter().cloned().collect();
    assert_eq!(read_all(&file, true).await, expected);
    assert_eq!(read_all(&file, false).await, expected);

    assert_eq!(file.cell_count(), cells.len() as u64);
    assert_eq!(file.length(), summary.length);
    assert_eq!(file.uncompressed_length(), summary.uncompressed_length);
    assert_eq!(file.first_key().map(|key| &key[..]), cells.first().map(Cell::key_bytes));
    assert_eq!(file.last_key().map(|key| &key[..]), cells.last().map(Cell::key_bytes));
    assert_eq!(file.first_key(), summary.first_key.as_ref());
    assert_eq!(file.last_key(), summary.last_key.as_ref());
    assert_eq!(file.time_range(), summary.time_range);
    assert_eq!(file.max_sequence_id(), META.max_sequence_id);
    assert_eq!(file.is_major_compaction(), META.is_major_compaction);
    assert_eq!(file.created_ms(), options.created_ms);
    assert_eq!(file.compression(), options.compression);
    if let Some(range) = file.time_range() {
        assert!(cells.iter().all(|cell| (range.min..=range.max).contains(&cell.timestamp())));
    }
    check_seeks(&file, cells, sought).await;
    check_blooms(&file, cells).await;
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_store_file_finds_what_a_sorted_set_finds(
        options in any_options(),
        cells in prop::collection::btree_set(any_cell(), 0..250),
        sought in prop::collection::vec(any_cell(), 1..40),
    ) {
        block_on(check_file(options, &cells, &sought));
    }
}

/// Compares a part of a file with the same cells taken out of a sorted set.
async fn check_part(
    options: StoreFileOptions,
    cells: &BTreeSet<Cell>,
    sought: &[Cell],
    part: FilePart,
) {
    let files = memory();
    write(&files, Path::new(PATH), options, cells).await;
    let file = open(&files, Path::new(PATH)).await.with_part(part.clone());
    let is_in = |row: &[u8]| row >= &part.start[..] && (part.end.is_empty() || row < &part.end[..]);
    let mut rest: Vec<Cell> = cells.iter().filter(|cell| is_in(cell.row())).cloned().collect();
    if let Some(sequence_id) = part.sequence_id {
        rest.iter_mut().for_each(|cell| *cell = cell.clone().with_sequence_id(sequence_id));
        // Cells that are the same but for their sequence ids have no order in a set.
        rest.dedup_by(|cell, before| cell.key_bytes() == before.key_bytes());
        assert_eq!(file.max_sequence_id(), sequence_id);
        assert_eq!(file.max_cell_sequence_id(), sequence_id);
    }
    let expected: BTreeSet<Cell> = rest.iter().cloned().collect();
    for cache_blocks in [true, false] {
        let mut read = read_all(&file, cache_blocks).await;
        if part.sequence_id.is_some() {
            read.dedup_by(|cell, before| cell.key_bytes() == before.key_bytes());
        }
        assert_eq!(read, rest);
    }
    for cell in sought.iter().chain(cells) {
        let may_contain = file.may_contain_row(cell.row()).await.unwrap();
        assert!(is_in(cell.row()) || !may_contain);
        let by_column = file.may_contain_row_column(cell.row(), cell.qualifier()).await.unwrap();
        assert!(is_in(cell.row()) || !by_column);
    }
    check_blooms(&file, &expected).await;
    if part.sequence_id.is_none() {
        check_seeks(&file, &expected, sought).await;
    }
}

prop_compose! {
    fn any_part()(
        start in prop::option::of(any_cell()),
        end in prop::option::of(any_cell()),
        sequence_id in prop::option::of(1..9u64),
    ) -> FilePart {
        let row = |cell: Option<Cell>| cell.map(|cell| cell.row_bytes()).unwrap_or_default();
        FilePart { start: row(start), end: row(end), sequence_id: sequence_id.map(SequenceId) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_part_of_a_store_file_reads_like_a_file_of_its_own(
        options in any_options(),
        cells in prop::collection::btree_set(any_cell(), 0..250),
        sought in prop::collection::vec(any_cell(), 1..40),
        part in any_part(),
    ) {
        block_on(check_part(options, &cells, &sought, part));
    }
}

fn numbered(numbers: std::ops::Range<u32>) -> BTreeSet<Cell> {
    let cell = |number| {
        let row = format!("row{number:06}");
        Cell::put(row.as_bytes(), b"f", b"q", 1, b"value").unwrap()
    };
    numbers.map(cell).collect()
}

#[tokio::test]
async fn an_index_of_four_levels_is_searched() {
    let options = StoreFileOptions {
        block_bytes: 1,
        index_chunk_bytes: 64,
        bloom_chunk_bytes: 128,
        ..StoreFileOptions::default()
    };
    let cells = numbered(0..3000);
    let sought: Vec<Cell> = cells.iter().step_by(61).cloned().collect();
    check_file(options, &cells, &sought).await;
}

#[tokio::test]
async fn a_file_without_cells_is_a_file() {
    check_file(StoreFileOptions::default(), &BTreeSet::new(), &[]).await;
}

#[tokio::test]
async fn values_larger_than_a_block_are_kept() {
    let value = vec![7u8; 3 << 20];
    let cells: BTreeSet<Cell> =
        (0..4u8).map(|number| Cell::put(&[b'r', number], b"f", b"q", 1, &value).unwrap()).collect();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let options = StoreFileOptions { compression, ..StoreFileOptions::default() };
        let sought: Vec<Cell> = cells.iter().cloned().collect();
        check_file(options, &cells, &sought).await;
    }
}

#[tokio::test]
async fn a_cell_out_of_order_is_refused_and_the_file_stays_good() {
    let files = memory();
    let options = StoreFileOptions::default();
    let path = Path::new(PATH);
    let mut writer = StoreFileWriter::create(&files, path, options).await.unwrap();
    let put = |row: &[u8], sequence_id| {
        let cell = Cell::put(row, b"f", b"q", 1, b"v").unwrap();
        cell.with_sequence_id(SequenceId(sequence_id))
    };
    writer.append(&put(b"b", 5)).await.unwrap();
    let earlier = writer.append(&put(b"a", 6)).await.unwrap_err();
    assert!(matches!(earlier, Error::OutOfOrder { .. }), "{earlier}");
    // For one key, the later edit must come first.
    let later = writer.append(&put(b"b", 6)).await.unwrap_err();
    assert!(matches!(later, Error::OutOfOrder { .. }), "{later}");
    writer.append(&put(b"b", 4)).await.unwrap();
    writer.finish(META).await.unwrap();
    let file = open(&files, path).await;
    assert_eq!(read_all(&file, true).await, [put(b"b", 5), put(b"b", 4)]);
}

#[tokio::test]
async fn versions_of_one_key_stay_in_one_block() {
    let versions: BTreeSet<Cell> = (0..50)
        .map(|number| {
            let cell = Cell::put(b"row", b"f", b"q", 1, b"some value").unwrap();
            cell.with_sequence_id(SequenceId(number))
        })
        .chain(numbered(0..5))
        .collect();
    let options = StoreFileOptions { block_bytes: 16, ..StoreFileOptions::default() };
    let sought: Vec<Cell> = versions.iter().cloned().collect();
    check_file(options, &versions, &sought).await;
}

/// Moves while no block has to be loaded.
fn steps_at_once(scanner: &mut StoreFileScanner) -> usize {
    let mut steps = 0;
    while let ScanStep::Cell(_) = scanner.try_next().unwrap() {
        steps += 1;
    }
    steps
}

#[tokio::test]
async fn within_a_block_a_scan_waits_for_nothing() {
    let files = memory();
    let options = StoreFileOptions::default();
    let cells = numbered(0..1000);
    write(&files, Path::new(PATH), options, &cells).await;
    let file = open(&files, Path::new(PATH)).await;
    let mut scanner = file.scanner(ScannerOptions::default());
    assert!(matches!(scanner.try_next().unwrap(), ScanStep::End));
    scanner.seek_to_first().await.unwrap();
    assert_eq!(steps_at_once(&mut scanner), 999);
    assert!(matches!(scanner.try_next().unwrap(), ScanStep::NeedBlock));
    assert_eq!(scanner.next().await.unwrap().as_ref(), cells.last());
    assert!(matches!(scanner.try_next().unwrap(), ScanStep::End));
}

#[tokio::test]
async fn a_point_read_costs_one_bloom_chunk_and_one_data_block() {
    let files = memory();
    write(&files, Path::new(PATH), StoreFileOptions::default(), &numbered(0..50_000)).await;
    let cache = Arc::new(BlockCache::new(64 << 20));
    let path = Path::new(PATH);
    let file = StoreFile::open(&files, path, Arc::clone(&cache)).await.unwrap();
    assert_eq!(cache.statistics().misses, 0);
    let mut scanner = file.scanner(ScannerOptions::default());
    for (row, misses, hits) in [(b"row031000", 2, 0), (b"row031001", 2, 1)] {
        assert!(file.may_contain_row(row).await.unwrap());
        scanner.seek(&CellKey::before_row(row)).await.unwrap();
        assert_eq!(scanner.peek().unwrap().row(), row);
        let statistics = cache.statistics();
        assert_eq!((statistics.misses, statistics.hits), (misses, hits));
    }
    file.evict();
    assert_eq!(cache.statistics().blocks, 0);
}

#[tokio::test]
async fn a_scan_may_leave_the_cache_alone() {
    let files = memory();
    let cells = numbered(0..50_000);
    write(&files, Path::new(PATH), StoreFileOptions::default(), &cells).await;
    let cache = Arc::new(BlockCache::new(64 << 20));
    let path = Path::new(PATH);
    let file = StoreFile::open(&files, path, Arc::clone(&cache)).await.unwrap();
    assert_eq!(read_all(&file, false).await.len(), cells.len());
    assert_eq!(cache.statistics().blocks, 0);
    assert_eq!(read_all(&file, true).await.len(), cells.len());
    assert!(cache.statistics().blocks > 10);
}
