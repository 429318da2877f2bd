//! Decodes blocks that were assembled by hand from the format. `tests/store_file/golden.rs` reads
//! blocks from Apache HBase's own encoders.

use basalt_model::{Cell, CellBuilder, CellType, SequenceId};
use bytes::{BufMut, Bytes};
use proptest::prelude::*;

use super::super::data_block::{CellLayout, DataBlock, put_cell};
use super::super::error::Damage;
use super::super::file_info::{self, FileInfo};
use super::{DataFormat, Encoding, UnknownEncoding};

const DELTA: [Encoding; 3] = [Encoding::Prefix, Encoding::Diff, Encoding::FastDiff];

fn format(encoding: Encoding) -> DataFormat {
    let layout = CellLayout { tags: true, sequence_ids: true };
    DataFormat { encoding, layout, tags_compressed: true }
}

fn cell(row: &[u8], qualifier: &[u8], timestamp: i64, cell_type: CellType, value: &[u8]) -> Cell {
    tagged(row, qualifier, timestamp, cell_type, value, &[])
}

fn tagged(
    row: &[u8],
    qualifier: &[u8],
    timestamp: i64,
    cell_type: CellType,
    value: &[u8],
    tags: &[u8],
) -> Cell {
    CellBuilder { row, family: b"f", qualifier, timestamp, cell_type, value, tags }.build().unwrap()
}

/// Five cells. They include another qualifier, rows of equal and of different length, and empty
/// values. The third and the last have a tag.
fn cells() -> Vec<Cell> {
    let tag = b"\0\x03abc";
    let mut cells = vec![
        cell(b"ab", b"x", 1000, CellType::Put, b"v1"),
        cell(b"ab", b"xy", 990, CellType::Put, b"v1"),
        tagged(b"ac", b"x", 990, CellType::Delete, b"", tag),
        cell(b"b", b"x", 990, CellType::Delete, b""),
        tagged(b"b", b"y", 991, CellType::Delete, b"", tag),
    ];
    cells[0] = cells[0].clone().with_sequence_id(SequenceId(300));
    cells
}

fn plain(cells: &[Cell]) -> Vec<u8> {
    let mut plain = Vec::new();
    cells.iter().for_each(|cell| put_cell(&mut plain, cell));
    plain
}

/// The bytes that follow the value of each of [`cells`].
const RESTS: [&[u8]; 5] =
    [b"\0\x8e\x01\x2c", b"\0\0", b"\x05\xff\x03abc\0", b"\0\0", b"\x05\0\0\0"];

fn payload(encoding: Encoding, plain_length: usize, encoded: &[u8]) -> Bytes {
    let mut payload = Vec::new();
    payload.put_i16(encoding.number());
    payload.put_u32(plain_length as u32);
    payload.put_slice(encoded);
    payload.into()
}

/// [`cells`] in an encoding.
fn block(encoding: Encoding) -> Bytes {
    let first = b"\0\x02ab\x01fx\0\0\0\0\0\0\x03\xe8\x04v1";
    let (before, keys): (&[u8], [Vec<u8>; 5]) = match encoding {
        Encoding::Prefix => (
            b"",
            [
                [b"\x10\x02\0", &first[..]].concat(),
                b"\x0a\x02\x07y\0\0\0\0\0\0\x03\xde\x04v1".to_vec(),
                b"\x0d\0\x03c\x01fx\0\0\0\0\0\0\x03\xde\x08".to_vec(),
                b"\x0e\0\x01\x01b\x01fx\0\0\0\0\0\0\x03\xde\x08".to_vec(),
                b"\x0a\0\x05y\0\0\0\0\0\0\x03\xdf\x08".to_vec(),
            ],
        ),
        Encoding::Diff => (
            b"\x01f",
            [
                b"\x10\x10\x02\0\0\x02abx\xe8\x03\x04v1".to_vec(),
                b"\x0e\x11\x07y\x0av1".to_vec(),
                b"\x08\x10\0\x03cx\0\x08".to_vec(),
                b"\x0e\x0f\x01\x01bx\0".to_vec(),
                b"\x8f\x05y\x01".to_vec(),
            ],
        ),
        _ => (
            b"",
            [
                [b"\0\x10\x02\0", &first[..]].concat(),
                b"\x77\x11\x07y\xde".to_vec(),
                b"\x07\x10\0\x03cx\xde\x08".to_vec(),
                b"\x77\x0f\x01\x01bx\xde".to_vec(),
                b"\x7f\x05y\xdf".to_vec(),
            ],
        ),
    };
    let mut encoded = before.to_vec();
    for (key, rest) in keys.iter().zip(RESTS) {
        encoded.extend([key, rest].concat());
    }
    payload(encoding, plain(&cells()).len(), &encoded)
}

