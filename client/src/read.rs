//! Reads of one row, and their results.

use basalt_hbase_rpc::pb;
use basalt_model::Cell;
use bytes::Bytes;

/// A read of one row.
#[derive(Clone, Debug)]
pub struct Get {
    /// The row.
    pub row: Bytes,
    /// Which columns to read; all if none are named.
    pub columns: Columns,
    /// How many versions of each column to read. Default 1.
    pub versions_max: u32,
    /// Only versions with timestamps in this range.
    pub time_range: Option<TimeRange>,
    /// Whether the answer of a replica, which may lag, is acceptable. Default no.
    pub timeline: bool,
    /// A filter, in the encoding of HBase's protocol.
    pub filter: Option<pb::Filter>,
}

/// A selection of columns: whole families, or single columns.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Columns(Vec<pb::Column>);

/// Timestamps from `from` up to, but not including, `to`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimeRange {
    /// The first timestamp of the range.
    pub from: u64,
    /// The first timestamp after the range.
    pub to: u64,
}

/// A row, or the requested part of it. Empty if there is none.
#[derive(Clone, Debug, Default)]
pub struct RowResult {
    /// Its cells in order.
    pub cells: Vec<Cell>,
    /// Whether the answer came from a replica, which may lag.
    pub stale: bool,
}

// === impl Get ===

impl Get {
    /// A read of a whole row.
    pub fn new(row: impl Into<Bytes>) -> Self {
        Self {
            row: row.into(),
            columns: Columns::default(),
            versions_max: 1,
            time_range: None,
            timeline: false,
            filter: None,
        }
    }

    /// Also reads this column. The first call restricts the read, which otherwise covers the whole
    /// row.
    #[must_use]
    pub fn column(mut self, family: &[u8], qualifier: &[u8]) -> Self {
        self.columns.add_column(family, qualifier);
        self
    }

    /// Also reads this family. The first call restricts the read, which otherwise covers the whole
    /// row.
    #[must_use]
    pub fn family(mut self, family: &[u8]) -> Self {
        self.columns.add_family(family);
        self
    }

    pub(crate) fn to_message(&self, existence_only: bool) -> pb::Get {
        pb::Get {
            row: self.row.clone(),
            column: self.columns.to_message(),
            filter: self.filter.clone(),
            time_range: self.time_range.map(TimeRange::to_message),
            max_versions: Some(self.versions_max),
            existence_only: Some(existence_only),
            consistency: Some(if self.timeline {
                pb::Consistency::Timeline.into()
            } else {
                pb::Consistency::Strong.into()
            }),
            ..Default::default()
        }
    }
}

// === impl Columns ===

impl Columns {
    /// Adds one column of a family.
    pub fn add_column(&mut self, family: &[u8], qualifier: &[u8]) {
        let qualifier = Bytes::copy_from_slice(qualifier);
        match self.0.iter_mut().find(|column| column.family == family) {
            // The whole family includes the column.
            Some(column) if column.qualifier.is_empty() => {}
            Some(column) => column.qualifier.push(qualifier),
            None => self.0.push(pb::Column {
                family: Bytes::copy_from_slice(family),
                qualifier: vec![qualifier],
            }),
        }
    }

    /// Adds a whole family.
    pub fn add_family(&mut self, family: &[u8]) {
        self.0.retain(|column| column.family != family);
        self.0.push(pb::Column { family: Bytes::copy_from_slice(family), qualifier: Vec::new() });
    }

    pub(crate) fn to_message(&self) -> Vec<pb::Column> {
        self.0.clone()
    }
}

// === impl TimeRange ===

impl TimeRange {
    pub(crate) fn to_message(self) -> pb::TimeRange {
        pb::TimeRange { from: Some(self.from), to: Some(self.to) }
    }
}

// === impl RowResult ===

impl RowResult {
    /// Whether the row, or the requested part of it, does not exist.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The row's key, if there is a row.
    pub fn row(&self) -> Option<&[u8]> {
        self.cells.first().map(Cell::row)
    }

    /// The newest value of a column.
    pub fn value(&self, family: &[u8], qualifier: &[u8]) -> Option<&[u8]> {
        self.cells
            .iter()
            .find(|cell| cell.family() == family && cell.qualifier() == qualifier)
            .map(Cell::value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_family_go_together_and_a_whole_family_wins() {
        let mut columns = Columns::default();
        columns.add_column(b"f", b"1");
        columns.add_column(b"f", b"2");
        columns.add_column(b"g", b"3");
        assert_eq!(columns.to_message().len(), 2);
        columns.add_family(b"f");
        columns.add_column(b"f", b"4");
        let message = columns.to_message();
        let family = message.iter().find(|column| column.family == b"f"[..]).unwrap();
        assert!(family.qualifier.is_empty());
    }
}
