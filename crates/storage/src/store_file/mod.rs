//! Store files: sorted cells on disk in Apache HBase's HFile v3 format, which HBase's own tools can
//! read.
//!
//! ```text
//! data blocks, with leaf index blocks and bloom chunks between them as they fill
//! intermediate index blocks
//! load-on-open part: root index | index of meta blocks | file info | bloom filter's meta block
//! trailer
//! ```
//! A [`StoreFileWriter`] writes a store file from cells in order. A [`StoreFile`] is an open store
//! file, and a [`StoreFileScanner`] a position in it. All blocks below the root are read through
//! the [`BlockCache`](crate::block_cache::BlockCache). A checksum covers every byte except those of
//! the trailer, and is verified before the bytes are trusted. Damage is reported as an [`Error`]
//! with the file, the offset and the reason, and affects only the cells in that block. Numbers are
//! big endian.
//!
//! Encoded data blocks are read but not written. Encryption, and bloom filters other than ROW and
//! ROWCOL, cannot be read yet.

mod block;
mod bloom;
mod compression;
mod data_block;
mod encoding;
mod error;
mod fields;
mod file_info;
#[cfg(fuzzing)]
pub mod fuzzing;
mod index;
mod index_path;
mod part;
mod reader;
mod scanner;
mod trailer;
mod writer;

pub(crate) use data_block::DataBlock;
pub use error::{Damage, Error, Result};
pub use file_info::TimeRange;
pub(crate) use index::IndexBlock;
pub use part::FilePart;
pub use reader::StoreFile;
pub use scanner::{ScanStep, ScannerOptions, StoreFileScanner};
pub use writer::{StoreFileMeta, StoreFileOptions, StoreFileSummary, StoreFileWriter};
