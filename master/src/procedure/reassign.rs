//! Decides which servers get the regions of a dead server. Pure.

use std::collections::BTreeSet;

use basalt_cluster::RegionRecord;
use basalt_cluster::catalog::SharedRegion;
use basalt_model::{RegionState, ServerName};

use crate::balancer::Loads;
use crate::block_locality::ClusterLocality;
use crate::view::{RegionWrite, View};

/// The next records of a dead server's regions.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reassignment {
    pub(super) writes: Vec<RegionWrite>,
    /// Regions that no live server can take.
    pub(super) waiting: usize,
}

/// Decides on every region that `dead` still owns. If the region's table must be served, the region
/// gets a live owner, preferably one that has its blocks. Otherwise the region is closed. A region
/// with edits in the dead server's logs adds that server to the servers whose logs it needs. It
/// still needs the logs that it needed before.
pub(super) fn plan(
    view: &View,
    dead: &ServerName,
    regions_with_edits: &BTreeSet<[u8; 16]>,
    mut loads: Loads,
    places: &ClusterLocality,
) -> Reassignment {
    let mut plan = Reassignment::default();
    let mut regions: Vec<_> = view.owned_by(dead).collect();
    // Neighbours in key order go to different servers.
    regions.sort_by(|a, b| a.record.info.cmp(&b.record.info));
    let is_to_be_served = |region: &&&SharedRegion| view.is_to_be_served(&region.record.info.table);
    let served = regions.iter().filter(is_to_be_served);
    let served: Vec<_> = served.map(|region| region.record.encoded_name()).collect();
    let mut owners = loads.deal(&served, places).into_iter();
    for region in regions {
        let mut record = region.record.clone();
        let has_edits = regions_with_edits.contains(record.encoded_name().digest());
        if has_edits && !record.unflushed.contains(dead) {
            record.unflushed.push(dead.clone());
        }
        let next = if view.is_to_be_served(&record.info.table) {
            owners.next().map(|owner| record.assigned_to(owner))
        } else {
            Some(RegionRecord { state: RegionState::Closed, ..record })
        };
        match next {
            Some(record) => plan.writes.push(RegionWrite::over(region, record)),
            None => plan.waiting += 1,
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_locality::testing::places;
    use crate::view::testing::{record_in, record_of, server, view};
    use basalt_model::TableState;

    fn edits_of_all(view: &View) -> BTreeSet<[u8; 16]> {
        view.regions.keys().map(|name| *name.digest()).collect()
    }

    /// `a` is dead; `b` and `c` are alive.
    fn after_a_death() -> (View, Loads) {
        let mut view = view(&["a", "b", "c"], 12);
        view.servers.remove(&server("a"));
        let loads = Loads::of(&view, &BTreeSet::new());
        (view, loads)
    }

    #[test]
    fn every_region_gets_a_living_owner_under_a_higher_epoch() {
        let (view, loads) = after_a_death();
        let plan =
            plan(&view, &server("a"), &edits_of_all(&view), loads, &ClusterLocality::default());
        assert_eq!((plan.writes.len(), plan.waiting), (4, 0));
        for write in &plan.writes {
            let old = &view.regions[&write.name];
            assert_eq!(write.record.epoch, old.record.epoch.next());
            assert_eq!(write.over_version, old.version);
            assert_eq!(write.record.state, RegionState::Opening);
            assert_eq!(write.record.unflushed, [server("a")]);
        }
        let to_b = plan.writes.iter().filter(|w| w.record.server == Some(server("b"))).count();
        assert_eq!(to_b, 2);
    }

    #[test]
    fn logs_of_earlier_owners_are_still_needed() {
        let (mut view, loads) = after_a_death();
        for region in view.regions.values_mut() {
            record_in(region).unflushed = vec![server("x")];
        }
        let name = *view.owned_by(&server("a")).next().unwrap().record.encoded_name().digest();
        let plan = plan(&view, &server("a"), &[name].into(), loads, &ClusterLocality::default());
        for write in &plan.writes {
            if write.name.digest() == &name {
                assert_eq!(write.record.unflushed, [server("x"), server("a")]);
            } else {
                assert_eq!(write.record.unflushed, [server("x")]);
            }
        }
    }

    #[test]
    fn a_name_is_not_listed_twice() {
        let (mut view, loads) = after_a_death();
        for region in view.regions.values_mut() {
            record_in(region).unflushed = vec![server("a")];
        }
        let plan =
            plan(&view, &server("a"), &edits_of_all(&view), loads, &ClusterLocality::default());
        assert!(plan.writes.iter().all(|write| write.record.unflushed == [server("a")]));
    }

    #[test]
    fn regions_of_a_table_that_is_disabled_are_closed_and_keep_what_they_need() {
        for state in [TableState::Disabling, TableState::Disabled] {
            let (mut view, loads) = after_a_death();
            view.tables.values_mut().for_each(|table| table.record.state = state);
            let plan =
                plan(&view, &server("a"), &edits_of_all(&view), loads, &ClusterLocality::default());
            assert_eq!(plan.writes.len(), 4);
            for write in &plan.writes {
                assert_eq!(write.record.state, RegionState::Closed);
                assert_eq!(write.record.unflushed, [server("a")]);
                assert_eq!(write.record.epoch, view.regions[&write.name].record.epoch);
            }
        }
    }

    #[test]
    fn opening_and_closing_regions_move_on_too() {
        let (mut view, loads) = after_a_death();
        let names: Vec<_> =
            view.owned_by(&server("a")).map(|region| region.record.encoded_name()).collect();
        record_of(&mut view, &names[0]).state = RegionState::Opening;
        record_of(&mut view, &names[1]).state = RegionState::Closing;
        record_of(&mut view, &names[2]).state = RegionState::Closed;
        let plan = plan(&view, &server("a"), &BTreeSet::new(), loads, &ClusterLocality::default());
        assert_eq!(plan.writes.len(), 3);
        assert!(plan.writes.iter().all(|write| write.record.state == RegionState::Opening));
        assert!(plan.writes.iter().all(|write| write.record.unflushed.is_empty()));
    }

    #[test]
    fn without_a_living_server_regions_wait() {
        let (mut view, _) = after_a_death();
        view.servers.clear();
        let loads = Loads::of(&view, &BTreeSet::new());
        let plan = plan(&view, &server("a"), &BTreeSet::new(), loads, &ClusterLocality::default());
        assert_eq!((plan.writes.len(), plan.waiting), (0, 4));
    }

    #[test]
    fn what_is_taken_over_is_not_decided_again() {
        let (mut view, loads) = after_a_death();
        let first = plan(&view, &server("a"), &BTreeSet::new(), loads, &ClusterLocality::default());
        for write in first.writes {
            *record_of(&mut view, &write.name) = write.record;
        }
        let loads = Loads::of(&view, &BTreeSet::new());
        assert_eq!(
            plan(&view, &server("a"), &BTreeSet::new(), loads, &ClusterLocality::default()),
            Reassignment::default()
        );
    }

    #[test]
    fn regions_go_to_servers_that_have_their_blocks_as_far_as_the_balance_allows() {
        let (view, loads) = after_a_death();
        let [a, b, c] = ["a", "b", "c"].map(server);
        let mut owned: Vec<_> = view.owned_by(&a).collect();
        owned.sort_by(|x, y| x.record.info.cmp(&y.record.info));
        let names: Vec<_> = owned.iter().map(|region| region.record.encoded_name()).collect();
        // All blocks were on `a`, and the last region's blocks are nowhere else.
        let lying: &[(_, &[_])] = &[
            (names[0], &[(&a, 9), (&c, 9)]),
            (names[1], &[(&a, 9), (&c, 8)]),
            (names[2], &[(&a, 9), (&c, 7), (&b, 2)]),
            (names[3], &[(&a, 9)]),
        ];
        let places = places(&[a.clone(), b.clone(), c.clone()], lying);
        let plan = plan(&view, &a, &BTreeSet::new(), loads, &places);
        let owners: Vec<_> =
            plan.writes.iter().filter_map(|write| write.record.server.clone()).collect();
        assert_eq!(owners, [c.clone(), c, b.clone(), b]);
        assert_eq!(plan.writes.iter().map(|write| write.name).collect::<Vec<_>>(), names);
    }
}
