//! A region in its owner's process: its memstores, its store files, and the order of its edits.
//!
//! Invariants:
//! - An edit gets its sequence id and goes into the log and the memstore in one step under one
//!   lock, so the log holds the edits in order. When an edit is durable, so are all edits before
//!   it. That is why the read point can simply be raised to it.
//! - An edit becomes visible and is acknowledged once it is durable and the serving lease was then
//!   found to run.
//! - A reader takes one [`RegionSnapshot`] and one read point that belong together, and sees
//!   nothing else.

mod close;
mod compact;
mod error;
mod flush;
mod latest;
mod memstore_limit;
mod nonce;
mod nonce_files;
mod open;
mod read;
mod row_locks;
mod scanner;
mod snapshot;
mod view;
mod write;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use basalt_fs::{Durability, SharedFileSystem};
use basalt_model::{EncodedRegionName, RegionEpoch, RegionInfo, SequenceId, TableDescriptor};
use basalt_runtime::Seams;
use basalt_storage::block_cache::BlockCache;
use basalt_storage::manifest::Manifest;
use basalt_storage::nonces::Nonces;
use basalt_storage::wal::{Ticket, Wal};
use parking_lot::Mutex;

use crate::config::RegionConfig;
use crate::lease::ServingLease;
use crate::sync;
use crate::timestamps::TimestampClock;
use row_locks::RowLocks;
use view::View;

pub(crate) use error::{Error, Result};
pub(crate) use memstore_limit::MemstoresTotal;
pub(crate) use open::{OpenRegion, open};
pub(crate) use read::RowRead;
pub(crate) use scanner::{RegionScanner, ScanLimits, ScanRange};
pub(crate) use snapshot::RegionSnapshot;
pub(crate) use write::{Change, Condition, Mutation, MutationOutcome, RowStep, RowUpdate, Update};

/// The services that all regions of a server share.
#[derive(Clone)]
pub(crate) struct RegionServices {
    pub(crate) seams: Seams,
    pub(crate) files: SharedFileSystem,
    pub(crate) wal: Arc<Wal>,
    pub(crate) blocks: Arc<BlockCache>,
    pub(crate) lease: ServingLease,
    pub(crate) timestamps: TimestampClock,
    pub(crate) memstores: Arc<MemstoresTotal>,
    pub(crate) config: RegionConfig,
}

/// A region that this server owns.
pub(crate) struct Region {
    pub(crate) info: RegionInfo,
    pub(crate) encoded_name: EncodedRegionName,
    pub(crate) epoch: RegionEpoch,
    pub(crate) table: Arc<TableDescriptor>,
    shared: RegionServices,
    view: View,
    row_locks: RowLocks,
    nonces: Mutex<Nonces>,
    /// The lower bound for timestamps that the region assigns.
    timestamp_floor_ms: AtomicU64,
    /// Held by the task that flushes.
    flush_lock: tokio::sync::Mutex<flush::FlushLock>,
    /// Held by the task that compacts.
    compaction_turn: tokio::sync::Mutex<compact::CompactionTurn>,
    /// The current manifest; locked while the next one is written.
    manifest: tokio::sync::Mutex<Manifest>,
    pub(crate) requests: AtomicU64,
}

/// The size of a region.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RegionSize {
    /// The number of store files.
    pub(crate) store_files: usize,
    /// The total length of the store files, in bytes.
    pub(crate) store_file_bytes: u64,
    /// The total length of their decompressed blocks, in bytes.
    pub(crate) uncompressed_bytes: u64,
    /// The size of the memstores, in bytes.
    pub(crate) memstore_bytes: u64,
}

/// The state of the edits, which the lock protects.
struct WriteOrder {
    last: SequenceId,
    /// The last edit that went into the log.
    last_ticket: Option<Ticket>,
    /// The highest edit in the memstores that are being flushed.
    flushing: Option<SequenceId>,
    taking: Taking,
}

/// Whether a region accepts edits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Taking {
    Edits,
    /// It is being closed.
    NoneForNow,
    /// It has been closed.
    NoneEver,
}

/// The durability of a table's writes and of the files that they are written to.
fn durability_of(table: &TableDescriptor) -> Durability {
    if table.syncs_to_disk() { Durability::OnDisk } else { Durability::Replicated }
}

// === impl Region ===

impl Region {
    /// The size of its memstores and of the nonces of the same edits, in bytes.
    pub(crate) fn memstore_bytes(&self) -> u64 {
        self.view.load().memstore_bytes() + self.nonces.lock().recent_bytes()
    }

    /// The total length of its store files, in bytes.
    pub(crate) fn store_file_bytes(&self) -> u64 {
        self.view.load().store_file_bytes()
    }

    /// The size of its memstores and store files.
    pub(crate) fn size(&self) -> RegionSize {
        let snapshot = self.view.load();
        let files = || snapshot.families.values().flat_map(|family| &family.files);
        RegionSize {
            store_files: files().count(),
            store_file_bytes: snapshot.store_file_bytes(),
            uncompressed_bytes: files().map(|file| file.uncompressed_length()).sum(),
            memstore_bytes: snapshot.memstore_bytes(),
        }
    }

    /// Its store files, each with its length in bytes.
    pub(crate) fn store_files(&self) -> Vec<(PathBuf, u64)> {
        let snapshot = self.view.load();
        let files = snapshot.families.values().flat_map(|family| &family.files);
        files.map(|file| (file.path().to_owned(), file.length())).collect()
    }

    /// Waits until all edits that are in the log so far are durable, and makes them visible.
    async fn settle(&self) -> Result<SequenceId> {
        let (last, ticket) = {
            let order = self.view.lock();
            (order.last, order.last_ticket.clone())
        };
        if let Some(ticket) = ticket {
            ticket.synced().await?;
        }
        self.check_lease().await?;
        self.view.show(last);
        Ok(last)
    }

    fn check_row(&self, row: &[u8]) -> Result<()> {
        if self.info.contains(row) {
            Ok(())
        } else {
            Err(Error::WrongRegion { row: row.to_vec().into(), region: self.info.to_string() })
        }
    }
}
