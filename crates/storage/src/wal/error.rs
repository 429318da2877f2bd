//! What can go wrong with a log, and what can be wrong with the bytes of one.

use std::path::PathBuf;
use std::sync::Arc;

/// The result of an operation on a log.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on a log that failed. Cheap to clone: one failure is told to all who wait.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error(transparent)]
    Files(Arc<basalt_fs::Error>),
    /// The folder of this server's logs was taken away: the server has been declared dead.
    #[error("{}: the log's folder was renamed; this server has been fenced", .folder.display())]
    Fenced {
        /// The folder that was renamed.
        folder: PathBuf,
    },
    /// There is a log under this server name, which a log is made for only once.
    #[error(
        "{}: a log with this server name already exists; a new process needs a new name",
        .folder.display()
    )]
    NotNew {
        /// The folder that is there.
        folder: PathBuf,
    },
    /// The log was closed, or its writer has been stopped.
    #[error("the log is closed")]
    Closed,
    /// There is no room on the disk for more edits. Nothing of this one was written, and the log
    /// takes edits again once there is room.
    #[error("no space for more edits: {0}")]
    NoRoom(Arc<basalt_fs::Error>),
    /// A write did not end within its bound, so that nobody knows whether it happened.
    #[error("{}: a write took longer than {limit_ms} ms", .path.display())]
    TimedOut {
        /// The file.
        path: PathBuf,
        /// The bound in milliseconds.
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
        /// Where the damage begins.
        offset: u64,
        /// What is wrong there.
        defect: Defect,
    },
}

/// What is wrong with some bytes of a log, or of the index of one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Defect {
    /// The file ends inside.
    #[error("a {part} needs {needed} bytes, but only {left} are left")]
    CutOff {
        /// What is cut off.
        part: &'static str,
        /// How long it is.
        needed: u64,
        /// How much of it is there.
        left: u64,
    },
    /// Something else lies there.
    #[error("a {part} should begin here, but its magic number is missing")]
    Magic {
        /// What should be there.
        part: &'static str,
    },
    /// A later release wrote it, or nothing did.
    #[error("version {found}; this release reads version {known}")]
    Version {
        /// The version that the bytes state.
        found: u16,
        /// The version that is understood.
        known: u16,
    },
    /// The bytes are not those that were written.
    #[error("the checksum of a {part} is {found:#010x}, but its bytes give {computed:#010x}")]
    Checksum {
        /// What is damaged.
        part: &'static str,
        /// What is stored.
        found: u32,
        /// What would be right.
        computed: u32,
    },
    /// A length out of its bounds.
    #[error("a {part} of {found} bytes, but it must have {min} to {max}")]
    Length {
        /// Whose length.
        part: &'static str,
        /// The length in bytes.
        found: u64,
        /// The least that it could be.
        min: u64,
        /// The most that it could be.
        max: u64,
    },
    /// A whole and valid structure that contradicts what surrounds it.
    #[error("{what}: {found}, but it should be {expected}")]
    Mismatch {
        /// What is contradicted.
        what: &'static str,
        /// The number that is there.
        found: u64,
        /// The number that would be right.
        expected: u64,
    },
    /// A text that is not UTF-8, or not a server name.
    #[error("an invalid {part}")]
    Text {
        /// What the text should be.
        part: &'static str,
    },
    /// Bits that no release has given a meaning to.
    #[error("unknown flags {flags:#04x}")]
    Flags {
        /// All flags.
        flags: u8,
    },
    /// A cell that is not one.
    #[error(transparent)]
    Cell(#[from] basalt_model::Error),
    /// A damaged record that names this region, among whole ones of others.
    #[error("a durable edit of this region is damaged; the edits of other regions are intact")]
    LostEdit,
    /// A record of another region, where only one region's should be.
    #[error("a record of region {found} among those of another")]
    Region {
        /// The region of the record.
        found: basalt_model::EncodedRegionName,
    },
}

// === impl Error ===

impl Error {
    /// Whether the server has been declared dead by others.
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
