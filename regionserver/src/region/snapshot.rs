//! The contents of a region at one moment: the memstores and store files of each family.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::TableDescriptor;
use basalt_storage::memstore::Memstore;
use basalt_storage::store_file::StoreFile;
use bytes::Bytes;

/// All families of a region; never changed, only replaced.
#[derive(Clone, Default)]
pub(crate) struct RegionSnapshot {
    pub(crate) families: BTreeMap<Bytes, FamilySnapshot>,
}

/// One family.
#[derive(Clone)]
pub(crate) struct FamilySnapshot {
    /// The memstore that receives edits.
    pub(crate) active: Arc<Memstore>,
    /// The memstore that is being written to a store file.
    pub(crate) flushing: Option<Arc<Memstore>>,
    /// Oldest first.
    pub(crate) files: Vec<Arc<StoreFile>>,
}

// === impl RegionSnapshot ===

impl RegionSnapshot {
    /// Empty families as `table` declares them.
    pub(crate) fn empty(table: &TableDescriptor) -> Self {
        let families = table.families.keys().map(|name| {
            let family =
                FamilySnapshot { active: Arc::default(), flushing: None, files: Vec::new() };
            (Bytes::copy_from_slice(name.as_bytes()), family)
        });
        Self { families: families.collect() }
    }

    pub(crate) fn memstore_bytes(&self) -> u64 {
        self.families.values().map(FamilySnapshot::memstore_bytes).sum()
    }

    /// Whether all edits are in store files.
    pub(crate) fn memstores_are_empty(&self) -> bool {
        let mut memstores = self.families.values().flat_map(FamilySnapshot::memstores);
        memstores.all(|memstore| memstore.is_empty())
    }

    pub(crate) fn store_file_bytes(&self) -> u64 {
        let files = self.families.values().flat_map(|family| &family.files);
        files.map(|file| file.length()).sum()
    }

    /// No cell has a higher timestamp. [`i64::MAX`] if that is unknown for some file.
    pub(crate) fn highest_timestamp(&self) -> i64 {
        self.families.values().map(FamilySnapshot::highest_timestamp).max().unwrap_or_default()
    }

    /// A snapshot in which the active memstores are being flushed and empty ones receive the edits.
    pub(crate) fn with_flush_begun(&self) -> Self {
        let mut snapshot = self.clone();
        for family in snapshot.families.values_mut() {
            family.flushing = Some(std::mem::take(&mut family.active));
        }
        snapshot
    }

    /// A snapshot in which `files` replace the memstores that were being flushed.
    pub(crate) fn with_flush_done(&self, files: &BTreeMap<Bytes, Arc<StoreFile>>) -> Self {
        let mut snapshot = self.clone();
        for (name, family) in &mut snapshot.families {
            family.flushing = None;
            family.files.extend(files.get(name).cloned());
        }
        snapshot
    }

    /// A snapshot in which `merged` replaces `inputs`.
    pub(crate) fn with_compaction_done(
        &self,
        family: &Bytes,
        inputs: &[Arc<StoreFile>],
        merged: Option<Arc<StoreFile>>,
    ) -> Self {
        let mut snapshot = self.clone();
        if let Some(family) = snapshot.families.get_mut(family) {
            let is_input =
                |file: &Arc<StoreFile>| inputs.iter().any(|input| Arc::ptr_eq(input, file));
            let at = family.files.iter().position(is_input).unwrap_or(family.files.len());
            family.files.retain(|file| !is_input(file));
            if let Some(merged) = merged {
                family.files.insert(at.min(family.files.len()), merged);
            }
        }
        snapshot
    }
}

// === impl FamilySnapshot ===

impl FamilySnapshot {
    fn memstore_bytes(&self) -> u64 {
        self.active.bytes() + self.flushing.as_ref().map_or(0, |memstore| memstore.bytes())
    }

    fn highest_timestamp(&self) -> i64 {
        let in_memory = self.memstores().map(|memstore| memstore.highest_timestamp());
        let in_files = self.files.iter().map(|file| file.time_range().map_or(i64::MAX, |r| r.max));
        in_memory.chain(in_files).max().unwrap_or_default()
    }

    /// The memstores; the active one comes first.
    pub(crate) fn memstores(&self) -> impl Iterator<Item = Arc<Memstore>> {
        std::iter::once(Arc::clone(&self.active)).chain(self.flushing.clone())
    }
}
