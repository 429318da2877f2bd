//! The state of the NameNode and the DataNodes. Nothing here waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use basalt_fs::{
    DirectoryEntry, Durability, Error, FileSystem, MemoryFileSystem, NodeName, Result,
};
use basalt_hdfs::ReplicaState;
use basalt_model::paths;
use basalt_runtime::Random;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;

use super::{Outage, SILENT_MAX};

/// The identity of a file; it survives renames.
pub(super) type FileId = u64;
/// The index of a DataNode in [`State::nodes`].
pub(super) type NodeId = usize;
/// A writer and the number of its life.
pub(super) type Holder = (u64, u64);

/// The whole state of an HDFS.
pub(super) struct State {
    /// The namespace. The content of each file in it is its id.
    pub(super) names: MemoryFileSystem,
    pub(super) files: BTreeMap<FileId, File>,
    pub(super) nodes: Vec<DataNode>,
    pub(super) name_node: NameNode,
    pub(super) random: Random,
    /// When to search again for blocks that have lost replicas.
    pub(super) copies_at: Duration,
    /// Events that are not in the trace yet.
    pub(super) events: Vec<String>,
    now: Duration,
    lives: BTreeMap<u64, u64>,
    last_id: u64,
}

/// The NameNode.
#[derive(Debug, Default)]
pub(super) struct NameNode {
    pub(super) is_away: bool,
    pub(super) safe_mode_until: Option<Duration>,
}

/// A DataNode.
#[derive(Debug)]
pub(super) struct DataNode {
    pub(super) name: NodeName,
    pub(super) state: NodeState,
    /// When it was last heard of, if it is silent.
    pub(super) silent_since: Option<Duration>,
    /// When a DataNode that has just started will have found its replicas.
    pub(super) finds_at: Duration,
    /// When it reports its replicas; `None` once the NameNode knows them.
    pub(super) reports_at: Option<Duration>,
}

/// The state of a DataNode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NodeState {
    Up,
    /// It does nothing until it resumes. Connections to it still succeed.
    Hangs,
    Down,
}

/// A file, which is one block.
#[derive(Debug)]
pub(super) struct File {
    pub(super) holder: Holder,
    /// All bytes that its writer has sent.
    pub(super) bytes: BytesMut,
    /// Its length once it is closed.
    pub(super) closed: Option<u64>,
    /// Whether the file was taken away from its writer; the process that took it has the lease.
    pub(super) is_taken: bool,
    /// Whether it has a block. A file that is taken away before that ends empty.
    pub(super) has_block: bool,
    /// The length that the NameNode recorded while the file was open.
    pub(super) recorded: u64,
    /// The DataNodes that the NameNode lists.
    pub(super) listed: BTreeSet<NodeId>,
    pub(super) replicas: BTreeMap<NodeId, Replica>,
    pub(super) recovery: Option<Recovery>,
    /// Why its writer has given it up.
    pub(super) given_up: Option<String>,
    /// The number of bytes that were acknowledged to its writer as stored on all DataNodes.
    pub(super) acknowledged: u64,
    /// When the DataNodes will have deleted it.
    pub(super) gone_at: Option<Duration>,
}

/// The recovery of a block that the NameNode has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovery {
    pub(super) id: u64,
    /// The DataNode that will be asked to do it, in reply to its next heartbeat.
    pub(super) primary: Option<NodeId>,
    pub(super) due: Duration,
    /// From then on, a new recovery may be begun.
    pub(super) until: Duration,
}

/// A DataNode's replica of a file.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) state: ReplicaState,
    /// The number of bytes that it has.
    pub(super) length: u64,
    /// The number of bytes that would survive a power cut.
    pub(super) on_disk: u64,
    /// The number of bytes that it has acknowledged to its writer.
    pub(super) acknowledged: u64,
    /// Packets on their way from the writer.
    pub(super) coming: VecDeque<Packet>,
    /// Whether the connection to its writer has ended.
    pub(super) is_stopped: bool,
    /// The id of the recovery that it belongs to.
    pub(super) recovery: Option<u64>,
}

/// A part of a file on its way to a DataNode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) arrives: Duration,
    /// The offset of its end in the file.
    pub(super) end: u64,
    pub(super) durability: Durability,
    /// Whether the replica is final after this packet.
    pub(super) is_last: bool,
}

/// How long a DataNode that has just started takes to find its replicas.
const FINDS_AFTER_MS: std::ops::Range<u64> = 0..500;
/// How long a DataNode takes to report to a NameNode that has just started.
const REPORTS_AFTER_MS: std::ops::Range<u64> = 50..2_000;
/// How long DataNodes keep the replicas of a deleted file.
const GONE_AFTER_MS: std::ops::Range<u64> = 1_000..3_000;

