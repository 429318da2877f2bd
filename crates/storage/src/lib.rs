//! The storage engine of a region: WAL, memstore, store files, block cache, flush, compaction and manifest.
