//! The parts of a store file one by one, in the form that they have after their checksum was
//! verified: data blocks in every encoding, index blocks, the Bloom filter's meta block, the file
//! info, the trailer, compressed bytes.
//!
//! Input: a byte that selects the part and its variant, then the bytes of the part.

#![no_main]

use basalt_fuzz::{choice, seed};
use basalt_storage::store_file::fuzzing::decode_part;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (kind, bytes) = choice(input);
    decode_part(kind, Bytes::copy_from_slice(bytes));
});

fn seeds() -> Vec<Vec<u8>> {
    let key = b"\x00\x01r\x01fq\0\0\0\0\0\0\0\x05\x04";
    let cell = [&[0, 0, 0, 15, 0, 0, 0, 1][..], key, b"v\0\0\x07"].concat();
    let row_index = [&cell[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, cell.len() as u8]].concat();
    let entry = [&[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 99][..], key].concat();
    let length = entry.len() as u8;
    let index = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, length][..], &entry].concat();
    let root = [&[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 99, 15][..], key].concat();
    let bloom = [
        &[0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 5, 0, 0, 0, 1][..],
        &[0; 16],
        &[0, 0, 0, 1, 0],
        &root,
    ]
    .concat();
    let info = [&b"PBUF\x0f\x0a\x0d\x0a\x09"[..], b"TIMERANGE\x12\0"].concat();
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let others = vec![
        with(24, &cell),
        with(24 | 4 << 5, &row_index),
        with(1, &index),
        with(2 | 1 << 3, &root),
        with(3, &bloom),
        with(3 | 8, &bloom),
        with(4, &info),
        with(5, b"TRABLK\"$\x04\x10\0\x40\x01\x03\0\0\x03"),
        with(6 | 2 << 3, b"\0\0\0\x05\0\0\0\x07\x05\x10hello"),
        with(6 | 3 << 3, b"\0\0\0\x05\0\0\0\x06\x50hello"),
        with(6 | 4 << 3, b"\x28\xb5\x2f\xfd\x20\x05\x29\0\0hello"),
        with(7, b"DATABLK*"),
    ];
    others.into_iter().chain(delta_seeds(key)).collect()
}

/// Two cells in each of PREFIX, DIFF and FAST_DIFF, with the same tag, plain and compressed.
fn delta_seeds(key: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let prefix = [&[15, 1, 0], key, b"v"].concat();
    let fast_diff = [&[0], &prefix[..]].concat();
    let encodings = [
        (1, 5, &b""[..], prefix, &b"\x0a\x01\x05w\0\0\0\0\0\0\0\x05\x04v"[..]),
        (2, 6, b"\x01f", b"\0\x0f\x01\0\0\x01rq\x05\x04v".to_vec(), b"\x0f\x05w\0v"),
        (3, 7, b"", fast_diff, b"\x7f\x05w\x05"),
    ];
    let seed = |kind: u8, family: &[u8], first: &[u8], second: &[u8], tags: [&[u8]; 2]| {
        let cells = [first, tags[0], second, tags[1]].concat();
        [&[24 | kind << 5, 0, 0, 0, 64], family, &cells[..]].concat()
    };
    encodings.into_iter().flat_map(move |(plain, compressed, family, first, second)| {
        let tags = [&b"\x05\0\x03abc\x07"[..]; 2];
        let packed = [&b"\x05\xff\x03abc\x07"[..], b"\x05\0\0\x07"];
        [
            seed(plain, family, &first, second, tags),
            seed(compressed, family, &first, second, packed),
        ]
    })
}