// === impl State ===

impl State {
    pub(super) fn new(data_nodes: u64, random: Random) -> Self {
        let node = |number| DataNode {
            name: NodeName::new(format!("10.0.0.{}:9866", number + 1)),
            state: NodeState::Up,
            silent_since: None,
            finds_at: Duration::ZERO,
            reports_at: None,
        };
        Self {
            names: MemoryFileSystem::new(),
            files: BTreeMap::new(),
            nodes: (0..data_nodes).map(node).collect(),
            name_node: NameNode::default(),
            random,
            copies_at: Duration::ZERO,
            events: Vec::new(),
            now: Duration::ZERO,
            lives: BTreeMap::new(),
            last_id: 0,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// Processes run one after another within a tick, so a later one may be earlier on the clock.
    pub(super) fn set_now(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    pub(super) fn life(&mut self, writer: u64) -> u64 {
        *self.lives.entry(writer).or_default()
    }

    /// Fails if the process is dead: a dead process reaches nothing.
    pub(super) fn check_alive(&self, (writer, life): Holder, path: &Path) -> Result<()> {
        if self.lives.get(&writer).copied().unwrap_or_default() == life {
            return Ok(());
        }
        Err(failed(path, "reach HDFS for", "the simulated machine has crashed"))
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn is_in_safe_mode(&self) -> bool {
        self.name_node.safe_mode_until.is_some_and(|until| self.now < until)
    }

    /// A moment a random number of milliseconds from now.
    pub(super) fn in_ms(&self, range: std::ops::Range<u64>) -> Duration {
        self.now + Duration::from_millis(self.random.in_range(range))
    }

    // Faults of processes and servers.

    /// Ends the current life of a writer. On each DataNode, the bytes that it sent arrive up to a
    /// position that the seed chooses, which may be within a packet.
    pub(super) fn crash(&mut self, writer: u64) {
        let life = self.lives.entry(writer).or_default();
        let ended = (writer, *life);
        *life += 1;
        let Self { files, nodes, random, now, .. } = self;
        for file in files.values_mut().filter(|file| file.holder == ended) {
            file.settle(nodes, *now);
            for replica in file.replicas.values_mut() {
                let kept = random.in_range(0..replica.coming.len() as u64 + 1);
                replica.coming.truncate(usize::try_from(kept).unwrap_or(0));
                if let Some(last) = replica.coming.back_mut().filter(|last| !last.is_last) {
                    let begin = replica.length.min(last.end);
                    last.end = begin + random.in_range(0..last.end - begin + 1);
                }
            }
        }
    }

    /// Makes a DataNode hang or go down.
    pub(super) fn take_down(&mut self, node: u64, state: NodeState) {
        let Ok(id) = usize::try_from(node) else { return };
        self.settle_all();
        let Some(node) = self.nodes.get_mut(id).filter(|node| node.state != NodeState::Down) else {
            return;
        };
        node.state = state;
        node.silent_since.get_or_insert(self.now);
        self.events.push(format!("{} {state:?}", node.name));
        if state == NodeState::Down {
            for replica in self.files.values_mut().filter_map(|file| file.replicas.get_mut(&id)) {
                replica.coming.clear();
                replica.is_stopped = true;
                replica.recovery = None;
                if replica.state == ReplicaState::Rbw {
                    replica.state = ReplicaState::Rwr;
                }
            }
        }
    }

    /// Makes `count` DataNodes hang, among those that have the newest open log of a writer.
    pub(super) fn hang_log_nodes(&mut self, writer: u64, count: usize) {
        let logs = self.names.files_below(&paths::logs()).into_iter();
        let ids = logs.filter_map(|(_, content)| file_id(&content));
        let is_its = |id: &FileId| {
            let file = self.files.get(id);
            file.is_some_and(|file| file.holder.0 == writer && file.closed.is_none())
        };
        let newest = ids.filter(is_its).max().and_then(|id| self.files.get(&id));
        let replicas = newest.map(|file| file.replicas.keys().copied());
        let mut members: Vec<NodeId> = replicas.into_iter().flatten().collect();
        self.random.shuffle(&mut members);
        for node in members.into_iter().take(count) {
            self.take_down(node as u64, NodeState::Hangs);
        }
    }

    /// The machine of a DataNode that was just taken down loses data that was not on its disk.
    pub(super) fn cut_power(&mut self, node: u64) {
        let Ok(id) = usize::try_from(node) else { return };
        let Self { files, random, .. } = self;
        for replica in files.values_mut().filter_map(|file| file.replicas.get_mut(&id)) {
            let spared = replica.on_disk.min(replica.length);
            replica.length = spared + random.in_range(0..replica.length - spared + 1);
        }
    }

    /// Lets a DataNode resume or start.
    pub(super) fn bring_back(&mut self, node: u64, outage: Outage) {
        let Ok(id) = usize::try_from(node) else { return };
        let finds_at = self.in_ms(FINDS_AFTER_MS);
        let Some(node) = self.nodes.get_mut(id) else { return };
        match (node.state, outage) {
            (NodeState::Hangs, Outage::Hang) => {}
            (NodeState::Down, Outage::Kill | Outage::PowerCut) => {
                node.finds_at = finds_at;
                // A replica of a closed file that is too short is recognized as corrupt.
                let is_short = |file: &File, replica: &Replica| {
                    file.closed.is_some_and(|length| replica.length < length)
                };
                for file in self.files.values_mut() {
                    if file.replicas.get(&id).is_some_and(|replica| is_short(file, replica)) {
                        file.replicas.remove(&id);
                        file.listed.remove(&id);
                    }
                }
            }
            // Another fault keeps it down, or it is already back.
            _ => return,
        }
        node.state = NodeState::Up;
        node.silent_since = None;
        self.events.push(format!("{} is back", node.name));
    }

    /// Lets all hanging DataNodes resume.
    pub(super) fn let_go_on(&mut self) {
        for node in 0..self.nodes.len() as u64 {
            self.bring_back(node, Outage::Hang);
        }
    }

    /// Starts the NameNode. Its durable records are there; it knows no DataNode of an open file
    /// until that DataNode reports.
    pub(super) fn restart_name_node(&mut self, safe_mode: Duration) {
        self.name_node = NameNode { is_away: false, safe_mode_until: Some(self.now + safe_mode) };
        for file in self.files.values_mut() {
            file.recovery = None;
            if file.closed.is_none() {
                file.listed.clear();
            }
        }
        for node in 0..self.nodes.len() {
            let reports_at = self.in_ms(REPORTS_AFTER_MS);
            self.nodes[node].reports_at = Some(reports_at);
        }
        self.events.push(format!("the NameNode is back, in safe mode for {safe_mode:?}"));
    }

    pub(super) fn settle_all(&mut self) {
        let Self { files, nodes, now, .. } = self;
        for file in files.values_mut() {
            file.settle(nodes, *now);
        }
    }

    /// The file, with the bytes that have arrived by now.
    pub(super) fn file(&mut self, id: FileId) -> Option<&mut File> {
        let file = self.files.get_mut(&id)?;
        file.settle(&self.nodes, self.now);
        Some(file)
    }

    /// The file with this name, and its id.
    pub(super) fn file_at(&mut self, path: &Path) -> Result<(FileId, &mut File)> {
        let id = self.id_of(path)?;
        let file = self.file(id).ok_or_else(|| Error::NotFound { path: path.to_owned() })?;
        Ok((id, file))
    }

    // Calls of the NameNode.

    /// The id of the file with this name.
    pub(super) fn id_of(&self, path: &Path) -> Result<FileId> {
        let file = in_memory(path, self.names.open(path))?;
        let content = in_memory(path, file.read_at(0, size_of::<FileId>()))?;
        file_id(&content).ok_or_else(|| Error::NotFound { path: path.to_owned() })
    }

    pub(super) fn create(&mut self, path: &Path, holder: Holder) -> Result<FileId> {
        drop(in_memory(path, self.names.create(path))?);
        let id = self.next_id();
        self.names.put_file(path, &id.to_be_bytes());
        self.files.insert(id, File::new(holder));
        Ok(id)
    }

    pub(super) fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>> {
        let mut entries = in_memory(path, self.names.list(path))?;
        for entry in entries.iter_mut().filter(|entry| !entry.is_directory) {
            let id = self.id_of(&path.join(&entry.name))?;
            let file = self.files.get(&id);
            entry.length = file.map_or(0, |file| file.closed.unwrap_or(file.recorded));
        }
        Ok(entries)
    }

    pub(super) fn delete_file(&mut self, path: &Path) -> Result<()> {
        let id = self.id_of(path)?;
        in_memory(path, self.names.delete_file(path))?;
        self.delete(id);
        Ok(())
    }

    pub(super) fn delete_directory(&mut self, path: &Path) -> Result<()> {
        let below: Vec<PathBuf> =
            self.names.files_below(path).into_iter().map(|(path, _)| path).collect();
        for file in below {
            let id = self.id_of(&file)?;
            self.delete(id);
        }
        in_memory(path, self.names.delete_directory(path))
    }

    fn delete(&mut self, id: FileId) {
        let gone_at = self.in_ms(GONE_AFTER_MS);
        if let Some(file) = self.files.get_mut(&id) {
            file.gone_at = Some(gone_at);
        }
    }

    /// Closes a file at `length` with the replicas on the DataNodes `kept`. Other replicas are
    /// obsolete.
    pub(super) fn close(&mut self, id: FileId, length: u64, kept: &BTreeSet<NodeId>, by: &str) {
        let Some(file) = self.files.get_mut(&id) else { return };
        file.closed = Some(length);
        file.recovery = None;
        file.replicas.retain(|node, _| kept.contains(node));
        file.listed = kept.clone();
        for replica in file.replicas.values_mut() {
            replica.stop();
            replica.state = ReplicaState::Finalized;
            (replica.length, replica.recovery) = (replica.length.min(length), None);
        }
        if by != WRITER {
            let (acknowledged, nodes) = (file.acknowledged, kept.len());
            self.events.push(format!(
                "file {id} ends at {length} on {nodes} nodes, acknowledged {acknowledged}, by {by}"
            ));
        }
    }

    /// Whether this DataNode is up, and so answers calls.
    pub(super) fn answers(&self, node: NodeId) -> bool {
        self.nodes.get(node).is_some_and(|node| node.state == NodeState::Up)
    }

    pub(super) fn has_found_replicas(&self, node: NodeId) -> bool {
        self.nodes.get(node).is_some_and(|node| self.now >= node.finds_at)
    }

    /// Whether the NameNode has not heard of this DataNode for so long that it considers it dead.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        let since = self.nodes.get(node).and_then(|node| node.silent_since);
        since.is_some_and(|since| self.now.saturating_sub(since) >= SILENT_MAX)
    }

    /// Whether the NameNode knows the replicas of this DataNode.
    pub(super) fn has_reported(&self, node: NodeId) -> bool {
        self.nodes.get(node).is_some_and(|node| node.reports_at.is_none())
    }
}

/// The closer of a file that ends normally.
pub(super) const WRITER: &str = "its writer";

// === impl File ===

impl File {
    fn new(holder: Holder) -> Self {
        Self {
            holder,
            bytes: BytesMut::new(),
            closed: None,
            is_taken: false,
            has_block: false,
            recorded: 0,
            listed: BTreeSet::new(),
            replicas: BTreeMap::new(),
            recovery: None,
            given_up: None,
            acknowledged: 0,
            gone_at: None,
        }
    }

    /// Applies the packets that have arrived by `now`.
    pub(super) fn settle(&mut self, nodes: &[DataNode], now: Duration) {
        for (node, replica) in &mut self.replicas {
            if nodes.get(*node).is_some_and(|node| node.state == NodeState::Up) {
                replica.take_in(now);
            }
        }
    }

    /// The bytes from `offset` to `end`; `None` if the writer has not sent that many.
    pub(super) fn read(&self, offset: u64, end: u64) -> Option<Bytes> {
        let range = usize::try_from(offset).ok()?..usize::try_from(end).ok()?;
        self.bytes.get(range).map(Bytes::copy_from_slice)
    }
}

// === impl Replica ===

impl Replica {
    pub(super) fn new() -> Self {
        Self {
            state: ReplicaState::Rbw,
            length: 0,
            on_disk: 0,
            acknowledged: 0,
            coming: VecDeque::new(),
            is_stopped: false,
            recovery: None,
        }
    }

    fn take_in(&mut self, now: Duration) {
        while let Some(packet) = self.coming.pop_front_if(|packet| packet.arrives <= now) {
            self.length = packet.end.max(self.length);
            self.acknowledged = self.length;
            if packet.durability == Durability::OnDisk {
                self.on_disk = self.length;
            }
            if packet.is_last {
                self.state = ReplicaState::Finalized;
            }
        }
    }

    /// Whether its DataNode has restarted since it was written.
    pub(super) fn is_of_restarted(&self) -> bool {
        self.state == ReplicaState::Rwr
    }

    /// Ends the connection to its writer: no more bytes arrive.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.coming.clear();
    }
}

/// The id that a file of the namespace contains.
fn file_id(content: &[u8]) -> Option<FileId> {
    Some(FileId::from_be_bytes(content.try_into().ok()?))
}

/// The result of an operation on files in memory, which never has to wait.
pub(super) fn in_memory<T>(path: &Path, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let waits = || Err(failed(path, "look for", "files in memory have nothing to wait for"));
    answer.now_or_never().unwrap_or_else(waits)
}

/// An error of the HDFS client, as an error of the file system.
pub(super) fn failed(path: &Path, operation: &'static str, reason: impl Into<String>) -> Error {
    Error::Io { path: path.to_owned(), operation, source: io::Error::other(reason.into()) }
}
