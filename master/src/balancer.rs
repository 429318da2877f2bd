//! Decides which server gets which region: pure functions of a [`View`].
//!
//! For now the regions are balanced by count. All live servers that are not being drained hold the
//! same number of regions, give or take one. The next region goes to one of the servers with the
//! fewest regions, preferably in the rack with the fewest regions. Ties are broken by name, so that
//! the same view results in the same plan. Block locality decides which regions a server gets
//! within its number.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use basalt_cluster::pb;
use basalt_model::{EncodedRegionName, RegionState, ServerName, TableName};

use crate::block_locality::ClusterLocality;
use crate::view::View;

/// The number of regions of each server that may get more.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Loads {
    servers: BTreeMap<ServerName, Load>,
    /// How many regions the servers of each rack hold together.
    racks: BTreeMap<String, usize>,
}

/// The load of one server.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Load {
    regions: usize,
    rack: String,
}

/// A region to move to another server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Move {
    pub(crate) region: EncodedRegionName,
    pub(crate) source: ServerName,
    pub(crate) destination: ServerName,
}

/// The servers that may get regions: the live ones that are not being drained. A region that a
/// draining server got would only be closed again.
pub(crate) fn takers<'a>(
    view: &'a View,
    draining: &BTreeSet<ServerName>,
) -> impl Iterator<Item = (&'a ServerName, &'a pb::ServerRecord)> {
    view.servers.iter().filter(|(name, _)| !draining.contains(name))
}

// === impl Loads ===

impl Loads {
    /// The loads of the [`takers`].
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

    /// Counts one more region for `server`, if it may get regions.
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

    /// Whether no server may get a region.
    pub(crate) fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Removes `server`, unless it is the only one.
    pub(crate) fn avoiding(mut self, server: &ServerName) -> Self {
        if self.servers.len() > 1 {
            self.servers.remove(server);
        }
        self
    }

    /// `owner`, or the server with the least load if `owner` is draining. `None` if all are.
    pub(crate) fn staying(
        &mut self,
        owner: &ServerName,
        draining: &BTreeSet<ServerName>,
    ) -> Option<ServerName> {
        if draining.contains(owner) { self.take_least() } else { Some(owner.clone()) }
    }

    /// The server with the fewest regions. Counts one more region for it.
    pub(crate) fn take_least(&mut self) -> Option<ServerName> {
        let in_rack = |load: &Load| self.racks.get(&load.rack).copied().unwrap_or(0);
        let least = self.servers.iter().min_by_key(|(_, load)| (load.regions, in_rack(load)));
        let server = least.map(|(server, _)| server.clone())?;
        self.add(&server);
        Some(server)
    }

    /// Assigns a server to each of `regions`, in their order. Returns nothing if there are no
    /// servers. Each server gets as many regions as [`Loads::take_least`] would give it. It first
    /// gets those with the most bytes on its machine. The other regions are dealt out in turn.
    pub(crate) fn deal(
        &mut self,
        regions: &[EncodedRegionName],
        places: &ClusterLocality,
    ) -> Vec<ServerName> {
        let turns: Vec<ServerName> = regions.iter().map_while(|_| self.take_least()).collect();
        let mut left: BTreeMap<&ServerName, usize> = BTreeMap::new();
        turns.iter().for_each(|server| *left.entry(server).or_default() += 1);
        let takers: Vec<&ServerName> = left.keys().copied().collect();
        let by_node = places.servers_by_node(takers.into_iter());
        let mut offers: Vec<(Reverse<u64>, usize, &ServerName)> = Vec::new();
        for (index, region) in regions.iter().enumerate().take(turns.len()) {
            for (node, bytes) in places.nodes_with(region).filter(|(_, bytes)| *bytes > 0) {
                let servers = by_node.get(node).into_iter().flatten();
                offers.extend(servers.map(|server| (Reverse(bytes), index, *server)));
            }
        }
        offers.sort();
        let mut given: BTreeMap<usize, &ServerName> = BTreeMap::new();
        for (_, index, server) in offers {
            if !given.contains_key(&index) && take_turn(&mut left, server) {
                given.insert(index, server);
            }
        }
        let mut rest = turns.iter().filter(|server| take_turn(&mut left, server));
        let owner = |index| given.get(&index).copied().or_else(|| rest.next()).cloned();
        (0..turns.len()).map_while(owner).collect()
    }
}

