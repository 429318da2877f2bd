//! The rows of `hbase:meta`: the locations of regions and the states of tables.
//!
//! | row | column | value |
//! | --- | --- | --- |
//! | name of the region's primary | `info:regioninfo` | `PBUF`, then `RegionInfo` |
//! | | `info:server`, `info:serverstartcode` | `host:port` as text; `i64` |
//! | | `info:seqnumDuringOpen` | `i64` |
//! | | `info:sn`, `info:state` | server name; state, as text |
//! | name of the table | `table:state` | `TableState`, without `PBUF` |
//!
//! The columns of replica 1 end in `_0001`, and so on. Rows are ordered by [`compare_rows`], not by
//! their bytes.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use basalt_model::{Cell, RegionInfo, ReplicaId, ServerName, TableName, TableState};
use bytes::Bytes;
use prost::Message;

use crate::{Error, Result, frame, schema, znode};

/// The meta table.
pub const TABLE: &str = "hbase:meta";
/// The name of its only region.
pub const REGION_NAME: &[u8] = b"hbase:meta,,1";
/// The encoded name of its only region.
pub const ENCODED_REGION_NAME: &str = "1588230740";
/// The family of regions.
pub const REGION_FAMILY: &[u8] = b"info";
/// The family of table states.
pub const TABLE_FAMILY: &[u8] = b"table";
/// The only column of table states.
pub const STATE_QUALIFIER: &[u8] = b"state";

const REGION_INFO: &[u8] = b"regioninfo";
/// Sorts after every region id: the search for the region of a row begins here.
const AFTER_ALL_IDS: &[u8] = b",99999999999999";

/// The locations of a region's replicas.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegionRow {
    /// The primary replica.
    pub region: RegionInfo,
    /// Whether it was split: its daughters then serve its rows.
    pub split: bool,
    /// Whether its table is disabled.
    pub offline: bool,
    /// What is known about each replica.
    pub replicas: BTreeMap<ReplicaId, ReplicaRow>,
}

/// The location of one replica of a region.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReplicaRow {
    /// The server that opened it last.
    pub server: Option<ServerName>,
    /// Its sequence id when it was opened there.
    pub open_sequence_id: Option<i64>,
    /// Its state, by its name in HBase: `OPEN`, `CLOSED` and so on.
    pub state: Option<String>,
}

/// The row key of a region.
pub fn row_of(region: &RegionInfo) -> Bytes {
    let replica = ReplicaId(0);
    RegionInfo { replica, ..region.clone() }.name()
}

/// The start of a reversed scan for the region of `row`. The scan ends at [`first_row`].
pub fn search_row(table: &TableName, row: &[u8]) -> Bytes {
    [table.to_string().as_bytes(), b",", row, AFTER_ALL_IDS].concat().into()
}

/// A row key at or before the first region of `table`.
pub fn first_row(table: &TableName) -> Bytes {
    format!("{table},,").into_bytes().into()
}

/// A row key after the last region of `table`: no table name contains a space.
pub fn end_row(table: &TableName) -> Bytes {
    format!("{table} ,,").into_bytes().into()
}

/// The order of rows: by table, then start key, then region id. A start key may contain commas.
pub fn compare_rows(left: &[u8], right: &[u8]) -> Ordering {
    let (left_table, left) = split_first(left);
    let (right_table, right) = split_first(right);
    let by_table = left_table.cmp(right_table);
    let (left, right) = match (left, right) {
        (Some(left), Some(right)) => (left, right),
        (left, right) => return by_table.then(left.is_some().cmp(&right.is_some())),
    };
    let (left_start, left_id) = split_last(left);
    let (right_start, right_id) = split_last(right);
    by_table.then_with(|| left_start.cmp(right_start)).then_with(|| left_id.cmp(right_id))
}

/// The cells of a region's row, in order.
///
/// # Errors
/// [`Error::Model`] if the region's name is too long for a row key.
pub fn region_cells(row: &RegionRow, timestamp: i64) -> Result<Vec<Cell>> {
    let key = row_of(&row.region);
    let mut info = schema::region_to_message(&row.region);
    (info.split, info.offline) = (Some(row.split), Some(row.offline));
    info.replica_id = Some(0);
    let mut columns = BTreeMap::new();
    columns.insert(REGION_INFO.to_vec(), znode::marked(&info));
    for (replica, location) in &row.replicas {
        let mut column = |name: &str, value: Bytes| {
            columns.insert(column_name(name, *replica).into_bytes(), value);
        };
        let number = |number: i64| Bytes::copy_from_slice(&number.to_be_bytes());
        if let Some(server) = &location.server {
            column("server", server.address().into());
            column("serverstartcode", number(server.start_code.cast_signed()));
            column("sn", server.to_string().into());
        }
        if let Some(sequence_id) = location.open_sequence_id {
            column("seqnumDuringOpen", number(sequence_id));
        }
        if let Some(state) = &location.state {
            column("state", state.clone().into());
        }
    }
    columns
        .iter()
        .map(|(name, value)| Ok(Cell::put(&key, REGION_FAMILY, name, timestamp, value)?))
        .collect()
}

