//! The parts of a store file one by one, as they are once their checksum was right: data blocks,
//! index blocks, the bloom filter's meta block, the file info, the trailer, compressed bytes.
//!
//! Input: a byte that chooses the part and its variant, then its bytes.

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
    let cell = [&[0, 0, 0, 16, 0, 0, 0, 1][..], key, b"v\0\0\x07"].concat();
    let entry = [&[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 99][..], key].concat();
    let length = entry.len() as u8;
    let index = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, length][..], &entry].concat();
    let root = [&[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 99, 16][..], key].concat();
    let bloom = [
        &[0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 5, 0, 0, 0, 1][..],
        &[0; 16],
        &[0, 0, 0, 1, 0],
        &root,
    ]
    .concat();
    let info = [&b"PBUF\x0f\x0a\x0d\x0a\x09"[..], b"TIMERANGE\x12\0"].concat();
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        with(24, &cell),
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
    ]
}
