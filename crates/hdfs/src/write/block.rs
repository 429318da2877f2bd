//! A block that is being written to all its DataNodes at once.
//!
//! Invariants: packet *n* is acknowledged once every DataNode has acknowledged it and all packets
//! before it. After the first failure nothing more is acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use basalt_fs::Durability;
use basalt_runtime::{Network, Shutdown};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};

use super::chunks::{Chunks, PacketData};
use super::node::{NodeStream, Target};
use crate::config::HdfsConfig;
use crate::error::{Error, Result};
use crate::node_health::NodeHealth;
use crate::pb;
use crate::transfer::packet::{PacketHeader, encode_packet};

/// A block that is open for appending. Dropping it closes its connections. Acknowledged data stays
/// on the DataNodes.
#[derive(Debug)]
pub(super) struct BlockWriter {
    block: pb::ExtendedBlock,
    packets: Vec<mpsc::Sender<Bytes>>,
    chunks: Chunks,
    next_sequence: i64,
    /// Whether data was sent after the last packet that synced the disks.
    is_unsynced: bool,
    progress: Arc<Progress>,
    _close: tokio_util::sync::DropGuard,
}

/// The acknowledgements of the DataNodes.
#[derive(Debug)]
pub(super) struct Progress {
    nodes: Mutex<Vec<NodeProgress>>,
    state: watch::Sender<State>,
    /// The number of packets in the block, once the last one was sent.
    packets: AtomicI64,
    health: NodeHealth,
    ack_timeout: Duration,
    slow_ack: Duration,
}

#[derive(Debug)]
struct NodeProgress {
    node: pb::DatanodeInfo,
    /// The packet that it must acknowledge next.
    next: i64,
    /// When the packets from `next` on were sent to it.
    sent: VecDeque<Instant>,
}

#[derive(Clone, Debug)]
struct State {
    /// All packets before this one are acknowledged by all DataNodes.
    acknowledged: i64,
    failed: Option<Error>,
}

/// Waits for the acknowledgement of a packet. Several may wait at the same time.
#[derive(Debug)]
pub struct Flushed {
    /// The packet, or −1 if there is nothing to wait for.
    sequence: i64,
    state: watch::Receiver<State>,
}

/// What a DataNode does with a packet besides storing it.
#[derive(Clone, Copy)]
struct PacketKind {
    /// The block ends with this packet.
    is_last: bool,
    /// The packet is acknowledged once all data up to it is on the disk.
    sync: bool,
}

const PLAIN: PacketKind = PacketKind { is_last: false, sync: false };

/// How many packets may wait to be sent to a DataNode: 8 MiB of data.
const PACKETS_MAX: usize = 32;

/// The result of creating the replicas of a block.
pub(super) enum SetUp {
    /// All DataNodes are ready.
    Ready(BlockWriter),
    /// Some DataNodes failed; the block must be abandoned.
    Failed(Vec<(pb::DatanodeInfo, Error)>),
}

// === impl BlockWriter ===

impl BlockWriter {
    /// Creates the replicas of a new block on all its DataNodes at once.
    pub(super) async fn open(
        network: &Network,
        config: &Arc<HdfsConfig>,
        health: &NodeHealth,
        client_name: &str,
        located: &pb::LocatedBlock,
    ) -> SetUp {
        let opening = located.locations.iter().enumerate().map(|(index, node)| {
            let target = Target { located, index, client_name };
            async move {
                let opened = NodeStream::open(network, config, node, target).await;
                opened.map_err(|error| (node.clone(), error))
            }
        });
        let mut opening: FuturesUnordered<_> = opening.collect();
        let (mut streams, mut failed): (Vec<NodeStream>, _) = (Vec::new(), Vec::new());
        let mut beat = interval(config.heartbeat_interval);
        loop {
            tokio::select! {
                biased;
                opened = opening.next() => match opened {
                    Some(Ok(stream)) => streams.push(stream),
                    Some(Err(node)) => failed.push(node),
                    None => break,
                },
                // The DataNodes that are ready would give up on a writer that waits for a slow one.
                _ = beat.tick() => for stream in &mut streams {
                    stream.beat(config).await;
                },
            }
        }
        if !failed.is_empty() {
            return SetUp::Failed(failed);
        }
        SetUp::Ready(Self::start(config, health, located.block.clone(), streams))
    }

    fn start(
        config: &Arc<HdfsConfig>,
        health: &NodeHealth,
        block: pb::ExtendedBlock,
        streams: Vec<NodeStream>,
    ) -> Self {
        let nodes = streams.iter().map(|stream| stream.node.clone());
        let progress = Arc::new(Progress::new(nodes, health.clone(), config));
        let close = Shutdown::new();
        let mut packets = Vec::with_capacity(streams.len());
        for (index, stream) in streams.into_iter().enumerate() {
            let (sender, receiver) = mpsc::channel(PACKETS_MAX);
            packets.push(sender);
            let (progress, config) = (Arc::clone(&progress), Arc::clone(config));
            let writing = async move {
                if let Err(error) = stream.run(index, receiver, &progress, &config).await {
                    progress.fail(index, error);
                }
            };
            let close = close.clone();
            tokio::spawn(async move {
                close.run_until_cancelled(writing).await;
            });
        }
        Self {
            block,
            packets,
            chunks: Chunks::default(),
            next_sequence: 0,
            is_unsynced: false,
            progress,
            _close: close.drop_guard(),
        }
    }

