//! Finds operations in a nonce file.
//!
//! A file is opened at the first look-up, so that opening a region does not wait for it. Its filter
//! and index then stay in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_fs::{ReadFile, SharedFileSystem};
use bytes::{Buf, Bytes};
use tokio::sync::OnceCell;

use super::NonceFileEntry;
use super::format::{
    FILE_BYTES_MAX, FOOTER_BYTES, Footer, INDEX_ENTRY_BYTES, MAGIC, Unreadable, payload, read_block,
};
use crate::named_file::NamedFile;
use crate::nonces::filter::{Filter, filter_bytes};
use crate::nonces::{Error, NonceEntry};
use crate::wal::Nonce;

/// A file that a manifest names.
pub struct NonceFile {
    files: SharedFileSystem,
    path: PathBuf,
    entry: NonceFileEntry,
    opened: OnceCell<Arc<Opened>>,
}

/// The parts of a file besides its blocks, and the file itself.
struct Opened {
    file: Arc<dyn ReadFile>,
    index: Bytes,
    filter: Filter,
    /// The offset at which the last block ends.
    blocks_end: u64,
}

/// Reads the entries of a file in the order of their nonces.
pub struct NonceFileScanner {
    file: Arc<NonceFile>,
    next_block: usize,
    block: Bytes,
}

// === impl NonceFile ===

impl NonceFile {
    /// A file in `folder`, as named by a manifest. It is not opened yet.
    pub fn new(files: &SharedFileSystem, folder: &Path, entry: NonceFileEntry) -> Self {
        let (files, path) = (Arc::clone(files), folder.join(&entry.name));
        Self { files, path, entry, opened: OnceCell::new() }
    }

    /// The file's entry in the manifest.
    pub fn entry(&self) -> &NonceFileEntry {
        &self.entry
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads filter and index, unless they are in memory. The file is in its directory or in the
    /// archive.
    ///
    /// # Errors
    /// If the file cannot be read, or is not what was written.
    pub async fn open(&self) -> Result<(), Error> {
        self.opened().await.map(drop)
    }

    /// Whether filter and index are in memory.
    pub fn is_open(&self) -> bool {
        self.opened.initialized()
    }

    /// The memory of filter and index, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let opened = self.opened.get();
        opened.map_or(0, |opened| opened.index.len() as u64 + opened.filter.bytes())
    }

    /// The outcome of the operation; `None` if the file does not have it. The filter lets 1 of
    /// 2,000 absent nonces through to a read of the disk.
    ///
    /// # Errors
    /// If the file cannot be read, or is not what was written.
    pub async fn get(&self, nonce: Nonce) -> Result<Option<NonceEntry>, Error> {
        let opened = self.opened().await?;
        if !opened.filter.may_contain(nonce) {
            return Ok(None);
        }
        let Some(block) = opened.block_of(nonce) else { return Ok(None) };
        let mut rest = self.block(opened, block).await?;
        while !rest.is_empty() {
            let entry = NonceEntry::take(&mut rest).map_err(|reason| self.damaged(reason))?;
            if entry.nonce >= nonce {
                return Ok((entry.nonce == nonce).then_some(entry));
            }
        }
        Ok(None)
    }

    /// A scanner over all entries.
    pub fn scanner(self: &Arc<Self>) -> NonceFileScanner {
        NonceFileScanner { file: Arc::clone(self), next_block: 0, block: Bytes::new() }
    }

    async fn opened(&self) -> Result<&Arc<Opened>, Error> {
        self.opened.get_or_try_init(|| self.read()).await
    }

    async fn read(&self) -> Result<Arc<Opened>, Error> {
        let (_, file) = NamedFile::open(&self.files, &self.path).await?;
        let file: Arc<dyn ReadFile> = Arc::new(file);
        let (length, expected) = (file.length(), self.entry.length);
        if length != expected || !(FOOTER_BYTES as u64..=FILE_BYTES_MAX).contains(&length) {
            let reason = format!("it is {length} bytes long, but should be {expected}");
            return Err(self.damaged(reason));
        }
        let footer = file.read_at(length - FOOTER_BYTES as u64, FOOTER_BYTES).await?;
        let footer = Footer::decode(&footer, length).map_err(|reason| self.damaged(reason))?;
        let tables = (length - FOOTER_BYTES as u64 - footer.index_offset) as usize;
        let mut tables = file.read_at(footer.index_offset, tables).await?;
        let index = tables.split_to((footer.filter_offset - footer.index_offset) as usize);
        let opened = self.assemble(file, &footer, index, tables);
        opened.map(Arc::new).map_err(|reason| self.damaged(reason))
    }

