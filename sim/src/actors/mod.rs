//! Those who act on the cluster beside its clients: an administrator, and a stranger who gives
//! region servers orders that are late, repeated or made up.

mod administrator;
mod stray_orders;

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::witness::Witness;
use crate::workload::Workload;

pub use administrator::{Begin, Work};

/// Who acts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Actors {
    /// What the administrator does, one thing after the other, each chosen by the seed, and from
    /// when on.
    pub administrator: Option<(&'static [Work], Begin)>,
    /// Whether stray orders are given.
    pub stray_orders: bool,
}

// === impl Actors ===

impl Actors {
    /// Nobody.
    pub const NONE: Self = Self { administrator: None, stray_orders: false };
}

/// Starts those that are to act.
pub(crate) fn start(cluster: &mut Cluster, workload: &Arc<Workload>, witness: &Witness) {
    let Actors { administrator, stray_orders } = cluster.plan().layout().actors;
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
}
