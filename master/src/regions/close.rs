//! Has regions closed, to move them or because their table is disabled.

use std::collections::{BTreeMap, BTreeSet};

use basalt_cluster::catalog::SharedRegion;
use basalt_cluster::{RegionRecord, pb};
use basalt_model::{EncodedRegionName, RegionEpoch, RegionState, ServerName, TableName};
use basalt_runtime::WITNESS;
use futures::{StreamExt, TryStreamExt};
use tracing::trace;

use crate::balancer::{Loads, Move};
use crate::error::StepError;
use crate::locks::{Holder, Mode, Resource, TooManyWaiting};
use crate::orders;
use crate::term::Term;
use crate::view::{RegionWrite, View};

/// How many regions of one table are moved at once. A region is unavailable during its own move
/// only, and the fewer moves run at once, the shorter each one takes. See also [`Term::moving`].
const MOVES_AT_ONCE: usize = 4;
/// The number of regions in one order to close for good.
const REGIONS_PER_ORDER: usize = 8;
/// How many such orders are in progress at once.
const ORDERS_AT_ONCE: usize = 16;
/// How many times a closed region's record is read and rewritten, before the reconciler is left to
/// finish.
const TRIES_MAX: u32 = 3;

// === impl Term ===

impl Term {
    /// Moves regions: the owner closes each region, then the destination opens it. A region that
    /// cannot be closed now stays CLOSING, and the reconciler continues with it. Each move waits
    /// for the locks that procedures on its table hold, and is dropped if it no longer makes sense
    /// by then.
    ///
    /// # Errors
    /// Errors of writing records.
    pub(crate) async fn move_regions(&self, moves: Vec<Move>) -> Result<(), StepError> {
        let _decided = self.moves.claim(moves.iter().map(|one| one.region));
        let view = self.views.now();
        let mut by_table: BTreeMap<TableName, Vec<Move>> = BTreeMap::new();
        for one in moves {
            let Some(region) = view.regions.get(&one.region) else { continue };
            by_table.entry(region.record.info.table.clone()).or_default().push(one);
        }
        // If a table is locked, only the regions of that table wait.
        let tables = by_table.into_iter().map(|(table, moves)| async move {
            let moving = moves.into_iter().map(|one| self.move_in_turn(table.clone(), one));
            let moving: Vec<_> = moving.collect();
            let moving = futures::stream::iter(moving).buffer_unordered(MOVES_AT_ONCE);
            moving.try_collect::<()>().await
        });
        let tables: Vec<_> = tables.collect();
        futures::future::try_join_all(tables).await?;
        Ok(())
    }

    async fn move_in_turn(&self, table: TableName, one: Move) -> Result<(), StepError> {
        let holder = Holder::Move(one.region);
        let busy = |error: TooManyWaiting| StepError::NotYet(error.to_string());
        let of_table = self.locks.request(Resource::Table(table.clone()), Mode::Shared, holder);
        let of_table = of_table.map_err(busy)?;
        of_table.granted().await;
        let region = Resource::Region(one.region);
        let of_region = self.locks.request(region, Mode::Exclusive, holder).map_err(busy)?;
        of_region.granted().await;
        let Ok(_turn) = self.moving.acquire().await else { return Ok(()) };
        let _claim = self.claims.claim([one.region]);
        if !is_still_sensible(&self.views.now(), &self.draining(), &one) {
            return Ok(());
        }
        let _witnessed = WitnessedMove::begin(table, one.region);
        self.move_region(one).await
    }

    /// Reopens regions on their present servers, for a procedure that has begun under the lock of
    /// their table. Leaves a region alone that has another epoch when its turn comes.
    ///
    /// # Errors
    /// Errors of writing records.
    pub(crate) async fn reopen_regions(
        &self,
        regions: Vec<(EncodedRegionName, RegionEpoch)>,
    ) -> Result<(), StepError> {
        let _claim = self.claims.claim(regions.iter().map(|(name, _)| *name));
        let reopening = regions.into_iter().map(|region| async move {
            match to_reopen(&self.views.now(), &self.draining(), region) {
                Some(one) => self.move_region(one).await,
                None => Ok(()),
            }
        });
        let reopening: Vec<_> = reopening.collect();
        futures::stream::iter(reopening).buffer_unordered(MOVES_AT_ONCE).try_collect().await
    }

