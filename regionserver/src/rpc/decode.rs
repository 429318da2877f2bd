//! Decodes requests into the types of `region`.

use std::collections::{BTreeMap, BTreeSet};

use basalt_fs::Durability;
use basalt_hbase_rpc::message_cells::{self, CellsBeside};
use basalt_hbase_rpc::{Exception, pb};
use basalt_model::{Cell, EncodedRegionName, LATEST_TIMESTAMP};
use basalt_storage::read::{Columns, TimeRange};
use basalt_storage::wal::Nonce;
use bytes::Bytes;

use super::Result;
use crate::region::{Change, Mutation, RowRead, RowUpdate, ScanRange, Update};

/// The attribute that says whether the client wants the new values.
const RETURN_RESULTS: &str = "_rr_";
/// The attribute that gives the cells of a mutation their own time to live.
const CELL_TTL: &str = "_ttl";

/// One mutation of a request.
#[derive(Debug)]
pub(super) enum Decoded {
    /// Puts and deletes, whose effect does not depend on the present values.
    Blind(Mutation),
    /// An increment or an append, and whether the client wants the new values.
    Update { update: RowUpdate, nonce: Option<u64>, return_results: bool },
}

/// The encoded name in a region specifier, which may contain the full name instead.
pub(super) fn region_name(specifier: &pb::RegionSpecifier) -> Result<EncodedRegionName> {
    let value = &specifier.value[..];
    let encoded = match specifier.r#type() {
        pb::region_specifier::RegionSpecifierType::EncodedRegionName => Some(value),
        // `table,start,id.encoded.`: the start key may contain any byte, so count from the end.
        pb::region_specifier::RegionSpecifierType::RegionName => {
            let end = value.len().saturating_sub(1);
            value.get(end.saturating_sub(32)..end)
        }
    };
    let text = encoded.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    text.parse().map_err(|error: basalt_model::Error| {
        Exception::bad_request(format!("{error}, in {}", value.escape_ascii()))
    })
}

/// What a get reads.
pub(super) fn get(get: &pb::Get) -> Result<RowRead> {
    Ok(RowRead {
        families: families(&get.column),
        versions: get.max_versions(),
        time_range: time_range(get.time_range.as_ref()),
        family_time_ranges: family_time_ranges(&get.cf_time_range),
        cache_blocks: get.cache_blocks(),
        family_offset: get.store_offset(),
        family_limit: get.store_limit,
        ..RowRead::all()
    })
}

/// What a scan reads of each row.
pub(super) fn scan_read(scan: &pb::Scan) -> RowRead {
    RowRead {
        families: families(&scan.column),
        versions: scan.max_versions(),
        time_range: time_range(scan.time_range.as_ref()),
        family_time_ranges: family_time_ranges(&scan.cf_time_range),
        raw: scan.attribute.iter().any(|a| a.name == "_raw_" && is_true(a.value.as_deref())),
        cache_blocks: scan.cache_blocks(),
        family_offset: scan.store_offset(),
        family_limit: scan.store_limit,
    }
}

/// The rows that a scan covers.
pub(super) fn scan_range(scan: &pb::Scan) -> ScanRange {
    let start = scan.start_row.clone().unwrap_or_default();
    let stop = scan.stop_row.clone().unwrap_or_default();
    // A get sent as a scan: clients that do not know `include_stop_row` write one row as start =
    // stop.
    let one_row = !start.is_empty() && start == stop;
    ScanRange {
        include_start: scan.include_start_row(),
        include_stop: scan.include_stop_row.unwrap_or(one_row),
        reversed: scan.reversed(),
        start,
        stop,
    }
}

fn families(columns: &[pb::Column]) -> Option<BTreeMap<Bytes, Columns>> {
    if columns.is_empty() {
        return None;
    }
    let mut families = BTreeMap::new();
    for column in columns {
        let qualifiers: BTreeSet<Bytes> = column.qualifier.iter().cloned().collect();
        let wanted = if qualifiers.is_empty() { Columns::All } else { Columns::Some(qualifiers) };
        families.insert(column.family.clone(), wanted);
    }
    Some(families)
}

