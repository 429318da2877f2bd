//! Alters a table. Its record already has the new descriptor. What remains is to reopen each region
//! on its present server, so that the server uses the new descriptor.
//!
//! Regions that are opened for any other reason in the meantime need no reopening, because orders
//! to open carry the descriptor of the record. A retry reopens all regions once more, which does no
//! harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_model::{EncodedRegionName, RegionEpoch, RegionState, ServerName, TableName};
use basalt_zk::Op;
use tokio::time::Instant;

use super::create_table::write_descriptor;
use super::table_regions;
use crate::balancer::{Loads, Move};
use crate::error::StepError;
use crate::term::Term;
use crate::view::{RegionWrite, View};

/// The pause before the regions are looked at again.
const LOOK_WAIT: Duration = Duration::from_millis(100);

pub(super) async fn run(term: &Arc<Term>, table: &TableName) -> Result<Vec<Op>, StepError> {
    // From here on, orders to open carry the new descriptor.
    let known = table_regions::read_record(term, table).await?;
    write_descriptor(&term.files, &known.record.descriptor).await?;
    let before = epochs(&term.views.now(), table);
    let wait = term.timers.reopening_wait;
    let mut deadline = Instant::now() + wait;
    loop {
        let view = term.views.now();
        let stale = plan_reopening(&view, table, &before);
        if stale.is_done() {
            let is_in_effect = known.record.removed.is_empty();
            let record = known.record.in_effect();
            let shown = (!is_in_effect).then(|| table_regions::overwrite(term, &record));
            return Ok(shown.into_iter().collect());
        }
        if Instant::now() >= deadline {
            open_anew(term, off_draining(&view, &term.draining(), stale.opening)).await?;
            deadline = Instant::now() + wait;
        }
        // A region that does not open again is not served with the old descriptor. It keeps neither
        // the other regions nor the procedure waiting.
        let has_moves = !stale.moves.is_empty();
        let is_news = |view: &View| {
            let left = plan_reopening(view, table, &before);
            left.is_done() || (!has_moves && !left.moves.is_empty())
        };
        let rest = deadline.saturating_duration_since(Instant::now());
        let news = term.views.until(rest, |views| is_news(&views.now()));
        tokio::select! {
            biased;
            _ = news => {}
            reopened = reopen(term, stale.moves) => reopened?,
        }
    }
}

/// Reopens regions; ends once each is reopened or has failed. Never ends if there are none.
async fn reopen(term: &Term, moves: Vec<Move>) -> Result<(), StepError> {
    if moves.is_empty() {
        return std::future::pending().await;
    }
    term.reopen_regions(moves).await?;
    // The view may show this a moment later, and some regions may have failed to close.
    tokio::time::sleep(LOOK_WAIT).await;
    Ok(())
}

/// Has regions opened under a higher epoch. An opening in progress then comes to nothing.
async fn open_anew(term: &Arc<Term>, writes: Vec<RegionWrite>) -> Result<(), StepError> {
    let written = term.write_regions(writes).await?;
    if written.is_empty() {
        return Ok(());
    }
    let opening = Arc::clone(term);
    // Whoever ordered the opening in progress may still claim the region, so that the reconciler
    // leaves it alone.
    term.spawn(async move {
        if let Err(error) = opening.open(written).await {
            tracing::warn!(%error, "regions were not opened anew; retrying");
        }
    });
    Ok(())
}

/// Assigns regions to other servers than those that are draining, if there are any.
fn off_draining(
    view: &View,
    draining: &BTreeSet<ServerName>,
    writes: Vec<RegionWrite>,
) -> Vec<RegionWrite> {
    let mut loads = Loads::of(view, draining);
    let writes = writes.into_iter().map(|mut write| {
        let owner = &mut write.record.server;
        if owner.as_ref().is_some_and(|owner| draining.contains(owner))
            && let Some(other) = loads.take_least()
        {
            *owner = Some(other);
        }
        write
    });
    writes.collect()
}

/// The regions that are still served with the old descriptor.
#[derive(Debug, Default, PartialEq)]
struct Reopening {
    moves: Vec<Move>,
    /// Regions in transition, which may have to be reopened afterwards.
    waiting: usize,
    /// The records with which those of them that are being opened are opened anew.
    opening: Vec<RegionWrite>,
}

// === impl Reopening ===

impl Reopening {
    fn is_done(&self) -> bool {
        self.moves.is_empty() && self.waiting == 0
    }
}

fn epochs(view: &View, table: &TableName) -> BTreeMap<EncodedRegionName, RegionEpoch> {
    let regions = view.of_table(table).into_iter();
    regions.map(|region| (region.record.encoded_name(), region.record.epoch)).collect()
}

/// Plans to move each region that has been open since `before` to the server where it is. That
/// includes a region that is closing there, because whatever began the close waits for the table's
/// lock or has died. A region whose server is dead is left to that server's recovery, which opens
/// it under another epoch.
fn plan_reopening(
    view: &View,
    table: &TableName,
    before: &BTreeMap<EncodedRegionName, RegionEpoch>,
) -> Reopening {
    let mut plan = Reopening::default();
    for region in view.of_table(table) {
        let (record, name) = (&region.record, region.record.encoded_name());
        let is_reopened = before.get(&name).is_none_or(|before| record.epoch > *before);
        if is_reopened || record.state == RegionState::Closed {
            continue;
        }
        let Some(server) = record.server.as_ref().filter(|server| view.lives(server)) else {
            plan.waiting += 1;
            continue;
        };
        if record.state == RegionState::Opening {
            plan.waiting += 1;
            plan.opening.push(RegionWrite::over(region, record.assigned_to(server.clone())));
        } else {
            let (source, destination) = (server.clone(), server.clone());
            plan.moves.push(Move { region: name, source, destination });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{record_of, server, view};

    #[test]
    fn each_region_is_opened_anew_where_it_is_and_only_once() {
        let mut view = view(&["a", "b"], 4);
        let table: TableName = "t".parse().unwrap();
        let before = epochs(&view, &table);
        let names: Vec<_> = before.keys().copied().collect();
        record_of(&mut view, &names[0]).state = RegionState::Closed;
        record_of(&mut view, &names[1]).state = RegionState::Opening;
        let plan = plan_reopening(&view, &table, &before);
        assert_eq!((plan.moves.len(), plan.waiting), (2, 1));
        let opening: Vec<_> = plan.opening.iter().map(|write| &write.record).collect();
        let record = &view.regions[&names[1]].record;
        assert_eq!(opening, [&record.assigned_to(record.server.clone().unwrap())]);
        assert!(plan.moves.iter().all(|one| one.source == one.destination));
        for name in &names[1..] {
            let record = record_of(&mut view, name);
            *record = record.assigned_to(server("b"));
        }
        assert!(plan_reopening(&view, &table, &before).is_done());
    }

    #[test]
    fn a_region_of_a_dead_server_is_waited_for() {
        let mut view = view(&["a"], 1);
        let table: TableName = "t".parse().unwrap();
        let before = epochs(&view, &table);
        view.servers.clear();
        assert_eq!(plan_reopening(&view, &table, &before).waiting, 1);
    }
}
