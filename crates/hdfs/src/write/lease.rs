//! Renews the lease under which a client holds all the files that it writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::name_node::NameNode;

/// How many files are open. Each open file holds a clone.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenFiles(Arc<AtomicUsize>);

/// Counts a file as open until it is dropped.
#[derive(Debug)]
pub(super) struct OpenFileGuard(OpenFiles);

// === impl OpenFiles ===

impl OpenFiles {
    pub(super) fn enter(&self) -> OpenFileGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenFileGuard(self.clone())
    }
}

impl Drop for OpenFileGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Renews the lease while files are open. A failure is logged and retried. Whether a file is still
/// ours is learnt from the NameNode and the DataNodes, never from a clock.
pub(super) async fn renew(name_node: NameNode, open: OpenFiles, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if open.0.load(Ordering::Relaxed) == 0 {
            continue;
        }
        if let Err(error) = name_node.renew_lease().await {
            warn!(%error, "the lease of open files was not renewed");
        }
    }
}
