//! The storage engine of a region: WAL, memstore, store files, block cache, flush, compaction and
//! manifest.
//!
//! An edit goes into the [`wal`], then into a [`memstore`]; a flush writes memstores into
//! [`store_file`]s and names them in the [`manifest`]; a [`compaction`] merges them. [`read`]
//! brings memstores and store files together again. Which region does what when is left to the
//! region server.

pub mod block_cache;
pub mod compaction;
pub mod manifest;
pub mod memstore;
mod named_file;
pub mod nonces;
pub mod read;
pub mod store_file;
pub mod wal;
