//! The files of a log: how one is created, and the one being written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use basalt_fs::{AppendFile, Durability, Durable, SharedFileSystem};
use basalt_model::{ServerName, paths};
use basalt_planted::{Rule, is_off};
use basalt_runtime::Clock;
use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::error::{Error, Result};
use super::folder::log_path;
use super::header::{BATCH_HEADER_BYTES, BatchHeader, FileChecksum, FileHeader};

/// Creates the files of one log.
pub(super) struct FileMaker {
    pub(super) files: SharedFileSystem,
    pub(super) server: ServerName,
    pub(super) cluster_id: String,
    pub(super) clock: Clock,
    pub(super) write_timeout: Duration,
    /// How many bytes of room to reserve on the disk, beyond the file's current length.
    pub(super) reserve_bytes: u64,
}

/// The file that is being written.
pub(super) struct OpenFile {
    pub(super) file: Box<dyn AppendFile>,
    pub(super) path: PathBuf,
    pub(super) number: u64,
    checksum: FileChecksum,
    /// All bytes before this offset are durable.
    pub(super) synced: u64,
    /// Room on the disk is reserved up to this offset.
    reserved: u64,
    /// Whether a header in the file states that everything before it is durable.
    pub(super) marked: bool,
}

/// How much more than the necessary room is reserved at a time.
const RESERVE_STEP_BYTES: u64 = 4 << 20;

// === impl FileMaker ===

impl FileMaker {
    /// Creates a file. Once it returns, the file's header and name are durable.
    pub(super) async fn make(&self, number: u64) -> Result<OpenFile> {
        let path = log_path(&self.server, number);
        let header = FileHeader {
            cluster_id: self.cluster_id.clone(),
            server: self.server.clone(),
            boot_id: self.files.boot_id().to_owned(),
            number,
            created_ms: self.clock.wall_ms(),
        };
        let (header, checksum) = header.encode()?;
        let reserved = self.reserve_bytes + header.len() as u64;
        let made = async {
            let folder = paths::server_logs(&self.server);
            let mut file = self.files.create_log(&path).await?;
            let begun = async {
                // Reserved first, so that a file that cannot be used never has a complete header.
                if !is_off(Rule::RoomForTheLog) {
                    file.reserve(reserved).await?;
                }
                file.append_and_sync(header.freeze()).await?;
                self.files.sync_directory(&folder).await
            };
            if let Err(error) = begun.await {
                drop(file);
                if error.is_storage_full() {
                    // If it were left behind, each attempt would use up more room.
                    let _ = self.files.delete_file(&path).await;
                }
                return Err(error);
            }
            Ok(file)
        };
        let file = within(self, &path, made).await.map_err(|error| match error {
            Error::Files(files) if files.is_not_found() => {
                Error::Fenced { folder: paths::server_logs(&self.server) }
            }
            other => other,
        })?;
        let synced = file.length();
        Ok(OpenFile { file, path, number, checksum, synced, reserved, marked: true })
    }
}

// === impl OpenFile ===

impl OpenFile {
    /// Fills in the batch header at the start of `bytes`, where room for it precedes the records.
    /// The batch must be appended at the current end of the file.
    pub(super) fn frame(&self, mut bytes: BytesMut, records: usize) -> Bytes {
        let records_bytes = (bytes.len() - BATCH_HEADER_BYTES) as u64;
        let header = self.header(records_bytes, records as u32);
        bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header);
        bytes.freeze()
    }

    /// Writes a batch from [`OpenFile::frame`], and begins to sync it.
    pub(super) async fn append_batch(
        &mut self,
        bytes: Bytes,
        durability: Durability,
    ) -> basalt_fs::Result<Durable> {
        self.marked = false;
        self.file.set_durability(durability);
        if is_off(Rule::SyncBeforeAck) {
            self.file.append(bytes).await?;
            return Ok(Durable::Now);
        }
        self.file.append_and_begin_sync(bytes).await
    }

    /// Reserves room for `bytes` more, in larger steps.
    pub(super) async fn reserve(&mut self, bytes: u64) -> basalt_fs::Result<()> {
        let length = self.file.length();
        if length + bytes > self.reserved && !is_off(Rule::RoomForTheLog) {
            self.file.reserve(bytes + RESERVE_STEP_BYTES).await?;
            self.reserved = length + bytes + RESERVE_STEP_BYTES;
        }
        Ok(())
    }

    /// Writes a commit marker: a batch without records.
    pub(super) async fn append_mark(&mut self) -> basalt_fs::Result<()> {
        let header = self.header(0, 0);
        self.file.append(Bytes::copy_from_slice(&header)).await?;
        self.marked = true;
        Ok(())
    }

    fn header(&self, records_bytes: u64, records: u32) -> [u8; BATCH_HEADER_BYTES] {
        let header =
            BatchHeader { offset: self.file.length(), synced: self.synced, records_bytes, records };
        header.encode(self.checksum)
    }
}

/// Limits an operation on the file system to the write timeout.
pub(super) async fn within<T>(
    maker: &FileMaker,
    path: &Path,
    operation: impl Future<Output = basalt_fs::Result<T>>,
) -> Result<T> {
    match timeout(maker.write_timeout, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(timed_out(path, maker.write_timeout)),
    }
}

pub(super) fn timed_out(path: &Path, limit: Duration) -> Error {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    Error::TimedOut { path: path.to_owned(), limit_ms }
}
