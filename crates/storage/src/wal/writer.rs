//! The one task that writes the log: a batch at a time, each synced before the next.
//!
//! Invariants: at any time the newest file is open, and so locked; that lock is free only when
//! the log was closed or its process is gone. After one failed write nothing is written any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use basalt_failpoint::{Point, reached};
use basalt_fs::{AppendFile, SharedFileSystem};
use basalt_model::{ServerName, paths};
use basalt_planted::{Rule, is_off};
use basalt_runtime::{Clock, WITNESS};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::trace;

use super::error::{Error, Result};
use super::folder::log_path;
use super::header::{BATCH_HEADER_BYTES, BatchHeader, FileChecksum, FileHeader};
use super::latch::Latch;
use super::ledger::Ledger;
use super::log::{WalConfig, WalStats};
use super::queue::{Batch, Queue, Work};

/// What the writer shares with the handle of the log.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) written: Mutex<WalStats>,
    /// Set when the writer has ended.
    pub(super) ended: Latch<()>,
}

/// Makes the files of one log.
pub(super) struct FileMaker {
    pub(super) files: SharedFileSystem,
    pub(super) server: ServerName,
    pub(super) cluster_id: String,
    pub(super) clock: Clock,
    pub(super) write_timeout: Duration,
}

/// The task.
pub(super) struct Writer {
    shared: Arc<Shared>,
    maker: FileMaker,
    config: WalConfig,
    current: OpenFile,
    /// Last, so that the file is closed before anybody hears of the end.
    end: End,
}

/// Tells of the writer's end, however it comes.
struct End {
    shared: Arc<Shared>,
    /// All that was added is durable.
    clean: bool,
}

/// The file that is written.
pub(super) struct OpenFile {
    file: Box<dyn AppendFile>,
    path: PathBuf,
    number: u64,
    checksum: FileChecksum,
    /// All bytes before this offset are durable.
    synced: u64,
    /// A header in the file says that all before it is durable.
    marked: bool,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        maker: FileMaker,
        config: WalConfig,
        first: OpenFile,
    ) -> Self {
        shared.ledger.lock().open_file(first.number, first.path.clone());
        let end = End { shared: Arc::clone(&shared), clean: false };
        Self { shared, maker, config, current: first, end }
    }

    /// Writes until the log is closed. After a failure it only waits for that: the file stays
    /// locked for as long as the server may still answer somebody.
    pub(super) async fn run(mut self) {
        match self.write_until_closed().await {
            Ok(()) => {
                self.shared.ledger.lock().close_files();
                self.end.clean = true;
            }
            Err(error) => {
                self.shared.queue.refuse(&error);
                self.shared.queue.failure.set(error);
                while !self.shared.queue.next_work().await.close {}
            }
        }
    }

    async fn write_until_closed(&mut self) -> Result<()> {
        loop {
            let Work { batch, roll, close } = self.next_work().await?;
            if let Some(batch) = batch {
                self.write_batch(batch).await?;
            }
            let full = self.current.file.length() >= self.config.roll_bytes;
            if roll.is_some() || (full && !close) {
                self.roll().await.inspect_err(|error| {
                    if let Some(roll) = &roll {
                        roll.set(Err(error.clone()));
                    }
                })?;
            }
            if let Some(roll) = roll {
                roll.set(Ok(()));
            }
            if close {
                self.write_mark().await?;
                let path = self.current.path.clone();
                return within(&self.maker, &path, self.current.file.close()).await;
            }
        }
    }

    /// Waits for work. If there is none for a while, the last batch is covered by a mark.
    async fn next_work(&mut self) -> Result<Work> {
        let queue = &self.shared.queue;
        if !self.current.marked {
            match timeout(self.config.idle_before_mark, queue.next_work()).await {
                Ok(work) => return Ok(work),
                Err(_) => self.write_mark().await?,
            }
        }
        Ok(self.shared.queue.next_work().await)
    }

    async fn write_batch(&mut self, mut batch: Batch) -> Result<()> {
        let bytes = std::mem::take(&mut batch.bytes);
        let length = bytes.len() as u64;
        let number = self.current.number;
        let end = self.current.file.length() + length;
        // Before the write: nobody may flush an edit away that the ledger does not know yet.
        self.shared.ledger.lock().record(number, end, &batch.touched);
        reached(Point::LogAppend).await;
        let started = self.maker.clock.boot_time();
        let path = self.current.path.clone();
        let write = self.current.append_batch(bytes, batch.touched.len());
        within(&self.maker, &path, write)
            .await
            .inspect_err(|error| batch.outcome.set(Err(error.clone())))?;
        let took = self.maker.clock.boot_time().saturating_sub(started);
        {
            let mut written = self.shared.written.lock();
            written.batches += 1;
            written.edits += batch.touched.len() as u64;
            written.bytes += length;
            written.sync_time += took;
            written.sync_time_max = written.sync_time_max.max(took);
        }
        for touched in &batch.touched {
            let (server, region, sequence_id) =
                (&self.maker.server, touched.region, touched.sequence_id.0);
            trace!(target: WITNESS, %server, log = number, end, %region, sequence_id, "durable");
        }
        reached(Point::LogSynced).await;
        self.shared.queue.settle(&batch);
        Ok(())
    }

    /// States, behind the last batch, that it is durable. Not synced: it only has to be there when
    /// the process dies, and the next sync covers it.
    async fn write_mark(&mut self) -> Result<()> {
        if self.current.marked {
            return Ok(());
        }
        let path = self.current.path.clone();
        within(&self.maker, &path, self.current.append_mark()).await
    }

    /// Begins the next file, then lets go of this one.
    async fn roll(&mut self) -> Result<()> {
        reached(Point::LogRoll).await;
        self.write_mark().await?;
        let number = self.current.number + 1;
        let next = self.maker.make(number).await?;
        self.shared.ledger.lock().open_file(number, next.path.clone());
        // The old file is dropped: all in it is durable, and no edit waits until it is closed.
        reached(Point::LogRolled).await;
        self.current = next;
        Ok(())
    }
}