    async fn move_region(&self, one: Move) -> Result<(), StepError> {
        let view = self.views.now();
        self.write_regions(plan_closings(&view, [one.region])).await?;
        let destination = [(one.region, Some(one.destination.clone()))].into();
        let closed = self.close_and_write(&destination, |record| {
            Some(match self.draining().contains(&one.destination) {
                true => RegionRecord { state: RegionState::Closed, ..record.clone() },
                false => record.assigned_to(one.destination.clone()),
            })
        });
        let mut assigned = closed.await?;
        assigned.retain(|region| region.record.state == RegionState::Opening);
        self.open(assigned).await
    }

    /// Has all of `names` closed for good. The caller retries those that could not be closed.
    ///
    /// # Errors
    /// Errors of writing records.
    pub(crate) async fn close_for_good(
        &self,
        names: Vec<EncodedRegionName>,
    ) -> Result<(), StepError> {
        let _claim = self.claims.claim(names.iter().copied());
        let view = self.views.now();
        self.write_regions(plan_closings(&view, names.iter().copied())).await?;
        let chunks = names.chunks(REGIONS_PER_ORDER);
        let closing: Vec<_> = chunks.map(|chunk| self.close_chunk(chunk.to_vec())).collect();
        let mut closing = futures::stream::iter(closing).buffer_unordered(ORDERS_AT_ONCE);
        while let Some(closed) = closing.next().await {
            closed?;
        }
        Ok(())
    }

    async fn close_chunk(&self, names: Vec<EncodedRegionName>) -> Result<(), StepError> {
        let nowhere = names.into_iter().map(|name| (name, None)).collect();
        self.close_and_write(&nowhere, |record| {
            (record.state == RegionState::Closing)
                .then(|| RegionRecord { state: RegionState::Closed, ..record.clone() })
        })
        .await?;
        Ok(())
    }

    /// Orders the owners of closing regions to close them, and writes `next` to the records of
    /// those that are closed.
    async fn close_and_write(
        &self,
        destinations: &BTreeMap<EncodedRegionName, Option<ServerName>>,
        next: impl Fn(&RegionRecord) -> Option<RegionRecord>,
    ) -> Result<Vec<SharedRegion>, StepError> {
        let mut closed = self.order_closes(destinations).await;
        let mut written = Vec::new();
        for _ in 0..TRIES_MAX {
            if closed.is_empty() {
                break;
            }
            // The owner may have written the record when it closed the region.
            self.read_regions(closed.iter().copied()).await?;
            let view = self.views.now();
            let known: Vec<_> = closed
                .iter()
                .filter_map(|name| view.regions.get(name))
                .filter(|region| is_let_go(&region.record))
                .collect();
            let writes: Vec<_> = known
                .into_iter()
                .filter_map(|region| Some(RegionWrite::over(region, next(&region.record)?)))
                .collect();
            closed = writes.iter().map(|write| write.name).collect();
            let done = self.write_regions(writes).await?;
            closed.retain(|name| done.iter().all(|region| region.record.encoded_name() != *name));
            written.extend(done);
        }
        Ok(written)
    }

