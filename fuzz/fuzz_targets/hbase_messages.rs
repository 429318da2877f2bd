//! Data that clients read to find tables and servers, and messages that they send to create tables:
//! schemas, rows of `hbase:meta`, znodes, exceptions. Every schema and region that decodes must
//! survive being encoded and decoded again.
//!
//! Input: a selector byte, then a message or a cell block.

#![no_main]

use basalt_fuzz::{choice, ok, seed};
use basalt_hbase_rpc::meta::{self, RegionRow};
use basalt_hbase_rpc::{CellBlockCodec, Exception, pb, schema, znode};
use basalt_model::{FamilyDescriptor, RegionInfo, ReplicaId, TableDescriptor};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (kind, message) = choice(input);
    let bytes = Bytes::copy_from_slice(message);
    match kind % 8 {
        0 => {
            if let Ok(schema) = pb::TableSchema::decode(message)
                && let Ok(table) = schema::table_from_message(&schema)
            {
                let again = schema::table_from_message(&schema::table_to_message(&table));
                assert_eq!(again.ok().as_ref(), Some(&table));
            }
        }
        1 => {
            if let Ok(region) = pb::RegionInfo::decode(message)
                && let Ok(region) = schema::region_from_message(&region)
            {
                let again = schema::region_from_message(&schema::region_to_message(&region));
                assert_eq!(again.ok().as_ref(), Some(&region));
                let _ = (region.name(), region.encoded_name());
            }
        }
        2 => {
            let cells = CellBlockCodec::KeyValue.decode(bytes).unwrap_or_default();
            let _ = meta::parse_table_state(&cells);
            if let Ok(Some(row)) = meta::parse_region_row(&cells) {
                let _ = meta::region_cells(&row, 1);
            }
        }
        3 => drop(znode::decode_cluster_id(bytes)),
        4 => drop(znode::decode_master(bytes)),
        5 => drop(znode::decode_meta_server(bytes)),
        6 => drop(pb::ExceptionResponse::decode(message).map(|response| {
            let exception = Exception::from_response(response);
            let _ = (exception.reaction(), exception.to_response(), exception.to_name_bytes());
        })),
        _ => {
            let (left, right) = message.split_at(message.len() / 2);
            assert_eq!(meta::compare_rows(left, right), meta::compare_rows(right, left).reverse());
        }
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let table = TableDescriptor {
        name: ok("ns:t".parse()),
        families: [("f".to_owned(), FamilyDescriptor::new("f"))].into(),
        region_replication: 2,
        settings: [("k".to_owned(), "v".to_owned())].into(),
    };
    let region =
        RegionInfo::primary(table.name.clone(), Bytes::from_static(b"a"), Bytes::new(), 17);
    let server = ok("rs-0,16020,5".parse());
    let location = meta::ReplicaRow {
        server: Some(server),
        open_sequence_id: Some(3),
        state: Some("OPEN".to_owned()),
    };
    let replicas = [(ReplicaId(0), location.clone()), (ReplicaId(1), location)].into();
    let row = RegionRow { region: region.clone(), split: false, offline: false, replicas };
    let mut cells = BytesMut::new();
    CellBlockCodec::KeyValue.encode(&ok(meta::region_cells(&row, 1)), &mut cells);
    let server = ok("rs-0,16020,5".parse());
    let moved = "Region moved to: hostname=h port=1 startCode=2. As of locationSeqNum=3.";
    let exception = pb::ExceptionResponse {
        exception_class_name: Some(
            "org.apache.hadoop.hbase.exceptions.RegionMovedException".to_owned(),
        ),
        stack_trace: Some(moved.to_owned()),
        ..Default::default()
    };
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        with(0, &schema::table_to_message(&table).encode_to_vec()),
        with(1, &schema::region_to_message(&region).encode_to_vec()),
        with(2, &cells),
        with(3, &znode::encode_cluster_id("cluster")),
        with(4, &znode::encode_master(&server, Some(16010))),
        with(5, &znode::encode_meta_server(&server)),
        with(6, &exception.encode_to_vec()),
        with(7, b"t,a,1t,b,2"),
    ]
}
