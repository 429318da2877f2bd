//! The nonce files of a region. Flushes write them, and compactions merge and drop them.
//!
//! They are treated like store files. They are written under a temporary name, synced, and moved to
//! their place. The manifest that names the store files of the same edits names them too, and they
//! are archived once no manifest names them. Unlike store files, they do not stay in the archive:
//! the owner deletes them with its next merge. The next owner deletes what a crash leaves behind. A
//! file's name begins with the epoch of the owner that wrote it, and a file of an earlier epoch
//! that the next owner's first manifest does not name is never named again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_failpoint::{Point, reached};
use basalt_model::paths;
use basalt_storage::nonces::{
    self, Choice, NonceEntry, NonceFile, NonceFileEntry, NonceFileWriter,
};
use tracing::info;

use super::compact::CompactionTurn;
use super::flush::{TMP_FOLDER, aside_name, epoch_of_aside};
use super::{Region, Result, durability_of};
use crate::ownership::Ownership;

// === impl Region ===

impl Region {
    /// How many operations its nonce files contain.
    pub(crate) fn nonces(&self) -> u64 {
        self.nonce_files_sum(|file| file.entry().entries)
    }

    /// The total length of its nonce files, in bytes.
    pub(crate) fn nonce_file_bytes(&self) -> u64 {
        self.nonce_files_sum(|file| file.entry().length)
    }

    /// How much memory the filters and indexes of its nonce files take, in bytes.
    pub(crate) fn nonce_filter_bytes(&self) -> u64 {
        self.nonce_files_sum(NonceFile::memory_bytes)
    }

    fn nonce_files_sum(&self, of: fn(&NonceFile) -> u64) -> u64 {
        let files = self.nonces.lock().files();
        files.iter().map(|file| of(file)).sum()
    }

    /// Writes the nonces of the edits that are being flushed to one file, or to several if a file's
    /// limit requires it. The files are complete and in their place.
    pub(super) async fn write_nonces(&self) -> Result<Vec<Arc<NonceFile>>> {
        let flushing = self.nonces.lock().flushing();
        let Some(flushing) = flushing.filter(|flushing| !flushing.is_empty()) else {
            return Ok(Vec::new());
        };
        if self.nonces.lock().files().is_empty() {
            let folder = paths::nonces(&self.info.table, self.encoded_name);
            self.shared.files.create_directories(&folder).await?;
            let region = paths::region(&self.info.table, self.encoded_name);
            self.shared.files.sync_directory(&region).await?;
        }
        let mut entries = flushing.iter().peekable();
        let mut left = flushing.len() as u64;
        let mut written = Vec::new();
        while entries.peek().is_some() {
            let count = left.min(NonceFileWriter::ENTRIES_MAX);
            written.push(self.write_nonce_file(&mut entries, count).await?);
            left -= count;
        }
        reached(Point::NoncesWritten).await;
        Ok(written)
    }

    async fn write_nonce_file<'a>(
        &self,
        entries: &mut (impl Iterator<Item = &'a NonceEntry> + Send),
        count: u64,
    ) -> Result<Arc<NonceFile>> {
        let name = self.new_nonce_file_name();
        let (files, aside) = (&self.shared.files, self.aside(&name));
        let written = async {
            let durability = durability_of(&self.table);
            let mut writer = NonceFileWriter::create(files, &aside, count, durability).await?;
            for entry in entries.take(count as usize) {
                writer.append(entry).await?;
            }
            writer.finish(name).await
        };
        self.put_in_place(&aside, written.await).await
    }

    /// Whether nonce files should be merged or dropped.
    pub(super) fn needs_nonces_merged(&self) -> bool {
        self.choose_nonce_files().is_some()
    }

    /// Merges nonce files if that is worthwhile, or drops those that are too old.
    pub(super) async fn merge_nonces(
        &self,
        ownership: &Ownership,
        turn: &mut CompactionTurn,
    ) -> Result<()> {
        let names = self.replace_nonce_files().await?;
        if names.is_empty() {
            return Ok(());
        }
        let folder = paths::nonces(&self.info.table, self.encoded_name);
        if self.archive(ownership, &folder, &names).await {
            let archive = paths::archived(&folder);
            for name in std::mem::replace(&mut turn.archived_nonce_files, names) {
                self.delete_if_there(&archive.join(name)).await?;
            }
        }
        Ok(())
    }

