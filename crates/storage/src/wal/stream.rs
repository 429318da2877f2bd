//! Reads a file once, front to back, in windows. The next window is read while the current one is
//! processed.

use std::path::PathBuf;
use std::sync::Arc;

use basalt_fs::ReadFile;
use bytes::{Buf, Bytes, BytesMut};
use tokio_util::task::AbortOnDropHandle;

use super::error::{Error, Result};

/// How much is read at once, in bytes.
pub(super) const WINDOW_BYTES: usize = 1 << 20;

/// A position in a file, and the bytes read ahead of it.
pub(super) struct Stream {
    file: Arc<dyn ReadFile>,
    end: u64,
    position: u64,
    /// The bytes from `position` on that have been read.
    window: Bytes,
    ahead: Option<ReadAhead<Bytes>>,
    next_read: u64,
}

/// A read that runs in its own task.
pub(super) struct ReadAhead<T>(AbortOnDropHandle<basalt_fs::Result<T>>);

// === impl ReadAhead ===

impl<T: Send + 'static> ReadAhead<T> {
    pub(super) fn start(read: impl Future<Output = basalt_fs::Result<T>> + Send + 'static) -> Self {
        Self(AbortOnDropHandle::new(tokio::spawn(read)))
    }

    pub(super) async fn finish(self) -> Result<T> {
        match self.0.await {
            Ok(result) => Ok(result?),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Files(Arc::new(basalt_fs::Error::Io {
                    path: PathBuf::new(),
                    operation: "continue reading: the process is stopping",
                    source: std::io::ErrorKind::Interrupted.into(),
                }))),
            },
        }
    }
}

// === impl Stream ===

impl Stream {
    /// Reads `file` from its beginning to `end`. The file must be at least that long.
    pub(super) fn new(file: Arc<dyn ReadFile>, end: u64) -> Self {
        Self { file, end, position: 0, window: Bytes::new(), ahead: None, next_read: 0 }
    }

    /// The offset of the next bytes.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes are left before the end.
    pub(super) fn left(&self) -> u64 {
        self.end - self.position
    }

    /// The next bytes; `None` if fewer are left before the end. They share memory with the window
    /// unless they span two.
    pub(super) async fn take(&mut self, length: usize) -> Result<Option<Bytes>> {
        if length as u64 > self.left() {
            return Ok(None);
        }
        self.position += length as u64;
        if self.window.is_empty() {
            self.window = self.next_window().await?;
        }
        if length <= self.window.len() {
            return Ok(Some(self.window.split_to(length)));
        }
        let mut gathered = BytesMut::with_capacity(length);
        gathered.extend_from_slice(&self.window);
        while gathered.len() < length {
            self.window = self.next_window().await?;
            let part = self.window.len().min(length - gathered.len());
            gathered.extend_from_slice(&self.window.split_to(part));
        }
        Ok(Some(gathered.freeze()))
    }

    /// The next few bytes, copied; `None` if fewer are left before the end.
    pub(super) async fn take_array<const LENGTH: usize>(&mut self) -> Result<Option<[u8; LENGTH]>> {
        if let Some(bytes) = self.window.first_chunk().copied() {
            self.position += LENGTH as u64;
            self.window.advance(LENGTH);
            return Ok(Some(bytes));
        }
        let bytes = self.take(LENGTH).await?;
        Ok(bytes.and_then(|bytes| bytes.first_chunk().copied()))
    }

    /// Returns the next window, and begins to read the one after it. Empty at the end.
    async fn next_window(&mut self) -> Result<Bytes> {
        let ahead = self.ahead.take().or_else(|| self.read_ahead());
        let Some(ahead) = ahead else {
            return Ok(Bytes::new());
        };
        let window = ahead.finish().await?;
        self.ahead = self.read_ahead();
        Ok(window)
    }

    fn read_ahead(&mut self) -> Option<ReadAhead<Bytes>> {
        let length = (self.end - self.next_read).min(WINDOW_BYTES as u64);
        if length == 0 {
            return None;
        }
        let (file, offset) = (Arc::clone(&self.file), self.next_read);
        self.next_read += length;
        let read = async move { file.read_at(offset, length as usize).await };
        Some(ReadAhead::start(read))
    }
}
