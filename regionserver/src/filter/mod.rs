//! Filters, which select the parts of a row that a client wants beyond its columns, and the
//! comparators of conditions.
//!
//! Filters follow HBase's protocol, so that lists of filters return the same results in any order.
//! A filter sees the row, then the row's stored cells one by one, family by family. Cells are
//! changed only after all filters have taken them. Finally, the filter may reject the remaining
//! row. It sees all versions that the family keeps. The client's limit on versions is applied
//! afterwards.

mod comparator;
mod kinds;

use basalt_hbase_rpc::{Exception, pb};
use basalt_model::Cell;
use bytes::Bytes;
use prost::Message as _;

use crate::region::RowRead;
pub(crate) use comparator::{Comparator, comparator};
use kinds::{
    AllOf, FirstKeyOnlyFilter, InclusiveStopFilter, KeyOnlyFilter, PageFilter, PrefixFilter,
    SingleColumnValueFilter,
};

/// Decides on one row after another. It may keep state between rows.
trait Filter: Send + Sync {
    /// Starts a row and resets the state of the previous one. Returns whether cells of `row` may be
    /// wanted.
    fn begins_row(&mut self, row: &[u8]) -> bool;

    /// Whether the row's next cell is taken. If not, the rest of its family is dropped too.
    fn takes_cell(&mut self, _: &Cell) -> bool {
        true
    }

    /// What is returned for a cell that was taken.
    fn changed(&self, cell: Cell) -> Cell {
        cell
    }

    /// Whether the row is taken. Called once for each row of which some cells were taken.
    fn takes_row(&mut self) -> bool {
        true
    }

    /// Whether all later rows would be rejected.
    fn is_done(&self) -> bool {
        false
    }
}

/// A filter, and the limits on the cells that it takes.
pub(crate) struct RowFilter {
    filter: Box<dyn Filter>,
    versions: u32,
    family_offset: u32,
    family_limit: u32,
}

const PACKAGE: &str = "org.apache.hadoop.hbase.filter.";
/// How deep lists may be nested. A nested list is encoded in a bytes field, so the recursion limit
/// of the protobuf decoder does not apply.
const NESTED_MAX: usize = 32;

/// Rejects the filter of a message if it cannot be decoded or is not supported yet.
#[cfg(fuzzing)]
pub(crate) fn decode(filter: &pb::Filter) -> Result<(), Exception> {
    decode_nested(filter, false, 0).map(drop)
}

fn decode_nested(
    filter: &pb::Filter,
    reversed: bool,
    depth: usize,
) -> Result<Box<dyn Filter>, Exception> {
    if depth > NESTED_MAX {
        let message = format!("FilterLists are nested more than {NESTED_MAX} deep");
        return Err(Exception::bad_request(message));
    }
    let bytes = filter.serialized_filter.clone().unwrap_or_default();
    let bad = |error: prost::DecodeError| {
        Exception::bad_request(format!("{} cannot be decoded: {error}", filter.name))
    };
    let name = filter.name.strip_prefix(PACKAGE).unwrap_or(&filter.name);
    Ok(match name {
        "PageFilter" => {
            Box::new(PageFilter::new(pb::PageFilter::decode(bytes).map_err(bad)?.page_size))
        }
        "PrefixFilter" => {
            let prefix = pb::PrefixFilter::decode(bytes).map_err(bad)?.prefix.unwrap_or_default();
            Box::new(PrefixFilter::new(prefix, reversed))
        }
        "FirstKeyOnlyFilter" => Box::new(FirstKeyOnlyFilter::default()),
        "KeyOnlyFilter" => {
            let length_as_value = pb::KeyOnlyFilter::decode(bytes).map_err(bad)?.len_as_val;
            Box::new(KeyOnlyFilter { length_as_value })
        }
        "InclusiveStopFilter" => {
            let filter = pb::InclusiveStopFilter::decode(bytes).map_err(bad)?;
            let stop = filter.stop_row_key.unwrap_or_default();
            Box::new(InclusiveStopFilter::new(stop, reversed))
        }
        "FilterList" => {
            let list = pb::FilterList::decode(bytes).map_err(bad)?;
            if list.operator() != pb::filter_list::Operator::MustPassAll {
                return Err(not_offered("FilterList of MUST_PASS_ONE"));
            }
            let inner = list.filters.iter();
            let inner = inner.map(|filter| decode_nested(filter, reversed, depth + 1));
            Box::new(AllOf(inner.collect::<Result<_, _>>()?))
        }
        "SingleColumnValueFilter" => {
            let filter = pb::SingleColumnValueFilter::decode(bytes).map_err(bad)?;
            Box::new(SingleColumnValueFilter::new(filter)?)
        }
        other => return Err(not_offered(other)),
    })
}

