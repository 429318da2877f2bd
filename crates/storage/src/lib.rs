//! The storage engine of a region: WAL, memstore, store files, block cache, flush, compaction and
//! manifest.
//!
//! An edit is written to the [`wal`], then to a [`memstore`]. A flush writes memstores to
//! [`store_file`]s and names them in the [`manifest`]; a [`compaction`] merges them. [`read`]
//! merges memstores and store files again for reads. The region server decides which region does
//! what, and when.

pub mod block_cache;
pub mod compaction;
pub mod manifest;
pub mod memstore;
pub mod named_file;
pub mod nonces;
pub mod read;
pub mod store_file;
pub mod wal;
