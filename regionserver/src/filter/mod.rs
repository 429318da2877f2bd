//! What of a row a client wants beyond its columns: filters, and the comparators of conditions.
//!
//! A filter sees whole rows, after versions and deletes have been applied.

mod comparator;

use basalt_hbase_rpc::{Exception, pb};
use basalt_model::Cell;
use prost::Message as _;

pub(crate) use comparator::{Comparator, comparator};

/// Decides on one row after another. It may keep state between them.
pub(crate) trait Filter: Send + Sync {
    /// What is left of a row; `None` leaves the row out.
    fn filter_row(&mut self, row: &[u8], cells: Vec<Cell>) -> Option<Vec<Cell>>;

    /// Whether all rows from here on would be left out.
    fn is_done(&self) -> bool {
        false
    }
}

/// Takes the first rows of each region, as many as a page holds.
struct PageFilter {
    rows_left: i64,
}

/// Takes the rows that begin with a prefix.
struct PrefixFilter {
    prefix: bytes::Bytes,
    passed: bool,
}

/// Takes the first cell of each row.
struct FirstKeyOnlyFilter;

/// Takes cells without their values.
struct KeyOnlyFilter {
    length_as_value: bool,
}

/// Takes rows up to one, included.
struct InclusiveStopFilter {
    stop: bytes::Bytes,
    done: bool,
}

/// Takes what all of its filters take.
struct AllOf(Vec<Box<dyn Filter>>);

/// Takes the rows whose newest value of a column compares as asked.
struct SingleColumnValueFilter {
    family: bytes::Bytes,
    qualifier: bytes::Bytes,
    operator: pb::CompareType,
    comparator: Comparator,
    if_missing: bool,
}

const PACKAGE: &str = "org.apache.hadoop.hbase.filter.";
/// How many lists may stand inside one another. Each is a message in a message's bytes, so that the
/// bound of the protocol's decoder does not hold for them.
const NESTED_MAX: usize = 32;

/// The filter of a message.
///
/// # Errors
/// It cannot be decoded, or is one that is not offered yet.
pub(crate) fn decode(filter: &pb::Filter) -> Result<Box<dyn Filter>, Exception> {
    decode_nested(filter, 0)
}

fn decode_nested(filter: &pb::Filter, depth: usize) -> Result<Box<dyn Filter>, Exception> {
    if depth > NESTED_MAX {
        let message = format!("more than {NESTED_MAX} FilterLists inside one another");
        return Err(Exception::bad_request(message));
    }
    let bytes = filter.serialized_filter.clone().unwrap_or_default();
    let bad = |error: prost::DecodeError| {
        Exception::bad_request(format!("{} cannot be decoded: {error}", filter.name))
    };
    let name = filter.name.strip_prefix(PACKAGE).unwrap_or(&filter.name);
    Ok(match name {
        "PageFilter" => {
            let rows_left = pb::PageFilter::decode(bytes).map_err(bad)?.page_size;
            Box::new(PageFilter { rows_left })
        }
        "PrefixFilter" => {
            let prefix = pb::PrefixFilter::decode(bytes).map_err(bad)?.prefix.unwrap_or_default();
            Box::new(PrefixFilter { prefix, passed: false })
        }
        "FirstKeyOnlyFilter" => Box::new(FirstKeyOnlyFilter),
        "KeyOnlyFilter" => {
            let length_as_value = pb::KeyOnlyFilter::decode(bytes).map_err(bad)?.len_as_val;
            Box::new(KeyOnlyFilter { length_as_value })
        }
        "InclusiveStopFilter" => {
            let filter = pb::InclusiveStopFilter::decode(bytes).map_err(bad)?;
            Box::new(InclusiveStopFilter {
                stop: filter.stop_row_key.unwrap_or_default(),
                done: false,
            })
        }
        "FilterList" => {
            let list = pb::FilterList::decode(bytes).map_err(bad)?;
            if list.operator() != pb::filter_list::Operator::MustPassAll {
                return Err(not_offered("FilterList of MUST_PASS_ONE"));
            }
            let inner = list.filters.iter().map(|filter| decode_nested(filter, depth + 1));
            Box::new(AllOf(inner.collect::<Result<_, _>>()?))
        }
        "SingleColumnValueFilter" => {
            let filter = pb::SingleColumnValueFilter::decode(bytes).map_err(bad)?;
            Box::new(SingleColumnValueFilter {
                operator: filter.compare_op(),
                if_missing: !filter.filter_if_missing(),
                family: filter.column_family.unwrap_or_default(),
                qualifier: filter.column_qualifier.unwrap_or_default(),
                comparator: comparator(&filter.comparator)?,
            })
        }
        other => return Err(not_offered(other)),
    })
}

fn not_offered(name: &str) -> Exception {
    Exception::bad_request(format!("filter {name} is not offered yet; see docs/compatibility.md"))
}

// === impl Filters ===

