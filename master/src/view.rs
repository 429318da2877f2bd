//! The state of the cluster as the master knows it at one moment, as a value for decisions.
//!
//! It may lag behind what region servers write, but never behind what this master has written. Each
//! decision is committed on condition of the versions on which it is based, so a stale view costs
//! only a second attempt.

use std::collections::BTreeMap;

use basalt_cluster::catalog::{SharedRegion, Versioned};
use basalt_cluster::{RegionRecord, TableRecord, pb};
use basalt_model::{EncodedRegionName, ServerName, TableName, TableState};

/// The records of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) tables: BTreeMap<TableName, Versioned<TableRecord>>,
    pub(crate) regions: BTreeMap<EncodedRegionName, SharedRegion>,
    pub(crate) servers: BTreeMap<ServerName, pb::ServerRecord>,
}

/// A region's next record, written on condition of the version on which it was decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RegionWrite {
    pub(crate) name: EncodedRegionName,
    pub(crate) over_version: i32,
    pub(crate) record: RegionRecord,
}

// === impl RegionWrite ===

impl RegionWrite {
    /// The write that replaces `known` with `record`.
    pub(crate) fn over(known: &SharedRegion, record: RegionRecord) -> Self {
        Self { name: record.encoded_name(), over_version: known.version, record }
    }
}

// === impl View ===

impl View {
    /// Whether a region server is alive.
    pub(crate) fn lives(&self, server: &ServerName) -> bool {
        self.servers.contains_key(server)
    }

    /// The regions that `server` serves, or is assigned to open.
    pub(crate) fn owned_by<'a>(
        &'a self,
        server: &'a ServerName,
    ) -> impl Iterator<Item = &'a SharedRegion> {
        self.regions.values().filter(move |region| region.record.is_owned_by(server))
    }

    /// The regions of `table`, in the order of their keys.
    pub(crate) fn of_table(&self, table: &TableName) -> Vec<&SharedRegion> {
        let mut regions: Vec<_> =
            self.regions.values().filter(|region| region.record.info.table == *table).collect();
        regions.sort_by(|a, b| a.record.info.cmp(&b.record.info));
        regions
    }

    /// The state of `table`; `None` if it does not exist.
    pub(crate) fn table_state(&self, table: &TableName) -> Option<TableState> {
        self.tables.get(table).map(|entry| entry.record.state)
    }

    /// Whether the regions of `table` must be served.
    pub(crate) fn is_to_be_served(&self, table: &TableName) -> bool {
        matches!(self.table_state(table), Some(TableState::Enabled | TableState::Enabling))
    }
}

/// Fixtures for tests of decisions.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use basalt_model::{FamilyDescriptor, RegionInfo, RegionState, TableDescriptor};
    use std::sync::Arc;

    pub(crate) fn server(name: &str) -> ServerName {
        format!("{name},16020,1").parse().unwrap()
    }

    pub(crate) fn region(table: &str, start: &str) -> RegionRecord {
        RegionRecord::new(RegionInfo::primary(
            table.parse().unwrap(),
            start.to_owned().into(),
            bytes::Bytes::new(),
            7,
        ))
    }

    /// `count` open regions of an enabled table `t`, spread over `servers` in turn.
    pub(crate) fn view(servers: &[&str], count: usize) -> View {
        let mut view = View::default();
        for name in servers {
            view.servers.insert(server(name), pb::ServerRecord::default());
        }
        view.tables.insert("t".parse().unwrap(), table("t", TableState::Enabled));
        for number in 0..count {
            let mut record = region("t", &format!("{number:05}"));
            if !servers.is_empty() {
                record = record.assigned_to(server(servers[number % servers.len()]));
                record.state = RegionState::Open;
            }
            view.regions
                .insert(record.encoded_name(), Arc::new(Versioned { record, version: 3, zxid: 3 }));
        }
        view
    }

    /// The record of a region, for changes.
    pub(crate) fn record_of<'a>(
        view: &'a mut View,
        name: &EncodedRegionName,
    ) -> &'a mut RegionRecord {
        record_in(view.regions.get_mut(name).unwrap())
    }

    /// The record in an entry of a view, for changes.
    pub(crate) fn record_in(region: &mut SharedRegion) -> &mut RegionRecord {
        &mut Arc::make_mut(region).record
    }

    pub(crate) fn table(name: &str, state: TableState) -> Versioned<TableRecord> {
        let descriptor = TableDescriptor {
            name: name.parse().unwrap(),
            families: [("f".to_owned(), FamilyDescriptor::new("f"))].into(),
            region_replication: 1,
            settings: BTreeMap::new(),
        };
        Versioned { record: TableRecord::new(descriptor, state), version: 0, zxid: 1 }
    }
}
