//! Data that NameNodes and DataNodes send: answers to calls, packets, responses and the settings
//! page. Also settings files.
//!
//! Input: a selector byte, then the bytes.

#![no_main]

use basalt_fuzz::{choice, seed};
use basalt_hdfs::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(fuzzing::seeds), |input: &[u8]| {
    let (kind, bytes) = choice(input);
    fuzzing::decode_part(kind, bytes);
});
