//! The handle of a server's log.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use basalt_fs::SharedFileSystem;
use basalt_model::{EncodedRegionName, SequenceId, ServerName, paths};
use basalt_runtime::Clock;
use parking_lot::Mutex;

use super::error::{Error, Result};
use super::listing::{Listing, LogList};
use super::open_file::FileMaker;
use super::queue::{Permit, Queue};
use super::sequence_id_accounting::SequenceIdAccounting;
use super::writer::{WalShared, Writer};

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// Once a file has reached this length, a new one begins. Default: 64 MiB, which is what one
    /// task of a recovery reads.
    pub roll_bytes: u64,
    /// The maximum bytes of edits that are reserved or not yet durable. Default: 16 MiB.
    pub queue_bytes_max: u32,
    /// After this long without an edit, the writer appends a commit marker. It states that the last
    /// edits are durable, so that damage to them cannot pass for a torn tail. Default: 20 ms.
    pub idle_before_mark: Duration,
    /// A write that takes longer fails, and the log fails with it. Default: 10 s.
    pub write_timeout: Duration,
    /// How many batches may be in flight if the file system supports several concurrent syncs.
    /// Default: 4.
    pub batches_in_flight_max: usize,
    /// How long the writer tries to replace a failed file, if the file system supports that, before
    /// the log fails. Default: 10 s.
    pub replace_timeout: Duration,
    /// Whether the server keeps a list of the files on record, see [`LogList`]. Default: no; then
    /// nothing waits for that record.
    pub is_listed: bool,
}

/// The room in a file besides that for the edits under way: for headers, commit markers, and edits
/// that are somewhat longer than announced.
const RESERVE_BYTES_BESIDE: u64 = 1 << 20;

/// Statistics of a log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WalStats {
    /// Group commits.
    pub batches: u64,
    /// Edits that became durable.
    pub edits: u64,
    /// The bytes of these edits, with headers.
    pub bytes: u64,
    /// The total time spent on writing and syncing.
    pub sync_time: Duration,
    /// The longest time that one batch took.
    pub sync_time_max: Duration,
    /// Bytes that are reserved or being written.
    pub queued_bytes: u64,
    /// Files that failed and were replaced.
    pub replaced_files: u64,
    /// Files that exist.
    pub live_files: u64,
    /// Their length in bytes.
    pub live_bytes: u64,
    /// Bytes of edits that a recovery would have to read if the server died now. Counted by file
    /// and region, so it is an upper bound.
    pub unflushed_bytes: u64,
}

/// The log of one server. Dropping it stops the writer without waiting.
pub struct Wal {
    shared: Arc<WalShared>,
    files: SharedFileSystem,
    folder: PathBuf,
}

// === impl WalConfig ===

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            roll_bytes: 64 << 20,
            queue_bytes_max: 16 << 20,
            idle_before_mark: Duration::from_millis(20),
            write_timeout: Duration::from_secs(10),
            batches_in_flight_max: 4,
            replace_timeout: Duration::from_secs(10),
            is_listed: false,
        }
    }
}

// === impl Wal ===

impl Wal {
    /// Creates the log of `server` with its first file. Once it returns, both are durable, and the
    /// server may register.
    ///
    /// # Errors
    /// [`Error::NotNew`] if a log of that name exists; [`Error::Fenced`] if the server was declared
    /// dead before its log existed.
    pub async fn create(
        files: SharedFileSystem,
        server: &ServerName,
        cluster_id: &str,
        config: WalConfig,
        clock: Clock,
    ) -> Result<Self> {
        let folder = paths::server_logs(server);
        if files.exists(&folder).await? {
            return Err(Error::NotNew { folder });
        }
        files.create_directories(&folder).await?;
        files.sync_directory(&paths::logs()).await?;
        let maker = FileMaker {
            files: Arc::clone(&files),
            server: server.clone(),
            cluster_id: cluster_id.to_owned(),
            clock,
            write_timeout: config.write_timeout,
            reserve_bytes: u64::from(config.queue_bytes_max) + RESERVE_BYTES_BESIDE,
        };
        let first = match maker.make(1).await {
            Err(Error::Files(error)) if error.is_already_exists() => {
                return Err(Error::NotNew { folder });
            }
            Err(error) if error.is_storage_full() => {
                // So that another attempt can use the same name.
                let _ = files.delete_directory(&folder).await;
                return Err(error);
            }
            made => made?,
        };
        // Checked last: a fence from now on finds the folder and renames it.
        if files.exists(&paths::fenced_logs(server)).await? {
            drop(first);
            files.delete_directory(&folder).await?;
            return Err(Error::Fenced { folder });
        }
        let shared = Arc::new(WalShared {
            queue: Queue::new(config.queue_bytes_max),
            accounting: Mutex::new(SequenceIdAccounting::default()),
            listing: Listing::new(config.is_listed),
            written: Mutex::default(),
        });
        let writer = Writer::new(Arc::clone(&shared), maker, config, first);
        tokio::spawn(writer.run());
        Ok(Self { shared, files, folder })
    }

