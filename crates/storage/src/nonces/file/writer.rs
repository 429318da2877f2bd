//! Writes a nonce file.

use std::path::{Path, PathBuf};

use basalt_fs::{AppendFile, Durability, SharedFileSystem};
use bytes::{BufMut, BytesMut};

use super::NonceFileEntry;
use super::format::{BLOCK_BYTES, ENTRIES_MAX, Footer, MAGIC, put_frame};
use crate::nonces::filter::FilterBuilder;
use crate::nonces::{Error, NonceEntry};
use crate::wal::Nonce;

/// How many bytes are appended to the file at a time.
const APPENDED_AT_ONCE: usize = 1 << 20;

/// A nonce file that is being written.
pub struct NonceFileWriter {
    path: PathBuf,
    file: Box<dyn AppendFile>,
    /// Finished blocks that are not in the file yet.
    pending: BytesMut,
    /// The offset in the file at which `pending` begins.
    offset: u64,
    block: BytesMut,
    index: BytesMut,
    filter: FilterBuilder,
    last: Option<Nonce>,
    entries: u64,
    entries_max: u64,
    oldest_ms: u64,
    newest_ms: u64,
}

// === impl NonceFileWriter ===

impl NonceFileWriter {
    /// The maximum number of entries in a file.
    pub const ENTRIES_MAX: u64 = ENTRIES_MAX;

    /// Creates a file for at most `entries_max` entries.
    ///
    /// # Errors
    /// [`Error::TooMany`] if `entries_max` exceeds the limit, or an error of the file system.
    pub async fn create(
        files: &SharedFileSystem,
        path: &Path,
        entries_max: u64,
        durability: Durability,
    ) -> Result<Self, Error> {
        if entries_max > ENTRIES_MAX {
            return Err(Error::TooMany { path: path.to_owned(), entries_max: ENTRIES_MAX });
        }
        let mut file = files.create(path).await?;
        file.set_durability(durability);
        Ok(Self {
            path: path.to_owned(),
            file,
            pending: BytesMut::from(&MAGIC[..]),
            offset: 0,
            block: BytesMut::new(),
            index: BytesMut::new(),
            filter: FilterBuilder::new(entries_max),
            last: None,
            entries: 0,
            entries_max,
            oldest_ms: u64::MAX,
            newest_ms: 0,
        })
    }

    /// Adds an entry. Its nonce must be above those of all entries before it.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`], [`Error::TooMany`], or an error of the file system.
    pub async fn append(&mut self, entry: &NonceEntry) -> Result<(), Error> {
        if self.last.is_some_and(|last| last >= entry.nonce) {
            return Err(Error::OutOfOrder { path: self.path.clone() });
        }
        if self.entries == self.entries_max {
            return Err(Error::TooMany { path: self.path.clone(), entries_max: self.entries_max });
        }
        if self.block.is_empty() {
            self.index.put_u64(entry.nonce.group);
            self.index.put_u64(entry.nonce.nonce);
            self.index.put_u64(self.offset + self.pending.len() as u64);
        }
        entry.put(&mut self.block);
        self.filter.add(entry.nonce);
        self.last = Some(entry.nonce);
        self.entries += 1;
        self.oldest_ms = self.oldest_ms.min(entry.at_ms);
        self.newest_ms = self.newest_ms.max(entry.at_ms);
        if self.block.len() >= BLOCK_BYTES {
            self.end_block().await?;
        }
        Ok(())
    }

    /// Writes the rest and syncs the file. Returns its entry for a manifest, for use once the file
    /// has been moved to its place under `name`.
    ///
    /// # Errors
    /// If the file system returns an error.
    pub async fn finish(mut self, name: String) -> Result<NonceFileEntry, Error> {
        if !self.block.is_empty() {
            self.end_block().await?;
        }
        let index_offset = self.offset + self.pending.len() as u64;
        put_frame(&self.index, &mut self.pending);
        let filter_offset = self.offset + self.pending.len() as u64;
        put_frame(&self.filter.finish(), &mut self.pending);
        let footer = Footer {
            index_offset,
            filter_offset,
            entries: self.entries,
            oldest_ms: self.oldest_ms.min(self.newest_ms),
            newest_ms: self.newest_ms,
        };
        self.pending.put_slice(&footer.encode());
        self.file.append_and_sync(self.pending.freeze()).await?;
        let length = self.file.length();
        self.file.close().await?;
        let Footer { entries, oldest_ms, newest_ms, .. } = footer;
        Ok(NonceFileEntry { name, length, entries, oldest_ms, newest_ms })
    }

    async fn end_block(&mut self) -> Result<(), Error> {
        put_frame(&self.block, &mut self.pending);
        self.block.clear();
        if self.pending.len() >= APPENDED_AT_ONCE {
            let bytes = self.pending.split().freeze();
            self.offset += bytes.len() as u64;
            self.file.append(bytes).await?;
        }
        Ok(())
    }
}
