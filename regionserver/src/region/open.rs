//! Opens a region. The steps are the same for the first time, after a move, and after its owner's
//! death.
//!
//! Take the newest manifest and put it under the new epoch → open the store files → replay the
//! sealed logs that the record names → change OPENING to OPEN, conditional on the record's version.
//! A late order therefore opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_cluster::RegionRecord;
use basalt_cluster::records::FamilyIncarnations;
use basalt_failpoint::{Point, reached};
use basalt_model::{RegionEpoch, SequenceId, TableDescriptor, paths};
use basalt_planted::{Rule, is_off};
use basalt_runtime::WITNESS;
use basalt_storage::manifest::{FamilyIncarnation, FileEntry, Manifest};
use basalt_storage::nonces::{NonceFile, Nonces};
use basalt_storage::store_file::StoreFile;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::time::Instant;
use tracing::trace;

use super::flush::{FlushLock, TMP_FOLDER};
use super::row_locks::RowLocks;
use super::snapshot::RegionSnapshot;
use super::view::View;
use super::{Error, Region, RegionServices, Result, Taking, WriteOrder, durability_of};
use crate::recovery::replay::{self, SealedLogs};

/// How many store files of a region are opened at a time.
const FILES_AT_ONCE: usize = 8;

/// The region to open.
pub(crate) struct OpenRegion {
    pub(crate) record: RegionRecord,
    pub(crate) table: Arc<TableDescriptor>,
    /// Those of the table's record.
    pub(crate) incarnations: FamilyIncarnations,
    /// The sealed logs of each server that the record names as unflushed.
    pub(crate) sealed: Vec<SealedLogs>,
}

/// An opened region, and the cost of opening it.
pub(crate) struct Opened {
    pub(crate) region: Arc<Region>,
    pub(crate) open_sequence_id: SequenceId,
    pub(crate) replay_time: Duration,
    pub(crate) replayed_bytes: u64,
}

/// The edits of a region that replay must skip.
pub(crate) struct ReplayLimits {
    /// All edits up to this one are in the store files.
    pub(crate) flushed: SequenceId,
    /// For each family that was added after the table was created: the first epoch whose edits
    /// belong to it. Earlier edits are of a family of the same name that was removed.
    families_since: BTreeMap<Vec<u8>, RegionEpoch>,
}

/// Opens a region up to the point where only its record has to be changed.
pub(crate) async fn open(shared: RegionServices, request: OpenRegion) -> Result<Opened> {
    let files = Arc::clone(&shared.files);
    // Concurrently, the logs are looked up: nobody changes a sealed log.
    let looked_up = async { Ok(replay::look_up(&files, &request.sealed).await?) };
    let (region, ()) =
        futures::future::try_join(Region::from_files(shared, &request), looked_up).await?;
    let begun = Instant::now();
    let mut replayed_bytes = 0;
    for sealed in &request.sealed {
        replayed_bytes += replay::replay(&region, sealed).await?;
    }
    let replay_time = begun.elapsed();
    let last = region.view.lock().last;
    region.view.show(last);
    // Rows may already have cells with the highest timestamp, from an owner whose clock was ahead.
    // New cells need a higher timestamp, or an existing delete would hide them.
    region.timestamp_floor_ms.fetch_add(1, Ordering::Relaxed);
    let region = Arc::new(region);
    Ok(Opened { region, open_sequence_id: last.next(), replay_time, replayed_bytes })
}

// === impl Region ===

