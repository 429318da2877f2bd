//! Opening a region: for the first time, after a move, and after the death of its owner, all alike.
//!
//! newest manifest → own manifest under the new epoch → store files → replay of the sealed logs that
//! the record names → OPENING becomes OPEN on condition of the record's version. A late order
//! therefore opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use basalt_cluster::RegionRecord;
use basalt_model::{SequenceId, TableDescriptor, paths};
use basalt_storage::manifest::{FileEntry, Manifest};
use basalt_storage::nonces::Nonces;
use basalt_storage::store_file::StoreFile;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::time::Instant;

use super::flush::{TMP_FOLDER, epoch_of_aside};
use super::row_locks::RowLocks;
use super::state::RegionState;
use super::{Region, Result, Shared, WriteOrder};
use crate::recovery::replay::{self, SealedLogs};

/// What is to be opened.
pub(crate) struct OpenRegion {
    pub(crate) record: RegionRecord,
    pub(crate) table: Arc<TableDescriptor>,
    /// The sealed logs of each server that the record names as unflushed.
    pub(crate) sealed: Vec<SealedLogs>,
}

/// What was opened, and what it took.
pub(crate) struct Opened {
    pub(crate) region: Arc<Region>,
    pub(crate) open_sequence_id: SequenceId,
    pub(crate) replay_time: Duration,
    pub(crate) replayed_bytes: u64,
}

/// Opens a region up to where only its record has to be changed.
pub(crate) async fn open(shared: Shared, request: OpenRegion) -> Result<Opened> {
    let opened = try_open(shared.clone(), &request).await;
    if opened.is_err() {
        remove_older_manifests(&shared, &request.record).await;
    }
    opened
}

async fn try_open(shared: Shared, request: &OpenRegion) -> Result<Opened> {
    let region = Region::from_files(shared, request).await?;
    let begun = Instant::now();
    let mut replayed_bytes = 0;
    for sealed in &request.sealed {
        replayed_bytes += replay::replay(&region, sealed).await?;
    }
    let replay_time = begun.elapsed();
    let last = region.order.lock().last;
    region.read_point.store(last.0, Ordering::Release);
    // Rows may have got the highest timestamp already, from an owner whose clock was ahead; what
    // they get from us must be above, or a delete of theirs would hide it.
    region.timestamp_floor_ms.fetch_add(1, Ordering::Relaxed);
    let region = Arc::new(region);
    Ok(Opened { region, open_sequence_id: last.next(), replay_time, replayed_bytes })
}

// === impl Region ===

impl Region {
    async fn from_files(shared: Shared, request: &OpenRegion) -> Result<Self> {
        let info = request.record.info.clone();
        let encoded_name = info.encoded_name();
        make_folders(&shared, request).await?;
        let found = Manifest::newest(&shared.files, &info.table, encoded_name).await?;
        let mut nonces = Nonces::default();
        found.nonces.iter().cloned().for_each(|entry| nonces.insert(entry));
        // From here on, what an earlier owner still writes is not seen.
        // One of the same epoch is ours, of an attempt to open that failed half-way.
        let is_ours = found.epoch == request.record.epoch;
        let number = if is_ours { found.number + 1 } else { 0 };
        let manifest = Manifest { epoch: request.record.epoch, number, ..found };
        manifest.write(&shared.files, &info.table, encoded_name).await?;
        remove_leftovers(&shared, request).await?;
        let mut state = RegionState::empty(&request.table);
        for (name, family) in &mut state.families {
            let name = String::from_utf8_lossy(name);
            let entries = manifest.families.get(name.as_ref()).map_or(&[][..], Vec::as_slice);
            for entry in entries {
                family.files.push(open_file(&shared, request, &name, entry).await?);
            }
        }
        Ok(Self {
            encoded_name,
            epoch: request.record.epoch,
            table: Arc::clone(&request.table),
            state: ArcSwap::from_pointee(state),
            order: Mutex::new(WriteOrder {
                last: manifest.highest,
                last_ticket: None,
                flushing: None,
                closing: false,
            }),
            read_point: AtomicU64::new(manifest.highest.0),
            row_locks: RowLocks::new(),
            nonces: Mutex::new(nonces),
            timestamp_floor_ms: AtomicU64::new(manifest.highest_timestamp_ms),
            flush_turn: tokio::sync::Mutex::default(),
            compaction_turn: tokio::sync::Mutex::default(),
            manifest: tokio::sync::Mutex::new(manifest),
            requests: AtomicU64::new(0),
            info,
            shared,
        })
    }

