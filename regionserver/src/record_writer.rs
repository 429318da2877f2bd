//! Writes the records of many regions in few transactions: while one is under way, the next ones
//! gather. A server that takes over hundreds of regions opens them all within a few milliseconds.

use basalt_zk::proto::{SessionId, Stat};
use basalt_zk::{Client, Error, Op, OpResult, Result};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Writes that may wait; who comes later waits too.
const WAITING_MAX: usize = 1024;
/// How many records one transaction holds at most; each has a few hundred bytes, and a transaction
/// may have 512 KB.
const BATCH_MAX: usize = 256;

/// The record writer of a server; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct RecordWriter {
    waiting: mpsc::Sender<Write>,
    session_id: SessionId,
}

/// A record to be written on condition of its version.
struct Write {
    path: String,
    data: Bytes,
    version: i32,
    done: oneshot::Sender<Result<Stat>>,
}

// === impl RecordWriter ===

impl RecordWriter {
    /// Starts the task that writes; it ends with the last handle.
    pub(crate) fn start(client: Client) -> Self {
        let (waiting, mut writes) = mpsc::channel(WAITING_MAX);
        let session_id = client.session_id();
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while writes.recv_many(&mut batch, BATCH_MAX).await > 0 {
                write(&client, std::mem::take(&mut batch)).await;
            }
        });
        Self { waiting, session_id }
    }

    /// Replaces the data of the node at `path`, if it has this version.
    ///
    /// # Errors
    /// As of [`Client::set_data`].
    pub(crate) async fn set_data(&self, path: &str, data: Bytes, version: i32) -> Result<Stat> {
        let (done, is_done) = oneshot::channel();
        let write = Write { path: path.to_owned(), data, version, done };
        let closed = || Error::Closed { session_id: self.session_id };
        self.waiting.send(write).await.map_err(|_| closed())?;
        is_done.await.map_err(|_| closed())?
    }
}

/// Writes all records in one transaction. If that is refused, one of them is out of date, and each
/// is written by itself. So it is where the outcome is unknown: what was written then is refused
/// for its version, and its writer finds its own data there.
async fn write(client: &Client, batch: Vec<Write>) {
    if batch.len() > 1 {
        let operations = batch.iter().map(Write::operation).collect();
        if let Ok(results) = client.multi(operations).await {
            for (write, result) in batch.into_iter().zip(results) {
                if let OpResult::SetData(stat) = result {
                    let _ = write.done.send(Ok(stat));
                }
            }
            return;
        }
    }
    let written = batch.into_iter().map(|write| async move {
        let written = client.set_data(&write.path, write.data, Some(write.version)).await;
        let _ = write.done.send(written);
    });
    futures::future::join_all(written).await;
}

// === impl Write ===

impl Write {
    fn operation(&self) -> Op {
        Op::SetData {
            path: self.path.clone(),
            data: self.data.clone(),
            version: Some(self.version),
        }
    }
}
