//! Flushes: writes memstores to store files.
//!
//! The memstores of all families are replaced with empty ones at one point in the order of edits.
//! All edits up to that point are then written. Once the manifest that names the new files is on
//! record, the log no longer needs to keep those edits. If a flush fails, its memstores stay
//! readable, and the next flush resumes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use basalt_failpoint::{Point, reached};
use basalt_model::{CellKey, FamilyDescriptor, RegionEpoch, SequenceId, paths};
use basalt_storage::manifest::{self, FileEntry, Manifest};
use basalt_storage::memstore::Memstore;
use basalt_storage::nonces::NonceFile;
use basalt_storage::read::{Decision, MergeCursor, ReadRules, Visibility};
use basalt_storage::store_file::{StoreFile, StoreFileMeta, StoreFileOptions, StoreFileWriter};
use bytes::Bytes;
use tracing::info;

use super::{Region, Result, durability_of};
use crate::metrics;

/// Where store files are written before they are moved to their place, as `<epoch>-<name>`.
pub(super) const TMP_FOLDER: &str = ".tmp";

/// The task that holds the lock may flush.
pub(super) struct FlushLock {
    /// The nonce files of the owner's first manifest; `None` once the files that earlier owners
    /// left behind have been removed.
    first_nonce_files: Option<BTreeSet<String>>,
}

/// A store file that is complete and in its place.
pub(super) struct NewFile {
    pub(super) file: Arc<StoreFile>,
    pub(super) entry: FileEntry,
}

// === impl FlushLock ===

impl FlushLock {
    /// The lock of an owner whose first manifest is `manifest`.
    pub(super) fn new(manifest: &Manifest) -> Self {
        let names = manifest.nonce_files.iter().map(|file| file.name.clone());
        Self { first_nonce_files: Some(names.collect()) }
    }
}

// === impl Region ===

impl Region {
    /// Flushes all edits made so far. Returns how many bytes of store files were written.
    pub(crate) async fn flush(&self) -> Result<u64> {
        let mut turn = self.flush_lock.lock().await;
        let Some(flushed) = self.begin_flush() else { return Ok(0) };
        reached(Point::FlushBegun).await;
        if let Some(named) = &turn.first_nonce_files {
            self.remove_leftovers().await?;
            self.remove_unnamed_nonce_files(named).await?;
            turn.first_nonce_files = None;
        }
        self.settle().await?;
        let snapshot = self.view.load_full();
        let mut files = BTreeMap::new();
        let mut entries = BTreeMap::new();
        for (name, family) in &snapshot.families {
            let Some(memstore) = family.flushing.as_ref().filter(|memstore| !memstore.is_empty())
            else {
                continue;
            };
            let Some(descriptor) = self.descriptor(name) else { continue };
            let rules = ReadRules::compaction(descriptor, false, self.least_now_ms());
            let cursor = MergeCursor::new([Arc::clone(memstore)], [], SequenceId(u64::MAX), None);
            let meta = StoreFileMeta { max_sequence_id: flushed, is_major_compaction: false };
            if let Some(new) = self.write_file(descriptor, cursor, rules, meta).await? {
                files.insert(name.clone(), new.file);
                entries.insert(descriptor.name.clone(), new.entry);
            }
        }
        reached(Point::FlushWritten).await;
        let nonce_files = self.write_nonces().await?;
        let bytes = entries.values().map(|entry| entry.length).sum();
        self.commit_flush(flushed, &files, entries, nonce_files).await?;
        info!(region = %self.encoded_name, up_to = %flushed, files = files.len(), bytes, "flushed");
        metrics::files_written("flush", bytes);
        Ok(bytes)
    }