fn family_time_ranges(ranges: &[pb::ColumnFamilyTimeRange]) -> BTreeMap<Bytes, TimeRange> {
    let range = |range: &pb::ColumnFamilyTimeRange| {
        (range.column_family.clone(), time_range(Some(&range.time_range)))
    };
    ranges.iter().map(range).collect()
}

/// The time range of a message. Absent bounds are unlimited.
pub(super) fn time_range(range: Option<&pb::TimeRange>) -> TimeRange {
    let bound = |time: Option<u64>, end| time.map_or(end, |t| i64::try_from(t).unwrap_or(i64::MAX));
    match range {
        None => TimeRange::ALL,
        Some(range) => TimeRange { from: bound(range.from, 0), to: bound(range.to, i64::MAX) },
    }
}

/// Decodes one mutation with its cells, from inside the message or from beside it.
pub(super) fn mutation(proto: &pb::MutationProto, beside: &mut CellsBeside) -> Result<Decoded> {
    // Taken before anything is rejected, because the cells of the next mutation follow.
    let cells = message_cells::mutated_cells(proto, beside).map_err(Exception::bad_request)?;
    if proto.attribute.iter().any(|attribute| attribute.name == CELL_TTL) {
        let message = format!("the attribute {CELL_TTL} (Mutation.setTTL) is not supported yet");
        return Err(Exception::bad_request(message));
    }
    let row = proto.row.clone().or_else(|| cells.first().map(Cell::row_bytes)).unwrap_or_default();
    let durability = durability(proto);
    let update = match proto.mutate_type() {
        pb::mutation_proto::MutationType::Put => {
            return Ok(Decoded::Blind(Mutation { row, cells, delete_row: None, durability }));
        }
        pb::mutation_proto::MutationType::Delete => {
            // A delete that names no column deletes the row.
            let timestamp = proto.timestamp.map_or(LATEST_TIMESTAMP, u64::cast_signed);
            let delete_row = cells.is_empty().then_some(timestamp);
            return Ok(Decoded::Blind(Mutation { row, cells, delete_row, durability }));
        }
        pb::mutation_proto::MutationType::Increment => Update::Increment,
        pb::mutation_proto::MutationType::Append => Update::Append,
    };
    let changes = cells.iter().map(|cell| Change {
        family: Bytes::copy_from_slice(cell.family()),
        qualifier: Bytes::copy_from_slice(cell.qualifier()),
        timestamp: cell.timestamp(),
        operand: Bytes::copy_from_slice(cell.value()),
    });
    let wanted = proto.attribute.iter().find(|attribute| attribute.name == RETURN_RESULTS);
    Ok(Decoded::Update {
        update: RowUpdate {
            row: Bytes::copy_from_slice(&row),
            update,
            changes: changes.collect(),
            time_range: time_range(proto.time_range.as_ref()),
            durability,
        },
        nonce: proto.nonce.filter(|nonce| *nonce != 0),
        return_results: wanted.is_none_or(|attribute| is_true(attribute.value.as_deref())),
    })
}

/// The durability that a mutation requests. It may request more than its table's, never less.
fn durability(proto: &pb::MutationProto) -> Durability {
    match proto.durability() {
        pb::mutation_proto::Durability::FsyncWal => Durability::OnDisk,
        _ => Durability::default(),
    }
}

/// The nonce of an operation, if the client gave one.
pub(super) fn nonce(group: Option<u64>, nonce: Option<u64>) -> Option<Nonce> {
    nonce.map(|nonce| Nonce { group: group.unwrap_or_default(), nonce })
}

/// A Java boolean in bytes.
fn is_true(value: Option<&[u8]>) -> bool {
    value.is_some_and(|value| value.iter().any(|byte| *byte != 0))
}

// === impl Decoded ===

