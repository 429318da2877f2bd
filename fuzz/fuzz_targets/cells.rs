//! Cells: serialized, as keys, in cell blocks, in messages, and next to messages. Every cell that
//! decodes must survive being encoded and decoded again.
//!
//! Input: a selector byte, then a message, then a cell block.

#![no_main]

use basalt_fuzz::{choice, join_parts, ok, seed, two_parts};
use basalt_hbase_rpc::{CellBlockCodec, message_cells, pb};
use basalt_model::{Cell, CellBuilder, CellKey, CellType, SequenceId};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (kind, rest) = choice(input);
    let (message, block) = two_parts(rest);
    let codec =
        if kind & 1 == 0 { CellBlockCodec::KeyValue } else { CellBlockCodec::KeyValueWithTags };
    let block = Bytes::copy_from_slice(block);
    let cells = codec.decode(block.clone()).unwrap_or_default();
    let mut written = BytesMut::new();
    CellBlockCodec::KeyValueWithTags.encode(&cells, &mut written);
    assert_eq!(ok(CellBlockCodec::KeyValueWithTags.decode(written.freeze())), cells);
    for cell in &cells {
        use_cell(cell);
    }
    if let Ok(cell) = Cell::from_bytes(block.clone(), SequenceId(1)) {
        use_cell(&cell);
    }
    if let (Ok(left), Ok(right)) = (CellKey::parse(&block), CellKey::parse(message)) {
        assert_eq!(left.compare(&right), right.compare(&left).reverse());
        assert_eq!(left.to_bytes(), block);
    }
    let mut beside = cells.clone().into_iter();
    match (kind >> 1) % 4 {
        0 => drop(pb::Result::decode(message).map(|m| message_cells::cells_of(&m, &mut beside))),
        1 => drop(
            pb::ScanResponse::decode(message).map(|m| message_cells::scanned_results(&m, cells)),
        ),
        2 => drop(
            pb::MutationProto::decode(message)
                .map(|m| message_cells::mutated_cells(&m, &mut beside)),
        ),
        _ => {
            if let Ok(cell) = pb::Cell::decode(message)
                && let Ok(cell) = message_cells::from_message(&cell)
            {
                let again = message_cells::from_message(&message_cells::to_message(&cell));
                assert_eq!(again.ok().as_ref(), Some(&cell));
            }
        }
    }
});

fn use_cell(cell: &Cell) {
    let key = cell.key();
    assert_eq!(key.to_bytes(), cell.key_bytes());
    let _ = (cell.cell_type(), cell.value(), cell.tags());
    let moved = cell.copy_into(&mut BytesMut::new(), 77);
    assert_eq!((moved.timestamp(), moved.value()), (77, cell.value()));
    assert_eq!(moved.tags(), cell.tags());
}

fn seeds() -> Vec<Vec<u8>> {
    let build = |cell_type, tags| {
        ok(CellBuilder {
            row: b"row",
            family: b"f",
            qualifier: b"q",
            timestamp: 5,
            cell_type,
            value: b"value",
            tags,
        }
        .build())
    };
    let cells = vec![build(CellType::Put, &[][..]), build(CellType::DeleteColumn, &[0, 2, 7, 9])];
    let mut block = BytesMut::new();
    CellBlockCodec::KeyValueWithTags.encode(&cells, &mut block);
    let result = pb::Result { associated_cell_count: Some(2), ..Default::default() };
    let scanned = pb::ScanResponse { cells_per_result: vec![1, 1], ..Default::default() };
    let mutation = message_cells::mutation(Bytes::from_static(b"row"), Default::default(), 2);
    let cell = message_cells::to_message(&cells[1]);
    let with = |kind: u8, message: Vec<u8>, block: &[u8]| {
        [&[kind], &join_parts(&message, block)[..]].concat()
    };
    vec![
        with(1, result.encode_to_vec(), &block),
        with(3, scanned.encode_to_vec(), &block),
        with(5, mutation.encode_to_vec(), &block),
        with(7, cell.encode_to_vec(), &block),
        with(0, cells[0].key_bytes().to_vec(), cells[1].key_bytes()),
        with(0, Vec::new(), cells[1].bytes()),
    ]
}
