//! A file that is being read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use basalt_runtime::Network;
use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::RwLock;
use tokio::time::{Instant, sleep, timeout_at};

use super::block::{BlockRange, BlockReads};
use super::connections::IdleConnections;
use crate::config::HdfsConfig;
use crate::data_node::DataNodeCalls;
use crate::error::{Error, Result};
use crate::live_nodes::LiveNodes;
use crate::name_node::NameNode;
use crate::node_health::NodeHealth;
use crate::pb;

/// Opens files; clones share connections and the knowledge about DataNodes.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    shared: Arc<FileReaderShared>,
}

#[derive(Debug)]
struct FileReaderShared {
    name_node: NameNode,
    health: NodeHealth,
    nodes: LiveNodes,
    calls: DataNodeCalls,
    reads: BlockReads,
    hedges: HedgeBudget,
}

/// A file open for reading, with its length at the time it was opened.
#[derive(Debug)]
pub(crate) struct FileReader {
    shared: Arc<FileReaderShared>,
    path: Arc<str>,
    length: u64,
    /// Sorted by offset, without gaps. Refreshed when no DataNode of a block could serve it.
    blocks: RwLock<Arc<[pb::LocatedBlock]>>,
}

// === impl Readers ===

impl Readers {
    pub(crate) fn new(
        network: &Network,
        config: &Arc<HdfsConfig>,
        name_node: NameNode,
        health: NodeHealth,
        nodes: LiveNodes,
    ) -> Self {
        let reads = BlockReads {
            network: network.clone(),
            config: Arc::clone(config),
            client_name: Arc::clone(name_node.client_name()),
            idle: IdleConnections::default(),
        };
        let calls = DataNodeCalls::new(network, config, &health, config.read_timeout);
        Self {
            shared: Arc::new(FileReaderShared {
                name_node,
                health,
                nodes,
                calls,
                reads,
                hedges: HedgeBudget::default(),
            }),
        }
    }

    /// Opens a file. If it is being written, it ends where a DataNode says that its last block
    /// ends: all acknowledged bytes are before that point, but not all bytes before it need be
    /// acknowledged.
    ///
    /// # Errors
    /// The file is missing, or no DataNode knows its last block.
    pub(crate) async fn open(&self, path: &str) -> Result<FileReader> {
        let located = self.shared.name_node.block_locations(path).await?;
        let (blocks, length) = self.shared.blocks(located).await?;
        let blocks = RwLock::new(blocks.into());
        Ok(FileReader { shared: Arc::clone(&self.shared), path: path.into(), length, blocks })
    }
}

// === impl FileReaderShared ===

impl FileReaderShared {
    /// All blocks and the length of the file in bytes.
    async fn blocks(&self, located: pb::LocatedBlocks) -> Result<(Vec<pb::LocatedBlock>, u64)> {
        let mut blocks = located.blocks;
        let mut length = located.file_length;
        if let Some(last) = located.last_block
            && !located.is_last_block_complete
        {
            let bytes = self.visible_length(&last).await?;
            length = last.offset + bytes;
            blocks.retain(|block| block.block.block_id != last.block.block_id);
            if bytes > 0 {
                let block = pb::ExtendedBlock { bytes: Some(bytes), ..last.block };
                blocks.push(pb::LocatedBlock { block, ..last });
            }
        }
        Ok((blocks, length))
    }

    /// The largest length that a DataNode reports for a block that is being written. Asks all of
    /// them at once. Once one has answered with a length, it waits only briefly for the others.
    async fn visible_length(&self, last: &pb::LocatedBlock) -> Result<u64> {
        let nodes = self.order(&last.locations);
        let asking = |node: pb::DatanodeInfo| async move {
            self.calls.visible_length(&node, &last.block).await
        };
        let mut asking: FuturesUnordered<_> = nodes.into_iter().map(asking).collect();
        // Each call has its own timeout; this deadline only becomes shorter.
        let mut deadline = Instant::now() + 2 * self.calls.timeout;
        let mut answers = Lengths { listed: last.locations.len(), ..Lengths::default() };
        while let Ok(Some(answer)) = timeout_at(deadline, asking.next()).await {
            if answers.take_in(answer) {
                deadline = deadline.min(Instant::now() + self.reads.config.hedge_after);
            }
        }
        answers.longest().map_err(|error| no_replica(last, error))
    }

    fn order(&self, nodes: &[pb::DatanodeInfo]) -> Vec<pb::DatanodeInfo> {
        self.health.order(nodes, self.nodes.own_address().as_deref())
    }

    /// Reads a range of a block from the first DataNode that has it.
    async fn read(&self, range: BlockRange<'_>) -> Result<Bytes> {
        let nodes = self.order(&range.located.locations);
        let attempt = |node: pb::DatanodeInfo| async move {
            let result = self.reads.read(&node, range).await;
            if let Err(error) = &result {
                self.health.failed(&node, error);
            }
            result
        };
        let pause = self.reads.config.hedge_after;
        self.hedges.earn();
        match first_ok(nodes.iter().cloned().map(attempt), pause, &self.hedges).await {
            Ok((winner, bytes)) => {
                nodes.iter().take(winner).for_each(|node| self.health.outrun(node));
                Ok(bytes)
            }
            Err(last) => Err(no_replica(range.located, last.unwrap_or_else(unlocated))),
        }
    }
}

