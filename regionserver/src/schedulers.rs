//! Schedules flushes, compactions, and the deletion of log files.
//!
//! One task flushes and one compacts: both are bound by the disk, and serving the regions takes
//! precedence.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use basalt_failpoint::{Point, reached};
use basalt_runtime::Shutdown;
use tracing::{error, warn};

use crate::backoff::Backoff;
use crate::region;
use crate::server::{Served, Server};

/// How often the sizes are checked.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long a replayed region waits before it is flushed.
const REPLAYED_REST: Duration = Duration::from_secs(1);

/// The limits that trigger flushes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many log files may exist.
    pub(crate) wal_files_max: usize,
    /// The size of all memstores together, in bytes.
    pub(crate) memstores_bytes_max: u64,
}

/// Flushes the regions that are due, until `shutdown`.
pub(crate) async fn flush_when_due(server: Arc<Server>, limits: Limits, shutdown: Shutdown) {
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = server.work.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
        backoff.keep(|name| server.region(name).is_some());
        for served in due(&server, limits, &backoff) {
            if shutdown.is_cancelled() {
                return;
            }
            let result = flush(&server, &served).await;
            if let Err(error) = &result {
                let region = &served.region.info;
                error!(%region, %error, "flush failed; retrying later");
            }
            let done = result.is_ok() && !served.flush_due.load(Ordering::Relaxed);
            backoff.ended(served.region.encoded_name, done);
            measure(&server);
        }
        if let Err(error) = server.shared.wal.delete_obsolete().await {
            warn!(%error, "could not delete obsolete log files");
        }
    }
}

/// Compacts the regions that are due or were requested, until `shutdown`.
pub(crate) async fn compact_when_due(server: Arc<Server>, shutdown: Shutdown) {
    let rest = server.shared.config.compaction_rest;
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = server.compactions.came.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
        while let Some((name, is_major)) = server.compactions.take() {
            if shutdown.is_cancelled() {
                return;
            }
            // If it has moved away meanwhile, its compaction is up to the next owner.
            let Some(served) = server.region(name) else { continue };
            if let Err(error) = served.region.compact(&served.ownership, is_major).await {
                error!(region = %served.region.info, %error, "compaction failed");
            }
        }
        backoff.keep(|name| server.region(name).is_some());
        for served in server.regions() {
            if shutdown.is_cancelled() {
                return;
            }
            let name = served.region.encoded_name;
            let is_new = served.since.elapsed() < rest;
            if is_new || !backoff.allows(name) || !served.region.needs_compaction() {
                continue;
            }
            let result = served.region.compact(&served.ownership, false).await;
            if let Err(error) = &result {
                error!(region = %served.region.info, %error, "compaction failed");
            }
            backoff.ended(name, result.is_ok());
        }
    }
}

/// Measures the size of all memstores, stores it for the regions, and returns it.
fn measure(server: &Server) -> u64 {
    let total = server.regions().iter().map(|served| served.region.memstore_bytes()).sum();
    server.shared.memstores.measured(total);
    total
}

/// The regions to flush now, each of them once.
fn due(server: &Server, limits: Limits, backoff: &Backoff) -> Vec<Arc<Served>> {
    let mut regions = server.regions();
    let holding_old_logs = server.shared.wal.oldest_needing_flush(limits.wal_files_max);
    let lacking_copies = server.shared.wal.lacking_copies();
    let mut total = measure(server);
    // Replayed edits are safe in the sealed logs. Their flush must not compete for the disk with
    // regions that are not in service yet, here or at another server.
    let is_calm = !server.is_opening();
    let is_replay_due = |served: &Served| {
        is_calm
            && served.since.elapsed() >= REPLAYED_REST
            && served.flush_due.load(Ordering::Relaxed)
    };
    regions.retain(|served| backoff.allows(served.region.encoded_name));
    // The largest first, so that few flushes bring the total below the limit.
    regions.sort_by_key(|served| std::cmp::Reverse(served.region.memstore_bytes()));
    regions.retain(|served| {
        let over = total > limits.memstores_bytes_max;
        let is_due = over
            || served.region.needs_flush()
            || is_replay_due(served)
            || (is_calm && lacking_copies.contains(&served.region.encoded_name))
            || holding_old_logs.contains(&served.region.encoded_name);
        if is_due {
            total = total.saturating_sub(served.region.memstore_bytes());
        }
        is_due
    });
    regions
}

/// Flushes a region, and records that it no longer needs sealed logs.
pub(crate) async fn flush(server: &Server, served: &Served) -> region::Result<()> {
    served.region.flush().await?;
    if !served.flush_due.load(Ordering::Relaxed) {
        return Ok(());
    }
    match served.ownership.flushed().await {
        Ok(()) => {
            served.flush_due.store(false, Ordering::Relaxed);
            reached(Point::FlushReleased).await;
        }
        Err(error) if !server.abort.is_cancelled() => {
            warn!(region = %served.region.info, %error, "the record still names sealed logs");
        }
        Err(_) => {}
    }
    Ok(())
}
