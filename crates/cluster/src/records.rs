//! The records of regions and tables, as checked values.
//!
//! Bytes from the coordinator are checked once, in this file. A decoded record is well formed.

use std::collections::{BTreeMap, BTreeSet};

use basalt_model::{
    EncodedRegionName, FamilyDescriptor, RegionEpoch, RegionInfo, RegionState, ReplicaId,
    SequenceId, ServerName, TableDescriptor, TableName, TableState,
};
use bytes::{Buf, Bytes};
use prost::Message;

use crate::{Error, pb};

/// The state and the owner of a region.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegionRecord {
    /// The region.
    pub info: RegionInfo,
    /// The region's state.
    pub state: RegionState,
    /// The epoch of the current ownership. Raised in the write that names another owner.
    pub epoch: RegionEpoch,
    /// The owner, or the last one while the region is closed.
    pub server: Option<ServerName>,
    /// Fenced servers whose sealed logs hold edits of this region that are not yet in store files,
    /// in the order in which they owned it.
    pub unflushed: Vec<ServerName>,
    /// The sequence id with which the owner opened it.
    pub open_sequence_id: SequenceId,
}

/// For each family that was added after its table was created: the version of the table's record
/// with which it was added, so at least 1. A family that is removed and added again gets another
/// one, and begins empty.
pub type FamilyIncarnations = BTreeMap<String, u64>;

/// A table and whether it may be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableRecord {
    /// The table as it was declared.
    pub descriptor: TableDescriptor,
    /// Whether it may be used.
    pub state: TableState,
    /// When its families were added.
    pub incarnations: FamilyIncarnations,
    /// Families that were removed while the table was enabled. A region that has not been reopened
    /// since still acknowledges writes to them. So none of them must be added again: the region
    /// would drop those writes when it is reopened.
    pub removed: BTreeSet<String>,
}

// === impl RegionRecord ===

impl RegionRecord {
    /// A region that has never had an owner.
    pub fn new(info: RegionInfo) -> Self {
        Self {
            info,
            state: RegionState::Closed,
            epoch: RegionEpoch(0),
            server: None,
            unflushed: Vec::new(),
            open_sequence_id: SequenceId(0),
        }
    }

    /// The region's encoded name.
    pub fn encoded_name(&self) -> EncodedRegionName {
        self.info.encoded_name()
    }

    /// Whether `server` serves the region, or is assigned to open it.
    pub fn is_owned_by(&self, server: &ServerName) -> bool {
        self.state != RegionState::Closed && self.server.as_ref() == Some(server)
    }

    /// The servers whose logs may hold edits that the region still needs: those that it names as
    /// unflushed, and its owner unless it is closed.
    pub fn servers_of_logs(&self) -> impl Iterator<Item = &ServerName> {
        let owner = self.server.as_ref().filter(|server| self.is_owned_by(server));
        self.unflushed.iter().chain(owner)
    }

    /// The record that assigns the region to `server` under a new epoch.
    #[must_use]
    pub fn assigned_to(&self, server: ServerName) -> Self {
        Self {
            state: RegionState::Opening,
            epoch: self.epoch.next(),
            server: Some(server),
            ..self.clone()
        }
    }

    /// Decodes the data of a node.
    ///
    /// # Errors
    /// The bytes are not a region record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Self::try_from(decode::<pb::RegionRecord>("region", bytes)?)
    }

    /// Encodes the data of a node.
    pub fn encode(&self) -> Bytes {
        pb::RegionRecord::from(self).encode_to_vec().into()
    }
}

impl TryFrom<pb::RegionRecord> for RegionRecord {
    type Error = Error;

