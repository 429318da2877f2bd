//! Actors besides the clients: an administrator, a stranger that sends region servers late,
//! repeated or forged orders, strangers at every port, a client that fills the coordinator's log,
//! and an observer of the feature level.

mod administrator;
mod level_observer;
mod node_writer;
mod strangers;
mod stray_orders;

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::witness::Witness;
use crate::workload::Workload;

pub use administrator::{Begin, Work};

/// The actors of a simulation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Actors {
    /// The operations that the seed chooses from for the administrator, one after the other, and
    /// when they begin.
    pub administrator: Option<(&'static [Work], Begin)>,
    /// Whether stray orders are sent.
    pub stray_orders: bool,
    /// Whether there are strangers at every port.
    pub strangers: bool,
    /// Whether a client writes a lot of data to the coordinator.
    pub node_writer: bool,
    /// Whether the feature level is compared with the levels that the servers know.
    pub level_observer: bool,
}

// === impl Actors ===

impl Actors {
    /// No actors.
    pub const NONE: Self = Self {
        administrator: None,
        stray_orders: false,
        strangers: false,
        node_writer: false,
        level_observer: false,
    };
}

/// Starts the actors of the layout.
pub(crate) fn start(cluster: &mut Cluster, workload: &Arc<Workload>, witness: &Witness) {
    let Actors { administrator, stray_orders, strangers, node_writer, level_observer } =
        cluster.plan().layout().actors;
    if let Some((works, begin)) = administrator {
        let (seen, servers) =
            ((Arc::clone(workload), witness.clone()), cluster.plan().coordinators());
        cluster.client("administrator", |seams| {
            administrator::run(seams, servers, seen, works, begin)
        });
    }
    if stray_orders {
        let (workload, servers) = (Arc::clone(workload), cluster.plan().coordinators());
        cluster.client("stray-orders", |seams| stray_orders::run(seams, servers, workload));
    }
    if level_observer {
        let (workload, servers) = (Arc::clone(workload), cluster.plan().coordinators());
        cluster.client("level-observer", |seams| level_observer::run(seams, servers, workload));
    }
    if node_writer {
        let (workload, servers) = (Arc::clone(workload), cluster.plan().coordinators());
        cluster.client("node-writer", |seams| node_writer::run(seams, servers, workload));
    }
    if strangers {
        let plan = cluster.plan();
        let (ports, peers) = (plan.ports(), plan.coordinator_peers());
        let workload = Arc::clone(workload);
        cluster.client("strangers", |seams| strangers::run(seams, ports, peers, workload));
    }
}