    /// Takes in one edit of a sealed log, unless it is in the store files already.
    pub(crate) fn replay_edit(&self, edit: basalt_storage::wal::Edit, flushed: SequenceId) {
        let mut order = self.order.lock();
        order.last = order.last.max(edit.sequence_id);
        self.timestamp_floor_ms.fetch_max(edit.write_time_ms, Ordering::Relaxed);
        if edit.nonce.is_some() {
            self.remember(edit.nonce, edit.sequence_id, edit.write_time_ms, &edit.cells);
        }
        if edit.sequence_id <= flushed {
            return;
        }
        for cell in edit.cells {
            if let Some(memstore) = self.active(cell.family()) {
                // The cells of a log share large buffers; a memstore must not keep those.
                memstore.insert(cell.detached());
            }
        }
    }

    /// Up to where edits are in the store files.
    pub(crate) async fn flushed(&self) -> SequenceId {
        self.manifest.lock().await.flushed
    }

    pub(crate) fn files(&self) -> &basalt_fs::SharedFileSystem {
        &self.shared.files
    }
}

async fn make_folders(shared: &Shared, request: &OpenRegion) -> Result<()> {
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
    if present.contains(DESCRIBED) {
        return Ok(());
    }
    files.sync_directory(&region).await?;
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

/// Each try to open a region writes a manifest: of those that failed, only the last are kept. What
/// they say is in ours too, if that was written.
async fn remove_older_manifests(shared: &Shared, record: &RegionRecord) {
    let (info, name) = (&record.info, record.encoded_name());
    let own = Manifest { epoch: record.epoch, ..Manifest::default() };
    let path = paths::manifest(&info.table, name, own.epoch, own.number);
    if !matches!(shared.files.exists(&path).await, Ok(true)) {
        return;
    }
    if let Err(error) = own.remove_older(&shared.files, &info.table, name).await {
        tracing::warn!(region = %info, %error, "older manifests are still there");
    }
}

/// Removes what owners before us wrote aside and never put in its place: files of lower epochs
/// only, as this order may be late and the region another's by now.
async fn remove_leftovers(shared: &Shared, request: &OpenRegion) -> Result<()> {
    let info = &request.record.info;
    let tmp = paths::region(&info.table, info.encoded_name()).join(TMP_FOLDER);
    for entry in shared.files.list(&tmp).await? {
        if epoch_of_aside(&entry.name).is_some_and(|epoch| epoch < request.record.epoch) {
            match shared.files.delete_file(&tmp.join(&entry.name)).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Opens a store file where it should be, or in the archive, where an owner that had been passed over
/// may have put it; then it is put back.
async fn open_file(
    shared: &Shared,
    request: &OpenRegion,
    family: &str,
    entry: &FileEntry,
) -> Result<Arc<StoreFile>> {
    let info = &request.record.info;
    let path = paths::family(&info.table, info.encoded_name(), family).join(&entry.name);
    if !shared.files.exists(&path).await? {
        let archived = paths::archived(&path);
        if shared.files.exists(&archived).await? {
            shared.files.rename(&archived, &path).await?;
        }
    }
    let blocks = Arc::clone(&shared.blocks);
    Ok(Arc::new(StoreFile::open(&shared.files, &path, blocks).await?))
}

/// The sealed logs that a record needs, for each of its unflushed servers, out of `known`.
pub(crate) fn sealed_logs_of(
    record: &RegionRecord,
    known: &BTreeMap<basalt_model::ServerName, SealedLogs>,
) -> Vec<SealedLogs> {
    record.unflushed.iter().filter_map(|server| known.get(server).cloned()).collect()
}
