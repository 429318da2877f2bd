//! What NameNodes and DataNodes say: answers to calls, packets, responses, the page of settings;
//! and the files of settings.
//!
//! Input: a byte that chooses, then the bytes.

#![no_main]

use basalt_fuzz::{choice, seed};
use basalt_hdfs::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(fuzzing::seeds), |input: &[u8]| {
    let (kind, bytes) = choice(input);
    fuzzing::decode_part(kind, bytes);
});
