//! Errors of store files. Each names the path of its file.

use std::path::PathBuf;

/// The result of a store-file operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed store-file operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system returned an error.
    #[error(transparent)]
    File(#[from] basalt_fs::Error),
    /// Bytes of the file are not those that were written. The rest of the file stays readable.
    #[error("{}: at {offset}: {damage}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The offset of the damaged block, or of the trailer.
        offset: u64,
        /// The damage found there.
        damage: Damage,
    },
    /// The file is intact, but it uses a feature that Basalt cannot read yet.
    #[error("{}: {what} is {found:?}; supported: {supported}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The unsupported feature.
        what: &'static str,
        /// The value in the file.
        found: String,
        /// The supported values.
        supported: &'static str,
    },
    /// A cell was appended that sorts before the cell appended last.
    #[error("{}: cell {cell} appended after {last}: cells must ascend", .path.display())]
    OutOfOrder {
        /// The file being written.
        path: PathBuf,
        /// The cell that was rejected.
        cell: String,
        /// The row of the cell before it.
        last: String,
    },
    /// A cell, or a run of cells with one key, does not fit into a block.
    #[error("{}: a block of {length} bytes; at most {length_max} are allowed", .path.display())]
    BlockTooLong {
        /// The file being written.
        path: PathBuf,
        /// The length that the block would have, in bytes.
        length: usize,
        /// The maximum length of a block, in bytes.
        length_max: usize,
    },
    /// The load-on-open part is longer than a reader would load when it opens the file.
    #[error(
        "{}: the load-on-open part takes {length} bytes; at most {length_max} are read",
        .path.display()
    )]
    LoadOnOpenTooLong {
        /// The file being written.
        path: PathBuf,
        /// The length of the part, in bytes.
        length: u64,
        /// The maximum length of the part, in bytes.
        length_max: u64,
    },
    /// A codec failed to compress.
    #[error("{}: cannot compress with {codec}: {reason}", .path.display())]
    Compress {
        /// The file being written.
        path: PathBuf,
        /// The codec.
        codec: &'static str,
        /// The codec's message.
        reason: String,
    },
    /// A writer was used again after it had failed; its file must be abandoned.
    #[error("{}: the writer failed earlier", .path.display())]
    Abandoned {
        /// The file being written.
        path: PathBuf,
    },
}

/// The damage found in bytes that were read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    /// The checksum of the bytes does not match the stored one.
    #[error(
        "checksum of the bytes from {start} is stored as {stored:#010x}, computed {computed:#010x}"
    )]
    Checksum {
        /// The offset of the checked bytes in the block.
        start: usize,
        /// The checksum in the file.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The first bytes are not the magic of the expected kind of block.
    #[error("magic bytes are \"{found}\"; expected \"{expected}\"")]
    Magic {
        /// The bytes found, escaped.
        found: String,
        /// The bytes expected, escaped.
        expected: String,
    },
    /// A number is outside its bounds.
    #[error("{what} is {found}; expected {min} to {max}")]
    OutOfBounds {
        /// The name of the number.
        what: &'static str,
        /// Its value.
        found: i64,
        /// The minimum.
        min: i64,
        /// The maximum.
        max: i64,
    },
    /// The bytes end before the end of the structure that they should contain.
    #[error("{what} is cut off")]
    CutOff {
        /// The structure that is cut off.
        what: &'static str,
    },
    /// Bytes follow where none should.
    #[error("{length} bytes follow {what}")]
    Trailing {
        /// The structure that should be last.
        what: &'static str,
        /// How many bytes follow.
        length: usize,
    },
    /// The compressed bytes cannot be decompressed.
    #[error("not {codec} data: {reason}")]
    Compression {
        /// The codec.
        codec: &'static str,
        /// The decoder's message.
        reason: String,
    },
    /// A cell in a data block is invalid.
    #[error("cell at byte {position} of the block: {reason}")]
    Cell {
        /// The position of the cell in the decompressed block.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A message of the trailer or the file info cannot be decoded.
    #[error("{what} does not decode: {reason}")]
    Message {
        /// The message.
        what: &'static str,
        /// The decoder's message.
        reason: String,
    },
}

// === impl Damage ===

impl Damage {
    /// Returns `Ok` if `found` is within `min..=max`.
    pub(super) fn check(
        what: &'static str,
        found: i64,
        (min, max): (i64, i64),
    ) -> std::result::Result<(), Self> {
        if (min..=max).contains(&found) {
            return Ok(());
        }
        Err(Self::OutOfBounds { what, found, min, max })
    }
}