// === impl End ===

impl Drop for End {
    fn drop(&mut self) {
        let queue = &self.shared.queue;
        queue.refuse(&queue.refusal());
        if !self.clean {
            queue.failure.set(queue.refusal());
        }
        self.shared.ended.set(());
    }
}

// === impl FileMaker ===

impl FileMaker {
    /// Makes a file that counts: its header and its name are durable.
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
        let made = async {
            let folder = paths::server_logs(&self.server);
            let mut file = self.files.create(&path).await?;
            file.append_and_sync(header.freeze()).await?;
            self.files.sync_directory(&folder).await?;
            Ok(file)
        };
        let file = within(self, &path, made).await.map_err(|error| match error {
            Error::Files(files) if files.is_not_found() => {
                Error::Fenced { folder: paths::server_logs(&self.server) }
            }
            other => other,
        })?;
        let synced = file.length();
        Ok(OpenFile { file, path, number, checksum, synced, marked: true })
    }
}

/// Bounds an operation on the file system by the write timeout.
async fn within<T>(
    maker: &FileMaker,
    path: &std::path::Path,
    operation: impl Future<Output = basalt_fs::Result<T>>,
) -> Result<T> {
    match timeout(maker.write_timeout, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::TimedOut {
            path: path.to_owned(),
            limit_ms: u64::try_from(maker.write_timeout.as_millis()).unwrap_or(u64::MAX),
        }),
    }
}

// === impl OpenFile ===

impl OpenFile {
    /// Writes records, which lie behind room for their header.
    async fn append_batch(&mut self, mut bytes: BytesMut, records: usize) -> basalt_fs::Result<()> {
        let records_bytes = (bytes.len() - BATCH_HEADER_BYTES) as u64;
        let header = self.header(records_bytes, records as u32);
        bytes[..BATCH_HEADER_BYTES].copy_from_slice(&header);
        if is_off(Rule::SyncBeforeAck) {
            self.file.append(bytes.freeze()).await?;
        } else {
            self.file.append_and_sync(bytes.freeze()).await?;
        }
        self.synced = self.file.length();
        self.marked = false;
        Ok(())
    }

    /// Writes a batch without records.
    async fn append_mark(&mut self) -> basalt_fs::Result<()> {
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