    /// The length of the block in bytes, including all appended bytes.
    pub(super) fn length(&self) -> u64 {
        self.chunks.length()
    }

    /// The number of its DataNodes.
    pub(super) fn nodes(&self) -> usize {
        self.packets.len()
    }

    /// The block as it is reported to the NameNode.
    pub(super) fn block(&self) -> pb::ExtendedBlock {
        pb::ExtendedBlock { bytes: Some(self.length()), ..self.block.clone() }
    }

    /// Appends bytes, and sends full packets. Waits while too many packets wait for a DataNode.
    ///
    /// # Errors
    /// The error that ended the block.
    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.chunks.append(bytes);
        while let Some(packet_data) = self.chunks.take_full() {
            self.send(&packet_data, PLAIN).await?;
        }
        Ok(())
    }

    /// Sends all bytes that were not sent yet. They are on all DataNodes, or on their disks, when
    /// [`Flushed::wait`] has returned.
    ///
    /// # Errors
    /// The error that ended the block.
    pub(super) async fn flush(&mut self, durability: Durability) -> Result<Flushed> {
        let sync = durability == Durability::OnDisk;
        match self.chunks.take_rest() {
            Some(packet_data) => self.send(&packet_data, PacketKind { sync, ..PLAIN }).await?,
            // All of it was sent in full packets.
            None if sync && self.is_unsynced => {
                self.send(&self.nothing(), PacketKind { sync, ..PLAIN }).await?;
            }
            None => {}
        }
        Ok(self.flushed())
    }

    /// Ends the block. Its replicas are final once all DataNodes have acknowledged that.
    ///
    /// # Errors
    /// The error that ended the block.
    pub(super) async fn finish(&mut self, durability: Durability) -> Result<()> {
        self.flush(Durability::Replicated).await?;
        let sync = durability == Durability::OnDisk;
        self.send(&self.nothing(), PacketKind { is_last: true, sync }).await?;
        self.flushed().wait().await
    }

    fn nothing(&self) -> PacketData {
        PacketData { offset: self.length(), data: Bytes::new() }
    }

    fn flushed(&self) -> Flushed {
        Flushed { sequence: self.next_sequence - 1, state: self.progress.state.subscribe() }
    }

    async fn send(&mut self, packet_data: &PacketData, kind: PacketKind) -> Result<()> {
        let sequence = self.next_sequence;
        let PacketKind { is_last, sync } = kind;
        let header = PacketHeader { offset: packet_data.offset, sequence, is_last, sync };
        let packet = encode_packet(header, &packet_data.data);
        self.progress.check()?;
        self.progress.sent(Instant::now());
        self.next_sequence += 1;
        self.is_unsynced = !sync;
        if is_last {
            self.progress.packets.store(self.next_sequence, Ordering::Release);
        }
        for sender in &self.packets {
            // Only a task that has failed, and reported it, drops its receiver.
            sender.send(packet.clone()).await.map_err(|_| self.progress.failure())?;
        }
        Ok(())
    }
}

// === impl Flushed ===