fn row_index_block() -> Bytes {
    let mut payload = Encoding::RowIndex.number().to_be_bytes().to_vec();
    let plain = plain(&cells());
    payload.put_slice(&plain);
    payload.put_u32(3);
    [0, 60, 90].into_iter().for_each(|offset| payload.put_u32(offset));
    payload.put_u32(plain.len() as u32);
    payload.into()
}

fn all_cells(block: &DataBlock) -> Vec<Cell> {
    let (mut cells, mut position) = (Vec::new(), 0);
    while position < block.end() {
        let (cell, next) = block.cell_at(position).unwrap();
        cells.push(cell);
        position = next;
    }
    cells
}

#[test]
fn every_encoding_gives_the_cells() {
    for encoding in DELTA {
        let parsed = format(encoding).parse(block(encoding));
        assert_eq!(all_cells(&parsed.unwrap()), cells(), "{encoding:?}");
    }
    let parsed = format(Encoding::RowIndex).parse(row_index_block());
    assert_eq!(all_cells(&parsed.unwrap()), cells());
}

#[test]
fn a_file_without_tags_and_sequence_ids_has_none_in_its_cells() {
    let layout = CellLayout { tags: false, sequence_ids: false };
    let format = DataFormat { encoding: Encoding::Diff, layout, tags_compressed: false };
    let encoded = b"\x01f\x10\x10\x02\0\0\x02abx\xe8\x03\x04v1\x0e\x11\x07y\x0av1";
    let length = 8 + 16 + 2 + 8 + 17 + 2;
    let parsed = format.parse(payload(Encoding::Diff, length, encoded)).unwrap();
    let expected = cells().into_iter().take(2).map(|cell| cell.with_sequence_id(SequenceId(0)));
    assert_eq!(all_cells(&parsed), expected.collect::<Vec<_>>());
}

#[test]
fn timestamps_below_zero_are_differences_of_their_sign() {
    let timestamps = [i64::MIN, -5, i64::MAX];
    let expected = timestamps.map(|time| cell(b"r", b"", time, CellType::Put, b""));
    let mut encoded = b"\x01f".to_vec();
    encoded.extend(b"\xf0\x0e\0\0\0\x01r\0\0\0\0\0\0\0\x80\x04\0\0");
    encoded.extend(b"\x87\x05\x05\0\0");
    // -5 minus this number is the highest timestamp: the subtraction wraps.
    encoded.extend(b"\x7f\x05\xfc\xff\xff\xff\xff\xff\xff\x7f\0\0");
    let payload = payload(Encoding::Diff, plain(&expected).len(), &encoded);
    let plain_cells = format(Encoding::Diff).decode(payload).unwrap();
    assert_eq!(plain_cells, plain(&expected));
}

#[test]
fn a_full_dictionary_forgets_the_tag_that_was_not_used_for_longest() {
    // 127 new tags, the first one again, one more that gets the number of the second, and that
    // number.
    let mut own_tags: Vec<(Vec<u8>, u8)> =
        (0..127).map(|number| (vec![0xff, 2, 65, number], number)).collect();
    own_tags.push((vec![0, 0], 0));
    own_tags.push((vec![0xff, 2, 65, 200], 200));
    own_tags.push((vec![0, 1], 200));
    own_tags.push((vec![0, 0], 0));
    let mut encoded = Vec::new();
    let mut expected = Vec::new();
    for (number, (own, last_byte)) in own_tags.iter().enumerate() {
        let timestamp = 1000 - number as i64;
        encoded.put_slice(b"\x0e\0\0\0\x01r\x01f");
        encoded.put_i64(timestamp);
        encoded.put_slice(b"\x04\x04");
        encoded.put_slice(own);
        encoded.put_u8(0);
        let tags = [0, 2, 65, *last_byte];
        expected.push(tagged(b"r", b"", timestamp, CellType::Put, b"", &tags));
    }
    let length = plain(&expected).len();
    let parsed = format(Encoding::Prefix).parse(payload(Encoding::Prefix, length, &encoded));
    assert_eq!(all_cells(&parsed.unwrap()), expected);
}

#[test]
fn tags_that_are_not_known_or_do_not_fit_are_refused() {
    let key = b"\x0e\0\0\0\x01r\x01f\0\0\0\0\0\0\0\x01\x04";
    let plain = |tags: usize| 8 + 14 + 2 + tags + 1;
    for (tags, length) in [
        (&b"\x04\0\0"[..], 4),
        (b"\x04\xff\x03abc", 4),
        (b"\x06\xff\x02ab\0\0", 6),
        (b"\x80\x80\x04\xff\x02ab", 1 << 16),
    ] {
        let encoded = [&key[..], tags, b"\0"].concat();
        let payload = payload(Encoding::Prefix, plain(length), &encoded);
        let decoded = format(Encoding::Prefix).decode(payload);
        assert!(matches!(decoded, Err(Damage::Cell { position: 4, .. })), "{decoded:?}");
    }
}

