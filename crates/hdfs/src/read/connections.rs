//! Connections to DataNodes that are kept for the next read. A DataNode accepts several requests on
//! one connection, and waits 4 s for the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_runtime::Connection as Stream;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Connections that are currently unused.
#[derive(Default)]
pub(super) struct IdleConnections(Mutex<BTreeMap<Arc<str>, Vec<Idle>>>);

/// A connection, and since when it is unused.
type Idle = (Instant, Stream);

/// How long a connection is kept: less than a DataNode waits.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// How many are kept to one DataNode.
const IDLE_PER_NODE_MAX: usize = 8;

// === impl IdleConnections ===

impl IdleConnections {
    /// Takes the connection that was used last, if there is one.
    pub(super) fn take(&self, server: &Arc<str>) -> Option<Stream> {
        let mut idle = self.0.lock();
        let (since, stream) = idle.get_mut(server)?.pop()?;
        (since.elapsed() < IDLE_MAX).then_some(stream)
    }

    /// Keeps a connection whose last answer has been read to its end.
    pub(super) fn keep(&self, server: &Arc<str>, stream: Stream) {
        let mut idle = self.0.lock();
        let streams = idle.entry(Arc::clone(server)).or_default();
        streams.retain(|(since, _)| since.elapsed() < IDLE_MAX);
        if streams.len() < IDLE_PER_NODE_MAX {
            streams.push((Instant::now(), stream));
        }
    }
}

impl std::fmt::Debug for IdleConnections {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("IdleConnections")
    }
}
