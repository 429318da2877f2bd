//! Compactions: merges of store files.
//!
//! The merged file replaces its inputs in the manifest. The inputs are then archived, but only
//! while the coordinator says that the region is still ours: a stale owner must not take files away
//! from the next owner.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_failpoint::{Point, reached};
use basalt_model::paths;
use basalt_storage::compaction::{Choice, CompactionPolicy};
use basalt_storage::manifest::FileEntry;
use basalt_storage::read::{MergeCursor, ReadRules};
use basalt_storage::store_file::{ScannerOptions, StoreFile, StoreFileMeta};
use bytes::Bytes;
use tracing::{info, warn};

use super::{Region, Result};
use crate::metrics;
use crate::ownership::Ownership;

/// The task that holds the lock may compact.
#[derive(Default)]
pub(super) struct CompactionTurn {
    /// The nonce files that the last merge of nonce files has archived.
    pub(super) archived_nonce_files: Vec<String>,
}

// === impl Region ===

impl Region {
    /// Whether a family has files that are worth merging, or nonce files are due.
    pub(crate) fn needs_compaction(&self) -> bool {
        let snapshot = self.view.load();
        snapshot.families.values().any(|family| self.choose(&family.files, false).is_some())
            || self.needs_nonces_merged()
    }

    /// Merges the files of each family that are worth merging. With `all`, merges all files of each
    /// family into one.
    pub(crate) async fn compact(&self, ownership: &Ownership, all: bool) -> Result<()> {
        let mut turn = self.compaction_turn.lock().await;
        // An error with one kind of file does not keep the other kind from being merged.
        let nonces_merged = self.merge_nonces(ownership, &mut turn).await;
        let families: Vec<Bytes> = self.view.load().families.keys().cloned().collect();
        for family in families {
            let merged = self.compact_family(&family, all).await?;
            if !merged.is_empty() {
                let family = String::from_utf8_lossy(&family);
                let folder = paths::family(&self.info.table, self.encoded_name, &family);
                let names = self.no_longer_named(&family, &folder, &merged).await;
                self.archive(ownership, &folder, &names).await;
            }
        }
        nonces_merged
    }

    /// Like [`Region::compact`], for one family. Returns the files that were merged.
    pub(super) async fn compact_family(
        &self,
        family: &Bytes,
        all: bool,
    ) -> Result<Vec<Arc<StoreFile>>> {
        let files = match self.view.load().families.get(family) {
            Some(family) => family.files.clone(),
            None => return Ok(Vec::new()),
        };
        let Some(choice) = self.choose(&files, all) else { return Ok(Vec::new()) };
        let inputs = files.get(choice.first..choice.end).unwrap_or_default();
        self.merge(family, inputs, choice.all_files).await?;
        Ok(inputs.to_vec())
    }

    fn choose(&self, files: &[Arc<StoreFile>], all: bool) -> Option<Choice> {
        if all {
            // A single file that was made from all files is rewritten too. Since then, cells may
            // have outlived their time to live, and the table may declare another number of
            // versions or another compression.
            let choice = Choice { first: 0, end: files.len(), all_files: true };
            return (!files.is_empty()).then_some(choice);
        }
        let lengths: Vec<u64> = files.iter().map(|file| file.length()).collect();
        let files_min = self.shared.config.compaction_files_min;
        CompactionPolicy { files_min, ..CompactionPolicy::default() }.choose(&lengths)
    }