/// Uses one of the turns that `server` has left. Returns false if it has none.
fn take_turn(left: &mut BTreeMap<&ServerName, usize>, server: &ServerName) -> bool {
    let turns = left.get_mut(server).filter(|turns| **turns > 0);
    turns.map(|turns| *turns -= 1).is_some()
}

/// At most `moves_max` moves that take regions off the fullest servers onto the emptiest. Only open
/// regions are moved. They come first from the table whose regions on the source outnumber those on
/// the destination the most. Of these regions, the one whose move gains the most local bytes goes
/// first.
pub(crate) fn even_out(
    view: &View,
    draining: &BTreeSet<ServerName>,
    places: &ClusterLocality,
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
        let Some(region) = placement.take(&source, &destination, places) else {
            break;
        };
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
    places: &ClusterLocality,
) -> Vec<Move> {
    let mut loads = Loads::of(view, draining);
    loads.servers.remove(source);
    let open = view.owned_by(source).filter(|region| region.record.state == RegionState::Open);
    let regions: Vec<_> = open.map(|region| region.record.encoded_name()).collect();
    let destinations = loads.deal(&regions, places);
    let moves = regions.into_iter().zip(destinations);
    let moves =
        moves.map(|(region, destination)| Move { region, source: source.clone(), destination });
    moves.collect()
}

