//! A file that is being written.
//!
//! The steps of a new block: the NameNode lists its DataNodes, each creates an empty replica and
//! accepts the first bytes, and then the NameNode records the number of these bytes (`fsync`). Only
//! after that is anything in the block acknowledged. This one call enforces two rules:
//! - The file is still ours. A process that fences it later finds the replicas and stops them. A
//!   process that fenced it earlier makes the call fail. Without the call, a writer that sleeps
//!   between the first two steps would acknowledge bytes in replicas that no fence has looked for.
//! - The block has a recorded length. A restarted NameNode knows no replica of an open block until
//!   its DataNodes report. If the lease is recovered before that, the NameNode removes a block of
//!   length 0, and with it the acknowledged bytes.

use std::sync::Arc;

use basalt_fs::Durability;
use basalt_runtime::{Seams, Shutdown};
use tokio::time::{Duration, Instant, sleep};
use tracing::debug;

use super::block::{BlockWriter, Flushed, SetUp};
use super::lease::{self, OpenFileGuard, OpenFiles};
use super::placement::{Nodes, Purpose, Replicas, wishes};
use crate::config::HdfsConfig;
use crate::error::{Error, Result};
use crate::live_nodes::LiveNodes;
use crate::name_node::NameNode;
use crate::node_health::NodeHealth;
use crate::pb;

/// Creates files; clones share connections, the lease and the knowledge about DataNodes.
#[derive(Clone, Debug)]
pub(crate) struct Writers {
    shared: Arc<FileWriterShared>,
}

#[derive(Debug)]
struct FileWriterShared {
    seams: Seams,
    config: Arc<HdfsConfig>,
    name_node: NameNode,
    health: NodeHealth,
    nodes: LiveNodes,
    open: OpenFiles,
    _stop: tokio_util::sync::DropGuard,
}

/// A file open for appending. After any failure it accepts nothing more, and it is unknown which of
/// its last bytes are on the DataNodes.
#[derive(Debug)]
pub struct FileWriter {
    shared: Arc<FileWriterShared>,
    path: Arc<str>,
    file_id: u64,
    purpose: Purpose,
    /// The block before the open one.
    previous: Option<pb::ExtendedBlock>,
    block: Option<BlockWriter>,
    /// The length of all blocks before the open one, in bytes.
    finished_bytes: u64,
    failed: Option<Error>,
    /// Which failures flushed bytes survive.
    durability: Durability,
    /// Since when the open block has fewer DataNodes than it should.
    few_copies_since: Option<Instant>,
    _open: OpenFileGuard,
}

/// The pause before the NameNode is asked again for a block after it had too few DataNodes.
const FEW_NODES_PAUSE: Duration = Duration::from_millis(200);
/// The pauses between two checks whether the file is closed; they double.
const CLOSE_PAUSE_MIN: Duration = Duration::from_millis(2);
const CLOSE_PAUSE_MAX: Duration = Duration::from_millis(100);

// === impl Writers ===

impl Writers {
    /// Starts the task that renews the lease of open files.
    pub(crate) fn new(
        seams: Seams,
        config: Arc<HdfsConfig>,
        name_node: NameNode,
        health: NodeHealth,
        nodes: LiveNodes,
    ) -> Self {
        let (open, stop) = (OpenFiles::default(), Shutdown::new());
        let renewing = lease::renew(name_node.clone(), open.clone(), config.lease_renewal);
        tokio::spawn(stop.clone().run_until_cancelled_owned(renewing));
        let _stop = stop.drop_guard();
        let shared = FileWriterShared { seams, config, name_node, health, nodes, open, _stop };
        Self { shared: Arc::new(shared) }
    }

    /// Creates a file that must not exist, in a folder that must.
    ///
    /// # Errors
    /// The NameNode rejected it.
    pub(crate) async fn create(&self, path: &str, purpose: Purpose) -> Result<FileWriter> {
        let shared = Arc::clone(&self.shared);
        let _open = shared.open.enter();
        let config = &shared.config;
        let created = shared.name_node.create(path, config.replication, config.block_bytes);
        let file_id = created.await?;
        Ok(FileWriter {
            path: path.into(),
            file_id,
            purpose,
            previous: None,
            block: None,
            finished_bytes: 0,
            failed: None,
            durability: Durability::default(),
            few_copies_since: None,
            _open,
            shared,
        })
    }
}