    fn try_from(record: pb::RegionRecord) -> Result<Self, Error> {
        let state = match record.state() {
            pb::RegionStateRecord::RegionStateClosed => RegionState::Closed,
            pb::RegionStateRecord::RegionStateOpening => RegionState::Opening,
            pb::RegionStateRecord::RegionStateOpen => RegionState::Open,
            pb::RegionStateRecord::RegionStateClosing => RegionState::Closing,
            pb::RegionStateRecord::RegionStateUnspecified => {
                return Err(Error::Undecodable {
                    record: "region",
                    reason: format!("state {} is unknown", record.state),
                });
            }
        };
        let invalid_name = |source| Error::InvalidName { record: "region", source };
        let info = RegionInfo {
            table: TableName::new(&record.namespace, &record.qualifier).map_err(invalid_name)?,
            start_key: record.start_key.into(),
            end_key: record.end_key.into(),
            region_id: record.region_id,
            replica: ReplicaId(small("region", "replica", record.replica)?),
        };
        let server = match record.server_name.as_str() {
            "" => None,
            name => Some(name.parse().map_err(invalid_name)?),
        };
        let unflushed = record.unflushed_servers.iter().map(|name| name.parse());
        Ok(Self {
            info,
            state,
            epoch: RegionEpoch(record.epoch),
            server,
            unflushed: unflushed.collect::<Result<_, _>>().map_err(invalid_name)?,
            open_sequence_id: SequenceId(record.open_sequence_id),
        })
    }
}

impl From<&RegionRecord> for pb::RegionRecord {
    fn from(record: &RegionRecord) -> Self {
        let state = match record.state {
            RegionState::Closed => pb::RegionStateRecord::RegionStateClosed,
            RegionState::Opening => pb::RegionStateRecord::RegionStateOpening,
            RegionState::Open => pb::RegionStateRecord::RegionStateOpen,
            RegionState::Closing => pb::RegionStateRecord::RegionStateClosing,
        };
        Self {
            namespace: record.info.table.namespace().to_owned(),
            qualifier: record.info.table.qualifier().to_owned(),
            start_key: record.info.start_key.to_vec(),
            end_key: record.info.end_key.to_vec(),
            region_id: record.info.region_id,
            replica: record.info.replica.0.into(),
            state: state.into(),
            epoch: record.epoch.0,
            server_name: record.server.as_ref().map(ToString::to_string).unwrap_or_default(),
            unflushed_servers: record.unflushed.iter().map(ToString::to_string).collect(),
            open_sequence_id: record.open_sequence_id.0,
        }
    }
}

// === impl TableRecord ===

impl TableRecord {
    /// A table that has not been altered yet.
    pub fn new(descriptor: TableDescriptor, state: TableState) -> Self {
        Self { descriptor, state, incarnations: BTreeMap::new(), removed: BTreeSet::new() }
    }

    /// Decodes the data of a node.
    ///
    /// # Errors
    /// The bytes are not a table record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let record: pb::TableRecord = decode("table", bytes)?;
        let state = match record.state() {
            pb::TableStateRecord::TableStateEnabled => TableState::Enabled,
            pb::TableStateRecord::TableStateDisabled => TableState::Disabled,
            pb::TableStateRecord::TableStateDisabling => TableState::Disabling,
            pb::TableStateRecord::TableStateEnabling => TableState::Enabling,
            pb::TableStateRecord::TableStateUnspecified => {
                return Err(Error::Undecodable {
                    record: "table",
                    reason: format!("state {} is unknown", record.state),
                });
            }
        };
        let descriptor = read_descriptor(record.descriptor.unwrap_or_default())?;
        let incarnations = record.family_incarnations.into_iter().collect();
        let removed = record.removed_families.into_iter().collect();
        Ok(Self { descriptor, state, incarnations, removed })
    }

    /// Encodes the data of a node.
    pub fn encode(&self) -> Bytes {
        let state = match self.state {
            TableState::Enabled => pb::TableStateRecord::TableStateEnabled,
            TableState::Disabled => pb::TableStateRecord::TableStateDisabled,
            TableState::Disabling => pb::TableStateRecord::TableStateDisabling,
            TableState::Enabling => pb::TableStateRecord::TableStateEnabling,
        };
        let descriptor = Some(write_descriptor(&self.descriptor));
        let record = pb::TableRecord {
            descriptor,
            state: state.into(),
            family_incarnations: self.incarnations.clone().into_iter().collect(),
            removed_families: self.removed.iter().cloned().collect(),
        };
        record.encode_to_vec().into()
    }

    /// The record with another descriptor, to be written as `version` of the record. If
    /// `are_recorded`, families that are new get an incarnation. An earlier release would drop it.
    #[must_use]
    pub fn with_descriptor(
        mut self,
        descriptor: TableDescriptor,
        version: u64,
        are_recorded: bool,
    ) -> Self {
        let new = descriptor
            .families
            .keys()
            .filter(|name| are_recorded && !self.descriptor.families.contains_key(*name));
        let new: Vec<String> = new.cloned().collect();
        self.incarnations.retain(|name, _| descriptor.families.contains_key(name));
        self.incarnations.extend(new.into_iter().map(|name| (name, version)));
        if self.state != TableState::Disabled {
            let before = self.descriptor.families.keys();
            let gone = before.filter(|name| !descriptor.families.contains_key(*name));
            self.removed.extend(gone.cloned());
        }
        Self { descriptor, ..self }
    }

    /// The record once no region is served with an earlier descriptor.
    #[must_use]
    pub fn in_effect(self) -> Self {
        Self { removed: BTreeSet::new(), ..self }
    }

    /// The first family of `descriptor` that cannot be added yet, because it was removed and a
    /// region may still serve it.
    pub fn still_served<'a>(&self, descriptor: &'a TableDescriptor) -> Option<&'a str> {
        let mut names = descriptor.families.keys();
        names.find(|name| self.removed.contains(*name)).map(String::as_str)
    }
}

