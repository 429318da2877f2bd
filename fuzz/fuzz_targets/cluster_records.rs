//! The records that masters and region servers keep in the coordinator: regions, tables, servers,
//! fences, procedures, names. Regions, tables, procedures and names that decode must survive being
//! encoded and decoded again.
//!
//! Input: a selector byte, then the record.

#![no_main]

use basalt_cluster::{RegionRecord, TableRecord, pb};
use basalt_fuzz::{choice, ok, seed};
use basalt_master::fuzzing::decode_procedure;
use basalt_model::{
    EncodedRegionName, FamilyDescriptor, RegionInfo, ServerName, TableDescriptor, TableName,
    TableState,
};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (kind, bytes) = choice(input);
    match kind % 8 {
        0 => {
            if let Ok(record) = RegionRecord::decode(bytes) {
                assert_eq!(ok(RegionRecord::decode(&record.encode())), record);
                let _ = (record.encoded_name(), record.info.name());
            }
        }
        1 => {
            if let Ok(record) = TableRecord::decode(bytes) {
                assert_eq!(ok(TableRecord::decode(&record.encode())), record);
            }
        }
        2 => decode_procedure(bytes),
        3 => drop(pb::FencedRecord::decode(bytes)),
        4 => drop(pb::ServerRecord::decode(bytes)),
        5 => drop(pb::ClusterRecord::decode(bytes)),
        6 => drop(pb::MasterRecord::decode(bytes)),
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Ok(name) = text.parse::<ServerName>() {
                assert_eq!(ok(name.to_string().parse::<ServerName>()), name);
            }
            if let Ok(name) = text.parse::<TableName>() {
                assert_eq!(ok(name.to_string().parse::<TableName>()), name);
            }
            if let Ok(name) = text.parse::<EncodedRegionName>() {
                assert_eq!(ok(name.to_string().parse::<EncodedRegionName>()), name);
            }
        }
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let table: TableName = ok("ns:t".parse());
    let region = RegionInfo::primary(table.clone(), Bytes::from_static(b"a"), Bytes::new(), 17);
    let mut region = RegionRecord::new(region).assigned_to(ok("rs-0,16020,5".parse()));
    region.unflushed.push(ok("rs-1,16020,4".parse()));
    let descriptor = TableDescriptor {
        name: table,
        families: [("f".to_owned(), FamilyDescriptor::new("f"))].into(),
        region_replication: 1,
        settings: [("k".to_owned(), "v".to_owned())].into(),
    };
    let table = TableRecord {
        descriptor,
        state: TableState::Enabled,
        incarnations: [("f".to_owned(), 3)].into(),
        removed: ["g".to_owned()].into(),
    };
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        with(0, &region.encode()),
        with(1, &table.encode()),
        with(2, b"\x08\x01\x10\x02\x52\x06\x0a\x04ns:t"),
        with(3, b"\x0a\x04boot"),
        with(7, b"rs-0.demo,16020,1700000000000"),
        with(7, b"ns:t"),
        with(7, b"0123456789abcdef0123456789abcdef"),
    ]
}
