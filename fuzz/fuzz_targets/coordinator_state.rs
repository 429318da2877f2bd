//! The data that a coordinator stores and applies: snapshot files, the state in them, commands.
//!
//! Input: a selector byte, then a snapshot, a state, or commands.

#![no_main]

use std::path::Path;

use basalt_coordinator::fuzzing::{
    apply_commands, decode_state, read_snapshot, sample_commands, sample_state,
};
use basalt_fuzz::{block_on, checksums, choice, disk_with, seed};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(seeds), |input: &[u8]| {
    let (kind, bytes) = choice(input);
    match kind % 3 {
        0 => {
            let mut file = bytes.to_vec();
            checksums::repair_snapshot(&mut file);
            block_on(async {
                let folder = Path::new("/member");
                let path = folder.join("snapshot-00000000000000000001-00000000000000000001");
                read_snapshot(disk_with(&path, &file).await, folder).await;
            });
        }
        1 => drop(decode_state(Bytes::copy_from_slice(bytes))),
        _ => apply_commands(Bytes::copy_from_slice(bytes)),
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let state = sample_state();
    let commands = sample_commands().concat();
    vec![
        [&[0, 0, 0, 0, 0, 0], &state[..]].concat(),
        [&[0, 0, 0, 0, 0, 8, 0x0a, 4, 8, 1, 16, 1, 0x12, 0], &state[..]].concat(),
        [&[1], &state[..]].concat(),
        [&[2], &commands[..]].concat(),
    ]
}
