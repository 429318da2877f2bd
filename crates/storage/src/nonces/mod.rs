//! What each client operation with a nonce did, so that its retry does not do it again.
//!
//! An increment, an append or a conditional mutation may carry a nonce. Its outcome is in the log
//! with the edit, then in memory ([`Recent`]), and a flush writes what is in memory into a
//! [`NonceFile`] that the manifest names, beside the store files of the same edits. Nothing is
//! forgotten before [`RETENTION_MS`], whatever the number: disk and age bound it. In memory are the
//! operations since the last flush, which count as memstore, and for each file a filter and an
//! index: 2.2 bytes an operation, so 20 MB for 30 minutes of 5,000 operations a second.
//!
//! Small answers are kept. A larger one is in the region's own cells for as long as nothing
//! replaces it, so only where to find it is kept.

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

/// How long a nonce is kept: the stock client's longest operation takes 20 minutes. The rest is for
/// clocks that differ and for requests that wait.
pub const RETENTION_MS: u64 = 30 * 60 * 1000;
/// An answer of more bytes is not kept with its nonce.
pub const ANSWER_BYTES_MAX: usize = 256;

/// The operations of a region, in memory and on disk.
#[derive(Debug, Default)]
pub struct Nonces {
    active: Recent,
    flushing: Option<Arc<Recent>>,
    /// In the order of the manifest.
    files: Arc<Vec<Arc<NonceFile>>>,
}

/// What can go wrong with a nonce file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
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
    /// More than a reader would accept.
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
    /// Those in `files`, in the order of the manifest, and `recent` ones.
    pub fn new(files: Vec<Arc<NonceFile>>, recent: impl IntoIterator<Item = NonceEntry>) -> Self {
        let mut nonces = Self { files: Arc::new(files), ..Self::default() };
        recent.into_iter().for_each(|entry| nonces.insert(entry));
        nonces
    }

    /// What the operation did, if memory tells. If not, [`Nonces::files`] may.
    pub fn recent(&self, nonce: Nonce) -> Option<NonceEntry> {
        let flushing = || self.flushing.as_ref()?.get(nonce);
        self.active.get(nonce).or_else(flushing).cloned()
    }

    /// The files, in the order of the manifest.
    pub fn files(&self) -> Arc<Vec<Arc<NonceFile>>> {
        Arc::clone(&self.files)
    }

    /// Remembers a finished operation.
    pub fn insert(&mut self, entry: NonceEntry) {
        self.active.insert(entry);
    }

    /// Memory of the operations that are in no file yet, in bytes.
    pub fn recent_bytes(&self) -> u64 {
        self.active_bytes() + self.flushing.as_ref().map_or(0, |flushing| flushing.bytes())
    }

    /// Memory of the operations since the last flush began, in bytes.
    pub fn active_bytes(&self) -> u64 {
        self.active.bytes()
    }

    /// From here on, later operations belong to the next flush.
    pub fn begin_flush(&mut self) {
        self.flushing = Some(Arc::new(std::mem::take(&mut self.active)));
    }

    /// What is being flushed.
    pub fn flushing(&self) -> Option<Arc<Recent>> {
        self.flushing.clone()
    }

    /// What was being flushed is in `files`, and the manifest names them.
    pub fn flushed(&mut self, files: Vec<Arc<NonceFile>>) {
        self.flushing = None;
        self.files = Arc::new(self.files.iter().cloned().chain(files).collect());
    }

    /// The manifest names `merged` in the place of `inputs`.
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
    /// Whether the file is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Files(error) if error.is_not_found())
    }
}
