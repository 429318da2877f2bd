//! Filters and comparators, decoded and applied to rows.
//!
//! Input: a filter message.

#![no_main]

use basalt_fuzz::{ok, seed};
use basalt_hbase_rpc::pb;
use basalt_model::Cell;
use basalt_regionserver::fuzzing::apply_filter;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let rows = [
        Vec::new(),
        vec![cell(b"a", b""), cell(b"a", b"12345678")],
        vec![cell(b"row", b"value")],
    ];
    apply_filter(input, &rows);
});

fn cell(row: &[u8], value: &[u8]) -> Cell {
    ok(Cell::put(row, b"f", b"q", 1, value))
}

fn filter(name: &str, message: Vec<u8>) -> pb::Filter {
    pb::Filter {
        name: format!("org.apache.hadoop.hbase.filter.{name}"),
        serialized_filter: Some(message.into()),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let value = |comparator: &str, bytes: &'static [u8]| {
        let comparator = pb::Comparator {
            name: format!("org.apache.hadoop.hbase.filter.{comparator}"),
            serialized_comparator: Some(Bytes::from_static(bytes)),
        };
        let message = pb::SingleColumnValueFilter {
            column_family: Some(Bytes::from_static(b"f")),
            column_qualifier: Some(Bytes::from_static(b"q")),
            comparator,
            ..Default::default()
        };
        filter("SingleColumnValueFilter", message.encode_to_vec())
    };
    let mut filters = vec![
        filter("PageFilter", b"\x08\x01".to_vec()),
        filter("PrefixFilter", b"\x0a\x01a".to_vec()),
        filter("FirstKeyOnlyFilter", Vec::new()),
        filter("KeyOnlyFilter", b"\x08\x01".to_vec()),
        filter("InclusiveStopFilter", b"\x0a\x01b".to_vec()),
        value("BinaryComparator", b"\x0a\x03\x0a\x01v"),
        value("BinaryPrefixComparator", b"\x0a\x03\x0a\x01v"),
        value("LongComparator", b"\x0a\x0a\x0a\x08\0\0\0\0\0\0\0\x01"),
        value("NullComparator", b""),
        value("SubstringComparator", b"\x0a\x02al"),
    ];
    let list = pb::FilterList { operator: 1, filters: filters.clone() };
    let list = filter("FilterList", list.encode_to_vec());
    let nested = pb::FilterList { operator: 1, filters: vec![list.clone()] };
    filters.extend([list, filter("FilterList", nested.encode_to_vec())]);
    filters.iter().map(Message::encode_to_vec).collect()
}
