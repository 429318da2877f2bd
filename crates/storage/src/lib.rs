//! The storage engine of a region: WAL, memstore, store files, block cache, flush, compaction and manifest.

pub mod block_cache;
pub mod store_file;
pub mod wal;