/// Parses a region's row from its cells, the newest of each column first. Returns `None` if it
/// contains no region.
///
/// # Errors
/// [`Error::BadField`] or [`Error::BadMessage`], with the column that is invalid.
pub fn parse_region_row(cells: &[Cell]) -> Result<Option<RegionRow>> {
    let mut columns = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.family() == REGION_FAMILY) {
        columns.entry(cell.qualifier()).or_insert(cell);
    }
    let Some(info) = columns.get(REGION_INFO).filter(|info| !info.value().is_empty()) else {
        return Ok(None);
    };
    let info = znode::unmarked(info.value_bytes(), "RegionInfo")?;
    let mut region = schema::region_from_message(&info)?;
    region.replica = ReplicaId(0);
    let mut replicas: BTreeMap<ReplicaId, ReplicaRow> = BTreeMap::new();
    for (qualifier, cell) in &columns {
        let Some((name, replica)) = split_column_name(qualifier) else {
            continue;
        };
        if cell.value().is_empty() {
            continue;
        }
        let location = replicas.entry(replica).or_default();
        match name {
            // `sn` is not read: it is redundant with `server` and `serverstartcode`, which clients
            // use, and a master writes it earlier, when it only intends to open the region there.
            "server" => {
                let start_code = columns.get(column_name("serverstartcode", replica).as_bytes());
                location.server = Some(parse_server(cell.value(), start_code.copied())?);
            }
            "seqnumDuringOpen" => location.open_sequence_id = Some(parse_number(cell)?),
            "state" => {
                location.state = Some(String::from_utf8_lossy(cell.value()).into_owned());
            }
            _ => {}
        }
    }
    Ok(Some(RegionRow { region, split: info.split(), offline: info.offline(), replicas }))
}

/// The cell of a table's state.
///
/// # Errors
/// [`Error::Model`] if the table's name is too long for a row key.
pub fn table_state_cell(table: &TableName, state: TableState, timestamp: i64) -> Result<Cell> {
    let value = schema::state_to_message(state).encode_to_vec();
    let row = table.to_string();
    let cell = Cell::put(row.as_bytes(), TABLE_FAMILY, STATE_QUALIFIER, timestamp, &value)?;
    Ok(cell)
}

/// A table's state from the cells of its row; `None` if the table does not exist.
///
/// # Errors
/// [`Error::BadMessage`] or [`Error::BadField`].
pub fn parse_table_state(cells: &[Cell]) -> Result<Option<TableState>> {
    let state = cells
        .iter()
        .find(|cell| cell.family() == TABLE_FAMILY && cell.qualifier() == STATE_QUALIFIER);
    match state {
        None => Ok(None),
        Some(cell) => {
            let message = frame::decode_message(cell.value_bytes(), "TableState")?;
            schema::state_from_message(&message).map(Some)
        }
    }
}

fn split_first(row: &[u8]) -> (&[u8], Option<&[u8]>) {
    match row.iter().position(|byte| *byte == b',') {
        Some(at) => (&row[..at], Some(&row[at + 1..])),
        None => (row, None),
    }
}

fn split_last(rest: &[u8]) -> (&[u8], &[u8]) {
    match rest.iter().rposition(|byte| *byte == b',') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &[]),
    }
}

fn column_name(name: &str, replica: ReplicaId) -> String {
    match replica {
        ReplicaId(0) => name.to_owned(),
        ReplicaId(number) => format!("{name}_{number:04X}"),
    }
}

fn split_column_name(qualifier: &[u8]) -> Option<(&str, ReplicaId)> {
    let name = std::str::from_utf8(qualifier).ok()?;
    match name.rsplit_once('_') {
        None => Some((name, ReplicaId(0))),
        Some((name, digits)) if digits.len() == 4 => {
            let number = u16::from_str_radix(digits, 16).ok()?;
            Some((name, ReplicaId(number)))
        }
        Some(_) => None,
    }
}