impl Filter for PageFilter {
    fn filter_row(&mut self, _: &[u8], cells: Vec<Cell>) -> Option<Vec<Cell>> {
        let takes = self.rows_left > 0 && !cells.is_empty();
        self.rows_left -= i64::from(takes);
        takes.then_some(cells)
    }

    fn is_done(&self) -> bool {
        self.rows_left <= 0
    }
}

impl Filter for PrefixFilter {
    fn filter_row(&mut self, row: &[u8], cells: Vec<Cell>) -> Option<Vec<Cell>> {
        let begins = row.starts_with(&self.prefix);
        self.passed = !begins && row > &self.prefix[..];
        begins.then_some(cells)
    }

    fn is_done(&self) -> bool {
        self.passed
    }
}

impl Filter for FirstKeyOnlyFilter {
    fn filter_row(&mut self, _: &[u8], mut cells: Vec<Cell>) -> Option<Vec<Cell>> {
        cells.truncate(1);
        Some(cells)
    }
}

impl Filter for KeyOnlyFilter {
    fn filter_row(&mut self, _: &[u8], cells: Vec<Cell>) -> Option<Vec<Cell>> {
        let without_value = |cell: &Cell| {
            let key = cell.key();
            let length = (cell.value().len() as u32).to_be_bytes();
            let value = if self.length_as_value { &length[..] } else { &[] };
            basalt_model::CellBuilder {
                row: key.row,
                family: key.family,
                qualifier: key.qualifier,
                timestamp: key.timestamp,
                cell_type: cell.cell_type(),
                value,
                tags: &[],
            }
            .build()
            .ok()
        };
        Some(cells.iter().filter_map(without_value).collect())
    }
}

impl Filter for InclusiveStopFilter {
    fn filter_row(&mut self, row: &[u8], cells: Vec<Cell>) -> Option<Vec<Cell>> {
        self.done = row > &self.stop[..];
        (!self.done).then_some(cells)
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

impl Filter for AllOf {
    fn filter_row(&mut self, row: &[u8], cells: Vec<Cell>) -> Option<Vec<Cell>> {
        self.0.iter_mut().try_fold(cells, |cells, filter| filter.filter_row(row, cells))
    }

    fn is_done(&self) -> bool {
        self.0.iter().any(|filter| filter.is_done())
    }
}

impl Filter for SingleColumnValueFilter {
    fn filter_row(&mut self, _: &[u8], cells: Vec<Cell>) -> Option<Vec<Cell>> {
        let value = cells
            .iter()
            .find(|c| c.family() == &self.family[..] && c.qualifier() == &self.qualifier[..])
            .map(Cell::value);
        let takes = match value {
            None => self.if_missing,
            Some(value) => self.comparator.compares(self.operator, value),
        };
        takes.then_some(cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(name: &str, message: &impl prost::Message) -> Box<dyn Filter> {
        let serialized_filter = Some(message.encode_to_vec().into());
        decode(&pb::Filter { name: format!("{PACKAGE}{name}"), serialized_filter }).unwrap()
    }

    fn row(row: &str) -> Vec<Cell> {
        let put = |q: &[u8]| Cell::put(row.as_bytes(), b"f", q, 1, b"value").unwrap();
        vec![put(b"a"), put(b"b")]
    }

    #[test]
    fn a_page_holds_so_many_rows() {
        let mut page = filter("PageFilter", &pb::PageFilter { page_size: 1 });
        assert!(page.filter_row(b"a", row("a")).is_some());
        assert!(page.is_done());
    }

    #[test]
    fn a_prefix_ends_the_scan_once_it_is_passed() {
        let prefix = pb::PrefixFilter { prefix: Some("b".into()) };
        let mut prefix = filter("PrefixFilter", &prefix);
        assert!(prefix.filter_row(b"a", row("a")).is_none());
        assert!(!prefix.is_done());
        assert!(prefix.filter_row(b"bb", row("bb")).is_some());
        assert!(prefix.filter_row(b"c", row("c")).is_none());
        assert!(prefix.is_done());
    }

    #[test]
    fn lists_inside_lists_end_somewhere() {
        let nested = |depth: usize| {
            let first = pb::Filter { name: "FirstKeyOnlyFilter".into(), serialized_filter: None };
            (0..depth).fold(first, |inner, _| {
                let list = pb::FilterList { operator: 1, filters: vec![inner] };
                let serialized_filter = Some(list.encode_to_vec().into());
                pb::Filter { name: "FilterList".into(), serialized_filter }
            })
        };
        assert!(decode(&nested(NESTED_MAX)).is_ok());
        // Without the bound this would take more stack than any thread has.
        let error = decode(&nested(5_000)).err().unwrap();
        assert!(error.message().contains("inside one another"), "{error:?}");
    }

    #[test]
    fn an_unknown_filter_is_named() {
        let unknown = pb::Filter { name: "com.example.Mine".into(), serialized_filter: None };
        let error = decode(&unknown).err().unwrap();
        assert!(error.message().contains("com.example.Mine"), "{error:?}");
        assert!(error.do_not_retry());
    }
}