    /// Orders owners to close regions. Returns the regions that are closed now.
    async fn order_closes(
        &self,
        destinations: &BTreeMap<EncodedRegionName, Option<ServerName>>,
    ) -> Vec<EncodedRegionName> {
        let view = self.views.now();
        let mut by_owner: BTreeMap<&ServerName, Vec<pb::CloseRegion>> = BTreeMap::new();
        for (name, destination) in destinations {
            let Some(region) = view.regions.get(name) else { continue };
            if region.record.state == RegionState::Closing
                && let Some(owner) = &region.record.server
            {
                by_owner.entry(owner).or_default().push(pb::CloseRegion {
                    encoded_name: name.to_string(),
                    epoch: region.record.epoch.0,
                    destination: destination.as_ref().map(ToString::to_string).unwrap_or_default(),
                });
            }
        }
        let orders = by_owner.into_iter().filter_map(|(owner, regions)| {
            let address = &view.servers.get(owner)?.peer_address;
            Some(self.order_close(owner, address, regions))
        });
        let orders: Vec<_> = orders.collect();
        futures::future::join_all(orders).await.concat()
    }

    async fn order_close(
        &self,
        owner: &ServerName,
        address: &str,
        regions: Vec<pb::CloseRegion>,
    ) -> Vec<EncodedRegionName> {
        let (master_epoch, server_name) = (self.store.epoch().0, owner.to_string());
        let request = pb::CloseRegionsRequest { master_epoch, regions, server_name };
        let order = async {
            let mut client = self.orders.client(owner, address)?;
            client.close_regions(orders::within(self.timers.order_timeout, request)).await
        };
        let reply = tokio::select! {
            biased;
            reply = order => reply,
            () = self.views.death_of(owner) => return Vec::new(),
        };
        let outcomes = match reply {
            Ok(reply) => reply.into_inner().outcomes,
            Err(status) => {
                if orders::is_deposed(&status) {
                    self.store.verify().await;
                }
                tracing::warn!(
                    %owner,
                    status = orders::lost(&status),
                    "the outcome of a close order is unknown"
                );
                return Vec::new();
            }
        };
        let mut closed = Vec::new();
        for outcome in outcomes {
            match outcome.encoded_name.parse() {
                Ok(name) if orders::is_done(&outcome) => closed.push(name),
                _ => tracing::warn!(
                    %owner,
                    region = outcome.encoded_name,
                    failure = outcome.failure,
                    "did not close"
                ),
            }
        }
        closed
    }
}

/// Traces the beginning and the end of a move, even if the move is dropped.
struct WitnessedMove {
    table: TableName,
    region: EncodedRegionName,
}

// === impl WitnessedMove ===

impl WitnessedMove {
    fn begin(table: TableName, region: EncodedRegionName) -> Self {
        trace!(target: WITNESS, %table, %region, "move begins");
        Self { table, region }
    }
}

impl Drop for WitnessedMove {
    fn drop(&mut self) {
        trace!(target: WITNESS, table = %self.table, region = %self.region, "move ends");
    }
}

/// The move that reopens a region on its present server, if it is served under this epoch. A
/// draining server waits for the procedure, so its regions are opened elsewhere.
fn to_reopen(
    view: &View,
    draining: &BTreeSet<ServerName>,
    (region, epoch): (EncodedRegionName, RegionEpoch),
) -> Option<Move> {
    let record = &view.regions.get(&region)?.record;
    let source = record.server.clone().filter(|server| view.lives(server))?;
    let is_served = matches!(record.state, RegionState::Open | RegionState::Closing);
    if !is_served || record.epoch != epoch {
        return None;
    }
    let destination = Loads::of(view, draining).staying(&source, draining)?;
    Some(Move { region, source, destination })
}

/// Whether a move that had to wait still makes sense: its table must be served, its region is still
/// on its source, and its destination is not draining.
fn is_still_sensible(view: &View, draining: &BTreeSet<ServerName>, one: &Move) -> bool {
    !draining.contains(&one.destination)
        && view.regions.get(&one.region).is_some_and(|region| {
            view.is_to_be_served(&region.record.info.table)
                && region.record.state != RegionState::Closed
                && region.record.server.as_ref() == Some(&one.source)
        })
}

