//! Nonce files: immutable files of operations, sorted by nonce.
//!
//! ```text
//! file   │ magic "BASALTN1" │ block… │ index │ filter │ footer │
//! block, index, filter
//!        │ u32 length │ u32 crc32c of length and payload │ payload │
//! block  │ entry… │                  up to the entry that makes it 16 KiB
//! index  │ u64 group, u64 nonce of the first entry │ u64 offset │  for each block
//! filter │ bits │                    2 bytes an entry
//! footer │ u64 offset of the index │ u64 offset of the filter │ u64 entries │
//!        │ u64 time of the oldest entry, u64 of the newest, in ms │
//!        │ u32 crc32c of all of the footer before │ magic "BASALTN1" │   52 bytes
//! ```
//! All numbers are big endian; the digit of the magic is the version. A file is written under a
//! temporary name, synced, moved to its place and then named in the region's manifest.

mod format;
mod reader;
mod writer;

pub use reader::{NonceFile, NonceFileScanner};
pub use writer::NonceFileWriter;

/// The entry of a nonce file in a manifest.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NonceFileEntry {
    /// The file's name in the region's folder of nonce files.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// The number of operations in the file.
    pub entries: u64,
    /// The time of the oldest operation, in milliseconds since 1970.
    pub oldest_ms: u64,
    /// The time of the newest operation, in milliseconds since 1970.
    pub newest_ms: u64,
}
