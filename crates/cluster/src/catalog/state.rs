//! The data of the copy, without any I/O.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use basalt_hbase_rpc::meta;
use basalt_model::{EncodedRegionName, ReplicaId, ServerName, TableName};
use bytes::Bytes;

use crate::{RegionRecord, TableRecord, pb};

/// A record with the version of its node. It is rewritten only on condition of that version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Versioned<T> {
    /// The record.
    pub record: T,
    /// The version of its node.
    pub version: i32,
    /// The transaction that wrote the record. A later write has a higher one, even if the node was
    /// deleted and created again in between.
    pub zxid: i64,
}

/// A region's record, shared by all its readers.
pub type SharedRegion = Arc<Versioned<RegionRecord>>;

/// A row key of `hbase:meta`, ordered as in that table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MetaRow(pub(crate) Bytes);

/// The subject of a row of `hbase:meta`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum MetaSubject {
    /// The location of a region.
    Region(EncodedRegionName),
    /// The state of a table.
    Table(TableName),
}

/// The records that are known.
#[derive(Debug, Default)]
pub(super) struct CatalogState {
    pub(super) regions: BTreeMap<EncodedRegionName, SharedRegion>,
    pub(super) rows: BTreeMap<MetaRow, MetaSubject>,
    pub(super) tables: BTreeMap<TableName, Versioned<TableRecord>>,
    pub(super) servers: BTreeMap<ServerName, pb::ServerRecord>,
    pub(super) master: Option<pb::MasterRecord>,
    pub(super) cluster_id: String,
}

// === impl CatalogState ===

impl CatalogState {
    /// Stores a record, unless a newer one is already stored.
    pub(super) fn put_region(&mut self, name: EncodedRegionName, record: Versioned<RegionRecord>) {
        let known = self.regions.get(&name);
        if known.is_some_and(|known| known.zxid > record.zxid) {
            return;
        }
        let info = &record.record.info;
        if known.is_none() && info.replica == ReplicaId(0) {
            self.rows.insert(MetaRow(info.name()), MetaSubject::Region(name));
        }
        self.regions.insert(name, Arc::new(record));
    }

    pub(super) fn remove_region(&mut self, name: EncodedRegionName) {
        if let Some(removed) = self.regions.remove(&name) {
            self.rows.remove(&MetaRow(removed.record.info.name()));
        }
    }

    pub(super) fn put_table(&mut self, record: Versioned<TableRecord>) {
        let name = record.record.descriptor.name.clone();
        if self.tables.get(&name).is_none_or(|known| known.zxid <= record.zxid) {
            self.rows.insert(table_row(&name), MetaSubject::Table(name.clone()));
            self.tables.insert(name, record);
        }
    }

    /// Removes the tables that `is_gone` selects.
    pub(super) fn remove_tables(&mut self, is_gone: impl Fn(&TableName) -> bool) {
        let gone: Vec<TableName> =
            self.tables.keys().filter(|name| is_gone(name)).cloned().collect();
        for name in gone {
            self.rows.remove(&table_row(&name));
            self.tables.remove(&name);
        }
    }

    pub(super) fn regions_of(&self, table: &TableName) -> Vec<SharedRegion> {
        let rows = MetaRow(meta::first_row(table))..MetaRow(meta::end_row(table));
        self.rows.range(rows).filter_map(|(_, subject)| self.region(subject)).cloned().collect()
    }

    pub(super) fn region_of(&self, table: &TableName, row: &[u8]) -> Option<SharedRegion> {
        let last = MetaRow(meta::search_row(table, row));
        let mut before = self.rows.range((Bound::Unbounded, Bound::Included(last))).rev();
        let region = self.region(before.next()?.1)?;
        let info = &region.record.info;
        (info.table == *table && info.contains(row)).then(|| Arc::clone(region))
    }

    fn region(&self, subject: &MetaSubject) -> Option<&SharedRegion> {
        match subject {
            MetaSubject::Region(name) => self.regions.get(name),
            MetaSubject::Table(_) => None,
        }
    }
}

// === impl MetaRow ===

impl Ord for MetaRow {
    fn cmp(&self, other: &Self) -> Ordering {
        meta::compare_rows(&self.0, &other.0).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for MetaRow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn table_row(table: &TableName) -> MetaRow {
    MetaRow(table.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::RegionInfo;

    fn record(start: &str, end: &str, zxid: i64) -> Versioned<RegionRecord> {
        let table = "t".parse().unwrap();
        let (start, end) = (Bytes::from(start.to_owned()), Bytes::from(end.to_owned()));
        let record = RegionRecord::new(RegionInfo::primary(table, start, end, 7));
        Versioned { record, version: 0, zxid }
    }

    fn put(state: &mut CatalogState, record: Versioned<RegionRecord>) {
        state.put_region(record.record.encoded_name(), record);
    }

    fn state() -> CatalogState {
        let mut state = CatalogState::default();
        for (start, end) in [("", "b"), ("b", "m"), ("m", "")] {
            put(&mut state, record(start, end, 5));
        }
        state
    }

    #[test]
    fn a_row_is_found_in_its_region() {
        let table: TableName = "t".parse().unwrap();
        for (row, start) in [("", ""), ("a", ""), ("b", "b"), ("lzz", "b"), ("m", "m"), ("z", "m")]
        {
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
        put(&mut state, newer.clone());
        put(&mut state, record("b", "m", 8));
        assert_eq!(*state.regions_of(&"t".parse().unwrap())[1], newer);
    }
}