impl Region {
    async fn from_files(shared: RegionServices, request: &OpenRegion) -> Result<Self> {
        let info = request.record.info.clone();
        let encoded_name = info.encoded_name();
        // From here on, nothing that an earlier owner writes is seen.
        let manifest = take_over(&shared, request).await?;
        reached(Point::OpenTakenOver).await;
        let folder = paths::nonces(&info.table, encoded_name);
        let nonce_files = manifest.nonce_files.iter().cloned();
        let nonce_files =
            nonce_files.map(|entry| Arc::new(NonceFile::new(&shared.files, &folder, entry)));
        let nonces = Nonces::new(nonce_files.collect(), manifest.nonces.iter().cloned());
        let mut snapshot = RegionSnapshot::empty(&request.table);
        for (name, family) in &mut snapshot.families {
            let name = String::from_utf8_lossy(name);
            let entries = manifest.families.get(name.as_ref()).map_or(&[][..], Vec::as_slice);
            family.files = open_files(&shared, request, &name, entries).await?;
        }
        // Edits that were replayed into no family have left no trace in the manifest. Their ids
        // must not be given again.
        let given = request.record.open_sequence_id.0.saturating_sub(1);
        let last = manifest.highest.max(SequenceId(given));
        let order = WriteOrder { last, last_ticket: None, flushing: None, taking: Taking::Edits };
        Ok(Self {
            encoded_name,
            epoch: request.record.epoch,
            table: Arc::clone(&request.table),
            view: View::new(snapshot, order, last),
            row_locks: RowLocks::new(),
            nonces: Mutex::new(nonces),
            timestamp_floor_ms: AtomicU64::new(manifest.highest_timestamp_ms),
            flush_lock: tokio::sync::Mutex::new(FlushLock::new(&manifest)),
            compaction_turn: tokio::sync::Mutex::default(),
            manifest: tokio::sync::Mutex::new(manifest),
            requests: AtomicU64::new(0),
            info,
            shared,
        })
    }

    /// Replays one edit of a sealed log, unless it is in the store files already.
    pub(crate) fn replay_edit(&self, edit: basalt_storage::wal::Edit, limits: &ReplayLimits) {
        let mut order = self.view.lock();
        order.last = order.last.max(edit.sequence_id);
        self.timestamp_floor_ms.fetch_max(edit.write_time_ms, Ordering::Relaxed);
        let is_in_files = edit.sequence_id <= limits.flushed && !is_off(Rule::ReplaySequence);
        if is_in_files {
            return;
        }
        // The WAL record does not mark which cells are the answer. A retry names their columns.
        self.remember(edit.nonce, edit.sequence_id, edit.write_time_ms, &edit.cells);
        let (region, epoch, sequence_id) = (edit.region, edit.epoch, edit.sequence_id.0);
        let flushed = limits.flushed.0;
        trace!(target: WITNESS, %region, epoch = epoch.0, sequence_id, flushed, "replayed");
        for cell in &edit.cells {
            let is_earlier = |since: &RegionEpoch| epoch < *since;
            if limits.families_since.get(cell.family()).is_some_and(is_earlier) {
                continue;
            }
            if let Some(memstore) = self.active(cell.family()) {
                memstore.insert(cell);
            }
        }
    }

    /// The edits that replay must skip, according to the manifest.
    pub(crate) async fn replay_limits(&self) -> ReplayLimits {
        let manifest = self.manifest.lock().await;
        let incarnations = manifest.incarnations.iter();
        let since = incarnations.map(|(name, one)| (name.clone().into_bytes(), one.since));
        ReplayLimits { flushed: manifest.flushed, families_since: since.collect() }
    }

    pub(crate) fn files(&self) -> &basalt_fs::SharedFileSystem {
        &self.shared.files
    }
}

/// Puts the region's newest manifest under our epoch and returns it, or a first one if there was
/// none.
async fn take_over(shared: &RegionServices, request: &OpenRegion) -> Result<Manifest> {
    let (info, epoch) = (&request.record.info, request.record.epoch);
    let (files, name) = (&shared.files, info.encoded_name());
    let found = Manifest::take_over(files, &info.table, name, epoch).await?;
    let is_first = found.is_none();
    let mut manifest = found.unwrap_or_else(|| Manifest { epoch, ..Manifest::default() });
    check_incarnations(&manifest, request)?;
    let has_changed = follow_table(&mut manifest, &request.table, &request.incarnations);
    if has_changed {
        manifest.number += 1;
    }
    let known = manifest.families.len();
    // A manifest lists every family that has a folder, even if it has no files.
    for family in request.table.families.keys() {
        manifest.families.entry(family.clone()).or_default();
    }
    if manifest.families.len() > known {
        make_folders(shared, request).await?;
    }
    // Written before the region is served: what it drops must never come back.
    if is_first || has_changed {
        let durability = durability_of(&request.table);
        manifest.write(files, &info.table, name, durability).await?;
    }
    Ok(manifest)
}