    fn assemble(
        &self,
        file: Arc<dyn ReadFile>,
        footer: &Footer,
        index: Bytes,
        filter: Bytes,
    ) -> Result<Opened, String> {
        let Footer { entries, oldest_ms, newest_ms, .. } = *footer;
        let own = &self.entry;
        if (entries, oldest_ms, newest_ms) != (own.entries, own.oldest_ms, own.newest_ms) {
            return Err(format!("it has {entries} entries, but should have {}", own.entries));
        }
        let (index, filter) = (payload(index, "index")?, payload(filter, "filter")?);
        let is_whole = index.len().is_multiple_of(INDEX_ENTRY_BYTES)
            && index.is_empty() == (entries == 0)
            && filter.len() as u64 >= filter_bytes(entries);
        let opened =
            Opened { file, index, filter: Filter::new(filter), blocks_end: footer.index_offset };
        let mut expected = MAGIC.len() as u64;
        let is_ordered = (0..opened.blocks()).all(|block| {
            let (offset, end) = opened.range(block);
            let begins_there = offset == expected && offset < end;
            expected = end;
            begins_there
        });
        if !is_whole || !is_ordered {
            return Err("its index or its filter contradicts the rest of the file".to_owned());
        }
        Ok(opened)
    }

    async fn block(&self, opened: &Opened, block: usize) -> Result<Bytes, Error> {
        let (offset, end) = opened.range(block);
        read_block(opened.file.as_ref(), offset, end).await.map_err(|error| match error {
            Unreadable::Files(error) => error.into(),
            Unreadable::Damaged(reason) => self.damaged(reason),
        })
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Damaged { path: self.path.clone(), reason }
    }
}

impl std::fmt::Debug for NonceFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NonceFile").field(&self.path).finish()
    }
}

// === impl Opened ===

impl Opened {
    fn blocks(&self) -> usize {
        self.index.len() / INDEX_ENTRY_BYTES
    }

    /// The first nonce of a block, and the offset of the block.
    fn index_entry(&self, block: usize) -> Option<(Nonce, u64)> {
        let mut entry = self.index.get(block * INDEX_ENTRY_BYTES..)?;
        let nonce = Nonce { group: entry.try_get_u64().ok()?, nonce: entry.try_get_u64().ok()? };
        Some((nonce, entry.try_get_u64().ok()?))
    }

    /// The block that holds `nonce`, if any does.
    fn block_of(&self, nonce: Nonce) -> Option<usize> {
        let (mut low, mut high) = (0, self.blocks());
        while low < high {
            let middle = low.midpoint(high);
            match self.index_entry(middle) {
                Some((first, _)) if first <= nonce => low = middle + 1,
                _ => high = middle,
            }
        }
        low.checked_sub(1)
    }

    /// The offsets at which a block begins and ends.
    fn range(&self, block: usize) -> (u64, u64) {
        let offset = |block| self.index_entry(block).map(|(_, offset)| offset);
        let end = offset(block + 1).unwrap_or(self.blocks_end);
        (offset(block).unwrap_or(end), end)
    }
}

// === impl NonceFileScanner ===

impl NonceFileScanner {
    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read, or is not what was written.
    pub async fn next(&mut self) -> Result<Option<NonceEntry>, Error> {
        while self.block.is_empty() {
            let opened = self.file.opened().await?;
            if self.next_block == opened.blocks() {
                return Ok(None);
            }
            self.block = self.file.block(opened, self.next_block).await?;
            self.next_block += 1;
        }
        let entry = NonceEntry::take(&mut self.block);
        entry.map(Some).map_err(|reason| self.file.damaged(reason))
    }
}
