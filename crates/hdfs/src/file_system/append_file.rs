//! A file of an HDFS that is open for appending.
//!
//! After any failure it acknowledges nothing more. The file is ended in any case: it is closed by
//! its writer, or fenced by this process.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use basalt_fs::{AppendFile, Durability, Durable};
use bytes::Bytes;
use tracing::{info, warn};

use super::file_error;
use crate::fence::{Fence, RecoveryMethod};
use crate::write::FileWriter;

/// A file open for appending. If it is dropped without [`AppendFile::close`], it is closed in the
/// background. After a failure, this process fences its own file: the NameNode's own recovery may
/// take a heartbeat, or 30 heartbeats if it chooses a dead DataNode.
pub(super) struct HdfsAppendFile {
    pub(super) path: PathBuf,
    /// The full path, as the NameNode knows it.
    pub(super) whole: String,
    /// `None` once the file was closed or dropped.
    pub(super) writer: Option<FileWriter>,
    pub(super) length: u64,
    pub(super) fence: Fence,
}

// === impl HdfsAppendFile ===

impl HdfsAppendFile {
    /// The future that ends the file; `None` if it has ended.
    fn ending(&mut self) -> Option<impl Future<Output = bool> + Send + 'static> {
        let writer = self.writer.take()?;
        Some(end(writer, std::mem::take(&mut self.whole), self.fence.clone()))
    }

    fn writer(&mut self) -> basalt_fs::Result<&mut FileWriter> {
        self.writer.as_mut().ok_or_else(|| basalt_fs::Error::Io {
            path: self.path.clone(),
            operation: "append to",
            source: io::Error::other("it was closed"),
        })
    }
}

#[async_trait]
impl AppendFile for HdfsAppendFile {
    fn set_durability(&mut self, durability: Durability) {
        if let Some(writer) = &mut self.writer {
            writer.set_durability(durability);
        }
    }

    async fn append(&mut self, bytes: Bytes) -> basalt_fs::Result<()> {
        let path = self.path.clone();
        let writer = self.writer()?;
        let appended = async {
            writer.append(&bytes).await?;
            // Sent immediately, so that bytes that are not synced survive if only this process
            // dies.
            writer.send().await
        };
        appended.await.map_err(|error| file_error(&path, "append to", error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    async fn append_and_sync(&mut self, bytes: Bytes) -> basalt_fs::Result<()> {
        let path = self.path.clone();
        let writer = self.writer()?;
        let appended = async {
            writer.append(&bytes).await?;
            writer.sync().await
        };
        appended.await.map_err(|error| file_error(&path, "append to and sync", error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    async fn append_and_begin_sync(&mut self, bytes: Bytes) -> basalt_fs::Result<Durable> {
        let path = self.path.clone();
        let writer = self.writer()?;
        let appended = async {
            writer.append(&bytes).await?;
            writer.flush().await
        };
        let flushed =
            appended.await.map_err(|error| file_error(&path, "append to and sync", error))?;
        self.length += bytes.len() as u64;
        Ok(match flushed {
            None => Durable::Now,
            Some(flushed) => Durable::Later(Box::pin(async move {
                flushed.wait().await.map_err(|error| file_error(&path, "sync", error))
            })),
        })
    }

    async fn sync(&mut self) -> basalt_fs::Result<()> {
        let path = self.path.clone();
        let synced = self.writer()?.sync().await;
        synced.map_err(|error| file_error(&path, "sync", error))
    }

    async fn close(&mut self) -> basalt_fs::Result<()> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let closed = writer.close().await;
        closed.map_err(|error| file_error(&self.path, "close", error))?;
        self.writer = None;
        Ok(())
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn has_few_copies(&self) -> bool {
        self.writer.as_ref().is_some_and(FileWriter::has_few_copies)
    }

    async fn give_up(&mut self) -> bool {
        match self.ending() {
            Some(ending) => ending.await,
            None => true,
        }
    }
}

impl Drop for HdfsAppendFile {
    fn drop(&mut self) {
        if let Some(ending) = self.ending()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(ending);
        }
    }
}

/// Ends a file: closes it as its writer if possible, otherwise fences it. Returns whether it is
/// closed on as many DataNodes as the fence requires, or now belongs to another process.
async fn end(mut writer: FileWriter, whole: String, fence: Fence) -> bool {
    if !writer.is_given_up() && writer.close().await.is_ok() {
        return true;
    }
    drop(writer);
    match fence.fence(&whole, RecoveryMethod::TakeOverAndClose).await {
        Ok(fenced) => {
            info!(path = whole, ?fenced, "a file that was given up is fenced");
            fenced.is_closed && fenced.method != RecoveryMethod::LeaseRecovery
        }
        // Renamed with its folder, or deleted. The process that did so takes care of it.
        Err(error) if error.is_exception("FileNotFoundException") => true,
        Err(error) => {
            warn!(path = whole, %error, "a file that was given up stays open");
            false
        }
    }
}
