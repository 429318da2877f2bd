//! Which server gets which region: pure decisions over a [`View`].
//!
//! By count, for now: every living server that is not being drained holds as many regions as any
//! other, give or take one. Of those that hold the fewest, one in the rack that holds the fewest
//! gets the next; ties go by name, so that the same view gives the same plan.

use std::collections::{BTreeMap, BTreeSet};

use basalt_cluster::pb;
use basalt_model::{EncodedRegionName, RegionState, ServerName, TableName};

use crate::view::View;

/// How many regions each server that may be given some holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Loads {
    servers: BTreeMap<ServerName, Load>,
    /// How many regions the servers of each rack hold together.
    racks: BTreeMap<String, usize>,
}

/// What one server holds.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Load {
    regions: usize,
    rack: String,
}

/// A region that is to go to another server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Move {
    pub(crate) region: EncodedRegionName,
    pub(crate) source: ServerName,
    pub(crate) destination: ServerName,
}

/// The servers that regions may go to: the living ones, without those that are being drained. A
/// region that went to one of these would only be closed again.
pub(crate) fn takers<'a>(
    view: &'a View,
    draining: &BTreeSet<ServerName>,
) -> impl Iterator<Item = (&'a ServerName, &'a pb::ServerRecord)> {
    view.servers.iter().filter(|(name, _)| !draining.contains(name))
}

// === impl Loads ===

impl Loads {
    /// What the [`takers`] hold.
    pub(crate) fn of(view: &View, draining: &BTreeSet<ServerName>) -> Self {
        let unladen = |record: &pb::ServerRecord| Load { regions: 0, rack: record.rack.clone() };
        let servers = takers(view, draining).map(|(name, record)| (name.clone(), unladen(record)));
        let mut loads = Self { servers: servers.collect(), ..Self::default() };
        for region in view.regions.values() {
            if region.record.state != RegionState::Closed
                && let Some(owner) = &region.record.server
            {
                loads.add(owner);
            }
        }
        loads
    }

    /// Counts one more region for `server`, if it is one of them.
    fn add(&mut self, server: &ServerName) {
        if let Some(load) = self.servers.get_mut(server) {
            load.regions += 1;
            *self.racks.entry(load.rack.clone()).or_default() += 1;
        }
    }

    /// How many regions each server holds.
    pub(crate) fn regions(&self) -> BTreeMap<ServerName, usize> {
        self.servers.iter().map(|(server, load)| (server.clone(), load.regions)).collect()
    }

    /// Whether no server may be given a region.
    pub(crate) fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Without `server`, if another is left.
    pub(crate) fn avoiding(mut self, server: &ServerName) -> Self {
        if self.servers.len() > 1 {
            self.servers.remove(server);
        }
        self
    }

    /// The server with the fewest regions, which gets one more.
    pub(crate) fn take_least(&mut self) -> Option<ServerName> {
        let in_rack = |load: &Load| self.racks.get(&load.rack).copied().unwrap_or(0);
        let least = self.servers.iter().min_by_key(|(_, load)| (load.regions, in_rack(load)));
        let server = least.map(|(server, _)| server.clone())?;
        self.add(&server);
        Some(server)
    }
}

/// The moves, at most `moves_max`, that take regions off the fullest servers onto the emptiest.
/// Only open regions are moved. Of a full server's regions those of the table go first of which it
/// holds the most more than the receiver does.
pub(crate) fn even_out(
    view: &View,
    draining: &BTreeSet<ServerName>,
    moves_max: usize,
) -> Vec<Move> {
    let mut loads = Loads::of(view, draining).regions();
    let mut placement = Placement::of(view);
    let mut moves = Vec::new();
    while moves.len() < moves_max {
        let fullest = loads.iter().max_by_key(|(_, load)| **load);
        let emptiest = loads.iter().min_by_key(|(_, load)| **load);
        let (Some((source, most)), Some((destination, least))) = (fullest, emptiest) else { break };
        if *most < *least + 2 {
            break;
        }
        let (source, destination) = (source.clone(), destination.clone());
        let Some(region) = placement.take(&source, &destination) else { break };
        *loads.entry(source.clone()).or_default() -= 1;
        *loads.entry(destination.clone()).or_default() += 1;
        moves.push(Move { region, source, destination });
    }
    moves
}

