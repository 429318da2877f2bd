//! What can go wrong with a store file, always with its path.

use std::path::PathBuf;

/// The result of a store-file operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A store-file operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] basalt_fs::Error),
    /// Bytes of the file are not what was written. The rest of the file stays readable.
    #[error("{}: at {offset}: {damage}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damaged block, or the trailer, begins.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The file is sound, but it uses something that Basalt cannot read yet.
    #[error("{}: {what} is {found:?}; supported: {supported}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What it could say.
        supported: &'static str,
    },
    /// A cell was appended that belongs before the one appended last.
    #[error("{}: cell {cell} appended after {last}: cells must ascend", .path.display())]
    OutOfOrder {
        /// The file being written.
        path: PathBuf,
        /// The cell that was refused.
        cell: String,
        /// The row of the cell before it.
        last: String,
    },
    /// A cell, or a run of cells with one key, does not fit a block.
    #[error("{}: a block of {length} bytes; at most {length_max} are allowed", .path.display())]
    BlockTooLong {
        /// The file being written.
        path: PathBuf,
        /// How long the block would be.
        length: usize,
        /// How long it may be.
        length_max: usize,
    },
    /// What a reader loads when it opens the file is more than it would load.
    #[error(
        "{}: the load-on-open part takes {length} bytes; at most {length_max} are read",
        .path.display()
    )]
    LoadOnOpenTooLong {
        /// The file being written.
        path: PathBuf,
        /// How long the part is.
        length: u64,
        /// How long it may be.
        length_max: u64,
    },
    /// A codec failed to compress.
    #[error("{}: cannot compress with {codec}: {reason}", .path.display())]
    Compress {
        /// The file being written.
        path: PathBuf,
        /// The codec.
        codec: &'static str,
        /// What it said.
        reason: String,
    },
    /// A writer was used again after it had failed; its file must be given up.
    #[error("{}: the writer failed earlier", .path.display())]
    Abandoned {
        /// The file being written.
        path: PathBuf,
    },
}

/// What is wrong with bytes that were read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    /// The bytes are not those that the checksum was taken of.
    #[error(
        "checksum of the bytes from {start} is stored as {stored:#010x}, computed {computed:#010x}"
    )]
    Checksum {
        /// Where in the block the checked bytes begin.
        start: usize,
        /// The checksum in the file.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The first bytes do not name the kind of block that should be here.
    #[error("magic bytes are \"{found}\"; expected \"{expected}\"")]
    Magic {
        /// What is there, escaped.
        found: String,
        /// What should be there, escaped.
        expected: String,
    },
    /// A number is outside its bounds.
    #[error("{what} is {found}; expected {min} to {max}")]
    OutOfBounds {
        /// The number's name.
        what: &'static str,
        /// Its value.
        found: i64,
        /// The least that is right.
        min: i64,
        /// The most that is right.
        max: i64,
    },
    /// The bytes end before what they say they hold.
    #[error("{what} is cut off")]
    CutOff {
        /// What is not all there.
        what: &'static str,
    },
    /// Bytes follow where nothing should.
    #[error("{length} bytes follow {what}")]
    Trailing {
        /// What should be last.
        what: &'static str,
        /// How many bytes there are.
        length: usize,
    },
    /// The compressed bytes do not decompress.
    #[error("not {codec} data: {reason}")]
    Compression {
        /// The codec.
        codec: &'static str,
        /// What it said.
        reason: String,
    },
    /// A cell within a data block.
    #[error("cell at byte {position} of the block: {reason}")]
    Cell {
        /// Where it begins in the decompressed block.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A message of the trailer or the file info does not decode.
    #[error("{what} does not decode: {reason}")]
    Message {
        /// The message.
        what: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

// === impl Damage ===

impl Damage {
    /// `Ok` if `found` is within `min..=max`.
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
