//! Which DataNodes recently failed or were slow: new blocks avoid them, and reads ask them last.
//! Also determines the order in which the DataNodes of a block are asked.
//!
//! Nothing is ever rejected because of this: it only orders, and proposes what to exclude.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::data_node::transfer_address;
use crate::error::Result;
use crate::pb;

/// What is known about DataNodes; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct NodeHealth {
    troubled: Arc<Mutex<BTreeMap<Arc<str>, Trouble>>>,
    /// Until when a node is asked last, because another one answered first.
    outrun: Arc<Mutex<BTreeMap<Arc<str>, Instant>>>,
    /// Until when a node is asked last, because its machine may be gone.
    suspected: Arc<Mutex<BTreeMap<Arc<str>, Instant>>>,
    avoid_for: Duration,
}

#[derive(Clone, Debug)]
struct Trouble {
    node: pb::DatanodeInfo,
    until: Instant,
}

/// How many DataNodes are remembered.
const TROUBLED_MAX: usize = 1024;
/// How long a node that was outrun is asked last. It is short, so that a disk that was busy for a
/// moment does not send all reads over the network.
const OUTRUN_FOR: Duration = Duration::from_secs(5);
/// A node is silent if its last heartbeat is this much older than that of another node of the same
/// block, in milliseconds: slightly more than three of Hadoop's default heartbeats.
const SILENT_MS: u64 = 10_000;
/// From this admin state on, a node is retired. One that is still being decommissioned only gets no
/// new blocks.
const ADMIN_STATE_RETIRED: i32 = 2;

// === impl NodeHealth ===

impl NodeHealth {
    /// Starts empty. Entries are forgotten after `avoid_for`.
    pub(crate) fn new(avoid_for: Duration) -> Self {
        Self {
            troubled: Arc::default(),
            outrun: Arc::default(),
            suspected: Arc::default(),
            avoid_for,
        }
    }

    /// The node failed an operation.
    pub(crate) fn failed(&self, node: &pb::DatanodeInfo, reason: &dyn std::fmt::Display) {
        let address = transfer_address(node).to_string();
        counter!("basalt_hdfs_data_node_failures_total", "node" => address).increment(1);
        if self.remember(node) {
            warn!(node = %transfer_address(node), %reason, "DataNode failed; excluding it");
        }
    }

    /// The node performed an operation, but late.
    pub(crate) fn slow(&self, node: &pb::DatanodeInfo, took: Duration) {
        let address = transfer_address(node).to_string();
        counter!("basalt_hdfs_data_node_slow_total", "node" => address).increment(1);
        if self.remember(node) {
            info!(node = %transfer_address(node), ?took, "DataNode is slow; excluding it");
        }
    }

    /// Records a failure of the node if `result` is a timeout or a failed connection, so that later
    /// reads and writes need not find that out again.
    pub(crate) fn heed<T>(&self, node: &pb::DatanodeInfo, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            if error.is_silence() {
                self.failed(node, error);
            }
        })
    }

    /// The node failed, as another process reports.
    pub(crate) fn failed_elsewhere(&self, node: &pb::DatanodeInfo) {
        if self.remember(node) {
            info!(node = %transfer_address(node), "DataNode failed elsewhere; excluding it");
        }
    }

    /// A read that was sent to another node later was answered earlier.
    pub(crate) fn outrun(&self, node: &pb::DatanodeInfo) {
        let address = transfer_address(node).to_string();
        counter!("basalt_hdfs_data_node_outrun_total", "node" => address).increment(1);
        note(&self.outrun, transfer_address(node), OUTRUN_FOR);
    }

    /// The machine of the node with this address may be gone.
    pub(crate) fn suspect(&self, address: &str) {
        info!(node = address, "the machine of a DataNode may be gone; asking it last");
        note(&self.suspected, address.into(), self.avoid_for);
    }

    /// The addresses of the nodes whose machines may be gone.
    pub(crate) fn suspected(&self) -> BTreeSet<Arc<str>> {
        let now = Instant::now();
        let mut suspected = self.suspected.lock();
        suspected.retain(|_, until| *until > now);
        suspected.keys().cloned().collect()
    }

    /// The nodes that a new block should avoid.
    pub(crate) fn avoided(&self) -> Vec<pb::DatanodeInfo> {
        let now = Instant::now();
        let mut troubled = self.troubled.lock();
        troubled.retain(|_, trouble| trouble.until > now);
        troubled.values().map(|trouble| trouble.node.clone()).collect()
    }

    /// The nodes of a block in the order in which they are asked: the one at the address `own`, the
    /// others in the NameNode's order, then nodes that were outrun, that are retired, that may be
    /// gone, and that are in trouble.
    pub(crate) fn order(
        &self,
        nodes: &[pb::DatanodeInfo],
        own: Option<&str>,
    ) -> Vec<pb::DatanodeInfo> {
        let now = Instant::now();
        let (troubled, outrun) = (self.troubled.lock(), self.outrun.lock());
        let suspected = self.suspected.lock();
        let heard_ms = nodes.iter().map(|node| node.last_update()).max().unwrap_or(0);
        let mut ordered = nodes.to_vec();
        ordered.sort_by_key(|node| {
            let address = transfer_address(node);
            let is_troubled = troubled.get(&address).is_some_and(|trouble| trouble.until > now);
            let is_noted = |noted: &BTreeMap<Arc<str>, Instant>| {
                noted.get(&address).is_some_and(|until| *until > now)
            };
            let is_silent = node.last_update().saturating_add(SILENT_MS) < heard_ms;
            let may_be_gone = is_silent || is_noted(&suspected);
            let is_retired = node.admin_state() >= ADMIN_STATE_RETIRED;
            let is_own = own == Some(&*address);
            (is_troubled, may_be_gone, is_retired, is_noted(&outrun), !is_own)
        });
        ordered
    }

    /// Remembers a node. Returns false if it was already known.
    fn remember(&self, node: &pb::DatanodeInfo) -> bool {
        let mut troubled = self.troubled.lock();
        let now = Instant::now();
        if troubled.len() >= TROUBLED_MAX {
            troubled.retain(|_, trouble| trouble.until > now);
        }
        let trouble = Trouble { node: node.clone(), until: now + self.avoid_for };
        let known = troubled.insert(transfer_address(node), trouble);
        known.is_none_or(|known| known.until <= now)
    }
}