    /// Replaces `inputs` with one file, or with none if nothing is left. The inputs stay on disk.
    pub(super) async fn merge(
        &self,
        family: &Bytes,
        inputs: &[Arc<StoreFile>],
        all_files: bool,
    ) -> Result<()> {
        let Some(descriptor) = self.descriptor(family) else { return Ok(()) };
        // Memstores only hold newer edits, and deletes in the oldest files have nothing left to
        // hide.
        let rules = ReadRules::compaction(descriptor, all_files, self.least_now_ms());
        let highest = inputs.iter().map(|file| file.max_sequence_id()).max().unwrap_or_default();
        let meta = StoreFileMeta { max_sequence_id: highest, is_major_compaction: all_files };
        let uncached = ScannerOptions { cache_blocks: false };
        let scanners: Vec<_> = inputs.iter().map(|file| file.scanner(uncached)).collect();
        let cursor = MergeCursor::new([], scanners, basalt_model::SequenceId(u64::MAX), None);
        let merged = self.write_file(descriptor, cursor, rules, meta).await?;
        reached(Point::CompactionWritten).await;
        let mut manifest = self.manifest.lock().await;
        let mut next = self.next_manifest(&manifest);
        let is_input = |entry: &FileEntry| {
            let path = self.path_of(&descriptor.name, entry);
            inputs.iter().any(|input| path == input.named_path() && input.part() == entry.part)
        };
        let entries = next.families.entry(descriptor.name.clone()).or_default();
        replace(entries, is_input, merged.as_ref().map(|merged| merged.entry.clone()));
        self.put_on_record(&mut manifest, next).await?;
        reached(Point::CompactionRecorded).await;
        let bytes = merged.as_ref().map_or(0, |merged| merged.entry.length);
        let merged = merged.map(|merged| merged.file);
        self.view.swap(|snapshot| snapshot.with_compaction_done(family, inputs, merged));
        drop(manifest);
        info!(region = %self.encoded_name, files = inputs.len(), bytes, all_files, "compacted");
        metrics::files_written("compaction", bytes);
        Ok(())
    }

    /// The names of those of the `merged` files that are in `folder`, the folder of this region's
    /// family, and that its manifest no longer names. A manifest may name two parts of one file.
    pub(super) async fn no_longer_named(
        &self,
        family: &str,
        folder: &Path,
        merged: &[Arc<StoreFile>],
    ) -> Vec<String> {
        let manifest = self.manifest.lock().await;
        let entries = manifest.families.get(family).map_or(&[][..], Vec::as_slice);
        let is_named = |path: &Path| entries.iter().any(|e| self.path_of(family, e) == path);
        let paths = merged.iter().map(|file| file.named_path());
        let own = paths.filter(|path| path.parent() == Some(folder) && !is_named(path));
        own.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
    }

    fn path_of(&self, family: &str, entry: &FileEntry) -> PathBuf {
        entry.path(&self.info.table, self.encoded_name, family)
    }

    /// Archives files that no manifest names any more. If this fails, the next owner finds them
    /// unnamed. Returns whether the region is still ours.
    pub(super) async fn archive(
        &self,
        ownership: &Ownership,
        folder: &Path,
        names: &[String],
    ) -> bool {
        match ownership.is_still_ours().await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                warn!(%error, region = %self.encoded_name, "could not archive merged files");
                return false;
            }
        }
        let archive = paths::archived(folder);
        let files = &self.shared.files;
        for name in names {
            let moved = async {
                files.create_directories(&archive).await?;
                files.rename(&folder.join(name), &archive.join(name)).await
            };
            // A file that is in the archive already is not found.
            if let Err(error) = moved.await
                && !error.is_not_found()
            {
                warn!(%error, region = %self.encoded_name, "could not archive a merged file");
            }
            reached(Point::CompactionArchived).await;
        }
        true
    }
}

/// Replaces the inputs of a merge by `merged`, in their position.
fn replace(
    entries: &mut Vec<FileEntry>,
    is_input: impl Fn(&FileEntry) -> bool,
    merged: Option<FileEntry>,
) {
    let at = entries.iter().position(&is_input).unwrap_or(entries.len());
    entries.retain(|entry| !is_input(entry));
    if let Some(merged) = merged {
        entries.insert(at.min(entries.len()), merged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::SequenceId;

    #[test]
    fn the_merged_file_takes_the_place_of_its_inputs() {
        let entry = |name: &str| FileEntry {
            name: name.to_owned(),
            length: 1,
            highest: SequenceId(1),
            ..FileEntry::default()
        };
        let named =
            |names: &'static [&str]| move |entry: &FileEntry| names.contains(&&entry.name[..]);
        let mut entries = vec![entry("a"), entry("b"), entry("c"), entry("d")];
        replace(&mut entries, named(&["b", "c"]), Some(entry("m")));
        assert_eq!(entries, [entry("a"), entry("m"), entry("d")]);
        replace(&mut entries, named(&["d"]), None);
        assert_eq!(entries, [entry("a"), entry("m")]);
    }
}
