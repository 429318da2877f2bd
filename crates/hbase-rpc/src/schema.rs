//! Converts tables, families and regions between descriptors and messages.
//!
//! A Java client sends every setting of a table as an attribute, by its Java name. The settings
//! that Basalt reads become fields of the descriptor, with HBase's defaults where they are absent.
//! All others are kept in `settings` and sent back. In a family, settings with a dot in their name
//! are configuration, as in Java; the others are attributes.

use std::collections::BTreeMap;
use std::str::FromStr;

use basalt_model::{
    FamilyDescriptor, RegionInfo, ReplicaId, TableDescriptor, TableName, TableState,
};
use bytes::Bytes;

use crate::{Error, Result, pb};

const REGION_REPLICATION: &str = "REGION_REPLICATION";
const VERSIONS: &str = "VERSIONS";
const MIN_VERSIONS: &str = "MIN_VERSIONS";
const TTL: &str = "TTL";
const COMPRESSION: &str = "COMPRESSION";
const BLOOMFILTER: &str = "BLOOMFILTER";
const BLOCKSIZE: &str = "BLOCKSIZE";
const BLOCKCACHE: &str = "BLOCKCACHE";
const KEEP_DELETED_CELLS: &str = "KEEP_DELETED_CELLS";

/// Java's "forever", in seconds.
const TTL_FOREVER: u32 = i32::MAX as u32;

type Settings = BTreeMap<String, String>;

/// Encodes a table's name for messages.
pub fn table_name_to_message(table: &TableName) -> pb::TableName {
    pb::TableName {
        namespace: Bytes::copy_from_slice(table.namespace().as_bytes()),
        qualifier: Bytes::copy_from_slice(table.qualifier().as_bytes()),
    }
}

/// Decodes a table's name from a message.
///
/// # Errors
/// [`Error::BadField`] or [`Error::Model`] for a name that HBase would reject.
pub fn table_name_from_message(table: &pb::TableName) -> Result<TableName> {
    let namespace = text("TableName.namespace", &table.namespace)?;
    let qualifier = text("TableName.qualifier", &table.qualifier)?;
    Ok(TableName::new(&namespace, &qualifier)?)
}

/// Encodes a region for messages.
pub fn region_to_message(region: &RegionInfo) -> pb::RegionInfo {
    pb::RegionInfo {
        region_id: region.region_id,
        table_name: table_name_to_message(&region.table),
        start_key: Some(region.start_key.clone()),
        end_key: Some(region.end_key.clone()),
        offline: Some(false),
        split: Some(false),
        replica_id: Some(region.replica.0.into()),
    }
}

/// Decodes a region from a message.
///
/// # Errors
/// [`Error::BadField`] or [`Error::Model`].
pub fn region_from_message(region: &pb::RegionInfo) -> Result<RegionInfo> {
    let replica = u16::try_from(region.replica_id()).map_err(|_| {
        let reason = format!("{} is not between 0 and 65535", region.replica_id());
        Error::bad_field("RegionInfo.replica_id", reason)
    })?;
    Ok(RegionInfo {
        table: table_name_from_message(&region.table_name)?,
        start_key: region.start_key.clone().unwrap_or_default(),
        end_key: region.end_key.clone().unwrap_or_default(),
        region_id: region.region_id,
        replica: ReplicaId(replica),
    })
}

/// Encodes a table's state for messages.
pub fn state_to_message(state: TableState) -> pb::TableState {
    use pb::table_state::State;
    let state = match state {
        TableState::Enabled => State::Enabled,
        TableState::Disabled => State::Disabled,
        TableState::Disabling => State::Disabling,
        TableState::Enabling => State::Enabling,
    };
    let state = state.into();
    pb::TableState { state }
}

/// Decodes a table's state from a message.
///
/// # Errors
/// [`Error::BadField`] for an unknown state.
pub fn state_from_message(message: &pb::TableState) -> Result<TableState> {
    use pb::table_state::State;
    match State::try_from(message.state) {
        Ok(State::Enabled) => Ok(TableState::Enabled),
        Ok(State::Disabled) => Ok(TableState::Disabled),
        Ok(State::Disabling) => Ok(TableState::Disabling),
        Ok(State::Enabling) => Ok(TableState::Enabling),
        Err(error) => Err(Error::bad_field("TableState.state", error.to_string())),
    }
}

