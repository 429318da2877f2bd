//! Writes the records of many regions in few transactions: while some are in flight, the next ones
//! accumulate. A server that takes over hundreds of regions opens them all within a few
//! milliseconds, and a server that takes over a few does not make one wait for another.

use basalt_planted::{Rule, is_off};
use basalt_zk::proto::{SessionId, Stat};
use basalt_zk::{Client, Error, Op, OpResult, Result};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

/// How many writes may wait in the queue; later callers wait for room in it.
const WAITING_MAX: usize = 1024;
/// How many records one transaction holds at most. Each has a few hundred bytes, and a transaction
/// may have 512 KB.
const BATCH_MAX: usize = 256;
/// How many transactions are in flight at a time. They write different records: the writer of a
/// record waits for the outcome before it writes that record again.
const TRANSACTIONS_AT_ONCE: usize = 4;

/// The record writer of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RecordWriter {
    waiting: mpsc::Sender<Write>,
    session_id: SessionId,
}

/// A record to be written if its version still matches.
struct Write {
    path: String,
    data: Bytes,
    version: i32,
    done: oneshot::Sender<Result<Stat>>,
}

// === impl RecordWriter ===

impl RecordWriter {
    /// Starts the task that writes. It ends with the last handle.
    pub(crate) fn start(client: Client) -> Self {
        let (waiting, writes) = mpsc::channel(WAITING_MAX);
        let session_id = client.session_id();
        tokio::spawn(write_all(client, writes));
        Self { waiting, session_id }
    }

    /// Replaces the data of the node at `path`, if it has this version.
    ///
    /// # Errors
    /// The same as for [`Client::set_data`].
    pub(crate) async fn set_data(&self, path: &str, data: Bytes, version: i32) -> Result<Stat> {
        let (done, is_done) = oneshot::channel();
        let write = Write { path: path.to_owned(), data, version, done };
        let closed = || Error::Closed { session_id: self.session_id };
        self.waiting.send(write).await.map_err(|_| closed())?;
        is_done.await.map_err(|_| closed())?
    }
}

/// Writes what arrives until no handle is left and all writes have an outcome.
async fn write_all(client: Client, mut writes: mpsc::Receiver<Write>) {
    let mut under_way = FuturesUnordered::new();
    let mut batch = Vec::new();
    loop {
        let may_begin = under_way.len() < TRANSACTIONS_AT_ONCE;
        tokio::select! {
            biased;
            Some(()) = under_way.next() => {}
            received = writes.recv_many(&mut batch, BATCH_MAX), if may_begin => {
                if received == 0 {
                    break;
                }
                under_way.push(write(&client, std::mem::take(&mut batch)));
            }
        }
    }
    while under_way.next().await.is_some() {}
}

/// Writes all records in one transaction. If it is rejected, one of the records is stale, and each
/// is written separately. The same happens if the outcome is unknown: if the transaction was
/// committed, each separate write fails on its version, and its caller finds its own data in the
/// record.
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
        let condition = write.condition();
        let written = client.set_data(&write.path, write.data, condition).await;
        let _ = write.done.send(written);
    });
    futures::future::join_all(written).await;
}

// === impl Write ===

impl Write {
    fn operation(&self) -> Op {
        Op::SetData { path: self.path.clone(), data: self.data.clone(), version: self.condition() }
    }

    fn condition(&self) -> Option<i32> {
        (!is_off(Rule::RegionEpochAtOpen)).then_some(self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_fs::{MemoryFileSystem, SharedFileSystem};
    use basalt_runtime::{Seams, Shutdown};
    use basalt_zk::Options;
    use basalt_zk::proto::{CreateMode, ErrorCode};
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A client of a one-member coordinator, which stops with the guard.
    async fn client() -> (Client, tokio_util::sync::DropGuard) {
        let free_port = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("127.0.0.1:{}", listener.local_addr().unwrap().port())
        };
        let member =
            basalt_coordinator::Member { peer_address: free_port(), client_address: free_port() };
        let address = member.client_address.clone();
        let config = basalt_coordinator::Config {
            cluster: "test".to_owned(),
            member_id: 1,
            peer_listen: member.peer_address.parse().unwrap(),
            client_listen: address.parse().unwrap(),
            members: [(1, member)].into(),
            data: "/coordinator".into(),
            timers: basalt_coordinator::CoordinatorTimers::default(),
            limits: basalt_coordinator::Limits::default(),
            ready: None,
        };
        let (seams, stop) = (Seams::system(), Shutdown::new());
        let files: SharedFileSystem = Arc::new(MemoryFileSystem::new());
        tokio::spawn(basalt_coordinator::run(config, seams.clone(), files, stop.clone()));
        let options = Options { connect_timeout: Some(PATIENCE), ..Options::default() };
        let client = Client::connect(&seams, &[address], PATIENCE, options).await.unwrap();
        (client, stop.drop_guard())
    }

    #[tokio::test]
    async fn many_records_are_written_together_and_only_the_outdated_one_is_refused() {
        let (client, _stop) = client().await;
        let paths: Vec<String> = (0..50).map(|number| format!("/record-{number}")).collect();
        for path in &paths {
            client.create(path, Bytes::new(), CreateMode::Persistent).await.unwrap();
        }
        let writer = RecordWriter::start(client.clone());
        let write = async |outdated: Option<usize>, version| {
            let writes = paths.iter().enumerate().map(|(number, path)| {
                let version = if outdated == Some(number) { version + 7 } else { version };
                writer.set_data(path, Bytes::from_static(b"new"), version)
            });
            futures::future::join_all(writes).await
        };
        let together = write(None, 0).await;
        let transactions: BTreeSet<_> =
            together.iter().map(|written| written.as_ref().unwrap().mzxid).collect();
        assert!(transactions.len() < paths.len(), "{} transactions", transactions.len());
        for (number, written) in write(Some(20), 1).await.into_iter().enumerate() {
            match written {
                Ok(stat) => assert_eq!((stat.version, number == 20), (2, false)),
                Err(error) => {
                    assert_eq!((error.code(), number), (Some(ErrorCode::BadVersion), 20));
                }
            }
        }
    }
}
