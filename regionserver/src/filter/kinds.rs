//! The supported filters, each with the behaviour of HBase 2.6.

use std::cmp::Ordering;

use basalt_hbase_rpc::{Exception, pb};
use basalt_model::{Cell, CellBuilder};
use bytes::Bytes;

use super::{Comparator, Filter, comparator};

/// Takes the first rows of each region, up to the page size.
pub(super) struct PageFilter {
    rows_left: i64,
}

/// Takes the rows that start with a prefix.
pub(super) struct PrefixFilter {
    prefix: Bytes,
    reversed: bool,
    passed: bool,
}

/// Takes the first cell of each row.
#[derive(Default)]
pub(super) struct FirstKeyOnlyFilter {
    found: bool,
}

/// Takes cells without their values.
pub(super) struct KeyOnlyFilter {
    pub(super) length_as_value: bool,
}

/// Takes rows up to and including one row.
pub(super) struct InclusiveStopFilter {
    stop: Bytes,
    reversed: bool,
    done: bool,
}

/// Takes what all of its filters take.
pub(super) struct AllOf(pub(super) Vec<Box<dyn Filter>>);

/// Takes the rows in which the newest value of a column, or any value of it, satisfies a
/// comparison.
pub(super) struct SingleColumnValueFilter {
    family: Bytes,
    qualifier: Bytes,
    operator: pb::CompareType,
    comparator: Comparator,
    takes_missing: bool,
    newest_only: bool,
    /// For the current row: whether it has the column, and whether a value satisfied the
    /// comparison.
    found: bool,
    matched: bool,
}

// === impl PageFilter ===

impl PageFilter {
    pub(super) fn new(rows: i64) -> Self {
        Self { rows_left: rows }
    }
}

impl Filter for PageFilter {
    fn begins_row(&mut self, _: &[u8]) -> bool {
        !self.is_done()
    }

    fn takes_row(&mut self) -> bool {
        let takes = self.rows_left > 0;
        self.rows_left -= i64::from(takes);
        takes
    }

    fn is_done(&self) -> bool {
        self.rows_left <= 0
    }
}

// === impl PrefixFilter ===

impl PrefixFilter {
    pub(super) fn new(prefix: Bytes, reversed: bool) -> Self {
        Self { prefix, reversed, passed: false }
    }
}

impl Filter for PrefixFilter {
    fn begins_row(&mut self, row: &[u8]) -> bool {
        let begin = row.get(..self.prefix.len()).unwrap_or(row);
        let order = begin.cmp(&self.prefix[..]);
        let beyond = if self.reversed { Ordering::Less } else { Ordering::Greater };
        self.passed |= order == beyond;
        order.is_eq()
    }

    fn is_done(&self) -> bool {
        self.passed
    }
}

// === impl FirstKeyOnlyFilter ===

impl Filter for FirstKeyOnlyFilter {
    fn begins_row(&mut self, _: &[u8]) -> bool {
        self.found = false;
        true
    }

    fn takes_cell(&mut self, _: &Cell) -> bool {
        !std::mem::replace(&mut self.found, true)
    }
}

// === impl KeyOnlyFilter ===

impl Filter for KeyOnlyFilter {
    fn begins_row(&mut self, _: &[u8]) -> bool {
        true
    }

    fn changed(&self, cell: Cell) -> Cell {
        let key = cell.key();
        let length = (cell.value().len() as u32).to_be_bytes();
        let value = if self.length_as_value { &length[..] } else { &[] };
        let without_value = CellBuilder {
            row: key.row,
            family: key.family,
            qualifier: key.qualifier,
            timestamp: key.timestamp,
            cell_type: cell.cell_type(),
            value,
            tags: &[],
        };
        // The parts of a cell are always short enough to build a cell.
        without_value.build().unwrap_or(cell)
    }
}

// === impl InclusiveStopFilter ===

impl InclusiveStopFilter {
    pub(super) fn new(stop: Bytes, reversed: bool) -> Self {
        Self { stop, reversed, done: false }
    }
}

impl Filter for InclusiveStopFilter {
    fn begins_row(&mut self, row: &[u8]) -> bool {
        self.done |= match self.reversed {
            false => row > &self.stop[..],
            true => row < &self.stop[..],
        };
        !self.done
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

// === impl AllOf ===

impl Filter for AllOf {
    fn begins_row(&mut self, row: &[u8]) -> bool {
        // Each filter must see the row, even after another one has rejected it.
        let mut is_wanted = true;
        for filter in &mut self.0 {
            is_wanted &= filter.begins_row(row);
        }
        is_wanted
    }

    fn takes_cell(&mut self, cell: &Cell) -> bool {
        self.0.iter_mut().all(|filter| filter.takes_cell(cell))
    }

    fn changed(&self, cell: Cell) -> Cell {
        self.0.iter().fold(cell, |cell, filter| filter.changed(cell))
    }

    fn takes_row(&mut self) -> bool {
        self.0.iter_mut().all(|filter| filter.takes_row())
    }

    fn is_done(&self) -> bool {
        self.0.iter().any(|filter| filter.is_done())
    }
}

// === impl SingleColumnValueFilter ===

impl SingleColumnValueFilter {
    pub(super) fn new(filter: pb::SingleColumnValueFilter) -> Result<Self, Exception> {
        Ok(Self {
            operator: filter.compare_op(),
            takes_missing: !filter.filter_if_missing(),
            newest_only: filter.latest_version_only(),
            comparator: comparator(&filter.comparator)?,
            family: filter.column_family.unwrap_or_default(),
            qualifier: filter.column_qualifier.unwrap_or_default(),
            found: false,
            matched: false,
        })
    }
}

impl Filter for SingleColumnValueFilter {
    fn begins_row(&mut self, _: &[u8]) -> bool {
        (self.found, self.matched) = (false, false);
        true
    }

    fn takes_cell(&mut self, cell: &Cell) -> bool {
        if self.matched {
            return true;
        }
        if self.newest_only && self.found {
            return false;
        }
        let key = cell.key();
        if key.family != &self.family[..] || key.qualifier != &self.qualifier[..] {
            return true;
        }
        self.found = true;
        self.matched = self.comparator.compares(self.operator, cell.value());
        self.matched || !self.newest_only
    }

    fn takes_row(&mut self) -> bool {
        if self.found { self.matched } else { self.takes_missing }
    }
}