/// Encodes a table's descriptor for messages.
pub fn table_to_message(table: &TableDescriptor) -> pb::TableSchema {
    let mut attributes = table.settings.clone();
    if table.region_replication != 1 {
        let replication = table.region_replication.to_string();
        attributes.insert(REGION_REPLICATION.to_owned(), replication);
    }
    pb::TableSchema {
        table_name: Some(table_name_to_message(&table.name)),
        attributes: attributes_to_message(&attributes),
        column_families: table.families.values().map(family_to_message).collect(),
        configuration: Vec::new(),
    }
}

/// Decodes a table's descriptor from a message.
///
/// # Errors
/// [`Error::BadField`] or [`Error::Model`], with the setting that is invalid.
pub fn table_from_message(table: &pb::TableSchema) -> Result<TableDescriptor> {
    let name = table
        .table_name
        .as_ref()
        .ok_or_else(|| Error::bad_field("TableSchema.table_name", "it is missing"))?;
    let mut settings = settings_from_message(&table.attributes, &table.configuration)?;
    let region_replication = take_number(&mut settings, REGION_REPLICATION, 1)?;
    let mut families = BTreeMap::new();
    for family in &table.column_families {
        let family = family_from_message(family)?;
        families.insert(family.name.clone(), family);
    }
    Ok(TableDescriptor {
        name: table_name_from_message(name)?,
        families,
        region_replication,
        settings,
    })
}

/// Encodes a family's descriptor for messages.
pub fn family_to_message(family: &FamilyDescriptor) -> pb::ColumnFamilySchema {
    let (configuration, mut attributes): (Settings, Settings) =
        family.settings.clone().into_iter().partition(|(name, _)| name.contains('.'));
    let time_to_live = family.time_to_live_s.unwrap_or(TTL_FOREVER);
    let own = [
        (VERSIONS, family.versions_max.to_string()),
        (MIN_VERSIONS, family.versions_min.to_string()),
        (TTL, time_to_live.to_string()),
        (COMPRESSION, family.compression.name().to_owned()),
        (BLOOMFILTER, family.bloom.name().to_owned()),
        (BLOCKSIZE, family.block_bytes.to_string()),
        (BLOCKCACHE, family.block_cache.to_string()),
        (KEEP_DELETED_CELLS, family.keep_deleted_cells.name().to_owned()),
    ];
    attributes.extend(own.map(|(name, value)| (name.to_owned(), value)));
    pb::ColumnFamilySchema {
        name: Bytes::copy_from_slice(family.name.as_bytes()),
        attributes: attributes_to_message(&attributes),
        configuration: configuration
            .into_iter()
            .map(|(name, value)| pb::NameStringPair { name, value })
            .collect(),
    }
}

/// Decodes a family's descriptor from a message.
///
/// # Errors
/// [`Error::BadField`] or [`Error::Model`], with the setting that is invalid.
pub fn family_from_message(family: &pb::ColumnFamilySchema) -> Result<FamilyDescriptor> {
    let name = text("ColumnFamilySchema.name", &family.name)?;
    let mut settings = settings_from_message(&family.attributes, &family.configuration)?;
    let settings = &mut settings;
    let defaults = FamilyDescriptor::new(&name);
    let time_to_live = match settings.get(TTL).map(String::as_str) {
        Some("FOREVER") => settings.remove(TTL).map_or(TTL_FOREVER, |_| TTL_FOREVER),
        _ => take_number(settings, TTL, TTL_FOREVER)?,
    };
    Ok(FamilyDescriptor {
        versions_max: take_number(settings, VERSIONS, defaults.versions_max)?,
        versions_min: take_number(settings, MIN_VERSIONS, defaults.versions_min)?,
        time_to_live_s: Some(time_to_live).filter(|seconds| *seconds != TTL_FOREVER),
        compression: take_named(settings, COMPRESSION, defaults.compression)?,
        bloom: take_named(settings, BLOOMFILTER, defaults.bloom)?,
        block_bytes: take_number(settings, BLOCKSIZE, defaults.block_bytes)?,
        block_cache: take_flag(settings, BLOCKCACHE, defaults.block_cache)?,
        keep_deleted_cells: take_named(settings, KEEP_DELETED_CELLS, defaults.keep_deleted_cells)?,
        settings: std::mem::take(settings),
        name,
    })
}

fn attributes_to_message(attributes: &Settings) -> Vec<pb::BytesBytesPair> {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    attributes
        .iter()
        .map(|(name, value)| pb::BytesBytesPair { first: bytes(name), second: bytes(value) })
        .collect()
}