fn parse_server(address: &[u8], start_code: Option<&Cell>) -> Result<ServerName> {
    let parse = || {
        let (host, port) = std::str::from_utf8(address).ok()?.rsplit_once(':')?;
        Some((host.to_owned(), port.parse().ok()?))
    };
    let (host, port) = parse().ok_or_else(|| {
        let reason = format!("{:?} is not host:port", address.escape_ascii().to_string());
        Error::bad_field("info:server", reason)
    })?;
    let start_code = match start_code {
        Some(cell) => parse_number(cell)?.cast_unsigned(),
        None => 0,
    };
    Ok(ServerName { host, port, start_code })
}

fn parse_number(cell: &Cell) -> Result<i64> {
    let bytes = <[u8; 8]>::try_from(cell.value()).map_err(|_| {
        let qualifier = cell.qualifier().escape_ascii();
        Error::bad_field("hbase:meta", format!("info:{qualifier} is not 8 bytes"))
    })?;
    Ok(i64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableName {
        "ns:table".parse().unwrap()
    }

    fn region(start: &'static [u8]) -> RegionInfo {
        RegionInfo::primary(table(), Bytes::from_static(start), Bytes::new(), 17)
    }

    fn a_row() -> RegionRow {
        let location = |server: &str| ReplicaRow {
            server: Some(server.parse().unwrap()),
            open_sequence_id: Some(5),
            state: Some("OPEN".to_owned()),
        };
        RegionRow {
            region: region(b"user5"),
            split: false,
            offline: false,
            replicas: [(ReplicaId(0), location("a,1,2")), (ReplicaId(18), location("b,3,4"))]
                .into(),
        }
    }

    #[test]
    fn a_region_row_reads_as_it_was_written() {
        let cells = region_cells(&a_row(), 9).unwrap();
        assert!(cells.is_sorted());
        assert!(cells.iter().any(|cell| cell.qualifier() == b"server_0012"));
        assert_eq!(parse_region_row(&cells).unwrap(), Some(a_row()));
    }

    #[test]
    fn the_newest_version_of_a_column_counts() {
        let mut cells = region_cells(&a_row(), 9).unwrap();
        let mut old = a_row();
        old.replicas.get_mut(&ReplicaId(0)).unwrap().server = Some("old,9,9".parse().unwrap());
        cells.extend(region_cells(&old, 8).unwrap());
        cells.sort();
        assert_eq!(parse_region_row(&cells).unwrap(), Some(a_row()));
    }

    #[test]
    fn a_damaged_column_is_named() {
        let cells = [
            Cell::put(b"r", b"info", b"regioninfo", 1, b"PBUF\xff\xff").unwrap(),
            Cell::put(b"r", b"info", b"regioninfo", 1, b"nonsense").unwrap(),
        ];
        for cell in cells {
            assert!(parse_region_row(&[cell]).is_err());
        }
    }

    #[test]
    fn a_table_state_reads_as_it_was_written() {
        let cell = table_state_cell(&table(), TableState::Disabling, 1).unwrap();
        assert_eq!(cell.row(), b"ns:table");
        assert_eq!(cell.value(), b"\x08\x02");
        let state = parse_table_state(&[cell]).unwrap();
        assert_eq!(state, Some(TableState::Disabling));
        assert_eq!(parse_table_state(&[]).unwrap(), None);
    }

    #[test]
    fn rows_are_ordered_by_their_parts() {
        // By bytes ',' sorts before '-', and the order of "a,b" and "a,,1" would not be certain.
        let ascending: [&[u8]; 8] = [
            b"t",
            b"t,,1.x.",
            b"t,,99999999999999",
            b"t,a,1.x.",
            b"t,a,2.x.",
            b"t,a,b,1.x.",
            b"t,a-,1.x.",
            b"t-1,,1.x.",
        ];
        for (index, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                assert_eq!(
                    compare_rows(left, right),
                    index.cmp(&other),
                    "{} and {}",
                    left.escape_ascii(),
                    right.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn a_search_ends_at_the_region_of_the_row() {
        let search = search_row(&table(), b"user6");
        assert_eq!(compare_rows(&row_of(&region(b"user5")), &search), Ordering::Less);
        assert_eq!(compare_rows(&row_of(&region(b"user6")), &search), Ordering::Less);
        assert_eq!(compare_rows(&row_of(&region(b"user7")), &search), Ordering::Greater);
        assert_eq!(compare_rows(&first_row(&table()), &row_of(&region(b""))), Ordering::Less);
        assert_eq!(compare_rows(&row_of(&region(b"\xff")), &end_row(&table())), Ordering::Less);
    }
}
