//! Which DataNodes failed or were slow lately: new blocks avoid them, reads ask them last.
//!
//! Nothing is ever refused because of it: it orders, and proposes what to leave out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::data_node::transfer_address;
use crate::pb;

/// What is known of DataNodes; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct NodeHealth {
    troubled: Arc<Mutex<BTreeMap<Arc<str>, Trouble>>>,
    /// Until when a node is asked last because another one answered first.
    outrun: Arc<Mutex<BTreeMap<Arc<str>, Instant>>>,
    avoid_for: Duration,
}

#[derive(Clone, Debug)]
struct Trouble {
    node: pb::DatanodeInfo,
    until: Instant,
}

/// How many DataNodes are remembered.
const TROUBLED_MAX: usize = 1024;
/// How long a node that was outrun is asked last: a disk that was busy for a moment shall not make
/// all reads go over the network.
const OUTRUN_FOR: Duration = Duration::from_secs(5);

// === impl NodeHealth ===

impl NodeHealth {
    /// Nothing is known yet; what becomes known is forgotten after `avoid_for`.
    pub(crate) fn new(avoid_for: Duration) -> Self {
        Self { troubled: Arc::default(), outrun: Arc::default(), avoid_for }
    }

    /// The node did not do what it was asked.
    pub(crate) fn failed(&self, node: &pb::DatanodeInfo, reason: &dyn std::fmt::Display) {
        let address = transfer_address(node).to_string();
        counter!("basalt_hdfs_data_node_failures_total", "node" => address).increment(1);
        if self.remember(node) {
            warn!(node = %transfer_address(node), %reason, "DataNode failed, it is avoided");
        }
    }

    /// The node did what it was asked, late.
    pub(crate) fn slow(&self, node: &pb::DatanodeInfo, took: Duration) {
        let address = transfer_address(node).to_string();
        counter!("basalt_hdfs_data_node_slow_total", "node" => address).increment(1);
        if self.remember(node) {
            info!(node = %transfer_address(node), ?took, "DataNode is slow, it is avoided");
        }
    }

    /// The node had not answered a read when another one, asked later, had.
    pub(crate) fn outrun(&self, node: &pb::DatanodeInfo) {
        let address = transfer_address(node).to_string();
        counter!("basalt_hdfs_data_node_outrun_total", "node" => address).increment(1);
        let mut outrun = self.outrun.lock();
        let now = Instant::now();
        if outrun.len() >= TROUBLED_MAX {
            outrun.retain(|_, until| *until > now);
        }
        outrun.insert(transfer_address(node), now + OUTRUN_FOR);
    }

    /// The nodes that are better left out of a new block.
    pub(crate) fn avoided(&self) -> Vec<pb::DatanodeInfo> {
        let now = Instant::now();
        let mut troubled = self.troubled.lock();
        troubled.retain(|_, trouble| trouble.until > now);
        troubled.values().map(|trouble| trouble.node.clone()).collect()
    }

    /// The nodes in the order in which they are asked: as the NameNode gave them, but those in
    /// trouble last.
    pub(crate) fn order(&self, nodes: &[pb::DatanodeInfo]) -> Vec<pb::DatanodeInfo> {
        let now = Instant::now();
        let (troubled, outrun) = (self.troubled.lock(), self.outrun.lock());
        let mut ordered = nodes.to_vec();
        ordered.sort_by_key(|node| {
            let address = transfer_address(node);
            let is_troubled = troubled.get(&address).is_some_and(|trouble| trouble.until > now);
            let is_outrun = outrun.get(&address).is_some_and(|until| *until > now);
            (is_troubled, is_outrun)
        });
        ordered
    }

    /// Remembers a node. False: it was known already.
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let ordered = health.order(&nodes);
        assert_eq!(ordered, [node(2), node(3), node(1)]);
        assert_eq!(health.avoided(), [node(1)]);
        health.outrun(&nodes[1]);
        assert_eq!(health.order(&nodes), [node(3), node(2), node(1)]);
        assert_eq!(health.avoided(), [node(1)], "new blocks may use one that was outrun");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(health.order(&nodes), nodes);
        assert_eq!(health.avoided(), []);
    }
}