/// Decodes a descriptor.
///
/// # Errors
/// A name or a setting is invalid.
pub fn read_descriptor(record: pb::TableDescriptorRecord) -> Result<TableDescriptor, Error> {
    let invalid_name = |source| Error::InvalidName { record: "table", source };
    let name = TableName::new(&record.namespace, &record.qualifier).map_err(invalid_name)?;
    let families = record.families.into_iter().map(|family| {
        let family = read_family(family).map_err(invalid_name)?;
        Ok((family.name.clone(), family))
    });
    Ok(TableDescriptor {
        name,
        families: families.collect::<Result<_, Error>>()?,
        region_replication: small("table", "region replication", record.region_replication)?.max(1),
        settings: record.settings.into_iter().collect(),
    })
}

/// Encodes a descriptor.
pub fn write_descriptor(descriptor: &TableDescriptor) -> pb::TableDescriptorRecord {
    pb::TableDescriptorRecord {
        namespace: descriptor.name.namespace().to_owned(),
        qualifier: descriptor.name.qualifier().to_owned(),
        families: descriptor.families.values().map(write_family).collect(),
        region_replication: descriptor.region_replication.into(),
        settings: descriptor.settings.clone().into_iter().collect(),
    }
}

fn read_family(record: pb::FamilyRecord) -> Result<FamilyDescriptor, basalt_model::Error> {
    Ok(FamilyDescriptor {
        versions_max: record.versions_max,
        versions_min: record.versions_min,
        time_to_live_s: Some(record.time_to_live_s).filter(|seconds| *seconds > 0),
        compression: record.compression.parse()?,
        bloom: record.bloom.parse()?,
        block_bytes: record.block_bytes,
        block_cache: record.block_cache,
        keep_deleted_cells: record.keep_deleted_cells.parse()?,
        settings: record.settings.into_iter().collect(),
        name: record.name,
    })
}

fn write_family(family: &FamilyDescriptor) -> pb::FamilyRecord {
    pb::FamilyRecord {
        name: family.name.clone(),
        versions_max: family.versions_max,
        versions_min: family.versions_min,
        time_to_live_s: family.time_to_live_s.unwrap_or_default(),
        compression: family.compression.name().to_owned(),
        bloom: family.bloom.name().to_owned(),
        block_bytes: family.block_bytes,
        block_cache: family.block_cache,
        keep_deleted_cells: family.keep_deleted_cells.name().to_owned(),
        settings: family.settings.clone().into_iter().collect(),
    }
}

/// A 16-bit number that messages store as 32 bits.
fn small(record: &'static str, field: &str, number: u32) -> Result<u16, Error> {
    u16::try_from(number).map_err(|_| Error::Undecodable {
        record,
        reason: format!("{field} {number} is above {}", u16::MAX),
    })
}

