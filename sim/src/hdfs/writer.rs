//! A file that is being written: to all its DataNodes at once, and given up at the first failure,
//! as in `crates/hdfs/src/write`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use basalt_fs::{AppendFile, Durability, Durable, Error, Result};
use basalt_hdfs::ReplicaState;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::client::{AVOID_FOR, Call, HdfsClient};
use super::state::{File, FileId, NodeId, NodeState, Packet, Replica, State, WRITER, failed};
use super::{CALL_DEADLINE, HANGING_PAUSE, REPLICAS, REPLICAS_MIN, SOCKET_TIMEOUT, fence};

/// The purpose of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// It is read on the machine that wrote it.
    Store,
    /// It is read when the machine that wrote it is dead.
    Log,
}

/// A file open for appending. If it is dropped without being closed, it is closed in the
/// background.
pub(super) struct HdfsFile {
    /// `None` once the file is closed or dropped.
    writer: Option<Writer>,
    path: PathBuf,
    length: u64,
}

struct Writer {
    client: HdfsClient,
    path: PathBuf,
    id: FileId,
    purpose: Purpose,
    /// The DataNodes of its block, once it has one.
    pipeline: Vec<NodeId>,
    durability: Durability,
    length: u64,
    few_copies_since: Option<Instant>,
    /// Why it accepts no more data. Also set while an operation is under way, because the caller
    /// may give up.
    failed: Option<String>,
}

/// The progress of a sync.
enum Progress {
    Acknowledged,
    /// It must be checked again after this time.
    After(Duration),
}

/// How long to wait before the NameNode is asked again for a block, if it had too few DataNodes.
const FEW_NODES_PAUSE: Duration = Duration::from_millis(200);

// === impl HdfsFile ===

impl HdfsFile {
    /// Creates a file that must not exist, in a folder that must exist.
    pub(super) async fn create(client: &HdfsClient, path: &Path, purpose: Purpose) -> Result<Self> {
        let holder = client.holder();
        let create = |state: &mut State| state.create(path, holder);
        let id = client.call(Call::Change, path, "create", create).await?;
        let writer = Writer {
            client: client.clone(),
            path: path.to_owned(),
            id,
            purpose,
            pipeline: Vec::new(),
            durability: Durability::default(),
            length: 0,
            few_copies_since: None,
            failed: None,
        };
        Ok(Self { writer: Some(writer), path: path.to_owned(), length: 0 })
    }

    fn writer(&mut self) -> Result<&mut Writer> {
        self.writer.as_mut().ok_or_else(|| failed(&self.path, "append to", "it was closed"))
    }
}

#[async_trait]
impl AppendFile for HdfsFile {
    fn set_durability(&mut self, durability: Durability) {
        if let Some(writer) = &mut self.writer {
            writer.durability = durability;
        }
    }

    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        let writer = self.writer()?;
        writer.begin()?;
        let sent = writer.send(&bytes, Durability::Replicated).await;
        writer.end(sent)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        let writer = self.writer()?;
        writer.begin()?;
        let synced = writer.sync().await;
        writer.end(synced)
    }

    async fn append_and_begin_sync(&mut self, bytes: Bytes) -> Result<Durable> {
        let writer = self.writer()?;
        writer.begin()?;
        let sent = writer.send(&bytes, writer.durability).await;
        writer.end(sent)?;
        let durable = writer.acknowledgement();
        self.length += bytes.len() as u64;
        Ok(Durable::Later(Box::pin(durable)))
    }

    async fn close(&mut self) -> Result<()> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        writer.begin()?;
        let closed = writer.close().await;
        writer.end(closed)?;
        self.writer = None;
        Ok(())
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn has_few_copies(&self) -> bool {
        let since = self.writer.as_ref().and_then(|writer| writer.few_copies_since);
        since.is_some_and(|since| since.elapsed() > AVOID_FOR * 2)
    }

    async fn give_up(&mut self) -> bool {
        match self.writer.take() {
            Some(writer) => writer.end_file().await,
            None => true,
        }
    }
}

impl Drop for HdfsFile {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(writer.end_file());
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Begins an operation. If the caller gives up before [`Writer::end`], every later call fails.
    fn begin(&mut self) -> Result<()> {
        if let Some(reason) = &self.failed {
            return Err(failed(&self.path, "append to", format!("given up: {reason}")));
        }
        self.failed = Some("its caller did not wait".to_owned());
        Ok(())
    }

    fn end<T>(&mut self, result: Result<T>) -> Result<T> {
        self.failed = result.as_ref().err().map(ToString::to_string);
        result
    }

