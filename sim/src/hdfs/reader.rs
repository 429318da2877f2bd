//! A file that is open for reading, as in `crates/hdfs/src/read`.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use basalt_fs::{Error, ReadFile, Result};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::client::{Call, HdfsClient};
use super::state::{FileId, NodeId, NodeState, State, failed};
use super::{HANGING_PAUSE, SOCKET_TIMEOUT};

/// A file open for reading, with the length that it had when it was opened.
pub(super) struct HdfsRead {
    client: HdfsClient,
    path: PathBuf,
    id: FileId,
    length: u64,
    /// The DataNodes that the NameNode listed last.
    located: Mutex<Vec<NodeId>>,
}

/// The NameNode's answer about a file.
struct Located {
    id: FileId,
    closed: Option<u64>,
    has_block: bool,
    nodes: Vec<NodeId>,
}

// === impl HdfsRead ===

impl HdfsRead {
    /// Opens a file. A DataNode determines the length of a file that is being written.
    pub(super) async fn open(client: &HdfsClient, path: &Path) -> Result<Self> {
        let located = locate(client, path).await?;
        let Located { id, closed, has_block, nodes } = located;
        let length = match closed {
            Some(length) => length,
            None if !has_block => 0,
            None => visible_length(client, path, id, &nodes).await?,
        };
        let located = Mutex::new(nodes);
        Ok(Self { client: client.clone(), path: path.to_owned(), id, length, located })
    }

    /// Reads the bytes from any of the DataNodes that has them; `None` if all have failed.
    async fn read_from(&self, nodes: &[NodeId], offset: u64, end: u64) -> Option<Bytes> {
        let deadline = Instant::now() + SOCKET_TIMEOUT;
        loop {
            self.client.one_way().await;
            {
                let mut state = self.client.state();
                state.check_alive(self.client.holder(), &self.path).ok()?;
                let ready = nodes
                    .iter()
                    .copied()
                    .filter(|node| state.answers(*node) && state.has_found_replicas(*node));
                let ready: Vec<NodeId> = ready.collect();
                let hangs = |node: &NodeId| state.nodes[*node].state == NodeState::Hangs;
                let is_hanging = nodes.iter().any(hangs);
                let now = state.now();
                let file = state.file(self.id)?;
                if file.gone_at.is_some_and(|at| now >= at) {
                    return None;
                }
                let has_it = |node: &NodeId| {
                    file.replicas.get(node).is_some_and(|replica| replica.length >= end)
                };
                if ready.iter().any(has_it) {
                    return file.read(offset, end);
                }
                if !is_hanging || Instant::now() >= deadline {
                    return None;
                }
            }
            sleep(HANGING_PAUSE).await;
        }
    }
}

#[async_trait]
impl ReadFile for HdfsRead {
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.length);
        let Some(end) = end else {
            return Err(Error::EndOfFile { path: self.path.clone(), offset, length });
        };
        if length == 0 {
            return Ok(Bytes::new());
        }
        let nodes = self.located.lock().clone();
        if let Some(bytes) = self.read_from(&nodes, offset, end).await {
            return Ok(bytes);
        }
        let id = self.id;
        let renew = |state: &mut State| Ok(locations(state, id));
        let nodes = self.client.call(Call::Read, &self.path, "read", renew).await?;
        *self.located.lock() = nodes.clone();
        let read = self.read_from(&nodes, offset, end).await;
        let none =
            || failed(&self.path, "read", format!("none of {} DataNodes served", nodes.len()));
        read.ok_or_else(none)
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn is_far(&self) -> bool {
        true
    }
}

async fn locate(client: &HdfsClient, path: &Path) -> Result<Located> {
    let locate = |state: &mut State| {
        let (id, file) = state.file_at(path)?;
        let (closed, has_block) = (file.closed, file.has_block);
        Ok(Located { id, closed, has_block, nodes: locations(state, id) })
    };
    client.call(Call::Read, path, "open", locate).await
}

/// The DataNodes that the NameNode returns for a file.
fn locations(state: &mut State, id: FileId) -> Vec<NodeId> {
    let file = state.file(id);
    let listed: Vec<NodeId> =
        file.map(|file| file.listed.iter().copied().collect()).unwrap_or_default();
    listed.into_iter().filter(|node| state.has_reported(*node)).collect()
}

/// The largest number of bytes that any DataNode has of a block that is being written. The length
/// is 0 only if every listed DataNode answers that it has no replica.
async fn visible_length(
    client: &HdfsClient,
    path: &Path,
    id: FileId,
    nodes: &[NodeId],
) -> Result<u64> {
    let deadline = Instant::now() + 2 * SOCKET_TIMEOUT;
    loop {
        client.one_way().await;
        {
            let mut state = client.state();
            state.check_alive(client.holder(), path)?;
            let answering: Vec<NodeId> =
                nodes.iter().copied().filter(|node| state.answers(*node)).collect();
            let found: Vec<NodeId> =
                answering.iter().copied().filter(|node| state.has_found_replicas(*node)).collect();
            let hangs = |node: &NodeId| state.nodes[*node].state == NodeState::Hangs;
            let is_hanging = nodes.iter().any(hangs);
            let Some(file) = state.file(id) else {
                return Err(Error::NotFound { path: path.to_owned() });
            };
            // A DataNode that restarted does not know how much it had acknowledged. If no other one
            // does, the call fails.
            let replicas = found.iter().filter_map(|node| file.replicas.get(node));
            let known = replicas.filter(|replica| !replica.is_of_restarted());
            if let Some(longest) = known.map(|replica| replica.length).max() {
                return Ok(longest);
            }
            let has_replica = |node: &NodeId| file.replicas.contains_key(node);
            let without =
                answering.iter().filter(|node| !found.contains(node) || !has_replica(node));
            if !nodes.is_empty() && without.count() == nodes.len() {
                return Ok(0);
            }
            if !is_hanging || Instant::now() >= deadline {
                let reason = format!("none of {} DataNodes knows its length", nodes.len());
                return Err(failed(path, "open", reason));
            }
        }
        sleep(HANGING_PAUSE).await;
    }
}