/// Records an entry for the node at `address` for a while.
fn note(noted: &Mutex<BTreeMap<Arc<str>, Instant>>, address: Arc<str>, lasts: Duration) {
    let now = Instant::now();
    let mut noted = noted.lock();
    if noted.len() >= TROUBLED_MAX {
        noted.retain(|_, until| *until > now);
    }
    if noted.len() < TROUBLED_MAX || noted.contains_key(&address) {
        noted.insert(address, now + lasts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn node(port: u32) -> pb::DatanodeInfo {
        let id = pb::DatanodeId {
            ip_address: "10.0.0.1".to_owned(),
            transfer_port: port,
            ..Default::default()
        };
        pb::DatanodeInfo { id, ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_in_trouble_is_asked_last_for_a_while() {
        let health = NodeHealth::new(Duration::from_secs(60));
        let nodes = [node(1), node(2), node(3)];
        health.failed(&nodes[0], &"refused");
        let ordered = health.order(&nodes, None);
        assert_eq!(ordered, [node(2), node(3), node(1)]);
        assert_eq!(health.avoided(), [node(1)]);
        health.outrun(&nodes[1]);
        assert_eq!(health.order(&nodes, None), [node(3), node(2), node(1)]);
        assert_eq!(health.avoided(), [node(1)], "new blocks may use one that was outrun");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(health.order(&nodes, None), nodes);
        assert_eq!(health.avoided(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_is_remembered_and_one_that_refuses_is_not() {
        let health = NodeHealth::new(Duration::from_secs(60));
        let refused = Error::Refused { server: "a".into(), status: "ERROR", message: "no".into() };
        assert!(health.heed::<()>(&node(1), Err(refused)).is_err());
        assert_eq!(health.heed(&node(1), Ok(7)).unwrap(), 7);
        assert_eq!(health.avoided(), []);
        let silent = Error::Unreachable { server: "a".into(), reason: "no route".into() };
        assert!(health.heed::<()>(&node(2), Err(silent)).is_err());
        health.failed_elsewhere(&node(3));
        assert_eq!(health.avoided(), [node(2), node(3)]);
    }

    fn ports(ordered: &[pb::DatanodeInfo]) -> Vec<u32> {
        ordered.iter().map(|node| node.id.transfer_port).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_node_is_asked_first_unless_it_is_in_trouble() {
        let health = NodeHealth::new(Duration::from_secs(60));
        let nodes = [node(1), node(2), node(3)];
        let own = Some("10.0.0.1:3");
        assert_eq!(ports(&health.order(&nodes, own)), [3, 1, 2]);
        assert_eq!(ports(&health.order(&nodes, Some("10.0.0.1:4"))), [1, 2, 3]);
        health.outrun(&nodes[2]);
        assert_eq!(ports(&health.order(&nodes, own)), [1, 2, 3]);
        tokio::time::advance(Duration::from_secs(6)).await;
        health.slow(&nodes[2], Duration::from_secs(1));
        assert_eq!(ports(&health.order(&nodes, own)), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_that_may_be_gone_are_asked_after_those_that_live() {
        let health = NodeHealth::new(Duration::from_secs(60));
        let mut nodes = [node(1), node(2), node(3), node(4)];
        nodes.iter_mut().for_each(|node| node.last_update = Some(50_000));
        nodes[0].last_update = Some(39_000);
        assert_eq!(ports(&health.order(&nodes, None)), [2, 3, 4, 1], "it is silent");
        health.suspect("10.0.0.1:3");
        assert_eq!(ports(&health.order(&nodes, None)), [2, 4, 1, 3]);
        assert_eq!(health.suspected(), BTreeSet::from(["10.0.0.1:3".into()]));
        assert_eq!(health.avoided(), [], "it may live, and is not left out for that alone");
        nodes[1].admin_state = Some(ADMIN_STATE_RETIRED);
        assert_eq!(ports(&health.order(&nodes, Some("10.0.0.1:2"))), [4, 2, 1, 3]);
        health.failed(&nodes[3], &"refused");
        assert_eq!(ports(&health.order(&nodes, None)), [2, 1, 3, 4]);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(ports(&health.order(&nodes, None)), [3, 4, 2, 1]);
        assert_eq!(health.suspected(), BTreeSet::new());
    }
}
