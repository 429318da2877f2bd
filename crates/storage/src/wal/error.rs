//! Errors of a log, and defects of its bytes.

use std::path::PathBuf;
use std::sync::Arc;

/// The result of an operation on a log.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation on a log. Cheap to clone, because one failure is reported to all waiters.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The file system returned an error.
    #[error(transparent)]
    Files(Arc<basalt_fs::Error>),
    /// The folder of this server's logs was renamed: the server has been declared dead.
    #[error("{}: the log's folder was renamed; this server has been fenced", .folder.display())]
    Fenced {
        /// The folder that was renamed.
        folder: PathBuf,
    },
    /// A log of this server name exists already; each name gets a log only once.
    #[error(
        "{}: a log with this server name already exists; a new process needs a new name",
        .folder.display()
    )]
    NotNew {
        /// The existing folder.
        folder: PathBuf,
    },
    /// The log was closed, or its writer was stopped.
    #[error("the log is closed")]
    Closed,
    /// There is no room on the disk for more edits. Nothing of this edit was written. The log
    /// accepts edits again once there is room.
    #[error("no space for more edits: {0}")]
    NoRoom(Arc<basalt_fs::Error>),
    /// A write did not finish within its timeout, so it is unknown whether it happened.
    #[error("{}: a write took longer than {limit_ms} ms", .path.display())]
    TimedOut {
        /// The file.
        path: PathBuf,
        /// The timeout in milliseconds.
        limit_ms: u64,
    },
    /// An edit is longer than a record may be.
    #[error("an edit of {bytes} bytes; at most {bytes_max} fit in a record")]
    EditTooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The bound in bytes.
        bytes_max: usize,
    },
    /// Cluster id, server name and boot id do not fit in a file header.
    #[error("cluster id, server name and boot id take {bytes} bytes; at most {bytes_max} fit")]
    NamesTooLong {
        /// Their length in bytes.
        bytes: usize,
        /// The bound in bytes.
        bytes_max: usize,
    },
    /// A sealed file is shorter than it was when it was sealed: acknowledged edits may be lost.
    #[error(
        "{}: {length} bytes, but it was sealed at {sealed_length}: acknowledged edits may be lost",
        .path.display()
    )]
    Shorter {
        /// The file.
        path: PathBuf,
        /// Its length now, in bytes.
        length: u64,
        /// Its length when it was sealed, in bytes.
        sealed_length: u64,
    },
    /// Bytes that had been durable are damaged: acknowledged edits may be lost.
    #[error("{}: corrupt at byte {offset}: {defect}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The offset at which the damage begins.
        offset: u64,
        /// The defect found there.
        defect: Defect,
    },
}

/// A defect in the bytes of a log or of its index.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Defect {
    /// The file ends inside a structure.
    #[error("a {part} needs {needed} bytes, but only {left} are left")]
    CutOff {
        /// The structure that is cut off.
        part: &'static str,
        /// The bytes that it needs.
        needed: u64,
        /// The bytes that are left.
        left: u64,
    },
    /// The magic number is wrong: something else is stored there.
    #[error("a {part} should begin here, but its magic number is missing")]
    Magic {
        /// The structure that should be there.
        part: &'static str,
    },
    /// A later release wrote the bytes, or they were never written.
    #[error("version {found}; this release reads version {known}")]
    Version {
        /// The version that the bytes state.
        found: u16,
        /// The version that this release reads.
        known: u16,
    },
    /// The bytes are not those that were written.
    #[error("the checksum of a {part} is {found:#010x}, but its bytes give {computed:#010x}")]
    Checksum {
        /// The structure that is damaged.
        part: &'static str,
        /// The stored checksum.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A length is out of bounds.
    #[error("a {part} of {found} bytes, but it must have {min} to {max}")]
    Length {
        /// The structure with that length.
        part: &'static str,
        /// The length in bytes.
        found: u64,
        /// The minimum length in bytes.
        min: u64,
        /// The maximum length in bytes.
        max: u64,
    },
    /// A complete and valid structure that contradicts its context.
    #[error("{what}: {found}, but it should be {expected}")]
    Mismatch {
        /// The number that contradicts the context.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The number expected.
        expected: u64,
    },
    /// A text that is not valid UTF-8, or not a server name.
    #[error("an invalid {part}")]
    Text {
        /// What the text should be.
        part: &'static str,
    },
    /// Flags that this release does not know.
    #[error("unknown flags {flags:#04x}")]
    Flags {
        /// All flags.
        flags: u8,
    },
    /// Bytes that are not a valid cell.
    #[error(transparent)]
    Cell(#[from] basalt_model::Error),
    /// A damaged record that names this region, among intact records of others.
    #[error("a durable edit of this region is damaged; the edits of other regions are intact")]
    LostEdit,
    /// A record of another region, where only records of one region are expected.
    #[error("a record of region {found} among those of another")]
    Region {
        /// The region of the record.
        found: basalt_model::EncodedRegionName,
    },
}

// === impl Error ===

impl Error {
    /// Whether the server has been declared dead.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }

    /// Whether the disk is full.
    pub fn is_storage_full(&self) -> bool {
        match self {
            Self::Files(error) | Self::NoRoom(error) => error.is_storage_full(),
            _ => false,
        }
    }

    /// Whether durable bytes are damaged.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}

impl From<basalt_fs::Error> for Error {
    fn from(error: basalt_fs::Error) -> Self {
        match error {
            basalt_fs::Error::TakenAway { path } => {
                Self::Fenced { folder: path.parent().unwrap_or(&path).to_owned() }
            }
            error => Self::Files(Arc::new(error)),
        }
    }
}
