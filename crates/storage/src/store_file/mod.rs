//! Store files: sorted cells on disk, in Apache HBase's HFile v3, which its own tools can read.
//!
//! ```text
//! data blocks, with leaf index blocks and bloom chunks between them as they fill
//! intermediate index blocks
//! load-on-open part: root index | index of meta blocks | file info | bloom filter's meta block
//! trailer
//! ```
//! A [`StoreFileWriter`] writes one from cells in order; a [`StoreFile`] is one that is open, and a
//! [`StoreFileScanner`] a place in it. All blocks below the root come through the
//! [`BlockCache`](crate::block_cache::BlockCache). Every byte but those of the trailer is under a
//! checksum that is compared before the byte is believed; what does not fit is an [`Error`] with
//! the file, the place and the reason, and costs only what lies in that block. Numbers are big
//! endian.
//!
//! Encoded data blocks are read and not written. Not read yet: encryption, other bloom filters than
//! ROW and ROWCOL.

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
mod reader;
mod scanner;
mod trailer;
mod writer;

pub(crate) use data_block::DataBlock;
pub use error::{Damage, Error, Result};
pub use file_info::TimeRange;
pub(crate) use index::IndexBlock;
pub use reader::StoreFile;
pub use scanner::{ScanStep, ScannerOptions, StoreFileScanner};
pub use writer::{StoreFileMeta, StoreFileOptions, StoreFileSummary, StoreFileWriter};
