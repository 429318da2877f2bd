//! Assigns regions, and has them opened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use basalt_cluster::catalog::SharedRegion;
use basalt_cluster::records::write_descriptor;
use basalt_cluster::{RegionRecord, pb};
use basalt_model::{EncodedRegionName, RegionState, ServerName};
use futures::StreamExt;

use crate::balancer::Loads;
use crate::block_locality::ClusterLocality;
use crate::error::StepError;
use crate::orders;
use crate::term::Term;
use crate::view::{RegionWrite, View};
use crate::views::Views;

/// The maximum number of regions in one order.
const REGIONS_PER_ORDER: usize = 256;
/// How many orders are in progress at once.
const ORDERS_AT_ONCE: usize = 32;
/// The shortest and the longest pause between orders, while regions are left to open.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long to wait for the view to show that regions are open.
const SEEN_WAIT: Duration = Duration::from_secs(1);
/// After this many failures a region is left to the reconciler, which keeps trying.
const FAILURES_MAX: u32 = 3;
/// How long such a region rests before the reconciler tries it again.
const REST: Duration = Duration::from_secs(1);

// === impl Term ===

impl Term {
    /// Assigns closed regions to servers and has them opened. Leaves regions alone that are not
    /// closed, or whose table is neither enabled nor being enabled.
    ///
    /// # Errors
    /// [`StepError::NotYet`] if no region server may get regions, and errors of writing records.
    pub(crate) async fn assign(&self, names: &[EncodedRegionName]) -> Result<(), StepError> {
        let _claim = self.claims.claim(names.iter().copied());
        self.settle().await;
        let turn = self.planning.lock().await;
        let view = self.views.now();
        let mut loads = Loads::of(&view, &self.draining());
        if loads.is_empty() {
            return Err(StepError::NotYet("no region server can take the regions".to_owned()));
        }
        let plan = plan_assignments(&view, names, &mut loads, &self.places());
        let written = self.write_regions(plan).await?;
        drop(turn);
        self.open(written).await
    }