/// The moves that take every open region off `source`.
pub(crate) fn empty(
    view: &View,
    source: &ServerName,
    draining: &BTreeSet<ServerName>,
) -> Vec<Move> {
    let mut loads = Loads::of(view, draining);
    loads.servers.remove(source);
    let open = view.owned_by(source).filter(|region| region.record.state == RegionState::Open);
    let moves = open.map_while(|region| {
        let destination = loads.take_least()?;
        Some(Move { region: region.record.encoded_name(), source: source.clone(), destination })
    });
    moves.collect()
}

/// Which open regions of which table lie where.
struct Placement(BTreeMap<ServerName, BTreeMap<TableName, BTreeSet<EncodedRegionName>>>);

// === impl Placement ===

impl Placement {
    fn of(view: &View) -> Self {
        let mut placement: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
        for (name, region) in &view.regions {
            if let Some(server) = &region.record.server
                && region.record.state == RegionState::Open
            {
                let tables = placement.entry(server.clone()).or_default();
                tables.entry(region.record.info.table.clone()).or_default().insert(*name);
            }
        }
        Self(placement)
    }

    /// Takes a region of `source` for `destination`. What was placed once is not placed again.
    fn take(&mut self, source: &ServerName, destination: &ServerName) -> Option<EncodedRegionName> {
        let held: BTreeMap<TableName, usize> =
            self.0.get(destination).map_or_else(BTreeMap::new, |tables| {
                tables.iter().map(|(table, regions)| (table.clone(), regions.len())).collect()
            });
        let tables = self.0.get_mut(source)?;
        let surplus = |table: &TableName, regions: &BTreeSet<EncodedRegionName>| {
            regions.len() as i64 - held.get(table).copied().unwrap_or(0) as i64
        };
        let (_, regions) = tables
            .iter_mut()
            .filter(|(_, regions)| !regions.is_empty())
            .max_by_key(|(table, regions)| surplus(table, regions))?;
        regions.pop_last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::{server, view};

    #[test]
    fn a_new_server_gets_its_share() {
        let mut view = view(&["a", "b"], 12);
        view.servers.insert(server("c"), Default::default());
        let moves = even_out(&view, &BTreeSet::new(), 100);
        assert_eq!(moves.len(), 4);
        assert!(moves.iter().all(|one| one.destination == server("c")));
        assert_eq!(moves.iter().filter(|one| one.source == server("a")).count(), 2);
        assert_eq!(even_out(&view, &BTreeSet::new(), 3).len(), 3);
    }

    #[test]
    fn an_even_cluster_is_left_alone() {
        assert_eq!(even_out(&view(&["a", "b", "c"], 11), &BTreeSet::new(), 100), []);
        assert_eq!(even_out(&view(&[], 0), &BTreeSet::new(), 100), []);
    }

    #[test]
    fn a_draining_server_gets_nothing_and_loses_all() {
        let view = view(&["a", "b", "c"], 12);
        let draining: BTreeSet<_> = [server("a")].into();
        let moves = empty(&view, &server("a"), &draining);
        assert_eq!(moves.len(), 4);
        assert_eq!(moves.iter().filter(|one| one.destination == server("b")).count(), 2);
        assert!(even_out(&view, &draining, 100).iter().all(|one| one.destination != server("a")));
    }

    #[test]
    fn the_last_server_is_given_nothing_when_it_drains() {
        let view = view(&["a"], 2);
        let draining: BTreeSet<_> = [server("a")].into();
        assert_eq!(Loads::of(&view, &draining).take_least(), None);
        assert_eq!(empty(&view, &server("a"), &draining), []);
    }

    #[test]
    fn regions_go_to_the_emptiest_in_turn() {
        let mut loads = Loads::of(&view(&["a", "b", "c"], 4), &BTreeSet::new());
        let taken: Vec<_> = (0..5).filter_map(|_| loads.take_least()).collect();
        assert_eq!(taken, ["b", "c", "a", "b", "c"].map(server));
    }

    #[test]
    fn of_servers_that_hold_as_many_the_one_in_the_emptier_rack_is_given_the_next() {
        let mut view = view(&["a", "b", "c"], 0);
        for (name, rack) in [("a", "r1"), ("b", "r1"), ("c", "r2")] {
            view.servers.get_mut(&server(name)).unwrap().rack = rack.to_owned();
        }
        let mut loads = Loads::of(&view, &BTreeSet::new());
        let taken: Vec<_> = (0..4).filter_map(|_| loads.take_least()).collect();
        assert_eq!(taken, ["a", "c", "b", "c"].map(server));
    }
}