/// Incarnations only grow. So one that is lower than in the manifest comes from an outdated record,
/// and following it would drop the files of the newer family.
fn check_incarnations(manifest: &Manifest, request: &OpenRegion) -> Result<()> {
    for (family, known) in &manifest.incarnations {
        match request.incarnations.get(family) {
            Some(number) if *number < known.number => {
                return Err(Error::EarlierIncarnation {
                    region: request.record.info.to_string(),
                    family: family.clone(),
                    in_manifest: known.number,
                    in_record: *number,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Drops the families that the table no longer has, and the files of those that were removed and
/// added again since the manifest was written. Returns whether anything has changed.
fn follow_table(
    manifest: &mut Manifest,
    table: &TableDescriptor,
    incarnations: &FamilyIncarnations,
) -> bool {
    let families_before = manifest.families.len();
    let incarnations_before = manifest.incarnations.clone();
    manifest.families.retain(|family, _| table.families.contains_key(family));
    manifest.incarnations.retain(|family, _| table.families.contains_key(family));
    for (family, number) in incarnations {
        let is_known = manifest.incarnations.get(family).is_some_and(|one| one.number == *number);
        if !is_known && !is_off(Rule::FamilyIncarnations) {
            manifest.families.remove(family);
            let incarnation = FamilyIncarnation { number: *number, since: manifest.epoch };
            manifest.incarnations.insert(family.clone(), incarnation);
        }
    }
    manifest.families.len() != families_before || manifest.incarnations != incarnations_before
}

async fn make_folders(shared: &RegionServices, request: &OpenRegion) -> Result<()> {
    const DESCRIBED: &str = ".regioninfo";
    let info = &request.record.info;
    let region = paths::region(&info.table, info.encoded_name());
    let files = &shared.files;
    let present = match files.list(&region).await {
        Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
        Err(error) if error.is_not_found() => BTreeSet::new(),
        Err(error) => return Err(error.into()),
    };
    let families = request.table.families.keys().map(String::as_str);
    let folders = families.chain([TMP_FOLDER, ".manifest"]);
    for folder in folders.filter(|folder| !present.contains(*folder)) {
        files.create_directories(&region.join(folder)).await?;
    }
    // Also for folders that an earlier opener made: it may have ended before it synced them.
    files.sync_directory(&region).await?;
    if present.contains(DESCRIBED) {
        return Ok(());
    }
    for folder in region.ancestors().skip(1).take(3) {
        files.sync_directory(folder).await?;
    }
    match files.write_whole(&region.join(DESCRIBED), region_info_file(info)).await {
        Err(error) if !error.is_already_exists() => Err(error.into()),
        _ => Ok(()),
    }
}

/// `.regioninfo` as HBase writes it: `PBUF`, then a delimited `RegionInfo` message.
fn region_info_file(info: &basalt_model::RegionInfo) -> Bytes {
    let message = basalt_hbase_rpc::schema::region_to_message(info);
    let mut bytes = BytesMut::from(&b"PBUF"[..]);
    bytes.extend_from_slice(&message.encode_length_delimited_to_vec());
    bytes.freeze()
}

/// Opens the store files of a family. Several at a time, because each takes several round trips.
async fn open_files(
    shared: &RegionServices,
    request: &OpenRegion,
    family: &str,
    entries: &[FileEntry],
) -> Result<Vec<Arc<StoreFile>>> {
    let opening = entries.iter().map(|entry| open_file(shared, request, family, entry));
    let opening: Vec<_> = opening.collect();
    stream::iter(opening).buffered(FILES_AT_ONCE).try_collect().await
}

/// Opens the part of a store file that an entry of the manifest names.
async fn open_file(
    shared: &RegionServices,
    request: &OpenRegion,
    family: &str,
    entry: &FileEntry,
) -> Result<Arc<StoreFile>> {
    let info = &request.record.info;
    let path = entry.path(&info.table, info.encoded_name(), family);
    let file = StoreFile::open(&shared.files, &path, Arc::clone(&shared.blocks)).await?;
    Ok(Arc::new(file.with_part(entry.part.clone())))
}
