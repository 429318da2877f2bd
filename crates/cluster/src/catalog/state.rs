//! The copy itself: pure.

use std::collections::BTreeMap;
use std::ops::Bound;

use basalt_model::{EncodedRegionName, RegionInfo, ReplicaId, ServerName, TableName};
use bytes::Bytes;

use crate::{RegionRecord, TableRecord, pb};

/// A record with its version in the coordinator, on condition of which it is written again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Versioned<T> {
    /// The record.
    pub record: T,
    /// Its node's version.
    pub version: i32,
    /// The transaction that wrote it; a later one is higher, also when the node was made anew.
    pub zxid: i64,
}

/// Where a region stands in `hbase:meta`: by table, first row, id and replica.
type MetaKey = (TableName, Bytes, u64, ReplicaId);

/// What is known.
#[derive(Debug, Default)]
pub(super) struct CatalogState {
    pub(super) regions: BTreeMap<EncodedRegionName, Versioned<RegionRecord>>,
    in_meta_order: BTreeMap<MetaKey, EncodedRegionName>,
    pub(super) tables: BTreeMap<TableName, Versioned<TableRecord>>,
    pub(super) servers: BTreeMap<ServerName, pb::ServerRecord>,
    pub(super) master: Option<pb::MasterRecord>,
    pub(super) cluster_id: String,
}

// === impl CatalogState ===

impl CatalogState {
    /// Takes a record in, unless a newer one is here already.
    pub(super) fn put_region(&mut self, record: Versioned<RegionRecord>) {
        let name = record.record.encoded_name();
        if self
            .regions
            .get(&name)
            .is_some_and(|known| known.zxid > record.zxid)
        {
            return;
        }
        self.in_meta_order
            .insert(meta_key(&record.record.info), name);
        self.regions.insert(name, record);
    }

    pub(super) fn remove_region(&mut self, name: EncodedRegionName) {
        if let Some(removed) = self.regions.remove(&name) {
            self.in_meta_order.remove(&meta_key(&removed.record.info));
        }
    }

    pub(super) fn put_table(&mut self, record: Versioned<TableRecord>) {
        let name = record.record.descriptor.name.clone();
        if self
            .tables
            .get(&name)
            .is_none_or(|known| known.zxid <= record.zxid)
        {
            self.tables.insert(name, record);
        }
    }

    pub(super) fn regions_of(&self, table: &TableName) -> Vec<Versioned<RegionRecord>> {
        let first = (table.clone(), Bytes::new(), 0, ReplicaId(0));
        let from_first = self.in_meta_order.range(first..);
        let names = from_first
            .take_while(|(key, _)| key.0 == *table)
            .map(|(_, name)| name);
        names
            .filter_map(|name| self.regions.get(name).cloned())
            .collect()
    }

    pub(super) fn regions_after(
        &self,
        after: Option<&RegionInfo>,
        count: usize,
    ) -> Vec<Versioned<RegionRecord>> {
        let from = after.map_or(Bound::Unbounded, |info| Bound::Excluded(meta_key(info)));
        let names = self
            .in_meta_order
            .range((from, Bound::Unbounded))
            .map(|(_, name)| name);
        names
            .take(count)
            .filter_map(|name| self.regions.get(name).cloned())
            .collect()
    }

    pub(super) fn region_of(
        &self,
        table: &TableName,
        row: &[u8],
    ) -> Option<Versioned<RegionRecord>> {
        let last = (
            table.clone(),
            Bytes::copy_from_slice(row),
            u64::MAX,
            ReplicaId(u16::MAX),
        );
        let up_to_last = self.in_meta_order.range(..=last).rev();
        let mut of_table = up_to_last.take_while(|(key, _)| key.0 == *table);
        let (_, name) = of_table.find(|(key, _)| key.3 == ReplicaId(0))?;
        self.regions
            .get(name)
            .filter(|region| region.record.info.contains(row))
            .cloned()
    }
}

fn meta_key(info: &RegionInfo) -> MetaKey {
    (
        info.table.clone(),
        info.start_key.clone(),
        info.region_id,
        info.replica,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(start: &str, end: &str, zxid: i64) -> Versioned<RegionRecord> {
        let table = "t".parse().unwrap();
        let (start, end) = (Bytes::from(start.to_owned()), Bytes::from(end.to_owned()));
        let record = RegionRecord::new(RegionInfo::primary(table, start, end, 7));
        Versioned {
            record,
            version: 0,
            zxid,
        }
    }

    fn state() -> CatalogState {
        let mut state = CatalogState::default();
        for (start, end) in [("", "b"), ("b", "m"), ("m", "")] {
            state.put_region(record(start, end, 5));
        }
        state
    }

    #[test]
    fn a_row_is_found_in_its_region() {
        let table: TableName = "t".parse().unwrap();
        for (row, start) in [
            ("", ""),
            ("a", ""),
            ("b", "b"),
            ("lzz", "b"),
            ("m", "m"),
            ("z", "m"),
        ] {
            let region = state().region_of(&table, row.as_bytes()).unwrap();
            assert_eq!(region.record.info.start_key, start, "row {row}");
        }
        assert_eq!(state().region_of(&"u".parse().unwrap(), b"a"), None);
    }

    #[test]
    fn an_older_record_does_not_replace_a_newer_one() {
        let mut state = state();
        let mut newer = record("b", "m", 9);
        newer.version = 3;
        state.put_region(newer.clone());
        state.put_region(record("b", "m", 8));
        assert_eq!(state.regions_of(&"t".parse().unwrap())[1], newer);
    }

    #[test]
    fn regions_are_listed_from_one_on() {
        let all = state().regions_after(None, 10);
        let rest = state().regions_after(Some(&all[0].record.info), 1);
        assert_eq!(rest, all[1..2]);
    }
}