    /// Appends bytes to the file and sends them to all DataNodes.
    async fn send(&mut self, bytes: &[u8], durability: Durability) -> Result<()> {
        self.client.thawed().await;
        if bytes.is_empty() {
            return Ok(());
        }
        let is_new = self.pipeline.is_empty();
        if is_new {
            self.pipeline = self.begin_block().await?;
            let is_short = self.pipeline.len() < REPLICAS;
            self.few_copies_since = is_short.then(Instant::now);
        }
        self.length += bytes.len() as u64;
        self.transmit(bytes, durability, false)?;
        if is_new {
            self.acknowledgement().await?;
            self.record_length().await?;
        }
        Ok(())
    }

    /// Sends a packet to each DataNode.
    fn transmit(&self, bytes: &[u8], durability: Durability, is_last: bool) -> Result<()> {
        let ways: Vec<Duration> = self.pipeline.iter().map(|_| self.client.draw_way()).collect();
        let mut state = self.client.state();
        state.check_alive(self.client.holder(), &self.path)?;
        let now = state.now();
        let broken = self.pipeline.iter().find(|node| is_broken(&mut state, self.id, **node));
        if let Some(node) = broken.copied() {
            drop(state);
            return Err(self.lost(node));
        }
        let Some(file) = state.file(self.id) else { return Err(self.gone()) };
        if let Some(reason) = &file.given_up {
            return Err(failed(&self.path, "append to", format!("given up: {reason}")));
        }
        file.bytes.extend_from_slice(bytes);
        let end = file.bytes.len() as u64;
        for (node, way) in self.pipeline.iter().zip(ways) {
            let Some(replica) = file.replicas.get_mut(node) else { continue };
            let before = replica.coming.back().map_or(Duration::ZERO, |packet| packet.arrives);
            let arrives = before.max(now + way);
            replica.coming.push_back(Packet { arrives, end, durability, is_last });
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        if self.durability == Durability::OnDisk && !self.pipeline.is_empty() {
            self.transmit(&[], Durability::OnDisk, false)?;
        }
        self.acknowledgement().await
    }

    /// Returns once all DataNodes have acknowledged everything sent so far.
    fn acknowledgement(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let awaited = Awaited {
            client: self.client.clone(),
            path: self.path.clone(),
            id: self.id,
            pipeline: self.pipeline.clone(),
            end: self.length,
        };
        async move { awaited.wait().await }
    }

    /// Records the minimum length of the block at the NameNode. Fails if the file is no longer
    /// ours.
    async fn record_length(&self) -> Result<()> {
        let (id, length, path) = (self.id, self.length, &self.path);
        let record = |state: &mut State| {
            let file = held(state, id, path)?;
            file.recorded = file.recorded.max(length);
            Ok(())
        };
        self.client.call(Call::Change, path, "sync", record).await
    }

    async fn close(&mut self) -> Result<()> {
        let (id, length, path) = (self.id, self.length, self.path.clone());
        if !self.pipeline.is_empty() {
            self.acknowledgement().await?;
            self.transmit(&[], self.durability, true)?;
            self.finalized().await?;
        }
        let complete = |state: &mut State| {
            let file = held(state, id, &path)?;
            let finalized = file.replicas.iter().filter(|(_, r)| is_final(r));
            let kept = finalized.map(|(node, _)| *node).collect();
            state.close(id, length, &kept, WRITER);
            Ok(())
        };
        self.client.call(Call::Change, &path, "close", complete).await
    }

    /// Returns once all replicas are final.
    async fn finalized(&self) -> Result<()> {
        let deadline = Instant::now() + SOCKET_TIMEOUT;
        loop {
            self.client.one_way().await;
            {
                let mut state = self.client.state();
                let unfinished = self.pipeline.iter().copied().find(|node| {
                    let replica = state.file(self.id).and_then(|file| file.replicas.get(node));
                    !replica.is_some_and(is_final)
                });
                let Some(node) = unfinished else { return Ok(()) };
                let is_broken = is_broken(&mut state, self.id, node);
                drop(state);
                if is_broken || Instant::now() >= deadline {
                    return Err(self.lost(node));
                }
            }
        }
    }

    /// Begins the block on DataNodes that can be reached.
    async fn begin_block(&self) -> Result<Vec<NodeId>> {
        let deadline = Instant::now() + CALL_DEADLINE;
        let mut failed_nodes: Vec<NodeId> = Vec::new();
        loop {
            let targets = self.add_block(&failed_nodes).await?;
            if targets.len() < REPLICAS_MIN {
                if Instant::now() >= deadline {
                    let reason = format!("{} DataNodes for a new block", targets.len());
                    return Err(failed(&self.path, "append to", reason));
                }
                sleep(FEW_NODES_PAUSE).await;
                // The failed DataNodes may be back.
                failed_nodes.clear();
                continue;
            }
            let unready = self.set_up(&targets).await?;
            if unready.is_empty() {
                return Ok(targets);
            }
            for node in &unready {
                self.client.node_failed(*node);
            }
            failed_nodes.extend(unready);
            let (id, path) = (self.id, &self.path);
            let abandon = |state: &mut State| {
                let file = held(state, id, path)?;
                (file.has_block, file.listed, file.replicas) = Default::default();
                Ok(())
            };
            self.client.call(Call::Change, path, "append to", abandon).await?;
            if Instant::now() >= deadline {
                return Err(self.lost(failed_nodes.last().copied().unwrap_or(0)));
            }
        }
    }

    /// Creates the replicas if all DataNodes are ready. Returns those that are not.
    async fn set_up(&self, targets: &[NodeId]) -> Result<Vec<NodeId>> {
        let deadline = Instant::now() + SOCKET_TIMEOUT;
        loop {
            self.client.one_way().await;
            if let Some(unready) = self.try_set_up(targets, Instant::now() >= deadline)? {
                return Ok(unready);
            }
            sleep(HANGING_PAUSE).await;
        }
    }

    /// Returns `None` while a DataNode hangs, unless `is_late`.
    fn try_set_up(&self, targets: &[NodeId], is_late: bool) -> Result<Option<Vec<NodeId>>> {
        let mut state = self.client.state();
        state.check_alive(self.client.holder(), &self.path)?;
        let is_unready = |node: &NodeId| state.nodes[*node].state != NodeState::Up;
        let hangs = |node: &NodeId| state.nodes[*node].state == NodeState::Hangs;
        if !is_late && targets.iter().any(hangs) {
            return Ok(None);
        }
        let unready: Vec<NodeId> = targets.iter().copied().filter(is_unready).collect();
        if unready.is_empty()
            && let Some(file) = state.file(self.id)
            && file.closed.is_none()
        {
            file.replicas.extend(targets.iter().map(|node| (*node, Replica::new())));
        }
        Ok(Some(unready))
    }

    /// Asks the NameNode for DataNodes. Better ones are preferred, see
    /// `crates/hdfs/src/write/placement.rs`.
    async fn add_block(&self, failed: &[NodeId]) -> Result<Vec<NodeId>> {
        let (troubled, suspected) = self.client.avoided();
        let (own, id, path) = (self.client.own(), self.id, &self.path);
        let is_log = self.purpose == Purpose::Log;
        let add = |state: &mut State| {
            held(state, id, path)?;
            let live = live_nodes(state);
            let without = |excluded: &[&[NodeId]]| -> Vec<NodeId> {
                let is_in = |node: &NodeId| excluded.iter().any(|nodes| nodes.contains(node));
                live.iter().copied().filter(|node| !is_in(node)).collect()
            };
            let near: Vec<NodeId> = own.into_iter().filter(|_| is_log).collect();
            let best = without(&[failed, &troubled, &suspected, &near]);
            let good = without(&[failed, &troubled]);
            let wishes = [(best, REPLICAS), (good, REPLICAS_MIN), (without(&[failed]), 0)];
            let granted = wishes.into_iter().find(|(nodes, least)| nodes.len() >= *least);
            let mut nodes = granted.map(|(nodes, _)| nodes).unwrap_or_default();
            if let Some(place) = nodes.iter().position(|node| Some(*node) == own && !is_log) {
                nodes.swap(0, place);
            }
            nodes.truncate(REPLICAS);
            if nodes.len() >= REPLICAS_MIN {
                let file = held(state, id, path)?;
                (file.has_block, file.listed) = (true, nodes.iter().copied().collect());
            }
            Ok(nodes)
        };
        self.client.call(Call::Change, path, "append to", add).await
    }

    /// Closes the file: as its writer if possible, otherwise by fencing it. Returns whether it is
    /// closed on as many DataNodes as the fence requires, or belongs to another process now.
    async fn end_file(mut self) -> bool {
        let is_given_up = {
            let mut state = self.client.state();
            if state.check_alive(self.client.holder(), &self.path).is_err() {
                return false;
            }
            state.file(self.id).is_none_or(|file| file.given_up.is_some())
        };
        if self.failed.is_none() && !is_given_up && self.close().await.is_ok() {
            return true;
        }
        {
            let mut state = self.client.state();
            if let Some(file) = state.file(self.id) {
                file.given_up.get_or_insert_with(|| "it was dropped".to_owned());
            }
        }
        match fence::fence(&self.client, &self.path).await {
            Ok(fenced) => fenced.is_closed && !fenced.is_by_recovery,
            // Renamed with its folder, or deleted: it is up to the process that did so.
            Err(error) => error.is_not_found(),
        }
    }

    fn lost(&self, node: NodeId) -> Error {
        self.client.node_failed(node);
        lost(&self.client, &self.path, self.id, node)
    }

    fn gone(&self) -> Error {
        failed(&self.path, "append to", "FileNotFoundException: the block is gone")
    }
}

/// A sync under way.
struct Awaited {
    client: HdfsClient,
    path: PathBuf,
    id: FileId,
    pipeline: Vec<NodeId>,
    end: u64,
}

// === impl Awaited ===

impl Awaited {
    async fn wait(self) -> Result<()> {
        let sent = Instant::now();
        // The latency of the acknowledgement on its way back.
        let back = self.client.draw_way();
        loop {
            match self.look(sent)? {
                Progress::Acknowledged => break,
                Progress::After(pause) => sleep(pause).await,
            }
            self.client.thawed().await;
        }
        sleep(back).await;
        self.client.thawed().await;
        Ok(())
    }