/// The lengths of an open block that its DataNodes report.
#[derive(Debug, Default)]
struct Lengths {
    /// How many DataNodes the NameNode lists.
    listed: usize,
    longest: Option<u64>,
    /// How many DataNodes have no replica: the block was begun, but they have not created theirs.
    without_replica: usize,
    failed: Option<Error>,
}

// === impl Lengths ===

impl Lengths {
    /// Records an answer. Returns whether it is a length.
    fn take_in(&mut self, answer: Result<u64>) -> bool {
        match answer {
            Ok(bytes) => self.longest = self.longest.max(Some(bytes)),
            Err(error) if error.is_exception("ReplicaNotFoundException") => {
                self.without_replica += 1;
                return false;
            }
            Err(error) => {
                self.failed = Some(error);
                return false;
            }
        }
        true
    }

    /// The length of the block. It is empty only if every listed DataNode says that it has no
    /// replica. A DataNode that does not answer may have acknowledged bytes, and a block without
    /// any DataNode is one whose DataNodes have not reported to a restarted NameNode yet.
    fn longest(self) -> Result<u64> {
        match self {
            Self { longest: Some(bytes), .. } => Ok(bytes),
            Self { listed, without_replica, .. } if listed > 0 && without_replica == listed => {
                Ok(0)
            }
            Self { failed, .. } => Err(failed.unwrap_or_else(unlocated)),
        }
    }
}

fn unlocated() -> Error {
    Error::Unreachable {
        server: "any DataNode".into(),
        reason: "the NameNode knows no replica".into(),
    }
}

/// Runs attempts until one succeeds. Starts the next one whenever one has failed or `pause` has
/// passed, if `hedges` permits. Returns the number and the result of the successful attempt, or the
/// last error if all fail. The error is `None` if there were no attempts.
async fn first_ok<T>(
    attempts: impl Iterator<Item = impl Future<Output = Result<T>>>,
    pause: Duration,
    hedges: &HedgeBudget,
) -> Result<(usize, T), Option<Error>> {
    let mut attempts = attempts.enumerate().peekable();
    let mut running = FuturesUnordered::new();
    let mut last = None;
    let mut begin = true;
    loop {
        if begin {
            match attempts.next() {
                Some((number, attempt)) => {
                    running.push(attempt.map(move |result| (number, result)))
                }
                None if running.is_empty() => return Err(last),
                None => {}
            }
        }
        let answer = if attempts.peek().is_some() {
            match select(running.next(), Box::pin(sleep(pause))).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => {
                    begin = hedges.spend();
                    continue;
                }
            }
        } else {
            running.next().await
        };
        begin = true;
        match answer {
            Some((number, Ok(value))) => return Ok((number, value)),
            Some((_, Err(error))) => last = Some(error),
            None => {}
        }
    }
}

/// Limits how many reads are also sent to a second DataNode: one in ten, and some in a row. Where
/// all reads are slow, as on a machine that recovers many regions, asking twice would make them
/// even slower.
#[derive(Debug)]
struct HedgeBudget(AtomicU32);

/// The cost of a hedged read. Each read earns 1.
const HEDGE_COSTS: u32 = 10;
/// The maximum balance: 16 hedged reads may follow one another. A DataNode that was outrun once is
/// asked last for a while, so this is enough to find one that hangs.
const HEDGES_SAVED_MAX: u32 = 16 * HEDGE_COSTS;

// === impl HedgeBudget ===

impl HedgeBudget {
    fn earn(&self) {
        self.change(|saved| (saved < HEDGES_SAVED_MAX).then(|| saved + 1));
    }

    /// Pays for one hedged read. Returns false if the budget is used up.
    fn spend(&self) -> bool {
        self.change(|saved| saved.checked_sub(HEDGE_COSTS))
    }

    fn change(&self, change: impl FnMut(u32) -> Option<u32>) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self(AtomicU32::new(HEDGES_SAVED_MAX))
    }
}

fn no_replica(located: &pb::LocatedBlock, last: Error) -> Error {
    Error::NoReplica {
        block_id: located.block.block_id,
        nodes: located.locations.len(),
        last: Arc::new(last),
    }
}

// === impl FileReader ===