impl Flushed {
    /// Returns once all DataNodes have all bytes that were appended before the flush.
    /// Acknowledgements have timeouts, so this always ends.
    ///
    /// # Errors
    /// The error that ended the block.
    pub async fn wait(mut self) -> Result<()> {
        let sequence = self.sequence;
        let settled = |state: &State| state.acknowledged > sequence || state.failed.is_some();
        let state = self.state.wait_for(settled).await.map_err(|_| closed())?;
        match &state.failed {
            Some(error) if state.acknowledged <= sequence => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

fn closed() -> Error {
    Error::Lost { server: "all DataNodes".into(), reason: "the block was closed".into() }
}

// === impl Progress ===

impl Progress {
    pub(super) fn new(
        nodes: impl Iterator<Item = pb::DatanodeInfo>,
        health: NodeHealth,
        config: &HdfsConfig,
    ) -> Self {
        let nodes = nodes.map(|node| NodeProgress { node, next: 0, sent: VecDeque::new() });
        Self {
            nodes: Mutex::new(nodes.collect()),
            state: watch::Sender::new(State { acknowledged: 0, failed: None }),
            packets: AtomicI64::new(i64::MAX),
            health,
            ack_timeout: config.ack_timeout,
            slow_ack: config.slow_ack,
        }
    }

    /// The next packet is sent to all DataNodes.
    pub(super) fn sent(&self, now: Instant) {
        for node in &mut *self.nodes.lock() {
            node.sent.push_back(now);
        }
    }

    /// Whether an acknowledgement of the node is overdue.
    pub(super) fn is_overdue(&self, index: usize, now: Instant) -> bool {
        let nodes = self.nodes.lock();
        let oldest = nodes.get(index).and_then(|node| node.sent.front());
        oldest.is_some_and(|sent| now.saturating_duration_since(*sent) > self.ack_timeout)
    }

    /// Whether the node has acknowledged the last packet of the block.
    pub(super) fn is_done(&self, index: usize) -> bool {
        let packets = self.packets.load(Ordering::Acquire);
        self.nodes.lock().get(index).is_some_and(|node| node.next >= packets)
    }

    /// A node has acknowledged a packet.
    ///
    /// # Errors
    /// Contains the number of the packet that the node should have acknowledged.
    pub(super) fn acknowledged(&self, index: usize, sequence: i64) -> Result<(), i64> {
        let mut nodes = self.nodes.lock();
        let Some(node) = nodes.get_mut(index) else {
            return Err(0);
        };
        let expected = node.next;
        let sent = match node.sent.pop_front() {
            Some(sent) if sequence == expected => sent,
            _ => return Err(expected),
        };
        node.next += 1;
        let took = Instant::now().saturating_duration_since(sent);
        if took > self.slow_ack {
            self.health.slow(&node.node, took);
        }
        let all = nodes.iter().map(|node| node.next).min().unwrap_or(0);
        self.state.send_if_modified(|state| {
            // After a failure the file is abandoned: later acknowledgements prove nothing.
            let is_news = state.failed.is_none() && all > state.acknowledged;
            if is_news {
                state.acknowledged = all;
            }
            is_news
        });
        Ok(())
    }

    /// Records that a node has failed, and the block with it.
    pub(super) fn fail(&self, index: usize, error: Error) {
        // An abandoned block is fenced next, and then each node closes its connection.
        let is_own_fault = self.check().is_ok() || !matches!(error, Error::Lost { .. });
        if let Some(node) = self.nodes.lock().get(index)
            && is_own_fault
        {
            self.health.failed(&node.node, &error);
        }
        self.state.send_if_modified(|state| {
            let is_first = state.failed.is_none();
            state.failed.get_or_insert(error);
            is_first
        });
    }

    fn check(&self) -> Result<()> {
        self.state.borrow().failed.clone().map_or(Ok(()), Err)
    }

    fn failure(&self) -> Error {
        self.state.borrow().failed.clone().unwrap_or_else(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(nodes: usize) -> Progress {
        let config = HdfsConfig::new(vec!["nn:1".to_owned()]);
        let nodes = (1..=nodes).map(|port| {
            let id = pb::DatanodeId { transfer_port: port as u32, ..Default::default() };
            pb::DatanodeInfo { id, ..Default::default() }
        });
        Progress::new(nodes, NodeHealth::new(Duration::from_secs(60)), &config)
    }

    fn flushed(progress: &Progress, sequence: i64) -> Option<Result<()>> {
        let waiting = Flushed { sequence, state: progress.state.subscribe() }.wait();
        futures::FutureExt::now_or_never(waiting)
    }

    #[tokio::test]
    async fn a_packet_is_acknowledged_when_all_have_acknowledged_it() {
        let progress = progress(3);
        progress.sent(Instant::now());
        progress.sent(Instant::now());
        for node in [0, 1] {
            progress.acknowledged(node, 0).unwrap();
            progress.acknowledged(node, 1).unwrap();
        }
        assert!(flushed(&progress, 0).is_none(), "one is missing");
        progress.acknowledged(2, 0).unwrap();
        assert!(flushed(&progress, 0).unwrap().is_ok());
        assert!(flushed(&progress, 1).is_none());
        progress.acknowledged(2, 1).unwrap();
        assert!(flushed(&progress, 1).unwrap().is_ok());
    }

    #[tokio::test]
    async fn after_a_failure_nothing_more_is_acknowledged() {
        let progress = progress(2);
        progress.sent(Instant::now());
        progress.sent(Instant::now());
        progress.acknowledged(0, 0).unwrap();
        progress.acknowledged(1, 0).unwrap();
        progress.fail(1, closed());
        progress.acknowledged(0, 1).unwrap();
        progress.acknowledged(1, 1).unwrap();
        assert!(flushed(&progress, 0).unwrap().is_ok(), "it was acknowledged before");
        assert!(flushed(&progress, 1).unwrap().is_err());
    }

    #[tokio::test]
    async fn a_connection_that_a_fence_ends_is_no_fault_of_its_node() {
        let progress = progress(4);
        let limit = Duration::from_secs(1);
        let silent = || Error::TimedOut { server: "dn:1".into(), what: "acknowledging", limit };
        progress.fail(0, silent());
        progress.fail(1, closed());
        progress.fail(3, silent());
        let avoided = progress.health.avoided();
        let ports: Vec<_> = avoided.iter().map(|node| node.id.transfer_port).collect();
        assert_eq!(ports, [1, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn acknowledgements_come_in_order_and_in_time() {
        let progress = progress(1);
        assert_eq!(progress.acknowledged(0, 0), Err(0), "nothing was sent");
        progress.sent(Instant::now());
        assert_eq!(progress.acknowledged(0, 1), Err(0));
        progress.sent(Instant::now());
        assert!(!progress.is_overdue(0, Instant::now()));
        let later = Instant::now() + Duration::from_secs(2);
        assert!(progress.is_overdue(0, later));
    }
}