// === impl FileWriter ===

impl FileWriter {
    /// How many bytes have been appended.
    pub fn length(&self) -> u64 {
        self.finished_bytes + self.block.as_ref().map_or(0, BlockWriter::length)
    }

    /// Sets which failures flushed bytes survive from now on. `OnDisk` is HDFS's `hsync`, which
    /// then also applies to the ends of blocks; otherwise it is `hflush`.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The file is abandoned, now or earlier.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.guarded(async |file| file.append_to_blocks(bytes).await).await
    }

    /// Sends all appended bytes. They are on all DataNodes when [`Flushed::wait`] has returned. In
    /// the meantime more may be appended and flushed. Returns `None` if there is nothing to wait
    /// for.
    ///
    /// # Errors
    /// The file is abandoned, now or earlier.
    pub async fn flush(&mut self) -> Result<Option<Flushed>> {
        self.flush_as(self.durability).await
    }

    /// Sends all appended bytes, without any guarantee.
    ///
    /// # Errors
    /// The file is abandoned, now or earlier.
    pub(crate) async fn send(&mut self) -> Result<()> {
        self.flush_as(Durability::Replicated).await.map(drop)
    }

    async fn flush_as(&mut self, durability: Durability) -> Result<Option<Flushed>> {
        self.guarded(async |file| match &mut file.block {
            Some(block) => block.flush(durability).await.map(Some),
            None => Ok(None),
        })
        .await
    }

    /// Sends all appended bytes, and waits until they are on all DataNodes.
    ///
    /// # Errors
    /// The file is abandoned, now or earlier.
    pub async fn sync(&mut self) -> Result<()> {
        match self.flush().await? {
            Some(flushed) => self.guarded(async |_| flushed.wait().await).await,
            None => Ok(()),
        }
    }

    /// Closes the file. Repeating it does nothing.
    ///
    /// # Errors
    /// The file is abandoned, now or earlier, or the NameNode does not close it in time.
    pub async fn close(&mut self) -> Result<()> {
        self.guarded(async |file| {
            file.finish_block().await?;
            file.complete().await
        })
        .await
    }

    /// Whether the open block has had too few DataNodes for so long that the DataNodes that were
    /// avoided when it was begun may be used again.
    pub fn has_few_copies(&self) -> bool {
        let patience = self.shared.config.avoid_node_for * 2;
        self.few_copies_since.is_some_and(|since| since.elapsed() > patience)
    }

    /// Whether the file is abandoned.
    pub(crate) fn is_given_up(&self) -> bool {
        self.failed.is_some()
    }

    /// Runs `operation`. Every later call fails if it fails, or if the caller drops it before it
    /// ends: it is then unknown which bytes were sent.
    async fn guarded<T>(
        &mut self,
        operation: impl AsyncFnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let path = Arc::clone(&self.path);
        let given_up = |reason: Arc<str>| Error::GivenUp { path, reason };
        if let Some(earlier) = &self.failed {
            return Err(given_up(earlier.to_string().into()));
        }
        self.failed = Some(given_up("its caller did not wait".into()));
        let result = operation(self).await;
        self.failed = result.as_ref().err().cloned();
        result
    }

    async fn append_to_blocks(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let block_bytes = self.shared.config.block_bytes;
            if self.block.as_ref().is_some_and(|block| block.length() >= block_bytes) {
                self.finish_block().await?;
            }
            let is_new = self.block.is_none();
            if is_new {
                let block = self.begin_block().await?;
                let is_short = block.nodes() < self.shared.config.replication as usize;
                self.few_copies_since = is_short.then(Instant::now);
                self.block = Some(block);
            }
            let Some(block) = &mut self.block else {
                continue;
            };
            let room = usize::try_from(block_bytes - block.length()).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            block.append(now).await?;
            bytes = later;
            if is_new {
                block.flush(self.durability).await?.wait().await?;
                let length = block.length();
                self.shared.name_node.record_length(&self.path, self.file_id, length).await?;
            }
        }
        Ok(())
    }

    async fn finish_block(&mut self) -> Result<()> {
        if let Some(mut block) = self.block.take() {
            block.finish(self.durability).await?;
            self.finished_bytes += block.length();
            self.previous = Some(block.block());
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        let limit = self.shared.config.call_deadline;
        let deadline = Instant::now() + limit;
        let mut pause = CLOSE_PAUSE_MIN;
        let name_node = &self.shared.name_node;
        while !name_node.complete(&self.path, self.file_id, self.previous.clone()).await? {
            if Instant::now() >= deadline {
                return Err(Error::NotClosed { path: Arc::clone(&self.path), limit });
            }
            sleep(pause).await;
            pause = (pause * 2).min(CLOSE_PAUSE_MAX);
        }
        Ok(())
    }

    /// Begins the next block on DataNodes that can be reached. Nothing in it may be acknowledged
    /// before its length is recorded. If the NameNode has too few DataNodes at the moment, as right
    /// after the loss of some, it is asked again until the deadline of a call.
    async fn begin_block(&mut self) -> Result<BlockWriter> {
        let FileWriterShared { seams, config, name_node, health, .. } = &*self.shared;
        let deadline = Instant::now() + config.call_deadline;
        let mut failed: Vec<pb::DatanodeInfo> = Vec::new();
        loop {
            let located = match self.add_block(&failed).await {
                Err(Error::TooFewNodes { .. }) if Instant::now() < deadline => {
                    sleep(FEW_NODES_PAUSE).await;
                    // The failed ones may be back.
                    failed.clear();
                    continue;
                }
                added => added?,
            };
            let client_name = name_node.client_name();
            let nodes = match BlockWriter::open(
                &seams.network,
                config,
                health,
                client_name,
                &located,
            )
            .await
            {
                SetUp::Ready(block) => return Ok(block),
                SetUp::Failed(nodes) => nodes,
            };
            for (node, error) in &nodes {
                health.failed(node, error);
                failed.push(node.clone());
            }
            name_node.abandon_block(&self.path, self.file_id, located.block).await?;
            if let Some((_, error)) = nodes.into_iter().next()
                && Instant::now() >= deadline
            {
                return Err(error);
            }
        }
    }

    /// Requests a block by one wish after another, until the NameNode satisfies one.
    async fn add_block(&self, failed: &[pb::DatanodeInfo]) -> Result<pb::LocatedBlock> {
        let FileWriterShared { config, name_node, health, nodes, .. } = &*self.shared;
        let (live, troubled, suspected) = (nodes.known(), health.avoided(), health.suspected());
        let nodes = Nodes { live: &live, failed, troubled: &troubled, suspected: &suspected };
        let replicas = Replicas { wanted: config.replication as usize, min: config.replicas_min };
        let mut wishes = wishes(self.purpose, nodes, replicas);
        let last = wishes.pop().unwrap_or_default();
        let ask = |wish| name_node.add_block(&self.path, self.file_id, self.previous.clone(), wish);
        for wish in &wishes {
            match ask(wish).await {
                Ok(located) if located.locations.len() >= wish.replicas_min => {
                    return Ok(located);
                }
                Ok(located) => {
                    name_node.abandon_block(&self.path, self.file_id, located.block).await?;
                }
                Err(error) => debug!(%error, "no block on the preferred DataNodes"),
            }
        }
        let located = match ask(&last).await {
            // "could only be written to 0 of the 1 minReplication nodes"
            Err(error) if error.is_exception("IOException") => {
                debug!(%error, "the NameNode has no DataNode for a block");
                return Err(self.too_few(0));
            }
            added => added?,
        };
        if located.locations.len() < last.replicas_min {
            let nodes = located.locations.len();
            name_node.abandon_block(&self.path, self.file_id, located.block).await?;
            return Err(self.too_few(nodes));
        }
        Ok(located)
    }

    fn too_few(&self, nodes: usize) -> Error {
        let nodes_min = self.shared.config.replicas_min;
        Error::TooFewNodes { path: Arc::clone(&self.path), nodes, nodes_min }
    }
}