fn not_offered(name: &str) -> Exception {
    Exception::bad_request(format!("filter {name} is not supported yet; see docs/compatibility.md"))
}

// === impl RowFilter ===

impl RowFilter {
    /// What to read for a read with a filter, and the filter to apply afterwards, if there is one.
    ///
    /// # Errors
    /// The filter cannot be decoded, or it is not supported yet.
    pub(crate) fn of(
        filter: Option<&pb::Filter>,
        read: RowRead,
        reversed: bool,
    ) -> Result<(RowRead, Option<Self>), Exception> {
        let Some(filter) = filter else { return Ok((read, None)) };
        let filter = Self {
            filter: decode_nested(filter, reversed, 0)?,
            versions: read.versions.max(1),
            family_offset: read.family_offset,
            family_limit: read.family_limit.unwrap_or(u32::MAX),
        };
        let read = RowRead { versions: u32::MAX, family_offset: 0, family_limit: None, ..read };
        Ok((read, Some(filter)))
    }

    /// Whether all later rows would be rejected.
    pub(crate) fn is_done(&self) -> bool {
        self.filter.is_done()
    }

    /// Starts `row`. Returns whether its cells may be wanted.
    pub(crate) fn begins_row(&mut self, row: &[u8]) -> bool {
        self.filter.begins_row(row)
    }

    /// The cells of the row that remain; none if the row is rejected.
    pub(crate) fn filter_cells(&mut self, cells: Vec<Cell>) -> Vec<Cell> {
        let mut taken = Vec::new();
        let mut cells = cells.into_iter().peekable();
        while let Some(family) = cells.peek().map(|cell| Bytes::copy_from_slice(cell.family())) {
            let mut of_family = Vec::new();
            while let Some(cell) = cells.next_if(|cell| cell.family() == &family[..]) {
                of_family.push(cell);
            }
            self.filter_family(of_family, &mut taken);
        }
        if !taken.is_empty() && !self.filter.takes_row() {
            taken.clear();
        }
        taken
    }

    /// [`RowFilter::begins_row`], then [`RowFilter::filter_cells`].
    pub(crate) fn filter(&mut self, row: &[u8], cells: Vec<Cell>) -> Vec<Cell> {
        if self.begins_row(row) { self.filter_cells(cells) } else { Vec::new() }
    }