/// Decodes a message; `record` is its kind, for the error.
///
/// # Errors
/// [`Error::Undecodable`].
pub fn decode<T: Message + Default>(record: &'static str, data: impl Buf) -> Result<T, Error> {
    T::decode(data).map_err(|error| Error::Undecodable { record, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_record_reads_as_it_was_written() {
        let info = RegionInfo::primary(
            "ns:t".parse().unwrap(),
            Bytes::from_static(b"a"),
            Bytes::from_static(b"m"),
            17,
        );
        let mut record = RegionRecord::new(info).assigned_to("rs-0,16020,5".parse().unwrap());
        record.unflushed.push("rs-1,16020,4".parse().unwrap());
        assert_eq!(record.epoch, RegionEpoch(1));
        assert_eq!(RegionRecord::decode(&record.encode()).unwrap(), record);
    }

    /// A table `t` with families of these names.
    fn with(names: &[&str]) -> TableDescriptor {
        let family = |name: &&str| ((*name).to_owned(), FamilyDescriptor::new(name));
        TableDescriptor {
            name: "t".parse().unwrap(),
            families: names.iter().map(family).collect(),
            region_replication: 1,
            settings: BTreeMap::new(),
        }
    }

    #[test]
    fn a_family_that_is_added_again_has_another_incarnation() {
        let incarnations = |record: &TableRecord| {
            let all = record.incarnations.iter();
            all.map(|(name, number)| format!("{name}{number}")).collect::<Vec<_>>()
        };
        let record = TableRecord::new(with(&["f", "g"]), TableState::Disabled);
        let record = record.with_descriptor(with(&["f", "g", "h"]), 1, true);
        assert_eq!(incarnations(&record), ["h1"]);
        let record = record.with_descriptor(with(&["f", "h"]), 2, true);
        assert_eq!(incarnations(&record), ["h1"]);
        let record = record.with_descriptor(with(&["f", "g", "h"]), 3, true);
        assert_eq!(incarnations(&record), ["g3", "h1"]);
        let record = record.with_descriptor(with(&["f"]), 4, true);
        assert_eq!(incarnations(&record), [""; 0]);
        let record = record.with_descriptor(with(&["f", "g"]), 5, false);
        assert_eq!(incarnations(&record), [""; 0], "an earlier release would ignore it");
    }

    #[test]
    fn a_family_that_a_region_may_still_serve_is_not_added_again() {
        let record = TableRecord::new(with(&["f", "g", "h"]), TableState::Enabled);
        let record = record.with_descriptor(with(&["f", "h"]), 1, true);
        let record = record.with_descriptor(with(&["f"]), 2, true);
        assert_eq!(record.still_served(&with(&["f", "g"])), Some("g"));
        assert_eq!(record.still_served(&with(&["f", "h"])), Some("h"));
        assert_eq!(record.still_served(&with(&["f", "i"])), None);
        assert_eq!(record.in_effect().still_served(&with(&["f", "g", "h"])), None);
        let disabled = TableRecord::new(with(&["f", "g"]), TableState::Disabled);
        let disabled = disabled.with_descriptor(with(&["f"]), 1, true);
        assert_eq!(disabled.still_served(&with(&["f", "g"])), None, "no region was open");
    }

    #[test]
    fn a_table_record_reads_as_it_was_written() {
        let mut family = FamilyDescriptor::new("f");
        family.time_to_live_s = Some(60);
        let descriptor = TableDescriptor {
            name: "t".parse().unwrap(),
            families: [("f".to_owned(), family)].into(),
            region_replication: 1,
            settings: [("k".to_owned(), "v".to_owned())].into(),
        };
        let record = TableRecord {
            descriptor,
            state: TableState::Disabling,
            incarnations: [("f".to_owned(), 3)].into(),
            removed: ["g".to_owned()].into(),
        };
        assert_eq!(TableRecord::decode(&record.encode()).unwrap(), record);
    }

    #[test]
    fn a_number_that_is_too_large_is_refused_not_cut() {
        let info = RegionInfo::primary("t".parse().unwrap(), Bytes::new(), Bytes::new(), 1);
        let mut record = pb::RegionRecord::from(&RegionRecord::new(info));
        record.replica = 0x1_0001;
        let error = RegionRecord::decode(&record.encode_to_vec()).unwrap_err().to_string();
        assert!(error.contains("replica 65537 is above 65535"), "{error}");
    }

    #[test]
    fn a_record_of_no_state_is_refused() {
        assert!(RegionRecord::decode(&[]).is_err());
        assert!(TableRecord::decode(&[]).is_err());
    }
}