    /// Has `assigned` regions opened by their owners. Returns when each one is open, is no longer
    /// owned by that server, or has failed too often.
    ///
    /// # Errors
    /// Errors of writing records.
    pub(crate) async fn open(&self, assigned: Vec<SharedRegion>) -> Result<(), StepError> {
        let mut pending: BTreeMap<EncodedRegionName, SharedRegion> =
            assigned.into_iter().map(|region| (region.record.encoded_name(), region)).collect();
        let _claim = self.claims.claim(pending.keys().copied());
        let mut failures: BTreeMap<EncodedRegionName, u32> = BTreeMap::new();
        let mut opened = Vec::new();
        let mut pause = PAUSE_MIN;
        loop {
            let mut failed = Vec::new();
            for outcome in self.order_opens(&pending).await {
                let Ok(name) = outcome.encoded_name.parse() else { continue };
                if orders::is_done(&outcome) {
                    opened.extend(pending.remove(&name));
                } else {
                    tracing::warn!(region = %name, failure = outcome.failure, "did not open");
                    failed.push(name);
                }
            }
            let view = self.views.now();
            pending.retain(|_, region| is_still_to_open(&view, &region.record));
            failed.retain(|name| pending.contains_key(name));
            for name in &failed {
                let count = failures.entry(*name).or_default();
                *count += 1;
                if *count >= FAILURES_MAX && pending.remove(name).is_some() {
                    self.let_rest(*name);
                }
            }
            if pending.is_empty() {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let view = self.views.now();
            let elsewhere = plan_elsewhere(&view, &failed, &pending, &self.draining());
            for region in self.write_regions(elsewhere).await? {
                pending.insert(region.record.encoded_name(), region);
            }
        }
        // Keep the claims until the view shows the regions open. Otherwise the reconciler would
        // order them again.
        let is_seen = |views: &Views| opened.iter().all(|region| is_past(views, &region.record));
        self.views.until(SEEN_WAIT, is_seen).await;
        Ok(())
    }

    /// Keeps the reconciler away from a region for a while, because each attempt writes to the
    /// coordinator and to the disk.
    fn let_rest(&self, name: EncodedRegionName) {
        tracing::error!(region = %name, "down: it does not open (see above); retrying later");
        let claim = self.claims.claim([name]);
        self.spawn(async move {
            let _claim = claim;
            tokio::time::sleep(REST).await;
        });
    }

    async fn order_opens(
        &self,
        pending: &BTreeMap<EncodedRegionName, SharedRegion>,
    ) -> Vec<pb::RegionOutcome> {
        let view = self.views.now();
        let mut by_owner: BTreeMap<&ServerName, Vec<pb::OpenRegion>> = BTreeMap::new();
        for region in pending.values() {
            let table = view.tables.get(&region.record.info.table);
            if let (Some(owner), Some(table)) = (&region.record.server, table) {
                by_owner.entry(owner).or_default().push(pb::OpenRegion {
                    encoded_name: region.record.encoded_name().to_string(),
                    record: Some((&region.record).into()),
                    record_version: region.version,
                    table: Some(write_descriptor(&table.record.descriptor)),
                    family_incarnations: table.record.incarnations.clone().into_iter().collect(),
                });
            }
        }
        let mut orders = Vec::new();
        for (owner, regions) in by_owner {
            let Some(record) = view.servers.get(owner) else { continue };
            for chunk in regions.chunks(REGIONS_PER_ORDER) {
                orders.push(self.order_open(owner, &record.peer_address, chunk.to_vec()));
            }
        }
        let replies: Vec<Vec<pb::RegionOutcome>> =
            futures::stream::iter(orders).buffer_unordered(ORDERS_AT_ONCE).collect().await;
        replies.concat()
    }

    /// Orders `owner` to open regions. Returns no outcomes if the result of the order is unknown.
    async fn order_open(
        &self,
        owner: &ServerName,
        address: &str,
        regions: Vec<pb::OpenRegion>,
    ) -> Vec<pb::RegionOutcome> {
        let count = regions.len();
        let request = pb::OpenRegionsRequest {
            master_epoch: self.store.epoch().0,
            regions,
            excluded_nodes: orders::excluded_nodes(&self.files),
        };
        let order = async {
            let mut client = self.orders.client(owner, address)?;
            client.open_regions(orders::within(self.timers.order_timeout, request)).await
        };
        let reply = tokio::select! {
            biased;
            reply = order => reply,
            () = self.views.death_of(owner) => return Vec::new(),
        };
        match reply {
            Ok(reply) => reply.into_inner().outcomes,
            Err(status) => {
                if orders::is_deposed(&status) {
                    self.store.verify().await;
                }
                tracing::warn!(
                    %owner,
                    count,
                    status = orders::lost(&status),
                    "the outcome of an open order is unknown"
                );
                Vec::new()
            }
        }
    }
}

/// Whether the view shows a later state of the region than `record`.
fn is_past(views: &Views, record: &RegionRecord) -> bool {
    views.region(record.encoded_name()).is_none_or(|known| {
        known.record.epoch != record.epoch || known.record.state != RegionState::Opening
    })
}

/// The records that assign servers to those of `names` that are closed and must be served.
fn plan_assignments(
    view: &View,
    names: &[EncodedRegionName],
    loads: &mut Loads,
    places: &ClusterLocality,
) -> Vec<RegionWrite> {
    let mut regions: Vec<_> = names.iter().filter_map(|name| view.regions.get(name)).collect();
    regions.retain(|region| {
        let record = &region.record;
        record.state == RegionState::Closed && view.is_to_be_served(&record.info.table)
    });
    // Neighbours in key order go to different servers.
    regions.sort_by(|a, b| a.record.info.cmp(&b.record.info));
    let dealt: Vec<_> = regions.iter().map(|region| region.record.encoded_name()).collect();
    let owners = loads.deal(&dealt, places);
    let writes = regions.into_iter().zip(owners);
    writes
        .map(|(region, owner)| RegionWrite::over(region, region.record.assigned_to(owner)))
        .collect()
}

/// The records that assign regions which `failed` to open to another server than their owner.
fn plan_elsewhere(
    view: &View,
    failed: &[EncodedRegionName],
    pending: &BTreeMap<EncodedRegionName, SharedRegion>,
    draining: &BTreeSet<ServerName>,
) -> Vec<RegionWrite> {
    let writes = failed.iter().filter_map(|name| pending.get(name)).filter_map(|region| {
        if !is_still_to_open(view, &region.record) {
            return None;
        }
        let owner = region.record.server.as_ref()?;
        let other = Loads::of(view, draining).avoiding(owner).take_least()?;
        // The record may have been rewritten in the same state since; keep its newer `unflushed`.
        let known = view.regions.get(&region.record.encoded_name())?;
        Some(RegionWrite::over(known, known.record.assigned_to(other)))
    });
    writes.collect()
}

/// Whether the ownership in `record` is the present one, its owner is alive, and the region is not
/// open yet.
fn is_still_to_open(view: &View, record: &RegionRecord) -> bool {
    view.regions.get(&record.encoded_name()).is_some_and(|known| {
        known.record.state == RegionState::Opening
            && known.record.epoch == record.epoch
            && known.record.server.as_ref().is_some_and(|owner| view.lives(owner))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{record_in, record_of, server, view};
    use basalt_model::TableState;

    fn closed(mut view: View) -> View {
        for region in view.regions.values_mut() {
            record_in(region).state = RegionState::Closed;
        }
        view
    }

    #[test]
    fn a_new_table_is_spread_evenly() {
        let view = closed(view(&["a", "b", "c"], 12));
        let names: Vec<_> = view.regions.keys().copied().collect();
        let mut loads = Loads::of(&view, &BTreeSet::new());
        let writes = plan_assignments(&view, &names, &mut loads, &ClusterLocality::default());
        assert_eq!(writes.len(), 12);
        for name in ["a", "b", "c"] {
            let owner = Some(server(name));
            assert_eq!(writes.iter().filter(|w| w.record.server == owner).count(), 4);
        }
        assert!(writes.iter().all(|w| w.record.state == RegionState::Opening));
        assert!(writes.iter().all(|w| w.over_version == 3));
        let mut by_key = writes;
        by_key.sort_by(|a, b| a.record.info.cmp(&b.record.info));
        assert_ne!(by_key[0].record.server, by_key[1].record.server);
    }

    #[test]
    fn only_closed_regions_of_served_tables_are_assigned() {
        let open = view(&["a"], 2);
        let names: Vec<_> = open.regions.keys().copied().collect();
        let (mut loads, nowhere) = (Loads::of(&open, &BTreeSet::new()), ClusterLocality::default());
        assert_eq!(plan_assignments(&open, &names, &mut loads, &nowhere), []);
        let mut disabled = closed(open);
        disabled.tables.values_mut().for_each(|t| t.record.state = TableState::Disabled);
        assert_eq!(plan_assignments(&disabled, &names, &mut loads, &nowhere), []);
    }

    #[test]
    fn a_region_that_fails_goes_to_another_server_under_a_higher_epoch() {
        let mut view = view(&["a", "b"], 2);
        let region = view.regions.values_mut().find(|r| r.record.server == Some(server("a")));
        let region = region.unwrap();
        record_in(region).state = RegionState::Opening;
        let region = region.clone();
        let name = region.record.encoded_name();
        let pending = [(name, region.clone())].into();
        let writes = plan_elsewhere(&view, &[name], &pending, &BTreeSet::new());
        assert_eq!(writes[0].record.server, Some(server("b")));
        assert_eq!(writes[0].record.epoch, region.record.epoch.next());
        record_of(&mut view, &name).state = RegionState::Open;
        assert_eq!(plan_elsewhere(&view, &[name], &pending, &BTreeSet::new()), []);
    }
}
