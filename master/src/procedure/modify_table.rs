//! Alters a table. Its record already has the new descriptor. What remains is to reopen each region
//! on its present server, so that the server uses the new descriptor.
//!
//! Regions that are opened for any other reason in the meantime need no reopening, because orders
//! to open carry the descriptor of the record. A retry reopens all regions once more, which does no
//! harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_model::{EncodedRegionName, RegionEpoch, RegionState, TableName};
use basalt_zk::Op;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::create_table::write_descriptor;
use super::table_regions;
use crate::balancer::Loads;
use crate::error::{CommitError, StepError};
use crate::term::Term;
use crate::view::{RegionWrite, View};

/// The pause before the regions are looked at again.
const LOOK_WAIT: Duration = Duration::from_millis(100);

pub(super) async fn run(term: &Arc<Term>, table: &TableName) -> Result<Vec<Op>, StepError> {
    // From here on, orders to open carry the new descriptor.
    let known = table_regions::read_record(term, table).await?;
    write_descriptor(&term.files, &known.record.descriptor).await?;
    let before = epochs(&term.views.now(), table);
    let (mut under_way, mut reopening) = (BTreeSet::new(), FuturesUnordered::new());
    let mut deadline = Instant::now() + term.timers.reopening_wait;
    loop {
        let stale = plan_reopening(&term.views.now(), table, &before);
        if stale.is_done() {
            let is_in_effect = known.record.removed.is_empty();
            let record = known.record.in_effect();
            let shown = (!is_in_effect).then(|| table_regions::overwrite(term, &record));
            return Ok(shown.into_iter().collect());
        }
        if Instant::now() >= deadline {
            let (asked, raised) = (stale.opening.len(), open_anew(term, stale.opening).await?);
            // A batch is refused as a whole if one of its regions has just been opened.
            let is_rest_soon = raised < asked;
            let wait = if is_rest_soon { LOOK_WAIT } else { term.timers.reopening_wait };
            deadline = Instant::now() + wait;
        }
        let is_new = |(name, _): &(EncodedRegionName, RegionEpoch)| under_way.insert(*name);
        let served: Vec<_> = stale.served.into_iter().filter(is_new).collect();
        if !served.is_empty() {
            reopening.push(reopen(term, served));
        }
        // A region that does not open again is not served with the old descriptor, so it keeps
        // neither the procedure nor other regions waiting. Its reopening continues afterwards.
        tokio::select! {
            biased;
            Some((regions, ended)) = reopening.next() => {
                ended?;
                if !plan_reopening(&term.views.now(), table, &before).is_done() {
                    // The view may show this a moment later, and some may have failed to close.
                    tokio::time::sleep(LOOK_WAIT).await;
                }
                under_way.retain(|name| !regions.contains(name));
            }
            () = tokio::time::sleep(LOOK_WAIT) => {}
        }
    }
}

/// Reopens regions in a task of its own, and returns them with the result. A reopening that is
/// given up midway would leave regions closed, or have them opened by two tasks.
async fn reopen(
    term: &Arc<Term>,
    served: Vec<(EncodedRegionName, RegionEpoch)>,
) -> (BTreeSet<EncodedRegionName>, Result<(), StepError>) {
    let regions = served.iter().map(|(name, _)| *name).collect();
    let (ended, end) = oneshot::channel();
    let reopening = Arc::clone(term);
    term.spawn(async move {
        // The procedure may have ended.
        let _ = ended.send(reopening.reopen_regions(served).await);
    });
    // An error means that the term is over.
    (regions, end.await.unwrap_or(Err(CommitError::Deposed.into())))
}

/// Has regions opened under a higher epoch. An opening in progress then comes to nothing. Returns
/// how many records were written.
async fn open_anew(term: &Arc<Term>, writes: Vec<RegionWrite>) -> Result<usize, StepError> {
    let claim = term.claims.claim(writes.iter().map(|write| write.name));
    let (view, draining) = (term.views.now(), term.draining());
    let mut loads = Loads::of(&view, &draining);
    let writes = writes.into_iter().filter_map(|mut write| {
        let owner = loads.staying(write.record.server.as_ref()?, &draining)?;
        write.record.server = Some(owner);
        Some(write)
    });
    let written = term.write_regions(writes.collect()).await?;
    let count = written.len();
    let opening = Arc::clone(term);
    // Whoever ordered the opening in progress may still claim the regions, so that the reconciler
    // leaves them alone.
    term.spawn(async move {
        let _claim = claim;
        if let Err(error) = opening.open(written).await {
            tracing::warn!(%error, "regions were not opened anew; retrying");
        }
    });
    Ok(count)
}

/// The regions that are still served with the old descriptor.
#[derive(Debug, Default, PartialEq)]
struct Reopening {
    /// Regions that are open or closing on a living server.
    served: Vec<(EncodedRegionName, RegionEpoch)>,
    /// Regions in transition, which may have to be reopened afterwards.
    waiting: usize,
    /// The records with which those of them that are being opened are opened anew.
    opening: Vec<RegionWrite>,
}

// === impl Reopening ===

impl Reopening {
    fn is_done(&self) -> bool {
        self.served.is_empty() && self.waiting == 0
    }
}

fn epochs(view: &View, table: &TableName) -> BTreeMap<EncodedRegionName, RegionEpoch> {
    let regions = view.of_table(table).into_iter();
    regions.map(|region| (region.record.encoded_name(), region.record.epoch)).collect()
}

/// Plans to reopen each region that has been open since `before`. That
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
            plan.served.push((name, record.epoch));
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
        assert_eq!((plan.served.len(), plan.waiting), (2, 1));
        let opening: Vec<_> = plan.opening.iter().map(|write| &write.record).collect();
        let record = &view.regions[&names[1]].record;
        assert_eq!(opening, [&record.assigned_to(record.server.clone().unwrap())]);
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
