//! The outcome of each client operation with a nonce, so that a retry does not apply it again.
//!
//! An increment, an append or a conditional mutation may carry a nonce. Its outcome is written to
//! the log with the edit and then kept in memory ([`Recent`]). A flush writes the outcomes in
//! memory to a [`NonceFile`], which the manifest names beside the store files of the same edits. No
//! outcome is dropped before [`RETENTION_MS`], however many there are: only disk space and age
//! bound them. Memory holds the operations since the last flush, which count as memstore, and for
//! each file a filter and an index. These take 2.2 bytes per operation, so 20 MB for 30 minutes of
//! 5,000 operations a second.
//!
//! Small answers are kept with the outcome. A larger answer is in the region's own cells while
//! nothing replaces them, so only where to find it is kept.

mod entry;
mod file;
mod filter;
mod merge;
mod recent;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use entry::NonceMessage;
pub use entry::{Answer, NonceEntry};
pub use file::{NonceFile, NonceFileEntry, NonceFileScanner, NonceFileWriter};
pub use merge::{Choice, choose, merge};
pub use recent::Recent;

use crate::wal::Nonce;

/// How long a nonce is kept: the stock client's longest operation takes 20 minutes. The rest is a
/// margin for clocks that differ and for requests that wait.
pub const RETENTION_MS: u64 = 30 * 60 * 1000;
/// The maximum length in bytes of an answer that is kept with its nonce.
pub const ANSWER_BYTES_MAX: usize = 256;

/// The operations of a region, in memory and on disk.
#[derive(Debug, Default)]
pub struct Nonces {
    active: Recent,
    flushing: Option<Arc<Recent>>,
    /// The files in the order of the manifest.
    files: Arc<Vec<Arc<NonceFile>>>,
}

/// Errors of nonce files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system returned an error.
    #[error(transparent)]
    Files(#[from] basalt_fs::Error),
    /// The file is not what was written.
    #[error("{}: not a nonce file: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// More operations than a reader accepts.
    #[error("{}: a nonce file holds at most {entries_max} operations", .path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// The limit.
        entries_max: u64,
    },
    /// Operations must be written in the order of their nonces.
    #[error("{}: operations are not in ascending order", .path.display())]
    OutOfOrder {
        /// The file.
        path: PathBuf,
    },
}

// === impl Nonces ===

impl Nonces {
    /// The operations in `files`, which are in the order of the manifest, and the `recent` ones.
    pub fn new(files: Vec<Arc<NonceFile>>, recent: impl IntoIterator<Item = NonceEntry>) -> Self {
        let mut nonces = Self { files: Arc::new(files), ..Self::default() };
        recent.into_iter().for_each(|entry| nonces.insert(entry));
        nonces
    }

    /// The outcome of the operation, if it is in memory. If not, it may be in [`Nonces::files`].
    pub fn recent(&self, nonce: Nonce) -> Option<NonceEntry> {
        let flushing = || self.flushing.as_ref()?.get(nonce);
        self.active.get(nonce).or_else(flushing).cloned()
    }

    /// The files, in the order of the manifest.
    pub fn files(&self) -> Arc<Vec<Arc<NonceFile>>> {
        Arc::clone(&self.files)
    }

    /// Records a finished operation.
    pub fn insert(&mut self, entry: NonceEntry) {
        self.active.insert(entry);
    }

    /// The memory of the operations that are in no file yet, in bytes.
    pub fn recent_bytes(&self) -> u64 {
        self.active_bytes() + self.flushing.as_ref().map_or(0, |flushing| flushing.bytes())
    }

    /// The memory of the operations since the last flush began, in bytes.
    pub fn active_bytes(&self) -> u64 {
        self.active.bytes()
    }

    /// Begins a flush: operations inserted from now on belong to the next one.
    pub fn begin_flush(&mut self) {
        self.flushing = Some(Arc::new(std::mem::take(&mut self.active)));
    }

    /// The operations that are being flushed.
    pub fn flushing(&self) -> Option<Arc<Recent>> {
        self.flushing.clone()
    }

    /// Ends a flush: the flushed operations are in `files`, and the manifest names these.
    pub fn flushed(&mut self, files: Vec<Arc<NonceFile>>) {
        self.flushing = None;
        self.files = Arc::new(self.files.iter().cloned().chain(files).collect());
    }

    /// Replaces `inputs` with `merged`, as the manifest now does.
    pub fn replace(&mut self, inputs: &[Arc<NonceFile>], merged: Option<Arc<NonceFile>>) {
        let is_input = |file: &Arc<NonceFile>| inputs.iter().any(|input| Arc::ptr_eq(input, file));
        let at = self.files.iter().position(is_input).unwrap_or(self.files.len());
        let mut files = self.files.as_ref().clone();
        files.retain(|file| !is_input(file));
        if let Some(merged) = merged {
            files.insert(at.min(files.len()), merged);
        }
        self.files = Arc::new(files);
    }
}

// === impl Error ===

impl Error {
    /// Whether the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Files(error) if error.is_not_found())
    }
}