fn settings_from_message(
    attributes: &[pb::BytesBytesPair],
    configuration: &[pb::NameStringPair],
) -> Result<Settings> {
    let mut settings = Settings::new();
    for pair in attributes {
        let name = text("attribute", &pair.first)?;
        settings.insert(name, text("attribute", &pair.second)?);
    }
    for pair in configuration {
        settings.insert(pair.name.clone(), pair.value.clone());
    }
    Ok(settings)
}

fn text(field: &'static str, bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        let reason = format!("{:?} is not UTF-8", bytes.escape_ascii().to_string());
        Error::bad_field(field, reason)
    })
}

fn take_number<N: FromStr>(settings: &mut Settings, name: &'static str, default: N) -> Result<N> {
    match settings.remove(name) {
        None => Ok(default),
        Some(value) => value.trim().parse().map_err(|_| {
            let reason = format!("{value:?} is not a number in its range");
            Error::bad_field(name, reason)
        }),
    }
}

fn take_flag(settings: &mut Settings, name: &'static str, default: bool) -> Result<bool> {
    match settings.remove(name) {
        None => Ok(default),
        Some(value) => value.to_ascii_lowercase().parse().map_err(|_| {
            let reason = format!("{value:?} is neither true nor false");
            Error::bad_field(name, reason)
        }),
    }
}

fn take_named<N>(settings: &mut Settings, name: &str, default: N) -> Result<N>
where
    N: FromStr<Err = basalt_model::Error>,
{
    match settings.remove(name) {
        None => Ok(default),
        Some(value) => Ok(value.parse()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::{BloomType, Compression, KeepDeletedCells};

    fn pair(name: &str, value: &str) -> pb::BytesBytesPair {
        pb::BytesBytesPair {
            first: Bytes::copy_from_slice(name.as_bytes()),
            second: Bytes::copy_from_slice(value.as_bytes()),
        }
    }

    fn family() -> FamilyDescriptor {
        FamilyDescriptor {
            versions_max: 3,
            versions_min: 1,
            time_to_live_s: Some(60),
            compression: Compression::Zstd,
            bloom: BloomType::RowCol,
            block_bytes: 8192,
            block_cache: false,
            keep_deleted_cells: KeepDeletedCells::Ttl,
            settings: [("IN_MEMORY", "true"), ("hbase.store.x", "7")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..FamilyDescriptor::new("f")
        }
    }

    #[test]
    fn a_table_reads_as_it_was_written() {
        let table = TableDescriptor {
            name: "ns:table".parse().unwrap(),
            families: [family(), FamilyDescriptor::new("g")]
                .map(|family| (family.name.clone(), family))
                .into(),
            region_replication: 2,
            settings: [("READONLY".to_owned(), "true".to_owned())].into(),
        };
        let message = table_to_message(&table);
        assert_eq!(table_from_message(&message).unwrap(), table);
    }

    #[test]
    fn a_family_without_attributes_has_hbases_defaults() {
        let message =
            pb::ColumnFamilySchema { name: Bytes::from_static(b"f"), ..Default::default() };
        let family = family_from_message(&message).unwrap();
        assert_eq!(family, FamilyDescriptor::new("f"));
    }

    #[test]
    fn what_has_a_dot_is_configuration() {
        let message = family_to_message(&family());
        assert_eq!(message.configuration.len(), 1);
        assert_eq!(message.configuration[0].name, "hbase.store.x");
        assert!(message.attributes.contains(&pair("IN_MEMORY", "true")));
    }

    #[test]
    fn java_writes_for_ever_in_two_ways() {
        for forever in ["FOREVER", "2147483647"] {
            let message = pb::ColumnFamilySchema {
                name: Bytes::from_static(b"f"),
                attributes: vec![pair(TTL, forever)],
                ..Default::default()
            };
            let family = family_from_message(&message).unwrap();
            assert_eq!(family, FamilyDescriptor::new("f"));
        }
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (name, value) in [(TTL, "soon"), (COMPRESSION, "LZO"), (BLOCKCACHE, "maybe")] {
            let message = pb::ColumnFamilySchema {
                name: Bytes::from_static(b"f"),
                attributes: vec![pair(name, value)],
                ..Default::default()
            };
            let error = family_from_message(&message).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn a_region_reads_as_it_was_written() {
        let mut region = RegionInfo::primary(
            "ns:table".parse().unwrap(),
            Bytes::from_static(b"a"),
            Bytes::from_static(b"b"),
            17,
        );
        region.replica = ReplicaId(1);
        assert_eq!(region_from_message(&region_to_message(&region)).unwrap(), region);
    }
}