    /// Waits until there is room for `bytes` ([`super::EncodedEdit::record_bytes`]), in the order
    /// of the calls. Call it before taking the region's lock.
    ///
    /// # Errors
    /// [`Error::NoRoom`] while the disk is full; otherwise the error that ended the log.
    pub async fn reserve(&self, bytes: usize) -> Result<Permit<'_>> {
        self.shared.queue.reserve(bytes).await
    }

    /// Waits until the log fails, and returns the cause. The server must then end itself, because
    /// it is unknown which of its last edits are durable. Never returns if the log is closed
    /// without a failure.
    pub async fn failed(&self) -> Error {
        self.shared.queue.failure.wait().await
    }

    /// Begins a new file, regardless of the length of the current one. Returns once it is in use.
    ///
    /// # Errors
    /// The error that ended the log, or that kept a new file from being created; [`Error::Fenced`]
    /// if the log's folder was renamed.
    pub async fn roll(&self) -> Result<()> {
        let outcome = self.shared.queue.ask_roll();
        tokio::select! {
            biased;
            result = outcome.wait() => result,
            () = self.shared.queue.ended.wait() => Err(self.shared.queue.refusal()),
        }
    }

    /// Reports that all edits of `region` up to `sequence_id` are in store files that a manifest
    /// names.
    pub fn flushed(&self, region: EncodedRegionName, sequence_id: SequenceId) {
        self.shared.accounting.lock().flushed(region, sequence_id);
        self.shared.listing.change();
    }

    /// The files that must not vanish; this is the list to put on record.
    pub fn list(&self) -> LogList {
        self.shared.accounting.lock().list()
    }

    /// Waits until [`Wal::list`] may have changed. Supports only one caller.
    pub async fn list_changed(&self) {
        self.shared.listing.changed().await;
    }

    /// Reports that `list` is on record, and that no older one can replace it. The files that it
    /// names may take edits, and those that it does not name may be deleted.
    pub fn listed(&self, list: LogList) {
        self.shared.listing.record(list);
    }

    /// Reports that all edits of `region` are in store files that a manifest names, because the
    /// region was closed cleanly.
    pub fn forget_region(&self, region: EncodedRegionName) {
        self.flushed(region, SequenceId(u64::MAX));
    }

    /// Deletes the files whose edits have all been flushed and that the recorded list does not
    /// name. Returns how many were deleted. Call it after flushes; it delays no edit.
    ///
    /// # Errors
    /// [`Error::Fenced`] if the files are missing; the log will fail as soon as it needs a new
    /// file.
    pub async fn delete_obsolete(&self) -> Result<usize> {
        let mut deleted = 0;
        loop {
            let is_released = |number| self.shared.listing.is_released(number);
            let obsolete = self.shared.accounting.lock().take_obsolete(is_released);
            let Some((number, path)) = obsolete else {
                return Ok(deleted);
            };
            let result = self.files.delete_file(&path).await;
            let mut accounting = self.shared.accounting.lock();
            match result {
                Ok(()) => accounting.deleted(number),
                Err(error) => {
                    accounting.not_deleted(number);
                    return Err(self.or_fenced(error));
                }
            }
            deleted += 1;
        }
    }

    /// The regions that must be flushed for at most `files_max` files to be needed.
    pub fn oldest_needing_flush(&self, files_max: usize) -> Vec<EncodedRegionName> {
        self.shared.accounting.lock().oldest_needing_flush(files_max)
    }

    /// The regions to flush soon. Some of their edits are in a file that failed and has too few
    /// copies to survive the loss of another machine.
    pub fn lacking_copies(&self) -> BTreeSet<EncodedRegionName> {
        self.shared.accounting.lock().lacking_copies()
    }

    /// Statistics for metrics and for the pace of flushing.
    pub fn stats(&self) -> WalStats {
        let written = *self.shared.written.lock();
        let accounting = self.shared.accounting.lock();
        WalStats {
            queued_bytes: self.shared.queue.queued_bytes() as u64,
            live_files: accounting.files() as u64,
            live_bytes: accounting.bytes(),
            unflushed_bytes: accounting.unflushed_bytes(),
            ..written
        }
    }

    /// Writes all pending edits and closes the last file. This releases the file's lock, which
    /// others treat as proof that this process is gone: the server must have stopped answering
    /// before.
    ///
    /// # Errors
    /// The error that ended the log before.
    pub async fn close(&self) -> Result<()> {
        self.shared.queue.ask_close();
        self.shared.queue.ended.wait().await;
        match self.shared.queue.failure.get() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn or_fenced(&self, error: basalt_fs::Error) -> Error {
        let folder = self.folder.clone();
        if error.is_not_found() { Error::Fenced { folder } } else { error.into() }
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Wal({})", self.folder.display())
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shared.queue.ask_close();
    }
}
