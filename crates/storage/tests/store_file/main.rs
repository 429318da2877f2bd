//! Store files as a whole: compared with an oracle and with Apache HBase's own files, damaged, and
//! measured.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test may print")]
#![expect(clippy::unwrap_used, reason = "what fails here should fail the test")]

mod damage;
mod encoded;
mod figures;
mod golden;
mod oracle;

use std::path::Path;
use std::sync::Arc;

use basalt_fs::{MemoryFileSystem, SharedFileSystem};
use basalt_model::{Cell, SequenceId};
use basalt_storage::block_cache::BlockCache;
use basalt_storage::store_file::{
    ScannerOptions, StoreFile, StoreFileMeta, StoreFileOptions, StoreFileScanner, StoreFileSummary,
    StoreFileWriter,
};

const META: StoreFileMeta =
    StoreFileMeta { max_sequence_id: SequenceId(4711), is_major_compaction: false };

fn memory() -> SharedFileSystem {
    Arc::new(MemoryFileSystem::new())
}

async fn write(
    files: &SharedFileSystem,
    path: &Path,
    options: StoreFileOptions,
    cells: impl IntoIterator<Item = &Cell>,
) -> StoreFileSummary {
    let mut writer = StoreFileWriter::create(files, path, options).await.unwrap();
    for cell in cells {
        writer.append(cell).await.unwrap();
    }
    writer.finish(META).await.unwrap()
}

async fn open(files: &SharedFileSystem, path: &Path) -> StoreFile {
    let cache = Arc::new(BlockCache::new(64 << 20));
    StoreFile::open(files, path, cache).await.unwrap()
}

/// All cells of a file, in order.
async fn read_all(file: &StoreFile, cache_blocks: bool) -> Vec<Cell> {
    let mut scanner = file.scanner(ScannerOptions { cache_blocks });
    scanner.seek_to_first().await.unwrap();
    read_rest(&mut scanner).await
}

async fn read_rest(scanner: &mut StoreFileScanner) -> Vec<Cell> {
    let mut cells = Vec::new();
    while let Some(cell) = scanner.next().await.unwrap() {
        cells.push(cell);
    }
    cells
}
