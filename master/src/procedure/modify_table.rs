//! Alters a table. Its record already has the new descriptor. What remains is to reopen each region
//! on its present server, so that the server uses the new descriptor.
//!
//! Regions that are opened for any other reason in the meantime need no reopening, because orders
//! to open carry the descriptor of the record. A retry reopens all regions once more, which does no
//! harm.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_model::{EncodedRegionName, RegionEpoch, RegionState, TableName};
use basalt_zk::Op;
use tokio::time::Instant;

use super::create_table::write_descriptor;
use super::table_regions;
use crate::balancer::Move;
use crate::error::StepError;
use crate::term::Term;
use crate::view::{RegionWrite, View};

/// How long to wait for regions in transition before they are checked again.
const LOOK_WAIT: Duration = Duration::from_millis(100);
/// How long to wait for a region that is being opened, which may never succeed.
const OPENING_WAIT: Duration = Duration::from_secs(10);

pub(super) async fn run(term: &Term, table: &TableName) -> Result<Vec<Op>, StepError> {
    // From here on, orders to open carry the new descriptor.
    let known = table_regions::read_record(term, table).await?;
    write_descriptor(&term.files, &known.record.descriptor).await?;
    let before = epochs(&term.views.now(), table);
    let begun = Instant::now();
    loop {
        let stale = plan_reopening(&term.views.now(), table, &before);
        if stale.is_done() {
            let is_in_effect = known.record.removed.is_empty();
            let record = known.record.in_effect();
            let shown = (!is_in_effect).then(|| table_regions::overwrite(term, &record));
            return Ok(shown.into_iter().collect());
        }
        if stale.moves.is_empty() && begun.elapsed() >= OPENING_WAIT {
            term.write_regions(stale.opening).await?;
        }
        term.reopen_regions(stale.moves).await?;
        let is_done = |view: &View| plan_reopening(view, table, &before).is_done();
        term.views.until(LOOK_WAIT, |views| is_done(&views.now())).await;
    }
}

/// The regions that are still served with the old descriptor.
#[derive(Debug, Default, PartialEq)]
struct Reopening {
    moves: Vec<Move>,
    /// Regions in transition, which may have to be reopened afterwards.
    waiting: usize,
    /// Those of them that are being opened, under a higher epoch. An opening that began with the
    /// old descriptor then comes to nothing.
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