/// The open regions of each server, by table.
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

    /// Takes a region of `source` for `destination`. A region that was taken is not taken again.
    fn take(
        &mut self,
        source: &ServerName,
        destination: &ServerName,
        places: &ClusterLocality,
    ) -> Option<EncodedRegionName> {
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
        let gained_bytes = |region: &EncodedRegionName| {
            i128::from(places.bytes_on(region, destination))
                - i128::from(places.bytes_on(region, source))
        };
        let region = *regions.iter().max_by_key(|region| gained_bytes(region))?;
        regions.take(&region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_locality::testing::places;
    use crate::view::testing::{server, view};

    fn nowhere() -> ClusterLocality {
        ClusterLocality::default()
    }

    fn names(count: u8) -> Vec<EncodedRegionName> {
        (0..count).map(|number| EncodedRegionName::from_digest([number; 16])).collect()
    }

    #[test]
    fn a_new_server_gets_its_share() {
        let mut view = view(&["a", "b"], 12);
        view.servers.insert(server("c"), Default::default());
        let moves = even_out(&view, &BTreeSet::new(), &nowhere(), 100);
        assert_eq!(moves.len(), 4);
        assert!(moves.iter().all(|one| one.destination == server("c")));
        assert_eq!(moves.iter().filter(|one| one.source == server("a")).count(), 2);
        assert_eq!(even_out(&view, &BTreeSet::new(), &nowhere(), 3).len(), 3);
    }

    #[test]
    fn an_even_cluster_is_left_alone() {
        assert_eq!(even_out(&view(&["a", "b", "c"], 11), &BTreeSet::new(), &nowhere(), 100), []);
        assert_eq!(even_out(&view(&[], 0), &BTreeSet::new(), &nowhere(), 100), []);
    }

    #[test]
    fn a_draining_server_gets_nothing_and_loses_all() {
        let view = view(&["a", "b", "c"], 12);
        let draining: BTreeSet<_> = [server("a")].into();
        let moves = empty(&view, &server("a"), &draining, &nowhere());
        assert_eq!(moves.len(), 4);
        assert_eq!(moves.iter().filter(|one| one.destination == server("b")).count(), 2);
        assert!(
            even_out(&view, &draining, &nowhere(), 100)
                .iter()
                .all(|one| one.destination != server("a"))
        );
    }

    #[test]
    fn the_last_server_is_given_nothing_when_it_drains() {
        let view = view(&["a"], 2);
        let draining: BTreeSet<_> = [server("a")].into();
        assert_eq!(Loads::of(&view, &draining).take_least(), None);
        assert_eq!(empty(&view, &server("a"), &draining, &nowhere()), []);
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

    #[test]
    fn without_places_regions_are_dealt_in_turn() {
        let loads = || Loads::of(&view(&["a", "b", "c"], 4), &BTreeSet::new());
        let dealt = loads().deal(&names(5), &nowhere());
        assert_eq!(dealt, ["b", "c", "a", "b", "c"].map(server));
        let nobody = Loads::of(&view(&[], 0), &BTreeSet::new()).deal(&names(5), &nowhere());
        assert_eq!(nobody, []);
    }

    #[test]
    fn a_region_goes_where_most_of_its_blocks_are() {
        let (regions, [a, b, c]) = (names(3), ["a", "b", "c"].map(server));
        let places = places(
            &[a.clone(), b.clone(), c.clone()],
            &[
                (regions[0], &[(&c, 10), (&b, 9)]),
                (regions[1], &[(&a, 10), (&b, 9)]),
                (regions[2], &[(&b, 10), (&c, 9)]),
            ],
        );
        let mut loads = Loads::of(&view(&["a", "b", "c"], 0), &BTreeSet::new());
        assert_eq!(loads.deal(&regions, &places), [c, a, b]);
        assert_eq!(loads.regions().into_values().collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn no_server_gets_more_for_having_more_blocks() {
        let (regions, [a, b, c]) = (names(7), ["a", "b", "c"].map(server));
        let on_a: &[_] = &[(&a, 10)];
        let (small, large): (&[_], &[_]) = (&[(&a, 1)], &[(&a, 99)]);
        let mut lying: Vec<_> = regions.iter().map(|region| (*region, on_a)).collect();
        (lying[0].1, lying[6].1) = (small, large);
        let places = places(&[a.clone(), b, c], &lying);
        for held in [0, 1, 2, 5] {
            let view = view(&["a", "b", "c"], held);
            let mut dealt = Loads::of(&view, &BTreeSet::new());
            let mut in_turn = dealt.clone();
            let owners = dealt.deal(&regions, &places);
            regions.iter().for_each(|_| drop(in_turn.take_least()));
            assert_eq!(dealt, in_turn, "{held} regions before");
            assert_eq!(owners.len(), 7);
            assert_eq!(owners[6], a, "the one with the most bytes there");
            assert_ne!(owners[0], a, "the one with the fewest");
        }
    }

    #[test]
    fn a_node_that_several_servers_share_counts_for_each() {
        let (regions, [a, b]) = (names(2), ["a", "b"].map(server));
        let word = pb::Alive { node: a.to_string(), ..Default::default() };
        let mut places = places(&[a.clone(), b.clone()], &[(regions[1], &[(&a, 5)])]);
        places.take_in(&b, &word, |_| true);
        let mut loads = Loads::of(&view(&["a", "b"], 0), &BTreeSet::new());
        assert_eq!(loads.deal(&regions, &places), [b, a]);
    }

    #[test]
    fn of_regions_that_may_move_the_one_that_gains_the_most_goes() {
        let mut view = view(&["a"], 4);
        let [a, b] = ["a", "b"].map(server);
        view.servers.insert(b.clone(), Default::default());
        let regions: Vec<_> = view.regions.keys().copied().collect();
        let places = places(
            &[a.clone(), b.clone()],
            &[
                (regions[0], &[(&a, 9), (&b, 9)]),
                (regions[1], &[(&b, 7)]),
                (regions[2], &[(&b, 9), (&a, 5)]),
                (regions[3], &[(&a, 9)]),
            ],
        );
        let moves = even_out(&view, &BTreeSet::new(), &places, 100);
        let moved: BTreeSet<_> = moves.iter().map(|one| one.region).collect();
        assert_eq!(moved, [regions[1], regions[2]].into());
    }
}
