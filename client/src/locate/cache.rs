//! The known regions of one table.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use basalt_hbase_rpc::MovedRegion;
use basalt_model::TableName;
use bytes::Bytes;
use parking_lot::RwLock;

use super::RegionLocation;

/// Which region to find.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// The region that has this row.
    Of(&'a [u8]),
    /// The region that ends where this row begins; the table's last one if it is empty.
    Before(&'a [u8]),
}

/// The known regions of one table, by start key. They never overlap.
#[derive(Debug)]
pub(crate) struct TableRegions {
    table: TableName,
    slots: RwLock<BTreeMap<Bytes, Slot>>,
    /// Serializes lookups of rows that are in no known region.
    turn: Turn,
}

type Turn = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug)]
struct Slot {
    location: Arc<RegionLocation>,
    stale: bool,
    turn: Turn,
}

// === impl Place ===

impl<'a> Place<'a> {
    pub(super) fn row(self) -> &'a [u8] {
        match self {
            Self::Of(row) | Self::Before(row) => row,
        }
    }
}

// === impl TableRegions ===

impl TableRegions {
    pub(super) fn new(table: TableName) -> Self {
        Self { table, slots: RwLock::new(BTreeMap::new()), turn: Turn::default() }
    }

    pub(crate) fn table(&self) -> &TableName {
        &self.table
    }

    /// The location at `place`, if it is known and was not denied.
    pub(crate) fn fresh(&self, place: Place<'_>) -> Option<Arc<RegionLocation>> {
        let slots = self.slots.read();
        let slot = find(&slots, place)?;
        (!slot.stale).then(|| slot.location.clone())
    }

    /// Whether the region at `place` is known, and the lock that serializes its lookups.
    pub(super) fn lookup_turn(&self, place: Place<'_>) -> (bool, Turn) {
        match find(&self.slots.read(), place) {
            Some(slot) => (true, slot.turn.clone()),
            None => (false, self.turn.clone()),
        }
    }

    /// Records what the meta table says. Other regions in the same range no longer exist.
    pub(super) fn learn(&self, found: Vec<RegionLocation>) {
        let mut slots = self.slots.write();
        for location in found {
            let start = location.region.start_key.clone();
            let overlapping = overlapping(&slots, &location);
            let mut turn = None;
            for key in overlapping {
                let gone = slots.remove(&key);
                if key == start {
                    turn = gone.map(|slot| slot.turn);
                }
            }
            let slot =
                Slot { location: Arc::new(location), stale: false, turn: turn.unwrap_or_default() };
            slots.insert(start, slot);
        }
    }

    /// Marks `location` as wrong. Does nothing if it was replaced in the meantime.
    pub(super) fn deny(&self, location: &Arc<RegionLocation>) {
        if let Some(slot) = self.slots.write().get_mut(&location.region.start_key)
            && Arc::ptr_eq(&slot.location, location)
        {
            slot.stale = true;
        }
    }

    /// Records the new location of a region, as the server of `location` reports it.
    pub(super) fn follow(&self, location: &Arc<RegionLocation>, moved_to: &MovedRegion) {
        if let Some(slot) = self.slots.write().get_mut(&location.region.start_key)
            && Arc::ptr_eq(&slot.location, location)
        {
            // A server that points to itself, or to an older location, does not help.
            if moved_to.server == location.server
                || moved_to.location_sequence_id < location.open_sequence_id
            {
                slot.stale = true;
                return;
            }
            slot.location = Arc::new(RegionLocation {
                server: moved_to.server.clone(),
                open_sequence_id: moved_to.location_sequence_id,
                ..RegionLocation::clone(location)
            });
            slot.stale = false;
        }
    }

    pub(super) fn clear(&self) {
        self.slots.write().clear();
    }
}

fn find<'a>(slots: &'a BTreeMap<Bytes, Slot>, place: Place<'_>) -> Option<&'a Slot> {
    let (range, fits): (_, fn(&RegionLocation, &[u8]) -> bool) = match place {
        Place::Of(row) => ((Bound::Unbounded, Bound::Included(row)), |location, row| {
            location.region.contains(row)
        }),
        Place::Before([]) => {
            ((Bound::Unbounded, Bound::Unbounded), |location, _| location.region.end_key.is_empty())
        }
        Place::Before(row) => ((Bound::Unbounded, Bound::Excluded(row)), |location, row| {
            let end = &location.region.end_key;
            end.is_empty() || end >= row
        }),
    };
    let (_, slot) = slots.range::<[u8], _>(range).next_back()?;
    fits(&slot.location, place.row()).then_some(slot)
}

