//! Requests for a region in transition: it is being closed, opened, or moved to another server.
//!
//! They wait here for a short time. A stock client that is rejected retries after 100 ms at the
//! earliest, and later each time. A request that waits gets its answer, or the region's new
//! location, as soon as there is one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use basalt_hbase_rpc::{Exception, ExceptionKind, MovedRegion, pb};
use basalt_model::EncodedRegionName;
use tokio::time::Instant;

use super::{Result, Rpc, decode};
use crate::server::{RegionLocation, Served};

/// How long a request waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many requests wait at a time. Others are rejected at once.
pub(super) const WAITING_MAX: usize = 512;

/// What a request does to a region.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Reads, which are possible until the region is no longer served here.
    Read,
    /// Writes, which are not possible while the region is being closed.
    Write,
}

// === impl Rpc ===

impl Rpc {
    /// The region that a request names, once it is served here.
    pub(super) async fn region(
        &self,
        specifier: &pb::RegionSpecifier,
        purpose: Purpose,
    ) -> Result<Arc<Served>> {
        let name = decode::region_name(specifier)?;
        let served = match self.here(name, purpose) {
            Some(served) => served,
            None => self.wait_for(name, purpose).await?,
        };
        served.region.requests.fetch_add(1, Ordering::Relaxed);
        Ok(served)
    }

    fn here(&self, name: EncodedRegionName, purpose: Purpose) -> Option<Arc<Served>> {
        let served = self.server.region(name)?;
        (purpose == Purpose::Read || !served.region.is_closing()).then_some(served)
    }

    async fn wait_for(&self, name: EncodedRegionName, purpose: Purpose) -> Result<Arc<Served>> {
        let Ok(_waiting) = self.waiting.try_acquire() else { return Err(self.not_here(name)) };
        let deadline = Instant::now() + PATIENCE;
        let mut changes = self.server.catalog.changes();
        let mut serving = self.server.serving();
        loop {
            changes.borrow_and_update();
            serving.borrow_and_update();
            if let Some(served) = self.here(name, purpose) {
                return Ok(served);
            }
            let is_closing = self.server.region(name).is_some();
            if Instant::now() >= deadline || !(is_closing || self.server.is_in_transition(name)) {
                return Err(self.not_here(name));
            }
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() {
                    return Err(self.not_here(name));
                },
                // Never fails: the server holds the sender.
                _ = serving.changed() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// The exception for a client that asks for a region that is not served here. It names the
    /// region's new server, if that is known.
    pub(super) fn not_here(&self, name: EncodedRegionName) -> Exception {
        match self.server.location_of(name) {
            RegionLocation::Moved { server, open_sequence_id } => {
                let location_sequence_id = i64::try_from(open_sequence_id).unwrap_or(i64::MAX);
                Exception::region_moved(MovedRegion { server, location_sequence_id })
            }
            RegionLocation::Opening => Exception::new(
                ExceptionKind::RegionOpening,
                format!("region {name} is being opened on {}", self.server.name),
            ),
            RegionLocation::Unknown => Exception::new(
                ExceptionKind::NotServingRegion,
                format!("region {name} is not served by {}", self.server.name),
            ),
        }
    }
}