    fn look(&self, sent: Instant) -> Result<Progress> {
        let mut state = self.client.state();
        state.check_alive(self.client.holder(), &self.path)?;
        let now = state.now();
        let Some(file) = state.file(self.id) else {
            return Err(failed(&self.path, "sync", "FileNotFoundException: the block is gone"));
        };
        if let Some(reason) = file.given_up.clone().filter(|_| file.acknowledged < self.end) {
            return Err(failed(&self.path, "sync", format!("given up: {reason}")));
        }
        let has_acknowledged = |file: &File, node: &NodeId| {
            file.replicas.get(node).is_some_and(|replica| replica.acknowledged >= self.end)
        };
        let missing: Vec<NodeId> =
            self.pipeline.iter().copied().filter(|node| !has_acknowledged(file, node)).collect();
        if missing.is_empty() {
            file.acknowledged = file.acknowledged.max(self.end);
            return Ok(Progress::Acknowledged);
        }
        let coming = missing.iter().filter_map(|node| {
            file.replicas.get(node)?.coming.iter().find(|packet| packet.end >= self.end)
        });
        let arrives = coming.map(|packet| packet.arrives).max();
        let broken = missing.iter().copied().find(|node| is_broken(&mut state, self.id, *node));
        let is_late = sent.elapsed() >= SOCKET_TIMEOUT;
        drop(state);
        if let Some(node) = broken.or(missing.first().copied().filter(|_| is_late)) {
            self.client.node_failed(node);
            return Err(lost(&self.client, &self.path, self.id, node));
        }
        let until = arrives.and_then(|at| at.checked_sub(now)).filter(|time| !time.is_zero());
        Ok(Progress::After(until.unwrap_or(HANGING_PAUSE)))
    }
}

/// The error of a writer that has lost a DataNode. From now on the file acknowledges nothing.
fn lost(client: &HdfsClient, path: &Path, id: FileId, node: NodeId) -> Error {
    let reason = format!("DataNode {node} is lost or silent");
    if let Some(file) = client.state().file(id) {
        file.given_up.get_or_insert_with(|| reason.clone());
    }
    failed(path, "append to", reason)
}

/// The file, if its writer still has the lease.
fn held<'a>(state: &'a mut State, id: FileId, path: &Path) -> Result<&'a mut File> {
    match state.file(id) {
        Some(file) if file.gone_at.is_some() => Err(Error::NotFound { path: path.to_owned() }),
        Some(file) if file.is_taken => {
            Err(failed(path, "append to", "LeaseExpiredException: it was taken from its writer"))
        }
        Some(file) => Ok(file),
        None => Err(Error::NotFound { path: path.to_owned() }),
    }
}

/// The DataNodes that the NameNode proposes, in an order that the seed chooses. It takes time until
/// the NameNode notices that a DataNode is gone.
fn live_nodes(state: &State) -> Vec<NodeId> {
    let is_live = |node: &NodeId| state.has_reported(*node) && !state.is_silent(*node);
    let mut live: Vec<NodeId> = (0..state.nodes.len()).filter(is_live).collect();
    state.random.shuffle(&mut live);
    live
}

/// Whether the connection to a DataNode has ended.
fn is_broken(state: &mut State, id: FileId, node: NodeId) -> bool {
    let is_down = state.nodes[node].state == NodeState::Down;
    let replica = state.file(id).and_then(|file| file.replicas.get(&node));
    is_down || replica.is_none_or(|replica| replica.is_stopped)
}

fn is_final(replica: &Replica) -> bool {
    replica.state == ReplicaState::Finalized
}