fn overlapping(slots: &BTreeMap<Bytes, Slot>, location: &RegionLocation) -> Vec<Bytes> {
    let (start, end) = (&location.region.start_key, &location.region.end_key);
    let upper = match &end[..] {
        [] => Bound::Unbounded,
        end => Bound::Excluded(end),
    };
    let before = slots
        .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&start[..])))
        .next_back()
        .filter(|(_, slot)| slot.location.region.contains(start));
    let within = slots.range::<[u8], _>((Bound::Included(&start[..]), upper));
    before.into_iter().chain(within).map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::RegionInfo;

    fn location(start: &'static str, end: &'static str, server: &str) -> RegionLocation {
        let (start, end) = (Bytes::from(start), Bytes::from(end));
        let region = RegionInfo::primary("t".parse().unwrap(), start, end, 1);
        RegionLocation {
            name: region.name(),
            region,
            server: server.parse().unwrap(),
            open_sequence_id: 5,
            replicas: BTreeMap::new(),
        }
    }

    fn regions() -> TableRegions {
        let regions = TableRegions::new("t".parse().unwrap());
        regions.learn(vec![
            location("", "b", "a,1,1"),
            location("b", "d", "b,1,1"),
            location("d", "", "c,1,1"),
        ]);
        regions
    }

    fn host(regions: &TableRegions, place: Place<'_>) -> Option<String> {
        Some(regions.fresh(place)?.server.host.clone())
    }

    #[test]
    fn a_row_is_in_its_region() {
        let regions = regions();
        for (row, server) in [("", "a"), ("az", "a"), ("b", "b"), ("c", "b"), ("d", "c")] {
            let found = host(&regions, Place::Of(row.as_bytes()));
            assert_eq!(found.as_deref(), Some(server), "{row}");
        }
        for (row, server) in [("", "c"), ("d", "b"), ("da", "c"), ("b", "a")] {
            let found = host(&regions, Place::Before(row.as_bytes()));
            assert_eq!(found.as_deref(), Some(server), "before {row}");
        }
    }

    #[test]
    fn a_denied_location_is_no_more_given_and_only_that_one() {
        let regions = regions();
        let wrong = regions.fresh(Place::Of(b"b")).unwrap();
        regions.deny(&wrong);
        assert_eq!(host(&regions, Place::Of(b"b")), None);
        assert_eq!(host(&regions, Place::Of(b"d")).as_deref(), Some("c"));
        assert!(regions.lookup_turn(Place::Of(b"c")).0, "its range stays known");
        regions.learn(vec![location("b", "d", "new,1,1")]);
        regions.deny(&wrong);
        assert_eq!(host(&regions, Place::Of(b"b")).as_deref(), Some("new"));
    }

    #[test]
    fn a_moved_region_is_followed_but_never_back_in_time() {
        let regions = regions();
        let old = regions.fresh(Place::Of(b"b")).unwrap();
        let moved = |server: &str, location_sequence_id| MovedRegion {
            server: server.parse().unwrap(),
            location_sequence_id,
        };
        regions.follow(&old, &moved("x,1,1", 6));
        assert_eq!(host(&regions, Place::Of(b"b")).as_deref(), Some("x"));
        let new = regions.fresh(Place::Of(b"b")).unwrap();
        regions.follow(&new, &moved("b,1,1", 5));
        assert_eq!(host(&regions, Place::Of(b"b")), None);
    }

    #[test]
    fn daughters_replace_their_parent_and_a_merge_its_parents() {
        let regions = regions();
        regions.learn(vec![location("c", "d", "daughter,1,1")]);
        assert_eq!(host(&regions, Place::Of(b"c")).as_deref(), Some("daughter"));
        assert_eq!(host(&regions, Place::Of(b"b")), None);
        regions.learn(vec![location("", "", "merged,1,1")]);
        for row in ["", "b", "c", "d"] {
            let found = host(&regions, Place::Of(row.as_bytes()));
            assert_eq!(found.as_deref(), Some("merged"));
        }
    }
}
