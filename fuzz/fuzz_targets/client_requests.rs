//! Requests of `ClientService`, decoded as a region server decodes them: Get, Scan, Mutate and
//! Multi, with their conditions and filters.
//!
//! Input: a selector byte, then the request, then a cell block.

#![no_main]

use basalt_fuzz::{choice, join_parts, ok, seed, two_parts};
use basalt_hbase_rpc::{CellBlockCodec, message_cells, pb};
use basalt_model::Cell;
use basalt_regionserver::fuzzing::decode_request;
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use pb::mutation_proto::MutationType;
use prost::Message;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (kind, rest) = choice(input);
    let (message, block) = two_parts(rest);
    let cells = CellBlockCodec::KeyValueWithTags.decode(Bytes::copy_from_slice(block));
    decode_request(kind, message, cells.unwrap_or_default());
});

fn seeds() -> Vec<Vec<u8>> {
    let row = || Bytes::from_static(b"row");
    let region =
        pb::RegionSpecifier { r#type: 2, value: Bytes::from("0123456789abcdef".repeat(2)) };
    let filter = pb::Filter {
        name: "org.apache.hadoop.hbase.filter.PageFilter".to_owned(),
        serialized_filter: Some(Bytes::from_static(b"\x08\x05")),
    };
    let column = pb::Column { family: Bytes::from_static(b"f"), qualifier: vec![row()] };
    let get = pb::Get {
        row: row(),
        column: vec![column.clone()],
        filter: Some(filter.clone()),
        time_range: Some(pb::TimeRange { from: Some(1), to: Some(2) }),
        ..Default::default()
    };
    let scan = pb::Scan {
        start_row: Some(row()),
        column: vec![column],
        filter: Some(filter.clone()),
        ..Default::default()
    };
    let condition = pb::Condition {
        row: row(),
        family: Some(Bytes::from_static(b"f")),
        qualifier: Some(row()),
        comparator: Some(pb::Comparator {
            name: "org.apache.hadoop.hbase.filter.BinaryComparator".to_owned(),
            serialized_comparator: Some(Bytes::from_static(b"\x0a\x03\x0a\x01v")),
        }),
        ..Default::default()
    };
    let mut mutation = message_cells::mutation(row(), MutationType::Increment, 1);
    mutation.nonce = Some(5);
    let action = |mutation, get| pb::Action { mutation, get, ..Default::default() };
    let actions = pb::RegionAction {
        region: region.clone(),
        atomic: Some(true),
        action: vec![action(Some(mutation.clone()), None), action(None, Some(get.clone()))],
        condition: Some(condition.clone()),
    };
    let get = pb::GetRequest { region: region.clone(), get };
    let scan =
        pb::ScanRequest { region: Some(region.clone()), scan: Some(scan), ..Default::default() };
    let mutate =
        pb::MutateRequest { region, mutation, condition: Some(condition), ..Default::default() };
    let multi = pb::MultiRequest { region_action: vec![actions], ..Default::default() };
    let mut block = BytesMut::new();
    let cell = ok(Cell::put(b"row", b"f", b"q", 1, &7i64.to_be_bytes()));
    CellBlockCodec::KeyValueWithTags.encode(&[cell], &mut block);
    let with = |kind: u8, message: Vec<u8>| [&[kind], &join_parts(&message, &block)[..]].concat();
    vec![
        with(0, get.encode_to_vec()),
        with(1, scan.encode_to_vec()),
        with(2, mutate.encode_to_vec()),
        with(3, multi.encode_to_vec()),
    ]
}
