//! The live DataNodes as the NameNode last reported them, and which of them is on this machine.
//!
//! The list may be a minute old. It only affects where blocks are placed and read first.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::config::Machine;
use crate::data_node::transfer_address;
use crate::error::Result;
use crate::name_node::NameNode;
use crate::pb;

/// Polls the NameNode; clones share its last answer.
#[derive(Clone, Debug)]
pub(crate) struct LiveNodes {
    machine: Option<Machine>,
    known: Arc<RwLock<Arc<Known>>>,
}

/// The last answer of the NameNode; empty before the first one.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// At most [`NODES_MAX`].
    pub(crate) nodes: Vec<pb::DatanodeInfo>,
    /// The one of them that is on our machine.
    pub(crate) own: Option<pb::DatanodeInfo>,
    /// The address of our own DataNode as it was first found, used if its position among several
    /// decided. The death of another DataNode must not make a third one ours.
    pub(crate) chosen: Option<Arc<str>>,
}

/// How many DataNodes are remembered.
const NODES_MAX: usize = 10_000;
/// How often the NameNode is asked.
const INTERVAL: Duration = Duration::from_secs(60);
/// The interval after a call that failed.
const INTERVAL_AFTER_FAILURE: Duration = Duration::from_secs(5);

// === impl LiveNodes ===

impl LiveNodes {
    /// Starts without any known DataNodes.
    pub(crate) fn new(machine: Option<Machine>) -> Self {
        Self { machine, known: Arc::default() }
    }

    /// The current list.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read())
    }

    /// The address of the live DataNode on this machine, if there is one.
    pub(crate) fn own_address(&self) -> Option<Arc<str>> {
        self.known().own.as_ref().map(transfer_address)
    }

    /// Asks the NameNode now.
    ///
    /// # Errors
    /// The NameNode does not answer.
    pub(crate) async fn look(&self, name_node: &NameNode) -> Result<()> {
        self.take_in(name_node.live_data_nodes().await?);
        Ok(())
    }

    /// Polls the NameNode. Returns immediately if this machine has no name, because then the list
    /// is not needed.
    pub(crate) async fn look_now_and_then(self, name_node: NameNode) {
        if self.machine.is_none() {
            return;
        }
        loop {
            let pause = match self.look(&name_node).await {
                Ok(()) => INTERVAL,
                Err(error) => {
                    debug!(%error, "the live DataNodes are unknown");
                    INTERVAL_AFTER_FAILURE
                }
            };
            sleep(pause).await;
        }
    }

    fn take_in(&self, mut nodes: Vec<pb::DatanodeInfo>) {
        let before = self.known();
        let own = self.machine.as_ref();
        let own = own.and_then(|machine| choose_own(&nodes, machine, before.chosen.as_deref()));
        let address = own.as_ref().map(transfer_address);
        if address != before.own.as_ref().map(transfer_address) {
            info!(own = address.as_deref(), "the DataNode on this machine");
        }
        let chosen = before.chosen.clone().or(address);
        nodes.truncate(NODES_MAX);
        *self.known.write() = Arc::new(Known { nodes, own, chosen });
    }
}

/// The DataNode on `machine`. If its position among several decides, it stays the one that was
/// `chosen` before, even if that one is dead.
fn choose_own(
    nodes: &[pb::DatanodeInfo],
    machine: &Machine,
    chosen: Option<&str>,
) -> Option<pb::DatanodeInfo> {
    let mut there: Vec<_> = nodes.iter().filter(|node| is_on(node, &machine.name)).collect();
    there.sort_by_key(|node| transfer_address(node));
    let own = match (machine.ordinal, chosen) {
        (None, _) => there.first(),
        (Some(_), Some(chosen)) => there.iter().find(|node| *transfer_address(node) == *chosen),
        (Some(ordinal), None) => there.get(ordinal.checked_rem(there.len())?),
    };
    own.map(|node| (*node).clone())
}

/// Whether `name` is an address or a host name of the DataNode, with or without its port.
fn is_on(node: &pb::DatanodeInfo, name: &str) -> bool {
    let host = &node.id.host_name;
    node.id.ip_address == name
        || host.eq_ignore_ascii_case(name)
        || *transfer_address(node) == *name
        || format!("{host}:{}", node.id.transfer_port).eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ip: &str, host: &str, port: u32) -> pb::DatanodeInfo {
        let id = pb::DatanodeId {
            ip_address: ip.to_owned(),
            host_name: host.to_owned(),
            transfer_port: port,
            ..Default::default()
        };
        pb::DatanodeInfo { id, ..Default::default() }
    }

    fn own(nodes: &[pb::DatanodeInfo], name: &str, ordinal: Option<usize>) -> Option<u32> {
        let machine = Machine { name: name.to_owned(), ordinal };
        choose_own(nodes, &machine, None).map(|node| node.id.transfer_port)
    }

    #[test]
    fn a_node_is_found_by_address_host_name_or_either_with_its_port() {
        let nodes = [node("10.0.0.1", "a.example", 1), node("10.0.0.2", "b.example", 2)];
        for name in ["10.0.0.2", "B.example", "10.0.0.2:2", "b.example:2"] {
            assert_eq!(own(&nodes, name, None), Some(2), "{name}");
        }
        assert_eq!(own(&nodes, "10.0.0.2:1", None), None);
        assert_eq!(own(&nodes, "10.0.0", None), None);
        assert_eq!(own(&[], "10.0.0.1", Some(3)), None);
    }

    #[test]
    fn several_nodes_of_a_machine_are_dealt_out_by_number() {
        let nodes = [5, 3, 4].map(|port| node("127.0.0.1", "localhost", port));
        let dealt = (0..4).map(|ordinal| own(&nodes, "127.0.0.1", Some(ordinal)));
        assert_eq!(dealt.collect::<Vec<_>>(), [3, 4, 5, 3].map(Some));
        assert_eq!(own(&nodes, "127.0.0.1", None), Some(3));
    }

    #[test]
    fn the_death_of_another_node_does_not_change_which_is_ours() {
        let machine = Machine { name: "127.0.0.1".to_owned(), ordinal: Some(1) };
        let live = LiveNodes::new(Some(machine));
        let nodes = [3, 4, 5].map(|port| node("127.0.0.1", "localhost", port));
        live.take_in(nodes.to_vec());
        assert_eq!(live.own_address().as_deref(), Some("127.0.0.1:4"));
        live.take_in(nodes[1..].to_vec());
        assert_eq!(live.own_address().as_deref(), Some("127.0.0.1:4"));
        live.take_in(nodes[..1].to_vec());
        assert_eq!(live.own_address(), None, "ours is dead");
        live.take_in(nodes.to_vec());
        assert_eq!(live.own_address().as_deref(), Some("127.0.0.1:4"));
    }
}