#[test]
fn no_cut_goes_unnoticed() {
    for encoding in DELTA {
        let block = block(encoding);
        for length in 0..block.len() {
            let cut = format(encoding).parse(block.slice(..length));
            assert!(cut.is_err(), "{encoding:?} cut to {length}");
        }
    }
    let block = row_index_block();
    for length in 0..block.len() {
        let cut = format(Encoding::RowIndex).parse(block.slice(..length));
        assert!(cut.is_err(), "cut to {length}");
    }
}

#[test]
fn a_block_of_another_encoding_is_refused() {
    for encoding in DELTA {
        let other = format(Encoding::RowIndex).parse(block(encoding));
        let Err(Damage::OutOfBounds { found, .. }) = other else {
            panic!("{other:?}");
        };
        assert_eq!(found, i64::from(encoding.number()));
    }
}

#[test]
fn a_block_is_as_long_as_it_says() {
    let right = plain(&cells()).len();
    for encoding in DELTA {
        let encoded = block(encoding).slice(6..);
        for wrong in [0, right - 1, right + 1, i32::MAX as usize, u32::MAX as usize] {
            let decoded = format(encoding).decode(payload(encoding, wrong, &encoded));
            assert!(matches!(decoded, Err(Damage::OutOfBounds { .. })), "{decoded:?}");
        }
    }
}

/// A value of 10 KB, followed by a million cells of 5 bytes that repeat it: 10 GB.
#[test]
fn a_value_that_is_repeated_without_end_does_not_fill_the_memory() {
    let mut encoded = b"\0\x0e\x90\x4e\0\0\x01r\x01f\0\0\0\0\0\0\0\x01\x04".to_vec();
    encoded.put_bytes(b'v', 10_000);
    encoded.put_slice(b"\0\0");
    for _ in 0..1_000_000 {
        encoded.put_slice(b"\x7f\x05\x01\0\0");
    }
    let decoded = format(Encoding::FastDiff).decode(payload(Encoding::FastDiff, 1 << 20, &encoded));
    assert!(matches!(decoded, Err(Damage::OutOfBounds { .. })), "{decoded:?}");
}

#[test]
fn an_unknown_encoding_is_named() {
    let mut info = FileInfo::default();
    assert_eq!(DataFormat::from_info(&info).unwrap().encoding, Encoding::None);
    info.put(file_info::DATA_BLOCK_ENCODING, &b"PREFIX_TREE"[..]);
    let expected = UnknownEncoding {
        what: "data block encoding",
        found: "PREFIX_TREE".to_owned(),
        supported: "NONE, PREFIX, DIFF, FAST_DIFF, ROW_INDEX_V1",
    };
    assert_eq!(DataFormat::from_info(&info).unwrap_err(), expected);
    info.put(file_info::DATA_BLOCK_ENCODING, &b"FAST_DIFF"[..]);
    info.put(file_info::INDEX_BLOCK_ENCODING, &b"PREFIX_TREE"[..]);
    assert_eq!(DataFormat::from_info(&info).unwrap_err().what, "index block encoding");
}

fn any_format() -> impl Strategy<Value = DataFormat> {
    let encoding = prop_oneof![
        Just(Encoding::Prefix),
        Just(Encoding::Diff),
        Just(Encoding::FastDiff),
        Just(Encoding::RowIndex)
    ];
    (encoding, any::<[bool; 3]>()).prop_map(|(encoding, [tags, sequence_ids, tags_compressed])| {
        let layout = CellLayout { tags, sequence_ids };
        DataFormat { encoding, layout, tags_compressed }
    })
}

/// Decodes arbitrary bytes. Everything that is accepted as a cell must be one.
fn decode_anything(format: &DataFormat, payload: Bytes) {
    if let Ok(block) = format.parse(payload) {
        assert!(!all_cells(&block).is_empty());
        assert!(block.last() < block.end());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(
        format in any_format(),
        stated in 0u32..4096,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        decode_anything(&format, payload(format.encoding, stated as usize, &bytes));
        decode_anything(&format, Bytes::from(bytes));
    }

    #[test]
    fn no_change_to_a_block_makes_a_decoder_panic(
        format in any_format(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = match format.encoding {
            Encoding::RowIndex => row_index_block().to_vec(),
            encoding => block(encoding).to_vec(),
        };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        decode_anything(&format, bytes.into());
    }
}