    /// Replaces some files with one file or with none. The replaced files stay on disk. Returns
    /// their names.
    pub(super) async fn replace_nonce_files(&self) -> Result<Vec<String>> {
        let Some((inputs, is_merge)) = self.choose_nonce_files() else { return Ok(Vec::new()) };
        let merged = match is_merge {
            true => Some(self.merge_nonce_files(&inputs).await?),
            false => None,
        };
        reached(Point::NoncesMerged).await;
        let names: Vec<String> = inputs.iter().map(|file| file.entry().name.clone()).collect();
        let mut manifest = self.manifest.lock().await;
        let mut next = self.next_manifest(&manifest);
        let entry = merged.as_ref().map(|merged| merged.entry().clone());
        replace(&mut next.nonce_files, &names, entry);
        self.put_on_record(&mut manifest, next).await?;
        let entries = merged.as_ref().map_or(0, |merged| merged.entry().entries);
        self.nonces.lock().replace(&inputs, merged);
        drop(manifest);
        info!(region = %self.encoded_name, files = inputs.len(), entries, "nonce files merged");
        Ok(names)
    }

    /// The files to merge, if the second value is true, or else to drop.
    fn choose_nonce_files(&self) -> Option<(Vec<Arc<NonceFile>>, bool)> {
        let files = self.nonces.lock().files();
        let entries: Vec<&NonceFileEntry> = files.iter().map(|file| file.entry()).collect();
        match nonces::choose(&entries, self.least_now_ms())? {
            Choice::Drop(over) => {
                Some((over.into_iter().filter_map(|at| files.get(at).cloned()).collect(), false))
            }
            Choice::Merge { first, end } => Some((files.get(first..end)?.to_vec(), true)),
        }
    }

    async fn merge_nonce_files(&self, inputs: &[Arc<NonceFile>]) -> Result<Arc<NonceFile>> {
        let name = self.new_nonce_file_name();
        let (files, aside) = (&self.shared.files, self.aside(&name));
        let durability = durability_of(&self.table);
        let merged =
            nonces::merge(files, &aside, name, inputs, self.least_now_ms(), durability).await;
        self.put_in_place(&aside, merged).await
    }

    /// Durably moves a file from its temporary name to its place.
    async fn put_in_place(
        &self,
        aside: &Path,
        written: std::result::Result<NonceFileEntry, nonces::Error>,
    ) -> Result<Arc<NonceFile>> {
        let files = &self.shared.files;
        let entry = match written {
            Ok(entry) => entry,
            Err(error) => {
                // If this fails too, the next owner removes the file.
                let _ = files.delete_file(aside).await;
                return Err(error.into());
            }
        };
        let folder = paths::nonces(&self.info.table, self.encoded_name);
        files.rename(aside, &folder.join(&entry.name)).await?;
        files.sync_directory(&folder).await?;
        let file = NonceFile::new(files, &folder, entry);
        // Opened here, so that lookups of new operations do not have to wait for it.
        file.open().await?;
        Ok(Arc::new(file))
    }

    /// Deletes nonce files of earlier owners that are not in `named`, the files of this owner's
    /// first manifest. This includes files in the archive. It is safe because later owners start
    /// from a manifest of this owner or of one after it, and those name no other files of earlier
    /// owners.
    pub(super) async fn remove_unnamed_nonce_files(&self, named: &BTreeSet<String>) -> Result<()> {
        let folder = paths::nonces(&self.info.table, self.encoded_name);
        let files = &self.shared.files;
        for folder in [paths::archived(&folder), folder] {
            let entries = match files.list(&folder).await {
                Err(error) if error.is_not_found() => continue,
                listed => listed?,
            };
            let is_over = |name: &str| {
                !named.contains(name)
                    && epoch_of_aside(name).is_some_and(|epoch| epoch < self.epoch)
            };
            for entry in entries.iter().filter(|entry| is_over(&entry.name)) {
                self.delete_if_there(&folder.join(&entry.name)).await?;
            }
        }
        Ok(())
    }

    fn new_nonce_file_name(&self) -> String {
        format!("{:020}-{:016x}", self.epoch.0, self.shared.seams.random.next_u64())
    }

    fn aside(&self, name: &str) -> PathBuf {
        let region = paths::region(&self.info.table, self.encoded_name);
        region.join(TMP_FOLDER).join(aside_name(self.epoch, name))
    }
}

/// Replaces the files with the given `names` by `merged`, in their position.
fn replace(entries: &mut Vec<NonceFileEntry>, names: &[String], merged: Option<NonceFileEntry>) {
    let is_input = |entry: &NonceFileEntry| names.contains(&entry.name);
    let at = entries.iter().position(is_input).unwrap_or(entries.len());
    entries.retain(|entry| !is_input(entry));
    if let Some(merged) = merged {
        entries.insert(at.min(entries.len()), merged);
    }
}