impl Decoded {
    /// The row that it changes.
    pub(super) fn row(&self) -> &Bytes {
        match self {
            Self::Blind(mutation) => &mutation.row,
            Self::Update { update, .. } => &update.row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::RegionInfo;
    use pb::region_specifier::RegionSpecifierType;

    fn specifier(kind: RegionSpecifierType, value: &[u8]) -> pb::RegionSpecifier {
        pb::RegionSpecifier { r#type: kind as i32, value: Bytes::copy_from_slice(value) }
    }

    #[test]
    fn a_mutation_asks_for_more_than_its_table_or_for_nothing() {
        use pb::mutation_proto::Durability as Asked;
        let asked = [None, Some(Asked::SkipWal), Some(Asked::AsyncWal), Some(Asked::SyncWal)];
        let asks = |asked: Option<Asked>| {
            let durability = asked.map(i32::from);
            super::durability(&pb::MutationProto { durability, ..Default::default() })
        };
        for asked in asked {
            assert_eq!(asks(asked), Durability::Replicated, "{asked:?}");
        }
        assert_eq!(asks(Some(Asked::FsyncWal)), Durability::OnDisk);
    }

    #[test]
    fn a_region_is_found_by_either_name_whatever_its_start_key() {
        for start in [&b""[..], b"a", b",", b".", b"a.b,c.", b"\xff\x00,\n.", &[b'.'; 200]] {
            let start = Bytes::copy_from_slice(start);
            let info = RegionInfo::primary("n:t".parse().unwrap(), start, Bytes::new(), 17);
            let encoded = info.encoded_name();
            let name = specifier(RegionSpecifierType::RegionName, &info.name());
            assert_eq!(region_name(&name).unwrap(), encoded);
            let text = encoded.to_string();
            let name = specifier(RegionSpecifierType::EncodedRegionName, text.as_bytes());
            assert_eq!(region_name(&name).unwrap(), encoded);
        }
    }

    #[test]
    fn what_names_no_region_is_refused() {
        let kinds = [RegionSpecifierType::RegionName, RegionSpecifierType::EncodedRegionName];
        for value in [&b""[..], b".", b"t,,1.", b"t,,1.0123.", &[0xff; 33], &[b'g'; 33]] {
            for kind in kinds {
                assert!(region_name(&specifier(kind, value)).is_err(), "{}", value.escape_ascii());
            }
        }
    }

    #[test]
    fn a_family_has_its_own_time_range_or_that_of_all() {
        let range = |from, to| pb::TimeRange { from: Some(from), to: Some(to) };
        let of_family = pb::ColumnFamilyTimeRange {
            column_family: Bytes::from_static(b"f"),
            time_range: range(3, 4),
        };
        let message = pb::Get {
            time_range: Some(range(1, 2)),
            cf_time_range: vec![of_family.clone()],
            ..pb::Get::default()
        };
        let expected = [(Bytes::from_static(b"f"), TimeRange { from: 3, to: 4 })].into();
        let read = get(&message).unwrap();
        assert_eq!(read.time_range, TimeRange { from: 1, to: 2 });
        assert_eq!(read.family_time_ranges, expected);
        let message = pb::Scan { cf_time_range: vec![of_family], ..pb::Scan::default() };
        assert_eq!(scan_read(&message).family_time_ranges, expected);
    }

    #[test]
    fn a_time_to_live_of_cells_is_refused_by_name() {
        let attribute = pb::NameBytesPair { name: CELL_TTL.to_owned(), value: None };
        let message = pb::MutationProto {
            row: Some(Bytes::from_static(b"r")),
            mutate_type: Some(pb::mutation_proto::MutationType::Put as i32),
            attribute: vec![attribute],
            ..pb::MutationProto::default()
        };
        let exception = mutation(&message, &mut Vec::new().into_iter()).unwrap_err();
        assert!(format!("{exception:?}").contains(CELL_TTL), "{exception:?}");
    }

    #[test]
    fn a_scan_whose_bounds_are_one_row_covers_it_unless_its_client_says_otherwise() {
        let row = Some(Bytes::from_static(b"r"));
        let message = pb::Scan { start_row: row.clone(), stop_row: row, ..pb::Scan::default() };
        assert!(scan_range(&message).include_stop);
        for include_stop in [false, true] {
            let include_stop_row = Some(include_stop);
            let message = pb::Scan { include_stop_row, ..message.clone() };
            assert_eq!(scan_range(&message).include_stop, include_stop);
        }
        let message = pb::Scan { start_row: message.start_row, ..pb::Scan::default() };
        assert!(!scan_range(&message).include_stop);
    }
}