/// The CLOSING records of those `names` that are open or opening. Their owners then close them.
fn plan_closings(
    view: &View,
    names: impl IntoIterator<Item = EncodedRegionName>,
) -> Vec<RegionWrite> {
    let regions = names.into_iter().filter_map(|name| view.regions.get(&name));
    let served = regions
        .filter(|region| matches!(region.record.state, RegionState::Open | RegionState::Opening));
    let writes = served.map(|region| {
        let closing = RegionRecord { state: RegionState::Closing, ..region.record.clone() };
        RegionWrite::over(region, closing)
    });
    writes.collect()
}

/// Whether a region that its owner has reported closed may be assigned to another server.
fn is_let_go(record: &RegionRecord) -> bool {
    matches!(record.state, RegionState::Closing | RegionState::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{record_of, server, view};
    use basalt_model::TableState;

    #[test]
    fn a_move_that_waited_is_made_only_if_it_still_makes_sense() {
        let seen = view(&["a", "b"], 1);
        let (region, [a, b]) = (*seen.regions.keys().next().unwrap(), ["a", "b"].map(server));
        let one = Move { region, source: a, destination: b.clone() };
        let staying = BTreeSet::new();
        assert!(is_still_sensible(&seen, &staying, &one));
        assert!(!is_still_sensible(&seen, &[b.clone()].into(), &one));
        let mut disabled = seen.clone();
        let table = disabled.tables.values_mut().next().unwrap();
        table.record.state = TableState::Disabling;
        assert!(!is_still_sensible(&disabled, &staying, &one));
        let mut moved = seen.clone();
        record_of(&mut moved, &region).server = Some(b);
        assert!(!is_still_sensible(&moved, &staying, &one));
        let mut closed = seen;
        record_of(&mut closed, &region).state = RegionState::Closed;
        assert!(!is_still_sensible(&closed, &staying, &one));
    }

    #[test]
    fn a_region_of_a_server_that_is_drained_is_opened_anew_elsewhere() {
        let view = view(&["a", "b"], 2);
        let (a, b) = (server("a"), server("b"));
        let destinations = |draining: &[ServerName]| {
            let draining = draining.iter().cloned().collect();
            let moves = view.regions.iter().filter_map(|(name, region)| {
                to_reopen(&view, &draining, (*name, region.record.epoch))
            });
            moves.map(|one| one.destination).collect::<BTreeSet<_>>()
        };
        assert_eq!(destinations(&[]), [a.clone(), b.clone()].into());
        assert_eq!(destinations(std::slice::from_ref(&a)), [b.clone()].into());
        assert_eq!(destinations(&[a, b]), BTreeSet::new(), "they wait for a server");
    }

    #[test]
    fn a_region_that_has_been_reopened_meanwhile_is_left_alone() {
        let mut view = view(&["a", "b"], 1);
        let (name, none) = (*view.regions.keys().next().unwrap(), BTreeSet::new());
        let epoch = view.regions[&name].record.epoch;
        assert!(to_reopen(&view, &none, (name, epoch)).is_some());
        assert_eq!(to_reopen(&view, &none, (name, epoch.next())), None);
        record_of(&mut view, &name).state = RegionState::Closed;
        assert_eq!(to_reopen(&view, &none, (name, epoch)), None);
        record_of(&mut view, &name).state = RegionState::Open;
        view.servers.clear();
        assert_eq!(to_reopen(&view, &none, (name, epoch)), None, "its server is dead");
    }

    #[test]
    fn only_what_is_served_is_closed_and_keeps_its_epoch() {
        let mut view = view(&["a"], 3);
        let names: Vec<_> = view.regions.keys().copied().collect();
        record_of(&mut view, &names[0]).state = RegionState::Closed;
        record_of(&mut view, &names[1]).state = RegionState::Closing;
        let writes = plan_closings(&view, names.iter().copied());
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].name, names[2]);
        assert_eq!(writes[0].record.state, RegionState::Closing);
        assert_eq!(writes[0].record.epoch, view.regions[&names[2]].record.epoch);
    }
}