    fn filter_family(&mut self, cells: Vec<Cell>, taken: &mut Vec<Cell>) {
        let (mut to_pass, mut to_take) = (self.family_offset, self.family_limit);
        let mut column = Bytes::new();
        let mut versions = 0;
        for cell in cells {
            if to_take == 0 {
                return;
            }
            if versions == 0 || cell.qualifier() != &column[..] {
                column = Bytes::copy_from_slice(cell.qualifier());
                versions = 0;
            } else if versions > self.versions {
                continue;
            }
            if !self.filter.takes_cell(&cell) {
                return;
            }
            // The filter sees one version more than the limit before the column ends.
            versions += 1;
            if versions > self.versions {
                continue;
            }
            if to_pass > 0 {
                to_pass -= 1;
            } else {
                to_take -= 1;
                taken.push(self.filter.changed(cell));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::SequenceId;

    fn message(name: &str, message: &impl prost::Message) -> pb::Filter {
        let serialized_filter = Some(message.encode_to_vec().into());
        pb::Filter { name: format!("{PACKAGE}{name}"), serialized_filter }
    }

    fn filter(message: &pb::Filter, reversed: bool) -> RowFilter {
        RowFilter::of(Some(message), RowRead::all(), reversed).unwrap().1.unwrap()
    }

    fn prefix(prefix: &'static str) -> pb::Filter {
        message("PrefixFilter", &pb::PrefixFilter { prefix: Some(prefix.into()) })
    }

    fn stop(row: &'static str) -> pb::Filter {
        message("InclusiveStopFilter", &pb::InclusiveStopFilter { stop_row_key: Some(row.into()) })
    }

    fn page(rows: i64) -> pb::Filter {
        message("PageFilter", &pb::PageFilter { page_size: rows })
    }

    fn key_only() -> pb::Filter {
        message("KeyOnlyFilter", &pb::KeyOnlyFilter { len_as_val: false })
    }

    fn first_key_only() -> pb::Filter {
        pb::Filter { name: format!("{PACKAGE}FirstKeyOnlyFilter"), serialized_filter: None }
    }

    /// Rows whose `f:column` is `value`.
    fn value_is(
        column: &'static str,
        value: &'static str,
        latest_version_only: bool,
    ) -> pb::Filter {
        let comparable = pb::ByteArrayComparable { value: Some(value.into()) };
        let comparator = pb::BinaryComparator { comparable }.encode_to_vec();
        let filter = pb::SingleColumnValueFilter {
            column_family: Some("f".into()),
            column_qualifier: Some(column.into()),
            compare_op: pb::CompareType::Equal.into(),
            comparator: pb::Comparator {
                name: format!("{PACKAGE}BinaryComparator"),
                serialized_comparator: Some(comparator.into()),
            },
            filter_if_missing: Some(true),
            latest_version_only: Some(latest_version_only),
        };
        message("SingleColumnValueFilter", &filter)
    }

    fn all_of(filters: &[&pb::Filter]) -> pb::Filter {
        let filters = filters.iter().map(|filter| (*filter).clone()).collect();
        message("FilterList", &pb::FilterList { operator: 1, filters })
    }

    fn put(row: &str, column: &str, at: i64, value: &str) -> Cell {
        let put = Cell::put(row.as_bytes(), b"f", column.as_bytes(), at, value.as_bytes());
        put.unwrap().with_sequence_id(SequenceId(1))
    }

    /// A row with column `a`, whose newest value is `value`, and column `b`.
    fn row(row: &str, value: &str) -> Vec<Cell> {
        vec![put(row, "a", 2, value), put(row, "a", 1, "old"), put(row, "b", 1, "x")]
    }

    /// The cells of `rows` that remain, as `row:column=value`, until the filter is done.
    fn left(filter: &pb::Filter, read: RowRead, reversed: bool, rows: &[Vec<Cell>]) -> Vec<String> {
        let (_, filter) = RowFilter::of(Some(filter), read, reversed).unwrap();
        let mut filter = filter.unwrap();
        let mut left = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for cells in rows {
            if filter.is_done() {
                break;
            }
            left.extend(filter.filter(&cells[0].row_bytes(), cells.clone()).iter().map(|cell| {
                let (row, column) = (text(cell.row()), text(cell.qualifier()));
                format!("{row}:{column}={}", text(cell.value()))
            }));
        }
        left
    }

    /// The names of the rows that remain, forward or reversed.
    fn rows_left(filter: &pb::Filter, reversed: bool, rows: &[&str]) -> Vec<String> {
        let rows: Vec<_> = rows.iter().map(|name| vec![put(name, "q", 1, "v")]).collect();
        let left = left(filter, RowRead::all(), reversed, &rows);
        left.iter().map(|cell| cell.split(':').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_page_holds_so_many_rows() {
        assert_eq!(rows_left(&page(2), false, &["a", "b", "c"]), ["a", "b"]);
        assert!(rows_left(&page(0), false, &["a"]).is_empty());
        assert!(rows_left(&page(-1), false, &["a"]).is_empty());
    }

    #[test]
    fn a_prefix_holds_in_both_directions_and_ends_the_scan_once_it_is_passed() {
        let forward = ["a", "b", "b1", "b2", "c"];
        let reversed = ["c", "b2", "b1", "b", "a"];
        for filter in [prefix("b"), all_of(&[&prefix("b")])] {
            assert_eq!(rows_left(&filter, false, &forward), ["b", "b1", "b2"]);
            assert_eq!(rows_left(&filter, true, &reversed), ["b2", "b1", "b"]);
        }
        for (rows, is_reversed) in [(["a", "b", "c"], false), (["c", "b", "a"], true)] {
            let mut filter = filter(&prefix("b"), is_reversed);
            for row in rows {
                assert!(!filter.is_done(), "before {row}, reversed: {is_reversed}");
                filter.begins_row(row.as_bytes());
            }
            assert!(filter.is_done(), "reversed: {is_reversed}");
        }
        // A row that is a proper prefix of the filter's prefix sorts before it.
        assert_eq!(rows_left(&prefix("bb"), true, &["bb", "b"]), ["bb"]);
        assert_eq!(rows_left(&prefix("bb"), false, &["b", "bb"]), ["bb"]);
        assert_eq!(rows_left(&prefix(""), true, &["b", "a"]), ["b", "a"]);
    }

    #[test]
    fn a_stop_is_included_in_both_directions() {
        assert_eq!(rows_left(&stop("b"), false, &["a", "b", "b1", "c"]), ["a", "b"]);
        assert_eq!(rows_left(&stop("b"), true, &["c", "b", "a"]), ["c", "b"]);
        assert_eq!(rows_left(&all_of(&[&stop("b")]), true, &["c", "b", "a"]), ["c", "b"]);
    }

    #[test]
    fn filters_of_a_list_see_cells_as_they_lie_there() {
        let rows = [row("r1", "1"), row("r2", "2")];
        let value = value_is("a", "1", true);
        for list in [all_of(&[&key_only(), &value]), all_of(&[&value, &key_only()])] {
            assert_eq!(left(&list, RowRead::all(), false, &rows), ["r1:a=", "r1:b="]);
        }
    }

    #[test]
    fn rows_that_another_filter_of_the_list_leaves_out_are_not_on_the_page() {
        let value = value_is("a", "1", true);
        let rows: Vec<_> = ["1", "2", "1", "2", "1", "1"]
            .iter()
            .enumerate()
            .map(|(number, value)| row(&format!("r{number}"), value))
            .collect();
        let expected = ["r0:a=1", "r0:b=x", "r2:a=1", "r2:b=x", "r4:a=1", "r4:b=x"];
        for list in [all_of(&[&page(3), &value]), all_of(&[&value, &page(3)])] {
            assert_eq!(left(&list, RowRead::all(), false, &rows), expected);
        }
    }

    #[test]
    fn any_version_or_the_latest_is_compared() {
        let rows = [row("r1", "1"), row("r2", "2")];
        let old =
            |latest_only| left(&value_is("a", "old", latest_only), RowRead::all(), false, &rows);
        assert!(old(true).is_empty());
        assert_eq!(old(false), ["r1:a=1", "r1:b=x", "r2:a=2", "r2:b=x"]);
        let two = RowRead { versions: 2, ..RowRead::all() };
        assert_eq!(left(&value_is("a", "1", true), two, false, &rows).len(), 3);
    }

    #[test]
    fn offset_and_limit_count_what_the_filter_takes() {
        let limited = RowRead { family_offset: 1, family_limit: Some(1), ..RowRead::all() };
        let rows = [row("r1", "1"), row("r2", "2")];
        assert_eq!(left(&value_is("a", "1", true), limited, false, &rows), ["r1:b=x"]);
    }

    #[test]
    fn the_first_cell_of_a_row_is_that_of_its_first_family() {
        let mut cells = row("r", "1");
        cells.push(Cell::put(b"r", b"g", b"a", 1, b"g").unwrap());
        let rows = [cells];
        assert_eq!(left(&first_key_only(), RowRead::all(), false, &rows), ["r:a=1"]);
    }

    #[test]
    fn a_filter_is_shown_what_the_family_keeps() {
        let limited = RowRead { family_offset: 1, family_limit: Some(1), ..RowRead::all() };
        let (read, _) = RowFilter::of(Some(&page(1)), limited.clone(), false).unwrap();
        assert_eq!((read.versions, read.family_offset, read.family_limit), (u32::MAX, 0, None));
        let (read, filter) = RowFilter::of(None, limited, false).unwrap();
        assert_eq!((read.versions, read.family_limit, filter.is_none()), (1, Some(1), true));
    }

    #[test]
    fn lists_inside_lists_end_somewhere() {
        let nested = |depth: usize| (0..depth).fold(first_key_only(), |inner, _| all_of(&[&inner]));
        let decode = |message| RowFilter::of(Some(&message), RowRead::all(), false);
        assert!(decode(nested(NESTED_MAX)).is_ok());
        // Without the limit, this would need more stack than any thread has.
        let error = decode(nested(5_000)).err().unwrap();
        assert!(error.message().contains("nested more than"), "{error:?}");
    }

    #[test]
    fn an_unknown_filter_is_named() {
        let unknown = pb::Filter { name: "com.example.Mine".into(), serialized_filter: None };
        let error = RowFilter::of(Some(&unknown), RowRead::all(), false).err().unwrap();
        assert!(error.message().contains("com.example.Mine"), "{error:?}");
        assert!(error.do_not_retry());
    }
}