    /// Removes temporary files of earlier owners that were never moved to their place. Only files
    /// of lower epochs are removed, because the region may have a later owner by now. This is not
    /// done when the region is opened, because opening must be fast.
    async fn remove_leftovers(&self) -> Result<()> {
        let files = &self.shared.files;
        let tmp = paths::region(&self.info.table, self.encoded_name).join(TMP_FOLDER);
        for entry in files.list(&tmp).await? {
            if epoch_of_aside(&entry.name).is_some_and(|epoch| epoch < self.epoch) {
                self.delete_if_there(&tmp.join(&entry.name)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn delete_if_there(&self, path: &Path) -> Result<()> {
        match self.shared.files.delete_file(path).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Swaps the memstores if they are not empty. Returns the highest edit to be flushed.
    fn begin_flush(&self) -> Option<SequenceId> {
        let mut order = self.view.lock();
        if let Some(unfinished) = order.flushing {
            return Some(unfinished);
        }
        let snapshot = order.snapshot();
        let mut nonces = self.nonces.lock();
        // An edit may have a nonce and no cell.
        let has_nonces = nonces.active_bytes() > 0;
        if !has_nonces && snapshot.families.values().all(|family| family.active.is_empty()) {
            return None;
        }
        order.flushing = Some(order.last);
        nonces.begin_flush();
        order.replace(snapshot.with_flush_begun());
        order.flushing
    }

    async fn commit_flush(
        &self,
        flushed: SequenceId,
        files: &BTreeMap<Bytes, Arc<StoreFile>>,
        entries: BTreeMap<String, FileEntry>,
        nonce_files: Vec<Arc<NonceFile>>,
    ) -> Result<()> {
        let mut manifest = self.manifest.lock().await;
        let mut next = self.next_manifest(&manifest);
        next.flushed = next.flushed.max(flushed);
        // The nonces that a manifest of an earlier release lists were loaded into memory, so they
        // are now in the files.
        next.nonces = Vec::new();
        next.nonce_files.extend(nonce_files.iter().map(|file| file.entry().clone()));
        for (family, entry) in entries {
            next.families.entry(family).or_default().push(entry);
        }
        self.put_on_record(&mut manifest, next).await?;
        reached(Point::FlushRecorded).await;
        self.view.swap(|snapshot| snapshot.with_flush_done(files));
        self.nonces.lock().flushed(nonce_files);
        self.view.lock().flushing = None;
        self.shared.wal.flushed(self.encoded_name, flushed);
        manifest.remove_older(&self.shared.files, &self.info.table, self.encoded_name).await?;
        Ok(())
    }

    /// The next manifest after `manifest`, with the same files.
    pub(super) fn next_manifest(&self, manifest: &Manifest) -> Manifest {
        Manifest {
            number: manifest.number + 1,
            highest: self.view.lock().last,
            highest_timestamp_ms: self.timestamp_floor_ms.load(Ordering::Relaxed),
            ..manifest.clone()
        }
    }

    /// Writes `next` as the successor of `manifest`. A failed attempt may have left its file
    /// behind, complete or not, so the next attempt uses another number. This does not apply if the
    /// name was taken already: then another process runs under our epoch.
    pub(super) async fn put_on_record(
        &self,
        manifest: &mut Manifest,
        next: Manifest,
    ) -> Result<()> {
        let files = &self.shared.files;
        match next
            .write(files, &self.info.table, self.encoded_name, durability_of(&self.table))
            .await
        {
            Ok(()) => *manifest = next,
            Err(manifest::Error::Files(error)) if error.is_already_exists() => {
                return Err(manifest::Error::Files(error).into());
            }
            Err(error) => {
                manifest.number = next.number;
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Writes the cells of `cursor` that `rules` keep to a store file: under a temporary name, then
    /// moved to its place. `None` if no cells are kept.
    pub(super) async fn write_file(
        &self,
        family: &FamilyDescriptor,
        cursor: MergeCursor,
        rules: ReadRules,
        meta: StoreFileMeta,
    ) -> Result<Option<NewFile>> {
        let name = self.new_file_name();
        let files = &self.shared.files;
        let region = paths::region(&self.info.table, self.encoded_name);
        let aside = region.join(TMP_FOLDER).join(aside_name(self.epoch, &name));
        let length = match self.write_aside(&aside, family, cursor, rules, meta).await {
            Ok(Some(length)) => length,
            Ok(None) => {
                files.delete_file(&aside).await?;
                return Ok(None);
            }
            Err(error) => {
                // If this fails too, the next owner removes the file.
                let _ = files.delete_file(&aside).await;
                return Err(error);
            }
        };
        let folder = region.join(&family.name);
        let path = folder.join(&name);
        files.rename(&aside, &path).await?;
        files.sync_directory(&folder).await?;
        let file = StoreFile::open(files, &path, Arc::clone(&self.shared.blocks)).await?;
        let (highest, major) = (meta.max_sequence_id, meta.is_major_compaction);
        let entry = FileEntry { name, length, highest, major, ..FileEntry::default() };
        Ok(Some(NewFile { file: Arc::new(file), entry }))
    }

    /// Returns the length of the file. `None` if no cell was written; then the file is not
    /// finished.
    async fn write_aside(
        &self,
        aside: &Path,
        family: &FamilyDescriptor,
        mut cursor: MergeCursor,
        rules: ReadRules,
        meta: StoreFileMeta,
    ) -> Result<Option<u64>> {
        let options = StoreFileOptions {
            compression: family.compression,
            bloom_type: family.bloom,
            block_bytes: family.block_bytes as usize,
            created_ms: self.now_ms(),
            durability: durability_of(&self.table),
            ..StoreFileOptions::default()
        };
        let mut writer = StoreFileWriter::create(&self.shared.files, aside, options).await?;
        let mut visibility = Visibility::new(rules);
        let mut row = Bytes::new();
        cursor.seek(&CellKey::before_row(b"")).await?;
        while let Some(cell) = cursor.take().await? {
            if cell.row() != &row[..] {
                row = cell.row_bytes();
                visibility.begin_row();
            }
            match visibility.decide(&cell.key()) {
                Decision::Include => writer.append(&cell).await?,
                // Later delete markers in the column or row must be seen, so nothing is skipped.
                Decision::Skip | Decision::SkipColumn | Decision::SkipRow => {}
            }
        }
        if writer.cell_count() == 0 {
            return Ok(None);
        }
        Ok(Some(writer.finish(meta).await?.length))
    }

    pub(super) fn descriptor(&self, family: &Bytes) -> Option<&FamilyDescriptor> {
        self.table.families.get(std::str::from_utf8(family).ok()?)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.shared.timestamps.best_now_ms()
    }

    /// The time that decides which cells are dropped as expired.
    pub(super) fn least_now_ms(&self) -> u64 {
        self.shared.timestamps.least_now_ms()
    }

    /// A new file name of 32 hexadecimal digits, as HBase names its store files.
    fn new_file_name(&self) -> String {
        let random = &self.shared.seams.random;
        format!("{:016x}{:016x}", random.next_u64(), random.next_u64())
    }

    /// Whether the memstores are large enough to be flushed, or a flush of them has failed.
    ///
    /// A failed flush is due however little it has to write: its memstores may fill the region's
    /// limit, and then no edit is accepted that could make the active memstores large enough.
    pub(crate) fn needs_flush(&self) -> bool {
        let has_failed = self.flush_lock.try_lock().is_ok() && self.view.lock().flushing.is_some();
        if has_failed {
            return true;
        }
        let snapshot = self.view.load();
        let active = snapshot.families.values().map(|family| family.active.bytes()).sum::<u64>();
        active + self.nonces.lock().active_bytes() >= self.shared.config.flush_bytes
    }

    /// The active memstore of a family.
    pub(super) fn active(&self, family: &[u8]) -> Option<Arc<Memstore>> {
        self.view.load().families.get(family).map(|family| Arc::clone(&family.active))
    }
}

/// The name of a temporary file.
pub(super) fn aside_name(epoch: RegionEpoch, name: &str) -> String {
    format!("{}-{name}", epoch.0)
}

/// The epoch in the name of a temporary file or of a nonce file.
pub(super) fn epoch_of_aside(name: &str) -> Option<RegionEpoch> {
    name.split_once('-')?.0.parse().ok().map(RegionEpoch)
}
