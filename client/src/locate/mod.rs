//! Finds the server of a row: the answer of the meta table is cached until a server rejects it.
//!
//! A rejected location stays in the cache, marked stale, so that the ranges of the regions stay
//! known: lookups of the same region wait for one another, lookups of other regions do not.

mod cache;
mod meta;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_hbase_rpc::{CallError, Exception, Reaction, pb};
use basalt_model::{RegionInfo, ReplicaId, ServerName, TableName};
use bytes::Bytes;
use parking_lot::Mutex;

pub(crate) use cache::{Place, TableRegions};

use crate::connection::{ConnectionShared, within};
use crate::{Error, Result};

/// The location of a region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegionLocation {
    /// The primary replica.
    pub region: RegionInfo,
    /// Its name, as it is used in requests.
    pub name: Bytes,
    /// The server that has the primary.
    pub server: ServerName,
    /// The primary's sequence id when it was opened there. It distinguishes newer from older
    /// information.
    pub open_sequence_id: i64,
    /// The servers of the other replicas.
    pub replicas: BTreeMap<ReplicaId, ServerName>,
}

/// The locations of all tables that a client has used.
#[derive(Debug, Default)]
pub(crate) struct Locator {
    tables: Mutex<BTreeMap<TableName, Arc<TableRegions>>>,
    meta: meta::MetaServers,
}

// === impl RegionLocation ===

impl RegionLocation {
    /// Names the region in a request.
    pub(crate) fn specifier(&self) -> pb::RegionSpecifier {
        region_specifier(self.name.clone())
    }

    /// Names one replica of the region in a request.
    pub(crate) fn replica_specifier(&self, replica: ReplicaId) -> pb::RegionSpecifier {
        let region = RegionInfo { replica, ..self.region.clone() };
        region_specifier(region.name())
    }
}

// === impl Locator ===

impl Locator {
    /// The regions of a table.
    pub(crate) fn table(&self, name: &TableName) -> Arc<TableRegions> {
        let mut tables = self.tables.lock();
        tables
            .entry(name.clone())
            .or_insert_with(|| Arc::new(TableRegions::new(name.clone())))
            .clone()
    }

    /// Forgets the cached regions of a table.
    pub(crate) fn forget(&self, name: &TableName) {
        if let Some(regions) = self.tables.lock().get(name) {
            regions.clear();
        }
    }
}

// === impl ConnectionShared ===

impl ConnectionShared {
    /// The location of the region at `place`, from the cache or the meta table.
    pub(crate) async fn locate(
        &self,
        regions: &TableRegions,
        place: Place<'_>,
        wait: Duration,
    ) -> Result<Arc<RegionLocation>> {
        if let Some(location) = regions.fresh(place) {
            return Ok(location);
        }
        let lookup = async {
            let (known, turn) = regions.lookup_turn(place);
            let _turn = turn.lock().await;
            // The previous holder of the lock may have looked it up.
            if let Some(location) = regions.fresh(place) {
                return Ok(location);
            }
            let count = if known { 1 } else { self.config.prefetch_regions };
            let found = self.look_up(regions.table(), place, count).await?;
            regions.learn(found);
            regions.fresh(place).ok_or_else(|| Error::NoRegion {
                table: regions.table().clone(),
                row: place.row().escape_ascii().to_string(),
                reason: "the meta table has a hole",
            })
        };
        within(wait, "the region's server", lookup).await
    }

    /// Updates the region's location from a failed call.
    pub(crate) fn note_failure(
        &self,
        regions: &TableRegions,
        location: &Arc<RegionLocation>,
        error: &CallError,
    ) {
        match error {
            CallError::Remote(exception) => note_exception(regions, location, exception),
            CallError::BadAnswer { .. } => {}
            CallError::TimedOut { .. } | CallError::Lost { .. } | CallError::NotSent { .. } => {
                regions.deny(location);
            }
        }
    }

    /// The server of `location` did not answer.
    pub(crate) fn deny(&self, regions: &TableRegions, location: &Arc<RegionLocation>) {
        regions.deny(location);
    }
}

/// Like [`ConnectionShared::note_failure`], for an exception.
pub(crate) fn note_exception(
    regions: &TableRegions,
    location: &Arc<RegionLocation>,
    exception: &Exception,
) {
    match exception.reaction() {
        Reaction::FollowMove => {
            if let Some(moved_to) = exception.moved_to() {
                regions.follow(location, moved_to);
            }
        }
        Reaction::ClearLocation => regions.deny(location),
        Reaction::KeepLocation | Reaction::ReopenScanner | Reaction::DoNotRetry => {}
    }
}

fn region_specifier(name: Bytes) -> pb::RegionSpecifier {
    pb::RegionSpecifier {
        r#type: pb::region_specifier::RegionSpecifierType::RegionName.into(),
        value: name,
    }
}
