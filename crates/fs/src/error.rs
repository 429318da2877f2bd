//! Errors of file operations. Each has the path of the file.

use std::io;
use std::path::{Path, PathBuf};

/// The result of a file-system operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A file-system operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, or the folder it should be in, is missing.
    #[error("{}: no such file or folder", .path.display())]
    NotFound {
        /// The path that was looked up.
        path: PathBuf,
    },
    /// The file to be created exists already.
    #[error("{}: already exists", .path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// A read went past the end of the file.
    #[error("{}: requested {length} bytes at {offset}, but the file ends earlier", .path.display())]
    EndOfFile {
        /// The file.
        path: PathBuf,
        /// Where the read began, in bytes.
        offset: u64,
        /// How many bytes were requested.
        length: usize,
    },
    /// A file that is read as a whole is longer than the limit.
    #[error("{}: {length} bytes long; expected at most {length_max}", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        length_max: u64,
    },
    /// A file was renamed or deleted while its writer had it open. Bytes appended since may be
    /// lost.
    #[error(
        "{}: the file no longer has this name: it was taken from its writer",
        .path.display()
    )]
    TakenAway {
        /// The name under which it was created.
        path: PathBuf,
    },
    /// The operating system returned an error: disk full, permission denied, an I/O error.
    #[error("{}: cannot {operation}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed, as a verb.
        operation: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}

// === impl Error ===

impl Error {
    /// Whether the file or folder is missing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the disk or the quota is full.
    pub fn is_storage_full(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the file exists already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. })
    }

    pub(crate) fn from_io(path: &Path, operation: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::AlreadyExists => Self::AlreadyExists { path },
            kind @ (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                let source = io::Error::new(kind, full_disk(&path, &source));
                Self::Io { path, operation, source }
            }
            _ => Self::Io { path, operation, source },
        }
    }
}

/// Names the full disk and its free space: the reader of the message has to free space there.
fn full_disk(path: &Path, source: &io::Error) -> String {
    let on = path.ancestors().find_map(|path| Some((path, rustix::fs::statvfs(path).ok()?)));
    match on {
        Some((path, disk)) => {
            let mib = |blocks: u64| blocks.saturating_mul(disk.f_frsize) >> 20;
            let (free, total) = (mib(disk.f_bavail), mib(disk.f_blocks));
            format!("{source}; the disk of {} has {free} of {total} MiB free", path.display())
        }
        None => source.to_string(),
    }
}