impl FileReader {
    /// The length when the file was opened, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads exactly `length` bytes from `offset`. The caller has checked that they are within the
    /// file.
    ///
    /// # Errors
    /// No DataNode could serve a block, even after the NameNode was asked again for its location.
    pub(crate) async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        match self.read_blocks(offset, length).await {
            Err(Error::NoReplica { .. }) => {
                let located = self.shared.name_node.block_locations(&self.path).await?;
                let (blocks, _) = self.shared.blocks(located).await?;
                *self.blocks.write() = blocks.into();
                self.read_blocks(offset, length).await
            }
            result => result,
        }
    }

    async fn read_blocks(&self, offset: u64, length: usize) -> Result<Bytes> {
        let blocks = Arc::clone(&*self.blocks.read());
        let end = offset + length as u64;
        let mut parts = Vec::new();
        for located in &*blocks {
            let block_end = located.offset + located.block.bytes();
            let (from, to) = (offset.max(located.offset), end.min(block_end));
            if from < to {
                let length = usize::try_from(to - from).unwrap_or(usize::MAX);
                let range = BlockRange { located, offset: from - located.offset, length };
                parts.push(self.shared.read(range).await?);
            }
        }
        let bytes = match <[Bytes; 1]>::try_from(parts) {
            Ok([whole]) => whole,
            Err(parts) => {
                let mut bytes = BytesMut::with_capacity(length);
                parts.iter().for_each(|part| bytes.extend_from_slice(part));
                bytes.freeze()
            }
        };
        if bytes.len() == length {
            return Ok(bytes);
        }
        // The file became shorter: its recovery removed bytes that were never acknowledged.
        let reason = format!("it ends before {end}").into();
        Err(Error::GivenUp { path: Arc::clone(&self.path), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Error {
        Error::Unreachable { server: "dn:1".into(), reason: "refused".into() }
    }

    /// Each attempt takes this many milliseconds and succeeds or not.
    async fn first_of(
        attempts: &[(u64, bool)],
    ) -> (Result<(usize, usize), Option<Error>>, Duration) {
        let started = Instant::now();
        let attempts = attempts.iter().enumerate().map(|(index, (ms, succeeds))| async move {
            sleep(Duration::from_millis(*ms)).await;
            if *succeeds { Ok(index) } else { Err(failure()) }
        });
        let result = first_ok(attempts, Duration::from_millis(50), &HedgeBudget::default()).await;
        (result, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_costs_a_short_pause_and_a_refusing_one_nothing() {
        let (first, took) = first_of(&[(10, true), (0, true)]).await;
        assert_eq!((first.unwrap(), took.as_millis()), ((0, 0), 10));
        let (second, took) = first_of(&[(10_000, true), (10, true)]).await;
        assert_eq!(second.unwrap(), (1, 1));
        assert!(took < Duration::from_millis(65), "{took:?}");
        let (second, took) = first_of(&[(1, false), (10, true)]).await;
        assert_eq!(second.unwrap(), (1, 1));
        assert!(took < Duration::from_millis(15), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_is_given_when_all_fail() {
        let (none, _) = first_of(&[(1, false), (100, false), (1, false)]).await;
        assert!(matches!(none, Err(Some(Error::Unreachable { .. }))));
        assert!(matches!(first_of(&[]).await.0, Err(None)));
    }

    /// The length of a block from the answers of its DataNodes: a length, no replica (`None`), or a
    /// failure.
    fn length_by(listed: usize, answers: &[Result<Option<u64>>]) -> Result<u64> {
        let mut lengths = Lengths { listed, ..Lengths::default() };
        for answer in answers {
            let is_length = lengths.take_in(match answer {
                Ok(Some(bytes)) => Ok(*bytes),
                Ok(None) => Err(missing_replica()),
                Err(error) => Err(error.clone()),
            });
            assert_eq!(is_length, matches!(answer, Ok(Some(_))));
        }
        lengths.longest()
    }

    fn missing_replica() -> Error {
        let class = "org.apache.hadoop.hdfs.server.datanode.ReplicaNotFoundException".into();
        Error::Remote {
            server: "dn:1".into(),
            method: "getReplicaVisibleLength",
            exception: crate::error::RemoteException { class, message: "none".into() },
        }
    }

    #[test]
    fn an_open_block_is_empty_only_if_every_data_node_says_so() {
        assert_eq!(length_by(3, &[Ok(Some(7)), Ok(None), Err(failure())]).unwrap(), 7);
        assert_eq!(length_by(3, &[Ok(Some(7)), Ok(Some(9))]).unwrap(), 9);
        assert_eq!(length_by(2, &[Ok(None), Ok(None)]).unwrap(), 0);
        assert!(length_by(0, &[]).is_err(), "its DataNodes have not reported yet");
        assert!(length_by(3, &[Ok(None), Ok(None)]).is_err(), "one has not answered");
        assert!(length_by(2, &[Ok(None), Err(failure())]).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_reads_are_slow_few_are_asked_twice() {
        let hedges = HedgeBudget::default();
        let slow = async || {
            let asked = AtomicU32::new(0);
            let attempts = (0..3).map(|_| async {
                asked.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(90)).await;
                Ok(())
            });
            hedges.earn();
            first_ok(attempts, Duration::from_millis(50), &hedges).await.unwrap();
            asked.load(Ordering::Relaxed)
        };
        let mut asked = Vec::new();
        for _ in 0..1000 {
            asked.push(slow().await);
        }
        assert!(asked[..16].iter().all(|times| *times == 2), "a few in a row are");
        let twice = asked.iter().filter(|times| **times == 2).count();
        assert!((100..=130).contains(&twice), "{twice} of 1000");
    }
}
