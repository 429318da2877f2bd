//! The serving threads of a process, as its probe sees them: they can be made to stand still.

use std::sync::Arc;

use basalt_runtime::Spawn;
use futures::future::BoxFuture;
use tokio::sync::watch;

/// Whether the serving threads of a process run their tasks; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct ServingThreads(Arc<watch::Sender<bool>>);

// === impl ServingThreads ===

impl Default for ServingThreads {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl ServingThreads {
    pub(crate) fn stand_still(&self, still: bool) {
        self.0.send_replace(still);
    }
}

impl Spawn for ServingThreads {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut still = self.0.subscribe();
        tokio::spawn(async move {
            if still.wait_for(|still| !still).await.is_ok() {
                task.await;
            }
        });
    }
}
